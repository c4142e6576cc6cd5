//! Waits until a run has ended, awaits input (waits for a person or a signal), or has new events.
//!
//! Always true: only durable events are reported. The store is not read while nothing happens, unless another process
//! may execute the run: then it is polled for as long as somebody waits. A run whose descendant waits for a person or a
//! signal counts as waiting for one too.
//!
//! The number of waiters is bounded by their callers; a run's entry in [`Watchers`] is removed with its last
//! subscription.
//!
//! [`Watchers`]: crate::engine::scheduler::subscriptions::Watchers

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::engine::context::Core;
use crate::engine::scheduler::children::WAITING_STATUSES;
use crate::engine::scheduler::subscriptions::{DurableState, WokenBy};
use crate::names::{PlanId, RunId, Seq};
use crate::store::{RunFilter, StoredEvent};
use crate::workflow::{RunStatus, RunSummary, StepKind};

/// How often the store is read for a run that another process executes.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// How many runs a search for waiting descendants visits at most, and how many children of each it reads.
const DESCENDANTS_MAX: usize = 100;

/// A subscription to the durable events of a run; dropping it unsubscribes.
pub(in crate::engine) struct Subscription {
    core: Arc<Core>,
    run: RunId,
    woken_by: WokenBy,
    updates: watch::Receiver<DurableState>,
}

impl Subscription {
    /// Subscribes to a run from now on.
    fn to(core: &Arc<Core>, run: RunId, woken_by: WokenBy) -> Self {
        let updates = core.schedule.subscriptions.subscribe(run, woken_by);
        Self { core: core.clone(), run, woken_by, updates }
    }
    /// Subscribes to a run that has not begun, until it has ended or awaits input; its events are collected.
    pub fn to_new(core: &Arc<Core>, run: RunId) -> Self {
        let updates = core.schedule.subscriptions.subscribe_from_the_first(run);
        Self { core: core.clone(), run, woken_by: WokenBy::EndedOrAwaitsInput, updates }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.core.schedule.subscriptions.unsubscribe(self.run, self.woken_by);
    }
}

/// Whether a run's plan has steps that start children.
fn may_have_children(core: &Core, plan: &PlanId) -> bool {
    let plan = core.files.snapshot.load().plan(plan);
    plan.is_none_or(|plan| plan.steps.iter().any(|step| matches!(step.kind, StepKind::Run(_))))
}

/// Whether a descendant of this run, which has this plan, waits for a person or a signal.
pub(super) async fn descendant_waits(core: &Core, run: RunId, plan: &PlanId, until: Instant) -> bool {
    let children = async |parent: RunId, statuses: &[RunStatus], limit: usize| {
        let filter = RunFilter { parent: Some(parent), statuses: statuses.to_vec(), limit, ..RunFilter::default() };
        let found = timeout_at(until.max(Instant::now() + POLL_INTERVAL), core.ports.store.runs(filter)).await;
        found.ok().and_then(Result::ok).unwrap_or_default()
    };
    let mut unvisited: Vec<RunId> = may_have_children(core, plan).then_some(run).into_iter().collect();
    for _ in 0..DESCENDANTS_MAX {
        let Some(parent) = unvisited.pop() else { return false };
        if !children(parent, &WAITING_STATUSES, 1).await.is_empty() {
            return true;
        }
        let open = children(parent, &[RunStatus::Running, RunStatus::Compensating], DESCENDANTS_MAX).await;
        unvisited.extend(open.iter().filter(|child| may_have_children(core, &child.plan_id)).map(|child| child.run_id));
    }
    false
}

/// Why a waiter was woken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WokenUp {
    /// The subscription was updated: events became durable, a descendant began to wait, or the run's end was reported.
    Update,
    /// The store is to be read.
    Poll,
    /// The waiting time is over.
    TimedOut,
}

/// Waits until the run has ended, or it or a descendant waits for a person or a signal, at most `within`; returns the
/// run as it is then.
pub(in crate::engine) async fn wait_until_ended_or_awaits_input(
    core: &Arc<Core>,
    run: RunId,
    within: Duration,
) -> Option<RunSummary> {
    wait_for_end_or_input(&mut Subscription::to(core, run, WokenBy::EndedOrAwaitsInput), WokenUp::Poll, within).await
}

