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
use uuid::Uuid;

use super::Core;
use super::begin::{self, Origin};
use super::desk::NotDone;
use super::driver::Born;
use super::mail::{ChildEnd, Letter, Seat};
use super::newborn::{Newborn, Wished};
use super::orders;
use crate::names::{RunId, Seq, StepId, WorkflowName};
use crate::store::StoreError;
use crate::workflow::{Mode, OpenChild, Order, Parent, Run, RunStarted, RunStatus, fold};

/// Until the store is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// Until a seat is looked at again in which somebody else sits.
const SEAT: Duration = Duration::from_millis(50);

/// Whether a parent begins anything now. Its looks read it; they are polled by the task that changes it, so that nothing
/// comes between a look's last question and a birth.
#[derive(Default)]
pub(super) struct Mood(AtomicU8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goes {
    On,
    /// Somebody paused it.
    Held,
    /// It ends.
    ToItsEnd,
}

impl Mood {
    /// How the run goes on now; how it went on before.
    pub fn of(&self, run: &Run) -> (Goes, Goes) {
        let now = match (run.is_ending(), run.is_held()) {
            (true, _) => Goes::ToItsEnd,
            (false, true) => Goes::Held,
            (false, false) => Goes::On,
        };
        (now, Self::goes(self.0.swap(now as u8, Ordering::AcqRel)))
    }
    fn now(&self) -> Goes {
        Self::goes(self.0.load(Ordering::Acquire))
    }
    fn goes(kept: u8) -> Goes {
        match kept {
            0 => Goes::On,
            1 => Goes::Held,
            _ => Goes::ToItsEnd,
        }
    }
}

/// What a look at a child came to.
pub(super) enum Looked {
    /// It is there, and goes on.
    Alive,
    /// It is not there, and is not born while its parent is paused.
    Unborn,
    /// It has ended, or never began.
    Ended(Box<ChildEnd>),
}

/// What became of something that a parent says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is done, or refused.
    Yes,
    /// There was nobody: said again when a look has found somebody.
    Nobody,
    /// Nobody knows: it is said again.
    No,
}

/// A run that another one began.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    pub child: RunId,
    pub step: StepId,
    pub item: Option<u32>,
    pub workflow: WorkflowName,
    pub input: Arc<Value>,
}

impl Begun {
    /// The id of a run that is about to begin.
    pub fn new_id() -> RunId {
        RunId(Uuid::now_v7())
    }
    fn failed(&self, why: String) -> ChildEnd {
        let (child, status, output) = (self.child, RunStatus::Failed, Arc::new(Value::Null));
        ChildEnd { child, status, output, note: Some(why), effects: false }
    }
    fn never_born(&self) -> ChildEnd {
        let why = "the run that began it ended before it was born".to_owned();
        ChildEnd { status: RunStatus::Cancelled, ..self.failed(why) }
    }
}

/// Runs that it began and that have not ended for it.
pub(super) fn open_of(run: &Run) -> Vec<Begun> {
    let open = run.children();
    open.map(|OpenChild { step, item, run, workflow, input }| Begun { child: run, step, item, workflow, input })
        .collect()
}

