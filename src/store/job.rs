//! An append as the writer takes it: encoded by its caller, so that the writer only binds and commits.

use jiff::Timestamp;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::flag::Arm;
use crate::names::RunId;
use crate::store::{Append, AppendError, Claim, NewPin, Priority};
use crate::workflow::Event;

/// One append, encoded.
pub(super) struct Job {
    pub(super) run_id: RunId,
    /// The seq of the first event.
    pub(super) first: u64,
    pub(super) batch: Uuid,
    pub(super) events: Vec<EventRow>,
    pub(super) run: RunRow,
    pub(super) pins: Vec<NewPin>,
    pub(super) claim: Option<Claim>,
    pub(super) priority: Priority,
    pub(super) reply: oneshot::Sender<Result<(), AppendError>>,
}

/// One event, encoded.
pub(super) struct EventRow {
    pub(super) at: i64,
    pub(super) kind: &'static str,
    pub(super) event: Vec<u8>,
}

/// The run's row after the events.
pub(super) struct RunRow {
    pub(super) ended: bool,
    pub(super) status: &'static str,
    pub(super) workflow: String,
    pub(super) route: Option<String>,
    pub(super) mode: &'static str,
    pub(super) summary: Vec<u8>,
}

impl Job {
    /// Encodes an append.
    pub(super) fn new(append: Append, reply: oneshot::Sender<Result<(), AppendError>>) -> Result<Self, AppendError> {
        let Append { run_id, first, events, summary, batch, pins, claim, priority, .. } = append;
        if events.is_empty() {
            return Err(AppendError::Refused("an append carries at least one event".into()));
        }
        let rows: Result<Vec<_>, serde_json::Error> = events.iter().map(|(at, event)| row(*at, event)).collect();
        let unfit = |error| AppendError::Refused(format!("an event cannot be written as JSON: {error}"));
        let run = RunRow {
            ended: summary.status.is_final(),
            status: summary.status.as_str(),
            workflow: summary.workflow.as_str().to_owned(),
            route: summary.route.as_ref().map(|route| route.as_str().to_owned()),
            mode: summary.mode.as_str(),
            summary: serde_json::to_vec(&summary).map_err(unfit)?,
        };
        let events = rows.map_err(unfit)?;
        Ok(Self { run_id, first: first.0, batch, events, run, pins, claim, priority, reply })
    }

    /// The seq of the last event.
    pub(super) fn last(&self) -> u64 {
        self.first + self.events.len() as u64 - 1
    }

    /// When its last event happened.
    pub(super) fn at(&self) -> i64 {
        self.events.last().map_or(0, |event| event.at)
    }
}

fn row(at: Timestamp, event: &Event) -> Result<EventRow, serde_json::Error> {
    Ok(EventRow { at: nanos(at), kind: event.kind(), event: serde_json::to_vec(event)? })
}

/// Nanoseconds since 1970; times beyond the year 2262 are its end.
pub(super) fn nanos(at: Timestamp) -> i64 {
    let nanos = at.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// The arm as a column has it.
pub(super) fn arm(text: &str) -> Option<Arm> {
    [Arm::Legacy, Arm::Engine].into_iter().find(|arm| arm.as_str() == text)
}
