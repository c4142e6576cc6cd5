//! Reads a run from the store, with its plan and its credentials.
//!
//! Always true: a run that cannot be read is left unchanged, and the error says why. A run whose sealed values cannot
//! be opened counts as one that cannot be read: otherwise it would send them sealed, and repeat an attempt with another
//! body.

use std::sync::Arc;

use crate::engine::context::Core;
use crate::engine::files_snapshot::FilesSnapshot;
use crate::engine::ports::event_sealer::EventSealer;
use crate::engine::ports::locks::ROWS_MAX;
use crate::engine::ports::opened_events;
use crate::engine::scheduler::acquired_run::LoadedRun;
use crate::engine::scheduler::stored_run::{self, ReadError, ReadFrom, StoredRun};
use crate::names::{PlanId, RunId, StepId};
use crate::store::{StoreError, StoredEvent};
use crate::workflow::{Plan, Run};

/// Why a run cannot be executed here.
pub(in crate::engine) enum LoadError {
    /// The store does not answer.
    Store(StoreError),
    /// The run's events or its plan cannot be read.
    Unreadable(String),
    /// Reading the run's events failed although the store answers other queries: the events are unreadable, or the
    /// error was transient.
    EventsUnavailable(String),
}

/// Reads a run, whether or not this process owns it.
pub(in crate::engine) async fn read(core: &Core, id: RunId, from: ReadFrom) -> Result<LoadedRun, LoadError> {
    let _permit = core.schedule.load_permits.0.acquire().await; // never closed
    let StoredRun { mut run, last_event_at, events, from_run_snapshot, no_sealed_value_opens } =
        match stored_run::read(core, id, from).await {
            Ok(stored) => stored,
            Err(error @ ReadError::Misfit(_)) => return Err(LoadError::Unreadable(error.to_string())),
            Err(ReadError::Store(error)) => {
                // If the store answers this query, only this run's events cannot be read, and other runs are not
                // affected.
                core.ports.store.run(id).await.map_err(LoadError::Store)?;
                return Err(LoadError::EventsUnavailable(format!("its events cannot be read: {error}")));
            }
        };
    if events.len() as u64 >= core.schedule.run_snapshots.every() && !run.is_final() && !run.holds_sensitive() {
        core.schedule.run_snapshots.request(id);
    }
    let started = run.started().clone();
    let snapshot = core.files.snapshot.load_full();
    let plan = plan_of(core, &snapshot, &started.plan).await?;
    let knowledge = run.collect_sensitive(&plan, events.iter().map(|stored| &stored.event));
    let mut sealer = EventSealer::new(&core.ports.sealer, id, knowledge);
    if no_sealed_value_opens && sealer.has_sealed_parts(events.iter().map(|stored| &stored.event)) {
        return Err(LoadError::Unreadable(opened_events::why_none_opens(&core.ports.sealer).to_owned()));
    }
    drop(events);
    for (step, item, name) in sealer.sensitive_locks(&run).map(into_owned).collect::<Vec<_>>() {
        // Rows of an earlier version have the name in clear.
        let rows = core.ports.store.locks(Some(vec![name]), ROWS_MAX).await.map_err(LoadError::Store)?;
        if rows.iter().any(|row| row.run == id && row.step == step && row.item == item) {
            sealer.note_clear_lock(step, item);
        }
    }
    let credentials = match &started.sealed {
        None => Default::default(),
        Some(sealed) => {
            let key = core.ports.store.run_key(id).await.map_err(LoadError::Store)?;
            match core.ports.sealer.open(id, sealed, key.as_deref().unwrap_or_default()) {
                Some(credentials) => credentials,
                None if key.is_some() && !run.is_final() => {
                    let why = opened_events::why_none_opens(&core.ports.sealer);
                    return Err(LoadError::Unreadable(why.to_owned()));
                }
                None => {
                    tracing::error!(run = %id, "the caller's credentials cannot be opened, because the store has no key of the run: calls that need them will fail");
                    Default::default()
                }
            }
        }
    };
    Ok(LoadedRun { run, last_event_at, plan, snapshot, credentials, sealer, from_run_snapshot })
}

fn into_owned((step, item, name): (&StepId, Option<u32>, &str)) -> (StepId, Option<u32>, String) {
    (step.clone(), item, name.to_owned())
}

/// Marks the sensitive values of a run that was read from these events, as its plan declares them; returns the plan.
/// Returns `None` if the run has no sensitive values, or if its plan cannot be read: in the second case everything in
/// the run counts as sensitive.
///
/// # Errors
/// The store does not answer.
pub(in crate::engine) async fn collect_sensitive(
    core: &Core,
    run: &mut Run,
    events: &[StoredEvent],
) -> Result<Option<Arc<Plan>>, StoreError> {
    if !run.holds_sensitive() {
        return Ok(None);
    }
    match plan_of(core, &core.files.snapshot.load_full(), &run.started().plan).await {
        Ok(plan) => {
            run.collect_sensitive(&plan, events.iter().map(|stored| &stored.event));
            Ok(Some(plan))
        }
        Err(LoadError::Store(error)) => Err(error),
        Err(LoadError::Unreadable(_) | LoadError::EventsUnavailable(_)) => Ok(None),
    }
}

/// The plan that a run was started with: the plan in force if it has the same id, else one built from the stored plan.
pub(in crate::engine) async fn plan_of(
    core: &Core,
    snapshot: &FilesSnapshot,
    id: &PlanId,
) -> Result<Arc<Plan>, LoadError> {
    if let Some(plan) = snapshot.plan(id) {
        return Ok(plan);
    }
    let stored = core.ports.store.plan(id.clone()).await.map_err(LoadError::Store)?;
    let plan = stored.and_then(|source| snapshot.rebuild(&source, &core.files.limits)).map(Arc::new);
    plan.filter(|plan| plan.id == *id)
        .ok_or_else(|| LoadError::Unreadable(format!("its plan ({id}) cannot be read by this version")))
}
