//! How legacy differs from itself, and which differences of the engine count because of that.
//!
//! Of a route that is declared safe to repeat (`replay_safe: true`), some compared requests are sent to legacy a second
//! time. Legacy's two replies are compared under the rules of the route: what differs is noise. For each place this
//! gives a pair of outcomes of one request, "the engine differs from legacy" and "legacy differs from itself", both
//! against legacy's first reply. If the engine differs exactly as often as legacy does from itself, the outcomes in
//! which only the engine differs are as frequent as those in which only legacy does; this holds for any mix of
//! requests, and also if the noise changes with time. It is tested for each place, from the first repeated request on,
//! with the test of `paired` at d = 0: a sign test on the pairs of outcomes that are not equal, whose result may be
//! read after each request.
//!
//! A place in a list stands for all elements (`$.items[*].price`). Take the elements in which the engine's reply
//! differs from legacy's first one, and those in which legacy's second reply does. If both sets are equal, both differ.
//! If the engine's set is only a part of legacy's, legacy differs alone. In all other cases, also if each set has an
//! element that the other lacks, the engine differs alone: otherwise an element that the engine always has wrong would
//! count as often as a noisy one that it has right. So what differs in other elements each time does not count as
//! noise.
//!
//! Always true:
//! - only a place at which legacy was seen to differ from itself is noise, and only if it stands for one value, or for
//!   the elements of a list. A text, a body of bytes, and the cookies each are one place for all that they hold: noise
//!   in one part would hide a defect in another;
//! - it is noise only until the test says, with an error rate of [`ALPHA`] for each place and direction, that the
//!   engine differs there more often, or less often: then legacy's second reply does not show what the first one might
//!   have been (the state changed in between). From then on differences there count, until the basis changes;
//! - a pair counts as equal by noise only while all its differences are noise. Pairs are kept in groups with the same
//!   places, and a group counts as one again, with all its pairs, as soon as one of its places is noise no longer;
//! - a difference in the order of calls is noise as soon as legacy was seen not to keep that order in another request:
//!   the two calls were under way at the same time, or, where the engine has no order, came the other way round. This
//!   needs no repeated request;
//! - what is not known, because a table is full, is no noise.
//!
//! What is known of legacy's noise has a basis of its own (the rules and legacy's addresses), so that it outlives a
//! change of the workflow. The outcomes of the engine belong to the evidence.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_change::{AddChange, add_change};
use super::basis::EvidenceBasis;
use super::fingerprints::PairsByKind;
use super::noise_places::{DifferingPlaces, is_status, may_be_noise_at, order_at};
use super::paired::PairedCounts;
use crate::compare::Difference;

/// The accepted probability that the test ever says of a place that the engine differs there more often than legacy
/// from itself, although it does not.
pub(super) const ALPHA: f64 = 0.01;
/// The most places that are counted separately. The bound is the same for legacy and for the pairs of outcomes, so that
/// a place of legacy always finds room among the pairs.
const PLACES_MAX: usize = 128;
/// After a change of the rules or of legacy's address: until this many requests were repeated, the guard still counts
/// as noise what was noise before the change.
const EARLIER_NOISE_REPEATS: u64 = 100;
/// The most orders of calls that are remembered because legacy was seen not to keep them; a difference in any other
/// order counts.
const ORDERS_MAX: usize = 256;
/// The most groups of pairs that are counted separately.
const GROUPS_MAX: usize = 64;
/// How many hexadecimal digits identify a group.
const GROUP_KEY_CHARS: usize = 16;
/// The group of the pairs that find no room in one of their own. It has the places of all of them: if one of these is
/// noise no longer, all its pairs count as pairs that differ.
pub(super) const OTHER_GROUPS: &str = "other";

/// What is known of how legacy differs from itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct NoiseOfLegacy {
    /// A hash of what it depends on; empty if the route is not declared safe to repeat, in which case nothing is noise.
    pub(super) basis: String,
    /// The requests that legacy answered twice.
    pub(super) repeats: u64,
    /// Of these, those whose bodies were compared.
    pub(super) bodies: u64,
    /// In how many of them its replies differ, by place.
    pub(super) places: BTreeMap<String, u64>,
    /// How often a place was not counted, because `places` was full.
    pub(super) unlisted: u64,
    /// A call by legacy that may have changed something: no request of the route is repeated any more.
    pub(super) write: Option<LegacyWrite>,
    /// During how many reverse requests legacy made unattributed writing calls.
    #[serde(rename = "reverse_doubts")]
    pub(super) reverse_unattributed_writes: u32,
    /// A hash of what it depends on apart from the rules; empty if an earlier version stored it.
    pub(super) apart_from_rules: String,
    /// The places of noise before the rules or legacy's address last changed.
    pub(super) earlier_places: BTreeSet<String>,
}

