//! Ids in headers and keys, their types, and those that nothing confirms.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{compared, found, json_reply, reply, rules};
use super::{CompareContext, Comparison, DifferenceKind, Rules, RulesDraft, Verdict};
use crate::problem::{Problems, Site};

fn bodies(legacy: &Value, engine: &Value, draft: Value) -> Comparison {
    compared(&json_reply(legacy), &json_reply(engine), &rules(draft)).unwrap()
}

pub(super) fn with_location(location: &str, body: &Value) -> super::Observation {
    reply(201, &[("content-type", "application/json"), ("location", location)], body.to_string())
}

#[test]
fn ids_in_a_header_are_found_by_a_pattern_and_stand_for_each_other_elsewhere() {
    let rules = rules(json!({"ids": [{"header.location": "/orders/{id}"}]}));
    let of = |location: &str, link: &str| with_location(location, &json!({"self": link}));
    let verdict = |engine: super::Observation| compared(&of("/orders/17", "/orders/17/x"), &engine, &rules).unwrap();
    let same = verdict(of("http://host/orders/run_9?v=1", "/orders/run_9/x"));
    assert_eq!(found(&same), [("headers.location", DifferenceKind::Header)], "another text around the id");
    let same = verdict(of("/orders/run_9", "/orders/run_9/x"));
    assert_eq!(
        (same.verdict, &*same.ignored_by),
        (Verdict::Ignored, &[("ids header.location: /orders/{id}".to_owned(), 2),][..])
    );
    let wrong = verdict(of("/orders/run_9", "/orders/run_8/x"));
    assert_eq!(found(&wrong), [("$.self", DifferenceKind::Value)]);
    let other = verdict(of("/carts/run_9", "/orders/run_9/x"));
    assert_eq!(found(&other), [("headers.location", DifferenceKind::Header), ("$.self", DifferenceKind::Value)]);
}

#[test]
fn an_id_that_contains_another_has_to_contain_the_one_of_its_own_arm() {
    let draft = json!({"ids": ["$.id", "$.reference"]});
    let of = |id: &str, reference: &str| json!({"id": id, "reference": reference});
    let legacy = of("40106", "BK-40106");
    let verdict = |reference: &str| bodies(&legacy, &of("run-77a", reference), draft.clone());
    for right in ["BK-run-77a", "run-77a/2"] {
        assert_eq!(verdict(right).verdict, Verdict::Ignored, "{right}");
    }
    for wrong in ["BK-1", "BK-40106", "run-77b"] {
        let wrong = verdict(wrong);
        assert_eq!(found(&wrong), [("$.reference", DifferenceKind::Value)]);
    }
    // Also where it stands before the id that it names.
    let before = |reference: &str, id: &str| json!({"a_reference": reference, "id": id});
    let draft_before = json!({"ids": ["$.id", "$.a_reference"]});
    let verdict =
        |reference: &str| bodies(&before("BK-40106", "40106"), &before(reference, "run-7"), draft_before.clone());
    assert_eq!(verdict("BK-run-7-x").verdict, Verdict::Ignored);
    assert_eq!(found(&verdict("BK-1")), [("$.a_reference", DifferenceKind::Value)]);
    assert_eq!(found(&verdict("BK-run-77")), [("$.a_reference", DifferenceKind::Value)], "another id");
    // A reference that names no id may be any; so may one in which an id is short, or a part of a word or of a UUID.
    let uuids = ("3f2b8c1e-4010-4abc-8def-012340106789", "9b2d1a70-77aa-4abc-8def-0123456789ab");
    let any = [("40106", "X-9", "y-1"), ("40106", "x40106", "y-1"), ("4010", "X-4010", "y-1")];
    for (id, reference, other) in any.into_iter().chain([("012340106789", uuids.0, uuids.1)]) {
        let same = bodies(&of(id, reference), &of("run-77a", other), draft.clone());
        assert_eq!(same.verdict, Verdict::Ignored, "{reference}");
    }
}

