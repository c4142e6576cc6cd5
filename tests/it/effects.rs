//! Legacy's effects are compared with the engine's intents, through the real binary: legacy makes its calls through the
//! egress listener, and a workflow that charges another amount is found although both replies are equal.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use futures_util::future::join_all;
use http::{Method, StatusCode};
use pointsman::demo::http::{Call, Client, Server, empty, json};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Barrier;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_text};
use crate::support::{FlagsDir, LOCAL, PROMOTE_WITH_EFFECTS, Pointsman, WAIT_MAX, until};

/// How many requests of the kind `together` legacy waits for before it makes a call for any of them.
const TOGETHER: usize = 3;

/// The address of the egress listener; set once the process has started.
type EgressAddress = Arc<OnceLock<SocketAddr>>;

/// A legacy whose charges for an order depend on its `kind`; its answer is the same for every kind.
async fn legacy(egress: EgressAddress) -> Server {
    let (client, all_there) = (Arc::new(Client::new(WAIT_MAX)), Arc::new(Barrier::new(TOGETHER)));
    let handler = move |call: Call| {
        let (egress, client, all_there) = (egress.clone(), client.clone(), all_there.clone());
        async move {
            let order = call.json();
            let amount = order["amount"].as_u64().unwrap_or(0);
            let (charges, amount) = match order["kind"].as_str() {
                Some("missing" | "unreachable") => (0, amount),
                Some("twice") => (2, amount),
                Some("anonymous") => (1, amount),
                Some("wrong") => (1, amount + 1),
                Some("together") => {
                    all_there.wait().await;
                    (1, amount + 1)
                }
                _ => (1, amount),
            };
            let url = format!("http://{}/bank/charges", egress.get().expect("it is listening"));
            let trace = if order["kind"] == "anonymous" { "" } else { call.header("traceparent") };
            let headers = [("traceparent", trace)];
            for _ in 0..charges {
                let body = json!({ "order": order["ref"], "amount": amount });
                let charged = client.json(Method::POST, &url, &headers, &body).await.expect("the bank's reply");
                assert_eq!(charged.status, StatusCode::OK);
            }
            if order["kind"] == "unreachable" {
                let url = format!("http://{}/gone/charges", egress.get().expect("it is listening"));
                let body = json!({ "order": order["ref"], "amount": amount });
                let failed = client.json(Method::POST, &url, &[], &body).await.expect("an answer");
                assert_eq!(failed.status, StatusCode::BAD_GATEWAY);
            }
            if order["kind"] == "audited" {
                let url = format!("http://{}/bank/audits/{}", egress.get().expect("it is listening"), order["ref"]);
                client.json(Method::POST, &url, &[], &json!({})).await.expect("the bank's reply");
            }
            match call.method == Method::POST {
                true => Ok(json(StatusCode::CREATED, &json!({ "ref": order["ref"] }))),
                false => Ok(empty(StatusCode::NOT_FOUND)),
            }
        }
    };
    Server::start(LOCAL, handler).await.expect("a port")
}

/// The route, with more keys.
fn route(keys: &str) -> String {
    format!(
        "routes:\n  - {{ id: orders, match: {{ method: POST, path: /orders }}, legacy: shop, workflow: create, \
         state: shadow{keys} }}\n"
    )
}

pub(crate) struct Shop {
    pub pointsman: Pointsman,
    pub client: Client,
    pub flags: FlagsDir,
    pub bank: Origin,
    start: Start,
    _legacy: Server,
    _dir: TempDir,
}

impl Shop {
    pub async fn start(egress_keys: &str) -> Self {
        Self::start_with(egress_keys, "rehearse: {}").await
    }

    /// `charge`: further keys of the step that charges.
    async fn start_with(egress_keys: &str, charge: &str) -> Self {
        let egress = EgressAddress::default();
        let (legacy, bank) = (legacy(egress.clone()).await, Origin::start(OriginReply::Json("{\"id\":1}")).await);
        let flags = FlagsDir::empty();
        let window = if egress_keys.contains("window") { "" } else { ", window: 300ms" };
        flags.write(
            "pointsman.yaml",
            &format!(
                "services:\n  shop: {}\n  bank: {}\n  gone: http://127.0.0.1:9\ndefault_legacy: shop\n\
                 egress: {{ listen: 127.0.0.1:0{window}{egress_keys} }}\n{PROMOTE_WITH_EFFECTS}",
                legacy.url(),
                bank.url()
            ),
        );
        flags.write(
            "workflows/create.yaml",
            &format!(
                "workflow: create\nsteps:\n  charge:\n    call: POST ${{services.bank}}/charges\n    \
                 body: {{ order: '${{request.body.ref}}', amount: '${{request.body.amount}}' }}\n    {charge}\n\
                 respond: {{ status: 201, body: {{ ref: '${{request.body.ref}}' }} }}\n"
            ),
        );
        flags.write("routes/orders.yaml", &route(""));
        let dir = tempfile::tempdir().expect("a directory");
        let store = format!("sqlite:{}", dir.path().join("db").display());
        let start = Start { flags: flags.path().to_owned(), store, log: dir.path().join("log"), env: Vec::new() };
        let pointsman = Pointsman::start(&start).await;
        egress.set(pointsman.egress.expect("an egress listener")).expect("set once");
        Self { pointsman, client: Client::new(WAIT_MAX), flags, bank, start, _legacy: legacy, _dir: dir }
    }