add_change!(NoiseOfLegacy {
    kept basis,
    sum repeats,
    sum bodies,
    sum places,
    sum unlisted,
    first write,
    sum reverse_unattributed_writes,
    kept apart_from_rules,
    kept earlier_places,
});

/// A call by which legacy may have changed something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LegacyWrite {
    /// The method and the service, as text.
    pub call: String,
    /// When it was first seen.
    pub at: Timestamp,
}

/// The pairs that may be noise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NoisePairs {
    /// Of all pairs, those that count as equal because legacy differs from itself wherever they differ.
    pub ignored: u64,
    /// Requests that legacy answered twice and the engine once.
    pub repeats: u64,
    /// Their outcomes, by place (`value $.generated_at`).
    pub places: BTreeMap<String, PlaceOutcomes>,
    /// Of `repeats`, those whose bodies were compared: all three statuses were of one class.
    pub bodies: u64,
    /// The pairs that differ only in the reply and the order of calls, by a hash of their places.
    pub groups: BTreeMap<String, NoiseGroup>,
    /// Orders of calls that legacy was seen not to keep: `effects.charge, effects.mail`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub orders_not_kept: BTreeSet<String>,
}

add_change!(NoisePairs { sum ignored, sum repeats, sum places, sum bodies, sum groups, union orders_not_kept });

/// In how many requests that legacy answered twice there was a difference at one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlaceOutcomes {
    /// Both the engine's reply and legacy's second one differ from legacy's first one; in a list: in the same elements.
    pub both: u64,
    /// Only the engine's does; in a list: in at least one element in which legacy's second one does not.
    pub only_engine: u64,
    /// Only legacy's second one does; in a list: in more elements than the engine's, and in all of those.
    pub only_legacy: u64,
    /// Whether the test has said that the engine differs more often than legacy from itself.
    pub engine_differs_more: bool,
    /// Whether the test has said that legacy differs from itself more often than the engine from legacy.
    pub legacy_differs_more: bool,
}

impl AddChange for PlaceOutcomes {
    fn add_change(&mut self, before: &Self, after: &Self) {
        self.both.add_change(&before.both, &after.both);
        self.only_engine.add_change(&before.only_engine, &after.only_engine);
        self.only_legacy.add_change(&before.only_legacy, &after.only_legacy);
        self.engine_differs_more |= after.engine_differs_more;
        self.legacy_differs_more |= after.legacy_differs_more;
        self.test();
    }
}

/// Pairs with the same differences.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoiseGroup {
    /// Where they differ.
    pub places: BTreeSet<String>,
    /// Whether they count as equal now.
    pub is_ignored: bool,
    /// The pairs by rung and kind of request.
    #[serde(flatten)]
    pub kinds: PairsByKind,
}

add_change!(NoiseGroup { union places, kept is_ignored, sum kinds });

impl PlaceOutcomes {
    fn count(&mut self, engine_differs: bool, legacy_differs: bool) {
        self.both += u64::from(engine_differs && legacy_differs);
        self.only_engine += u64::from(engine_differs && !legacy_differs);
        self.only_legacy += u64::from(!engine_differs && legacy_differs);
        self.test();
    }
    fn test(&mut self) {
        // Once set, a flag stays set: the error rate of the test is for all readings together, not for one.
        let counts = self.counts(0);
        self.engine_differs_more |= counts.ln_evidence_above(0.0) >= -ALPHA.ln();
        self.legacy_differs_more |= counts.exchanged().ln_evidence_above(0.0) >= -ALPHA.ln();
    }
    /// Whether, as far as is known, the engine differs as often as legacy does from itself.
    fn differ_equally(self) -> bool {
        !self.engine_differs_more && !self.legacy_differs_more
    }
    /// The outcomes of so many repeated requests; the engine is the first arm, legacy the second.
    fn counts(self, repeats: u64) -> PairedCounts {
        let pairs = repeats.max(self.both + self.only_engine + self.only_legacy);
        PairedCounts { pairs, only_first: self.only_engine, only_second: self.only_legacy }
    }
    fn total(self) -> u64 {
        self.both + self.only_engine + self.only_legacy
    }
}

