//! Counts repeated requests, and moves pairs between those that count as equal and those that differ.
//!
//! Always true, also after a move: `pairs = matched + ignored + mismatched`, in the whole evidence and in the counts of
//! each kind of request.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::fingerprints::PairsByKind;
use super::noise::{NoiseGroup, NoiseOfLegacy};
use super::noise_places::{DifferingPlaces, is_status};
use super::route::RouteEvidence;
use crate::clock;

/// The name under which noise is counted among the rules that made pairs equal.
pub(super) const NOISE_RULE: &str = "noise";

impl RouteEvidence {
    /// Counts a request that legacy answered twice. Returns whether it was counted.
    ///
    /// `engine` and `second_reply`: the places at which the engine's reply, and legacy's second reply, differ from
    /// legacy's first reply. `same_class`: whether the statuses of all three replies are of one class, so that their
    /// bodies were compared.
    pub(super) fn count_repeat(
        &mut self,
        legacy: &mut NoiseOfLegacy,
        engine: &DifferingPlaces,
        second_reply: &DifferingPlaces,
        same_class: bool,
    ) -> bool {
        if legacy.basis.is_empty() || !engine.lists_all_of_replies || !second_reply.lists_all_of_replies {
            return false;
        }
        legacy.repeats += 1;
        self.noise.repeats += 1;
        legacy.bodies += u64::from(same_class);
        self.noise.bodies += u64::from(same_class);
        let all: BTreeSet<&String> = engine.places.union(&second_reply.places).collect();
        // If the bodies were not compared, it is not known whether they differ.
        for place in all.into_iter().filter(|place| same_class || is_status(place)) {
            if second_reply.places.contains(place) {
                legacy.count(place);
            }
            // In a list, engine and legacy may differ in different elements: if there is one in which only the engine
            // differs, the place counts as a difference of the engine alone; else, if there is one in which only legacy
            // differs, as one of legacy alone.
            let engine_alone = !engine.are_among(second_reply, place);
            let legacy_within = second_reply.are_among(engine, place);
            let (engine_differs, legacy_differs) = (engine_alone || legacy_within, !engine_alone);
            self.noise.count_outcome(legacy, place, engine_differs, legacy_differs);
        }
        self.judge_groups(legacy);
        true
    }

    /// Judges anew which groups of pairs count as equal, and counts their pairs accordingly.
    pub(super) fn judge_groups(&mut self, legacy: &NoiseOfLegacy) {
        let noise = &self.noise;
        let is_ignored = |group: &NoiseGroup| group.places.iter().all(|place| noise.is_noise(legacy, place));
        let judged = noise.groups.iter().map(|(key, group)| (key, group, is_ignored(group)));
        let judged = judged.filter(|(_, group, is_ignored)| group.is_ignored != *is_ignored);
        let changed: Vec<(String, NoiseGroup)> =
            judged.map(|(key, group, is_ignored)| (key.clone(), NoiseGroup { is_ignored, ..group.clone() })).collect();
        for (key, group) in changed {
            self.move_group(&group);
            self.noise.groups.insert(key, group);
        }
    }

    /// Counts the pairs of a group as equal if it is ignored now, else as pairs that differ.
    fn move_group(&mut self, group: &NoiseGroup) {
        let pairs = group.pairs();
        self.move_pairs(&group.kinds, group.is_ignored);
        match group.is_ignored {
            true => {
                self.noise.ignored += pairs;
                self.count_noise_hits(pairs, clock::now());
            }
            false => {
                self.noise.ignored = self.noise.ignored.saturating_sub(pairs);
                self.remove_noise_hits(pairs);
            }
        }
    }

    /// Counts pairs as equal by a rule that were counted as differing (`to_equal`), or the other way round.
    pub(super) fn move_pairs(&mut self, kinds: &PairsByKind, to_equal: bool) {
        let pairs = kinds.pairs();
        let (from, to) = match to_equal {
            true => (&mut self.mismatched, &mut self.ignored),
            false => (&mut self.ignored, &mut self.mismatched),
        };
        *from = from.saturating_sub(pairs);
        *to += pairs;
        for (stratum, pairs) in kinds.shadow.iter().chain(&kinds.dark) {
            self.all.move_mismatches(stratum, *pairs, to_equal);
        }
        for (stratum, pairs) in &kinds.dark {
            self.dark.move_mismatches(stratum, *pairs, to_equal);
        }
    }

    pub(super) fn remove_noise_hits(&mut self, pairs: u64) {
        if let Some(hits) = self.rule_hits.get_mut(NOISE_RULE) {
            *hits = hits.saturating_sub(pairs);
        }
    }

    /// Counts pairs that are equal by noise among the hits of rules.
    pub(super) fn count_noise_hits(&mut self, pairs: u64, now: Timestamp) {
        self.count_hits(NOISE_RULE, pairs, now);
    }
}
