//! Creates the child of a run, exactly once.
//!
//! Always true: a child's id is durable, in an event of its parent, before the child is created. The task that creates
//! it holds the child's slot, and has checked while holding the slot that the store has no such run. So the child is
//! created once, however often `ensure_child` is called. The children of a run that ends are not created, and those of
//! a paused run only after it is resumed. A child has its parent's mode. The child of a rehearsal is kept in memory and
//! driven within its parent's task.
//!
//! When the store does not answer, or refuses the first append, the creation is tried again; a child that can never
//! start counts as failed. If its workflow was removed from the files after its parent decided on it, the child is not
//! created: the parent waits for files that have the workflow, and then decides on another child.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::engine::api::prepare::with_clock_of;
use crate::engine::api::prepared::{PreparedRun, Waiter};
use crate::engine::api::start::{self, StartContext};
use crate::engine::context::Core;
use crate::engine::driver;
use crate::engine::legacy_replies::{LegacySources, RepliesOfRun};
use crate::engine::machine::{
    ChildEnd, ChildSpec, ChildState, IntentsOfRun, RehearsedChild, RehearsedRun, SpawnPolicy, StartAnswer,
};
use crate::engine::ports::decode;
use crate::engine::scheduler::children::end_of;
use crate::engine::scheduler::load;
use crate::engine::scheduler::mailbox::ExecutionSlot;
use crate::engine::scheduler::spawn_policy_cell::SpawnPolicyCell;
use crate::names::RunId;
use crate::store::StoreError;
use crate::workflow::{FailureKind, Mode, Parent, Plan, Redaction, RunStarted, RunStatus, TreeEffects, fold};

/// The pause after the store did not answer or refused the first append.
const STORE_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The pause before another try to claim a slot that another task holds.
const SLOT_RETRY_PAUSE: Duration = Duration::from_millis(50);

impl ChildSpec {
    fn failed(&self, why: String) -> ChildEnd {
        let (child, status, output) = (self.child, RunStatus::Failed, Arc::new(Value::Null));
        let (failure, tree, sensitive) = (None, Some(TreeEffects::default()), Vec::new());
        ChildEnd { child, status, output, note: Some(why), failure, tree, sensitive }
    }
    fn cancelled(&self) -> ChildEnd {
        let why = "its parent ended before it was started".to_owned();
        ChildEnd { status: RunStatus::Cancelled, ..self.failed(why) }
    }
}

