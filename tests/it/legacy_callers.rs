//! Who still calls legacy: clients by route, steps, and legacy's own calls; and since when nothing does, over restarts
//! and kill -9.

use http::Method;
use pointsman::demo::http::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_text};
use crate::support::{FlagsDir, Pointsman, WAIT_MAX, until};

const ROUTES: &str = "routes:\n  - id: orders\n    match: { method: GET, path: '/orders/{id}' }\n    legacy: shop\n    \
                      workflow: look\n    compare: { ignore: [$.at] }\n  \
                      - id: orders.create\n    match: { method: POST, path: /orders }\n    legacy: shop\n    workflow: look\n    \
                      instance: { creates: $.id, adopt: take, alive: { call: 'GET ${services.listing}/open', ids: '$.items[*].id' } }\n  \
                      - { id: reset, match: { method: GET, path: '/reset/{token}/{user}' }, legacy: shop }\n";
const WORKFLOW: &str =
    "workflow: look\nsteps:\n  price: { call: \"GET ${services.bank}/prices\" }\nrespond: { status: 200, body: {} }\n";

const TAKE: &str = "workflow: take\nsteps:\n  order: { call: \"GET ${services.bank}/orders/${instance.id}\" }\n\
                    legacy_passive: { reason: it bills nothing by itself }\nrespond: { status: 200, body: '${steps.order.output}' }\n";

struct System {
    _origins: [Origin; 4],
    _flags: FlagsDir,
    pointsman: Pointsman,
    client: Client,
    start: Start,
    _dir: TempDir,
}

impl System {
    async fn start() -> Self {
        let origin = || Origin::start(OriginReply::Json("{}"));
        let origins = [origin().await, origin().await, origin().await, origin().await];
        let flags = FlagsDir::empty();
        let services = format!(
            "{{ shop: {}, bank: {}, unused: {}, listing: {} }}",
            origins[0].url(),
            origins[1].url(),
            origins[2].url(),
            origins[3].url()
        );
        flags.write("pointsman.yaml", &format!("services: {services}\ndefault_legacy: shop\n"));
        flags.write("routes/orders.yaml", ROUTES);
        flags.write("workflows/look.yaml", WORKFLOW);
        flags.write("workflows/take.yaml", TAKE);
        let dir = tempfile::tempdir().expect("a directory");
        let start = Start::on_sqlite(flags.path(), dir.path());
        let pointsman = Pointsman::start(&start).await;
        Self { _origins: origins, _flags: flags, pointsman, client: Client::new(WAIT_MAX), start, _dir: dir }
    }

    async fn callers(&self, service: &str) -> Value {
        self.pointsman.get(&format!("/api/v2/services/{service}/callers")).await
    }

    async fn get(&self, path: &str) {
        let url = format!("{}{path}", self.pointsman.url());
        let reply = self.client.json(Method::GET, &url, &[], &Value::Null).await.expect("an answer");
        assert_eq!(reply.status, 200, "{path}");
    }
}