/// Whether pairs with these differences may count as equal, now or later.
fn may_be_noise(legacy: &NoiseOfLegacy, found: &DifferingPlaces) -> bool {
    let is_of_reply = !legacy.basis.is_empty() && !found.places.is_empty();
    found.lists_all_differences && (is_of_reply || !found.orders.is_empty())
}

/// Identifies the pairs that differ at these places, and at no others.
fn group_key(places: &BTreeSet<String>) -> String {
    let mut hasher = blake3::Hasher::new();
    for place in places {
        hasher.update(place.as_bytes()).update(b"\n");
    }
    hasher.finalize().to_hex().chars().take(GROUP_KEY_CHARS).collect()
}

impl NoiseGroup {
    /// How many pairs these are.
    pub fn pairs(&self) -> u64 {
        self.kinds.pairs()
    }
}

impl NoiseOfLegacy {
    /// Whether requests of the route may be sent a second time.
    pub(super) fn may_repeat(&self) -> bool {
        !self.basis.is_empty() && self.write.is_none()
    }
    /// Sets the basis, and returns whether it changed. What is known of legacy's noise goes on if only the rules
    /// changed, and leave more out of the comparison than before (`rules_leave_more_out`). Otherwise it starts from
    /// zero, and only this stays: that legacy was seen to write, and unattributed writes during reverse comparisons,
    /// while the route is declared safe to repeat (`noise` of the basis is not empty); and the places, as earlier ones.
    pub(super) fn set_basis(&mut self, basis: &EvidenceBasis, rules_leave_more_out: bool) -> bool {
        let EvidenceBasis { noise, noise_apart_from_rules: apart_from_rules, .. } = basis;
        let changed = self.basis != *noise;
        if changed {
            let goes_on = rules_leave_more_out && !noise.is_empty() && self.apart_from_rules == *apart_from_rules;
            if !goes_on {
                let write = self.write.take().filter(|_| !noise.is_empty());
                // After a recent change the noise is not known again yet, so the places from before that one stay too.
                let earlier_places = match self.repeats < EARLIER_NOISE_REPEATS {
                    true => std::mem::take(&mut self.earlier_places),
                    false => BTreeSet::new(),
                };
                let known = std::mem::take(&mut self.places).into_keys();
                let earlier_places = earlier_places.into_iter().chain(known).take(PLACES_MAX).collect();
                let reverse_unattributed_writes = if noise.is_empty() { 0 } else { self.reverse_unattributed_writes };
                *self = Self { write, earlier_places, reverse_unattributed_writes, ..Self::default() };
            }
            self.basis.clone_from(noise);
        }
        self.apart_from_rules.clone_from(apart_from_rules);
        changed
    }
    /// Whether all differences of a pair were noise before the rules or legacy's address changed, or are noise now,
    /// while too few requests were repeated since that change to find all noise again.
    pub(super) fn was_noise(&self, found: &DifferingPlaces, outcomes: &BTreeMap<String, PlaceOutcomes>) -> bool {
        let is_rejected = |place: &String| outcomes.get(place).is_some_and(|outcomes| !outcomes.differ_equally());
        let is_earlier = |place: &String| self.earlier_places.contains(place) && may_be_noise_at(place);
        let was_noise = |place: &String| !is_rejected(place) && (is_earlier(place) || self.is_noise(place, outcomes));
        let is_known = found.lists_all_differences && found.orders.is_empty() && !found.places.is_empty();
        is_known && self.repeats < EARLIER_NOISE_REPEATS && found.places.iter().all(was_noise)
    }
    pub(super) fn count(&mut self, place: &str) {
        if self.places.len() < PLACES_MAX || self.places.contains_key(place) {
            *self.places.entry(place.to_owned()).or_default() += 1;
        } else {
            self.unlisted += 1;
        }
    }
    pub(super) fn is_noise(&self, place: &str, outcomes: &BTreeMap<String, PlaceOutcomes>) -> bool {
        may_be_noise_at(place)
            && self.places.contains_key(place)
            && outcomes.get(place).is_none_or(|outcomes| outcomes.differ_equally())
    }
}

