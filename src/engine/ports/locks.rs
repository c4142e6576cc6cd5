//! Who holds a lock, and whether runs wait for each other.
//!
//! Always true: whoever stands first in a lock's queue holds it, so a look decides nothing, it only sees. A lock is held
//! while its step is under way; so runs can wait for each other only where that very step began another run that waits.
//! A look ends when the store answers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::context::Core;
use crate::names::{RunId, StepId};
use crate::store::{LockRow, StoreError};
use crate::workflow::{Event, Knot, LockSeen, Parent};

/// Rows that a search for runs that wait for each other looks at; beyond, none is found.
pub(in crate::engine) const ROWS_MAX: usize = 10_000;
/// Runs whose origin such a search asks for.
const ORIGINS_MAX: usize = 200;
/// Until the store is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// What the queue of a lock shows to one that stands in it; `None` where nobody does.
pub(in crate::engine) async fn look(
    core: Arc<Core>,
    name: String,
    run: RunId,
    parent: Option<Parent>,
    step: StepId,
    item: Option<u32>,
) -> Option<LockSeen> {
    loop {
        match seen(&core, &name, run, parent.as_ref(), &step, item).await {
            Ok(Some(seen)) => return Some(seen),
            Ok(None) => {
                tokio::time::sleep(PAUSE).await;
                return None;
            }
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
    parent: Option<&Parent>,
    step: &StepId,
    item: Option<u32>,
) -> Result<Option<LockSeen>, StoreError> {
    let first = core.ports.store.locks(Some(vec![name.to_owned()]), 1).await?;
    let Some(first) = first.first() else { return Ok(None) };
    if first.run == run && first.step == *step && first.item == item {
        return Ok(Some(LockSeen::First));
    }
    // Without a run that began it, nobody who waits for this one holds anything.
    if let Some(parent) = parent {
        let rows = core.ports.store.locks(None, ROWS_MAX).await?;
        if let Some(knots) = knots(core, &rows, run, parent, name).await? {
            return Ok(Some(LockSeen::Deadlock { knots }));
        }
    }
    Ok(Some(LockSeen::Behind { holder: first.run }))
}

/// Runs that wait for each other, so that this one never gets the lock: who keeps whom waiting, all the way round.
///
/// A step that holds a lock keeps waiting for it whoever stands behind it, and goes on only after the run that it began;
/// what other steps of its run wait for is nothing to it.
async fn knots(
    core: &Core,
    rows: &[LockRow],
    run: RunId,
    parent: &Parent,
    name: &str,
) -> Result<Option<Vec<Knot>>, StoreError> {
    let mut holders: HashMap<&str, &LockRow> = HashMap::new();
    let mut waiters: Vec<&LockRow> = Vec::new();
    for row in rows {
        let holder = *holders.entry(&row.name).or_insert(row);
        if holder.run != row.run {
            waiters.push(row);
        }
    }
    // This one's family first: then the bound of looks does not hide it.
    waiters.sort_by_key(|row| row.run != run);
    let mut families = Families { core, above: HashMap::from([(run, Some(parent.run))]), parents: HashMap::new() };
    families.parents.insert(run, Some(parent.clone()));
    // Under each run those that wait, and through which of the runs that it began.
    let mut below: HashMap<RunId, Vec<(&LockRow, RunId)>> = HashMap::new();
    for row in &waiters {
        let (mut child, mut seen) = (row.run, HashSet::new());
        while let Some(above) = families.above(child).await?.filter(|_| seen.insert(child)) {
            below.entry(above).or_default().push((row, child));
            child = above;
        }
    }
    let mut seen = HashSet::new();
    // Each path: the locks that are waited for in turn, and by whom.
    let mut paths = vec![vec![(run, name)]];
    while let Some(path) = paths.pop() {
        let Some(holder) = path.last().and_then(|(_, lock)| holders.get(lock)) else { continue };
        if !seen.insert(holder.name.as_str()) {
            continue;
        }
        for (waiter, child) in below.get(&holder.run).into_iter().flatten() {
            let began = families.parent(*child).await?;
            if began.is_none_or(|began| began.step != holder.step || began.item != holder.item) {
                continue;
            }
            if waiter.run == run {
                return Ok(Some(knotted(&path, &holders)));
            }
            let mut path = path.clone();
            path.push((waiter.run, &waiter.name));
            paths.push(path);
        }
    }
    Ok(None)
}

/// The path as it is told: first whoever keeps its own descendant waiting.
fn knotted(path: &[(RunId, &str)], holders: &HashMap<&str, &LockRow>) -> Vec<Knot> {
    let holds = path.iter().map(|(_, lock)| *lock).cycle().skip(path.len().saturating_sub(1));
    let knots = holds.zip(path).filter_map(|(lock, (waiter, wants))| {
        let holder = holders.get(lock)?.run;
        Some(Knot { holder, holds: lock.to_owned(), waiter: *waiter, wants: (*wants).to_owned() })
    });
    knots.collect()
}

/// Which run began which.
struct Families<'a> {
    core: &'a Core,
    above: HashMap<RunId, Option<RunId>>,
    /// With the step that began it: read only where that matters.
    parents: HashMap<RunId, Option<Parent>>,
}

impl Families<'_> {
    async fn above(&mut self, run: RunId) -> Result<Option<RunId>, StoreError> {
        if let Some(above) = self.above.get(&run) {
            return Ok(*above);
        }
        if self.above.len() >= ORIGINS_MAX {
            return Ok(None);
        }
        let above = self.core.ports.store.run(run).await?.and_then(|summary| summary.parent);
        self.above.insert(run, above);
        Ok(above)
    }
    async fn parent(&mut self, run: RunId) -> Result<Option<Parent>, StoreError> {
        if let Some(parent) = self.parents.get(&run) {
            return Ok(parent.clone());
        }
        let events = self.core.events(run).await?;
        let parent = events.first().and_then(|first| match &first.event {
            Event::RunStarted(started) => started.parent.clone(),
            _ => None,
        });
        self.parents.insert(run, parent.clone());
        Ok(parent)
    }
}

/// Somebody left a lock's queue: whoever stands first now is woken, where it is this process's.
pub(in crate::engine) async fn left(core: &Arc<Core>, name: &str) {
    if !core.schedule.timers.watches_lock(name) {
        return;
    }
    match core.ports.store.locks(Some(vec![name.to_owned()]), 1).await {
        Ok(rows) => {
            let first = rows.first().map(|row| row.run);
            if let Some(run) = first.filter(|run| core.schedule.timers.waits_for(*run, name)) {
                core.wake(run);
            }
        }
        Err(error) => {
            // Whoever waits looks for itself, until the store answers.
            tracing::warn!(lock = name, %error, "the lock's queue cannot be seen");
            core.schedule.timers.waiters(name).into_iter().for_each(|run| core.wake(run));
        }
    }
}
