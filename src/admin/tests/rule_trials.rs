//! Samples that are judged again under other rules.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::test_api::{TestApi, get, post};
use crate::admin::types::{Diffs, SuggestedRules, TriedRules};
use crate::compare::{Body, CompareBounds, KeepContext, Observation, Pair, Rules, compare, keep};
use crate::limits::Limits;
use crate::store::SampleRecord;
use crate::store::tests::at;

fn reply(body: &Value) -> Observation {
    let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, "application/json".parse().unwrap())]);
    Observation::new(StatusCode::OK, headers, Body::Whole(Bytes::from(body.to_string())), Duration::ZERO, Vec::new())
}

/// The sample of a pair of replies, as the shadow executor stores it.
pub(super) fn sample(request: &Value, legacy: &Value, engine: &Value, n: i64) -> SampleRecord {
    let (legacy, engine) = (reply(legacy), reply(engine));
    let pair = Pair {
        legacy: &legacy,
        engine: &engine,
        effects: None,
        request,
        instance: None,
        stale_reads: false,
        sensitive: None,
    };
    let bounds = CompareBounds::of(&Limits::default());
    let rules = Rules::default();
    let comparison = compare(&pair, &rules, &bounds, &|| false).unwrap();
    let kept = keep(
        &pair,
        &KeepContext {
            request,
            earlier_ids: &[],
            rules: &rules,
            bounds: &bounds,
            sensitive: None,
            bytes_max: 9_999,
            expired: &|| false,
        },
    );
    SampleRecord {
        route: "orders.create".into(),
        fingerprint: comparison.fingerprint,
        at: at(n),
        run: None,
        differences: comparison.differences,
        legacy: String::new(),
        engine: String::new(),
        request: String::new(),
        kept: Some(kept),
        events: Vec::new(),
        events_not_kept: 0,
        children: Vec::new(),
        children_not_kept: 0,
    }
}

const TRY: &str = "/api/v2/routes/orders.create/diffs/try";

#[tokio::test]
async fn samples_are_judged_again_and_nothing_is_changed() {
    let api = TestApi::new().await;
    let of = |id: &str, total: u32| json!({ "id": id, "total": total });
    let samples = vec![
        sample(&json!({}), &of("A-1", 5), &of("B-1", 5), 1),
        sample(&json!({}), &of("A-2", 5), &of("B-2", 5), 2),
        sample(&json!({}), &of("A-3", 5), &of("B-3", 6), 3),
        SampleRecord { kept: None, fingerprint: "earlier".into(), ..sample(&json!({}), &of("A", 1), &of("B", 1), 4) },
    ];
    api.store.put_samples(samples.clone(), 9, 9).await.unwrap();
    for rules in ["ids: [$.id]", "compare:\n  ids:\n    - $.id\n"] {
        let tried = api.call(post(TRY, &json!({ "rules": rules }))).await.json();
        assert_eq!(tried["samples"], json!({ "kept": 4, "equal": 2, "differ": 1, "not_judged": 1 }));
        let tried: TriedRules = serde_json::from_value(tried).unwrap();
        let groups: Vec<_> = tried.groups.iter().map(|g| (g.before.len(), g.samples.equal, g.still.len())).collect();
        assert_eq!(groups, [(1, 2, 0), (1, 0, 0), (2, 0, 1)]);
        assert_eq!(tried.groups[0].equal_by["ids $.id"], 2);
        assert!(tried.groups[1].not_judged[0].reason.contains("earlier version"), "{:?}", tried.groups[1]);
        assert_eq!(tried.groups[2].still[0].path, "$.total");
    }
    let stored = api.store.samples("orders.create".into(), 9).await.unwrap();
    assert_eq!(stored.into_iter().rev().collect::<Vec<_>>(), samples);
}

