//! Creates the runs that other runs decided on: rows of the store's outbox, `pending_runs`.
//!
//! The question it answers: "the process ended between the append that decided on a run and the run's first append: who
//! creates the run?" The first of these appends writes a row, and the second removes it, so a row is delivered at least
//! once. The run is created at most once. The task that creates a child holds the child's slot and has checked that the
//! store has no such run; the first append of a successor claims a key.
//!
//! What it leaves to others: a child is created by its parent's driver, which is woken here (`child`); a successor is
//! created as if the same rerun were repeated (`rerun`); a row by which the children of a run are ended is delivered by
//! `end_children`. Normally the run is created right after the decision, so a row is delivered only after a grace
//! period, or at once after the start of a process that has the store to itself.
//!
//! When the store does not answer, or refuses a first append, the row stays and is delivered again after a growing
//! pause. A row that cannot be delivered does not delay the others: of the rows that are due, the one that has waited
//! longest comes first.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use metrics::gauge;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::engine::context::Core;
use crate::engine::machine::PendingRunRecord;
use crate::engine::scheduler::end_children;
use crate::limits::Limits;
use crate::names::RunId;
use crate::store::{OutboxRow, StoreError, StoreNotification};

/// How many rows one query reads.
const ROWS_MAX: usize = 10_000;
/// Rows younger than this are left to the task that wrote them.
const GRACE: Duration = Duration::from_secs(2);
/// After this many consecutive rows that cannot be delivered, the store counts as not answering, and there is a pause.
const FAILURES_MAX: u32 = 10;
/// The first pause before a row is delivered again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The rows whose delivery was tried and that are still in the outbox, by the run id of the row.
type Retries = HashMap<RunId, Retry>;

struct Retry {
    /// How many times delivering the row was tried.
    times: u32,
    /// When the row is due again.
    due: Instant,
    /// The task that delivers the row, if delivering may take long. Until the task has ended, the row is not delivered
    /// again.
    task: Option<JoinHandle<()>>,
}

/// A row that is due.
struct DueRow<'a> {
    row: &'a OutboxRow,
    /// How many times delivering the row was tried.
    times: u32,
    /// How long the row has been due.
    waited: Duration,
}

