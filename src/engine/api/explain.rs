//! Explains, in sentences for people, what a run waits for.
//!
//! Always true: nothing is changed. The reasons that follow from the run's events come from `workflow` ([`waits`]);
//! what only the engine knows is added here: who holds a lock, when a service's breaker lets the next call through,
//! whether a task of this process executes the run. An explanation describes one moment: the durable events and the
//! state of this process at that time.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::engine::api::types::Explanation;
use crate::engine::context::Core;
use crate::engine::ports::breaker::BreakerState;
use crate::engine::ports::locks;
use crate::engine::scheduler::command_error::CommandError;
use crate::engine::scheduler::load::{self, LoadError};
use crate::flag::Freeze;
use crate::names::{RunId, ServiceName, StepId};
use crate::store::{LockRow, StoredEvent};
use crate::workflow::{
    Conditions, Event, LockEvent, Redaction, RunSummary, Taint, WaitKind, WaitReason, WaitStartTimes, ago, fold, waits,
};

fn store_error(error: impl ToString) -> CommandError {
    CommandError::Store { why: error.to_string(), unknown: false }
}

/// How many descendants of a run are explained with it; further ones are only named.
const DESCENDANTS_MAX: usize = 16;

/// When each step (and item) of a run took the lock that it holds.
type TakenLocks = BTreeMap<(StepId, Option<u32>), Timestamp>;

/// Bounds what an explanation reads, and caches what it has read.
struct Reads {
    /// How many more descendants may be explained.
    descendants: usize,
    /// For each run that is first in a lock's queue: the locks that the run holds. Many items may wait for locks of one
    /// run, whose events are read only once.
    holders: BTreeMap<RunId, TakenLocks>,
}

/// Explains what a run that has not ended waits for.
pub(in crate::engine) async fn explain(core: &Arc<Core>, id: RunId) -> Result<Explanation, CommandError> {
    let mut reads = Reads { descendants: DESCENDANTS_MAX, holders: BTreeMap::new() };
    Ok(explain_within(core, id, &mut reads).await?.0)
}

/// The explanation, and whether the run or a descendant waits for a person.
async fn explain_within(core: &Arc<Core>, id: RunId, reads: &mut Reads) -> Result<(Explanation, bool), CommandError> {
    let summary = core.ports.store.run(id).await.map_err(store_error)?.ok_or(CommandError::NoRun)?;
    if summary.status.is_final() {
        let note = summary.note.as_ref().map_or_else(String::new, |note| format!(" {note}"));
        let sentence = format!("It has ended: {}.{note}", summary.status.as_str());
        return Ok((Explanation { run: summary, sentence, waits: Vec::new(), stuck: false }, false));
    }
    let events = match core.events(id).await {
        Ok(events) => events,
        Err(error) => {
            // The store answers other queries, so only the events of this run cannot be read.
            core.ports.store.run(id).await.map_err(store_error)?;
            return Ok(unreadable(summary, format!("its events cannot be read: {error}")));
        }
    };
    let mut run = match fold(events.iter().map(|stored| &stored.event)) {
        Ok(run) => run,
        Err(misfit) => return Ok(unreadable(summary, format!("its events cannot be read: {misfit}"))),
    };
    let snapshot = core.files.snapshot.load_full();
    let plan = match load::plan_of(core, &snapshot, &run.started().plan).await {
        Ok(plan) => plan,
        Err(LoadError::Store(error)) => return Err(store_error(error)),
        Err(LoadError::Unreadable(why) | LoadError::EventsUnavailable(why)) => return Ok(unreadable(summary, why)),
    };
    run.collect_sensitive(&plan, events.iter().map(|stored| &stored.event));
    let since = WaitStartTimes::of(events.iter().map(|stored| (stored.at, &stored.event)));
    let hold_effects = core.process.kill_switch.freeze() == Freeze::Effects;
    let conditions = Conditions { now: core.process.clock.now(), hold_effects };
    let reasons = waits(&run, &plan, &snapshot.decision_inputs, conditions, &since);
    let mut lines = Vec::with_capacity(reasons.len());
    for reason in &reasons {
        let needs_no_person =
            !matches!(reason.kind, WaitKind::Paused | WaitKind::Conflict(_) | WaitKind::Checkpoint(_) | WaitKind::Held);
        match &reason.kind {
            WaitKind::Child(child) if reads.descendants > 0 => {
                reads.descendants -= 1;
                let (person, state) = explain_child(core, *child, reads).await?;
                lines.push((needs_no_person && !person, format!("{} ({state})", reason.sentence)));
            }
            _ => lines.push((needs_no_person, with_details(core, reason, id, reads).await?)),
        }
        if let Some(name) = reason.step.as_ref().and_then(|step| run.held_lock(step, reason.item))
            && let Some((_, line)) = lines.last_mut()
        {
            line.push_str(&lock_waiters(core, name, id).await?);
        }
    }
    if let Some(taint) = Taint::of(&plan, &run) {
        for name in taint.sensitive_lock_names(&run) {
            let (clear, shown) = (format!("`{name}`"), format!("`{}`", locks::queue(&core.ports.sealer, name)));
            lines.iter_mut().for_each(|(_, line)| *line = line.replace(&clear, &shown));
        }
    }
    if let Some(redaction) = Redaction::of(&plan, &run) {
        lines.iter_mut().for_each(|(_, line)| *line = redaction.text(line));
    }
    // Reasons that a person can act on come first, here and in descendants.
    lines.sort_by_key(|(needs_no_person, _)| *needs_no_person);
    let person = lines.first().is_some_and(|(needs_no_person, _)| !needs_no_person);
    let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
    // A run that has a task may be between two of its events.
    let stuck = core.schedule.stuck.contains(id) || (reasons.is_empty() && !core.schedule.mailboxes.has_task(id));
    let mut sentence = sentence(core, &summary, &lines, stuck);
    if core.ports.store.is_shared() && !core.schedule.mailboxes.has_task(id) {
        // This process may own the run although no task executes it: then no other process is named.
        let owner = core.ports.store.owner(id).await.map_err(store_error)?;
        let other = owner.filter(|(worker, _)| *worker != core.schedule.worker);
        sentence.push_str(&other.map_or_else(String::new, |(_, name)| format!(" It is executed by {name}.")));
    }
    Ok((Explanation { run: summary, sentence, waits: lines, stuck }, person))
}

