//! What one process adds to the evidence of a route in a store that several processes share, beside its counts: what
//! is under way in it, and what its guard has counted.
//!
//! If the process ends without taking it back, the others count what was under way as not compared, and note the gap.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_change::AddChange;
use super::fingerprints::PairsByKind;

/// Gaps that are listed; the oldest are dropped.
pub(super) const GAPS_MAX: usize = 16;

/// What one process has under way of a route, and what its guard has counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ProcessShare {
    /// The name of the process, for people.
    pub(super) name: String,
    /// Increases with each write.
    pub(super) write: u64,
    /// When it was written.
    pub(super) at: Timestamp,
    /// The basis that the process's files give the route; `None` if an earlier version wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) basis: Option<String>,
    /// The requests that the shadow executor works on.
    pub(super) in_flight: PairsByKind,
    /// Answers of the engine that are going to be judged.
    pub(super) checks_in_flight: u64,
    /// What the guard has counted since the process started.
    pub(super) guard: GuardCounts,
}

/// A process has taken back its share, or another one has found that it is gone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct EndedShare {
    /// The last write of the process that is in the row.
    pub(super) write: u64,
    /// When the share ended.
    pub(super) at: Timestamp,
    /// The basis of its last write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) basis: Option<String>,
    /// What the guard of the process had counted.
    pub(super) guard: GuardCounts,
}

/// What the guard of another process has counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CountsOfOther {
    pub(super) counts: GuardCounts,
    /// Whether that process's files give the route the basis that it has here.
    pub(super) is_of_basis: bool,
}

/// What the guard of one process has counted since the process started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct GuardCounts {
    /// By window: how many requests, or pairs, and how many of them were bad.
    pub(super) windows: BTreeMap<String, [u64; 2]>,
    /// Clean pairs, and requests that were not compared: on any rung, then in `dark`.
    pub(super) clean: [u64; 4],
    /// How often the clean pairs were counted from zero because of a difference or a failed run.
    pub(super) restarts: u64,
}

/// A process ended without writing what it had counted last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceGap {
    /// The process.
    pub process: String,
    /// When it had last written what it counted of this route.
    pub since: Timestamp,
    /// When the others noticed that its lease was over.
    pub until: Timestamp,
    /// Requests that it was comparing then: they count as not compared.
    pub requests: u64,
}

impl GuardCounts {
    /// What was counted since `before`; nothing if the counts began anew.
    pub(super) fn since(&self, before: &Self) -> Self {
        let zero = [0; 2];
        let windows = self.windows.iter().map(|(name, [seen, bad])| {
            let [seen_before, bad_before] = before.windows.get(name).unwrap_or(&zero);
            // The settings were changed.
            let more = seen.checked_sub(*seen_before).zip(bad.checked_sub(*bad_before));
            (name.clone(), more.map_or(zero, |(seen, bad)| [seen, bad]))
        });
        let mut clean = self.clean;
        clean.iter_mut().zip(before.clean).for_each(|(own, before)| *own = own.saturating_sub(before));
        Self { windows: windows.collect(), clean, restarts: self.restarts.saturating_sub(before.restarts) }
    }
}

impl AddChange for Vec<EvidenceGap> {
    fn add_change(&mut self, before: &Self, after: &Self) {
        let new = after.iter().filter(|gap| !before.contains(gap)).filter(|gap| !self.contains(gap));
        let new: Vec<EvidenceGap> = new.cloned().collect();
        self.extend(new);
        let surplus = self.len().saturating_sub(GAPS_MAX);
        self.drain(..surplus);
    }
}
