//! Begins the child of a run, exactly once.
//!
//! Always true: a child's id is on disk with its parent's event before the child begins. Whoever begins it holds the
//! child's slot and has seen, while holding it, that the store has no such run: so it begins once, however often this is
//! called. The children of a run that ends do not begin, and those of a paused run only when it is resumed. A child has
//! its parent's mode. The child of a rehearsal is kept in memory, as part of its parent's task.
//!
//! When the store does not answer, or refuses the first append, this tries again; a child that can never begin counts as
//! failed.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::engine::api::children::end_of;
use crate::engine::api::prepared::{PreparedRun, Waiter};
use crate::engine::api::start::{self, Origin};
use crate::engine::context::Core;
use crate::engine::driver;
use crate::engine::machine::{ChildEnd, ChildSpec, ChildState, SpawnPolicy, StartAnswer};
use crate::engine::scheduler::mailbox::Slot;
use crate::engine::scheduler::spawn_gate::SpawnGate;
use crate::names::RunId;
use crate::store::StoreError;
use crate::workflow::{BytesMark, Mode, Parent, Run, RunStarted, RunStatus, fold};

/// Until the store is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// The pause before a slot is tried again that another task holds.
const SEAT: Duration = Duration::from_millis(50);

impl ChildSpec {
    fn failed(&self, why: String) -> ChildEnd {
        let (child, status, output) = (self.child, RunStatus::Failed, Arc::new(Value::Null));
        ChildEnd { child, status, output, note: Some(why), effects: false }
    }
    fn never_born(&self) -> ChildEnd {
        let why = "the run that began it ended before it was born".to_owned();
        ChildEnd { status: RunStatus::Cancelled, ..self.failed(why) }
    }
}

