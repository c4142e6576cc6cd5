//! Reruns: another run of the same job, the successor, takes over results of a run, the predecessor.
//!
//! Always true: the successor has the plan of its predecessor and has no caller; if the predecessor's answer was to
//! create an instance, the successor's answer creates and pins it; the events that the successor takes over are in its
//! first append. A run has at most one successor: only the newest run of a job can be rerun, and of several reruns at
//! the same time one wins, by a claim in the store. A predecessor that has not ended is ended first, by an event that
//! holds the successor's id and credentials. The successor is created after that event. If the process ends in between,
//! or the store refuses the append, the successor is created from the outbox (`pending_runs`), or by repeating the same
//! rerun. Which events may be taken over is decided by `workflow`.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::{NoContext, Uuid};

use crate::engine::api::start::{self, KeyOwner, NewRun};
use crate::engine::api::types::{StartError, Started};
use crate::engine::context::Core;
use crate::engine::scheduler::acquired_run::LoadedRun;
use crate::engine::scheduler::command_error::CommandError;
use crate::engine::scheduler::commands;
use crate::engine::scheduler::copied_runs;
use crate::engine::scheduler::load::{self, LoadError};
use crate::engine::scheduler::stored_run::ReadFrom;
use crate::engine::scheduler::successors;
use crate::flag::RetryKey;
use crate::names::{JobId, RunId, StepId};
use crate::store::Claim;
use crate::workflow::{
    self, CommandRefusal, ControlCommand, Creates, Event, Mode, Run, RunStarted, RunSummary, Superseded,
};

fn store_error(why: impl ToString) -> StartError {
    StartError::Store { why: why.to_string(), unknown: false }
}

/// Starts the successor of a run.
pub(in crate::engine) async fn rerun(
    core: &Arc<Core>,
    of: RunId,
    from: StepId,
    by: String,
) -> Result<Started, StartError> {
    let Some(summary) = core.ports.store.run(of).await.map_err(store_error)? else { return Err(StartError::NoRun) };
    let job = summary.job.unwrap_or(JobId(of.0));
    check_newest(core, of, job).await?;
    check_parent(core, &summary).await?;
    let mut predecessor = read(core, of).await?;
    start::refuse_adoption(&predecessor.plan)?;
    check_no_collision(core, &predecessor.run)?;
    events_to_take_over(&predecessor, &from)?;
    let permit = start::acquire_permit(core)?;
    // If this store is a copy (such as a restored backup), the successor may have begun in the original store. Then it
    // is paused here before it does anything.
    let pause = predecessor.run.superseded().and_then(|_| {
        copied_runs::pause_of_successor(core, &predecessor.run, &predecessor.plan, predecessor.last_event_at)
    });
    if !predecessor.run.is_final() {
        hand_over(core, &predecessor, &from, by.clone()).await?;
        predecessor = read(core, of).await?;
    }
    let taken_over = events_to_take_over(&predecessor, &from)?;
    let (old, plan) = (predecessor.run, predecessor.plan);
    let successor = match old.superseded() {
        Some(superseded) => recorded_successor(core, &old, superseded).await?,
        None => new_successor(core, &old, predecessor.credentials, by).await?,
    };
    let Successor { run, by, credentials, sealed, run_key } = successor;
    let now = core.process.clock.now();
    let mut pinned_before = old.started().pinned_before.clone();
    pinned_before.extend(old.pinned().filter(|pin| !old.started().pinned_before.contains(pin)).cloned());
    let started = RunStarted {
        run,
        route: None,
        started: now,
        sealed,
        pinned_before,
        effects_before: old.strongest_effect(),
        deliveries_before: old.deliveries_before(&taken_over),
        job: Some(job),
        parent: None,
        injected: None,
        route_above: None,
        child_before: old.started().is_child_or_rerun_of_one(),
        rerun_of: Some(of),
        by: Some(by),
        until: start::deadline(&plan, now),
        ..(**old.started()).clone()
    };
    let claim = claim(of);
    let registration = match start::register(core, run, Some(claim)).await {
        Ok(KeyOwner::New(registration)) => registration,
        Ok(KeyOwner::Earlier(other)) | Err(StartError::KeyReused(other)) => return Err(has_successor(other)),
        Err(error) => return Err(error),
    };
    let new_run = NewRun { plan, started, taken_over, pause, credentials, run_key, claim: Some(claim) };
    match start::create(core, new_run, registration, permit).await {
        Ok(Started { run, is_new: false, .. }) | Err(StartError::KeyReused(run)) => Err(has_successor(run)),
        Err(StartError::Store { why, .. }) if old.superseded().is_some() => {
            let why = format!("whether the successor {run} was started is unknown: repeat the rerun ({why})");
            Err(StartError::Store { why, unknown: true })
        }
        result => result,
    }
}