impl NoisePairs {
    /// Counts pairs that differ, and returns whether they count as equal.
    pub(super) fn count_pairs(&mut self, legacy: &NoiseOfLegacy, found: &DifferingPlaces, pairs: &PairsByKind) -> bool {
        if !may_be_noise(legacy, found) {
            return false;
        }
        let places = found.of_group();
        let own = group_key(&places);
        let mut key = own.as_str();
        if !self.groups.contains_key(key) {
            let is_ignored = places.iter().all(|place| self.is_noise(legacy, place));
            // The pairs of a group that is dropped stay counted as they are: as pairs that differ.
            let smallest = || self.groups.iter().filter(|(_, group)| !group.is_ignored).min_by_key(|(_, g)| g.pairs());
            if self.groups.len() >= GROUPS_MAX {
                match smallest().map(|(dropped, _)| dropped.clone()) {
                    Some(dropped) => drop(self.groups.remove(&dropped)),
                    None if is_ignored => key = OTHER_GROUPS,
                    None => return false,
                }
            }
            let group = self.groups.entry(key.to_owned()).or_default();
            group.places.extend(places);
            group.is_ignored = is_ignored;
        }
        let Some(group) = self.groups.get_mut(key) else { return false };
        group.kinds.add(pairs);
        if group.is_ignored {
            self.ignored += pairs.pairs();
        }
        group.is_ignored
    }

    /// Removes pairs that were counted as pairs with these differences, and returns whether they counted as equal.
    pub(super) fn remove_pairs(
        &mut self,
        legacy: &NoiseOfLegacy,
        found: &DifferingPlaces,
        pairs: &PairsByKind,
    ) -> bool {
        if !may_be_noise(legacy, found) {
            return false;
        }
        let key = group_key(&found.of_group());
        let Some(group) = self.groups.get_mut(&key) else { return false };
        group.kinds.remove(pairs);
        let is_ignored = group.is_ignored;
        if group.pairs() == 0 {
            self.groups.remove(&key);
        }
        is_ignored
    }

    /// Whether pairs with these differences are not counted together with others.
    pub(super) fn is_separate(&self, legacy: &NoiseOfLegacy, found: &DifferingPlaces) -> bool {
        let others = self.groups.get(OTHER_GROUPS);
        !may_be_noise(legacy, found) || others.is_none_or(|others| !found.of_group().is_subset(&others.places))
    }

    /// Whether pairs with these differences, and no others, count as equal.
    pub fn ignores(&self, differences: &[Difference]) -> bool {
        let found = DifferingPlaces::of_differences(differences);
        let places = found.of_group();
        let is_whole = found.lists_all_differences && !places.is_empty();
        is_whole
            && match self.groups.get(&group_key(&places)) {
                Some(group) => group.is_ignored,
                None => {
                    self.groups.get(OTHER_GROUPS).is_some_and(|all| all.is_ignored && places.is_subset(&all.places))
                }
            }
    }

    /// Whether a difference at a place counts as noise, and not as a difference of the engine.
    pub(super) fn is_noise(&self, legacy: &NoiseOfLegacy, place: &str) -> bool {
        match order_at(place) {
            Some(order) => self.orders_not_kept.contains(order),
            None => legacy.is_noise(place, &self.places),
        }
    }

    /// Notes orders that legacy did not keep. Returns whether one of them is new.
    pub(super) fn add_orders_not_kept(&mut self, orders: &[String]) -> bool {
        let mut is_new = false;
        for order in orders.iter().filter(|order| !self.orders_not_kept.contains(*order)).collect::<Vec<_>>() {
            is_new |= self.orders_not_kept.len() < ORDERS_MAX && self.orders_not_kept.insert(order.clone());
        }
        is_new
    }

    /// By how much the share of requests in which the engine differs at this place exceeds that in which legacy does:
    /// an interval.
    pub(super) fn excess(&self, place: &str, alpha: f64) -> (f64, f64) {
        let repeats = if is_status(place) { self.repeats } else { self.bodies };
        self.places.get(place).copied().unwrap_or_default().counts(repeats).interval(alpha)
    }

    /// How many pairs that count as equal differ at this place.
    pub(super) fn ignored_at(&self, place: &str) -> u64 {
        let at = self.groups.values().filter(|group| group.is_ignored && group.places.contains(place));
        at.map(NoiseGroup::pairs).sum()
    }

    pub(super) fn count_outcome(
        &mut self,
        legacy: &NoiseOfLegacy,
        place: &str,
        engine_differs: bool,
        legacy_differs: bool,
    ) {
        if self.places.len() >= PLACES_MAX && !self.places.contains_key(place) {
            let others = self.places.iter().filter(|(place, _)| !legacy.places.contains_key(*place));
            let Some((dropped, _)) = others.min_by_key(|(_, outcomes)| outcomes.total()) else { return };
            let dropped = dropped.clone();
            self.places.remove(&dropped);
        }
        self.places.entry(place.to_owned()).or_default().count(engine_differs, legacy_differs);
    }
}
