//! An append, encoded for the writer. The caller encodes it, so that the writer only binds values and commits.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::codec::{self, LargeValue};
use super::coordination::due_at_of;
use super::summary::ListedFields;
use crate::clock;
use crate::flag::Arm;
use crate::names::{Fence, JobId, RouteId, RunId, StepId, WorkerId, WorkflowName};
use crate::store::{Append, AppendError, Claim, LockChange, Priority, StoreNotification};
use crate::workflow::{RunStatus, RunSummary};

/// The typical length of an event's line; used to reserve capacity.
const EVENT_BYTES_USUAL: usize = 320;

/// One encoded append.
pub(super) struct EncodedAppend {
    pub(super) run_id: RunId,
    /// The seq of the first event.
    pub(super) first: u64,
    pub(super) batch: Uuid,
    /// A line for each event.
    pub(super) events: Vec<u8>,
    /// Values that are stored apart from their events, each with the seq of its event.
    pub(super) large_values: Vec<(u64, LargeValue)>,
    pub(super) run: RunRow,
    /// The run's summary as JSON; `None` if it will probably not be written: if it has to be written after all, it is
    /// encoded then.
    summary: Option<Vec<u8>>,
    /// The append that was encoded.
    pub(super) original: Arc<Append>,
    pub(super) claim: Option<Claim>,
    pub(super) priority: Priority,
    pub(super) fence: Fence,
    pub(super) locks: Vec<LockUpdate>,
    /// Answered commands, each with the answer as JSON.
    pub(super) answered_commands: Vec<(Uuid, Vec<u8>)>,
    pub(super) pending_runs: Vec<PendingRunRow>,
    pub(super) reply: oneshot::Sender<Result<(), AppendError>>,
}

/// An encoded [`OutboxRow`](crate::store::OutboxRow).
pub(super) struct PendingRunRow {
    pub(super) run: RunId,
    pub(super) parent: Option<RunId>,
    pub(super) at: i64,
    /// JSON.
    pub(super) record: Vec<u8>,
}

/// A change of a lock's queue, as columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LockUpdate {
    /// Whether the entry is added to the queue; otherwise it is removed.
    pub(super) is_enqueue: bool,
    pub(super) entry: LockEntry,
}

/// What identifies an entry of a lock's queue within its run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LockEntry {
    pub(super) name: String,
    pub(super) step: String,
    /// -1 if there is none: the column is part of a unique index, in which NULLs would differ.
    pub(super) item: i64,
}

/// The row of the run after these events.
pub(super) struct RunRow {
    pub(super) ended: bool,
    pub(super) status: &'static str,
    pub(super) workflow: WorkflowName,
    pub(super) route: Option<RouteId>,
    pub(super) mode: &'static str,
    pub(super) job: Option<JobId>,
    pub(super) parent: Option<RunId>,
    /// When its last event happened.
    pub(super) updated: i64,
    /// The worker that owns the run from now on.
    pub(super) owner: Option<WorkerId>,
    /// When a run without an owner is due (column `turn`).
    pub(super) due_at: Option<i64>,
    pub(super) listed: ListedFields,
}

impl EncodedAppend {
    /// Encodes an append. Values of events that are larger than `inline_bytes_max` are stored apart.
    pub(super) fn new(
        append: Arc<Append>,
        inline_bytes_max: usize,
        reply: oneshot::Sender<Result<(), AppendError>>,
    ) -> Result<Self, AppendError> {
        let Append { run_id, first, events, summary, batch, pins: _, claim, priority, .. } = &*append;
        let Append {
            worker,
            fence,
            release,
            locks,
            webhook_messages: _,
            answered_commands: answered,
            pending_runs,
            ..
        } = &*append;
        if events.is_empty() {
            return Err(AppendError::Refused("an append carries at least one event".into()));
        }
        let not_json = |error| AppendError::Refused(format!("an event cannot be written as JSON: {error}"));
        let mut large_values = Vec::new();
        let mut lines = Vec::with_capacity(events.len() * EVENT_BYTES_USUAL);
        for ((at, event), seq) in events.iter().zip(first.0..) {
            let large = codec::encode_line(&mut lines, nanos(*at), event, inline_bytes_max).map_err(not_json)?;
            large_values.extend(large.into_iter().map(|part| (seq, part)));
        }
        append.size.set(lines.len() + large_values.iter().map(|(_, part)| part.body.len()).sum::<usize>());
        let ended = summary.status.is_final();
        let run = RunRow {
            ended,
            status: summary.status.as_str(),
            workflow: summary.workflow.clone(),
            route: summary.route.clone(),
            mode: summary.mode.as_str(),
            job: summary.job,
            parent: summary.parent,
            updated: nanos(summary.updated),
            owner: (!release && !ended).then_some(*worker),
            due_at: release.then(|| due_at_of(summary)).flatten().map(nanos),
            listed: ListedFields::from(summary),
        };
        let changes = first.0 == 1 || summary.status != RunStatus::Running;
        let summary = changes.then(|| summary_json(summary));
        let answered: Result<Vec<_>, _> =
            answered.iter().map(|(id, answer)| Ok((*id, serde_json::to_vec(answer)?))).collect();
        let answered = answered.map_err(not_json)?;
        let locks = locks.iter().map(LockUpdate::from).collect();
        let pending_runs = pending_runs.iter().map(|pending| {
            let record = serde_json::to_vec(&pending.record)?;
            Ok(PendingRunRow { run: pending.run, parent: pending.parent, at: nanos(pending.at), record })
        });
        let pending_runs = pending_runs.collect::<Result<Vec<_>, _>>().map_err(not_json)?;
        let (run_id, first, batch, claim, priority, fence) = (*run_id, first.0, *batch, *claim, *priority, *fence);
        Ok(Self {
            run_id,
            first,
            batch,
            events: lines,
            large_values,
            run,
            summary,
            original: append,
            claim,
            priority,
            fence,
            locks,
            answered_commands: answered,
            pending_runs,
            reply,
        })
    }

