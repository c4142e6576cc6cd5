//! Runs that other runs begin.
//!
//! Always true: a child's id is on disk with its parent before it is born, and it is born in its own seat, after a look
//! that found nothing while nobody else could sit there: so it is born once, whoever looks after it and however often. A
//! parent that ends begins nothing more, and one that is paused nothing until it goes on. A child's end reaches its
//! parent wherever that is moved, and a parent that is taken up looks for itself. A child has its parent's mode. The
//! child of a rehearsal lives in memory, as part of its parent's task.
//!
//! When the store does not answer, or refuses a birth, a look is tried again; a child that cannot begin is one that
//! failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use super::Core;
use super::begin::{self, Origin};
use super::desk::NotDone;
use super::machine::{ChildEnd, ChildSeen, ChildSpec, Delivery, SpawnPolicy, StartAnswer};
use super::mail::{Letter, Seat};
use super::newborn::{Newborn, Wished};
use super::orders;
use crate::names::{RunId, Seq};
use crate::store::StoreError;
use crate::workflow::{Mode, Order, Parent, Run, RunStarted, RunStatus, fold};

/// Until the store is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// Until a seat is seen at again in which somebody else sits.
const SEAT: Duration = Duration::from_millis(50);

/// The spawn policy of a parent, for the looks at its children. They read it, and are polled by the task that changes it,
/// so that nothing comes between a look's last question and a birth.
#[derive(Default)]
pub(super) struct SpawnGate(AtomicU8);

impl SpawnGate {
    /// This is in force from now on.
    pub fn set(&self, policy: SpawnPolicy) {
        self.0.store(policy as u8, Ordering::Release);
    }
    fn policy(&self) -> SpawnPolicy {
        match self.0.load(Ordering::Acquire) {
            0 => SpawnPolicy::Spawn,
            1 => SpawnPolicy::Wait,
            _ => SpawnPolicy::Never,
        }
    }
}

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

/// How a run ended, for the one that began it.
fn end_of(run: &Run) -> ChildEnd {
    let output = run.answer().map_or(Value::Null, |answer| answer.body.value());
    // For its parent an early end is no result, declared or not.
    let early = run.status() == RunStatus::Completed && run.failed_as_declared();
    let status = if early { RunStatus::Failed } else { run.status() };
    let (child, output) = (run.id(), Arc::new(output));
    ChildEnd { child, status, output, note: run.note(), effects: run.did_something() }
}

/// A run has ended: whoever began it hears so.
pub(super) fn ended(core: &Arc<Core>, run: &Run) {
    let Some(parent) = run.started().parent.as_ref().map(|parent| parent.run) else { return };
    if run.mode() == Mode::Rehearse {
        return; // its parent has it in hand
    }
    let (core, end) = (core.clone(), end_of(run));
    core.clone().beside(async move {
        if core.post(parent, Letter::Child(Box::new(end))).await.is_err() {
            tracing::debug!(run = %parent, "the next process sees that a run that it began has ended");
        }
    });
}

/// Says something to a child, as its parent. One that refuses has heard.
pub(super) async fn say(core: Arc<Core>, child: RunId, order: Order, parent: RunId) -> Delivery {
    let name = order.name();
    match orders::order(&core, child, order, parent.to_string()).await {
        Ok(_) => Delivery::Done,
        Err(NotDone::NoRun) => Delivery::NoRun,
        Err(NotDone::Store { why, .. }) => {
            tracing::warn!(run = %child, order = name, why, "a child did not hear its parent; it is said again");
            tokio::time::sleep(PAUSE).await;
            Delivery::Unknown
        }
        Err(why) => {
            tracing::debug!(run = %child, order = name, %why, "a child does not take an order of its parent");
            Delivery::Done
        }
    }
}

