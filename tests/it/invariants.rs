//! Invariants and reverse comparisons from outside: what the engine answers in `live` is judged after its caller has it,
//! shown, held against the gate to `only`, and lowers the route; legacy is asked afterwards what it would have answered.

use http::{Method, StatusCode};
use pointsman::demo::http::{Client, Reply};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_text};
use crate::support::step_service::{ScriptedReply, StepService};
use crate::support::{FlagsDir, PROMOTE, Pointsman, WAIT_MAX, until};

/// Charges, once more if the request says so, and by an invoice if the bank certainly did nothing.
const CREATE: &str = r#"workflow: create
steps:
  charge:
    call: POST ${services.bank}/charges
    body: { amount: "${request.body.amount}" }
    retry: { attempts: 1 }
    fallback: invoice
    rehearse: {}
  invoice: { call: "POST ${services.bank}/invoices", body: { amount: 1 }, fallback_only: true, rehearse: {} }
  again:
    if: ${default(request.body.twice, false)}
    needs: [charge]
    run: pay
respond: { status: 200, body: { total: "${request.body.amount}" } }
"#;
const PAY: &str = r#"workflow: pay
respond: { status: 200, body: {} }
steps: { charge: { call: "POST ${services.bank}/charges", body: { amount: 1 }, rehearse: {} } }
"#;
const INVARIANTS: &str = r#"invariants:
      at most one charge: ${size(effects("charge")) + size(effects("again/charge")) + size(effects("invoice")) == 1}
      the total is what was asked for: { that: "${reply.body.total == request.body.amount}", when: "${reply.status == 200}" }
      it ends: ${run.status == "completed"}
    "#;

struct Shop {
    pointsman: Pointsman,
    legacy: Origin,
    bank: StepService,
    client: Client,
    start: Start,
    _flags: FlagsDir,
    _dir: TempDir,
}

