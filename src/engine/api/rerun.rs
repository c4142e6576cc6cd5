//! Another run of the same job that takes over what the run before it finished.
//!
//! Always true: it keeps the plan of the run before it and answers nobody; what it takes over is on disk with its birth.
//! A run has one heir: it is begun anew only where it is the newest of its job, and of all who ask at the same time one
//! wins. A run that could go on ends first, with its heir's id and credentials on disk; the heir is born after that, and
//! where it was not (a crash, a store that refuses) `pending_runs` bears it, and so does asking for the same rerun again. What makes sense to take
//! over is judged by `workflow`.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::{NoContext, Uuid};

use crate::engine::api::orders;
use crate::engine::api::start::{self, NewRun};
use crate::engine::api::types::{OrderError, StartError, Started};
use crate::engine::context::Core;
use crate::engine::scheduler::load::{self, LoadError, Read};
use crate::engine::scheduler::stored_run::Beginning;
use crate::flag::RetryKey;
use crate::names::{JobId, RunId, StepId};
use crate::store::{Claim, RunFilter};
use crate::workflow::{self, Event, Order, Refusal, Run, RunStarted, Superseded};

fn store(why: impl ToString) -> StartError {
    StartError::Store { why: why.to_string(), unknown: false }
}

/// Starts it.
pub(in crate::engine) async fn rerun(
    core: &Arc<Core>,
    of: RunId,
    from: StepId,
    by: String,
) -> Result<Started, StartError> {
    let Some(summary) = core.ports.store.run(of).await.map_err(store)? else { return Err(StartError::NoRun) };
    let job = summary.job.unwrap_or(JobId(of.0));
    newest(core, of, job).await?;
    let mut before = read(core, of).await?;
    judged(&before, &from)?;
    let permit = start::admitted(core)?;
    if !before.run.is_final() {
        hand_over(core, &before, &from, by.clone()).await?;
        before = read(core, of).await?;
    }
    let taken_over = judged(&before, &from)?;
    let (old, plan) = (before.run, before.plan);
    let heir = match old.superseded() {
        Some(superseded) => recorded(core, &old, superseded).await?,
        None => sealed(core, &old, before.credentials, by).await?,
    };
    let Heir { run, by, credentials, sealed, run_key } = heir;
    let now = core.process.clock.now();
    let started = RunStarted {
        run,
        route: None,
        started: now,
        sealed,
        creates: None,
        job: Some(job),
        parent: None,
        rerun_of: Some(of),
        by: Some(by),
        until: start::until(&plan, now),
        ..(**old.started()).clone()
    };
    let claim = claim(of);
    let registration = match start::register(core, run, Some(claim)).await {
        Ok(Ok(registration)) => registration,
        Ok(Err(other)) | Err(StartError::KeyReused(other)) => return Err(has_heir(other)),
        Err(error) => return Err(error),
    };
    let birth = NewRun { plan, started, taken_over, credentials, run_key, claim: Some(claim) };
    match start::born(core, birth, registration, permit).await {
        Ok(Started { run, fresh: false, .. }) | Err(StartError::KeyReused(run)) => Err(has_heir(run)),
        Err(StartError::Store { why, .. }) if old.superseded().is_some() => {
            let why =
                format!("{run} is to take its registration, and whether it was born is unknown: ask again ({why})");
            Err(StartError::Store { why, unknown: true })
        }
        born => born,
    }
}

fn has_heir(heir: RunId) -> StartError {
    StartError::Invalid(format!("{heir} has taken its registration: rerun that one"))
}

/// What is taken over.
fn judged(before: &Read, from: &StepId) -> Result<Vec<Event>, StartError> {
    workflow::rerun(&before.run, &before.plan, from).map_err(|refusal| match refusal {
        Refusal::NoSuchStep => StartError::NoStep,
        refusal => StartError::Invalid(refusal.to_string()),
    })
}

/// Whoever is begun anew is the newest run of its job.
async fn newest(core: &Core, of: RunId, job: JobId) -> Result<(), StartError> {
    let filter = RunFilter { job: Some(job), limit: 1, ..RunFilter::default() };
    match core.ports.store.runs(filter).await.map_err(store)?.first() {
        Some(newest) if newest.run_id != of => Err(has_heir(newest.run_id)),
        Some(_) | None => Ok(()),
    }
}

async fn read(core: &Core, of: RunId) -> Result<Read, StartError> {
    load::read(core, of, Beginning::FirstEvent).await.map_err(|unloaded| match unloaded {
        LoadError::Store(error) => store(error),
        LoadError::Unreadable(why) | LoadError::Withheld(why) => StartError::Invalid(why),
    })
}

/// One run takes the place of another: of two that want to, the store knows one.
fn claim(of: RunId) -> Claim {
    let key = blake3::derive_key("pointsman 1 takes the registration of a run", of.0.as_bytes());
    Claim { key: RetryKey(key), request: [0; 32], any_caller: None }
}

