//! The content of outbox rows: runs to begin, or children to end.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::{RunId, StepId};
use crate::store::OutboxRow;
use crate::workflow::{ChildEvent, EndingEvent, Event};

/// What has to be done for a row. The details are in the events of the row's parent ([`OutboxRow::parent`]), the run
/// that decided on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(in crate::engine) enum PendingRunRecord {
    /// Create a child that a step of the parent began.
    Child,
    /// Create a rerun, which supersedes the parent.
    #[serde(rename = "heir")]
    Successor {
        /// The first step that runs again.
        from: StepId,
    },
    /// Create no run, but command the children of the parent, which has ended, to end too.
    EndChildren,
}

/// The outbox row of an event that begins a run; `None` for all other events.
pub(super) fn pending_run_of(run: RunId, at: Timestamp, event: &Event) -> Option<OutboxRow> {
    let (new_run, record) = match event {
        Event::Child(ChildEvent::Started { child, .. }) => (*child, PendingRunRecord::Child),
        Event::Ending(EndingEvent::Superseded(superseded)) => {
            (superseded.successor, PendingRunRecord::Successor { from: superseded.from.clone() })
        }
        _ => return None,
    };
    // Serializing it cannot fail: it holds only strings.
    let record = serde_json::to_value(&record).unwrap_or_default();
    Some(OutboxRow { run: new_run, parent: Some(run), record, at })
}
