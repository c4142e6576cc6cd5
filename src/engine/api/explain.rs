//! What a run waits for, in words.
//!
//! Always true: it only looks. What the run says of itself is `workflow`'s ([`waits`]); what only the engine knows is
//! added: who holds a lock, when a service's breaker lets the next call through, whether a task of this process moves it.
//! What it says is what was on disk, and what this process knew at that moment.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::engine::api::types::{Explanation, OrderError};
use crate::engine::context::Core;
use crate::engine::ports::breaker::BreakerState;
use crate::engine::scheduler::load::{self, LoadError};
use crate::flag::Freeze;
use crate::names::{RunId, ServiceName};
use crate::store::LockRow;
use crate::workflow::{Cause, Conditions, Reason, RunSummary, Since, ago, fold, waits};

fn store(error: impl ToString) -> OrderError {
    OrderError::Store { why: error.to_string(), unknown: false }
}

/// Runs below a run that are explained with it; the others are only named.
const BELOW_MAX: usize = 16;

/// What an unfinished run waits for.
pub(in crate::engine) async fn explain(core: &Arc<Core>, id: RunId) -> Result<Explanation, OrderError> {
    let mut room = BELOW_MAX;
    Ok(explained(core, id, &mut room).await?.0)
}

/// The same, and whether a person moves it, or one below it.
async fn explained(core: &Arc<Core>, id: RunId, room: &mut usize) -> Result<(Explanation, bool), OrderError> {
    let summary = core.ports.store.run(id).await.map_err(store)?.ok_or(OrderError::NoRun)?;
    if summary.status.is_final() {
        let sentence = format!("It has ended: {}.", summary.status.as_str());
        return Ok((Explanation { run: summary, sentence, waits: Vec::new(), stuck: false }, false));
    }
    let events = core.events(id).await.map_err(store)?;
    let run =
        fold(events.iter().map(|stored| &stored.event)).map_err(|misfit| OrderError::Unreadable(misfit.to_string()))?;
    let snapshot = core.files.snapshot.load_full();
    let plan = match load::plan_of(core, &snapshot, &run.started().plan).await {
        Ok(plan) => plan,
        Err(LoadError::Store(error)) => return Err(store(error)),
        Err(LoadError::Unreadable(why) | LoadError::Withheld(why)) => {
            let sentence = format!("It is {} and cannot be moved by this process: {why}.", summary.status.as_str());
            return Ok((Explanation { run: summary, sentence, waits: vec![why], stuck: true }, false));
        }
    };
    let since = Since::of(events.iter().map(|stored| (stored.at, &stored.event)));
    let hold_effects = core.process.kill_switch.freeze() == Freeze::Effects;
    let conditions = Conditions { now: core.process.clock.now(), hold_effects };
    let reasons = waits(&run, &plan, &snapshot.world, conditions, &since);
    let mut lines = Vec::with_capacity(reasons.len());
    for reason in &reasons {
        let by_itself = !matches!(reason.cause, Cause::Paused | Cause::Conflict(_) | Cause::Checkpoint(_));
        match &reason.cause {
            Cause::Child(child) if *room > 0 => {
                *room -= 1;
                let (person, which) = below(core, *child, room).await?;
                lines.push((by_itself && !person, format!("{} ({which})", reason.sentence)));
            }
            _ => lines.push((by_itself, whole(core, reason, id).await?)),
        }
        if let Some(name) = reason.step.as_ref().and_then(|step| run.holds(step, reason.item))
            && let Some((_, line)) = lines.last_mut()
        {
            line.push_str(&behind(core, name, id).await?);
        }
    }
    // What a person can move comes first, here and in runs below.
    lines.sort_by_key(|(by_itself, _)| *by_itself);
    let person = lines.first().is_some_and(|(by_itself, _)| !by_itself);
    let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
    // One that moves here right now may be between two of its events.
    let stuck = core.schedule.stuck.contains(id) || (reasons.is_empty() && !core.schedule.mailboxes.has_task(id));
    let mut sentence = sentence(core, &summary, &lines, stuck);
    if core.ports.store.is_shared() && !core.schedule.mailboxes.has_task(id) {
        // One that rests here is this process's still.
        let owner = core.ports.store.owner(id).await.map_err(store)?.filter(|name| *name != core.schedule.worker_name);
        sentence.push_str(&owner.map_or_else(String::new, |name| format!(" The process {name} moves it.")));
    }
    Ok((Explanation { run: summary, sentence, waits: lines, stuck }, person))
}

