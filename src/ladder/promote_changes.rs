//! What the gates of each route require by the files, and the changes of that, which get an entry in the record.
//!
//! Always true: a change is in the store, with the source of its entry, before it is in force, so that an entry that
//! was lost is made at the next start. All processes that read the same files find the same source. A route that the
//! files did not have before has no entry: the records of its flips list what the gates required.

use std::collections::{BTreeMap, BTreeSet};

use super::positions::{Positions, RoutePosition};
use crate::flag::Promote;
use crate::names::RouteId;
use crate::store::{DeclaredPromote, PromoteChange};

/// The last change of what the gates of a route require.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedPromote {
    /// The route.
    pub route: RouteId,
    /// What changed, and the source of its entry.
    pub change: PromoteChange,
    /// All that they require now, by the keys of `promote:`.
    pub requires: BTreeMap<String, String>,
}

/// Brings what the store has of each route up to date with files that have been judged.
pub(super) fn update(positions: &mut Positions) {
    let of_route = |position: &RoutePosition| {
        let known = position.route.ids().find_map(|id| positions.promotes.get(id));
        after(&position.route.id, known, &position.route.promote)
    };
    let now = positions.routes.iter().map(|(id, position)| (id.clone(), of_route(position)));
    let now: BTreeMap<RouteId, DeclaredPromote> = now.collect();
    // A route that is left out and added again goes on with what it had.
    let is_known = |id: &RouteId| positions.stored_declarations.contains_key(id) && !now.contains_key(id);
    let absent = positions.promotes.iter().filter(|(id, _)| is_known(id));
    let absent: Vec<_> = absent.map(|(id, known)| (id.clone(), known.clone())).collect();
    positions.promotes = now.into_iter().chain(absent).collect();
}

fn after(route: &RouteId, known: Option<&DeclaredPromote>, promote: &Promote) -> DeclaredPromote {
    let requires: BTreeMap<String, String> =
        promote.settings().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let Some(known) = known else { return DeclaredPromote { requires, ..DeclaredPromote::default() } };
    if known.requires == requires {
        return known.clone();
    }
    let keys: BTreeSet<&String> = known.requires.keys().chain(requires.keys()).collect();
    let both =
        keys.into_iter().map(|key| (key.clone(), (known.requires.get(key).cloned(), requires.get(key).cloned())));
    let keys = both.filter(|(_, (before, after))| before != after).collect();
    let changes = known.changes + 1;
    let mut hasher = blake3::Hasher::new();
    for (key, value) in &requires {
        hasher.update(key.as_bytes()).update(&[0]).update(value.as_bytes()).update(&[0]);
    }
    let source = format!("promote {route} {changes} {}", &hasher.finalize().to_hex()[..16]);
    DeclaredPromote { requires, changes, last_change: Some(PromoteChange { source, keys }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_has_the_keys_that_differ_and_a_source_of_its_own() {
        let route = RouteId::from("orders");
        let first = after(&route, None, &Promote::default());
        assert_eq!((first.changes, &first.last_change), (0, &None));
        assert_eq!(after(&route, Some(&first), &Promote::default()), first);
        let lax = Promote { pairs: 1, mismatch_below: 1.0, ..Promote::default() };
        let second = after(&route, Some(&first), &lax);
        let keys = second.last_change.clone().unwrap().keys;
        let text = |text: &str| Some(text.to_owned());
        let expected = [
            ("mismatch_below".to_owned(), (text("0.1%"), text("100%"))),
            ("pairs".to_owned(), (text("4512"), text("1"))),
        ];
        assert_eq!(keys.into_iter().collect::<Vec<_>>(), expected);
        let third = after(&route, Some(&second), &Promote::default());
        let fourth = after(&route, Some(&third), &lax);
        let source = |of: &DeclaredPromote| of.last_change.as_ref().unwrap().source.clone();
        assert_eq!([&second, &third, &fourth].map(source).into_iter().collect::<BTreeSet<_>>().len(), 3);
        assert_eq!(after(&route, Some(&first), &lax), second, "another process finds the same");
    }
}
