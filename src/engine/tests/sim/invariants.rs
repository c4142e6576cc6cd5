//! The invariants that must hold at the end of a simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::services::SimServices;
use super::simulation::Acknowledged;
use crate::names::{Seq, WorkflowName};
use crate::store::tests::simulated::SimStore;
use crate::store::{RunCoordination, Store, StoredEvent};
use crate::workflow::{
    CheckpointEvent, EndingEvent, Event, LockEvent, Plan, Run, RunSummary, StepPart, WaitEvent, fold,
};

/// Checks the invariants, also those of times, locks and answers; returns the number of events. I1: nothing
/// acknowledged is lost, and no effect is performed without an event. I2: a step has one outcome. I3: no effect is
/// performed twice. I4: the stored events fold to the stored summary.
pub(super) async fn check(
    store: &Arc<SimStore>,
    services: &SimServices,
    plans: &BTreeMap<WorkflowName, Arc<Plan>>,
    runs: &[RunSummary],
    acknowledged: &Acknowledged,
    wrong: &mut Vec<String>,
) -> usize {
    for (key, started) in &acknowledged.started {
        let of: BTreeSet<_> = started.iter().collect();
        if of.len() > 1 {
            wrong.push(format!("one key ({key}) has several runs: {of:?}"));
        }
        for run in of {
            if !runs.iter().any(|stored| stored.run_id == *run) {
                wrong.push(format!("I1: {run} was acknowledged and is not stored"));
            }
        }
    }
    let (mut events, mut locks, mut acquisitions) = (0, Vec::new(), BTreeMap::new());
    for run in runs {
        let events_of_run = store.memory().events(run.run_id, Seq::FIRST).await.unwrap_or_default();
        events += events_of_run.len();
        check_run(run, &events_of_run, plans.contains_key(&run.workflow), wrong);
        collect_lock_times(run, &events_of_run, &mut locks);
        check_snapshot(store, run, &events_of_run, wrong).await;
        for stored in &events_of_run {
            let successor = match &stored.event {
                Event::Ending(EndingEvent::Superseded(superseded)) => Some(superseded.successor),
                _ => None,
            };
            if let Some(successor) = successor.filter(|successor| !runs.iter().any(|run| run.run_id == *successor)) {
                wrong.push(format!("I1: {successor} supersedes {}, and was never created", run.run_id));
            }
            if let Event::StepStarted(started) = &stored.event
                && let Some(key) = &started.key
            {
                acquisitions.insert(key.clone(), store.acquisitions(run.run_id));
            }
        }
    }
    let pending_runs = store.memory().pending_runs(10_000).await.unwrap_or_default();
    wrong.extend(pending_runs.iter().map(|row| format!("I1: {} is still in the outbox at the end", row.run)));
    wrong.extend(store.events_in_the_future());
    check_locks(locks, wrong);
    check_effects(services, &acquisitions, wrong);
    events
}

/// A snapshot equals the fold of the events up to it.
async fn check_snapshot(store: &Arc<SimStore>, run: &RunSummary, events: &[StoredEvent], wrong: &mut Vec<String>) {
    let Ok(Some(snapshot)) = store.memory().run_snapshot(run.run_id).await else { return };
    let before = usize::try_from(snapshot.seq.0).ok().and_then(|seq| events.get(..seq));
    let from_events = before.and_then(|before| fold(before.iter().map(|stored| &stored.event)).ok());
    if Run::from_snapshot(&snapshot.body).ok() != from_events || from_events.is_none() {
        wrong.push(format!("the snapshot of {} at {} differs from the fold of its events", run.run_id, snapshot.seq));
    }
}

