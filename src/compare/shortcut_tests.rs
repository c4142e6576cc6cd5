//! What saves work changes no result: each shortcut is held against the long way.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::context::WalkContext;
use super::findings::ComparisonFindings;
use super::id_map::IdMap;
use super::pairing::pair_by_key;
use super::properties::any_json;
use super::repeated_keys::Document;
use super::rule_texts::IdKind;
use super::rules::Rules;
use super::rules_by_node::RulesByNode;
use super::tests::rules;
use super::value_hash::{Precision, Side, hash_of};
use super::walk::{InSets, Walk};

/// The ids that are bound in two documents, where nodes without ids are left out or walked too.
fn bound(legacy: &Value, engine: &Value, rules: &Rules, walk_all: bool) -> Vec<(IdKind, String, String)> {
    let mut findings = ComparisonFindings::new(rules, 64, &|| false, None);
    let documents = [legacy, engine].map(|value| Document { value, repeated: &[] });
    let mut by_node = RulesByNode::of(&rules.body, documents, &findings).unwrap();
    if walk_all {
        by_node.note_all([legacy, engine]);
    }
    let mut ids = IdMap::of_kinds(rules.texts.kinds());
    for in_sets in [false, true] {
        let (rules_by_node, ids, findings) = (&by_node, &mut ids, &mut findings);
        let context = WalkContext { rules: &rules.body, rules_by_node, ids, findings };
        if in_sets {
            Walk::bind_ids_in_sets(context, InSets::All, legacy, engine).unwrap();
        } else {
            Walk::bind_ids(context, legacy, engine).unwrap();
        }
    }
    ids.bound()
}

/// The hashes of a value with both precisions.
fn hashes(value: &Value, rules: &Rules) -> [u64; 2] {
    let mut findings = ComparisonFindings::new(rules, 64, &|| false, None);
    let by_node = RulesByNode::of(&rules.body, [Document { value, repeated: &[] }], &findings).unwrap();
    let mut ids = IdMap::of_kinds(rules.texts.kinds());
    ids.bind_texts(None, "legacy-4711", "engine-0815");
    [Precision::Exact, Precision::Coarse].map(|precision| {
        let ids = &mut ids;
        let mut context = WalkContext { rules: &rules.body, rules_by_node: &by_node, ids, findings: &mut findings };
        hash_of(&mut context, value, Side::Engine, precision).unwrap()
    })
}

proptest! {
    #[test]
    fn no_id_is_left_out_with_the_nodes_around_it(
        legacy in any_json(), engine in any_json(), is_same in any::<bool>(), which in 0..5,
    ) {
        let rules = rules(match which {
            0 => json!({"ids": ["$..a", "$.*"]}),
            1 => json!({"ids": ["$[*].b", {"path": "$..c", "kind": "order"}], "unordered": {"$..*": "set"}}),
            2 => json!({"ids": ["$[0]", "$[*][*]"], "unordered": {"$": "a", "$..b": "set"}, "ignore": ["$..d"]}),
            3 => json!({"ids": [{"keys": "$..*"}]}),
            _ => json!({"ids": [{"keys": "$"}, "$..[1]"], "unordered": {"$..*": "b"}}),
        });
        let engine = if is_same { &legacy } else { &engine };
        prop_assert_eq!(bound(&legacy, engine, &rules, false), bound(&legacy, engine, &rules, true));
    }

    #[test]
    fn a_text_without_ids_is_compared_as_by_a_search(
        ids in prop::collection::vec(("([a-f0-9]{1,9}|[0-9]{1,5}|ord-[0-9]{2})", "([a-f0-9]{1,9}|[0-9]{1,5}|ord_[0-9]{2})"), 0..5),
        legacy in "([a-f]{0,3}|[0-9]{0,2}|[ /%=-]|ord-){0,5}", engine in "([a-f]{0,3}|[0-9]{0,2}|[ /%=-]|ord_){0,5}",
    ) {
        let mut map = IdMap::default();
        ids.iter().for_each(|(a, b)| map.bind_texts(Some("order_id"), a, b));
        map.bind_texts(None, "4b825dc6-42cb-4eb9-a060-e54bf8d69288", "9b2d1a70-0000-4eb9-a060-e54bf8d69288");
        let upper = "see 4B825DC6-42CB-4EB9-A060-E54BF8D69288";
        let named = ids.first().map_or_else(String::new, |(a, b)| format!("/orders/{a}/{b}"));
        for (a, b) in [(&*legacy, &*engine), (&legacy, &legacy), (&named, &named), (&named, &engine), (upper, upper)] {
            prop_assert_eq!(map.same_text(a, b), map.same_text_by_search(a, b), "{:?} {:?}", a, b);
            prop_assert_eq!(map.with_legacy_ids(b), map.with_legacy_ids_by_search(b), "{:?}", b);
        }
    }

    /// The hashes of an array are made once where no rule covers a value.
    #[test]
    fn without_rules_for_values_both_precisions_give_one_hash(value in any_json()) {
        let [exact, coarse] = hashes(&value, &rules(json!({"ids": [{"header.location": "/orders/{id}"}]})));
        prop_assert_eq!(exact, coarse);
    }

    #[test]
    fn members_are_paired_by_their_keys(
        a in prop::collection::vec("[a-d]", 0..5), b in prop::collection::vec("[a-d]", 0..5),
    ) {
        let object = |keys: &[String]| keys.iter().map(|key| (key.clone(), json!(key))).collect::<serde_json::Map<_, _>>();
        let (a, b) = (object(&a), object(&b));
        let all = a.iter().map(|(key, value)| (key.as_str(), Some(value), b.get(key)));
        let extra = b.iter().filter(|(key, _)| !a.contains_key(*key)).map(|(key, value)| (key.as_str(), None, Some(value)));
        prop_assert_eq!(pair_by_key(&a, &b).collect::<Vec<_>>(), all.chain(extra).collect::<Vec<_>>());
    }
}