/// Creates a child unless it exists or the spawn policy of its parent forbids that; returns the child's state.
pub(in crate::engine) async fn ensure_child(
    core: Arc<Core>,
    parent: Arc<RunStarted>,
    spawn_policy: Arc<SpawnPolicyCell>,
    spec: ChildSpec,
    depth: u64,
    legacy_sources: LegacySources,
) -> ChildState {
    if parent.mode == Mode::Rehearse {
        return match rehearse(&core, &parent, &spec, depth, legacy_sources).await {
            Ok(child) => ChildState::Rehearsed(Box::new(child)),
            Err(CannotStart::Fails(end)) => ChildState::Ended(end),
            Err(CannotStart::NoWorkflow) => ChildState::NoWorkflow,
            Err(CannotStart::InputRefused(why)) => ChildState::InputRefused(why),
        };
    }
    loop {
        let pause = match try_ensure(&core, &parent, &spawn_policy, &spec, &legacy_sources).await {
            Ok(TryResult::State(state)) => return state,
            Ok(TryResult::SlotTaken) => SLOT_RETRY_PAUSE,
            Ok(TryResult::AppendRefused) => STORE_RETRY_PAUSE,
            Err(error) => {
                tracing::warn!(run = %spec.child, parent = %parent.run, %error, "the state of a child cannot be read: it is tried again");
                STORE_RETRY_PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// The result of one try to create a child.
enum TryResult {
    /// The child exists, or is not to be created.
    State(ChildState),
    /// The child is not stored, and another task holds its slot, to create the child or to deliver a command to it.
    SlotTaken,
    /// The store refused the child's first append.
    AppendRefused,
}

async fn try_ensure(
    core: &Arc<Core>,
    parent: &RunStarted,
    spawn_policy: &SpawnPolicyCell,
    spec: &ChildSpec,
    legacy_sources: &LegacySources,
) -> Result<TryResult, StoreError> {
    if let Some(state) = stored_state(core, spec).await? {
        return Ok(TryResult::State(state));
    }
    let is_too_deep = exceeds_depth_bound(core, parent.run).await?;
    let own_plan = plan_of_version(core, parent, spec).await?;
    let Some(slot) = core.schedule.mailboxes.claim_slot(&core.schedule.timers, spec.child) else {
        return Ok(TryResult::SlotTaken);
    };
    // Checked again: the last holder of the slot may have created the child.
    if let Some(state) = stored_state(core, spec).await? {
        return Ok(TryResult::State(state));
    }
    match spawn_policy.policy() {
        SpawnPolicy::Never => return give_up(core, spec.cancelled()).await,
        SpawnPolicy::Wait => return Ok(TryResult::State(ChildState::NotCreated)),
        SpawnPolicy::Spawn => {}
    }
    if is_too_deep {
        return give_up(core, spec.failed(depth_error(core))).await;
    }
    let answer = match create(core, parent, spec, own_plan, slot, legacy_sources.clone()) {
        Ok(answer) => answer,
        Err(CannotStart::Fails(end)) => return give_up(core, *end).await,
        Err(CannotStart::NoWorkflow) => {
            core.ports.store.remove_pending_run(spec.child).await?;
            return Ok(TryResult::State(ChildState::NoWorkflow));
        }
        Err(CannotStart::InputRefused(why)) => {
            core.ports.store.remove_pending_run(spec.child).await?;
            return Ok(TryResult::State(ChildState::InputRefused(why)));
        }
    };
    Ok(match answer.await {
        Ok(StartAnswer::Stored) => TryResult::State(ChildState::Running),
        // The child's task repeats the append, or has ended: the next try finds out from the slot and the store.
        Ok(StartAnswer::Unknown(_) | StartAnswer::OtherRun { .. }) | Err(_) => TryResult::SlotTaken,
        Ok(StartAnswer::NotStored(why)) => {
            tracing::warn!(run = %spec.child, parent = %parent.run, why, "a child was not created: it is tried again");
            TryResult::AppendRefused
        }
    })
}

/// Removes the outbox row of a child that is never created.
async fn give_up(core: &Core, end: ChildEnd) -> Result<TryResult, StoreError> {
    core.ports.store.remove_pending_run(end.child).await?;
    Ok(TryResult::State(ChildState::Ended(Box::new(end))))
}

/// The state of a stored child; `None` where it is not stored.
async fn stored_state(core: &Core, spec: &ChildSpec) -> Result<Option<ChildState>, StoreError> {
    let Some(summary) = core.ports.store.run(spec.child).await? else { return Ok(None) };
    if !summary.status.is_final() {
        return Ok(Some(ChildState::Running));
    }
    let unreadable = |why: String| {
        let failed = spec.failed(format!("its events cannot be read: {why}"));
        ChildEnd { status: summary.status, tree: None, ..failed }
    };
    let end = match core.events(spec.child).await {
        Ok(events) => match fold(events.iter().map(|stored| &stored.event)) {
            Ok(mut run) => {
                let plan = load::collect_sensitive(core, &mut run, &events).await?;
                end_of(&run, plan.as_deref(), core.bytes_mark())
            }
            Err(misfit) => unreadable(misfit.to_string()),
        },
        // If the child did not complete, its parent needs no result.
        Err(error) if summary.status != RunStatus::Completed && core.ports.store.run(spec.child).await.is_ok() => {
            unreadable(error.to_string())
        }
        Err(error) => return Err(error),
    };
    Ok(Some(ChildState::Ended(Box::new(end))))
}

fn depth_error(core: &Core) -> String {
    format!("runs start each other more than run_depth_max ({}) deep", core.files.limits.run_depth_max)
}

/// Whether a child of this run would have more ancestors than `run_depth_max`.
async fn exceeds_depth_bound(core: &Core, parent: RunId) -> Result<bool, StoreError> {
    let mut above = Some(parent);
    for _ in 0..core.files.limits.run_depth_max {
        let Some(run) = above else { return Ok(false) };
        above = core.ports.store.run(run).await?.and_then(|summary| summary.parent);
    }
    Ok(above.is_some())
}

/// Why a child cannot start.
enum CannotStart {
    /// The files in force do not have its workflow.
    NoWorkflow,
    /// Its workflow refuses its input, for this reason.
    InputRefused(String),
    /// The child counts as failed.
    Fails(Box<ChildEnd>),
}

/// The plan of a child, where its parent belongs to a version of its route's workflow and not to the files: `None` if
/// it does not, or if that plan cannot be read any more.
async fn plan_of_version(core: &Core, parent: &RunStarted, spec: &ChildSpec) -> Result<Option<Arc<Plan>>, StoreError> {
    let Some(id) = parent.child_plans.as_ref().and_then(|plans| plans.get(&spec.workflow)) else { return Ok(None) };
    let snapshot = core.files.snapshot.load_full();
    if let Some(plan) = snapshot.plan(id) {
        return Ok(Some(plan));
    }
    let source = core.ports.store.plan(id.clone()).await?;
    let plan = source.and_then(|source| snapshot.rebuild(&source, &core.files.limits)).filter(|plan| plan.id == *id);
    if plan.is_none() {
        tracing::warn!(run = %spec.child, parent = %parent.run, plan = %id, "the plan of a child is not stored, or cannot be read: that of the files is used");
    }
    Ok(plan.map(Arc::new))
}

/// Makes a child that is ready to be driven.
///
/// # Errors
/// Why the child cannot start.
fn prepare(
    core: &Core,
    parent: &RunStarted,
    spec: &ChildSpec,
    own_plan: Option<Arc<Plan>>,
    legacy_sources: &LegacySources,
) -> Result<PreparedRun, CannotStart> {
    let failed = |why: String| CannotStart::Fails(Box::new(spec.failed(why)));
    let snapshot = core.files.snapshot.load_full();
    let plan = own_plan.or_else(|| snapshot.plans.get(&spec.workflow).cloned());
    let Some(plan) = plan else { return Err(CannotStart::NoWorkflow) };
    if let Err(why) = plan.check_input(&spec.input) {
        return Err(CannotStart::InputRefused(why.join("; ")));
    }
    let mut sensitive_paths = spec.sensitive_paths.clone();
    let legacy = parent.legacy.as_ref().zip(snapshot.legacy_reply_paths(&plan)).map(|(legacy, paths)| {
        sensitive_paths.extend(paths.sensitive.iter().filter(|path| !spec.sensitive_paths.contains(path)).cloned());
        decode::legacy_of_child(legacy, &paths.paths, core.bytes_mark())
    });
    let context = StartContext {
        mode: parent.mode,
        by: parent.by.clone(),
        job: None,
        parent: Some(Parent { run: parent.run, step: spec.step.clone(), item: spec.item }),
        route_above: spec.route_above,
        child_plans: parent.child_plans.clone(),
        approval_above: spec.approval_above.clone(),
        legacy,
        traceparent: parent.traceparent.clone(),
        until: parent.until,
        bytes_mark: core.bytes_mark(),
        sensitive_paths,
    };
    let mut started = start::first_event(&plan, spec.child, &spec.input, context, core.process.clock.now());
    started.injected = with_clock_of(legacy_sources.reads.as_deref(), started.injected);
    let below = |replies: &Arc<RepliesOfRun>| replies.below(&spec.step, spec.item, spec.child, Arc::clone(&plan));
    let replies = legacy_sources.replies.as_ref().map(below).map(Arc::new);
    let legacy_sources = LegacySources { reads: legacy_sources.reads.clone(), replies };
    let prepared = PreparedRun::new(plan, started, snapshot).map_err(|misfit| failed(misfit.to_string()))?;
    Ok(PreparedRun { legacy_sources, ..prepared })
}

/// Starts the task of a new child; the receiver gets the result of its first append.
fn create(
    core: &Arc<Core>,
    parent: &RunStarted,
    spec: &ChildSpec,
    own_plan: Option<Arc<Plan>>,
    slot: ExecutionSlot,
    legacy_sources: LegacySources,
) -> Result<oneshot::Receiver<StartAnswer>, CannotStart> {
    let prepared = prepare(core, parent, spec, own_plan, &legacy_sources)?;
    let permit = core.permits_of(prepared.run.mode()).and_then(|runs| runs.clone().try_acquire_owned().ok());
    let registration = core.schedule.registry.register(spec.child, None).ok();
    let (answer_sender, answer) = oneshot::channel();
    let prepared = PreparedRun { registration, slot: Some(slot), ..prepared };
    driver::spawn(core, prepared.driver(core, Waiter::Starter(answer_sender)), permit);
    Ok(answer)
}

/// Runs the child of a rehearsal until it ends or waits for a person, whom a rehearsal does not ask. Returns its events
/// too, which are in no store.
async fn rehearse(
    core: &Arc<Core>,
    parent: &RunStarted,
    spec: &ChildSpec,
    depth: u64,
    legacy_sources: LegacySources,
) -> Result<RehearsedChild, CannotStart> {
    if depth >= core.files.limits.run_depth_max {
        return Err(CannotStart::Fails(Box::new(spec.failed(depth_error(core)))));
    }
    let own_plan = plan_of_version(core, parent, spec).await.map_err(|error| {
        CannotStart::Fails(Box::new(spec.failed(format!("the store does not return its plan: {error}"))))
    })?;
    let prepared = prepare(core, parent, spec, own_plan, &legacy_sources)?;
    let prepared = PreparedRun { depth: depth + 1, ..prepared };
    let plan = prepared.plan.clone();
    let driver = prepared.driver(core, Waiter::Nobody);
    let drive: futures_util::future::BoxFuture<'_, RehearsedRun> = Box::pin(driver.drive_rehearsal());
    let RehearsedRun { run, events, intents_below } = drive.await;
    let IntentsOfRun { intents, redactions_below, branch } = IntentsOfRun::of(&run, &plan, intents_below);
    let redaction = Redaction::of(&plan, &run).map(Arc::new);
    let end = end_of(&run, Some(&plan), core.bytes_mark());
    let end = match run.status() {
        status if status.is_final() => end,
        RunStatus::Paused => ChildEnd { status: RunStatus::Failed, failure: Some(FailureKind::WouldPause), ..end },
        _ => ChildEnd { tree: end.tree, ..spec.failed("its rehearsal did not end".to_owned()) },
    };
    let (step, item) = (spec.step.clone(), spec.item);
    Ok(RehearsedChild { end, step, item, events, intents, redaction, redactions_below, branch })
}