/// Delivers rows until the process ends.
pub(in crate::engine) async fn deliver(core: &Arc<Core>) {
    let mut notifications = core.ports.store.notifications();
    let mut retries = Retries::new();
    // There is no grace period at first if no other process uses the store: the tasks that wrote the existing rows
    // ended with their process.
    let mut grace = if core.ports.store.is_shared() { GRACE } else { Duration::ZERO };
    let mut next = Some(Instant::now());
    loop {
        let new_row = async {
            loop {
                match notifications.recv().await {
                    Ok(StoreNotification::PendingRun) | Err(RecvError::Lagged(_)) => return,
                    Ok(_) => {}
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = new_row => {
                let due = Instant::now() + GRACE;
                next = Some(next.map_or(due, |next| next.min(due)));
            }
            () = until(next) => {
                next = match deliver_due(core, &mut retries, grace).await {
                    Ok(next) => next,
                    Err(error) => {
                        tracing::warn!(%error, "the outbox of pending runs cannot be read; it is tried again");
                        Some(Instant::now() + FIRST_PAUSE)
                    }
                };
                grace = GRACE;
                if core.ports.store.is_shared() {
                    let sweep = Instant::now() + Limits::ms(core.files.limits.sweep_ms.max(1));
                    next = Some(next.map_or(sweep, |next| next.min(sweep)));
                }
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Delivers every row that is due; returns when the next one is.
async fn deliver_due(core: &Arc<Core>, retries: &mut Retries, grace: Duration) -> Result<Option<Instant>, StoreError> {
    if *core.process.draining.borrow() {
        return Ok(None);
    }
    let pending_runs = core.ports.store.pending_runs(ROWS_MAX).await?;
    let runs: HashSet<RunId> = pending_runs.iter().map(|row| row.run).collect();
    retries.retain(|run, _| runs.contains(run));
    let mut next = None::<Instant>;
    let mut postpone = |until: Instant| next = Some(next.map_or(until, |next| next.min(until)));
    let (now, clock_now) = (Instant::now(), core.process.clock.now());
    let grace = SignedDuration::try_from(grace).unwrap_or_default();
    let (mut due_rows, mut overdue) = (Vec::new(), 0_u32);
    for row in &pending_runs {
        let past_grace = clock_now.duration_since(row.at) - grace;
        let Ok(past_grace) = Duration::try_from(past_grace) else {
            postpone(now + past_grace.unsigned_abs());
            continue;
        };
        overdue += 1;
        match retries.get(&row.run) {
            Some(retry) if retry.due > now => postpone(retry.due),
            Some(retry) if retry.task.as_ref().is_some_and(|task| !task.is_finished()) => postpone(now + FIRST_PAUSE),
            Some(retry) => due_rows.push(DueRow { row, times: retry.times, waited: now - retry.due }),
            None => due_rows.push(DueRow { row, times: 0, waited: past_grace }),
        }
    }
    gauge!("pointsman_pending_runs_overdue").set(overdue);
    // Rows that fail become due again, at the latest after `PAUSE_MAX`. Whatever their number, the rows that have
    // waited longer come before them, so each row is tried although a pass ends after `FAILURES_MAX` failures.
    due_rows.sort_by_key(|due| Reverse(due.waited));
    let mut failures = 0;
    for DueRow { row, times, waited: _ } in due_rows {
        let task = match deliver_one(core, row).await {
            Ok(task) => {
                failures = 0;
                task
            }
            Err(error) => {
                tracing::warn!(run = %row.run, parent = ?row.parent, %error, "a row of the outbox cannot be delivered: it is tried again");
                failures += 1;
                None
            }
        };
        let due = Instant::now() + FIRST_PAUSE.saturating_mul(1 << times.min(6)).min(PAUSE_MAX);
        retries.insert(row.run, Retry { times: times.saturating_add(1), due, task });
        postpone(due);
        if failures >= FAILURES_MAX {
            tracing::warn!(
                failures,
                "rows of the outbox, one after the other, cannot be delivered: the store probably does not answer; the rows \
                 that are due go on after a pause"
            );
            postpone(Instant::now() + FIRST_PAUSE);
            break;
        }
    }
    Ok(next)
}

/// Delivers a row. Returns the task that delivers it, if a task was started for that.
async fn deliver_one(core: &Arc<Core>, row: &OutboxRow) -> Result<Option<JoinHandle<()>>, StoreError> {
    let run = row.run;
    let (record, parent) = match (serde_json::from_value::<PendingRunRecord>(row.record.clone()), row.parent) {
        (Ok(record), Some(parent)) => (record, parent),
        (record, parent) => {
            tracing::error!(%run, ?parent, ?record, "this version cannot read the outbox row of a pending run: the row stays, and the run is not created");
            return Ok(None);
        }
    };
    match record {
        PendingRunRecord::Child => deliver_child(core, run, parent).await.map(|()| None),
        PendingRunRecord::EndChildren => Ok(Some(spawn_end_children(core, run, parent))),
        PendingRunRecord::Successor { from } => {
            match core.run_tasks.start_successor(core.clone(), parent, from).await {
                Ok(()) => tracing::info!(%run, %parent, "the rerun of a superseded run is started from the outbox"),
                Err(why) => {
                    tracing::warn!(%run, %parent, why, "the rerun of a superseded run could not be started: it is tried again")
                }
            }
            Ok(None)
        }
    }
}

/// Commands the children of an ended run to end, in a task of its own, because a child may be slow to answer.
fn spawn_end_children(core: &Arc<Core>, row: RunId, parent: RunId) -> JoinHandle<()> {
    let core_of_task = core.clone();
    core.spawn_background(async move {
        if let Err(error) = end_children::deliver(&core_of_task, row, parent).await {
            tracing::warn!(%parent, %error, "not all children of an ended run were sent the command to end: it is sent again");
        }
    })
}

/// Wakes the parent of a child that has no events, so that its driver creates the child; removes the row if the parent
/// has ended.
async fn deliver_child(core: &Arc<Core>, child: RunId, parent: RunId) -> Result<(), StoreError> {
    if core.ports.store.run(parent).await?.is_none_or(|parent| parent.status.is_final()) {
        tracing::debug!(run = %child, %parent, "a child is not created: its parent has ended");
        return core.ports.store.remove_pending_run(child).await;
    }
    core.wake(parent);
    Ok(())
}
