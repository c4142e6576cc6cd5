//! Which invariants, cohorts and `promote.strata_by` the files declare: what was counted under an earlier declaration
//! does not count for the present one.

use std::collections::{BTreeMap, BTreeSet};

use super::Evidence;
use super::counters::Counters;
use super::strata_by::{StrataBy, VALUES_MAX};
use super::stratum_names::OTHER_VALUES;
use crate::flag::{Invariant, StratumValue};
use crate::names::RouteId;

impl Counters {
    /// Whether the files declare this invariant; true while it is not known yet what they declare.
    pub(super) fn has_invariant(&self, invariant: &Invariant) -> bool {
        self.invariants.as_ref().is_none_or(|known| known.get(&invariant.name) == Some(&invariant.text))
    }

    pub(super) fn set_invariants(&mut self, invariants: &[Invariant]) {
        let known: BTreeMap<String, String> =
            invariants.iter().map(|invariant| (invariant.name.clone(), invariant.text.clone())).collect();
        self.invariants_of_runs = invariants
            .iter()
            .filter(|invariant| invariant.reads_the_run())
            .map(|invariant| (invariant.name.clone(), invariant.text.clone()))
            .collect();
        let counted = &mut self.evidence.invariants;
        let before = counted.len();
        counted.retain(|name, counts| known.get(name) == Some(&counts.text));
        self.dirty |= counted.len() != before || self.checks_lost > 0;
        let lost = std::mem::take(&mut self.checks_lost);
        // Only invariants that read the run can have lost checks: the others are judged as soon as the caller has the
        // answer.
        for (name, text) in self.invariants_of_runs.iter().filter(|_| lost > 0) {
            counted.entry(name.clone()).or_default().count_lost(text, lost);
        }
        self.invariants = Some(known);
    }

    /// Sets the rules of the route's cohorts. Counts of a cohort whose rule is new or was changed move to the same
    /// kinds of requests without a cohort: they are of other callers.
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

impl Evidence {
    /// Sets `promote.strata_by` of the files; empty for none. If it is new or was changed, what was counted by value
    /// before counts as without a value. Call it after [`Evidence::set_basis`].
    pub fn set_strata_by(&self, route: &RouteId, key: &str) {
        let shared = self.counters(route);
        let mut counters = shared.lock();
        let key = key.to_owned();
        counters.edit(move |counters| {
            counters.strata_key.clone_from(&key);
            counters.apply_strata_key();
        });
    }
}

impl Counters {
    /// The value under which a request is counted that was decided by the files with this version; `None` if the files
    /// that are in force now have another key.
    pub(super) fn counted_value(&mut self, files_version: u64, value: StratumValue) -> Option<StratumValue> {
        if *value.key != *self.strata_key {
            return None;
        }
        // The evidence may have been started from zero meanwhile.
        self.apply_strata_key();
        let has_basis = self.has_basis_of(files_version);
        let known = &mut self.evidence.strata_by.values;
        if known.contains(&*value.shown) {
            return Some(value);
        }
        if known.len() >= VALUES_MAX {
            return Some(StratumValue { shown: OTHER_VALUES.into(), ..value });
        }
        if has_basis {
            known.insert(value.shown.to_string());
            self.dirty = true;
        }
        Some(value)
    }

    fn apply_strata_key(&mut self) {
        let evidence = &mut self.evidence;
        if evidence.strata_by.key == self.strata_key {
            return;
        }
        [&mut evidence.all, &mut evidence.dark].into_iter().for_each(|counts| counts.forget_values());
        evidence.strata_by = StrataBy { key: self.strata_key.clone(), values: BTreeSet::new() };
        self.dirty = true;
    }
}