/// Sees that a child lives: it is born, unless it is there, or its parent does not begin it any more; its end, where it
/// has ended.
pub(in crate::engine) async fn look_after(
    core: Arc<Core>,
    parent: Arc<RunStarted>,
    gate: Arc<SpawnGate>,
    spec: ChildSpec,
    depth: u64,
) -> ChildState {
    if parent.mode == Mode::Rehearse {
        return ChildState::Ended(Box::new(rehearse(&core, &parent, spec, depth).await));
    }
    loop {
        let pause = match look(&core, &parent, &gate, &spec).await {
            Ok(Found::Seen(seen)) => return seen,
            Ok(Found::Taken) => SEAT,
            Ok(Found::Refused) => PAUSE,
            Err(error) => {
                tracing::warn!(run = %spec.child, parent = %parent.run, %error, "a child cannot be seen after now");
                PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

enum Found {
    Seen(ChildState),
    /// Somebody sits in its slot, and it is not on disk: it is being born, or somebody says something to it.
    Taken,
    /// Its first append was refused.
    Refused,
}

async fn look(core: &Arc<Core>, parent: &RunStarted, gate: &SpawnGate, spec: &ChildSpec) -> Result<Found, StoreError> {
    if let Some(seen) = on_disk(core, spec).await? {
        return Ok(Found::Seen(seen));
    }
    let deep = too_deep(core, parent.run).await?;
    let Some(slot) = core.schedule.mailboxes.claim_slot(&core.schedule.timers, spec.child) else {
        return Ok(Found::Taken);
    };
    // Whoever sat there before may have begun it.
    if let Some(seen) = on_disk(core, spec).await? {
        return Ok(Found::Seen(seen));
    }
    match gate.policy() {
        SpawnPolicy::Never => return never(core, spec.never_born()).await,
        SpawnPolicy::Wait => return Ok(Found::Seen(ChildState::NotBorn)),
        SpawnPolicy::Spawn => {}
    }
    if deep {
        return never(core, spec.failed(self::deep(core))).await;
    }
    let told = match birth(core, parent, spec, slot) {
        Ok(told) => told,
        Err(end) => return never(core, end).await,
    };
    Ok(match told.await {
        Ok(StartAnswer::Stored) => Found::Seen(ChildState::Running),
        // Its task tries again, or has ended: its slot and the store tell which.
        Ok(StartAnswer::Unknown(_) | StartAnswer::OtherRun { .. }) | Err(_) => Found::Taken,
        Ok(StartAnswer::NotStored(why)) => {
            tracing::warn!(run = %spec.child, parent = %parent.run, why, "a child is not born; it is tried again");
            Found::Refused
        }
    })
}

/// The child never begins: its row of the outbox is removed.
async fn never(core: &Core, end: ChildEnd) -> Result<Found, StoreError> {
    core.ports.store.remove_pending_run(end.child).await?;
    Ok(Found::Seen(ChildState::Ended(Box::new(end))))
}

/// The child as the store has it; `None` where it is not there.
async fn on_disk(core: &Core, spec: &ChildSpec) -> Result<Option<ChildState>, StoreError> {
    let Some(summary) = core.ports.store.run(spec.child).await? else { return Ok(None) };
    if !summary.status.is_final() {
        return Ok(Some(ChildState::Running));
    }
    let events = core.events(spec.child).await?;
    let end = fold(events.iter().map(|stored| &stored.event)).map(|run| end_of(&run));
    let unreadable = |misfit| {
        let failed = spec.failed(format!("its events cannot be read: {misfit}"));
        ChildEnd { status: summary.status, effects: true, ..failed } // who knows what it did
    };
    Ok(Some(ChildState::Ended(Box::new(end.unwrap_or_else(unreadable)))))
}

fn deep(core: &Core) -> String {
    format!("runs begin each other more than run_depth_max ({}) deep", core.files.limits.run_depth_max)
}

async fn too_deep(core: &Core, parent: RunId) -> Result<bool, StoreError> {
    let mut above = Some(parent);
    for _ in 0..core.files.limits.run_depth_max {
        let Some(run) = above else { return Ok(false) };
        above = core.ports.store.run(run).await?.and_then(|summary| summary.parent);
    }
    Ok(above.is_some())
}

/// A child that can be born, or why it cannot begin.
fn prepared(core: &Core, parent: &RunStarted, spec: &ChildSpec) -> Result<PreparedRun, ChildEnd> {
    let snapshot = core.files.snapshot.load_full();
    let Some(plan) = snapshot.plans.get(&spec.workflow).cloned() else {
        return Err(spec.failed(format!("there is no workflow `{}`", spec.workflow)));
    };
    if let Err(why) = plan.check_input(&spec.input) {
        let why = why.join("; ");
        return Err(spec.failed(format!("`{}` does not take this input: {why}", spec.workflow)));
    }
    let origin = Origin {
        mode: parent.mode,
        by: parent.by.clone(),
        job: None,
        parent: Some(Parent { run: parent.run, step: spec.step.clone(), item: spec.item }),
        legacy: parent.legacy.clone(),
        traceparent: parent.traceparent.clone(),
        until: parent.until,
        mark: BytesMark::new(&core.files.key_secret),
    };
    let started = start::started(&plan, spec.child, &spec.input, origin, core.process.clock.now());
    PreparedRun::new(plan, started, snapshot).map_err(|misfit| spec.failed(misfit.to_string()))
}

/// Begins a child; the receiver is told what became of its first append.
fn birth(
    core: &Arc<Core>,
    parent: &RunStarted,
    spec: &ChildSpec,
    slot: Slot,
) -> Result<oneshot::Receiver<StartAnswer>, ChildEnd> {
    let prepared = prepared(core, parent, spec)?;
    let permit = core.permits_of(prepared.run.mode()).and_then(|runs| runs.clone().try_acquire_owned().ok());
    let registration = core.schedule.registry.register(spec.child, None).ok();
    let (tell, told) = oneshot::channel();
    let prepared = PreparedRun { registration, slot: Some(slot), ..prepared };
    driver::spawn(core, prepared.driver(core, Waiter::Starter(tell)), permit);
    Ok(told)
}

/// Runs the child of a rehearsal to its end.
async fn rehearse(core: &Arc<Core>, parent: &RunStarted, spec: ChildSpec, depth: u64) -> ChildEnd {
    if depth >= core.files.limits.run_depth_max {
        return spec.failed(deep(core));
    }
    let prepared = match prepared(core, parent, &spec) {
        Ok(prepared) => PreparedRun { depth: depth + 1, ..prepared },
        Err(end) => return end,
    };
    let driver = prepared.driver(core, Waiter::Nobody);
    let drive: futures_util::future::BoxFuture<'_, Run> = Box::pin(driver.drive());
    end_of(&drive.await)
}
