//! Shortcuts change no result: each is compared with the general algorithm.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::context::WalkContext;
use super::findings::ComparisonFindings;
use super::id_map::IdMap;
use super::json_reader;
use super::node::{Kind, Members, Node};
use super::pairing::pair_by_key;
use super::properties::any_json;
use super::repeated_keys::Document;
use super::rule_texts::IdKind;
use super::rules::Rules;
use super::rules_by_node::RulesByNode;
use super::tests::{compared, reply, rules};
use super::value_hash::{Precision, Side, hash_of};
use super::walk::{SetIdBinding, Walk};

/// The ids that are bound in two documents, where nodes without ids are left out or walked too.
fn bound(legacy: &Value, engine: &Value, rules: &Rules, walk_all: bool) -> Vec<(IdKind, String, String)> {
    let mut findings = ComparisonFindings::new(64, &|| false, None);
    let documents = [legacy, engine].map(|value| Document { root: value.into(), repeated: &[] });
    let mut by_node = RulesByNode::of(&rules.body, documents, &findings).unwrap();
    if walk_all {
        by_node.note_all([legacy, engine]);
    }
    let mut ids = IdMap::of_kinds(rules.texts.kinds());
    for in_sets in [false, true] {
        let (rules_by_node, ids, findings) = (&by_node, &mut ids, &mut findings);
        let context = WalkContext { rules: &rules.body, rules_by_node, ids, findings };
        if in_sets {
            Walk::bind_ids_in_sets(context, SetIdBinding::All, legacy.into(), engine.into()).unwrap();
        } else {
            Walk::bind_ids(context, legacy.into(), engine.into()).unwrap();
        }
    }
    ids.bound()
}

fn members(node: Node<'_>) -> Members<'_> {
    match node.kind() {
        Kind::Object(members) => members,
        _ => panic!("no object: {node:?}"),
    }
}

/// The hashes of a value with both precisions.
fn hashes(value: &Value, rules: &Rules) -> [u64; 2] {
    let mut findings = ComparisonFindings::new(64, &|| false, None);
    let by_node = RulesByNode::of(&rules.body, [Document { root: value.into(), repeated: &[] }], &findings).unwrap();
    let mut ids = IdMap::of_kinds(rules.texts.kinds());
    ids.bind_texts(None, "legacy-4711", "engine-0815");
    [Precision::Exact, Precision::Coarse].map(|precision| {
        let ids = &mut ids;
        let mut context = WalkContext { rules: &rules.body, rules_by_node: &by_node, ids, findings: &mut findings };
        hash_of(&mut context, value.into(), Side::Engine, precision).unwrap()
    })
}

/// A value whose members have few names, so that rules find some.
fn with_few_names(value: &Value) -> Value {
    let name = |key: &str| ["a", "b", "id"][key.len() % 3].to_owned();
    match value {
        Value::Array(items) => items.iter().map(with_few_names).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (name(key), with_few_names(value))).collect(),
        scalar => scalar.clone(),
    }
}

/// Draws rules whose paths are names and wildcards (`true`), or also others.
fn any_rules(are_plain: bool) -> impl Strategy<Value = Value> {
    let plain = ["$", "$.a", "$.*", "$[*]", "$..id", "$..*", "$[*].b", "$.a[*]['id']", "$..a.b", "$..[*].a", "$.b..id"];
    let others = ["$[0]", "$..[1]", "$[?@.a]", "$['a','b']", "$.a[-1]", "$[::-1].id"];
    let paths = if are_plain { plain.to_vec() } else { [&plain[..], &others[..]].concat() };
    let path = move || prop::sample::select(paths.clone());
    let few = |path| prop::collection::vec(path, 0..3);
    let how = prop::collection::btree_map(path(), prop::sample::select(vec!["set", "id"]), 0..2);
    let by = prop::collection::btree_map(path(), prop::sample::select(vec![json!(5), json!("2s")]), 0..2);
    (few(path()), few(path()), few(path()), how, by).prop_map(|(ignore, ids, keys, unordered, tolerance)| {
        let keys = keys.into_iter().take(1).map(|path| json!({ "keys": path }));
        let ids: Vec<Value> = ids.into_iter().map(Value::from).chain(keys).collect();
        json!({ "ignore": ignore, "ids": ids, "unordered": unordered, "tolerance": tolerance })
    })
}

