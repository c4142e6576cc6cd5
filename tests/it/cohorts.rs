//! Cohorts from outside: the callers of a cohort go ahead of their route by the evidence of their own requests, and
//! come back when that is gone.

use http::{Method, StatusCode};
use pointsman::demo::http::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_line, output_text};
use crate::support::step_service::StepService;
use crate::support::{FlagsDir, PROMOTE_WITH_EFFECTS, Pointsman, WAIT_MAX, until};

/// The pairs that the gates of these tests want.
const PAIRS: usize = 20;

struct Shop {
    pointsman: Pointsman,
    bank: StepService,
    legacy: Origin,
    flags: FlagsDir,
    client: Client,
    _dir: TempDir,
}

fn workflow(flags: &FlagsDir, more: &str) {
    flags.write(
        "workflows/create.yaml",
        &format!(
            "workflow: create\nsteps:\n  charge: {{ call: \"POST ${{services.bank}}/charges\", body: {{ amount: 7 }}, rehearse: {{}} }}\n\
             respond: {{ status: 200, body: {{ total: \"${{default(request.body.total, 7)}}\" }}, headers: {{ x-edition: \"{more}\" }} }}\n"
        ),
    );
}

impl Shop {
    async fn start() -> Self {
        let (legacy, bank) = (Origin::start(OriginReply::Json(r#"{"total":7}"#)).await, StepService::start().await);
        let flags = FlagsDir::empty();
        let services = format!(
            "services:\n  shop: {}\n  bank: {{ urls: [\"{}\"], breaker: off }}\ndefault_legacy: shop\nexpose: true\n",
            legacy.url(),
            bank.url()
        );
        flags.write("pointsman.yaml", &format!("{services}{PROMOTE_WITH_EFFECTS}"));
        workflow(&flags, "1");
        flags.write(
            "routes/orders.yaml",
            &format!(
                "routes:\n  - id: orders\n    match: {{ method: POST, path: /orders }}\n    legacy: shop\n    workflow: create\n    \
                 key: '${{request.headers[\"x-tenant\"]}}'\n    state: shadow\n    compare: {{ headers: [] }}\n    \
                 promote: {{ pairs: {PAIRS} }}\n    cohorts:\n      \
                 - {{ name: staff, when: '${{request.headers[\"x-staff\"] == \"1\"}}', state: live }}\n"
            ),
        );
        let dir = tempfile::tempdir().expect("a directory");
        let start = Start::on_sqlite(flags.path(), dir.path());
        let pointsman = Pointsman::start(&start).await;
        Self { pointsman, bank, legacy, flags, client: Client::new(WAIT_MAX), _dir: dir }
    }

    /// Sends an order; returns which arm answered.
    async fn order(&self, is_staff: bool) -> String {
        let url = format!("{}/orders", self.pointsman.url());
        // What the others order is computed wrongly.
        let body = if is_staff { json!({}) } else { json!({ "total": 8 }) };
        let staff = [("x-tenant", "acme"), ("x-staff", "1")];
        let headers = if is_staff { &staff[..] } else { &staff[..1] };
        let reply = self.client.json(Method::POST, &url, headers, &body).await.expect("a reply");
        assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
        reply.headers["pointsman-arm"].to_str().expect("a name").to_owned()
    }

    async fn evidence(&self) -> Value {
        self.pointsman.get("/api/v2/routes/orders/evidence").await
    }

    /// Sends so many orders, and waits until all are compared.
    async fn compared(&self, staff: usize, others: usize) {
        let pairs = |evidence: &Value| {
            let count = |name: &str| evidence["evidence"][name].as_u64().expect("a count");
            usize::try_from(count("shadow_pairs") + count("dark_pairs")).expect("a count")
        };
        let before = pairs(&self.evidence().await);
        for is_staff in (0..staff).map(|_| true).chain((0..others).map(|_| false)) {
            assert_eq!(self.order(is_staff).await, "legacy");
        }
        until("the pairs", || async { (pairs(&self.evidence().await) >= before + staff + others).then_some(()) }).await;
    }

    async fn reload(&self) {
        let reload = self.pointsman.cli(&["reload"]).await;
        assert!(reload.status.success(), "{}", output_text(&reload));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cohort_goes_ahead_of_its_route_by_its_own_evidence() {
    let shop = Shop::start().await;
    shop.compared(PAIRS - 1, 3).await;
    shop.reload().await;
    let shown = output_line(&shop.pointsman.cli(&["evidence", "orders"]).await);
    assert!(shown.contains("the cohort staff is declared for live, and its requests are held at shadow"), "{shown}");
    assert!(shown.contains("needs 1 more compared pair of `staff` (19 of 20)"), "{shown}");

    // Three pairs of the others differ, which does not hold the cohort.
    shop.compared(1, 0).await;
    shop.reload().await;
    let row = &shop.evidence().await["cohorts_below"][0];
    assert_eq!((&row["name"], &row["reached"]), (&json!("staff"), &json!("dark")), "{row}");
    shop.compared(PAIRS, 3).await;
    let dark = shop.evidence().await["evidence"]["dark_pairs"].as_u64().expect("a count");
    assert_eq!(dark, 20, "the others stay in shadow");
    let calls = shop.legacy.count();
    let row = shop.evidence().await["cohorts_below"][0].clone();
    let missing = row["missing"].to_string();
    assert!(
        missing.contains("shared step") && missing.contains("charge"),
        "what the cohort cannot know holds it: {row}"
    );
    assert_eq!(shop.bank.effects("POST /charges"), 0);
    assert_eq!(shop.legacy.count(), calls);

    // It may say so itself.
    let routes = std::fs::read_to_string(shop.flags.path().join("routes/orders.yaml")).expect("a file");
    let unseen = "compare: { headers: [], effects: { charge: { unseen: a test } } }";
    shop.flags.write("routes/orders.yaml", &routes.replace("compare: { headers: [] }", unseen));
    shop.reload().await;
    // Other rules start the evidence anew.
    shop.compared(PAIRS, 3).await;
    shop.reload().await;
    shop.compared(PAIRS, 3).await;
    shop.reload().await;
    assert_eq!((shop.order(true).await.as_str(), shop.order(false).await.as_str()), ("engine", "legacy"));
    assert_eq!(shop.bank.effects("POST /charges"), 1, "by the engine alone");
    let evidence = shop.evidence().await;
    assert_eq!(evidence["cohorts_below"], json!([]));
    assert_eq!(evidence["evidence"]["engine_answers"], 0, "nobody has judged the others: no answers towards `only`");
    let status = shop.pointsman.get("/api/v2/routes/orders").await;
    assert_eq!(status["row"]["effective"]["state"], "shadow", "{status}");

    // A changed workflow has no evidence, so the cohort comes back, without a mark.
    workflow(&shop.flags, "2");
    shop.reload().await;
    assert_eq!(shop.order(true).await, "legacy");
    let status = shop.pointsman.get("/api/v2/routes/orders").await;
    assert_eq!(status["row"]["changed_since_evidence"], Value::Null, "{status}");

    // The record has each move.
    let moves = until("the record", || async {
        let entries = shop.pointsman.get("/api/v2/record").await;
        let of_cohort = |entry: &&Value| entry["kind"] == "cohort";
        let moves: Vec<Value> =
            entries["entries"].as_array().expect("entries").iter().filter(of_cohort).cloned().collect();
        (moves.len() >= 5).then_some(moves)
    });
    let moves = moves.await;
    let rung = |body: &Value, name: &str| body[name].as_str().expect("a state").to_owned();
    let steps: Vec<_> = moves.iter().map(|entry| (rung(&entry["body"], "from"), rung(&entry["body"], "to"))).collect();
    let step = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let up = [step("shadow", "dark"), step("dark", "live")];
    assert_eq!(steps, [&up[..1], &[step("dark", "shadow")], &up, &[step("live", "shadow")]].concat());
    let live = &moves[3]["body"];
    assert_eq!((&live["cohort"], &live["by"]), (&json!("staff"), &json!("evidence")));
    assert!(live["evidence"]["dark_pairs"].as_u64() >= Some(20), "{live}");
    let shown = output_text(&shop.pointsman.cli(&["record", "show"]).await);
    assert!(shown.contains("cohort staff: dark to live"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flip_down_to_off_a_freeze_and_a_changed_rule_take_a_cohort_back() {
    let shop = Shop::start().await;
    let routes = std::fs::read_to_string(shop.flags.path().join("routes/orders.yaml")).expect("a file");
    let unseen = "compare: { headers: [], effects: { charge: { unseen: a test } } }";
    shop.flags.write("routes/orders.yaml", &routes.replace("compare: { headers: [] }", unseen));
    shop.reload().await;
    for _ in 0..2 {
        shop.compared(PAIRS, 0).await;
        shop.reload().await;
    }
    assert_eq!(shop.order(true).await, "engine");
    let dark = shop.pointsman.cli(&["flip", "orders", "dark", "--force", "--reason", "a test"]).await;
    assert!(dark.status.success(), "{}", output_text(&dark));
    let down = output_text(&shop.pointsman.cli(&["flip", "orders", "shadow"]).await);
    assert!(down.contains("the cohort `staff` stays in `live`"), "{down}");
    assert_eq!(shop.order(true).await, "engine");
    let off = output_text(&shop.pointsman.cli(&["flip", "orders", "off"]).await);
    assert!(!off.contains("stays in `live`"), "{off}");
    assert_eq!(shop.order(true).await, "legacy");
    assert!(shop.pointsman.cli(&["flip", "orders", "shadow"]).await.status.success());
    assert_eq!(shop.order(true).await, "engine");
    // The engine keeps a freeze, whoever it answers.
    assert!(shop.pointsman.cli(&["freeze", "--reason", "a test"]).await.status.success());
    assert_eq!(shop.order(true).await, "legacy");
    assert!(shop.pointsman.cli(&["freeze", "--off"]).await.status.success());
    assert_eq!(shop.order(true).await, "engine");
    // Other callers are in the cohort now, of whom no request was compared.
    let routes = std::fs::read_to_string(shop.flags.path().join("routes/orders.yaml")).expect("a file");
    shop.flags.write("routes/orders.yaml", &routes.replace("[\"x-staff\"] == \"1\"", "[\"x-tenant\"] == \"acme\""));
    shop.reload().await;
    assert_eq!(shop.order(true).await, "legacy");
    assert_eq!(shop.order(false).await, "legacy");
    let row = shop.evidence().await["cohorts_below"][0].clone();
    assert_eq!(row["reached"], "shadow", "{row}");
}

/// A creator's cohort goes only where its followers answer for what it makes.
#[tokio::test(flavor = "multi_thread")]
async fn the_cohort_of_a_creator_waits_for_its_followers() {
    let shop = Shop::start().await;
    let routes = std::fs::read_to_string(shop.flags.path().join("routes/orders.yaml")).expect("a file");
    let creator = routes.replace("compare: {", "instance: { creates: $.total }\n    compare: {");
    let follower = "  - id: orders.get\n    match: { method: GET, path: '/orders/{id}' }\n    legacy: shop\n    \
                    workflow: get\n    state: shadow\n    instance: { follows: orders, key: path.id }\n    cohorts:\n      \
                    - { name: staff, when: '${request.headers[\"x-staff\"] == \"1\"}', state: live }\n";
    shop.flags.write("routes/orders.yaml", &format!("{creator}{follower}"));
    shop.flags.write(
        "workflows/get.yaml",
        "workflow: get\nsteps: { at: { set: { ok: true } } }\nrespond: { status: 200, body: { total: 7 } }\n",
    );
    shop.reload().await;
    shop.compared(PAIRS, 0).await;
    shop.reload().await;
    let reached = || async { shop.evidence().await["cohorts_below"][0].clone() };
    assert_eq!(reached().await["reached"], "dark", "in shadow a follower has nothing to be compared with");
    shop.compared(PAIRS, 0).await;
    shop.reload().await;
    let row = reached().await;
    let missing = row["missing"].to_string();
    assert!(row["reached"] == "dark" && missing.contains("has no cohort `staff` that reached `live`"), "{row}");
    assert_eq!(shop.order(true).await, "legacy");
}