/// The state of a child: whether the child waits for a person, and a description.
fn explain_child<'a>(
    core: &'a Arc<Core>,
    child: RunId,
    reads: &'a mut Reads,
) -> BoxFuture<'a, Result<(bool, String), CommandError>> {
    Box::pin(async move {
        match explain_within(core, child, reads).await {
            Ok((Explanation { run, waits, .. }, person)) => {
                let first = waits.first().map_or_else(String::new, |first| format!(": {first}"));
                Ok((person, format!("which is {}{first}", run.status.as_str())))
            }
            Err(CommandError::NoRun) => Ok((false, "which has not started yet".to_owned())),
            Err(error) => Err(error),
        }
    })
}

/// The sentence of a reason, with the details that the run's events do not show.
async fn with_details(core: &Core, reason: &WaitReason, run: RunId, reads: &mut Reads) -> Result<String, CommandError> {
    let more = match &reason.kind {
        WaitKind::Lock(name) => {
            let rows = core
                .ports
                .store
                .locks(Some(locks::names(&core.ports.sealer, name)), locks::ROWS_MAX)
                .await
                .map_err(store_error)?;
            let taken = match rows.first() {
                Some(first) => reads.taken_at(core, first).await,
                None => None,
            };
            lock_holder(&rows, run, taken, core.process.clock.now())
        }
        WaitKind::Breaker(service) => breaker_state(core, service),
        WaitKind::Call => {
            let snapshot = core.files.snapshot.load_full();
            snapshot.services.values().find_map(|service_limits| service_limits.wait_reason(run))
        }
        WaitKind::Due if !core.schedule.mailboxes.has_task(run) && core.ports.store.is_shared() => {
            Some("no task of this process executes it: another process may".to_owned())
        }
        _ => None,
    };
    Ok(match more {
        Some(more) => format!("{} ({more})", reason.sentence),
        None => reason.sentence.clone(),
    })
}

/// Who waits for a lock that the run holds.
async fn lock_waiters(core: &Core, name: &str, run: RunId) -> Result<String, CommandError> {
    let rows = core
        .ports
        .store
        .locks(Some(locks::names(&core.ports.sealer, name)), locks::ROWS_MAX)
        .await
        .map_err(store_error)?;
    let others: Vec<String> = rows.iter().filter(|row| row.run != run).map(|row| row.run.to_string()).collect();
    let waits = match others.len() {
        0 => "nobody waits for it".to_owned(),
        1 => format!("{} waits for it", others[0]),
        more => format!("{more} wait for it, first {}", others[0]),
    };
    Ok(format!(" (it holds the lock `{name}`: {waits})"))
}

impl Reads {
    /// When the step that is first in a lock's queue took the lock; `None` where it has not taken it yet. The row has
    /// only the time at which the step joined the queue.
    async fn taken_at(&mut self, core: &Core, first: &LockRow) -> Option<Timestamp> {
        let holder = match self.holders.entry(first.run) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unread) => {
                // If the holder's events cannot be read, only the time since when it holds the lock is unknown.
                let events = core.events(first.run).await.unwrap_or_default();
                unread.insert(taken_locks(&events))
            }
        };
        holder.get(&(first.step.clone(), first.item)).copied()
    }
}