#[tokio::test]
async fn rules_that_are_not_valid_are_refused_as_check_refuses_them() {
    let api = TestApi::new().await;
    let refused = async |rules: &str| {
        let answer = api.call(post(TRY, &json!({ "rules": rules }))).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text);
        answer.json()
    };
    let problem = refused("ids: [$.id]\nignroe: [$.a]\nassert: ['${intents.chrage.body == 1}']\n").await;
    let lines: Vec<_> = problem["reasons"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("rules:2:1: ") && lines[0].contains("did you mean `ignore`?"), "{lines:?}");
    assert!(lines[1].starts_with("rules:3:10: ") && lines[1].contains("intents.charge"), "{lines:?}");
    assert_eq!(problem["problems"][0]["line"], 2);
    let problem = refused("ids: [$.id").await;
    assert!(problem["reasons"][0].as_str().unwrap().contains("not YAML"), "{problem}");
    let answer = api.call(post(TRY, &json!({ "rules": "status: class\nignore: ['$']\nheaders: []" }))).await;
    assert!(answer.json()["warnings"][0]["message"].as_str().unwrap().contains("nothing"), "{}", answer.text);
    for rules in ["", "compare:", "{}"] {
        assert_eq!(api.call(post(TRY, &json!({ "rules": rules }))).await.status, StatusCode::OK, "{rules:?}");
    }
    let unknown = api.call(post("/api/v2/routes/orders.creat/diffs/try", &json!({ "rules": "" }))).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

const SUGGEST: &str = "/api/v2/routes/orders.create/diffs/suggestions";

#[tokio::test]
async fn rules_are_proposed_and_judged_before_they_are_shown() {
    let api = TestApi::new().await;
    let of = |id: &str, total: u32| json!({ "id": id, "total": total });
    let ids = |n: i64| (format!("ord_{n}7f3k29xq81"), format!("run_{n}8a1b22cd34"));
    let pair = |n: i64, total: u32| {
        let (legacy, engine) = ids(n);
        sample(&json!({ "path": "/orders", "body": n }), &of(&legacy, 5), &of(&engine, total), n)
    };
    api.store.put_samples(vec![pair(1, 5), pair(2, 5), pair(3, 5), pair(4, 6)], 9, 9).await.unwrap();
    let suggested: SuggestedRules = serde_json::from_value(api.call(get(SUGGEST)).await.json()).unwrap();
    assert_eq!(suggested.rules, "compare:\n  ids:\n    - \"$.id\"\n");
    assert_eq!((suggested.samples.equal, suggested.samples.differ), (3, 1));
    let [added] = &suggested.added[..] else { panic!("{suggested:?}") };
    assert_eq!((added.rule.as_str(), added.samples, added.pairs), ("compare:\n  ids:\n    - \"$.id\"\n", 4, 4));
    assert_eq!((added.hides[0].path.as_str(), added.hides[0].examples.len()), ("$.id", 3));
    let [left] = &suggested.unexplained[..] else { panic!("{suggested:?}") };
    assert_eq!((left.path.as_str(), left.samples), ("$.total", 1));
    let tried = api.call(post(TRY, &json!({ "rules": suggested.rules }))).await.json();
    assert_eq!(tried["samples"], serde_json::to_value(suggested.samples).unwrap());
}

#[tokio::test]
async fn of_equal_places_the_numbers_that_are_furthest_apart_are_shown_and_all_samples_are_there() {
    let api = TestApi::new().await;
    let of = |legacy: f64, engine: f64, n: i64| {
        sample(&json!({ "body": n }), &json!({ "total": legacy }), &json!({ "total": engine }), n)
    };
    let samples = vec![
        of(87.84, 97.6, 1),
        of(87.84, 90.1, 2),
        of(139.3, 139.299_999_999_999_98, 3),
        of(0.3, 0.300_000_000_000_000_04, 4),
    ];
    api.store.put_samples(samples, 9, 9).await.unwrap();
    let diffs = api.call(get("/api/v2/routes/orders.create/diffs")).await.json();
    let diffs: Diffs = serde_json::from_value(diffs).unwrap();
    let shown: Vec<_> = diffs.groups.iter().map(|group| group.differences[0].engine.as_deref().unwrap()).collect();
    assert_eq!(shown, ["139.29999999999998", "97.6"], "rounding is a group of its own");
    let [other] = diffs.groups[1].other_samples.as_slice() else { panic!("{:?}", diffs.groups[1]) };
    assert_eq!(other.differences[0].engine.as_deref(), Some("90.1"));
    let tried = api.call(post(TRY, &json!({ "rules": "tolerance: { $.total: 0.1 }" }))).await.json();
    let tried: TriedRules = serde_json::from_value(tried).unwrap();
    let still: Vec<_> = tried.groups.iter().flat_map(|group| &group.still).map(|d| d.engine.as_deref()).collect();
    assert_eq!(still, [Some("97.6")], "not the nearer ones of the newest sample");
}
