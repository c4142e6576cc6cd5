//! How legacy answers by itself: its shares of 4xx and 5xx, and its latency.
//!
//! The guard and the gates compare the engine's answers in `live` with these figures. At a share of 100 % in `live`,
//! legacy sends no reply any more, so figures that are forgotten then cannot be learned again.
//!
//! Always true: the figures have a basis of their own, legacy's address and the requests that it gets
//! ([`LEGACY_PARTS`]). They are forgotten when this changes, and outlive every other change of the evidence's basis. No
//! gate passes by a share of legacy's errors that is only assumed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_change::{AddChange, newest};
use super::basis::BasisParts;
use super::latency_quantile::NarrowLatencyCounts;
use super::part_names::{COMPARISON_PARTS, LEGACY_PARTS, PLAN_IN_FORCE};
use crate::exchange::OfferedRequest;

/// How many replies in a row are counted together.
const RECENT_REPLIES_EACH: u64 = 50;
/// How many such groups of replies are kept.
const RECENT_MAX: usize = 20;

/// What is known of how legacy answers, since its address or the requests that the route gets last changed. For the
/// candidate of a route, the replies are those of the plan in force, since the evidence of the candidate began.
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
    /// The same of the last replies, up to 1,000, by 50 in a row, the oldest first: they tell whether errors among all
    /// replies are an outage that is over.
    #[serde(rename = "legacy_recent", skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<RecentReplies>,
    /// When the last of these replies was counted; `null` in evidence of an earlier version.
    #[serde(rename = "legacy_last_reply", skip_serializing_if = "Option::is_none")]
    pub last_reply: Option<Timestamp>,
    /// The latencies of legacy in the pairs since then, without those that both arms answered with 4xx or 5xx.
    #[serde(rename = "legacy_latencies")]
    pub latencies: NarrowLatencyCounts,
}

impl AddChange for RepliesOfLegacy {
    fn add_change(&mut self, before: &Self, after: &Self) {
        let Self { replies, client_errors, server_errors, recent, last_reply, latencies } = self;
        replies.add_change(&before.replies, &after.replies);
        client_errors.add_change(&before.client_errors, &after.client_errors);
        server_errors.add_change(&before.server_errors, &after.server_errors);
        newest(last_reply, &before.last_reply, &after.last_reply);
        latencies.add_change(&before.latencies, &after.latencies);
        let by_time = |recent: &[RecentReplies]| -> BTreeMap<Timestamp, RepliesSince> {
            let counts =
                |group: &RecentReplies| (group.since, [group.replies, group.client_errors, group.server_errors]);
            recent.iter().map(counts).map(|(since, counts)| (since, RepliesSince(counts))).collect()
        };
        let mut all = by_time(recent);
        all.add_change(&by_time(&before.recent), &by_time(&after.recent));
        *recent = all
            .into_iter()
            .map(|(since, RepliesSince([replies, client_errors, server_errors]))| RecentReplies {
                since,
                replies,
                client_errors,
                server_errors,
            })
            .collect();
        recent.drain(..recent.len().saturating_sub(RECENT_MAX));
    }
}

/// Numbers of replies: all of them, those with 4xx, those with 5xx.
#[derive(Clone, Copy, Default, PartialEq)]
struct RepliesSince([u64; 3]);

impl AddChange for RepliesSince {
    fn add_change(&mut self, before: &Self, after: &Self) {
        self.0.iter_mut().zip(before.0).zip(after.0).for_each(|((own, before), after)| own.add_change(&before, &after));
    }
}

/// Replies of legacy in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecentReplies {
    /// When the first of these was counted.
    pub since: Timestamp,
    /// How many.
    pub replies: u64,
    /// Of these, those with a 4xx status.
    pub client_errors: u64,
    /// Of these, those with a 5xx status.
    pub server_errors: u64,
}

impl RepliesOfLegacy {
    pub(super) fn count(&mut self, request: &OfferedRequest, now: Timestamp) {
        let Some(status) = request.legacy_status else { return };
        let (client_errors, server_errors) = (u64::from(status.is_client_error()), u64::from(status.is_server_error()));
        self.replies += 1;
        self.client_errors += client_errors;
        self.server_errors += server_errors;
        self.last_reply = Some(now);
        match self.recent.last_mut().filter(|last| last.replies < RECENT_REPLIES_EACH) {
            Some(last) => {
                last.replies += 1;
                last.client_errors += client_errors;
                last.server_errors += server_errors;
            }
            None => {
                self.recent.drain(..(self.recent.len() + 1).saturating_sub(RECENT_MAX));
                self.recent.push(RecentReplies { since: now, replies: 1, client_errors, server_errors });
            }
        }
    }

    /// Fills in legacy's latencies if an earlier version stored the evidence: it kept them only among those of the
    /// pairs.
    pub(super) fn complete_latencies(&mut self, of_pairs: &NarrowLatencyCounts) {
        if self.latencies.total() == 0 {
            self.latencies.clone_from(of_pairs);
        }
    }
}

/// Whether these figures go on after a change of the evidence's basis from `before` to `now`. The figures of a
/// candidate go on only if nothing but the comparison changed: with any other change, another candidate may begin, or
/// the plan in force may answer otherwise.
pub(super) fn are_kept(before: &BasisParts, now: &BasisParts) -> bool {
    // An earlier version stored no parts.
    if before.hashes.is_empty() {
        return false;
    }
    match now.hashes.contains_key(PLAN_IN_FORCE) {
        true => {
            let mut names = before.hashes.keys().chain(now.hashes.keys());
            names.all(|part| {
                COMPARISON_PARTS.contains(&part.as_str()) || before.hashes.get(part) == now.hashes.get(part)
            })
        }
        false => before.are_same(&now.hashes, &LEGACY_PARTS),
    }
}
