//! Metrics that nothing else reads by value: what requests lacked, what cohorts and steps had trouble with, and what the
//! gauges of a route say.

use http::Method;
use pointsman::demo::http::Client;
use serde_json::json;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_text};
use crate::support::step_service::{ScriptedReply, StepService};
use crate::support::{FlagsDir, Metrics, Pointsman, WAIT_MAX};

const ROUTE: [(&str, &str); 1] = [("route", "orders")];

fn close(value: f64, expected: f64) -> bool {
    (value - expected).abs() < 1e-9
}

#[tokio::test(flavor = "multi_thread")]
async fn what_requests_lack_and_what_is_tried_again_is_counted_and_gauges_say_where_a_route_is() {
    let (legacy, prices) = (Origin::start(OriginReply::Json(r#"{"total":7}"#)).await, StepService::start().await);
    let flags = FlagsDir::empty();
    flags.write(
        "pointsman.yaml",
        &format!(
            "services:\n  shop: {}\n  prices: {{ urls: [\"{}\"], breaker: off }}\ndefault_legacy: shop\n",
            legacy.url(),
            prices.url()
        ),
    );
    flags.write(
        "workflows/quote.yaml",
        "workflow: quote\nsteps:\n  price: { call: \"GET ${services.prices}/quotes\", retry: { attempts: 3, base: 1ms } }\n\
         respond: { status: 200, body: { total: \"${steps.price.output.total}\" } }\n",
    );
    flags.write(
        "routes/orders.yaml",
        "routes:\n  - id: orders\n    match: { method: POST, path: /orders }\n    legacy: shop\n    workflow: quote\n    \
         key: '${request.headers[\"x-tenant\"]}'\n    state: dark\n    force: { reason: a test }\n    percent: { shadow: 100, dark: 40 }\n    \
         compare: { headers: [] }\n    promote: { pairs: 3, strata_by: '${request.headers[\"x-staff\"]}' }\n    cohorts:\n      \
         - { name: staff, when: '${int(request.headers[\"x-staff\"]) > 3}', state: dark, force: { reason: a test } }\n",
    );
    let dir = tempfile::tempdir().expect("a directory");
    let mut pointsman = Pointsman::start(&Start::in_memory(flags.path(), dir.path())).await;
    prices.set_default("GET /quotes", ScriptedReply::Done(200, json!({ "total": 7 })));
    // Twice nothing, then the price: two more attempts.
    prices.script("GET /quotes", ScriptedReply::Refuse(503), 2);
    let client = Client::new(WAIT_MAX);
    let url = format!("{}/orders", pointsman.url());
    let tenant = ("x-tenant", "acme");
    // Of these four, one has no value of the key, and the rule of the cohort fails for two.
    for headers in [&[tenant, ("x-staff", "1")][..], &[tenant, ("x-staff", "many")], &[tenant], &[("x-staff", "2")]] {
        let reply = client.json(Method::POST, &url, headers, &json!({})).await.expect("a reply");
        assert_eq!(reply.status, 200);
    }
    let is_four = |metrics: &Metrics, name: &str| close(metrics.sum(name, &ROUTE), 4.0);
    let is_compared =
        |metrics: &Metrics| is_four(metrics, "pointsman_evidence_pairs") && is_four(metrics, "pointsman_offered_total");
    let metrics = pointsman.until_metric("four pairs", is_compared).await;
    let of_route = |name: &str| metrics.sum(name, &ROUTE);
    assert!(close(of_route("pointsman_unkeyed_total"), 1.0), "{}", of_route("pointsman_unkeyed_total"));
    assert!(close(of_route("pointsman_cohort_errors_total"), 2.0), "{}", of_route("pointsman_cohort_errors_total"));
    let of_strata = of_route("pointsman_stratum_errors_total");
    assert!(close(of_strata, 1.0), "the header is absent once: {of_strata}");
    let evidence = pointsman.get("/api/v2/routes/orders/evidence").await;
    for kind in ["POST 2xx", "POST 2xx \"1\"", "POST 2xx \"2\"", "POST 2xx \"many\""] {
        assert_eq!(evidence["evidence"]["strata"][kind]["served"], 1, "{kind}: {evidence}");
    }
    let step = [("workflow", "quote"), ("step", "price")];
    assert!(close(metrics.sum("pointsman_step_retries_total", &step), 2.0));
    assert!(close(of_route("pointsman_evidence_coverage"), 1.0));
    // None of four differs: the bound is between what four pairs can show and 1.
    let bound = of_route("pointsman_evidence_mismatch_upper_bound");
    assert!(bound > 0.4 && bound < 1.0, "{bound}");
    assert!(close(of_route("pointsman_flag_share"), 0.4));
    assert!(close(metrics.sum("pointsman_flags_last_reload_successful", &[]), 1.0));
    let down = pointsman.cli(&["flip", "orders", "shadow"]).await;
    assert!(down.status.success(), "{}", output_text(&down));
    flags.write("routes/orders.yaml", "routes: [");
    let is_refused = |metrics: &Metrics| close(metrics.sum("pointsman_flags_last_reload_successful", &[]), 0.0);
    let metrics = pointsman.until_metric("a refused reload", is_refused).await;
    assert!(close(metrics.sum("pointsman_flag_share", &ROUTE), 1.0), "that of `shadow`");
    assert_eq!(pointsman.stop().await, Some(0));
}
