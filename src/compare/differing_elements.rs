//! Which elements of lists differ at each path: a difference is listed once for all elements that have it.
//!
//! An element is identified by its index in legacy's list, or by its key, together with the indexes and keys of the
//! elements that contain it: line 2 of order 5. So the elements in which two replies differ from the same reply of
//! legacy can be compared with each other.
//!
//! Always true: where no list element differs nothing is kept, so that equal replies cost nothing. If there are too
//! many to keep, unknown further elements are assumed at each path.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The most elements that are known of a pair, of all its differences together.
const ELEMENTS_MAX: usize = 4_096;

/// An element of a list of legacy's, by its index, or a member of an object whose keys are ids, by its key.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct ElementOfLegacy(u64);

impl ElementOfLegacy {
    pub(super) fn at(index: usize) -> Self {
        Self(index as u64)
    }
    pub(super) fn of_key(key: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// Tells apart the values whose paths have the same text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ElementKey {
    /// There is only one such value: the path leads through no list.
    Only,
    /// A hash of the elements of legacy's lists that contain the value.
    Hash(u64),
    /// The value is in an element that legacy's list does not have.
    NotOfLegacy,
}

/// The elements in which a reply differs from legacy's at one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DifferingElements {
    known: BTreeSet<u64>,
    /// Whether there are, or may be, more: elements that legacy's list does not have, or more than [`ELEMENTS_MAX`].
    has_others: bool,
}

impl DifferingElements {
    /// The elements with these hashes; `has_others`: there are more, of which nothing is known.
    pub fn new(known: impl IntoIterator<Item = u64>, has_others: bool) -> Self {
        Self { known: known.into_iter().collect(), has_others }
    }

    /// Whether each of these elements is known to be one of `others`.
    pub fn are_among(&self, others: &Self) -> bool {
        !self.has_others && self.known.is_subset(&others.known)
    }
}

/// The elements that have each difference, in the order in which they were found. Only added to, so that going back to
/// a savepoint costs nothing.
#[derive(Default)]
pub(super) struct ElementsByDifference {
    /// Each with the index of its difference.
    found: Vec<(usize, ElementKey)>,
    /// How many more there were than [`ELEMENTS_MAX`].
    dropped: usize,
}

/// How much had been found when this was made.
#[derive(Clone, Copy)]
pub(super) struct ElementsSavepoint {
    found: usize,
    dropped: usize,
}

impl ElementsByDifference {
    /// Adds an element that has the difference with this index.
    pub(super) fn add(&mut self, index: usize, element: ElementKey) {
        match element {
            ElementKey::Only => {}
            ElementKey::Hash(_) | ElementKey::NotOfLegacy if self.found.len() < ELEMENTS_MAX => {
                self.found.push((index, element));
            }
            ElementKey::Hash(_) | ElementKey::NotOfLegacy => self.dropped += 1,
        }
    }

    pub(super) fn savepoint(&self) -> ElementsSavepoint {
        ElementsSavepoint { found: self.found.len(), dropped: self.dropped }
    }

    pub(super) fn roll_back_to(&mut self, savepoint: ElementsSavepoint) {
        self.found.truncate(savepoint.found);
        self.dropped = savepoint.dropped;
    }

    /// The elements by the name of their difference, without differences outside lists. `names` has the name of each
    /// listed difference, in their order.
    pub(super) fn by_name<N: Ord + Clone>(self, names: impl Iterator<Item = N>) -> BTreeMap<N, DifferingElements> {
        let names: Vec<N> = names.collect();
        let mut all: BTreeMap<N, DifferingElements> = BTreeMap::new();
        for (index, element) in self.found {
            let Some(name) = names.get(index) else { continue };
            let of_name = all.entry(name.clone()).or_default();
            match element {
                ElementKey::Hash(hash) => drop(of_name.known.insert(hash)),
                ElementKey::Only | ElementKey::NotOfLegacy => of_name.has_others = true,
            }
        }
        all.values_mut().for_each(|elements| elements.has_others |= self.dropped > 0);
        all
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::compare::tests::bodies;

    fn list(prices: &[u64], note: &str) -> Value {
        let items: Vec<_> = prices.iter().map(|price| json!({ "price": price, "tags": [note, note] })).collect();
        json!({ "items": items, "at": note })
    }

    fn differing(path: &str, engine: Value) -> Option<DifferingElements> {
        let comparison = bodies(list(&[1, 2, 3, 4], "a"), engine, json!({}));
        comparison.elements.into_iter().find(|((at, _), _)| at == path).map(|(_, elements)| elements)
    }

    #[test]
    fn elements_are_known_by_their_index_in_legacys_list() {
        let at = |prices: &[u64]| differing("$.items[*].price", list(prices, "a"));
        assert_eq!(at(&[1, 2, 3, 4]), None);
        let (last, three) = (at(&[1, 2, 3, 9]).unwrap(), at(&[9, 2, 8, 7]).unwrap());
        assert!(last.are_among(&three) && !three.are_among(&last) && last.are_among(&last));
        assert!(!at(&[1, 9, 3, 4]).unwrap().are_among(&three), "another element");
        // All of a list within a list.
        let tags = |prices: &[u64]| differing("$.items[*].tags[*]", list(prices, "b")).unwrap();
        assert!(tags(&[1, 2, 3, 4]).are_among(&tags(&[9, 8, 7, 6])));
        assert_eq!(tags(&[1, 2, 3, 4]).known.len(), 8);
    }

    #[test]
    fn of_elements_that_legacy_does_not_have_nothing_is_known() {
        let longer = differing("$.items[*]", list(&[1, 2, 3, 4, 5], "a")).unwrap();
        assert!(!longer.are_among(&longer));
        // More than are kept, of which those at the other path came first.
        let mut elements = ElementsByDifference::default();
        elements.add(1, ElementKey::Hash(1));
        let before = elements.savepoint();
        (0..ELEMENTS_MAX as u64).for_each(|hash| elements.add(0, ElementKey::Hash(hash)));
        let all = DifferingElements::new(0..ELEMENTS_MAX as u64, false);
        let by_name = |elements: &mut ElementsByDifference| std::mem::take(elements).by_name(["a", "b"].into_iter());
        let found = by_name(&mut elements);
        assert!(!found["a"].are_among(&all) && !found["b"].are_among(&all));
        (0..ELEMENTS_MAX as u64).for_each(|hash| elements.add(0, ElementKey::Hash(hash)));
        elements.roll_back_to(before);
        elements.add(0, ElementKey::Only);
        assert_eq!(by_name(&mut elements), BTreeMap::from([("a", DifferingElements::new([0], false))]));
    }
}