/// Like [`wait_until_ended_or_awaits_input`], for a run that was subscribed to before it began: no update was missed,
/// so the store need not be read. Returns all events of the run; `None` if they were not all collected.
pub(in crate::engine) async fn wait_until_new_run_ended_or_awaits_input(
    mut subscription: Subscription,
    within: Duration,
) -> Option<Vec<StoredEvent>> {
    let until = Instant::now() + within;
    let woken_up = if subscription.updates.borrow().seq.is_some() {
        WokenUp::Update
    } else {
        next_wake_up(&mut subscription, until).await
    };
    let run =
        wait_for_end_or_input(&mut subscription, woken_up, until.saturating_duration_since(Instant::now())).await?;
    subscription.core.schedule.subscriptions.events(subscription.run, run.seq)
}

async fn wait_for_end_or_input(
    subscription: &mut Subscription,
    mut woken_up: WokenUp,
    within: Duration,
) -> Option<RunSummary> {
    let until = Instant::now() + within;
    let (core, run) = (subscription.core.clone(), subscription.run);
    let (mut last, mut wait_count_seen) = (None, 0);
    loop {
        let seen = subscription.updates.borrow_and_update().clone();
        let checks_descendants = woken_up == WokenUp::Poll || seen.descendant_wait_count != wait_count_seen;
        wait_count_seen = seen.descendant_wait_count;
        let is_current = woken_up == WokenUp::Update && !seen.ended;
        match seen.summary().filter(|_| is_current) {
            Some(summary) => last = Some(summary.clone()),
            // Another append is in flight, so the run has not ended and awaits no input.
            None if is_current && !checks_descendants => {}
            None => {
                last = stored_summary(&core, run, until).await.or(last);
                last.as_ref()?;
            }
        }
        if woken_up == WokenUp::TimedOut || last.as_ref().is_some_and(|last| last.status.has_ended_or_awaits_input()) {
            return last;
        }
        if let Some(run) = last.as_ref().filter(|_| checks_descendants)
            && descendant_waits(&core, run.run_id, &run.plan_id, until).await
        {
            return last;
        }
        woken_up = next_wake_up(subscription, until).await;
    }
}

/// Waits until events after `seq` are durable, at most `within`; returns the sequence number of the last durable event.
pub(in crate::engine) async fn wait_for_events_after(
    core: &Arc<Core>,
    run: RunId,
    seq: Seq,
    within: Duration,
) -> Option<Seq> {
    let until = Instant::now() + within;
    let mut subscription = Subscription::to(core, run, WokenBy::Append);
    let mut woken_up = WokenUp::Poll;
    let mut last = None;
    loop {
        let seen = subscription.updates.borrow_and_update().clone();
        match seen.seq.filter(|_| woken_up == WokenUp::Update && !seen.ended) {
            Some(seen) => last = Some(seen),
            None => last = stored_summary(core, run, until).await.map(|summary| summary.seq).or(last),
        }
        if woken_up == WokenUp::TimedOut || last.is_none_or(|last| last > seq) {
            return last;
        }
        woken_up = next_wake_up(&mut subscription, until).await;
    }
}

/// The run as it is stored; `None` where there is none, or the store does not answer in time.
async fn stored_summary(core: &Core, run: RunId, until: Instant) -> Option<RunSummary> {
    timeout_at(until.max(Instant::now() + POLL_INTERVAL), core.ports.store.run(run)).await.ok()?.ok()?
}

/// Waits for an update, for the next poll (where another process may execute the run), or until the waiting time is
/// over.
async fn next_wake_up(subscription: &mut Subscription, until: Instant) -> WokenUp {
    let core = &subscription.core;
    let may_move_elsewhere = core.ports.store.is_shared() && !core.schedule.mailboxes.has_task(subscription.run);
    tokio::select! {
        _ = subscription.updates.changed() => WokenUp::Update,
        () = tokio::time::sleep(POLL_INTERVAL), if may_move_elsewhere => WokenUp::Poll,
        () = tokio::time::sleep_until(until) => WokenUp::TimedOut,
    }
}
