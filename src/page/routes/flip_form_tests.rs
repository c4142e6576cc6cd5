//! Tests of the form that moves a route.

use serde_json::json;

use super::*;

fn data(requested: &str, horizon: &[&str]) -> RouteData {
    let row = json!({
        "id": "orders.create", "matches": "POST /orders", "legacy": "shop", "workflow": "w", "follows": null,
        "requested": requested, "effective": { "state": requested, "why": "requested" },
        "shares": { "shadow": 100.0, "dark": 20.0, "live": 10.0 },
        "pairs": 0, "mismatched": 0, "requests": 1234, "overhead_p50_us": null,
    });
    let mut follower = row.clone();
    (follower["id"], follower["follows"]) = (json!("orders.cancel"), json!("orders.create"));
    let status = json!({
        "build": { "version": "1", "started": "2026-12-01T12:00:00Z" }, "listen": "", "freeze": "no",
        "flags": { "generation": 1, "age_s": 1.0, "last_error": null, "warnings": [] },
        "engine_healthy": true, "runs_in_flight": 0, "runs": null,
        "shadow": { "queue_depth": 0, "in_flight": 0 }, "routes": [row, follower],
    });
    let evidence = crate::admin::types::RouteEvidence::default();
    let condition = json!({ "name": "pairs", "verdict": "inconclusive", "detail": "needs 900 more pairs" });
    let next = json!({ "to": "dark", "verdict": "inconclusive", "missing": ["needs 900 more pairs"], "conditions":
        [condition] });
    let next = if requested == "shadow" { next } else { json!(null) };
    let view = json!({ "route": "orders.create", "evidence": evidence, "next": next });
    let detail = json!({
        "row": row, "declared": requested, "flip": null, "next": next, "horizon": horizon, "pins": {}, "evidence":
        evidence,
    });
    RouteData {
        status: serde_json::from_value(status).unwrap(),
        row: serde_json::from_value(row).unwrap(),
        detail: Ok(serde_json::from_value(detail).unwrap()),
        evidence: Ok(serde_json::from_value(view).unwrap()),
    }
}

fn shown(data: &RouteData, typed: &Typed, problem: Option<&ApiProblem>, may_flip: bool) -> String {
    let frame = Frame { viewer: None, form_key: "key".into(), path: "/routes/x/flip".into(), part: "routes" };
    content(&frame, data, typed, problem, may_flip).into_string()
}

#[test]
fn the_gate_and_the_horizon_stand_before_the_button() {
    let page = shown(&data("shadow", &["the engine owns 3 instances"]), &Typed::default(), None, true);
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}: {page}"));
    assert!(at("needs 900 more pairs") < at("the engine owns 3 instances"));
    assert!(at("the engine owns 3 instances") < at("Who is affected") && at("Who is affected") < at("<button"));
    assert!(at("orders.cancel (shadow)") < at("<form"));
    // The forms are in no element that the script replaces.
    let forms = &page[at("<form")..];
    assert!(!forms.contains("data-live"), "{forms}");
}

#[test]
fn rungs_above_the_next_one_cannot_be_chosen() {
    let page = shown(&data("shadow", &[]), &Typed::default(), None, true);
    let input = |rung: &str| {
        let at = page.find(&format!("id=\"to-{rung}\"")).unwrap();
        page[at..].split('>').next().unwrap()
    };
    assert!(!input("dark").contains("disabled") && !input("off").contains("disabled"));
    assert!(input("live").contains("disabled") && input("only").contains("disabled"));
    assert!(page.contains("first to dark"), "{page}");
}

#[test]
fn nothing_that_was_typed_is_lost_when_it_is_refused() {
    let mut refused = crate::page::client::problem(http::StatusCode::CONFLICT, "the gate is shut");
    refused.reasons = vec!["needs <900> pairs".into()];
    refused.commands = vec!["pointsman flip orders.create shadow".into()];
    let typed = Typed {
        to: "dark".into(),
        percent: "12.5".into(),
        reason: "</textarea><script>x</script>".into(),
        has_read: false,
        confirmed: None,
    };
    let page = shown(&data("shadow", &[]), &typed, Some(&refused), true);
    for text in [
        "needs &lt;900&gt; pairs",
        "<code>pointsman flip orders.create shadow</code>",
        "value=\"12.5\"",
        "&lt;/textarea&gt;&lt;script&gt;",
        "value=\"dark\" required checked",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(!page.contains("<script") && !page.contains("details class=\"force\" id=\"force\" open"), "{page}");
    let forced = Typed { confirmed: Some("orders".into()), ..typed };
    let page = shown(&data("shadow", &[]), &forced, Some(&refused), true);
    assert!(page.contains("id=\"force\" open") && page.contains("value=\"orders\""), "{page}");
}

#[test]
fn leaving_only_asks_for_an_acknowledgement() {
    assert!(shown(&data("only", &[]), &Typed::default(), None, true).contains("name=\"acknowledge\""));
    assert!(!shown(&data("shadow", &[]), &Typed::default(), None, true).contains("name=\"acknowledge\""));
}

#[test]
fn without_the_scope_there_is_no_button() {
    let page = shown(&data("shadow", &[]), &Typed::default(), None, false);
    assert!(!page.contains("<button") && !page.contains("<form"), "{page}");
    assert!(page.contains("a token with the scope <code>flip</code> is needed"), "{page}");
}

/// The horizon is in the store, and a route has to be moved down without it too.
#[test]
fn without_the_store_the_form_is_shown_all_the_same() {
    let mut away = data("live", &[]);
    away.detail = Err(Box::new(crate::page::client::problem(http::StatusCode::SERVICE_UNAVAILABLE, "disk full")));
    let page = shown(&away, &Typed::default(), None, true);
    assert!(page.contains("A flip down works all the same") && page.contains("disk full"), "{page}");
    assert!(page.contains("<button"), "{page}");
}
