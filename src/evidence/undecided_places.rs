//! Places at which a captured value is redacted and the workflow's value does not come from the capture. One pair does
//! not show whether the two values differ. Several pairs may: if one side has the same value in two pairs in which the
//! other side has two different values, the sides differ in at least one of these pairs.
//!
//! Only rehearsals of captures have such places.

use std::collections::BTreeMap;

use crate::compare::UndecidedValues;

/// The most places that are remembered.
const PLACES_MAX: usize = 64;
/// The most values of each side that are remembered of one place.
const VALUES_MAX: usize = 64;

/// What is known of such places over all pairs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UndecidedPlaces {
    /// By place.
    first: BTreeMap<String, FirstValues>,
    /// By place, the number of pairs in which a value of one side was seen before with another value of the other side.
    contradicted: BTreeMap<String, u64>,
}

/// For each value of one side at a place, the value that the other side had in the first pair with it; as hashes.
#[derive(Clone, Debug, Default, PartialEq)]
struct FirstValues {
    /// Legacy's values by the workflow's.
    legacy_by_workflow: BTreeMap<u64, u64>,
    /// The workflow's values by legacy's.
    workflow_by_legacy: BTreeMap<u64, u64>,
}

impl UndecidedPlaces {
    /// Notes the two values at a place of one pair.
    pub(super) fn note(&mut self, UndecidedValues { path, legacy, engine }: &UndecidedValues) {
        if self.first.len() >= PLACES_MAX && !self.first.contains_key(path) {
            return;
        }
        let FirstValues { legacy_by_workflow, workflow_by_legacy } = self.first.entry(path.clone()).or_default();
        let (by_workflow, by_legacy) =
            (contradicts(legacy_by_workflow, *engine, *legacy), contradicts(workflow_by_legacy, *legacy, *engine));
        if by_workflow || by_legacy {
            *self.contradicted.entry(path.clone()).or_default() += 1;
        }
    }

    /// The places at which one side has one value where the other had different ones, and in how many pairs they differ
    /// at least.
    pub fn contradicted(&self) -> &BTreeMap<String, u64> {
        &self.contradicted
    }
}

/// Whether the first pair with `value` had another value of the other side than `other`. Remembers `other` if this is
/// the first pair with `value`.
fn contradicts(first: &mut BTreeMap<u64, u64>, value: u64, other: u64) -> bool {
    if first.len() >= VALUES_MAX && !first.contains_key(&value) {
        return false;
    }
    *first.entry(value).or_insert(other) != other
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contradicted(pairs: &[(&str, u64, u64)]) -> Vec<(String, u64)> {
        let mut values = UndecidedPlaces::default();
        for (path, legacy, engine) in pairs {
            values.note(&UndecidedValues { path: (*path).to_owned(), legacy: *legacy, engine: *engine });
        }
        values.contradicted().clone().into_iter().collect()
    }

    #[test]
    fn one_value_where_the_other_side_had_different_ones_differs() {
        assert_eq!(contradicted(&[("$.to", 1, 7), ("$.to", 1, 7), ("$.cc", 2, 7), ("$.to", 2, 8)]), []);
        assert_eq!(contradicted(&[("$.to", 1, 7), ("$.to", 1, 8), ("$.to", 1, 9)]), [("$.to".to_owned(), 2)]);
        assert_eq!(contradicted(&[("$.to", 1, 7), ("$.to", 2, 7), ("$.to", 3, 7)]), [("$.to".to_owned(), 2)]);
        let many: Vec<_> = (0..2 * VALUES_MAX as u64).map(|n| ("$.to", n, n)).collect();
        assert_eq!(contradicted(&many), []);
    }
}