    /// Starts the process again, after it has ended.
    pub async fn start_again(&mut self) {
        self.pointsman = Pointsman::start(&self.start).await;
    }

    /// Sends an order; `number` keeps the references apart.
    pub async fn order(&self, kind: &str, number: u32) {
        let body = json!({ "ref": format!("{kind}-{number}"), "kind": kind, "amount": 12 });
        let reply = self.client.json(Method::POST, &format!("{}/orders", self.pointsman.url()), &[], &body).await;
        assert_eq!(reply.expect("a reply").status, StatusCode::CREATED);
    }

    pub async fn evidence(&self) -> Value {
        self.pointsman.get("/api/v2/routes/orders/evidence").await["evidence"].clone()
    }

    /// Puts these keys of the route in force.
    pub async fn reload_with(&self, keys: &str) {
        self.flags.write("routes/orders.yaml", &route(keys));
        let reloaded = self.cli(&["reload"]).await;
        assert!(!reloaded.contains("error"), "{reloaded}");
    }

    /// Waits until `pairs` pairs are compared, and returns the evidence.
    async fn wait_for_pairs(&self, pairs: u64) -> Value {
        until("the pairs", || async {
            let evidence = self.evidence().await;
            (evidence["shadow_pairs"].as_u64() >= Some(pairs)).then_some(evidence)
        })
        .await
    }