/// Sees that a child lives: it is born, unless it is there, or its parent does not begin it any more; its end, where it
/// has ended.
pub(super) async fn look_after(
    core: Arc<Core>,
    parent: Arc<RunStarted>,
    gate: Arc<SpawnGate>,
    spec: ChildSpec,
    depth: u64,
) -> ChildSeen {
    if parent.mode == Mode::Rehearse {
        return ChildSeen::Ended(Box::new(rehearse(&core, &parent, spec, depth).await));
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
    Seen(ChildSeen),
    /// Somebody sits in its seat, and it is not on disk: it is being born, or somebody says something to it.
    Taken,
    /// Its birth is not on disk.
    Refused,
}

async fn look(core: &Arc<Core>, parent: &RunStarted, gate: &SpawnGate, spec: &ChildSpec) -> Result<Found, StoreError> {
    if let Some(seen) = on_disk(core, spec).await? {
        return Ok(Found::Seen(seen));
    }
    let deep = too_deep(core, parent.run).await?;
    let Some(seat) = core.post.sit(&core.alarm, spec.child) else { return Ok(Found::Taken) };
    // Whoever sat there before may have begun it.
    if let Some(seen) = on_disk(core, spec).await? {
        return Ok(Found::Seen(seen));
    }
    match gate.policy() {
        SpawnPolicy::Never => return never(core, spec.never_born()).await,
        SpawnPolicy::Wait => return Ok(Found::Seen(ChildSeen::Unborn)),
        SpawnPolicy::Spawn => {}
    }
    if deep {
        return never(core, spec.failed(self::deep(core))).await;
    }
    let told = match birth(core, parent, spec, seat) {
        Ok(told) => told,
        Err(end) => return never(core, end).await,
    };
    Ok(match told.await {
        Ok(StartAnswer::Stored) => Found::Seen(ChildSeen::Alive),
        // Its task goes on trying, or is gone: who sits there and what is on disk say more.
        Ok(StartAnswer::Unknown(_) | StartAnswer::OtherRun { .. }) | Err(_) => Found::Taken,
        Ok(StartAnswer::NotStored(why)) => {
            tracing::warn!(run = %spec.child, parent = %parent.run, why, "a child is not born; it is tried again");
            Found::Refused
        }
    })
}

/// The child is not born, now or ever: its row in the outbox goes.
async fn never(core: &Core, end: ChildEnd) -> Result<Found, StoreError> {
    core.store.drop_birth(end.child).await?;
    Ok(Found::Seen(ChildSeen::Ended(Box::new(end))))
}

/// A child that was decided on has no event yet: its parent's driver begins it, where that has not ended.
pub(super) async fn deliver(core: &Arc<Core>, child: RunId, parent: RunId) -> Result<(), StoreError> {
    if core.store.run(parent).await?.is_none_or(|parent| parent.status.is_final()) {
        tracing::debug!(run = %child, %parent, "a child is not born: its parent has ended");
        return core.store.drop_birth(child).await;
    }
    core.wake(parent);
    Ok(())
}

/// The child as the store has it; `None` where it is not there.
async fn on_disk(core: &Core, spec: &ChildSpec) -> Result<Option<ChildSeen>, StoreError> {
    let Some(summary) = core.store.run(spec.child).await? else { return Ok(None) };
    if !summary.status.is_final() {
        return Ok(Some(ChildSeen::Alive));
    }
    let events = core.store.events(spec.child, Seq::FIRST).await?;
    let end = fold(events.iter().map(|stored| &stored.event)).map(|run| end_of(&run));
    let unreadable = |misfit| {
        let failed = spec.failed(format!("its events cannot be read: {misfit}"));
        ChildEnd { status: summary.status, effects: true, ..failed } // who knows what it did
    };
    Ok(Some(ChildSeen::Ended(Box::new(end.unwrap_or_else(unreadable)))))
}

fn deep(core: &Core) -> String {
    format!("runs begin each other more than run_depth_max ({}) deep", core.limits.run_depth_max)
}

async fn too_deep(core: &Core, parent: RunId) -> Result<bool, StoreError> {
    let mut above = Some(parent);
    for _ in 0..core.limits.run_depth_max {
        let Some(run) = above else { return Ok(false) };
        above = core.store.run(run).await?.and_then(|summary| summary.parent);
    }
    Ok(above.is_some())
}

/// A child that can be born, or why it cannot begin.
fn newborn(core: &Core, parent: &RunStarted, spec: &ChildSpec) -> Result<Newborn, ChildEnd> {
    let snapshot = core.snapshot.load_full();
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
    };
    let started = begin::started(&plan, spec.child, &spec.input, origin, core.clock.now());
    Newborn::new(plan, started, snapshot).map_err(|misfit| spec.failed(misfit.to_string()))
}

/// Gives birth to a child; what became of that is told.
fn birth(
    core: &Arc<Core>,
    parent: &RunStarted,
    spec: &ChildSpec,
    seat: Seat,
) -> Result<oneshot::Receiver<StartAnswer>, ChildEnd> {
    let newborn = newborn(core, parent, spec)?;
    let permit = core.runs_of(newborn.run.mode()).and_then(|runs| runs.clone().try_acquire_owned().ok());
    let place = core.registry.take(spec.child, None).ok();
    let (tell, told) = oneshot::channel();
    let newborn = Newborn { place, seat: Some(seat), ..newborn };
    core.spawn(newborn.driver(core, Wished::Starter(tell)), permit);
    Ok(told)
}

/// The child of a rehearsal, from its birth to its end.
async fn rehearse(core: &Arc<Core>, parent: &RunStarted, spec: ChildSpec, depth: u64) -> ChildEnd {
    if depth >= core.limits.run_depth_max {
        return spec.failed(deep(core));
    }
    let newborn = match newborn(core, parent, &spec) {
        Ok(newborn) => Newborn { depth: depth + 1, ..newborn },
        Err(end) => return end,
    };
    let driver = newborn.driver(core, Wished::Nobody);
    let drive: futures_util::future::BoxFuture<'_, Run> = Box::pin(driver.drive());
    end_of(&drive.await)
}
