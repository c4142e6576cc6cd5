//! Which invariants and cohorts the files have, so that what was counted of others does not count.

use std::collections::{BTreeMap, BTreeSet};

use super::counters::Counters;
use crate::flag::Invariant;

impl Counters {
    /// Whether the files have this invariant, as far as that is known.
    pub(super) fn has_invariant(&self, invariant: &Invariant) -> bool {
        self.invariants.as_ref().is_none_or(|known| known.get(&invariant.name) == Some(&invariant.text))
    }

    pub(super) fn set_invariants(&mut self, invariants: &[Invariant]) {
        let known: BTreeMap<String, String> =
            invariants.iter().map(|invariant| (invariant.name.clone(), invariant.text.clone())).collect();
        let counted = &mut self.evidence.invariants;
        let before = counted.len();
        counted.retain(|name, counts| known.get(name) == Some(&counts.text));
        self.dirty |= counted.len() != before || self.checks_lost > 0;
        let lost = std::mem::take(&mut self.checks_lost);
        // The others are judged as soon as the caller has the answer.
        for invariant in invariants.iter().filter(|invariant| lost > 0 && invariant.reads_the_run()) {
            counted.entry(invariant.name.clone()).or_default().count_lost(&invariant.text, lost);
        }
        self.invariants = Some(known);
    }

    /// Sets the rules of the route's cohorts. Counts of a cohort whose rule is new or was changed are dropped: they
    /// are of other callers.
    pub(super) fn set_cohorts(&mut self, rules: &BTreeMap<String, String>) {
        let counted = &self.evidence.cohort_rules;
        if counted == rules {
            return;
        }
        let is_changed = |cohort: &str| counted.get(cohort) != rules.get(cohort);
        let named = counted.keys().chain(rules.keys()).filter(|cohort| is_changed(cohort)).cloned();
        for cohort in named.collect::<BTreeSet<String>>() {
            self.evidence.all.forget_cohort(&cohort);
            self.evidence.dark.forget_cohort(&cohort);
        }
        self.evidence.cohort_rules.clone_from(rules);
        self.dirty = true;
    }
}
