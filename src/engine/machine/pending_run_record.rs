//! What the rows of the outbox say: mostly of runs that an event begins.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::{RunId, StepId};
use crate::store::PendingRun;
use crate::workflow::{ChildEvent, EndingEvent, Event};

/// What a row asks for, in addition to the events of the run that decided on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(in crate::engine) enum PendingRunRecord {
    /// A step of the other run began it; that run's events hold the rest.
    Child,
    /// A rerun that supersedes the other run.
    #[serde(rename = "heir")]
    Successor {
        /// The first step that it does anew.
        from: StepId,
    },
    /// No run is to begin: the other run has ended, and those that it had started are ordered to end.
    EndChildren,
}

/// The outbox row of an event that begins a run; `None` for all other events.
pub(super) fn pending_run_of(run: RunId, at: Timestamp, event: &Event) -> Option<PendingRun> {
    let (new_run, record) = match event {
        Event::Child(ChildEvent::Started { child, .. }) => (*child, PendingRunRecord::Child),
        Event::Ending(EndingEvent::Superseded(superseded)) => {
            (superseded.by, PendingRunRecord::Successor { from: superseded.from.clone() })
        }
        _ => return None,
    };
    // Serializing it cannot fail: it holds only strings.
    let record = serde_json::to_value(&record).unwrap_or_default();
    Some(PendingRun { run: new_run, parent: Some(run), record, at })
}
