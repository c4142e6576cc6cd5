//! The requirements of each route's gates by the files (`promote:`), and their changes, which get entries in the
//! record.
//!
//! Always true:
//!
//! - A change is in the store, with the source of its entry, before it is in force, so that an entry that was lost is
//!   made at the next start.
//! - No two changes have the same source, because the source has the number of the change. The changes of a route are
//!   counted also while the route is in no file, over renames, and when another route gets its id.
//! - All processes that read the same files find the same source.
//! - A new route gets no entry: the records of its flips list what the gates required.

use std::collections::{BTreeMap, BTreeSet};

use super::positions::{Positions, RoutePosition};
use crate::flag::{Promote, Route};
use crate::names::RouteId;
use crate::store::{DeclaredPromote, PromoteChange};

/// The key of `promote:` whose value may be shown masked, with a hash of the whole.
const STRATA_BY: &str = "strata_by";

/// The last change of what the gates of a route require.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedPromote {
    /// The route.
    pub route: RouteId,
    /// The changed keys, and the source of the entry in the record.
    pub change: PromoteChange,
    /// All that the gates require now, by the keys of `promote:`.
    pub requires: BTreeMap<String, String>,
}

/// Updates the stored requirements after new files have been judged. `before`: the positions under the files before.
pub(super) fn update(before: &Positions, positions: &mut Positions) {
    let of_route = |position: &RoutePosition| {
        let route = &position.route;
        let known = route.ids().find_map(|id| positions.promotes.get(id));
        after(&route.id, known, earlier_changes(before, positions, route), &route.promote)
    };
    let now = positions.routes.iter().map(|(id, position)| (id.clone(), of_route(position)));
    let now: BTreeMap<RouteId, DeclaredPromote> = now.collect();
    // Kept for a route that is left out of the files: with a stored declaration, because it may be added again; else if
    // it has sources in the record, because these must not be given a second time.
    let is_of_present = |id: &RouteId| positions.routes.values().any(|at| at.route.ids().any(|own| own == id));
    let is_kept = |id: &RouteId, known: &DeclaredPromote| {
        !now.contains_key(id)
            && (positions.stored_declarations.contains_key(id) || known.changes > 0 && !is_of_present(id))
    };
    let absent = positions.promotes.iter().filter(|(id, known)| is_kept(id, known));
    let absent: Vec<_> = absent.map(|(id, known)| (id.clone(), known.clone())).collect();
    positions.promotes = now.into_iter().chain(absent).collect();
}

/// The highest number of a change whose source has, or may have, one of this route's ids: the counts of all routes that
/// had one of these ids.
fn earlier_changes(before: &Positions, positions: &Positions, route: &Route) -> u64 {
    let had = |earlier: &[RouteId]| route.ids().any(|id| earlier.contains(id));
    let others = before.earlier_ids.iter().filter(|(_, earlier)| had(earlier)).map(|(id, _)| id);
    let known = route.ids().chain(others).filter_map(|id| positions.promotes.get(id));
    known.map(|known| known.changes).max().unwrap_or(0)
}

fn after(route: &RouteId, known: Option<&DeclaredPromote>, changes: u64, promote: &Promote) -> DeclaredPromote {
    let requires: BTreeMap<String, String> =
        promote.settings().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let Some(known) = known else { return DeclaredPromote { requires, changes, last_change: None } };
    let mut known = known.clone();
    // Only the hash beside the masked text differs, because it was made with another key, or with none: the requirement
    // did not change.
    if let (Some(text), Some(key)) = (known.requires.get_mut(STRATA_BY), &promote.strata_by)
        && key.is_earlier_text(text)
    {
        key.text().clone_into(text);
    }
    if known.requires == requires {
        return known;
    }
    let keys: BTreeSet<&String> = known.requires.keys().chain(requires.keys()).collect();
    let both =
        keys.into_iter().map(|key| (key.clone(), (known.requires.get(key).cloned(), requires.get(key).cloned())));
    let keys = both.filter(|(_, (before, after))| before != after).collect();
    let changes = changes + 1;
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
    use crate::expression::Template;
    use crate::flag::StratumKey;
    use crate::secret::TextHash;

    #[test]
    fn a_change_has_the_keys_that_differ_and_a_source_of_its_own() {
        let route = RouteId::from("orders");
        let first = after(&route, None, 0, &Promote::default());
        assert_eq!((first.changes, &first.last_change), (0, &None));
        assert_eq!(after(&route, Some(&first), first.changes, &Promote::default()), first);
        let lax = Promote { pairs: 1, mismatch_below: 1.0, ..Promote::default() };
        let second = after(&route, Some(&first), first.changes, &lax);
        let keys = second.last_change.clone().unwrap().keys;
        let text = |text: &str| Some(text.to_owned());
        let expected = [
            ("mismatch_below".to_owned(), (text("0.1%"), text("100%"))),
            ("pairs".to_owned(), (text("4512"), text("1"))),
        ];
        assert_eq!(keys.into_iter().collect::<Vec<_>>(), expected);
        let third = after(&route, Some(&second), second.changes, &Promote::default());
        let fourth = after(&route, Some(&third), third.changes, &lax);
        let source = |of: &DeclaredPromote| of.last_change.as_ref().unwrap().source.clone();
        assert_eq!([&second, &third, &fourth].map(source).into_iter().collect::<BTreeSet<_>>().len(), 3);
        assert_eq!(after(&route, Some(&first), first.changes, &lax), second, "another process finds the same");
    }

    #[test]
    fn another_hash_beside_a_masked_text_is_no_change() {
        let promote = |literal: &str, text_hash: &TextHash| {
            let template = Template::parse_str(&format!("${{string(request.headers.a == \"{literal}\")}}")).unwrap();
            Promote { strata_by: Some(StratumKey::new(template, text_hash)), ..Promote::default() }
        };
        let (route, of_store) = (RouteId::from("orders"), TextHash::derived_from(None, &[1; 32]));
        let stored = after(&route, None, 0, &promote("k3y", &TextHash::Unkeyed));
        let now = after(&route, Some(&stored), 0, &promote("k3y", &of_store));
        assert_eq!((now.changes, &now.last_change), (0, &None));
        assert!(now.requires != stored.requires);
        assert_eq!(after(&route, Some(&now), 0, &promote("k3y", &of_store)), now);
        assert_eq!(after(&route, Some(&stored), 0, &promote("other", &of_store)).changes, 1);
    }
}