/// The locks that the run with these events holds.
fn taken_locks(events: &[StoredEvent]) -> TakenLocks {
    let mut taken = TakenLocks::new();
    for stored in events {
        let Event::Lock(event) = &stored.event else { continue };
        match event {
            LockEvent::Taken { step, item, .. } => drop(taken.insert((step.clone(), *item), stored.at)),
            LockEvent::Queued { step, item, .. } | LockEvent::Left { step, item, .. } => {
                taken.remove(&(step.clone(), *item));
            }
        }
    }
    taken
}

/// Who holds a lock, since when (`taken`), and how many runs are queued before this one.
fn lock_holder(rows: &[LockRow], run: RunId, taken: Option<Timestamp>, now: Timestamp) -> Option<String> {
    let holder = rows.first()?;
    let before = rows.iter().position(|row| row.run == run).unwrap_or(rows.len());
    let since =
        taken.map_or_else(|| "is first in its queue".to_owned(), |at| format!("has held it for {}", ago(at, now)));
    let holds = format!("`{}` of {} {since}", holder.step, holder.run);
    Some(match before {
        0 | 1 => holds,
        2 => format!("{holds}, and 1 is queued before it"),
        more => format!("{holds}, and {} are queued before it", more - 1),
    })
}

/// The state of a service's breaker.
fn breaker_state(core: &Core, service: &ServiceName) -> Option<String> {
    let snapshot = core.files.snapshot.load_full();
    let breaker = snapshot.services.get(service)?.view(service.clone()).breaker?;
    let open_for = || ago(breaker.since, core.process.clock.now());
    let left = breaker.next_probe.map(|at| at.duration_since(core.process.clock.now()).as_secs().max(0));
    Some(match (breaker.state, left) {
        (BreakerState::Open, Some(left)) => {
            format!("{service}'s breaker has been open for {}, next probe in {left} s", open_for())
        }
        (BreakerState::Open, None) => format!("{service}'s breaker has been open for {}", open_for()),
        (BreakerState::HalfOpen, _) => format!("{service}'s breaker is half open and admits a few calls"),
        (BreakerState::Closed, _) => format!("{service}'s breaker has closed again"),
    })
}

/// The explanation of a run that this process cannot read. It counts as waiting for a person, who can end it.
fn unreadable(run: RunSummary, why: String) -> (Explanation, bool) {
    let (status, id) = (run.status.as_str(), run.run_id);
    let sentence = format!(
        "It is {status}, and this process cannot execute it: {why}. It is tried again at each reload; `pointsman runs \
         cancel {id} --no-undo` ends it."
    );
    (Explanation { run, sentence, waits: vec![why], stuck: true }, true)
}

fn sentence(core: &Core, run: &RunSummary, waits: &[String], stuck: bool) -> String {
    let status = run.status.as_str();
    match (stuck, waits.first()) {
        (true, _) => {
            let why = core.schedule.stuck.why(run.run_id);
            let why = why.unwrap_or_else(|| "nothing would resume it".into());
            format!(
                "It is {status} and has been stuck for {}: {why}. This is a bug.",
                ago(run.updated, core.process.clock.now())
            )
        }
        (false, Some(first)) => format!("It is {status}: {first}."),
        (false, None) => format!("It has been {status} for {}.", ago(run.updated, core.process.clock.now())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Seq;
    use crate::store::tests::{at, run_id};

    #[test]
    fn a_lock_is_held_since_it_was_taken_and_not_since_its_step_joined_the_queue() {
        let (step, item, name) = (StepId::from("use"), Some(2), "sku:a".to_owned());
        let row = |n: u64| LockRow {
            name: name.clone(),
            position: n,
            run: run_id(n),
            step: step.clone(),
            item,
            since: at(0),
        };
        let rows = [row(1), row(2), row(3)];
        let queued = Event::Lock(LockEvent::Queued { step: step.clone(), item, name: name.clone() });
        let taken = Event::Lock(LockEvent::Taken { step: step.clone(), item, name: name.clone() });
        let of_other_item = Event::Lock(LockEvent::Left { step: step.clone(), item: None, name: name.clone() });
        let left = Event::Lock(LockEvent::Left { step: step.clone(), item, name: name.clone() });
        let mut events = Vec::new();
        for (n, (event, held_for)) in
            [(queued.clone(), None), (taken, Some("5 s")), (of_other_item, Some("5 s")), (left, None), (queued, None)]
                .into_iter()
                .enumerate()
        {
            events.push(StoredEvent { seq: Seq(n as u64 + 1), at: at(20 + n as i64 * 5), event });
            let taken = taken_locks(&events).get(&(step.clone(), item)).copied();
            let text = lock_holder(&rows, run_id(3), taken, at(30)).unwrap();
            let expected = match held_for {
                Some(held_for) => format!("`use` of {} has held it for {held_for} (", run_id(1)),
                None => format!("`use` of {} is first in its queue", run_id(1)),
            };
            assert!(text.starts_with(&expected) && text.ends_with(", and 1 is queued before it"), "{n}: {text}");
        }
    }
}