#[test]
fn keys_that_are_ids_correspond_one_to_one() {
    let draft = json!({"ids": [{"keys": "$.orders"}, "$.last"], "ignore": ["$.orders[*].at"]});
    let legacy = json!({"last": "17", "orders": {"16": {"n": 1, "at": 1}, "17": {"n": 2, "at": 1}}});
    let engine = json!({"last": "b", "orders": {"b": {"n": 2, "at": 2}, "a": {"n": 1, "at": 2}}});
    let same = bodies(&legacy, &engine, draft.clone());
    assert_eq!(same.verdict, Verdict::Ignored, "{same:?}");
    let hits: Vec<&str> = same.ignored_by.iter().map(|(rule, _)| &**rule).collect();
    let unproven = "ids keys $.orders (unproven: an id that stands only once)";
    assert!(hits.contains(&"ids keys $.orders") && hits.contains(&unproven), "{hits:?}");
    let mut wrong = engine.clone();
    wrong["orders"]["b"]["n"] = json!(3);
    assert_eq!(found(&bodies(&legacy, &wrong, draft.clone())), [("$.orders[*].n", DifferenceKind::Value)]);
    let mut wrong = engine.clone();
    wrong["last"] = json!("a");
    assert_eq!(bodies(&legacy, &wrong, draft.clone()).verdict, Verdict::Mismatch);
    let mut fewer = engine.clone();
    fewer["orders"].as_object_mut().unwrap().remove("a");
    assert_eq!(found(&bodies(&legacy, &fewer, draft.clone())), [("$.orders[*]", DifferenceKind::Missing)]);
    assert_eq!(bodies(&legacy, &legacy, draft).verdict, Verdict::Match);
}

#[test]
fn an_id_of_another_type_is_a_difference_unless_the_rule_says_otherwise() {
    let (legacy, engine) = (json!({"id": 17, "self": "/orders/17"}), json!({"id": "run_9", "self": "/orders/run_9"}));
    let typed = bodies(&legacy, &engine, json!({"ids": ["$.id"]}));
    assert_eq!(found(&typed), [("$.id", DifferenceKind::Type)]);
    let any = bodies(&legacy, &engine, json!({"ids": [{"path": "$.id", "any_type": true}]}));
    assert_eq!((any.verdict, &*any.ignored_by), (Verdict::Ignored, &[("ids $.id".to_owned(), 2)][..]));
}

#[test]
fn an_id_that_stands_only_once_is_reported_as_unproven() {
    let of = |id: &str, rest: Value| json!({"id": id, "rest": rest});
    let draft = json!({"ids": ["$.id"]});
    let hits = |a: Value, b: Value| bodies(&of("ord_1", a), &of("run_2", b), draft.clone()).ignored_by;
    let unproven = ("ids $.id (unproven: an id that stands only once)".to_owned(), 1);
    assert_eq!(hits(json!(1), json!(1)), [("ids $.id".to_owned(), 1), unproven]);
    assert_eq!(hits(json!("/o/ord_1"), json!("/o/run_2")), [("ids $.id".to_owned(), 2)]);
    assert_eq!(
        bodies(&of("x", json!(1)), &of("x", json!(1)), draft).verdict,
        Verdict::Match,
        "equal ids prove themselves"
    );
}

#[test]
fn bad_rules_for_ids_are_reported_with_their_positions() {
    let draft: RulesDraft = serde_json::from_value(json!({
        "ids": [
            {"header.location": "/orders"},
            {"header.x y": "/orders/{id}"},
            {"path": "$.[", "any_type": true},
            {"keys": "$.a", "any_type": true},
            {"path": "$.a", "keys": "$.b"},
            {"pth": "$.a"},
            {"path": "$.a", "when": "legacy.status == 200"},
            {"path": "$.a", "when": "${legacy.body.x == 1}"},
            {"path": "$.a", "when": "${legacy.status == }"},
        ],
        "effects": {"charge": {
            "ids": [{"header.location": "/x/{id}"}],
            "ignore": [{"path": "path", "when": "${true}"}],
        }},
    }))
    .unwrap();
    let mut problems = Problems::default();
    let context = CompareContext { intents: &["charge"], ..CompareContext::default() };
    assert!(Rules::check(&draft, &Site::file("r.yaml"), &context, &mut problems).is_none());
    let all: Vec<String> = problems.iter().map(|p| format!("{} {} {:?}", p.site, p.message, p.hint)).collect();
    assert_eq!(all.len(), 12, "{all:#?}");
    for (n, part) in [
        "r.yaml.ids[0].header.location `/orders` does not say where the id is",
        "is no header name",
        "r.yaml.ids[2].path",
        "r.yaml.ids[3].any_type",
        "names one kind of ids",
        "unknown key `pth`",
        "write it as `${legacy.status == 200}`",
        "cannot read `legacy.body`",
        "r.yaml.ids[8].when",
    ]
    .iter()
    .enumerate()
    {
        assert!(all[n].contains(part), "{part}: {}", all[n]);
    }
}