/// `id`, or one behind the other run's where another process's clock was ahead: the newest run of a job is the one that
/// counts.
fn id_after(of: RunId, id: Uuid) -> RunId {
    if id > of.0 {
        return RunId(id);
    }
    let (seconds, nanos) = of.0.get_timestamp().map_or((0, 0), |time| time.to_unix());
    RunId(Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds.saturating_add(1), nanos)))
}

/// What the new run is born with.
struct Heir {
    run: RunId,
    by: String,
    credentials: BTreeMap<String, String>,
    sealed: Option<String>,
    run_key: Option<Vec<u8>>,
}

/// Ends a run that could go on, in the favour of its heir.
async fn hand_over(core: &Arc<Core>, before: &Read, from: &StepId, by: String) -> Result<(), StartError> {
    let of = before.run.id();
    let Heir { run, by, sealed, run_key, .. } = sealed(core, &before.run, before.credentials.clone(), by).await?;
    if run_key.is_some() {
        // Before the event: it opens nothing until then, and whoever comes after a crash needs it.
        core.ports.store.put_run_key(run, run_key).await.map_err(store)?;
    }
    let has_key = sealed.is_some();
    let order = Order::HandOver { to: run, from: from.clone(), sealed };
    let ordered = orders::order(core, of, order, by).await;
    if has_key
        && !matches!(ordered, Ok(_) | Err(OrderError::Store { unknown: true, .. }))
        && let Err(error) = core.ports.store.put_run_key(run, None).await
    {
        tracing::debug!(%run, %error, "a key without a run stays: it opens nothing");
    }
    match ordered {
        Ok(_) => Ok(()),
        Err(OrderError::NoRun) => Err(StartError::NoRun),
        Err(OrderError::Store { why, unknown }) => Err(StartError::Store { why, unknown }),
        Err(OrderError::Unreadable(why)) => Err(StartError::Invalid(why)),
        Err(OrderError::Refused { refusal: Refusal::Ended, run }) => {
            let note = run.note.unwrap_or_else(|| run.status.as_str().to_owned());
            Err(StartError::Invalid(format!("it has ended meanwhile: {note}")))
        }
        Err(OrderError::Refused { refusal, .. }) => Err(StartError::Invalid(refusal.to_string())),
    }
}

/// An heir under a new id.
async fn sealed(core: &Core, old: &Run, credentials: BTreeMap<String, String>, by: String) -> Result<Heir, StartError> {
    opened(old, &credentials)?;
    let run = id_after(old.id(), core.process.new_id());
    let sealed = match credentials.is_empty() {
        true => None,
        false => {
            let sealed = core.ports.sealer.seal(run, &credentials);
            Some(sealed.ok_or_else(|| StartError::Invalid("there is no store_key to seal credentials with".into()))?)
        }
    };
    let (sealed, run_key) = sealed.map(|sealed| (sealed.credentials, sealed.key)).unzip();
    Ok(Heir { run, by, credentials, sealed, run_key })
}

/// The heir that the run names.
async fn recorded(core: &Core, old: &Run, superseded: &Superseded) -> Result<Heir, StartError> {
    let Superseded { by: run, sealed, who, .. } = superseded;
    let run_key = match sealed {
        Some(_) => core.ports.store.run_key(*run).await.map_err(store)?,
        None => None,
    };
    let credentials = sealed.as_ref().zip(run_key.as_ref());
    let credentials =
        credentials.and_then(|(sealed, key)| core.ports.sealer.open(*run, sealed, key)).unwrap_or_default();
    opened(old, &credentials)?;
    Ok(Heir { run: *run, by: who.clone(), credentials, sealed: sealed.clone(), run_key })
}

/// Whether what the caller sent is still there.
fn opened(old: &Run, credentials: &BTreeMap<String, String>) -> Result<(), StartError> {
    let missing = old.started().credentials.iter().find(|name| !credentials.contains_key(*name));
    let why = |name| format!("`{name}` of the caller is gone with the end of the run: start it anew");
    missing.map_or(Ok(()), |name| Err(StartError::Invalid(why(name))))
}

/// The first half of a rerun, for the test of a crash after it.
#[cfg(test)]
pub(in crate::engine) async fn tests_hand_over(engine: &crate::engine::Engine, of: RunId, from: &str) -> RunId {
    let before = read(&engine.core, of).await.unwrap_or_else(|error| panic!("{error}"));
    hand_over(&engine.core, &before, &from.into(), "ann".into()).await.unwrap_or_else(|error| panic!("{error}"));
    let after = read(&engine.core, of).await.unwrap_or_else(|error| panic!("{error}"));
    after.run.superseded().map(|superseded| superseded.by).unwrap_or_else(|| panic!("it is not handed over"))
}