fn has_successor(successor: RunId) -> StartError {
    StartError::Invalid(format!("{successor} supersedes this run: rerun that one"))
}

/// The events that the successor takes over.
fn events_to_take_over(predecessor: &LoadedRun, from: &StepId) -> Result<Vec<Event>, StartError> {
    workflow::rerun(&predecessor.run, &predecessor.plan, from).map_err(|refusal| match refusal {
        CommandRefusal::NoSuchStep => StartError::NoStep,
        refusal => StartError::Invalid(refusal.to_string()),
    })
}

/// Refuses a run that is not the newest of its job.
async fn check_newest(core: &Core, of: RunId, job: JobId) -> Result<(), StartError> {
    let newest = successors::newest_after(core, of, Some(job)).await.map_err(store_error)?;
    newest.map_or(Ok(()), |newest| Err(has_successor(newest)))
}

/// Refuses a run whose answer creates an instance of a family of which both arms have given out one id: a person has to
/// accept that first, as for new requests. The run has an id that the creator of the family had when the run began; the
/// collision may have been found under another one.
fn check_no_collision(core: &Core, run: &Run) -> Result<(), StartError> {
    let Some(Creates::Engine { family, .. }) = run.started().creates.as_ref().filter(|_| run.mode() == Mode::Real)
    else {
        return Ok(());
    };
    let family = core.ports.affinity.instances().family_of(family);
    if !core.ports.affinity.collided(&family) {
        return Ok(());
    }
    let family = family.id();
    Err(StartError::Invalid(format!(
        "its answer creates an instance of `{family}`, and both arms have given out the same id there: let them give out \
         different ids, and accept the collision by a forced flip of `{family}` (`pointsman help ladder`)"
    )))
}

/// Refuses a run that has ended and whose parent has not: the parent would not learn of the rerun, and a person who
/// decides in the parent what follows from the run's end could have the run's work done once more.
async fn check_parent(core: &Core, summary: &RunSummary) -> Result<(), StartError> {
    let Some(parent) = summary.parent.filter(|_| summary.status.is_final()) else { return Ok(()) };
    match core.ports.store.run(parent).await.map_err(store_error)? {
        Some(parent_run) if !parent_run.status.is_final() => Err(StartError::Invalid(format!(
            "{parent} began it, and is {}: decide there what follows from its end, or cancel {parent} first",
            parent_run.status.as_str()
        ))),
        _ => Ok(()),
    }
}

async fn read(core: &Core, of: RunId) -> Result<LoadedRun, StartError> {
    load::read(core, of, ReadFrom::FirstEvent).await.map_err(|error| match error {
        LoadError::Store(error) => store_error(error),
        LoadError::Unreadable(why) | LoadError::EventsUnavailable(why) => StartError::Invalid(why),
    })
}

/// The claim that a successor's first append makes: of two successors of the same run, the store accepts one.
fn claim(of: RunId) -> Claim {
    // Stored claims depend on this text.
    let key = blake3::derive_key("pointsman 1 takes the place of a run", of.0.as_bytes());
    Claim::new(RetryKey(key), [0; 32])
}

/// `id` if it sorts after the predecessor's id, else an id whose time is one second after the predecessor's. The newest
/// run of a job is the one with the greatest id, and the clock of the process that created the predecessor may have
/// been ahead.
fn id_after(of: RunId, id: Uuid) -> RunId {
    if id > of.0 {
        return RunId(id);
    }
    let (seconds, nanos) = of.0.get_timestamp().map_or((0, 0), |time| time.to_unix());
    RunId(Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds.saturating_add(1), nanos)))
}

/// The parts from which the successor is created, in addition to the events that it takes over.
struct Successor {
    run: RunId,
    by: String,
    credentials: BTreeMap<String, String>,
    sealed: Option<String>,
    run_key: Option<Vec<u8>>,
}

