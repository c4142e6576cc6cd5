//! Ids in headers and keys, their types, and those that nothing confirms.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{compared, found, json_reply, reply, rules};
use super::{CompareContext, Comparison, DifferenceKind, Rules, RulesDraft, Verdict};
use crate::problem::{Problems, Site};

fn bodies(legacy: &Value, engine: &Value, draft: Value) -> Comparison {
    compared(&json_reply(legacy), &json_reply(engine), &rules(draft)).unwrap()
}

fn with_location(location: &str, body: &Value) -> super::Observation {
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
    assert_eq!(all.len(), 11, "{all:#?}");
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
