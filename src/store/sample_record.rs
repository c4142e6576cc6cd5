//! Samples of pairs that differ, with the events of the rehearsals that made them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::compare::{Difference, PairRecord};
use crate::names::{RouteId, RunId};

/// One comparison that is kept as a sample, already redacted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// The route.
    pub route: RouteId,
    /// Identifies the set of paths and kinds of its differences.
    pub fingerprint: String,
    /// When it was compared.
    pub at: Timestamp,
    /// The engine's run.
    pub run: Option<RunId>,
    /// Where the arms differed.
    pub differences: Vec<Difference>,
    /// Legacy's reply, redacted and shortened, as text.
    pub legacy: String,
    /// The engine's reply, redacted and shortened, as text.
    pub engine: String,
    /// The request's line and redacted body, as text.
    pub request: String,
    /// The redacted pair, to be judged again under other rules; absent if an earlier version stored the sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<PairRecord>,
    /// The first events of the run, redacted, if it is a rehearsal: its run is not in the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<RehearsedEvent>,
    /// How many events came after them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub events_not_kept: u64,
    /// The events of the runs below a rehearsal, in the order in which these ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<RehearsedChild>,
    /// How many more runs below it there were.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub children_not_kept: u64,
}

/// A run below a rehearsal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RehearsedChild {
    /// The run.
    pub run: RunId,
    /// Its first events, redacted.
    pub events: Vec<RehearsedEvent>,
    /// How many events came after them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub events_not_kept: u64,
}

/// An event of a rehearsal, redacted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RehearsedEvent {
    /// Its number in the run.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// Its kind, such as `step_started`.
    pub kind: String,
    /// The whole event; only its kind if it is larger than is kept.
    pub event: Value,
}

impl SampleRecord {
    /// The runs of which it has events: the rehearsal and those below it.
    pub fn rehearsed_runs(&self) -> impl Iterator<Item = RunId> + '_ {
        let own = self.run.filter(|_| !self.events.is_empty());
        own.into_iter().chain(self.children.iter().map(|child| child.run))
    }
}

// `skip_serializing_if` passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}
