//! Tells of most texts that no id is in them, without a search for each id.

/// The pairs of bytes that ids begin with, without regard to the case of letters. A text in which none of them stands
/// has no id in it.
#[derive(Clone, Debug, Default)]
pub(super) struct IdFilter {
    /// One bit for each group of pairs.
    beginnings: [u64; GROUPS / 64],
    /// The length of the shortest id in bytes.
    shortest: Option<usize>,
}

const GROUPS: usize = 1_024;

impl IdFilter {
    pub(super) fn add(&mut self, id: &str) {
        self.shortest = Some(self.shortest.map_or(id.len(), |shortest| shortest.min(id.len())));
        if let [first, second, ..] = id.as_bytes() {
            let group = group_of(*first, *second);
            self.beginnings[group / 64] |= 1 << (group % 64);
        }
    }

    /// Whether an id may be a part of the text; letters of either case count as equal.
    pub(super) fn may_be_in(&self, text: &str) -> bool {
        match self.shortest {
            None => false,
            Some(shortest) if text.len() < shortest => false,
            Some(0 | 1) => true,
            Some(shortest) => {
                // An id does not begin so near to the end that it is longer than the rest.
                let starts = &text.as_bytes()[..text.len() - shortest + 2];
                starts.windows(2).any(|pair| {
                    let group = group_of(pair[0], pair[1]);
                    self.beginnings[group / 64] >> (group % 64) & 1 == 1
                })
            }
        }
    }
}

fn group_of(first: u8, second: u8) -> usize {
    (usize::from(first.to_ascii_lowercase()) * 37 + usize::from(second.to_ascii_lowercase())) % GROUPS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_without_an_id_is_told_from_most_that_have_one() {
        let mut ids = IdFilter::default();
        assert!(!ids.may_be_in("") && !ids.may_be_in("4b825dc6"));
        ids.add("4b825dc6-42cb-4eb9-a060-e54bf8d69288");
        assert!(!ids.may_be_in("Coupling rod, forged") && !ids.may_be_in("4b825dc6"));
        assert!(ids.may_be_in("/orders/4B825DC6-42CB-4EB9-A060-E54BF8D69288"));
        assert!(!ids.may_be_in("a text that is as long as the id is, without it"));
        ids.add("7");
        assert!(ids.may_be_in("7"));
    }

    proptest! {
        #[test]
        fn no_id_is_missed(
            ids in proptest::collection::vec(".{0,5}", 1..4), which in any::<prop::sample::Index>(), before in ".{0,9}", after in ".{0,9}",
        ) {
            let mut filter = IdFilter::default();
            ids.iter().for_each(|id| filter.add(id));
            let id = which.get(&ids);
            for id in [id.clone(), id.to_ascii_lowercase(), id.to_ascii_uppercase()] {
                let text = format!("{before}{id}{after}");
                prop_assert!(filter.may_be_in(&text), "{} in {}", id, text);
            }
        }
    }
}
