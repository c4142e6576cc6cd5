//! How many elements of lists differ at each path: a difference is listed once for all elements that have it.
//!
//! Always true: without a second element nothing is kept, so that equal replies cost nothing.

use std::collections::BTreeMap;

use super::verdict::{Difference, DifferenceKind};

/// For each listed difference, by its index, how many elements have it; an index beyond the end means one.
#[derive(Clone, Default)]
pub(super) struct ElementCounts(Vec<u32>);

impl ElementCounts {
    /// Counts another element with the difference at this index.
    pub(super) fn add(&mut self, index: usize) {
        if self.0.len() <= index {
            self.0.resize(index + 1, 1);
        }
        if let Some(count) = self.0.get_mut(index) {
            *count = count.saturating_add(1);
        }
    }

    /// The counts above one, by the path and the kind of the difference.
    pub(super) fn by_place(self, differences: &[Difference]) -> BTreeMap<(String, DifferenceKind), u32> {
        let all = differences.iter().zip(self.0).filter(|(_, count)| *count > 1);
        all.map(|(difference, count)| ((difference.path.clone(), difference.kind), count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::compare::tests::bodies;

    #[test]
    fn elements_are_counted_at_the_path_that_stands_for_all_of_them() {
        let list = |prices: [u64; 4], note: &str| {
            let items: Vec<_> = prices.iter().map(|price| json!({ "price": price, "tags": [note, note] })).collect();
            json!({ "items": items, "at": note })
        };
        let counts = |engine| {
            let comparison = bodies(list([1, 2, 3, 4], "a"), engine, json!({}));
            let of = |((path, kind), count): (&(String, DifferenceKind), &u32)| (path.clone(), *kind, *count);
            comparison.elements.iter().map(of).collect::<Vec<_>>()
        };
        let at = |path: &str, count| (path.to_owned(), DifferenceKind::Value, count);
        assert_eq!(counts(list([1, 2, 3, 4], "a")), []);
        assert_eq!(counts(list([1, 2, 3, 9], "a")), [], "one element counts one");
        assert_eq!(counts(list([9, 2, 8, 7], "a")), [at("$.items[*].price", 3)]);
        let all = [at("$.items[*].price", 4), at("$.items[*].tags[*]", 8)];
        assert_eq!(counts(list([9, 8, 7, 6], "b")), all);
    }
}
