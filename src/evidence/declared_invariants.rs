//! Which invariants the files have, so that what was counted of others does not count.

use std::collections::BTreeMap;

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
        for (name, text) in known.iter().filter(|_| lost > 0) {
            counted.entry(name.clone()).or_default().count_lost(text, lost);
        }
        self.invariants = Some(known);
    }
}