/// What a run waits for that another one waits for, and whether a person moves it.
fn below<'a>(
    core: &'a Arc<Core>,
    child: RunId,
    room: &'a mut usize,
) -> BoxFuture<'a, Result<(bool, String), OrderError>> {
    Box::pin(async move {
        match explained(core, child, room).await {
            Ok((Explanation { run, waits, .. }, person)) => {
                let first = waits.first().map_or_else(String::new, |first| format!(": {first}"));
                Ok((person, format!("which is {}{first}", run.status.as_str())))
            }
            Err(OrderError::NoRun) => Ok((false, "which is about to be born".to_owned())),
            Err(error) => Err(error),
        }
    })
}

/// A reason, with what only the engine knows of it.
async fn whole(core: &Core, reason: &Reason, run: RunId) -> Result<String, OrderError> {
    let more = match &reason.cause {
        Cause::Lock(name) => {
            let rows = core
                .ports
                .store
                .locks(Some(vec![name.clone()]), crate::engine::ports::locks::ROWS_MAX)
                .await
                .map_err(store)?;
            queue(&rows, run, core.process.clock.now())
        }
        Cause::Breaker(service) => breaker(core, service),
        Cause::Call => {
            let snapshot = core.files.snapshot.load_full();
            snapshot.services.values().find_map(|base| base.kept_waiting(run))
        }
        Cause::Due if !core.schedule.mailboxes.has_task(run) && core.ports.store.is_shared() => {
            Some("no task of this process moves it: another process may".to_owned())
        }
        _ => None,
    };
    Ok(match more {
        Some(more) => format!("{} ({more})", reason.sentence),
        None => reason.sentence.clone(),
    })
}

/// Who waits for a lock that the run holds.
async fn behind(core: &Core, name: &str, run: RunId) -> Result<String, OrderError> {
    let rows = core
        .ports
        .store
        .locks(Some(vec![name.to_owned()]), crate::engine::ports::locks::ROWS_MAX)
        .await
        .map_err(store)?;
    let others: Vec<String> = rows.iter().filter(|row| row.run != run).map(|row| row.run.to_string()).collect();
    let waits = match others.len() {
        0 => "nobody waits for it".to_owned(),
        1 => format!("{} waits for it", others[0]),
        more => format!("{more} wait for it, first {}", others[0]),
    };
    Ok(format!(" (it holds the lock `{name}`: {waits})"))
}

/// Who holds a lock, and how many stand before the run.
fn queue(rows: &[LockRow], run: RunId, now: Timestamp) -> Option<String> {
    let holder = rows.first()?;
    let before = rows.iter().position(|row| row.run == run).unwrap_or(rows.len());
    let holds = format!("`{}` of {} holds it since {}", holder.step, holder.run, ago(holder.since, now));
    Some(match before {
        0 | 1 => holds,
        2 => format!("{holds}, and 1 stands before it"),
        more => format!("{holds}, and {} stand before it", more - 1),
    })
}

/// What the breaker of a service lets through.
fn breaker(core: &Core, service: &ServiceName) -> Option<String> {
    let snapshot = core.files.snapshot.load_full();
    let breaker = snapshot.services.get(service)?.view(service.clone()).breaker?;
    let since = || ago(breaker.since, core.process.clock.now());
    let left = breaker.next_probe.map(|at| at.duration_since(core.process.clock.now()).as_secs().max(0));
    Some(match (breaker.state, left) {
        (BreakerState::Open, Some(left)) => {
            format!("{service}'s breaker is open since {}, next probe in {left} s", since())
        }
        (BreakerState::Open, None) => format!("{service}'s breaker is open since {}", since()),
        (BreakerState::HalfOpen, _) => format!("{service}'s breaker lets a few probes through"),
        (BreakerState::Closed, _) => format!("{service}'s breaker has closed again"),
    })
}

fn sentence(core: &Core, run: &RunSummary, waits: &[String], stuck: bool) -> String {
    let status = run.status.as_str();
    match (stuck, waits.first()) {
        (true, _) => {
            let why = core.schedule.stuck.list().into_iter().find(|(id, _)| *id == run.run_id).map(|(_, why)| why);
            let why = why.unwrap_or_else(|| "nothing would move it".to_owned());
            format!(
                "It is {status} and stuck since {}: {why}. This is a bug.",
                ago(run.updated, core.process.clock.now())
            )
        }
        (false, Some(first)) => format!("It is {status}: {first}."),
        (false, None) => format!("It is {status} since {}.", ago(run.updated, core.process.clock.now())),
    }
}
