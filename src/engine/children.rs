//! Runs that other runs begin.
//!
//! Always true: a child's id is on disk with its parent before it is born, so it is born once, whoever looks after it and
//! however often; its end reaches its parent wherever that is moved, and a parent that is taken up looks for itself. A
//! child has its parent's mode. The child of a rehearsal lives in memory, as part of its parent's task.
//!
//! When the store does not answer, a look is tried again; a child that cannot begin is one that failed.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::Core;
use super::begin::{self, Origin};
use super::clock::Clock;
use super::desk::NotDone;
use super::driver::{Driver, Parts};
use super::journal::Journal;
use super::mail::{ChildEnd, Letter};
use super::orders;
use crate::names::{Fence, RunId, Seq, StepId, WorkflowName};
use crate::store::StoreError;
use crate::workflow::{Event, Mode, OpenChild, Order, Parent, Run, RunStarted, RunStatus, evolve, fold};

/// Until the store is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// Until a child's seat is looked at again that somebody has who does not move it.
const MOMENT: Duration = Duration::from_millis(20);

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
        ChildEnd { child: self.child, status: RunStatus::Failed, output: Arc::new(Value::Null), note: Some(why) }
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
    ChildEnd { child: run.id(), status: run.status(), output: Arc::new(output), note: run.note() }
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

/// A run is left here without an end: where it was a child that is not on disk, nobody else will tell its parent.
pub(super) fn left(core: &Arc<Core>, run: &Run) {
    let Some(parent) = run.started().parent.as_ref().map(|parent| parent.run) else { return };
    if run.mode() == Mode::Rehearse {
        return;
    }
    let core = core.clone();
    core.clone().beside(async move {
        tokio::time::sleep(PAUSE).await;
        core.wake(parent);
    });
}

/// Says something to a child, as its parent; whether it heard. One that refuses has heard.
pub(super) async fn say(core: Arc<Core>, child: RunId, order: Order, parent: RunId) -> bool {
    let name = order.name();
    match orders::order(&core, child, order, parent.to_string()).await {
        Ok(_) => true,
        Err(NotDone::Store { why, .. }) => {
            tracing::warn!(run = %child, order = name, why, "a child did not hear its parent; it is said again");
            tokio::time::sleep(PAUSE).await;
            false
        }
        Err(why) => {
            tracing::debug!(run = %child, order = name, %why, "a child does not take an order of its parent");
            true
        }
    }
}

/// Sees that a child lives: it is born, unless it is there; its end, where it has ended.
pub(super) async fn look_after(core: Arc<Core>, parent: Arc<RunStarted>, begun: Begun, depth: u64) -> Option<ChildEnd> {
    if parent.mode == Mode::Rehearse {
        return Some(rehearse(&core, &parent, begun, depth).await);
    }
    loop {
        match look(&core, &parent, &begun).await {
            Ok(Seen::Lives) => return None,
            Ok(Seen::Ended(end)) => return Some(*end),
            Ok(Seen::Hidden) => tokio::time::sleep(MOMENT).await,
            Err(error) => {
                tracing::warn!(run = %begun.child, parent = %parent.run, %error, "a child cannot be looked after now");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// How a child stands.
enum Seen {
    /// It is moved, or will be.
    Lives,
    /// It has ended, or cannot begin.
    Ended(Box<ChildEnd>),
    /// It is not on disk, and somebody has its seat who only wants to ask it something.
    Hidden,
}

async fn look(core: &Arc<Core>, parent: &RunStarted, begun: &Begun) -> Result<Seen, StoreError> {
    // A seat alone says nothing: whoever asks something of a run takes it, be there such a run or not.
    if core.registry.word(begun.child).is_some() {
        return Ok(Seen::Lives);
    }
    let ended = |end| Ok(Seen::Ended(Box::new(end)));
    match core.store.run(begun.child).await? {
        Some(summary) if summary.status.is_final() => {
            let events = core.store.events(begun.child, Seq::FIRST).await?;
            let end = fold(events.iter().map(|stored| &stored.event)).map(|run| end_of(&run));
            ended(end.unwrap_or_else(|misfit| ChildEnd {
                status: summary.status,
                ..begun.failed(format!("its events cannot be read: {misfit}"))
            }))
        }
        Some(_) => Ok(Seen::Lives),
        None if too_deep(core, parent.run).await? => ended(begun.failed(deep(core))),
        None => Ok(birth(core, parent, begun)),
    }
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

/// A child's first fact, or why it cannot begin.
fn born(core: &Core, parent: &RunStarted, begun: &Begun) -> Result<(Run, Arc<crate::workflow::Plan>), ChildEnd> {
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
    let started = begin::started(&plan, begun.child, &begun.input, origin, core.wall.now());
    match evolve(None, &Event::RunStarted(Arc::new(started))) {
        Ok(run) => Ok((run, plan)),
        Err(misfit) => Err(begun.failed(misfit.to_string())),
    }
}

fn birth(core: &Arc<Core>, parent: &RunStarted, begun: &Begun) -> Seen {
    let (run, plan) = match born(core, parent, begun) {
        Ok(born) => born,
        Err(end) => return Seen::Ended(Box::new(end)),
    };
    let Some(seat) = core.post.sit(&core.alarm, begun.child) else { return Seen::Hidden };
    let permit = core.runs_of(run.mode()).and_then(|runs| runs.clone().try_acquire_owned().ok());
    let (executor, keeper, priority) = core.of_mode(run.mode(), &plan, None, Fence::FIRST);
    let mut driver = Driver::new(Parts {
        core: core.clone(),
        snapshot: core.snapshot.load_full(),
        plan,
        clock: Clock::starting(core.wall.now(), run.started().started),
        place: core.registry.take(run.id(), None).ok(),
        run,
        credentials: Default::default(),
        executor,
        journal: Journal::new(keeper, priority, None, Seq(0)),
        caller: None,
        seat: Some(seat),
        starter: None,
        depth: 0,
    });
    driver.born();
    core.spawn(driver, permit);
    Seen::Lives
}

/// The child of a rehearsal, from its birth to its end.
async fn rehearse(core: &Arc<Core>, parent: &RunStarted, begun: Begun, depth: u64) -> ChildEnd {
    if depth >= core.limits.run_depth_max {
        return begun.failed(deep(core));
    }
    let (run, plan) = match born(core, parent, &begun) {
        Ok(born) => born,
        Err(end) => return end,
    };
    let (executor, keeper, priority) = core.of_mode(run.mode(), &plan, None, Fence::FIRST);
    let mut driver = Driver::new(Parts {
        core: core.clone(),
        snapshot: core.snapshot.load_full(),
        plan,
        clock: Clock::starting(core.wall.now(), run.started().started),
        place: None,
        run,
        credentials: Default::default(),
        executor,
        journal: Journal::new(keeper, priority, None, Seq(0)),
        caller: None,
        seat: None,
        starter: None,
        depth: depth + 1,
    });
    driver.born();
    let drive: futures_util::future::BoxFuture<'_, Run> = Box::pin(driver.drive());
    end_of(&drive.await)
}
