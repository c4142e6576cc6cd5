//! What two JSON texts with equal values may differ in: repeated keys, the form of numbers, the order of elements.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{compared, found, json_reply, reply, rules};
use super::{Comparison, DifferenceKind, Verdict};

fn texts(legacy: &str, engine: &str, draft: Value) -> Comparison {
    let of = |body: &str| reply(200, &[("content-type", "application/json")], body.to_owned());
    compared(&of(legacy), &of(engine), &rules(draft)).unwrap()
}

fn shown(comparison: &Comparison) -> Vec<(&str, DifferenceKind, &str, &str)> {
    let shown = comparison.differences.iter();
    shown.map(|d| (&*d.path, d.kind, d.legacy.as_deref().unwrap_or(""), d.engine.as_deref().unwrap_or(""))).collect()
}

#[test]
fn a_key_that_one_side_repeats_is_a_difference_that_names_the_key() {
    let twice = r#"{"o":[{"sku":"A","n":1,"n":2}]}"#;
    let once = r#"{"o":[{"sku":"A","n":2}]}"#;
    let path = "$.o[*].n";
    let (a, b) = ("the key `n` stands twice: [1,2]", "the key `n` stands once: [2]");
    assert_eq!(shown(&texts(twice, once, json!({}))), [(path, DifferenceKind::DuplicateKey, a, b)]);
    assert_eq!(shown(&texts(once, twice, json!({}))), [(path, DifferenceKind::DuplicateKey, b, a)]);
    assert_eq!(texts(twice, twice, json!({})).verdict, Verdict::Match);
    // Another earlier value, a third one, and another last one.
    for engine in [twice.replace("1,", "3,"), twice.replace("\"n\":1", "\"n\":1,\"n\":1")] {
        assert_eq!(found(&texts(twice, &engine, json!({}))), [(path, DifferenceKind::DuplicateKey)], "{engine}");
    }
    assert_eq!(found(&texts(twice, &twice.replace("2}", "3}"), json!({}))), [(path, DifferenceKind::Value)]);
    // In lines of JSON too.
    let of = |body: &str| reply(200, &[("content-type", "application/x-ndjson")], body.to_owned());
    let lines = compared(&of("{}\n{\"n\":1,\"n\":2}\n"), &of("{}\n{\"n\":2}\n"), &rules(json!({}))).unwrap();
    assert_eq!(found(&lines), [("$[*].n", DifferenceKind::DuplicateKey)]);
}

