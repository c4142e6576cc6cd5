//! Pairs that wait to be judged again after a change of the rules that only allows more, and the outcome.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::add_change::AddChange as _;
use super::fingerprints::{self, FingerprintCount};
use super::noise_places::DifferingPlaces;

/// Pairs that wait to be judged again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Rejudging {
    /// The rules by which they were compared, as JSON.
    pub(super) rules: String,
    /// When the rules were changed.
    pub(super) since: Timestamp,
    /// The pairs that differed then, those that count as equal by noise included.
    pub(super) differing: u64,
    /// The pairs that had been compared then.
    pub(super) pairs: u64,
    /// The pairs that differed, by the fingerprint of their differences.
    pub(super) seen: BTreeMap<String, FingerprintCount>,
}

impl Rejudging {
    /// Adds to the pairs that wait in the store (`own`) those that one process had counted by the earlier rules. If no
    /// pairs wait in the store any more, because they were judged meanwhile, the pairs of the process wait alone.
    pub(super) fn add_change(own: &mut Option<Self>, (before, after): (Option<&Self>, Option<&Self>), now: Timestamp) {
        let Some(after) = after else { return };
        let before = before.filter(|before| before.rules == after.rules);
        let differing = after.differing.saturating_sub(before.map_or(0, |before| before.differing));
        if differing == 0 {
            return;
        }
        let none = BTreeMap::new();
        let own = own.get_or_insert_with(|| Self {
            rules: after.rules.clone(),
            since: now,
            differing: 0,
            pairs: 0,
            seen: BTreeMap::new(),
        });
        own.differing += differing;
        own.pairs.add_change(&before.map_or(0, |before| before.pairs), &after.pairs);
        fingerprints::add_change(&mut own.seen, before.map_or(&none, |before| &before.seen), &after.seen);
    }
}

/// Pairs of a route that wait to be judged again.
#[derive(Clone, Debug, PartialEq)]
pub struct PairsToRejudge {
    /// The rules by which they were compared, as JSON.
    pub rules: String,
    /// When the rules were changed.
    pub since: Timestamp,
    /// How many pairs have differences with each fingerprint.
    pub fingerprints: BTreeMap<String, u64>,
}

/// What the pairs with one fingerprint are under the new rules.
#[derive(Clone, Debug, PartialEq)]
pub struct RejudgedPairs {
    /// Where they differed.
    pub before: DifferingPlaces,
    /// Where they still differ, with the new fingerprint; `None`: they are equal.
    pub after: Option<(String, DifferingPlaces)>,
    /// The new rules that made two different values of these pairs equal.
    pub rules: Vec<String>,
}

/// What became of pairs that were judged again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejudgedOutcome {
    /// So many pairs are equal now, and so many still differ.
    Judged {
        /// Pairs that are equal under the new rules.
        equal: u64,
        /// Pairs that still differ.
        differing: u64,
    },
    /// Not all of them could be judged: the evidence starts from zero.
    FromZero,
}