/// Ends a predecessor that has not ended, by an event that names its successor.
async fn hand_over(core: &Arc<Core>, predecessor: &LoadedRun, from: &StepId, by: String) -> Result<(), StartError> {
    let of = predecessor.run.id();
    let Successor { run, by, sealed, run_key, .. } =
        new_successor(core, &predecessor.run, predecessor.credentials.clone(), by).await?;
    if run_key.is_some() {
        // The key is stored before the event. Without the event the key opens nothing, and after a crash that follows
        // the event the repeated rerun needs the key.
        core.ports.store.put_run_key(run, run_key).await.map_err(store_error)?;
    }
    let has_key = sealed.is_some();
    let command = ControlCommand::HandOver { to: run, from: from.clone(), sealed };
    let given = commands::give_command(core, of, command, by).await;
    if has_key
        && !matches!(given, Ok(_) | Err(CommandError::Store { unknown: true, .. }))
        && let Err(error) = core.ports.store.put_run_key(run, None).await
    {
        tracing::debug!(%run, %error, "the key of a run that was not created stays in the store: it opens nothing");
    }
    match given {
        Ok(_) => Ok(()),
        Err(CommandError::NoRun) => Err(StartError::NoRun),
        Err(CommandError::Store { why, unknown }) => Err(StartError::Store { why, unknown }),
        Err(CommandError::Unreadable(why)) => Err(StartError::Invalid(why)),
        Err(CommandError::Refused { refusal: CommandRefusal::Ended, run }) => {
            let note = run.note.unwrap_or_else(|| run.status.as_str().to_owned());
            Err(StartError::Invalid(format!("it has ended meanwhile: {note}")))
        }
        Err(CommandError::Refused { refusal, .. }) => Err(StartError::Invalid(refusal.to_string())),
    }
}

/// A successor under a new id, with its credentials sealed.
async fn new_successor(
    core: &Core,
    old: &Run,
    credentials: BTreeMap<String, String>,
    by: String,
) -> Result<Successor, StartError> {
    check_credentials(old, &credentials)?;
    let run = id_after(old.id(), core.process.new_id());
    let sealed = match credentials.is_empty() {
        true => None,
        false => {
            let sealed = core.ports.sealer.seal(run, &credentials);
            Some(sealed.ok_or_else(|| StartError::Invalid("there is no store_key to seal credentials with".into()))?)
        }
    };
    let (sealed, run_key) = sealed.map(|sealed| (sealed.credentials, sealed.key)).unzip();
    Ok(Successor { run, by, credentials, sealed, run_key })
}

/// The successor that the run's last event names.
async fn recorded_successor(core: &Core, old: &Run, superseded: &Superseded) -> Result<Successor, StartError> {
    let Superseded { successor: run, sealed, requested_by: who, .. } = superseded;
    let run_key = match sealed {
        Some(_) => core.ports.store.run_key(*run).await.map_err(store_error)?,
        None => None,
    };
    let credentials = sealed.as_ref().zip(run_key.as_ref());
    let credentials =
        credentials.and_then(|(sealed, key)| core.ports.sealer.open(*run, sealed, key)).unwrap_or_default();
    check_credentials(old, &credentials)?;
    Ok(Successor { run: *run, by: who.clone(), credentials, sealed: sealed.clone(), run_key })
}

/// Refuses a rerun whose credentials of the caller were erased when the predecessor ended.
fn check_credentials(old: &Run, credentials: &BTreeMap<String, String>) -> Result<(), StartError> {
    let missing = old.started().credentials.iter().find(|name| !credentials.contains_key(*name));
    let why = |name| format!("the caller's `{name}` was erased when the run ended: start a new run instead");
    missing.map_or(Ok(()), |name| Err(StartError::Invalid(why(name))))
}

/// Performs the first half of a rerun, the hand-over, for tests of a crash after it.
#[cfg(test)]
pub(in crate::engine) async fn hand_over_for_test(engine: &crate::engine::Engine, of: RunId, from: &str) -> RunId {
    let predecessor = read(&engine.core, of).await.unwrap_or_else(|error| panic!("{error}"));
    hand_over(&engine.core, &predecessor, &from.into(), "ann".into()).await.unwrap_or_else(|error| panic!("{error}"));
    let after = read(&engine.core, of).await.unwrap_or_else(|error| panic!("{error}"));
    after.run.superseded().map(|superseded| superseded.successor).unwrap_or_else(|| panic!("it is not handed over"))
}