    /// Of the three wrong requests, a tolerance explains the wrong amount; nothing is proposed for any of them.
    async fn other_rules_are_tried_and_none_hides_a_wrong_charge(&self) {
        let before = self.evidence().await;
        let file = self._dir.path().join("rules.yaml");
        std::fs::write(&file, "compare: { effects: { charge: { tolerance: { $.amount: 1 } } } }").expect("written");
        let file = file.display().to_string();
        let tried = self.cli(&["diffs", "orders", "--try", &file, "--json"]).await;
        let tried: Value = serde_json::from_str(&tried).expect("JSON");
        assert_eq!(tried["samples"], json!({ "kept": 3, "equal": 1, "differ": 2, "not_judged": 0 }), "{tried}");
        let shown = self.cli(&["diffs", "orders", "--try", &file]).await;
        assert!(shown.contains("made equal by effects.charge tolerance $.amount in 1 sample"), "{shown}");
        std::fs::write(&file, "effects: { chrage: { ignore: [$.amount] } }").expect("written");
        let refused = self.pointsman.cli(&["diffs", "orders", "--try", &file]).await;
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && message.contains("rules:1:12"), "{message}");
        let suggested = self.cli(&["diffs", "orders", "--suggest"]).await;
        assert!(suggested.contains("no rule is proposed"), "{suggested}");
        assert!(suggested.contains("effects.charge.body.amount effect_differs, in 1 sample"), "{suggested}");
        assert_eq!(self.evidence().await, before, "nothing was changed");
        let shown = self.cli(&["diffs", "orders"]).await;
        for part in ["charge  compared with nothing", "legacy bank POST http", "\"amount\":12"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    pub async fn cli(&self, arguments: &[&str]) -> String {
        output_text(&self.pointsman.cli(arguments).await)
    }
}

/// A step that says `effect: read` is sent; a call by legacy to the same address passes for a read only if it is equal.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_alone_does_not_make_a_call_a_read() {
    let shop = Shop::start_with("", "effect: read").await;
    for (number, kind) in (1..).zip(["same", "twice", "missing", "wrong"]) {
        shop.order(kind, number).await;
    }
    let evidence = shop.wait_for_pairs(4).await;
    assert_eq!((&evidence["mismatched"], &evidence["matched"]), (&json!(1), &json!(3)), "{evidence:#}");
    // A pair is counted before its sample is kept.
    let diffs = until("the sample", || async {
        let diffs = shop.pointsman.get("/api/v2/routes/orders/diffs").await;
        diffs["groups"][0].is_object().then_some(diffs)
    })
    .await;
    let difference = &diffs["groups"][0]["differences"][0];
    let found = (&difference["path"], &difference["kind"]);
    assert_eq!(found, (&json!("effects.bank POST /charges"), &json!("effect_missing")), "{diffs:#}");
    let shown = shop.cli(&["check", &shop.flags.path().display().to_string()]).await;
    let sent = "orders: in `shadow` and `dark` these calls are sent in addition to legacy's, because their steps say \
         `effect: read`: POST bank/charges (step `charge`)";
    assert!(shown.contains(sent), "{shown}");
    // Legacy was seen to make the call, so that a charge that is called a read is made twice.
    let refused = shop.cli(&["flip", "orders", "dark"]).await;
    let why = "legacy makes calls too that the workflow declares `effect: read`";
    assert!(refused.contains(why) && refused.contains(": `charge` (3 calls)"), "{refused}");
    let by_both = "compare: { effects: { charge: { made_by_both: it only reads } } }";
    shop.reload_with(&format!(", {by_both}")).await;
    let refused = shop.cli(&["flip", "orders", "dark"]).await;
    assert!(refused.contains("more compared pairs (4 of 20") && !refused.contains(why), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_a_missing_and_a_doubled_charge_show_although_the_replies_are_equal() {
    let shop = Shop::start("").await;
    for number in 0..5 {
        shop.order("right", number).await;
    }
    let evidence = shop.wait_for_pairs(5).await;
    assert_eq!(evidence["mismatched"], 0, "{evidence}\n{}", shop.cli(&["diffs", "orders"]).await);
    for (pairs, kind, path, difference) in [
        (6, "wrong", "effects.charge.body.amount", "effect_differs"),
        (7, "missing", "effects.charge", "effect_extra"),
        (8, "twice", "effects.charge", "effect_doubled"),
    ] {
        shop.order(kind, 0).await;
        shop.wait_for_pairs(pairs).await;
        // A pair is counted before its sample is kept.
        until(&format!("{kind} at {path}"), async || {
            let shown = shop.cli(&["diffs", "orders", "--json"]).await;
            (shown.contains(path) && shown.contains(difference)).then_some(())
        })
        .await;
    }
    shop.other_rules_are_tried_and_none_hides_a_wrong_charge().await;
    // 5 correct charges, 1 wrong one and 2 of the doubled: legacy made them all, and the engine none.
    assert_eq!(shop.bank.count(), 8);
    let egress = shop.cli(&["egress", "orders"]).await;
    assert!(egress.contains("8"), "{egress}");
}

/// Legacy charges, and the call names no request: it may be the one that the engine would make.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_call_of_no_known_request_may_be_the_missing_one_nothing_is_said_about_it() {
    let shop = Shop::start("").await;
    shop.order("anonymous", 0).await;
    let evidence = shop.wait_for_pairs(1).await;
    assert_eq!(
        (&evidence["mismatched"], &evidence["legacy_calls"]["incomplete"]),
        (&json!(0), &json!(1)),
        "{evidence}"
    );
    let labels = [("route", "orders"), ("reason", "unattributed")];
    assert_eq!(shop.pointsman.metrics().await.sum("pointsman_effects_not_judged_total", &labels), 1.0);
    // A request that comes later cannot have made it.
    shop.order("missing", 1).await;
    let evidence = shop.wait_for_pairs(2).await;
    assert_eq!(
        (&evidence["mismatched"], &evidence["legacy_calls"]["incomplete"]),
        (&json!(1), &json!(1)),
        "{evidence}"
    );
}

/// Pairs that are under way when the gate would open may differ: it waits for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_flip_up_waits_for_the_pairs_that_are_under_way() {
    let shop = Shop::start(", window: 2s").await;
    for number in 0..20 {
        shop.order("right", number).await;
    }
    shop.wait_for_pairs(20).await;
    shop.order("wrong", 0).await;
    let under_way = async || shop.pointsman.metrics().await.sum("pointsman_effects_waiting_pairs", &[]);
    until("the wrong pair to be under way", async || (under_way().await == 1.0).then_some(())).await;
    assert_eq!(shop.evidence().await["mismatched"], 0);
    let refused = shop.cli(&["flip", "orders", "dark"]).await;
    assert!(refused.contains("has 1 open mismatch"), "{refused}");
    assert!(refused.contains("pairs that are under way are compared before the gate opens"), "{refused}");
}

