//! What must hold when a simulation is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::outside::Outside;
use super::play::Told;
use super::store::SimStore;
use crate::names::{Seq, WorkflowName};
use crate::store::{Store, StoredEvent, Work};
use crate::workflow::{CheckpointEvent, EndingEvent, Event, LockEvent, Part, Plan, Run, RunSummary, WaitEvent, fold};

/// I1 to I4, and what holds of times, locks and answers; how many events were looked at.
pub(super) async fn check(
    store: &Arc<SimStore>,
    outside: &Outside,
    plans: &BTreeMap<WorkflowName, Arc<Plan>>,
    runs: &[RunSummary],
    told: &Told,
    wrong: &mut Vec<String>,
) -> usize {
    for (key, started) in &told.started {
        let of: BTreeSet<_> = started.iter().collect();
        if of.len() > 1 {
            wrong.push(format!("one key ({key}) has several runs: {of:?}"));
        }
        for run in of {
            if !runs.iter().any(|kept| kept.run_id == *run) {
                wrong.push(format!("I1: {run} was acknowledged and is not there"));
            }
        }
    }
    let (mut events, mut locks, mut takes) = (0, Vec::new(), BTreeMap::new());
    for run in runs {
        let kept = store.kept().events(run.run_id, Seq::FIRST).await.unwrap_or_default();
        events += kept.len();
        one(run, &kept, plans.contains_key(&run.workflow), wrong);
        held(run, &kept, &mut locks);
        snapshot(store, run, &kept, wrong).await;
        for stored in &kept {
            let decided = match &stored.event {
                Event::Ending(EndingEvent::Superseded(superseded)) => Some(superseded.by),
                _ => None,
            };
            if let Some(heir) = decided.filter(|heir| !runs.iter().any(|run| run.run_id == *heir)) {
                wrong.push(format!("I1: {heir} is to take the place of {}, and was never born", run.run_id));
            }
            if let Event::StepStarted(started) = &stored.event
                && let Some(key) = &started.key
            {
                takes.insert(key.clone(), store.takes(run.run_id));
            }
        }
    }
    let pending_runs = store.kept().pending_runs(10_000).await.unwrap_or_default();
    wrong.extend(pending_runs.iter().map(|birth| format!("I1: {} is still to begin when all is over", birth.run)));
    wrong.extend(store.early());
    overlaps(locks, wrong);
    world(outside, &takes, wrong);
    events
}

/// A snapshot is what the events up to it come to.
async fn snapshot(store: &Arc<SimStore>, run: &RunSummary, events: &[StoredEvent], wrong: &mut Vec<String>) {
    let Ok(Some(kept)) = store.kept().run_snapshot(run.run_id).await else { return };
    let before = usize::try_from(kept.seq.0).ok().and_then(|seq| events.get(..seq));
    let folded = before.and_then(|before| fold(before.iter().map(|stored| &stored.event)).ok());
    if Run::from_snapshot(&kept.body).ok() != folded || folded.is_none() {
        wrong.push(format!("the snapshot of {} at {} is not what its events come to", run.run_id, kept.seq));
    }
}

fn one(run: &RunSummary, events: &[StoredEvent], known: bool, wrong: &mut Vec<String>) {
    let id = run.run_id;
    if !known {
        wrong.push(format!("{id} runs `{}`, which nobody asked for", run.workflow));
    }
    let (mut outcomes, mut answered, mut last) = (BTreeSet::new(), BTreeSet::new(), None);
    let mut waits = BTreeMap::new();
    for (place, stored) in events.iter().enumerate() {
        if stored.seq != Seq(place as u64 + 1) {
            wrong.push(format!("I1: {id} has seq {} at place {}", stored.seq, place + 1));
        }
        if last.is_some_and(|last| last > stored.at) {
            wrong.push(format!("{id}: time goes back at {}", stored.seq));
        }
        last = Some(stored.at);
        match &stored.event {
            Event::StepFinished(done) if done.part == Part::Do && !outcomes.insert((done.step.clone(), done.item)) => {
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
        Ok(folded) => {
            let again = last.map(|last| folded.summary(last));
            if again.as_ref() != Some(run) {
                wrong.push(format!("I4: {id} folds to {again:?}, stored is {run:?}"));
            }
        }
        Err(misfit) => wrong.push(format!("I4: {id} does not fold: {misfit}")),
    }
}

type Held = (String, jiff::Timestamp, jiff::Timestamp, String);

/// From when to when a run held which lock.
fn held(run: &RunSummary, events: &[StoredEvent], into: &mut Vec<Held>) {
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

fn overlaps(mut locks: Vec<Held>, wrong: &mut Vec<String>) {
    locks.sort();
    for pair in locks.windows(2) {
        let [(name, _, until, who), (other, from, _, whose)] = pair else { continue };
        if name == other && from < until {
            wrong.push(format!("lock {name} is {whose}'s from {from}, and {who}'s until {until}"));
        }
    }
}

fn world(outside: &Outside, takes: &BTreeMap<String, u64>, wrong: &mut Vec<String>) {
    if outside.keyless() > 0 {
        wrong.push(format!("I3: {} effects came without a key", outside.keyless()));
    }
    for (key, known) in outside.keys() {
        if known.reused {
            wrong.push(format!("I3: {} came with two bodies under one key", known.line));
        }
        if known.effects > 1 {
            wrong.push(format!("I3: {} was done {} times", known.line, known.effects));
        }
        let Some(takes) = takes.get(&key) else {
            wrong.push(format!("I1: {} was sent, and no event tells of it", known.line));
            continue;
        };
        if known.arrived > 1 + known.lost + takes {
            let (arrived, lost) = (known.arrived, known.lost);
            wrong.push(format!("I3: {} arrived {arrived} times; {lost} lost, {takes} takeovers", known.line));
        }
    }
}
