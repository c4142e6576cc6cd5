//! Reads the queues of locks, and detects deadlocks.
//!
//! Always true: the first step in a lock's queue holds the lock; reading the queue changes nothing. A lock is held
//! while its step is in progress, so a deadlock is possible only if a step that holds a lock has started a child that
//! waits for a lock. A query is repeated until the store answers.
//!
//! If the name of a lock is computed from a sensitive value, the table has a hash in its place ([`Sealer::lock_hash`]).
//! The same name may be sensitive in one run and not in another. The rows of both runs are in the same queue, so rows
//! are looked for under the name and under its hash.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::context::Core;
use crate::engine::ports::seal::Sealer;
use crate::names::{RunId, Seq, StepId};
use crate::store::{LockRow, StoreError};
use crate::workflow::{Event, LockPosition, Parent, WaitLink};

/// How many queue entries a search for a deadlock reads. A deadlock beyond them is not detected.
pub(in crate::engine) const ROWS_MAX: usize = 10_000;
/// How many runs such a search reads to find their parents.
const PARENTS_MAX: usize = 200;
/// The pause after the store did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The position of a step in the queue of a lock; `None` where the queue is empty.
pub(in crate::engine) async fn query(
    core: Arc<Core>,
    name: String,
    run: RunId,
    parent: Option<Parent>,
    step: StepId,
    item: Option<u32>,
) -> Option<LockPosition> {
    loop {
        match read_position(&core, &name, run, parent.as_ref(), &step, item).await {
            Ok(Some(position)) => return Some(position),
            Ok(None) => {
                tokio::time::sleep(RETRY_PAUSE).await;
                return None;
            }
            Err(error) => {
                tracing::warn!(%run, %step, %error, "the lock's queue cannot be read: it is tried again");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn read_position(
    core: &Core,
    name: &str,
    run: RunId,
    parent: Option<&Parent>,
    step: &StepId,
    item: Option<u32>,
) -> Result<Option<LockPosition>, StoreError> {
    let first = core.ports.store.locks(Some(names(&core.ports.sealer, name)), 1).await?;
    let Some(first) = first.first() else { return Ok(None) };
    if first.run == run && first.step == *step && first.item == item {
        return Ok(Some(LockPosition::First));
    }
    // A step holds at most one lock, and only a parent's step waits while it holds one. So no lock of another step can
    // be held up by this wait if the run has no parent.
    if let Some(parent) = parent {
        let sealer = &core.ports.sealer;
        let mut rows = core.ports.store.locks(None, ROWS_MAX).await?;
        let mut shown = HashMap::new();
        for row in &mut rows {
            let queue = queue(sealer, &row.name);
            // A name that is in clear in one row is not secret, so it is shown.
            let known: &mut String = shown.entry(queue.clone()).or_insert_with(|| row.name.clone());
            if *known == queue {
                known.clone_from(&row.name);
            }
            row.name = queue;
        }
        if let Some(mut links) = find_deadlock(core, &rows, run, parent, &queue(sealer, name)).await? {
            for name in links.iter_mut().flat_map(|link| [&mut link.holds, &mut link.wants]) {
                if let Some(shown) = shown.get(&*name) {
                    name.clone_from(shown);
                }
            }
            return Ok(Some(LockPosition::Deadlock { links }));
        }
    }
    Ok(Some(LockPosition::Behind { holder: first.run }))
}

/// Searches for a cycle of runs that wait for each other and that includes this run. Each link says which run holds
/// which lock, and which run waits for which lock.
///
/// A step that holds a lock blocks all steps behind it in the queue, and itself waits only for the child that it
/// started; what other steps of its run wait for does not matter.
async fn find_deadlock(
    core: &Core,
    rows: &[LockRow],
    run: RunId,
    parent: &Parent,
    name: &str,
) -> Result<Option<Vec<WaitLink>>, StoreError> {
    let mut holders: HashMap<&str, &LockRow> = HashMap::new();
    let mut waiters: Vec<&LockRow> = Vec::new();
    for row in rows {
        let holder = *holders.entry(&row.name).or_insert(row);
        if holder.run != row.run {
            waiters.push(row);
        }
    }
    // This run comes first, so that `PARENTS_MAX` is not used up before its ancestors are read.
    waiters.sort_by_key(|row| row.run != run);
    let mut ancestry = Ancestry { core, parent_ids: HashMap::from([(run, Some(parent.run))]), parents: HashMap::new() };
    ancestry.parents.insert(run, Some(parent.clone()));
    // For each run the waiting descendants, each with the child through which it descends.
    let mut waiting_descendants: HashMap<RunId, Vec<(&LockRow, RunId)>> = HashMap::new();
    for row in &waiters {
        let (mut child, mut seen) = (row.run, HashSet::new());
        while let Some(ancestor) = ancestry.parent_id(child).await?.filter(|_| seen.insert(child)) {
            waiting_descendants.entry(ancestor).or_default().push((row, child));
            child = ancestor;
        }
    }
    let mut seen = HashSet::new();
    // A path is a chain of waiting runs, each with the lock that it waits for.
    let mut paths = vec![vec![(run, name)]];
    while let Some(path) = paths.pop() {
        let Some(holder) = path.last().and_then(|(_, lock)| holders.get(lock)) else { continue };
        if !seen.insert(holder.name.as_str()) {
            continue;
        }
        for (waiter, child) in waiting_descendants.get(&holder.run).into_iter().flatten() {
            let started_by = ancestry.parent(*child).await?;
            if started_by.is_none_or(|parent| parent.step != holder.step || parent.item != holder.item) {
                continue;
            }
            if waiter.run == run {
                return Ok(Some(links_of(&path, &holders)));
            }
            let mut path = path.clone();
            path.push((waiter.run, &waiter.name));
            paths.push(path);
        }
    }
    Ok(None)
}

/// The links of the cycle. In the first link the waiter is the run that the search began with, and the holder is an
/// ancestor of it.
fn links_of(path: &[(RunId, &str)], holders: &HashMap<&str, &LockRow>) -> Vec<WaitLink> {
    let holds = path.iter().map(|(_, lock)| *lock).cycle().skip(path.len().saturating_sub(1));
    let links = holds.zip(path).filter_map(|(lock, (waiter, wants))| {
        let holder = holders.get(lock)?.run;
        Some(WaitLink { holder, holds: lock.to_owned(), waiter: *waiter, wants: (*wants).to_owned() })
    });
    links.collect()
}

/// The parents of runs, read from the store when they are needed.
struct Ancestry<'a> {
    core: &'a Core,
    parent_ids: HashMap<RunId, Option<RunId>>,
    /// The parent with the step that started the child, from the child's first event.
    parents: HashMap<RunId, Option<Parent>>,
}

impl Ancestry<'_> {
    async fn parent_id(&mut self, run: RunId) -> Result<Option<RunId>, StoreError> {
        if let Some(parent_id) = self.parent_ids.get(&run) {
            return Ok(*parent_id);
        }
        if self.parent_ids.len() >= PARENTS_MAX {
            return Ok(None);
        }
        let parent_id = self.core.ports.store.run(run).await?.and_then(|summary| summary.parent);
        self.parent_ids.insert(run, parent_id);
        Ok(parent_id)
    }
    async fn parent(&mut self, run: RunId) -> Result<Option<Parent>, StoreError> {
        if let Some(parent) = self.parents.get(&run) {
            return Ok(parent.clone());
        }
        let events = self.core.ports.store.events(run, Seq::FIRST).await?;
        let parent = events.first().and_then(|first| match &first.event {
            Event::RunStarted(started) => started.parent.clone(),
            _ => None,
        });
        self.parents.insert(run, parent.clone());
        Ok(parent)
    }
}

/// Called when a step has left a lock's queue: wakes the run whose step is first now, if that run waits here.
pub(in crate::engine) async fn wake_first(core: &Arc<Core>, name: &str) {
    let queue = queue(&core.ports.sealer, name);
    if !core.schedule.timers.watches_lock(&queue) {
        return;
    }
    let names = names(&core.ports.sealer, name);
    if core.ports.sealer.has_key() && names.len() == 1 {
        // Only the hash is known, so rows with the name in clear cannot be looked for, and it is not known which row is
        // first.
        return wake_waiters(core, &queue);
    }
    match core.ports.store.locks(Some(names), 1).await {
        Ok(rows) => {
            let first = rows.first().map(|row| row.run);
            if let Some(run) = first.filter(|run| core.schedule.timers.waits_for(*run, &queue)) {
                core.wake(run);
            }
        }
        Err(error) => {
            tracing::warn!(%error, "a lock's queue cannot be read: every run that waits for it reads it until the store answers");
            wake_waiters(core, &queue);
        }
    }
}

fn wake_waiters(core: &Arc<Core>, queue: &str) {
    core.schedule.timers.waiters(queue).into_iter().for_each(|run| core.wake(run));
}

/// Identifies a lock's queue, whichever form of the lock's name its rows have: the hash of the name where there is a
/// store key, else the name.
pub(in crate::engine) fn queue(sealer: &Sealer, name: &str) -> String {
    sealer.lock_hash(name).unwrap_or_else(|| name.to_owned())
}

/// The names that the rows of a lock's queue may have: the name and, with a store key, its hash; only the hash where
/// `name` is the hash.
pub(in crate::engine) fn names(sealer: &Sealer, name: &str) -> Vec<String> {
    let hash = sealer.lock_hash(name).filter(|hash| hash != name);
    std::iter::once(name.to_owned()).chain(hash).collect()
}