    /// The notifications to send once the append is committed, without those for locks and commands of a run that
    /// ended.
    pub(super) fn notifications(&self, now: i64) -> Vec<StoreNotification> {
        let mut notifications = Vec::new();
        if self.run.ended {
            notifications.push(StoreNotification::Ended { run: self.run_id, by_this_process: true });
        }
        if self.run.due_at.is_some_and(|due| due <= now) {
            notifications.push(StoreNotification::Run(self.run_id));
        }
        let removed = self.locks.iter().filter(|update| !update.is_enqueue);
        notifications.extend(removed.map(|update| StoreNotification::Lock(update.entry.name.clone())));
        notifications.extend(self.answered_commands.iter().map(|(id, _)| StoreNotification::Command(*id)));
        if !self.original.webhook_messages.is_empty() {
            notifications.push(StoreNotification::WebhookMessage);
        }
        if !self.pending_runs.is_empty() {
            notifications.push(StoreNotification::PendingRun);
        }
        notifications
    }

    /// The seq of the last event.
    pub(super) fn last(&self) -> u64 {
        self.first + self.count() as u64 - 1
    }

    /// How many events the append has.
    pub(super) fn count(&self) -> usize {
        self.original.events.len()
    }

    /// When its last event happened.
    pub(super) fn last_event_at(&self) -> i64 {
        self.original.events.last().map_or(0, |(at, _)| nanos(*at))
    }

    /// The latest of the times of its events. They need not be ascending.
    pub(super) fn latest(&self) -> i64 {
        self.original.events.iter().map(|(at, _)| nanos(*at)).max().unwrap_or(0)
    }

    /// The run's summary as JSON.
    pub(super) fn summary(&self) -> Cow<'_, [u8]> {
        match &self.summary {
            Some(written) => written.into(),
            None => summary_json(&self.original.summary).into(),
        }
    }
}

impl From<&LockChange> for LockUpdate {
    fn from(change: &LockChange) -> Self {
        let entry = |name: &String, step: &StepId, item: &Option<u32>| LockEntry {
            name: name.clone(),
            step: step.as_str().to_owned(),
            item: item.map_or(-1, i64::from),
        };
        match change {
            LockChange::Queue { name, step, item } => Self { is_enqueue: true, entry: entry(name, step, item) },
            LockChange::Leave { name, step, item } => Self { is_enqueue: false, entry: entry(name, step, item) },
        }
    }
}

/// Cannot fail: the keys of all maps in a summary are text.
fn summary_json(summary: &RunSummary) -> Vec<u8> {
    serde_json::to_vec(summary).unwrap_or_default()
}

/// The retry window of first tries at this moment or before is over; only a run may keep their keys bound.
pub(super) fn newest_expired(retry_window: Duration) -> i64 {
    nanos(clock::window_start(Duration::ZERO, retry_window))
}

/// Nanoseconds since 1970. Saturates in the year 2262.
pub(super) fn nanos(at: Timestamp) -> i64 {
    let nanos = at.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// Parses the arm of a column.
pub(super) fn arm(text: &str) -> Option<Arm> {
    [Arm::Legacy, Arm::Engine].into_iter().find(|arm| arm.as_str() == text)
}
