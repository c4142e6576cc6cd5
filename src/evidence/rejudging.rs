//! What waits to be judged again after a change of the rules that only allows more, and what became of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::fingerprints::FingerprintCount;
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
    /// These pairs, by the fingerprint of their differences.
    pub(super) seen: BTreeMap<String, FingerprintCount>,
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
    /// The new rules that make parts of them equal.
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
