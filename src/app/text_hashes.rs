//! The hashes that stand beside masked parts in the texts of rules: their key, and the texts that the store may have
//! with earlier hashes.

use std::collections::BTreeMap;

use crate::config::Setup;
use crate::evidence::RenamedTexts;
use crate::flag::{Route, StratumKey};
use crate::names::RouteId;
use crate::secret::TextHash;

/// The hash for the texts of rules in this store.
pub(super) fn of_store(setup: &Setup, secret: &[u8; 32]) -> TextHash {
    let store_key = setup.settings.store_key.as_ref();
    TextHash::derived_from(store_key.map(|key| key.reveal().as_bytes()), secret)
}

/// By route: each text that the store may have with an earlier hash, and the same text with this hash, as the evidence
/// is counted from now on.
pub(super) fn renamed(setup: &Setup, text_hash: &TextHash) -> BTreeMap<RouteId, RenamedTexts> {
    let mut renamed = BTreeMap::<RouteId, RenamedTexts>::new();
    for before in text_hash.earlier().iter().map(|earlier| setup.with_text_hash(earlier)) {
        for (was, is) in before.routes.iter().zip(&setup.routes) {
            let rules = before.rules.get(&is.id).zip(setup.rules.get(&is.id));
            let rules = rules.map(|(was, is)| was.counted_texts().zip(is.counted_texts())).into_iter().flatten();
            let rules = rules.map(|(was, is)| (was.to_owned(), is.to_owned()));
            let of_route = rules.chain(texts_of(was).into_iter().zip(texts_of(is))).filter(|(was, is)| was != is);
            renamed.entry(is.id.clone()).or_default().extend(of_route);
        }
    }
    renamed
}

/// The texts of a route by which evidence is counted, apart from its rules, in a fixed order.
fn texts_of(route: &Route) -> Vec<String> {
    let invariants = route.invariants.iter().flat_map(|invariant| [invariant.name.clone(), invariant.text.clone()]);
    let strata = route.promote.strata_by.as_ref().map(|key| StratumKey::text(key).to_owned());
    invariants.chain(strata).chain(route.cohort_rules().into_values()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::basis::tests::setup;

    const ROUTES: &str = r#"
routes:
- id: orders.create
  match: { method: POST, path: /orders }
  legacy: shop
  workflow: w
  compare:
    ignore: ["$.b", { path: "$.a", when: '${request.headers["x-api-key"] == "1234"}' }]
    assert: ['${request.headers["x-api-key"] != "1234" || legacy.status == engine.status}']
  cohorts: [{ name: staff, when: '${request.headers["x-pin"] == "1234"}', state: dark }]
  invariants: ['${request.headers["x-api-key"] != "1234"}']
"#;

    #[test]
    fn what_the_store_has_from_before_is_renamed() {
        let of_files = setup(ROUTES);
        let hash = of_store(&of_files, &[1; 32]);
        let (keyed, before) = (of_files.with_text_hash(&hash), of_files.with_text_hash(&TextHash::Unkeyed));
        let id = RouteId::from("orders.create");
        let texts = |setup: &Setup| {
            let rules = setup.rules[&id].counted_texts().map(str::to_owned);
            rules.chain(texts_of(&setup.routes[0])).collect::<Vec<String>>()
        };
        let renamed = renamed(&keyed, &hash).remove(&id).unwrap();
        let changed: Vec<_> = texts(&before).into_iter().zip(texts(&keyed)).filter(|(was, is)| was != is).collect();
        assert!(changed.len() >= 5, "{changed:?}");
        assert_eq!(renamed, changed.into_iter().collect());
        assert_eq!(keyed.rules[&id].hash(), of_files.rules[&id].hash(), "the evidence rests on the same rules");
        assert_eq!(texts(&of_files.with_text_hash(&of_store(&of_files, &[1; 32]))), texts(&keyed), "after a restart");
        let shown = |setup: &Setup| setup.rules[&id].shown_draft();
        assert!(shown(&of_files).contains("\\\"***\\\"}\"") && shown(&keyed) != shown(&before), "{}", shown(&of_files));
    }
}