/// How a run ended, for the one that began it.
fn end_of(run: &Run) -> ChildEnd {
    let output = run.answer().map_or(Value::Null, |answer| answer.body.value());
    let (child, status, output) = (run.id(), run.status(), Arc::new(output));
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
pub(super) async fn say(core: Arc<Core>, child: RunId, order: Order, parent: RunId) -> Heard {
    let name = order.name();
    match orders::order(&core, child, order, parent.to_string()).await {
        Ok(_) => Heard::Yes,
        Err(NotDone::NoRun) => Heard::Nobody,
        Err(NotDone::Store { why, .. }) => {
            tracing::warn!(run = %child, order = name, why, "a child did not hear its parent; it is said again");
            tokio::time::sleep(PAUSE).await;
            Heard::No
        }
        Err(why) => {
            tracing::debug!(run = %child, order = name, %why, "a child does not take an order of its parent");
            Heard::Yes
        }
    }
}

/// Sees that a child lives: it is born, unless it is there, or its parent does not begin it any more; its end, where it
/// has ended.
pub(super) async fn look_after(
    core: Arc<Core>,
    parent: Arc<RunStarted>,
    mood: Arc<Mood>,
    begun: Begun,
    depth: u64,
) -> Looked {
    if parent.mode == Mode::Rehearse {
        return Looked::Ended(Box::new(rehearse(&core, &parent, begun, depth).await));
    }
    loop {
        let pause = match look(&core, &parent, &mood, &begun).await {
            Ok(Found::Looked(looked)) => return looked,
            Ok(Found::Taken) => SEAT,
            Ok(Found::Refused) => PAUSE,
            Err(error) => {
                tracing::warn!(run = %begun.child, parent = %parent.run, %error, "a child cannot be looked after now");
                PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

enum Found {
    Looked(Looked),
    /// Somebody sits in its seat, and it is not on disk: it is being born, or somebody says something to it.
    Taken,
    /// Its birth is not on disk.
    Refused,
}

async fn look(core: &Arc<Core>, parent: &RunStarted, mood: &Mood, begun: &Begun) -> Result<Found, StoreError> {
    if let Some(looked) = on_disk(core, begun).await? {
        return Ok(Found::Looked(looked));
    }
    let deep = too_deep(core, parent.run).await?;
    let Some(seat) = core.post.sit(&core.alarm, begun.child) else { return Ok(Found::Taken) };
    // Whoever sat there before may have begun it.
    if let Some(looked) = on_disk(core, begun).await? {
        return Ok(Found::Looked(looked));
    }
    let never = |end| Ok(Found::Looked(Looked::Ended(Box::new(end))));
    match mood.now() {
        Goes::ToItsEnd => return never(begun.never_born()),
        Goes::Held => return Ok(Found::Looked(Looked::Unborn)),
        Goes::On => {}
    }
    if deep {
        return never(begun.failed(self::deep(core)));
    }
    let told = match birth(core, parent, begun, seat) {
        Ok(told) => told,
        Err(end) => return never(end),
    };
    Ok(match told.await {
        Ok(Born::Kept) => Found::Looked(Looked::Alive),
        // Its task goes on trying, or is gone: who sits there and what is on disk say more.
        Ok(Born::Unknown(_) | Born::Other { .. }) | Err(_) => Found::Taken,
        Ok(Born::Nothing(why)) => {
            tracing::warn!(run = %begun.child, parent = %parent.run, why, "a child is not born; it is tried again");
            Found::Refused
        }
    })
}

/// The child as the store has it; `None` where it is not there.
async fn on_disk(core: &Core, begun: &Begun) -> Result<Option<Looked>, StoreError> {
    let Some(summary) = core.store.run(begun.child).await? else { return Ok(None) };
    if !summary.status.is_final() {
        return Ok(Some(Looked::Alive));
    }
    let events = core.store.events(begun.child, Seq::FIRST).await?;
    let end = fold(events.iter().map(|stored| &stored.event)).map(|run| end_of(&run));
    let unreadable = |misfit| {
        let failed = begun.failed(format!("its events cannot be read: {misfit}"));
        ChildEnd { status: summary.status, effects: true, ..failed } // who knows what it did
    };
    Ok(Some(Looked::Ended(Box::new(end.unwrap_or_else(unreadable)))))
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
fn newborn(core: &Core, parent: &RunStarted, begun: &Begun) -> Result<Newborn, ChildEnd> {
    let snapshot = core.snapshot.load_full();
    let Some(plan) = snapshot.plans.get(&begun.workflow).cloned() else {
        return Err(begun.failed(format!("there is no workflow `{}`", begun.workflow)));
    };
    if let Err(why) = plan.check_input(&begun.input) {
        let why = why.join("; ");
        return Err(begun.failed(format!("`{}` does not take this input: {why}", begun.workflow)));
    }
    let origin = Origin {
        mode: parent.mode,
        by: parent.by.clone(),
        job: None,
        parent: Some(Parent { run: parent.run, step: begun.step.clone(), item: begun.item }),
        legacy: parent.legacy.clone(),
        traceparent: parent.traceparent.clone(),
        until: parent.until,
    };
    let started = begin::started(&plan, begun.child, &begun.input, origin, core.clock.now());
    Newborn::new(plan, started, snapshot).map_err(|misfit| begun.failed(misfit.to_string()))
}

/// Gives birth to a child; what became of that is told.
fn birth(
    core: &Arc<Core>,
    parent: &RunStarted,
    begun: &Begun,
    seat: Seat,
) -> Result<oneshot::Receiver<Born>, ChildEnd> {
    let newborn = newborn(core, parent, begun)?;
    let permit = core.runs_of(newborn.run.mode()).and_then(|runs| runs.clone().try_acquire_owned().ok());
    let place = core.registry.take(begun.child, None).ok();
    let (tell, told) = oneshot::channel();
    let newborn = Newborn { place, seat: Some(seat), ..newborn };
    core.spawn(newborn.driver(core, Wished::Starter(tell)), permit);
    Ok(told)
}

/// The child of a rehearsal, from its birth to its end.
async fn rehearse(core: &Arc<Core>, parent: &RunStarted, begun: Begun, depth: u64) -> ChildEnd {
    if depth >= core.limits.run_depth_max {
        return begun.failed(deep(core));
    }
    let newborn = match newborn(core, parent, &begun) {
        Ok(newborn) => Newborn { depth: depth + 1, ..newborn },
        Err(end) => return end,
    };
    let driver = newborn.driver(core, Wished::Nobody);
    let drive: futures_util::future::BoxFuture<'_, Run> = Box::pin(driver.drive());
    end_of(&drive.await)
}