/// Legacy charges some time after its answer, when the request's window is over, and the workflow knows nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_after_the_window_is_counted_and_holds_the_gate_to_live() {
    let shop = Shop::start("").await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let body = json!({ "ref": "late", "kind": "right", "amount": 12 });
    let url = format!("{}/orders", shop.pointsman.url());
    let headers = [("traceparent", trace)];
    shop.client.json(Method::POST, &url, &headers, &body).await.expect("a reply");
    shop.wait_for_pairs(1).await;
    let egress = shop.pointsman.egress.expect("it is listening");
    let points = format!("http://{egress}/bank/points");
    shop.client.json(Method::POST, &points, &headers, &json!({})).await.expect("the bank's reply");
    let view = until("the late call", async || {
        let view = shop.pointsman.get("/api/v2/routes/orders/egress").await;
        (view["late"] == 1).then_some(view)
    })
    .await;
    assert_eq!(view["late_to"], json!(["POST bank/points"]), "{view}");
    let labels = [("route", "orders"), ("reason", "late")];
    assert_eq!(shop.pointsman.metrics().await.sum("pointsman_effects_not_judged_total", &labels), 1.0);
    assert!(shop.cli(&["egress", "orders"]).await.contains("after the window went to POST bank/points"));
    let why = "after `egress.window` was over";
    shop.cli(&["flip", "orders", "dark", "--force", "--reason", "a test"]).await;
    assert!(shop.cli(&["flip", "orders", "live"]).await.contains(why));
    shop.reload_with(", compare: { ignore_calls: [POST bank/points] }").await;
    let refused = shop.cli(&["flip", "orders", "live"]).await;
    assert!(refused.contains("more compared pairs in dark") && !refused.contains(why), "the rules name it: {refused}");
}

/// Nobody has read its body when the connection is refused, and the body tells which request it is for.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_a_service_that_cannot_be_reached_is_attributed_to_its_request() {
    let shop = Shop::start(", correlate: '${call.body.order == request.body.ref}'").await;
    for number in 0..3 {
        shop.order("unreachable", number).await;
    }
    let evidence = shop.wait_for_pairs(3).await;
    let view = shop.pointsman.get("/api/v2/routes/orders/egress").await;
    let counted = [&view["calls"]["value"], &view["all"]["attributed"], &view["all"]["ambiguous"]];
    assert_eq!(counted, [&json!(3), &json!(3), &json!(0)], "{view}");
    // Legacy tried to charge elsewhere, and not where the engine would have charged.
    assert_eq!((&evidence["mismatched"], shop.bank.count()), (&json!(3), 0), "{evidence}");
}

/// Legacy hands the trace on with the charge only. A workflow without the other call looks equal, and the gate has to
/// know that.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_no_known_request_that_the_workflow_does_not_make_is_counted_until_the_rules_name_it() {
    let shop = Shop::start("").await;
    shop.order("audited", 0).await;
    let counted = async |pairs: u64| {
        let evidence = shop.wait_for_pairs(pairs).await;
        let calls = &evidence["legacy_calls"];
        ["watched", "known", "unexpected", "wanted"].map(|name| calls[name].as_u64().expect("a count"))
    };
    assert_eq!(counted(1).await, [1, 0, 1, 0]);
    shop.reload_with(", compare: { ignore_calls: [POST bank/audits/*] }").await;
    shop.order("audited", 1).await;
    // Rules that only allow more keep the evidence; what was unexpected has to be seen again.
    assert_eq!(counted(2).await, [1, 1, 0, 0]);
}

/// It is not known which of the requests a call is for, so the effects of none of them are compared.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_several_requests_may_have_caused_is_counted_and_not_guessed() {
    let shop = Shop::start(", correlate: '${call.body.order == request.body.ref}'").await;
    // The client sends all of them in one trace, and with one reference.
    let trace = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];
    let url = format!("{}/orders", shop.pointsman.url());
    let body = json!({ "ref": "same", "kind": "together", "amount": 12 });
    let sent = (0..TOGETHER).map(|_| shop.client.json(Method::POST, &url, &trace, &body));
    for reply in join_all(sent).await {
        assert_eq!(reply.expect("a reply").status, StatusCode::CREATED);
    }
    let evidence = shop.wait_for_pairs(TOGETHER as u64).await;
    assert_eq!(evidence["mismatched"], 0, "{evidence}\n{}", shop.cli(&["diffs", "orders"]).await);
    let metrics = shop.pointsman.metrics().await;
    assert_eq!(metrics.sum("pointsman_effects_total", &[("outcome", "ambiguous")]), TOGETHER as f64);
    assert_eq!(shop.bank.count(), TOGETHER);
}