fn check_run(run: &RunSummary, events: &[StoredEvent], known: bool, wrong: &mut Vec<String>) {
    let id = run.run_id;
    if !known {
        wrong.push(format!("{id} runs `{}`, which the simulation does not have", run.workflow));
    }
    let (mut outcomes, mut answered, mut last) = (BTreeSet::new(), BTreeSet::new(), None);
    let mut waits = BTreeMap::new();
    for (index, stored) in events.iter().enumerate() {
        if stored.seq != Seq(index as u64 + 1) {
            wrong.push(format!("I1: {id} has seq {} at position {}", stored.seq, index + 1));
        }
        if last.is_some_and(|last| last > stored.at) {
            wrong.push(format!("{id}: time goes back at {}", stored.seq));
        }
        last = Some(stored.at);
        match &stored.event {
            Event::StepFinished(done)
                if done.part == StepPart::Do && !outcomes.insert((done.step.clone(), done.item)) =>
            {
                wrong.push(format!("I2: {id} has two outcomes of {} {:?}", done.step, done.item));
            }
            Event::Checkpoint(CheckpointEvent::Answered { checkpoint, .. }) if !answered.insert(checkpoint.clone()) => {
                wrong.push(format!("{id}: checkpoint {checkpoint} is answered twice"));
            }
            Event::Wait(WaitEvent::Began { step, until, .. }) => drop(waits.insert(step.clone(), *until)),
            Event::Wait(WaitEvent::Ended { step, signal: None, .. })
                if waits.get(step).copied().flatten().is_some_and(|until| until > stored.at) =>
            {
                wrong.push(format!("{id}: `{step}` waits until {:?} and goes on at {}", waits[step], stored.at));
            }
            _ => {}
        }
    }
    match fold(events.iter().map(|stored| &stored.event)) {
        Ok(from_events) => {
            let summary = last.map(|last| from_events.summary(last));
            if summary.as_ref() != Some(run) {
                wrong.push(format!("I4: {id} folds to {summary:?}, stored is {run:?}"));
            }
        }
        Err(misfit) => wrong.push(format!("I4: {id} does not fold: {misfit}")),
    }
}

/// A lock's name, the begin and the end of the time in which it was held, and its holder.
type LockTime = (String, jiff::Timestamp, jiff::Timestamp, String);

/// Collects which locks the run held, and from when to when.
fn collect_lock_times(run: &RunSummary, events: &[StoredEvent], into: &mut Vec<LockTime>) {
    let mut open = BTreeMap::new();
    let mut close = |open: &mut BTreeMap<_, _>, key: &(String, String, Option<u32>), at| {
        if let Some(from) = open.remove(key) {
            into.push((key.0.clone(), from, at, format!("{} {} {:?}", run.run_id, key.1, key.2)));
        }
    };
    for stored in events {
        match &stored.event {
            Event::Lock(LockEvent::Taken { step, item, name }) => {
                open.insert((name.clone(), step.to_string(), *item), stored.at);
            }
            Event::Lock(LockEvent::Left { step, item, name }) => {
                close(&mut open, &(name.clone(), step.to_string(), *item), stored.at);
            }
            _ => {}
        }
    }
    let end = events.last().map(|stored| stored.at);
    let keys: Vec<_> = open.keys().cloned().collect();
    for (key, end) in keys.iter().zip(end.into_iter().cycle()) {
        close(&mut open, key, end);
    }
}

fn check_locks(mut locks: Vec<LockTime>, wrong: &mut Vec<String>) {
    locks.sort();
    for pair in locks.windows(2) {
        let [(name, _, until, holder), (next_name, from, _, next_holder)] = pair else { continue };
        if name == next_name && from < until {
            wrong.push(format!("lock {name}: {next_holder} holds it from {from}, and {holder} until {until}"));
        }
    }
}

/// Checks what the services recorded. `acquisitions`: for each idempotency key, how often its run was acquired.
fn check_effects(services: &SimServices, acquisitions: &BTreeMap<String, u64>, wrong: &mut Vec<String>) {
    if services.keyless() > 0 {
        wrong.push(format!("I3: {} effects came without a key", services.keyless()));
    }
    for (key, record) in services.keys() {
        if record.reused {
            wrong.push(format!("I3: {} came with two bodies under one key", record.request));
        }
        if record.effects > 1 {
            wrong.push(format!("I3: {} was done {} times", record.request, record.effects));
        }
        let Some(acquisitions) = acquisitions.get(&key) else {
            wrong.push(format!("I1: {} was sent, and no event records it", record.request));
            continue;
        };
        if record.arrived > 1 + record.lost + acquisitions {
            let (arrived, lost) = (record.arrived, record.lost);
            wrong.push(format!(
                "I3: {} arrived {arrived} times; {lost} lost, {acquisitions} acquisitions",
                record.request
            ));
        }
    }
}
