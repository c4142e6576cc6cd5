//! Who holds a lock, and whether runs wait for each other.
//!
//! Always true: whoever stands first in a lock's queue holds it, so a look decides nothing, it only sees. A lock is held
//! while its step is under way; so runs can wait for each other only where such a step began another run that waits. A
//! look ends when the store answers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::Core;
use crate::names::{RunId, StepId};
use crate::store::{LockRow, StoreError};
use crate::workflow::LockSeen;

/// Rows that a search for runs that wait for each other looks at; beyond, none is found.
pub(super) const ROWS_MAX: usize = 10_000;
/// Runs whose origin such a search asks for.
const ORIGINS_MAX: usize = 200;
/// Until the store is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// What the queue of a lock shows to one that stands in it.
pub(super) async fn look(
    core: Arc<Core>,
    name: String,
    run: RunId,
    parent: Option<RunId>,
    step: StepId,
    item: Option<u32>,
) -> LockSeen {
    loop {
        match seen(&core, &name, run, parent, &step, item).await {
            Ok(seen) => return seen,
            Err(error) => {
                tracing::warn!(%run, lock = name, %error, "the lock's queue cannot be seen");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn seen(
    core: &Core,
    name: &str,
    run: RunId,
    parent: Option<RunId>,
    step: &StepId,
    item: Option<u32>,
) -> Result<LockSeen, StoreError> {
    let first = core.store.locks(Some(vec![name.to_owned()]), 1).await?;
    let Some(first) = first.first() else { return Ok(LockSeen::First) };
    if first.run == run && first.step == *step && first.item == item {
        return Ok(LockSeen::First);
    }
    // Without a run that began it, nobody who waits for this one holds anything.
    if let Some(parent) = parent
        && let Some(cycle) = cycle(core, run, parent, first.run).await?
    {
        return Ok(LockSeen::Deadlock { cycle });
    }
    Ok(LockSeen::Behind { holder: first.run })
}

/// Runs that wait for each other, this one first.
async fn cycle(core: &Core, run: RunId, parent: RunId, holder: RunId) -> Result<Option<Vec<RunId>>, StoreError> {
    let rows = core.store.locks(None, ROWS_MAX).await?;
    let mut origins = HashMap::from([(run, Some(parent))]);
    let mut waiting: HashMap<RunId, Vec<RunId>> = HashMap::new();
    for (waiter, holder) in waits(&rows) {
        waiting.entry(waiter).or_default().push(holder);
    }
    // Whom each waiter keeps waiting: every run above it, whose step goes on only after it.
    let mut kept: HashMap<RunId, Vec<RunId>> = HashMap::new();
    for waiter in waiting.keys().copied() {
        let mut above = waiter;
        while let Some(origin) = origin(core, above, &mut origins).await? {
            if origin == above || kept.get(&origin).is_some_and(|waiters| waiters.contains(&waiter)) {
                break;
            }
            kept.entry(origin).or_default().push(waiter);
            above = origin;
        }
    }
    let mine: HashSet<RunId> =
        kept.iter().filter(|(_, waiters)| waiters.contains(&run)).map(|(above, _)| *above).collect();
    let mut seen = HashSet::new();
    let mut paths = vec![vec![run, holder]];
    while let Some(path) = paths.pop() {
        let Some(last) = path.last().copied() else { continue };
        if mine.contains(&last) {
            return Ok(Some(path));
        }
        if !seen.insert(last) {
            continue;
        }
        for waiter in kept.get(&last).into_iter().flatten() {
            for next in waiting.get(waiter).into_iter().flatten() {
                let mut path = path.clone();
                path.extend([*waiter, *next]);
                paths.push(path);
            }
        }
    }
    Ok(None)
}

/// Who waits for whom: each that stands in a queue for the first in it.
fn waits(rows: &[LockRow]) -> Vec<(RunId, RunId)> {
    let mut holders: HashMap<&str, RunId> = HashMap::new();
    let mut waits = Vec::new();
    for row in rows {
        match holders.get(row.name.as_str()) {
            None => drop(holders.insert(&row.name, row.run)),
            Some(holder) if *holder != row.run => waits.push((row.run, *holder)),
            Some(_) => {}
        }
    }
    waits
}

/// The run that began a run.
async fn origin(
    core: &Core,
    run: RunId,
    known: &mut HashMap<RunId, Option<RunId>>,
) -> Result<Option<RunId>, StoreError> {
    if let Some(origin) = known.get(&run) {
        return Ok(*origin);
    }
    if known.len() >= ORIGINS_MAX {
        return Ok(None);
    }
    let origin = core.store.run(run).await?.and_then(|summary| summary.parent);
    known.insert(run, origin);
    Ok(origin)
}

/// Somebody left a lock's queue: whoever stands first now is woken, where it is this process's.
pub(super) async fn left(core: &Arc<Core>, name: &str) {
    if !core.alarm.minds_lock(name) {
        return;
    }
    match core.store.locks(Some(vec![name.to_owned()]), 1).await {
        Ok(rows) => {
            let first = rows.first().map(|row| row.run);
            if let Some(run) = first.filter(|run| core.alarm.waits_for(*run, name)) {
                core.wake(run);
            }
        }
        Err(error) => {
            // Whoever waits looks for itself, until the store answers.
            tracing::warn!(lock = name, %error, "the lock's queue cannot be seen");
            core.alarm.waiters(name).into_iter().for_each(|run| core.wake(run));
        }
    }
}
