//! What a run waits for, in words.
//!
//! Always true: it only looks; what it says is what was on disk, and what this process knows of services, locks and the
//! freeze at that moment.

use std::sync::Arc;

use jiff::Timestamp;

use super::Core;
use super::desk::{Explanation, NotDone};
use crate::flag::Freeze;
use crate::names::{RunId, Seq};
use crate::workflow::{RunStatus, RunSummary, fold};

fn store(error: impl ToString) -> NotDone {
    NotDone::Store { why: error.to_string(), unknown: false }
}

/// What an unfinished run waits for.
pub(super) async fn explain(core: &Arc<Core>, id: RunId) -> Result<Explanation, NotDone> {
    let summary = core.store.run(id).await.map_err(store)?.ok_or(NotDone::NoRun)?;
    if summary.status.is_final() {
        let sentence = format!("It has ended: {}.", summary.status.as_str());
        return Ok(Explanation { run: summary, sentence, waits: Vec::new(), stuck: false });
    }
    let events = core.store.events(id, Seq::FIRST).await.map_err(store)?;
    let run =
        fold(events.iter().map(|stored| &stored.event)).map_err(|misfit| NotDone::Unreadable(misfit.to_string()))?;
    let mut waits = Vec::new();
    for attempt in run.in_flight() {
        waits.push(format!("`{}` is under way: attempt {}", attempt.step, attempt.attempt));
    }
    if run.status() == RunStatus::Paused {
        waits.extend(run.note());
    }
    waits.extend(from_outside(core, &summary).await?);
    let stuck = core.stuck.knows(id);
    let sentence = sentence(&summary, &waits, stuck);
    Ok(Explanation { run: summary, sentence, waits, stuck })
}

/// What only the engine knows.
async fn from_outside(core: &Core, run: &RunSummary) -> Result<Vec<String>, NotDone> {
    let mut waits = Vec::new();
    if *core.freeze.borrow() == Freeze::Effects {
        waits.push("private and shared steps are frozen; `freeze --off` lets them begin".to_owned());
    }
    let rows = core.store.locks(None, super::locks::ROWS_MAX).await.map_err(store)?;
    for row in rows.iter().filter(|row| row.run == run.run_id) {
        let first = rows.iter().find(|first| first.name == row.name);
        match first.filter(|first| first.run != row.run || first.step != row.step || first.item != row.item) {
            None => waits.push(format!("`{}` holds the lock `{}` since {}", row.step, row.name, row.since)),
            Some(first) => waits.push(format!(
                "`{}` waits for the lock `{}`, which `{}` of {} holds since {}",
                row.step, row.name, first.step, first.run, first.since
            )),
        }
    }
    if let Some(at) = run.wake.filter(|at| *at > Timestamp::now()) {
        waits.push(format!("it is looked at again at {at}"));
    }
    Ok(waits)
}

fn sentence(run: &RunSummary, waits: &[String], stuck: bool) -> String {
    let since = run.updated;
    match (stuck, waits.first()) {
        (true, _) => format!("It is stuck since {since}: nothing would move it. This is a bug."),
        (false, Some(first)) => format!("It is {} since {since}: {first}.", run.status.as_str()),
        (false, None) => format!("It is {} since {since}.", run.status.as_str()),
    }
}