#[test]
fn the_rules_for_a_key_cover_its_earlier_values() {
    let of = |id: &str, first: &str, at: u32| format!(r#"{{"id":"{first}","id":"{id}","at":{at},"at":9}}"#);
    let (legacy, engine) = (of("ord_17", "ord_17", 1), of("run_9", "run_9", 2));
    let verdict = |engine: &str, draft: Value| texts(&legacy, engine, draft);
    assert_eq!(verdict(&engine, json!({"ids": ["$.id"], "tolerance": {"$.at": 1}})).verdict, Verdict::Ignored);
    let ignored = verdict(&engine, json!({"ids": ["$.id"], "ignore": ["$.at"]}));
    assert!(ignored.ignored_by.contains(&("ignore $.at".into(), 1)), "{ignored:?}");
    let wrong = verdict(&of("run_9", "ord_17", 2), json!({"ids": ["$.id"], "ignore": ["$.at"]}));
    assert_eq!(found(&wrong), [("$.id", DifferenceKind::DuplicateKey)]);
}

#[test]
fn rules_cover_what_is_in_the_earlier_values_of_a_key() {
    let of = |id: &str, t: u32, list: [u32; 2]| {
        let value = |n: u32| format!(r#"{{"id":"{id}{n}","t":{t},"l":[{},{}]}}"#, list[0], list[1]);
        format!(r#"{{"a":{},"a":{}}}"#, value(1), value(2))
    };
    let (legacy, engine) = (of("ord_", 1, [7, 8]), of("run_", 2, [8, 7]));
    let draft = json!({"ignore": ["$.a.t"], "unordered": {"$.a.l": "set"}, "ids": ["$.a.id"]});
    let same = texts(&legacy, &engine, draft.clone());
    assert_eq!(same.verdict, Verdict::Ignored, "{same:?}");
    for wrong in [of("run_", 2, [8, 9]), engine.replace("run_1", "run_2")] {
        assert_eq!(texts(&legacy, &wrong, draft.clone()).verdict, Verdict::Mismatch, "{wrong}");
    }
}

#[test]
fn repeated_secrets_do_not_show() {
    let differs = texts(r#"{"password":"hunter1","password":"hunter2"}"#, r#"{"password":"hunter2"}"#, json!({}));
    let text = format!("{differs:?}");
    assert!(text.contains("twice") && !text.contains("hunter"), "{text}");
}

#[test]
fn the_form_of_a_number_counts_where_the_rules_say_so() {
    let strict = json!({"numbers": {"form": "strict"}});
    assert_eq!(texts("{\"a\":1.10}", "{\"a\":1.1}", json!({"numbers": {"form": "value"}})).verdict, Verdict::Match);
    let differs = texts("{\"a\":1.10,\"b\":[1e2]}", "{\"a\":1.1,\"b\":[1e2]}", strict.clone());
    let says = "1.1 (the same number in another form)";
    assert_eq!(shown(&differs), [("$.a", DifferenceKind::Value, "1.10", says)]);
    assert_eq!(texts("[1.10]", "[1.10]", strict.clone()).verdict, Verdict::Match);
    let other = texts("{\"a\":1.10}", "{\"a\":1.2}", strict.clone());
    assert_eq!(shown(&other), [("$.a", DifferenceKind::Value, "1.10", "1.2")]);
    let tolerated = json!({"numbers": {"form": "strict"}, "tolerance": {"$.a": 0.5}});
    assert_eq!(texts("{\"a\":1.10}", "{\"a\":1.1}", tolerated).verdict, Verdict::Ignored);
    let ignored = json!({"numbers": {"form": "strict"}, "ignore": ["$.a"]});
    assert_eq!(texts("{\"a\":1.10}", "{\"a\":1.1}", ignored).ignored_by, [("ignore $.a".into(), 1)]);
    assert_eq!(rules(json!({"numbers": {}})).hash(), rules(json!({})).hash());
    assert_ne!(rules(strict).hash(), rules(json!({})).hash());
}

#[test]
fn moved_elements_are_one_difference_with_their_ids() {
    let line = |id: &str, sku: &str, n: f64| json!({"id": id, "sku": sku, "n": n});
    let legacy = json!({"lines": [line("l1", "A", 1.0), line("l2", "B", 2.0), line("l3", "C", 3.0)], "first": "l1"});
    let engine = json!({"lines": [line("e3", "C", 3.0), line("e1", "A", 1.0), line("e2", "B", 2.0)], "first": "e1"});
    let draft = json!({"ids": ["$.lines[*].id", "$.first"], "tolerance": {"$.lines[*].n": 0.5}});
    let compared = |engine: &Value| compared(&json_reply(&legacy), &json_reply(engine), &rules(draft.clone())).unwrap();
    assert_eq!(found(&compared(&engine)), [("$.lines", DifferenceKind::Order)]);
    // A value that changed with the move still shows.
    let mut changed = engine.clone();
    changed["lines"][0]["n"] = json!(9);
    let both = [("$.lines", DifferenceKind::Order), ("$.lines[*].n", DifferenceKind::Value)];
    assert_eq!(found(&compared(&changed)), both);
    let mut wrong = engine.clone();
    wrong["first"] = json!("e2");
    assert_eq!(found(&compared(&wrong)), [("$.lines", DifferenceKind::Order), ("$.first", DifferenceKind::Value)]);
}

#[test]
fn moved_elements_show_beside_other_differences_at_the_same_paths() {
    let legacy = json!({"g": [{"l": [{"n": 1}]}, {"l": [{"n": 1}, {"n": 2}]}]});
    let engine = json!({"g": [{"l": [{"n": 5}]}, {"l": [{"n": 2}, {"n": 1}]}]});
    let comparison = texts(&legacy.to_string(), &engine.to_string(), json!({}));
    assert_eq!(found(&comparison), [("$.g[*].l[*].n", DifferenceKind::Value), ("$.g[*].l", DifferenceKind::Order)]);
}

#[test]
fn moved_elements_at_every_level_are_found_in_time() {
    // At each level the array is reordered, and one element differs by a tolerated value.
    let nested = |reversed: bool| {
        let mut value = json!([{"t": 1}, {"t": 2}]);
        for n in 0..50 {
            value = if reversed { json!([n, value]) } else { json!([value, n]) };
        }
        json!({"a": value})
    };
    let steps = std::cell::Cell::new(0u32);
    let (legacy, engine) = (json_reply(&nested(false)), json_reply(&nested(true)));
    let pair = super::Pair {
        legacy: &legacy,
        engine: &engine,
        request: &Value::Null,
        effects: None,
        stale_reads: false,
        instance: None,
        sensitive: None,
    };
    let draft = rules(json!({"tolerance": {"$..t": 5}}));
    let expired = || {
        steps.set(steps.get() + 1);
        steps.get() > 1_000
    };
    let comparison = super::compare(&pair, &draft, &super::tests::BOUNDS, &expired).unwrap();
    assert!(!comparison.truncated && comparison.verdict == Verdict::Mismatch, "{}", steps.get());
}

proptest! {
    #[test]
    fn a_key_repeated_on_one_side_is_never_a_match(n in any::<i64>(), depth in 0usize..12, legacy in any::<bool>()) {
        let nest = |body: &str| format!("{}{body}{}", "{\"k\":[".repeat(depth), "]}".repeat(depth));
        let (twice, once) = (nest(&format!("{{\"x\":{n},\"x\":{n}}}")), nest(&format!("{{\"x\":{n}}}")));
        let (a, b) = if legacy { (&twice, &once) } else { (&once, &twice) };
        prop_assert_eq!(texts(a, b, json!({})).verdict, Verdict::Mismatch);
        prop_assert_eq!(texts(&twice, &twice, json!({})).verdict, Verdict::Match);
        prop_assert_eq!(texts(a, b, json!({"ignore": ["$..x"]})).verdict, Verdict::Ignored);
    }
}