fn sources(view: &Value) -> Vec<(String, String)> {
    let callers = view["callers"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // Who looks while a call is under way finds a row for that too, which stays.
    let callers = callers.iter().filter(|caller| caller["source"] != "under way");
    let mut found: Vec<_> = callers.map(|caller| (text(&caller["source"]), text(&caller["path"]))).collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_calls_legacy_is_listed_and_silence_is_known_over_restarts() {
    let mut system = System::start().await;
    let started = system.callers("unused").await["quiet_since"].clone();
    for path in ["/orders/4012", "/orders/4013", "/reports/2026?q=1"] {
        system.get(path).await;
    }
    let shop = system.callers("shop").await;
    let expected = [("route default", "GET /reports/{}"), ("route orders", "GET /orders/{}")];
    assert_eq!(sources(&shop), expected.map(|(source, path)| (source.to_owned(), path.to_owned())), "{shop:#}");
    assert_eq!(shop["quiet_since"], shop["last_call"]);
    assert_eq!(shop["may_call"][1], "route orders (off)", "{shop:#}");
    assert_eq!(system.callers("bank").await["may_call"], json!(["step look.price", "step take.order"]));

    let request = json!({ "to": "shadow", "reason": "a test" });
    assert!(system.pointsman.api(Method::POST, "/api/v2/routes/orders/flip", request).await.status.is_success());
    system.get("/orders/4014").await;
    until("the step's call", || async {
        let expected = [("step look.price (rehearse)".to_owned(), "GET /prices".to_owned())];
        (sources(&system.callers("bank").await) == expected).then_some(())
    })
    .await;

    system.pointsman.stop().await;
    system.pointsman = Pointsman::start(&system.start).await;
    let unused = system.callers("unused").await;
    assert_eq!(unused["quiet_since"], started, "a clean restart hides no call: {unused:#}");
    assert_eq!(sources(&system.callers("shop").await).len(), 2, "kept over a restart");

    let shown = system.pointsman.cli(&["legacy", "unused", "--unused-for", "30d"]).await;
    assert_eq!(shown.status.code(), Some(1), "{}", output_text(&shown));
    let shown = system.pointsman.cli(&["legacy", "unused", "--unused-for", "1ms"]).await;
    assert!(
        shown.status.success() && output_text(&shown).contains("nothing calls it any more"),
        "{}",
        output_text(&shown)
    );
    let shown = system.pointsman.cli(&["legacy", "shopp"]).await;
    assert!(!shown.status.success() && output_text(&shown).contains("did you mean `shop`?"), "{}", output_text(&shown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_of_the_path_with_a_secret_name_is_not_listed() {
    let system = System::start().await;
    system.get("/reset/swordfish/jane").await;
    let expected = [("route reset".to_owned(), "GET /reset/{}/jane".to_owned())];
    assert_eq!(sources(&system.callers("shop").await), expected);
    let shown = system.pointsman.cli(&["legacy", "shop"]).await;
    let text = output_text(&shown);
    assert!(text.contains("GET /reset/{}/jane") && !text.contains("swordfish"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_question_which_instances_legacy_has_is_a_call_too() {
    let system = System::start().await;
    let listing = system.callers("listing").await;
    assert_eq!(listing["may_call"], json!(["the gate of orders.create to `only` (`alive:`)"]));
    let adopted = system.pointsman.cli(&["adopt", "orders.create", "--all"]).await;
    assert!(output_text(&adopted).contains("legacy did not list its instances"), "{}", output_text(&adopted));
    let listing = system.callers("listing").await;
    assert_eq!(sources(&listing), [("gate orders.create".to_owned(), "GET /open".to_owned())], "{listing:#}");
}

/// Right after the kill, not only once the killed process has been silent for long.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_silence_counts_from_the_next_start() {
    let mut system = System::start().await;
    system.get("/orders/1").await;
    let before: jiff::Timestamp = serde_json::from_value(system.callers("shop").await["now"].clone()).expect("a time");
    system.get("/orders/2").await;
    system.pointsman.kill().await;
    system.pointsman = Pointsman::start(&system.start).await;
    for service in ["shop", "unused"] {
        let view = system.callers(service).await;
        let quiet: jiff::Timestamp = serde_json::from_value(view["quiet_since"].clone()).expect("a time");
        assert!(
            quiet > before && view["unknown"].as_array().is_some_and(|list| list.len() == 1),
            "{service}: {view:#}"
        );
        assert_eq!(view["known_until"], view["now"], "no other process can use this store");
    }
    let shown = system.pointsman.cli(&["legacy", "unused", "--unused-for", "1h"]).await;
    assert!(output_text(&shown).contains("a process was killed"), "{}", output_text(&shown));
}

const CREATE: &str =
    "workflow: create\nsteps:\n  audit: { call: \"POST ${services.old}/audit\" }\nrespond: { status: 200, body: {} }\n";
const SLOW: &str = "workflow: slow\nsteps:\n  go: { wait: { signal: go } }\n  below: { needs: [go], run: below }\n  \
                    last: { needs: [below], call: \"POST ${services.old}/last\" }\nrespond:\n  \
                    - { status: 200, body: {} }\n  - pending: { status: 202, body: {} }\n";
const BELOW: &str =
    "workflow: below\nsteps:\n  audit: { call: \"POST ${services.old}/audit\" }\nrespond: { status: 200, body: {} }\n";

/// A changed workflow of a route in `live` is only a candidate, and a run keeps the plans that it began with.
#[tokio::test(flavor = "multi_thread")]
async fn plans_in_force_and_of_runs_that_have_not_ended_may_call_what_the_files_do_not_call_any_more() {
    let shop = Origin::start(OriginReply::Json("{}")).await;
    let flags = FlagsDir::empty();
    let services = format!("{{ shop: {}, old: 'http://127.0.0.1:9' }}", shop.url());
    flags.write("pointsman.yaml", &format!("services: {services}\ndefault_legacy: shop\n"));
    let route = |id: &str, workflow: &str| {
        format!("  - {{ id: {id}, match: {{ method: POST, path: /{id} }}, legacy: shop, workflow: {workflow} }}\n")
    };
    flags.write("routes/orders.yaml", &format!("routes:\n{}{}", route("orders", "create"), route("slow", "slow")));
    for (name, text) in [("create", CREATE), ("slow", SLOW), ("below", BELOW)] {
        flags.write(&format!("workflows/{name}.yaml"), text);
    }
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::on_sqlite(flags.path(), dir.path());
    let pointsman = Pointsman::start(&start).await;
    let flip = async |route: &str, to: &str| {
        let request = json!({ "to": to, "reason": "a test", "force": true });
        let reply = pointsman.api(Method::POST, &format!("/api/v2/routes/{route}/flip"), request).await;
        assert!(reply.status.is_success(), "{}", reply.json());
    };
    flip("orders", "live").await;
    flip("slow", "live").await;
    let url = format!("{}/slow", pointsman.url());
    let reply = Client::new(WAIT_MAX).json(Method::POST, &url, &[], &json!({})).await.expect("an answer");
    assert_eq!(reply.status, 202);
    flip("slow", "off").await;
    let may_call = async || pointsman.get("/api/v2/services/old/callers").await["may_call"].clone();
    assert_eq!(may_call().await, json!(["step below.audit", "step create.audit", "step slow.last"]));

    let without = |text: &str| text.replace("call: \"POST ${services.old}/audit\"", "set: 1");
    flags.write("workflows/create.yaml", &without(CREATE));
    flags.write("workflows/below.yaml", &without(BELOW));
    flags.write("workflows/slow.yaml", &SLOW.replace("call: \"POST ${services.old}/last\"", "set: 1"));
    let reloaded = pointsman.cli(&["reload"]).await;
    assert!(reloaded.status.success(), "{}", output_text(&reloaded));
    let found = may_call().await;
    let found: Vec<&str> = found.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let begins = [
        "step create.audit of the plan in force of route orders: plan_",
        "step below.audit of 1 run that has not ended: it began with plan_",
        "step slow.last of 1 run that has not ended: it began with plan_",
    ];
    assert!(found.len() == 3 && found.iter().zip(begins).all(|(line, begin)| line.starts_with(begin)), "{found:#?}");
    let shown = output_text(&pointsman.cli(&["legacy", "old"]).await);
    assert!(shown.contains(begins[0]) && !shown.contains("nothing calls it any more"), "{shown}");

    // Once these are gone, nothing is left.
    flip("orders", "off").await;
    let runs = pointsman.get("/api/v2/orchestrate/runs?route=slow").await;
    let run = runs["runs"][0]["run_id"].as_str().expect("a run").to_owned();
    let cancelled = pointsman.cli(&["runs", "cancel", &run]).await;
    assert!(cancelled.status.success(), "{}", output_text(&cancelled));
    until("nothing", || async { (may_call().await == json!([])).then_some(()) }).await;
    let shown = output_text(&pointsman.cli(&["legacy", "old"]).await);
    assert!(shown.contains("the runs that have not ended, nothing calls it any more"), "{shown}");
}