#[test]
fn a_text_under_the_name_of_an_amount_that_is_a_number_of_either_arm_has_to_be_equal() {
    let draft = json!({"ids": ["$.id"]});
    let of = |id: &str, amount: &str| json!({"id": id, "amount": amount, "order": id});
    let differing = bodies(&of("4006", "4006"), &of("run_9", "run_9"), draft.clone());
    assert_eq!(found(&differing), [("$.amount", DifferenceKind::Value)]);
    let same = bodies(&of("4006", "4006"), &of("run_9", "4006"), draft);
    assert_eq!(found(&same), []);
}

#[test]
fn what_is_no_id_is_a_difference() {
    let draft = json!({"ids": ["$.id"]});
    for engine in [json!(""), json!(" "), json!("null"), json!("Internal error: no id")] {
        let found_in = bodies(&json!({"id": "abc-1"}), &json!({"id": engine}), draft.clone());
        assert_eq!(found(&found_in), [("$.id", DifferenceKind::Value)], "{engine}");
    }
    for engine in [json!(17.5), json!(-1)] {
        let found_in = bodies(&json!({"id": 17}), &json!({"id": engine}), draft.clone());
        assert_eq!(found(&found_in), [("$.id", DifferenceKind::Value)], "{engine}");
    }
    for both in [json!(""), json!("null"), json!(17.5), json!(-1), json!(null)] {
        assert_eq!(bodies(&json!({"id": both}), &json!({"id": both}), draft.clone()).verdict, Verdict::Match, "{both}");
    }
    let prices = bodies(&json!({"id": 17.5}), &json!({"id": 18.5}), draft);
    assert_eq!(prices.verdict, Verdict::Mismatch, "a number with a fraction is no id");
}

#[test]
fn ids_correspond_within_their_kind() {
    let (legacy, engine) = (json!({"order": 4012, "customer": 4012}), json!({"order": 5001, "customer": 7001}));
    let plain = json!({"ids": ["$.order", "$.customer"]});
    assert_eq!(found(&bodies(&legacy, &engine, plain)), [("$.customer", DifferenceKind::Value)]);
    let kinds = json!({"ids": [{"path": "$.order", "kind": "order"}, {"path": "$.customer", "kind": "customer"}]});
    assert_eq!(bodies(&legacy, &engine, kinds.clone()).verdict, Verdict::Ignored);
    let swapped = bodies(
        &json!([legacy, legacy]),
        &json!([engine, {"order": 7001, "customer": 5001}]),
        json!({"ids": [
        {"path": "$[*].order", "kind": "order"}, {"path": "$[*].customer", "kind": "customer"}]}),
    );
    let wrong = [("$[*].order", DifferenceKind::Value), ("$[*].customer", DifferenceKind::Value)];
    assert_eq!(found(&swapped), wrong);
    let with_header = rules(json!({"ids": [
        {"header.location": "/customers/{customer}"}, {"path": "$.order", "kind": "order"},
        {"path": "$.customer", "kind": "customer"}]}));
    let of = |location: &str, body: &Value| with_location(location, body);
    let verdict = |location: &str| {
        compared(&of("/customers/4012", &legacy), &of(location, &engine), &with_header).unwrap().verdict
    };
    assert_eq!(verdict("/customers/7001"), Verdict::Ignored);
    assert_eq!(verdict("/customers/5001"), Verdict::Mismatch);
}

