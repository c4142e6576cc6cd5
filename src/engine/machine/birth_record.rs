//! Which runs an event decides on, as rows of the store's outbox.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::{RunId, StepId};
use crate::store::Birth;
use crate::workflow::{ChildEvent, EndingEvent, Event};

/// What is needed to begin a run, beside the run that decided on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(in crate::engine) enum BirthRecord {
    /// A step of the other run began it: all else stands in that run's events.
    Child,
    /// It takes the other run's place.
    Heir {
        /// From this step on.
        from: StepId,
    },
}

/// The row of an event that decides on a run.
pub(super) fn birth_of(run: RunId, at: Timestamp, event: &Event) -> Option<Birth> {
    let (born, record) = match event {
        Event::Child(ChildEvent::Started { child, .. }) => (*child, BirthRecord::Child),
        Event::Ending(EndingEvent::Superseded(superseded)) => {
            (superseded.by, BirthRecord::Heir { from: superseded.from.clone() })
        }
        _ => return None,
    };
    // A record of names and texts is always JSON.
    let record = serde_json::to_value(&record).unwrap_or_default();
    Some(Birth { run: born, parent: Some(run), record, at })
}