/// Checks that the rules that cover each node of a tree are those that cover the same node of a value.
fn assert_covered_alike((nodes, node): (&RulesByNode, Node<'_>), (others, other): (&RulesByNode, Node<'_>)) {
    assert_eq!(nodes.on(node), others.on(other), "{:?}", other.value());
    assert_eq!(nodes.may_have_ids(node, node), others.may_have_ids(other, other), "{:?}", other.value());
    match (node.kind(), other.kind()) {
        (Kind::Array(a), Kind::Array(b)) => {
            a.iter().zip(b.iter()).for_each(|(a, b)| assert_covered_alike((nodes, a), (others, b)));
        }
        (Kind::Object(a), Kind::Object(b)) => {
            a.iter().zip(b.iter()).for_each(|((_, a), (_, b))| assert_covered_alike((nodes, a), (others, b)));
        }
        _ => assert_eq!(node.value(), other.value()),
    }
}

proptest! {
    #[test]
    fn a_walk_finds_what_searches_find(value in any_json(), draft in any::<bool>().prop_flat_map(any_rules)) {
        let (value, rules) = (with_few_names(&value), rules(draft));
        let findings = ComparisonFindings::new(64, &|| false, None);
        let tree = json_reader::read(value.to_string().as_bytes(), 127).unwrap();
        let of = |root| RulesByNode::of(&rules.body, [Document { root, repeated: &[] }], &findings).unwrap();
        let (root, value) = (Node::Tree(tree.root()), Node::from(&value));
        assert_covered_alike((&of(root), root), (&of(value), value));
    }

    /// A byte order mark has no meaning, and makes a body be parsed to a value and not read as a tree.
    #[test]
    fn trees_are_compared_as_values_are(
        a in any_json(), b in any_json(), is_near in any::<bool>(), draft in any_rules(false),
    ) {
        let (a, b) = (with_few_names(&a), with_few_names(&b));
        let near = || (json!({"b": [1, b], "a": a}), json!({"a": a, "b": [b, 1]}));
        let (a, b) = if is_near { near() } else { (a, b) };
        let headers = [("content-type", "application/json")];
        let of = |before: &str, value: &Value| reply(200, &headers, format!("{before}{value}"));
        let rules = rules(draft);
        let [trees, values, both] = [["", ""], ["\u{feff}", "\u{feff}"], ["", "\u{feff}"]]
            .map(|[before, other]| compared(&of(before, &a), &of(other, &b), &rules).unwrap());
        prop_assert_eq!(&trees, &values);
        prop_assert_eq!(&trees, &both);
    }

    #[test]
    fn skipping_nodes_without_ids_misses_no_id(
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
    fn the_filter_for_texts_without_ids_changes_no_result(
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
        let all = a.iter().map(|(key, value)| (key.as_str(), Some(value.clone()), b.get(key).cloned()));
        let extra = b.iter().filter(|(key, _)| !a.contains_key(*key));
        let all = all.chain(extra.map(|(key, value)| (key.as_str(), None, Some(value.clone())))).collect::<Vec<_>>();
        let texts = [&a, &b].map(|map| Value::Object(map.clone()).to_string());
        let trees = texts.map(|text| json_reader::read(text.as_bytes(), 127).unwrap());
        let of_trees = trees.each_ref().map(|tree| members(Node::Tree(tree.root())));
        for (a, b) in [(Members::Values(&a), Members::Values(&b)), (of_trees[0], of_trees[1])] {
            let owned = |node: Option<Node<'_>>| node.map(|node| node.value().into_owned());
            let pairs = pair_by_key(a, b).map(|(key, a, b)| (key, owned(a), owned(b)));
            prop_assert_eq!(pairs.collect::<Vec<_>>(), all.clone());
        }
    }
}
