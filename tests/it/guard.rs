//! The guard from outside: it lowers a route within the named number of requests and a second, tells people, keeps that
//! over a restart, and returns the route by hand or by clean evidence. A shared effect is performed by exactly one arm
//! meanwhile.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use pointsman::demo::http::{Client, Reply};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_text};
use crate::support::step_service::{ScriptedReply, StepService};
use crate::support::{FlagsDir, PROMOTE, Pointsman, WAIT_MAX, until};

/// How many requests that all fail it takes to act.
pub(super) const OUTAGE: usize = 5;

const LEGACY_REPLY: &str = r#"{"total":7}"#;

/// One route `orders`, whose workflow reads a rate and charges.
pub(super) struct Orders {
    pub(super) legacy: Origin,
    pub(super) bank: StepService,
    ops: Origin,
    pub(super) flags: FlagsDir,
    pub(super) pointsman: Pointsman,
    client: Client,
    start: Start,
    _dir: TempDir,
}

impl Orders {
    /// `route`: more keys of the route, which the file puts in `live`.
    pub(super) async fn start(route: &str) -> Self {
        let (legacy, ops) =
            (Origin::start(OriginReply::Json(LEGACY_REPLY)).await, Origin::start(OriginReply::Json("{}")).await);
        let bank = StepService::start().await;
        let flags = FlagsDir::empty();
        let services = format!(
            "services:\n  shop: {}\n  bank: {{ urls: [\"{}\"], breaker: off }}\n  ops: {}\ndefault_legacy: shop\nexpose: true\n",
            legacy.url(),
            bank.url(),
            ops.url()
        );
        flags.write("pointsman.yaml", &format!("{services}{PROMOTE}"));
        workflow(&flags, 7);
        let key = "key: '${request.headers[\"x-tenant\"]}'";
        flags.write(
            "routes/orders.yaml",
            &format!(
                "routes:\n  - id: orders\n    match: {{ method: POST, path: /orders }}\n    legacy: shop\n    workflow: create\n    \
                 {key}\n    state: live\n    force: {{ reason: a test }}\n    {route}\n"
            ),
        );
        let dir = tempfile::tempdir().expect("a directory");
        let start = Start::on_sqlite(flags.path(), dir.path());
        let pointsman = Pointsman::start(&start).await;
        Self { legacy, bank, ops, flags, pointsman, client: Client::new(WAIT_MAX), start, _dir: dir }
    }

    pub(super) fn fail_rates(&self, fail: bool) {
        let reply = if fail { ScriptedReply::Refuse(500) } else { ScriptedReply::Done(200, json!({ "rate": 1 })) };
        self.bank.set_default("GET /rate", reply);
    }

    pub(super) async fn order(&self, tenant: usize) -> Reply {
        let url = format!("{}/orders", self.pointsman.url());
        let tenant = tenant.to_string();
        self.client.json(Method::POST, &url, &[("x-tenant", tenant.as_str())], &json!({})).await.expect("a reply")
    }

    /// Sends a request, which has to be answered by this arm.
    async fn answered_by(&self, arm: &str) {
        let reply = self.order(1).await;
        let by = reply.headers.get("pointsman-arm").and_then(|arm| arm.to_str().ok());
        assert_eq!((reply.status, by), (StatusCode::OK, Some(arm)), "{:?}", reply.body);
    }

    pub(super) async fn row(&self) -> Value {
        self.pointsman.get("/api/v2/routes/orders").await["row"].clone()
    }

    pub(super) async fn effective(&self) -> Value {
        self.row().await["effective"].clone()
    }

    pub(super) async fn until_effective(&self, state: &str) {
        until("the state", || async { (self.effective().await["state"] == state).then_some(()) }).await;
    }

    pub(super) async fn restart(&mut self) {
        assert_eq!(self.pointsman.stop().await, Some(0));
        self.pointsman = Pointsman::start(&self.start).await;
    }

    pub(super) async fn kill_and_restart(&mut self) {
        self.pointsman.kill().await;
        self.pointsman = Pointsman::start(&self.start).await;
    }

    /// How many requests legacy has got.
    pub(super) fn legacy_answers(&self) -> usize {
        self.legacy.count()
    }

    /// The messages to the webhook.
    fn messages(&self) -> Vec<Value> {
        let seen = self.ops.seen();
        seen.iter().map(|message| serde_json::from_slice(&message.body).expect("JSON")).collect()
    }

    async fn until_message(&self, event: &str) -> Value {
        until("the message", || async { self.messages().into_iter().find(|message| message["event"] == event) }).await
    }

    pub(super) fn charges(&self) -> usize {
        self.bank.seen("POST /charges").len()
    }
}

fn workflow(flags: &FlagsDir, total: u64) {
    flags.write(
        "workflows/create.yaml",
        &format!(
            "workflow: create\nsteps:\n  rate: {{ call: \"GET ${{services.bank}}/rate\", retry: {{ attempts: 1 }} }}\n  \
             charge: {{ call: \"POST ${{services.bank}}/charges\", needs: [rate], body: {{ amount: {total} }}, rehearse: {{}} }}\n\
             respond: {{ status: 200, body: {{ total: {total} }} }}\n"
        ),
    );
}