#[test]
fn a_key_that_is_an_id_and_stands_twice_is_a_difference() {
    let of = |body: &str| reply(200, &[("content-type", "application/json")], body.to_owned());
    let rules = rules(json!({"ids": [{"keys": "$.orders"}]}));
    let legacy = of(r#"{"orders":{"4012":{"t":1}}}"#);
    let twice = compared(&legacy, &of(r#"{"orders":{"e-1":{"t":9},"e-1":{"t":1}}}"#), &rules).unwrap();
    assert_eq!(found(&twice), [("$.orders[*]", DifferenceKind::DuplicateKey)]);
    assert_eq!(compared(&legacy, &of(r#"{"orders":{"e-1":{"t":1}}}"#), &rules).unwrap().verdict, Verdict::Ignored);
}

#[test]
fn members_and_elements_are_paired_by_tolerated_values_that_are_near() {
    let draft = json!({"ids": [{"keys": "$.o"}], "tolerance": {"$.o[*].t": 0.005, "$.l[*].t": 0.005},
        "unordered": {"$.l": "set"}});
    let of = |a: f64, b: f64| json!({"o": {"x": {"t": a}, "y": {"t": b}}, "l": [{"t": a}, {"t": b}]});
    let legacy = of(10.0, 20.0);
    assert_eq!(bodies(&legacy, &of(20.001, 10.001), draft.clone()).verdict, Verdict::Ignored);
    let wrong = bodies(&legacy, &of(20.001, 10.1), draft);
    assert_eq!(found(&wrong), [("$.o[*].t", DifferenceKind::Value), ("$.l[*].t", DifferenceKind::Value)]);
}

/// The references stand before what they refer to: alone, each could be any.
#[test]
fn a_set_of_references_is_paired_by_what_they_refer_to_wherever_that_stands() {
    let draft = json!({"ids": ["$.chosen[*]", "$.chosen[*].line", "$.lines[*].id", "$.lines[*].after"],
        "unordered": {"$.chosen": "set", "$.lines": "set"}});
    let of = |chosen: Value, ids: [u32; 3]| {
        let [tea, cup, pot] = ids;
        json!({"chosen": chosen, "lines": [{"id": tea, "sku": "tea"}, {"id": cup, "sku": "cup", "after": pot}, {"id": pot}]})
    };
    let legacy = of(json!([11, 12, 13]), [11, 12, 13]);
    for (chosen, is_equal) in [
        (json!([93, 91, 92]), true),
        (json!([91, 92, 93]), true),
        (json!([93, 91, 91]), false),
        (json!([93, 91]), false),
    ] {
        let engine = of(chosen.clone(), [91, 92, 93]);
        let verdict = bodies(&legacy, &engine, draft.clone()).verdict;
        assert_eq!(verdict != Verdict::Mismatch, is_equal, "{chosen}");
    }
    let refs = |a: u32, b: u32| json!([{"line": a, "gift": true}, {"line": b}]);
    let legacy = of(refs(11, 13), [11, 12, 13]);
    assert_eq!(bodies(&legacy, &of(refs(91, 93), [91, 92, 93]), draft.clone()).verdict, Verdict::Ignored);
    let swapped = bodies(&legacy, &of(refs(93, 91), [91, 92, 93]), draft);
    assert_eq!(swapped.verdict, Verdict::Mismatch, "the gift is another line");
    // Nothing tells the references apart: any one-to-one correspondence makes the two equal, but not one of two to one.
    let alone = |ids: [u32; 4]| json!({"chosen": [ids[0], ids[1]], "lines": [{"id": ids[2]}, {"id": ids[3]}]});
    let draft = json!({"ids": ["$.chosen[*]", "$.lines[*].id"], "unordered": {"$.chosen": "set", "$.lines": "set"}});
    let verdict = |engine: [u32; 4]| bodies(&alone([1, 2, 1, 2]), &alone(engine), draft.clone()).verdict;
    assert_eq!((verdict([7, 8, 8, 7]), verdict([7, 8, 7, 9])), (Verdict::Ignored, Verdict::Mismatch));
}

/// Each line could be any other; but once one is paired, those that it names are known.
#[test]
fn lines_that_name_each_other_are_equal_in_any_order_if_they_correspond() {
    let draft = json!({"ids": ["$.lines[*].id", "$.lines[*].next"], "unordered": {"$.lines": "set"}});
    let line = |(id, next): &(u32, u32)| json!({"id": id, "next": next});
    let of = |lines: &[(u32, u32)]| json!({"lines": lines.iter().map(line).collect::<Vec<_>>()});
    let verdict = |legacy, engine| bodies(&of(legacy), &of(engine), draft.clone()).verdict;
    let rings = [(1, 2), (2, 1), (3, 4), (4, 3)];
    assert_eq!(verdict(&rings, &[(91, 92), (93, 94), (92, 91), (94, 93)]), Verdict::Ignored);
    assert_eq!(verdict(&rings, &[(91, 92), (92, 93), (93, 94), (94, 91)]), Verdict::Mismatch, "one ring of four");
    let ring = [(1, 2), (2, 3), (3, 1)];
    assert_eq!(verdict(&ring, &[(91, 92), (93, 91), (92, 93)]), Verdict::Ignored);
    assert_eq!(verdict(&ring, &[(91, 92), (93, 91), (92, 91)]), Verdict::Mismatch);
}

/// Keys that are ids, and a set whose elements name them and which stands before them.
#[test]
fn keys_are_bound_by_their_values_before_an_earlier_set_that_refers_to_them() {
    let draft = json!({"ids": [{"keys": "$.orders"}, "$.open[*]"], "unordered": {"$.open": "set"}});
    let of = |open: [&str; 2], [a, b, c]: [&str; 3]| json!({"open": open, "orders": {a: {"t": 1}, b: {"t": 2}, c: {"t": 3}}});
    let legacy = of(["4012", "4013"], ["4011", "4012", "4013"]);
    let verdict = |open| bodies(&legacy, &of(open, ["e-1", "e-2", "e-3"]), draft.clone()).verdict;
    assert_eq!(verdict(["e-3", "e-2"]), Verdict::Ignored);
    assert_eq!(verdict(["e-3", "e-1"]), Verdict::Mismatch);
}

#[test]
fn elements_with_one_key_are_paired_by_what_they_hold() {
    let draft = json!({"unordered": {"$.a": "sku"}});
    let of = |lines: [(&str, u32); 3]| lines.iter().map(|(sku, n)| json!({"sku": sku, "n": n})).collect::<Vec<_>>();
    let of = |lines| json!({"a": of(lines)});
    let legacy = of([("A", 1), ("A", 2), ("B", 3)]);
    assert_eq!(bodies(&legacy, &of([("B", 3), ("A", 2), ("A", 1)]), draft.clone()).verdict, Verdict::Ignored);
    let wrong = bodies(&legacy, &of([("B", 3), ("A", 2), ("A", 7)]), draft);
    assert_eq!(found(&wrong), [("$.a[*].n", DifferenceKind::Value)]);
    assert_eq!(wrong.differences[0].legacy.as_deref(), Some("1"));
}

#[test]
fn a_moved_and_changed_element_gives_one_order_and_one_value_difference() {
    let of =
        |lines: &[(&str, u32)]| lines.iter().map(|(sku, n)| json!({"sku": sku, "n": n, "x": 0})).collect::<Vec<_>>();
    let of = |lines| json!({"a": of(lines)});
    let legacy = of(&[("A", 1), ("B", 2), ("C", 3)]);
    let moved = bodies(&legacy, &of(&[("C", 9), ("A", 1), ("B", 2)]), json!({}));
    assert_eq!(found(&moved), [("$.a", DifferenceKind::Order), ("$.a[*].n", DifferenceKind::Value)]);
    let changed = bodies(&legacy, &of(&[("A", 1), ("B", 2), ("C", 9)]), json!({}));
    assert_eq!(found(&changed), [("$.a[*].n", DifferenceKind::Value)]);
}

#[test]
fn a_note_on_a_rule_is_told_from_the_rule() {
    let rules =
        rules(json!({"ids": ["$.a"], "assert": ["${legacy.status == 200}"], "text": {"ignore": ["^a (b: c)"]}}));
    assert!(rules.names().all(|rule| !super::is_rule_note(rule)));
    let notes = rules.texts.iter().filter(|text| super::is_rule_note(text));
    assert_eq!(notes.count(), 3);
}

proptest! {
    #[test]
    fn renamed_keys_match_and_a_changed_value_does_not(
        values in prop::collection::vec(0u32..1_000_000, 1..12), at in any::<prop::sample::Index>(),
    ) {
        let draft = json!({"ids": [{"keys": "$"}]});
        let map = |prefix: &str, values: &[u32], reversed: bool| {
            let mut members: Vec<_> =
                values.iter().enumerate().map(|(n, v)| (format!("{prefix}{n}"), json!({"v": v, "n": n}))).collect();
            if reversed {
                members.reverse();
            }
            Value::Object(members.into_iter().collect())
        };
        let same = bodies(&map("ord_", &values, false), &map("run_", &values, true), draft.clone());
        prop_assert_eq!(same.verdict, Verdict::Ignored);
        let mut changed = values.clone();
        changed[at.index(values.len())] = 2_000_000;
        let differs = bodies(&map("ord_", &values, false), &map("run_", &changed, true), draft);
        prop_assert_eq!(differs.verdict, Verdict::Mismatch);
    }

    #[test]
    fn no_pattern_of_a_header_makes_a_check_or_a_comparison_panic(
        pattern in "[/a-z{}?&.*()\\\\\\[\\]-]{0,20}", a in "[ -~]{0,24}", b in "[ -~]{0,24}",
    ) {
        let draft: RulesDraft = serde_json::from_value(json!({"ids": [{"header.location": pattern}]})).unwrap();
        let checked =
            Rules::check(&draft, &Site::file("r"), &CompareContext::default(), &mut Problems::default());
        if let Some(rules) = checked {
            let _ = compared(&with_location(&a, &json!({})), &with_location(&b, &json!({})), &rules);
        }
    }
}