impl Shop {
    /// The route in `live`, with more of its keys.
    async fn start(route: &str) -> Self {
        let (legacy, bank) = (Origin::start(OriginReply::Json(r#"{"total":7}"#)).await, StepService::start().await);
        let flags = FlagsDir::empty();
        let services = format!(
            "services:\n  shop: {}\n  bank: {{ urls: [\"{}\"], breaker: off }}\ndefault_legacy: shop\nexpose: true\n",
            legacy.url(),
            bank.url()
        );
        flags.write("pointsman.yaml", &format!("{services}{PROMOTE}"));
        flags.write("workflows/create.yaml", CREATE);
        flags.write("workflows/pay.yaml", PAY);
        flags.write(
            "workflows/quote.yaml",
            "workflow: quote\nsteps: { read: { call: \"GET ${services.bank}/quotes/${request.params.id}\" } }\n\
             respond: { status: 200, body: \"${steps.read.output}\" }\n",
        );
        flags.write("routes/routes.yaml", &format!("routes:\n{route}"));
        let dir = tempfile::tempdir().expect("a directory");
        let start = Start::on_sqlite(flags.path(), dir.path());
        let pointsman = Pointsman::start(&start).await;
        Self { pointsman, legacy, bank, client: Client::new(WAIT_MAX), start, _flags: flags, _dir: dir }
    }

    async fn orders(keys: &str) -> Self {
        Self::start(&format!(
            "  - id: orders\n    match: {{ method: POST, path: /orders }}\n    legacy: shop\n    workflow: create\n    \
             state: live\n    force: {{ reason: a test }}\n    {INVARIANTS}{keys}\n"
        ))
        .await
    }

    async fn quotes(keys: &str) -> Self {
        Self::start(&format!(
            "  - id: quotes\n    match: {{ method: GET, path: '/quotes/{{id}}' }}\n    legacy: shop\n    \
             workflow: quote\n    state: live\n    force: {{ reason: a test }}\n    compare: {{ headers: [] }}\n    replay_safe: true\n    {keys}\n"
        ))
        .await
    }

    async fn order(&self, body: Value, key: &str) -> Reply {
        let url = format!("{}/orders", self.pointsman.url());
        self.client.json(Method::POST, &url, &[("idempotency-key", key)], &body).await.expect("a reply")
    }

    async fn quote(&self, headers: &[(&str, &str)]) -> Reply {
        let url = format!("{}/quotes/7?a=1", self.pointsman.url());
        self.client.json(Method::GET, &url, headers, &Value::Null).await.expect("a reply")
    }

    async fn evidence(&self, route: &str) -> Value {
        self.pointsman.get(&format!("/api/v2/routes/{route}/evidence")).await
    }

    /// Waits until an invariant was judged so often; returns its counts.
    async fn judged(&self, invariant: &str, held: u64, broken: u64) -> Value {
        until(&format!("{invariant} to have held {held} times and to be broken {broken} times"), || async {
            let counts = self.evidence("orders").await["evidence"]["invariants"][invariant].clone();
            (counts["held"] == held && counts["broken"] == broken).then_some(counts)
        })
        .await
    }

    async fn effective(&self, route: &str) -> Value {
        self.pointsman.get(&format!("/api/v2/routes/{route}")).await["row"]["effective"]["state"].clone()
    }
}

const ONE_CHARGE: &str = "at most one charge";

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_invariant_is_shown_holds_the_gate_and_lowers_the_route() {
    let shop = Shop::orders("guard: { errors: 1% }").await;
    for n in 0..3 {
        assert_eq!(shop.order(json!({ "amount": 5 }), &n.to_string()).await.status, StatusCode::OK);
    }
    shop.judged(ONE_CHARGE, 3, 0).await;
    shop.judged("it ends", 3, 0).await;
    shop.judged("the total is what was asked for", 3, 0).await;
    // A retry repeats the answer, and is not judged again.
    assert_eq!(shop.order(json!({ "amount": 5 }), "1").await.status, StatusCode::OK);
    // A call that certainly did nothing is none.
    shop.bank.script("POST /charges", ScriptedReply::Refuse(429), 1);
    assert_eq!(shop.order(json!({ "amount": 5 }), "no money").await.status, StatusCode::OK);
    assert_eq!(shop.bank.count("POST /invoices"), 1);
    shop.judged(ONE_CHARGE, 4, 0).await;

    // The second charge is that of a run below.
    let twice = async |n: u64| shop.order(json!({ "amount": 5, "twice": true }), &format!("twice {n}")).await;
    assert_eq!(twice(0).await.status, StatusCode::OK, "its caller has waited for nothing");
    let counts = shop.judged(ONE_CHARGE, 4, 1).await;
    let run = counts["last_broken"]["run"].as_str().expect("its run").to_owned();
    let shown = output_text(&shop.pointsman.cli(&["evidence", "orders"]).await);
    assert!(shown.contains("INVARIANT") && shown.contains(ONE_CHARGE) && shown.contains(&run), "{shown}");
    assert!(shop.pointsman.log().contains("broke an invariant") && shop.pointsman.log().contains(&run));
    let windows = shop.evidence("orders").await["guard_windows"].clone();
    let is_of_invariants = |one: &&Value| one["counted"] == "answers that broke an invariant";
    let window = windows.as_array().expect("a list").iter().find(is_of_invariants).expect("a window");
    assert_eq!((&window["bad"], &window["of"]), (&json!(1), &json!(5)), "each answer counts once: {windows}");
    let refused = shop.pointsman.cli(&["flip", "orders", "only"]).await;
    let text = output_text(&refused);
    assert!(
        !refused.status.success() && text.contains("invariants did not hold: `at most one charge` 1 of 5"),
        "{text}"
    );

    for n in 1..5 {
        twice(n).await;
    }
    until("the guard", || async { (shop.effective("orders").await == "dark").then_some(()) }).await;
    let flips = shop.pointsman.get("/api/v2/flips?route=orders").await;
    assert!(flips.to_string().contains("broke an invariant"), "{flips}");
    let metrics = shop.pointsman.metrics().await;
    let of = |result: &str| {
        let labels = [("route", "orders"), ("invariant", ONE_CHARGE), ("plan", "in_force"), ("result", result)];
        metrics.sum("pointsman_invariants_total", &labels)
    };
    assert_eq!((of("held"), of("broken")), (4.0, 5.0));
    until("the end of all checks", || async {
        (shop.pointsman.metrics().await.sum("pointsman_answer_checks", &[]) == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_broken_is_known_after_a_restart() {
    let mut shop = Shop::orders("").await;
    shop.order(json!({ "amount": 5, "twice": true }), "a").await;
    shop.judged(ONE_CHARGE, 0, 1).await;
    assert_eq!(shop.pointsman.stop().await, Some(0));
    shop.pointsman = Pointsman::start(&shop.start).await;
    shop.judged(ONE_CHARGE, 0, 1).await;
    let refused = output_text(&shop.pointsman.cli(&["flip", "orders", "only"]).await);
    assert!(refused.contains("invariants did not hold"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_live_legacy_is_asked_afterwards_and_a_difference_lowers_the_route() {
    let shop = Shop::quotes("reverse: 100%\n    guard: { mismatch: 1% }").await;
    shop.bank.set_default("GET /quotes", ScriptedReply::Done(200, json!({ "total": 7 })));
    let reply = shop.quote(&[("x-tenant", "acme")]).await;
    assert_eq!(reply.headers.get("pointsman-arm").and_then(|arm| arm.to_str().ok()), Some("engine"));
    let evidence = until("the pair", || async {
        let evidence = shop.evidence("quotes").await["evidence"].clone();
        (evidence["shadow_pairs"] == 1).then_some(evidence)
    })
    .await;
    let shown = output_text(&shop.pointsman.cli(&["diffs", "quotes"]).await);
    assert_eq!((&evidence["matched"], &evidence["mismatched"]), (&json!(1), &json!(0)), "{shown}");
    let seen = shop.legacy.seen();
    assert_eq!((seen.len(), seen[0].line.as_str()), (1, "GET /quotes/7?a=1 HTTP/1.1"));
    assert_eq!((seen[0].header("pointsman-repeat"), seen[0].header("x-tenant")), (Some("reverse"), Some("acme")));
    // With a retry key legacy could take it for another request.
    shop.quote(&[("idempotency-key", "k")]).await;

    shop.bank.set_default("GET /quotes", ScriptedReply::Done(200, json!({ "total": 8 })));
    for _ in 0..5 {
        assert_eq!(shop.quote(&[]).await.json()["total"], 8, "the caller gets the engine's answer");
        let asked = shop.legacy.count();
        until("the pair", || async {
            let pairs = shop.evidence("quotes").await["evidence"]["shadow_pairs"].as_u64()?;
            (pairs as usize >= asked).then_some(())
        })
        .await;
    }
    until("the guard", || async { (shop.effective("quotes").await == "dark").then_some(()) }).await;
    let shown = output_text(&shop.pointsman.cli(&["diffs", "quotes"]).await);
    assert!(shown.contains("$.total"), "{shown}");
    let labels = [("route", "quotes"), ("outcome", "compared")];
    assert_eq!(shop.pointsman.metrics().await.sum("pointsman_reverse_comparisons_total", &labels), 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_only_and_without_a_share_legacy_is_never_asked() {
    let shop = Shop::quotes("reverse: 0%").await;
    shop.bank.set_default("GET /quotes", ScriptedReply::Done(200, json!({ "total": 7 })));
    for _ in 0..20 {
        shop.quote(&[]).await;
    }
    assert_eq!(shop.legacy.count(), 0);
    let shop = Shop::quotes("reverse: 100%").await;
    shop.bank.set_default("GET /quotes", ScriptedReply::Done(200, json!({ "total": 7 })));
    let flip = ["flip", "quotes", "only", "--force", "--reason", "a test"];
    assert!(shop.pointsman.cli(&flip).await.status.success());
    for _ in 0..20 {
        shop.quote(&[]).await;
    }
    assert_eq!(shop.legacy.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_killed_process_did_not_judge_counts_as_not_judged() {
    let mut shop = Shop::orders("").await;
    shop.bank.hold("POST /charges");
    // The run goes on behind its answer.
    let after = CREATE.replace("steps:\n", "steps:\n  accept: { set: { ok: true } }\n");
    let after = after.replace("respond: { status", "respond: { after: [accept], status");
    std::fs::write(shop.start.flags.join("workflows/create.yaml"), after).expect("a file");
    let reload = shop.pointsman.cli(&["reload"]).await;
    assert!(reload.status.success(), "{}", output_text(&reload));
    shop.pointsman.put_candidate_in_force("orders").await;
    for n in 0..3 {
        assert_eq!(shop.order(json!({ "amount": 5 }), &n.to_string()).await.status, StatusCode::OK);
    }
    shop.judged("the total is what was asked for", 3, 0).await;
    let store = shop.start.store.trim_start_matches("sqlite:").to_owned();
    let is_stored = || {
        let read = |end: &str| std::fs::read(format!("{store}{end}")).unwrap_or_default();
        let all = [read(""), read("-wal")].concat();
        let text: &[u8] = br#""checks_under_way":3"#;
        all.windows(text.len()).any(|window| window == text)
    };
    until("the evidence to be stored", || async { is_stored().then_some(()) }).await;
    shop.pointsman.kill().await;
    shop.bank.release_all("POST /charges");
    shop.pointsman = Pointsman::start(&shop.start).await;
    let counts = shop.evidence("orders").await["evidence"]["invariants"][ONE_CHARGE].clone();
    assert_eq!((&counts["held"], &counts["not_judged"]), (&json!(0), &json!({ "shutting_down": 3 })), "{counts}");
}

/// A condition may look up a value of the request, which is a secret.
#[tokio::test(flavor = "multi_thread")]
async fn why_a_condition_cannot_be_evaluated_is_told_without_values() {
    let route = "  - id: orders\n    match: { method: POST, path: /orders }\n    legacy: shop\n    workflow: create\n    \
                 state: live\n    force: { reason: a test }\n    invariants:\n      \
                 looks up: '${reply.headers[request.headers.authorization] == \"x\"}'\n      \
                 absent: '${reply.body.sum > 0}'\n      \
                 refused: { that: '${reply.body.total > 0}', when: '${request.query.x == \"1\"}' }\n";
    let shop = Shop::start(route).await;
    let url = format!("{}/orders", shop.pointsman.url());
    let headers = [("authorization", "Bearer AUTHSECRET"), ("idempotency-key", "a")];
    shop.client.json(Method::POST, &url, &headers, &json!({ "amount": 5 })).await.expect("a reply");
    let counts = until("the verdicts", || async {
        let counts = shop.evidence("orders").await["evidence"]["invariants"].clone();
        (counts["looks up"]["broken"] == 1 && counts["absent"]["broken"] == 1).then_some(counts)
    })
    .await;
    assert_eq!(counts["looks up"]["last_broken"]["error"], "a value that it looks up is absent");
    assert_eq!(counts["absent"]["last_broken"]["error"], "`reply.body.sum` is absent");
    assert_eq!(counts["refused"]["not_judged"], json!({ "when_failed": 1 }), "an error in `when` means no");
    let everything = format!("{counts}{}", shop.pointsman.log()).to_lowercase();
    assert!(!everything.contains("authsecret"), "{everything}");
}
