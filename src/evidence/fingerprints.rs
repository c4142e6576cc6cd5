//! Counts pairs that differ by the fingerprint of their differences.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_change::add_change;

/// Fingerprints that are counted separately; beyond that, the least recently seen one is dropped.
const FINGERPRINTS_MAX: usize = 256;

/// How often pairs with one fingerprint were seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FingerprintCount {
    /// The number of pairs.
    pub count: u64,
    /// When the first of these pairs was seen.
    pub first: Timestamp,
    /// When the last of these pairs was seen.
    pub last: Timestamp,
    /// The pairs by rung and kind of request.
    #[serde(flatten)]
    pub kinds: PairsByKind,
}

/// Numbers of pairs by rung and kind of request; without those that an earlier version counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PairsByKind {
    /// The pairs made in `shadow`, by kind of request.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub shadow: BTreeMap<String, u64>,
    /// The pairs made in `dark`, by kind of request.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dark: BTreeMap<String, u64>,
}

add_change!(PairsByKind { sum shadow, sum dark });

/// Adds to `seen` the pairs that one process has counted between `before` and `after`.
pub(super) fn add_change(
    seen: &mut BTreeMap<String, FingerprintCount>,
    before: &BTreeMap<String, FingerprintCount>,
    after: &BTreeMap<String, FingerprintCount>,
) {
    for (fingerprint, counted) in after {
        let mut more = counted.clone();
        if let Some(before) = before.get(fingerprint) {
            more.count = more.count.saturating_sub(before.count);
            more.kinds.remove(&before.kinds);
        }
        if more.count > 0 {
            add(seen, fingerprint, &more);
        }
    }
}

impl PairsByKind {
    /// One pair of this kind of request.
    pub(super) fn one(in_dark: bool, stratum: Option<&str>) -> Self {
        let of_rung = BTreeMap::from([(stratum.unwrap_or_default().to_owned(), 1)]);
        match in_dark {
            true => Self { dark: of_rung, ..Self::default() },
            false => Self { shadow: of_rung, ..Self::default() },
        }
    }
    pub(super) fn is_empty(&self) -> bool {
        self.shadow.is_empty() && self.dark.is_empty()
    }
    /// How many pairs these are.
    pub(super) fn pairs(&self) -> u64 {
        self.shadow.values().chain(self.dark.values()).sum()
    }
    pub(super) fn add(&mut self, other: &Self) {
        for (own, other) in [(&mut self.shadow, &other.shadow), (&mut self.dark, &other.dark)] {
            other.iter().for_each(|(stratum, pairs)| *own.entry(stratum.clone()).or_default() += pairs);
        }
    }
    pub(super) fn remove(&mut self, other: &Self) {
        for (own, other) in [(&mut self.shadow, &other.shadow), (&mut self.dark, &other.dark)] {
            for (stratum, pairs) in other {
                if let Some(count) = own.get_mut(stratum) {
                    *count = count.saturating_sub(*pairs);
                }
            }
            own.retain(|_, pairs| *pairs > 0);
        }
    }
}

/// Counts a pair with this fingerprint.
pub(super) fn count(
    seen: &mut BTreeMap<String, FingerprintCount>,
    fingerprint: &str,
    kind: &PairsByKind,
    now: Timestamp,
) {
    add(seen, fingerprint, &FingerprintCount { count: 1, first: now, last: now, kinds: kind.clone() });
}

/// Counts pairs with this fingerprint.
pub(super) fn add(seen: &mut BTreeMap<String, FingerprintCount>, fingerprint: &str, more: &FingerprintCount) {
    if let Some(seen) = seen.get_mut(fingerprint) {
        seen.count += more.count;
        (seen.first, seen.last) = (seen.first.min(more.first), seen.last.max(more.last));
        seen.kinds.add(&more.kinds);
        return;
    }
    if seen.len() >= FINGERPRINTS_MAX
        && let Some(stale) = seen.iter().min_by_key(|(_, seen)| seen.last).map(|(stale, _)| stale.clone())
    {
        seen.remove(&stale);
    }
    seen.insert(fingerprint.to_owned(), more.clone());
}