/// Nobody gets an answer, and so no error either: the clients give up before the engine does.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_for_longer_than_its_clients_wait_is_lowered() {
    let orders = Orders::start("guard: { errors: 1% }").await;
    orders.bank.set_default("GET /rate", ScriptedReply::Late(WAIT_MAX));
    let impatient = Client::new(Duration::from_millis(1_100));
    let url = format!("{}/orders", orders.pointsman.url());
    for _ in 0..OUTAGE {
        impatient.json(Method::POST, &url, &[], &json!({})).await.expect_err("no reply in time");
    }
    orders.until_effective("dark").await;
    let row = orders.row().await;
    assert_eq!((&row["guard"]["condition"], &row["guard"]["bad"]), (&json!("errors"), &json!(OUTAGE)));
    let evidence = orders.pointsman.get("/api/v2/routes/orders/evidence").await;
    assert_eq!(evidence["evidence"]["engine_errors"], OUTAGE, "{evidence}");
    assert_eq!((orders.charges(), orders.legacy.count()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_in_live_lower_the_route_and_a_person_releases_it() {
    let mut orders = Orders::start("guard: { errors: 1%, notify: '${services.ops}/hooks' }").await;
    for _ in 0..3 {
        orders.answered_by("engine").await;
    }
    assert_eq!((orders.charges(), orders.legacy.count()), (3, 0));
    orders.fail_rates(true);
    for _ in 0..OUTAGE - 1 {
        orders.answered_by("legacy").await; // the fallback
    }
    assert_eq!(orders.effective().await["state"], "live", "fewer are no reason to act");
    orders.answered_by("legacy").await;
    let crossed = Instant::now();
    orders.until_effective("dark").await;
    assert!(crossed.elapsed() < Duration::from_secs(1), "{:?}", crossed.elapsed());
    let row = orders.row().await;
    assert_eq!((&row["requested"], &row["effective"]["why"]), (&json!("live"), &json!("guard")));
    let guard = &row["guard"];
    assert_eq!((&guard["condition"], &guard["bad"], &guard["limit"]), (&json!("errors"), &json!(5), &json!("dark")));

    let metrics = orders.pointsman.metrics().await;
    let labels = [("route", "orders"), ("condition", "errors")];
    assert_eq!(metrics.sum("pointsman_guard_actions_total", &labels), 1.0);
    assert_eq!(metrics.sum("pointsman_guard_latched", &[("route", "orders")]), 1.0);
    assert_eq!(metrics.sum("pointsman_flag_state", &[("route", "orders"), ("kind", "effective")]), 2.0);
    let message = orders.until_message("lowered").await;
    assert_eq!(
        (&message["route"], &message["from"], &message["to"]),
        (&json!("orders"), &json!("live"), &json!("dark"))
    );
    let callers = orders.pointsman.get("/api/v2/services/ops/callers").await;
    let (source, path) = (&callers["callers"][0]["source"], &callers["callers"][0]["path"]);
    assert_eq!((source, path), (&json!("notify"), &json!("POST /hooks")), "{callers}");
    let flips = orders.pointsman.get("/api/v2/flips?route=orders").await;
    let first = &flips[0];
    assert_eq!(
        (&first["by"], &first["guard"], &first["route"]),
        (&json!("guard"), &json!("lowered"), &json!("orders"))
    );
    assert!(orders.pointsman.log().contains("the guard has lowered this route"), "{}", orders.pointsman.log());
    let status = output_text(&orders.pointsman.cli(&["status"]).await);
    assert!(status.contains("the guard keeps it at dark since") && status.contains("lowered by the guard"), "{status}");
    let evidence = output_text(&orders.pointsman.cli(&["evidence", "orders"]).await);
    assert!(evidence.contains("THE GUARD COUNTS") && evidence.contains("5 in a row"), "{evidence}");

    orders.fail_rates(false);
    orders.answered_by("legacy").await;
    orders.restart().await;
    assert_eq!(orders.effective().await, json!({ "state": "dark", "why": "guard" }));
    orders.answered_by("legacy").await;
    let repeated = |of: &Orders| of.messages().into_iter().find(|again| again["repeated"] == true);
    let again = until("the message again", || async { repeated(&orders) }).await;
    assert_eq!(again["id"], message["id"]);
    assert_eq!(orders.charges(), 3, "below `live` the engine charges nothing");

    let refused = orders.pointsman.cli(&["flip", "orders", "live"]).await;
    assert!(!refused.status.success() && output_text(&refused).contains("the guard keeps `orders` at `dark`"));
    let released = orders.pointsman.cli(&["guard", "release", "orders", "--reason", "the bank is back"]).await;
    assert!(released.status.success(), "{}", output_text(&released));
    orders.answered_by("engine").await;
    assert_eq!(orders.until_message("released").await["reason"], "the bank is back");
    let metrics = orders.pointsman.metrics().await;
    assert_eq!(metrics.sum("pointsman_guard_latched", &[("route", "orders")]), 0.0);
    let verified = || async {
        let verified = orders.pointsman.cli(&["record", "verify"]).await;
        (verified.status.success() && output_text(&verified).contains("the record is intact")).then_some(())
    };
    until("the record of what the guard did to hold", verified).await;
    orders.restart().await;
    orders.answered_by("engine").await;
    assert_eq!(orders.charges(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn clean_evidence_returns_the_route() {
    let orders = Orders::start("guard: { errors: 1%, release: evidence }").await;
    orders.fail_rates(true);
    for _ in 0..OUTAGE {
        orders.answered_by("legacy").await;
    }
    orders.until_effective("dark").await;
    // The cause is still there.
    for _ in 0..3 {
        orders.answered_by("legacy").await;
    }
    orders.fail_rates(false);
    for tenant in 0..60 {
        orders.order(tenant).await;
    }
    orders.until_effective("live").await;
    orders.answered_by("engine").await;
    let flips = orders.pointsman.get("/api/v2/flips?route=orders").await;
    let first = &flips[0];
    assert_eq!((&first["by"], &first["guard"], &first["to"]), (&json!("guard"), &json!("released"), &json!("live")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_in_only_is_not_lowered_and_people_are_told() {
    let route = "guard: { errors: 1%, notify: '${services.ops}/hooks' }";
    let orders = Orders::start(route).await;
    let to_only = json!({ "to": "only", "force": true, "reason": "a test" });
    let flipped = orders.pointsman.api(Method::POST, "/api/v2/routes/orders/flip", to_only).await;
    assert_eq!(flipped.status, StatusCode::OK, "{}", flipped.json());
    orders.fail_rates(true);
    for _ in 0..4 * OUTAGE {
        let reply = orders.order(1).await;
        assert!(reply.status.is_server_error(), "{}", reply.status);
    }
    let message = orders.until_message("alerted").await;
    assert_eq!((&message["from"], &message["to"]), (&json!("only"), &json!("only")));
    assert_eq!(orders.effective().await, json!({ "state": "only", "why": "requested" }));
    assert_eq!(orders.row().await["guard"]["action"], "alerted");
    let metrics = orders.pointsman.metrics().await;
    assert_eq!(metrics.sum("pointsman_guard_actions_total", &[("route", "orders")]), 1.0, "one alarm");
    assert_eq!((orders.legacy.count(), orders.messages().len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_of_callers_outside_the_share_of_live_lower_the_route() {
    let orders = Orders::start("percent: { live: 50 }\n    guard: { mismatch: 1% }").await;
    workflow(&orders.flags, 8);
    orders.pointsman.put_candidate_in_force("orders").await;
    for tenant in 0..40 {
        orders.order(tenant).await;
    }
    orders.until_effective("dark").await;
    assert_eq!(orders.row().await["guard"]["condition"], "mismatch");
    assert_eq!(orders.order(1).await.json()["total"], 7, "legacy answers");
    let path = "/api/v2/routes/orders/guard/release";
    let without = orders.pointsman.api(Method::POST, path, json!({ "reason": " " })).await;
    assert!(without.status.is_client_error(), "{}", without.json());
    let released = orders.pointsman.api(Method::POST, path, json!({ "reason": "meant" })).await;
    assert_eq!(released.status, StatusCode::OK, "{}", released.json());
    assert!(released.json()["still_shut"].as_array().is_some_and(|shut| !shut.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_a_candidate_that_is_taken_away_is_posted_and_counted() {
    let orders = Orders::start("guard: { errors: 1%, notify: '${services.ops}/hooks' }").await;
    orders.answered_by("engine").await;
    let in_force = orders.row().await["plan"].clone();
    // It fails before it has sent anything.
    let broken = "workflow: create\nsteps: { broken: { fail: { status: 500, body: {} } } }\nrespond: { status: 200 }\n";
    orders.flags.write("workflows/create.yaml", broken);
    let run = async |arguments: &[&str]| {
        let done = orders.pointsman.cli(arguments).await;
        assert!(done.status.success(), "{}", output_text(&done));
    };
    run(&["reload"]).await;
    let candidate = orders.row().await["candidate"]["plan"].clone();
    run(&["flip", "orders", "--candidate", "live", "--percent", "100", "--force", "--reason", "a drill"]).await;
    for _ in 0..OUTAGE {
        orders.order(1).await;
    }
    let message = orders.until_message("candidate_stopped").await;
    let told = ["route", "from", "to", "candidate", "in_force", "by"].map(|name| message[name].clone());
    assert_eq!(told, [json!("orders"), json!("live 100%"), json!("shadow"), candidate, in_force, json!("guard")]);
    assert!(message["reason"].as_str().is_some_and(|why| why.contains("ended with an error")), "{message}");
    let metrics = orders.pointsman.metrics().await;
    assert_eq!(metrics.sum("pointsman_candidate_guard_actions_total", &[("route", "orders")]), 1.0);
    assert_eq!(orders.row().await["candidate"]["share"], 0.0);
    orders.answered_by("engine").await;
}
