//! Properties that hold for any pair.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::tests::{compared, json_reply, reply, rules};
use super::*;

pub(super) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1_000_000i64..1_000_000, 0u32..6)
            .prop_map(|(n, e)| serde_json::from_str(&format!("{n}e-{e}")).unwrap_or(Value::Null)),
        "[a-z0-9/_. -]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec(("[a-z]{1,4}", inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Changes the scalar with the index `which` in a value; returns false if the value has fewer scalars.
fn mutate(value: &mut Value, which: &mut usize) -> bool {
    match value {
        Value::Array(items) => items.iter_mut().any(|item| mutate(item, which)),
        Value::Object(map) => map.iter_mut().any(|(_, item)| mutate(item, which)),
        scalar if *which == 0 => {
            *scalar = match &*scalar {
                Value::String(text) => Value::from(format!("{text}!")),
                Value::Bool(b) => Value::from(!*b),
                _ => Value::from("changed"),
            };
            true
        }
        _ => {
            *which -= 1;
            false
        }
    }
}

fn scalars(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(scalars).sum(),
        Value::Object(map) => map.values().map(scalars).sum(),
        _ => 1,
    }
}

fn verdict(legacy: &Value, engine: &Value, rules: &Rules) -> Verdict {
    compared(&json_reply(legacy), &json_reply(engine), rules).unwrap().verdict
}

proptest! {
    #[test]
    fn a_body_matches_itself(body in any_json()) {
        for rules in [Rules::default(), rules(json!({"ids": ["$..id", "$.*"], "unordered": {"$..*": "set"}}))] {
            prop_assert_eq!(verdict(&body, &body, &rules), Verdict::Match);
        }
    }

    #[test]
    fn the_verdict_is_symmetric(a in any_json(), b in any_json(), rule in 0..3) {
        let rules = rules(match rule {
            0 => json!({}),
            1 => json!({"ids": ["$.*", "$..a"], "tolerance": {"$..b": 5}}),
            _ => json!({"unordered": {"$": "set", "$.*": "a"}, "ignore": ["$..c"]}),
        });
        prop_assert_eq!(verdict(&a, &b, &rules), verdict(&b, &a, &rules));
    }

    #[test]
    fn one_change_is_found(body in any_json(), which in any::<prop::sample::Index>()) {
        let scalars = scalars(&body);
        prop_assume!(scalars > 0);
        let mut changed = body.clone();
        mutate(&mut changed, &mut which.index(scalars));
        prop_assert_eq!(verdict(&body, &changed, &Rules::default()), Verdict::Mismatch);
        prop_assert_eq!(verdict(&body, &changed, &rules(json!({"ignore": ["$"]}))), Verdict::Ignored);
    }

    #[test]
    fn a_permutation_matches_where_order_does_not_matter(
        items in prop::collection::vec(any_json(), 0..8).prop_flat_map(|v| (Just(v.clone()), Just(v).prop_shuffle()))
    ) {
        let (a, b) = (json!({"list": items.0}), json!({"list": items.1}));
        let set = rules(json!({"unordered": {"$.list": "set"}}));
        prop_assert_ne!(verdict(&a, &b, &set), Verdict::Mismatch);
        let comparison = compared(&json_reply(&a), &json_reply(&b), &Rules::default()).unwrap();
        prop_assert!(comparison.differences.iter().all(|d| d.kind == DifferenceKind::Order), "{:?}", comparison);
    }

    #[test]
    fn renamed_ids_match_and_a_wrong_reference_does_not(
        count in 2usize..10, refers in prop::collection::vec(any::<prop::sample::Index>(), 1..8), off in 1usize..9,
    ) {
        let rules = rules(json!({"ids": ["$.rows[*].id", "$.refs[*].row"]}));
        let body = |prefix: &str, wrong: usize| {
            let rows: Vec<Value> = (0..count).map(|n| json!({"id": format!("{prefix}{n}"), "n": n})).collect();
            let refs: Vec<Value> = refers.iter().enumerate().map(|(at, r)| {
                let row = (r.index(count) + if at == 0 { wrong } else { 0 }) % count;
                json!({"row": format!("{prefix}{row}"), "href": format!("/rows/{prefix}{row}")})
            }).collect();
            json!({"refs": refs, "rows": rows})
        };
        prop_assert_eq!(verdict(&body("legacy-", 0), &body("e_", 0), &rules), Verdict::Ignored);
        let off = 1 + off % (count - 1);
        prop_assert_eq!(verdict(&body("legacy-", 0), &body("e_", off), &rules), Verdict::Mismatch);
        prop_assert_eq!(verdict(&body("legacy-", 0), &body("legacy-", off), &rules), Verdict::Mismatch);
    }

    #[test]
    fn no_bytes_make_a_comparison_panic(
        a in prop::collection::vec(any::<u8>(), 0..200), b in prop::collection::vec(any::<u8>(), 0..200),
        kind in prop::sample::select(vec!["application/json", "text/html", "image/png", ""]),
        coding in prop::sample::select(vec!["gzip", "deflate", "br", "zstd", "identity, gzip"]),
    ) {
        let rules = rules(json!({"ids": ["$..*"], "unordered": {"$..*": "set"}, "tolerance": {"$..a": "2s"}}));
        let headers = [("content-type", kind), ("content-encoding", coding)];
        for headers in [&headers[..], &headers[..1]] {
            let _ = compared(&reply(200, headers, a.clone()), &reply(200, &headers[..1], b.clone()), &rules);
        }
        let mut json = b"{\"a\":".to_vec();
        json.extend(&a);
        let _ = compared(&reply(200, &headers[..1], json), &reply(200, &headers[..1], b), &rules);
    }

    #[test]
    fn redaction_hides_values_under_a_secret_key(body in any_json()) {
        let hidden = redact(&json!({"deep": [{"api_key": body.clone(), "rest": 1}]}));
        let shown = if body.is_null() { Value::Null } else { json!("***") };
        prop_assert_eq!(hidden, json!({"deep": [{"api_key": shown, "rest": 1}]}));
    }
}
