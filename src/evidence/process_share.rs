//! The share of one process in the evidence of a route, in a store that several processes share: the requests that the
//! process has under way, and what its guard has counted. The pairs that it has counted are not in the share.
//!
//! If the process ends without removing its share, the others count the requests in the share as not compared, and note
//! a gap.

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
    /// How many answers of the engine still have to be judged against invariants.
    pub(super) checks_in_flight: u64,
    /// What the guard has counted since the process started.
    pub(super) guard: GuardCounts,
}

/// The share of a process that has ended: removed by the process itself, or by another one that found the process gone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct EndedShare {
    /// The number of the last write of the process that the row has.
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
    /// Whether the files of that process give the route the same basis as the files of this process.
    pub(super) is_of_basis: bool,
}

/// What the guard of one process has counted since the process started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct GuardCounts {
    /// For each window: the number of requests or pairs, and of bad ones among them.
    pub(super) windows: BTreeMap<String, [u64; 2]>,
    /// Four numbers: on all rungs, the clean pairs and the requests that were not compared; then the same two in
    /// `dark`.
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
            // `None` if the window was counted from zero, because the settings were changed.
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
