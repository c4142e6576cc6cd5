//! Places at which a captured value is redacted and the workflow's does not come from the capture: of one pair it is
//! not known whether the two differ. Over several pairs it is, where the workflow has one value and legacy had
//! different ones.
//!
//! Only rehearsals of captures have such places.

use std::collections::BTreeMap;

use crate::compare::NotKnownValues;

/// Places that are remembered.
const PLACES_MAX: usize = 64;
/// Values of the workflow that are remembered of one place.
const VALUES_MAX: usize = 64;

/// What is known of such places over all pairs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ValuesNotKnown {
    /// By place, for each value of the workflow (a hash) the first one that legacy had (a hash).
    first: BTreeMap<String, BTreeMap<u64, u64>>,
    /// By place, in how many pairs the workflow has a value that it also has where legacy had another one.
    contradicted: BTreeMap<String, u64>,
}

impl ValuesNotKnown {
    /// Notes the two values at a place of one pair.
    pub(super) fn note(&mut self, NotKnownValues { path, legacy, engine }: &NotKnownValues) {
        if self.first.len() >= PLACES_MAX && !self.first.contains_key(path) {
            return;
        }
        let values = self.first.entry(path.clone()).or_default();
        let has_room = values.len() < VALUES_MAX;
        match values.get(engine) {
            Some(first) if first != legacy => *self.contradicted.entry(path.clone()).or_default() += 1,
            Some(_) => {}
            None if has_room => drop(values.insert(*engine, *legacy)),
            None => {}
        }
    }

    /// The places at which the workflow has one value where legacy had different ones, and in how many pairs it differs
    /// at least.
    pub fn contradicted(&self) -> &BTreeMap<String, u64> {
        &self.contradicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contradicted(pairs: &[(&str, u64, u64)]) -> Vec<(String, u64)> {
        let mut values = ValuesNotKnown::default();
        for (path, legacy, engine) in pairs {
            values.note(&NotKnownValues { path: (*path).to_owned(), legacy: *legacy, engine: *engine });
        }
        values.contradicted().clone().into_iter().collect()
    }

    #[test]
    fn one_value_where_legacy_had_different_ones_differs() {
        assert_eq!(contradicted(&[("$.to", 1, 7), ("$.to", 1, 7), ("$.cc", 2, 7), ("$.to", 2, 8)]), []);
        assert_eq!(contradicted(&[("$.to", 1, 7), ("$.to", 2, 7), ("$.to", 3, 7)]), [("$.to".to_owned(), 2)]);
        let many: Vec<_> = (0..2 * VALUES_MAX as u64).map(|n| ("$.to", n, n)).collect();
        assert_eq!(contradicted(&many), []);
    }
}
