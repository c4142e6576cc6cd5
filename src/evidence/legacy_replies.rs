//! How legacy answers by itself: its shares of 4xx and 5xx, and its latency.
//!
//! The guard and the gates hold the engine's answers in `live` against these figures, and at a share of 100 % no reply
//! of legacy comes any more from which they could be learned again.
//!
//! Always true: they have a basis of their own, which is legacy's address and the requests that it gets
//! ([`LEGACY_PARTS`]). They outlive every other change of the evidence's basis, and are forgotten with that one. What
//! is not known is never taken for a share that would suffice.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::basis::BasisParts;
use super::latency_quantile::NarrowLatencyCounts;
use super::part_names::{LEGACY_PARTS, PLAN_IN_FORCE};
use crate::exchange::OfferedRequest;

/// What is known of how legacy answers, since its address or the requests that the route gets last changed. For the
/// candidate of a route it is the plan in force that answers, and these are counted since its evidence began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RepliesOfLegacy {
    /// Replies by legacy to requests that were offered for a comparison, since legacy's address or which requests the
    /// route gets last changed.
    #[serde(rename = "legacy_replies")] // the name in stored evidence and in the API, as in the three below
    pub replies: u64,
    /// Of these, those with a 4xx status.
    #[serde(rename = "legacy_4xx")]
    pub client_errors: u64,
    /// Of these, those with a 5xx status.
    #[serde(rename = "legacy_5xx")]
    pub server_errors: u64,
    /// The latencies of legacy in the pairs of that time, without those that both arms answered with 4xx or 5xx.
    #[serde(rename = "legacy_latencies")]
    pub latencies: NarrowLatencyCounts,
}

impl RepliesOfLegacy {
    pub(super) fn count(&mut self, request: &OfferedRequest) {
        let Some(status) = request.legacy_status else { return };
        self.replies += 1;
        self.client_errors += u64::from(status.is_client_error());
        self.server_errors += u64::from(status.is_server_error());
    }

    /// Evidence of an earlier version has legacy's latencies among those of the pairs only.
    pub(super) fn complete_latencies(&mut self, of_pairs: &NarrowLatencyCounts) {
        if self.latencies.total() == 0 {
            self.latencies.clone_from(of_pairs);
        }
    }
}

/// Whether these figures go on where the evidence had the first of these bases and has the second one now. Those of a
/// candidate do not: whatever the plan in force depends on may have changed.
pub(super) fn are_kept(before: &BasisParts, now: &BasisParts) -> bool {
    let is_same = |part: &&str| before.hashes.get(*part) == now.hashes.get(*part);
    // An earlier version stored no parts.
    let is_known = !before.hashes.is_empty();
    is_known && !now.hashes.contains_key(PLAN_IN_FORCE) && LEGACY_PARTS.iter().all(is_same)
}
