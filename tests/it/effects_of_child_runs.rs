//! The calls of workflows that the route's own workflow runs are compared with legacy's, in `shadow`, where their runs
//! are in memory, and in `dark`, where they are stored.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::{Method, StatusCode};
use pointsman::demo::http::{Call, Client, Server, json};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_text};
use crate::support::{FlagsDir, LOCAL, Pointsman, WAIT_MAX, until};

/// The address of the egress listener; set once the process has started.
type EgressAddress = Arc<OnceLock<SocketAddr>>;

const WORKFLOWS: [(&str, &str); 3] = [
    (
        "create",
        "workflow: create
steps:
  pay: { run: pay, input: { ref: '${request.body.ref}', amount: '${request.body.amount}' } }
  ship:
    needs: [pay]
    for_each: ${request.body.parcels}
    run: ship
    input: { ref: '${request.body.ref}', parcel: '${item}' }
  mail:
    needs: [ship]
    call: POST ${services.world}/mails
    body: { order: '${request.body.ref}' }
    rehearse: {}
respond: { status: 201, body: { ref: '${request.body.ref}' } }
",
    ),
    (
        "pay",
        "workflow: pay
steps:
  charge:
    call: POST ${services.world}/charges
    body: { order: '${request.body.ref}', amount: '${request.body.amount}' }
    rehearse: {}
respond: { status: 200, body: {} }
",
    ),
    (
        "ship",
        "workflow: ship
steps:
  print: { run: print, input: { ref: '${request.body.ref}', parcel: '${request.body.parcel}' } }
respond: { status: 200, body: {} }
",
    ),
];

/// Run by `ship`, which is run by `create`.
const PRINT: &str = "workflow: print
steps:
  label:
    call: POST ${services.world}/labels
    body: { order: '${request.body.ref}', parcel: '${request.body.parcel}' }
    rehearse: {}
  book:
    needs: [label]
    call: POST ${services.world}/bookings
    body: { order: '${request.body.ref}', parcel: '${request.body.parcel}' }
    rehearse: {}
respond: { status: 200, body: {} }
";

/// A legacy whose calls for an order depend on its `kind`; its answer is the same for every kind.
async fn legacy(egress: EgressAddress) -> Server {
    let client = Arc::new(Client::new(WAIT_MAX));
    let handler = move |call: Call| {
        let (egress, client) = (egress.clone(), client.clone());
        async move {
            let order = call.json();
            let (kind, name) = (order["kind"].as_str().unwrap_or_default(), &order["ref"]);
            let amount = order["amount"].as_u64().unwrap_or(0) + u64::from(kind == "wrong");
            let mut calls = vec![("charges", json!({ "order": name, "amount": amount }))];
            for parcel in order["parcels"].as_array().into_iter().flatten() {
                // For each parcel both, before those of the next one.
                calls.push(("labels", json!({ "order": name, "parcel": parcel })));
                calls.push(("bookings", json!({ "order": name, "parcel": parcel })));
            }
            if kind == "unbooked" {
                calls.pop();
            }
            calls.push(("mails", json!({ "order": name })));
            if kind == "early" {
                calls.rotate_right(1);
            }
            for (path, body) in calls {
                let url = format!("http://{}/world/{path}", egress.get().expect("it is listening"));
                let headers = [("traceparent", call.header("traceparent"))];
                let made = client.json(Method::POST, &url, &headers, &body).await.expect("a reply");
                assert_eq!(made.status, StatusCode::OK);
            }
            Ok(json(StatusCode::CREATED, &json!({ "ref": name })))
        }
    };
    Server::start(LOCAL, handler).await.expect("a port")
}

struct Shop {
    pointsman: Pointsman,
    client: Client,
    _legacy: Server,
    world: Origin,
    flags: FlagsDir,
    _dir: TempDir,
}

impl Shop {
    async fn start(state: &str) -> Self {
        let egress = EgressAddress::default();
        let (legacy, world) = (legacy(egress.clone()).await, Origin::start(OriginReply::Json("{\"id\":1}")).await);
        let flags = FlagsDir::empty();
        let (shop, bank) = (legacy.url(), world.url());
        flags.write(
            "pointsman.yaml",
            &format!(
                "services: {{ shop: '{shop}', world: '{bank}' }}\ndefault_legacy: shop\n\
                 egress: {{ listen: 127.0.0.1:0, window: 300ms }}\n"
            ),
        );
        for (name, text) in WORKFLOWS.into_iter().chain([("print", PRINT)]) {
            flags.write(&format!("workflows/{name}.yaml"), text);
        }
        flags.write("routes/orders.yaml", &route(state, ""));
        let dir = tempfile::tempdir().expect("a directory");
        let store = format!("sqlite:{}", dir.path().join("db").display());
        let start = Start { flags: flags.path().to_owned(), store, log: dir.path().join("log"), env: Vec::new() };
        let pointsman = Pointsman::start(&start).await;
        egress.set(pointsman.egress.expect("an egress listener")).expect("set once");
        Self { pointsman, client: Client::new(WAIT_MAX), _legacy: legacy, world, flags, _dir: dir }
    }

    async fn order(&self, kind: &str, number: usize, parcels: usize) {
        let parcels: Vec<usize> = (0..parcels).collect();
        let body = json!({ "ref": format!("{kind}-{number}"), "kind": kind, "amount": 12, "parcels": parcels });
        let reply = self.client.json(Method::POST, &format!("{}/orders", self.pointsman.url()), &[], &body).await;
        assert_eq!(reply.expect("a reply").status, StatusCode::CREATED);
    }

    /// Waits until `pairs` pairs are compared, and returns the evidence.
    async fn wait_for_pairs(&self, of: &str, pairs: u64) -> Value {
        until("the pairs", || async {
            let evidence = self.pointsman.get("/api/v2/routes/orders/evidence").await["evidence"].clone();
            (evidence[of].as_u64() >= Some(pairs)).then_some(evidence)
        })
        .await
    }

    async fn cli(&self, arguments: &[&str]) -> String {
        output_text(&self.pointsman.cli(arguments).await)
    }
}

fn route(state: &str, compare: &str) -> String {
    format!(
        "routes:\n  - {{ id: orders, match: {{ method: POST, path: /orders }}, legacy: shop, workflow: create,\n      \
         state: {state}, force: {{ reason: a test }}{compare} }}\n"
    )
}

async fn calls_below_are_compared(state: &str, pairs: &str) {
    let shop = Shop::start(state).await;
    for number in 0..4 {
        shop.order("right", number, number).await;
    }
    let evidence = shop.wait_for_pairs(pairs, 4).await;
    assert_eq!(evidence["mismatched"], 0, "{evidence}\n{}", shop.cli(&["diffs", "orders"]).await);
    // Orders with 0 to 3 parcels.
    for (step, intents) in [("pay/charge", 4), ("ship/print/label", 6), ("ship/print/book", 6), ("mail", 4)] {
        let of_step = &evidence["effects"][step];
        assert_eq!(
            (&of_step["intents"], &of_step["compared"]),
            (&json!(intents), &json!(intents)),
            "{step} {evidence}"
        );
    }
    for (pairs_after, kind, path, difference) in [
        (5, "wrong", "effects.pay/charge.body.amount", "effect_differs"),
        (6, "unbooked", "effects.ship/print/book", "effect_extra"),
        (7, "early", "effects.mail, effects.pay/charge", "effect_order"),
    ] {
        shop.order(kind, 0, 2).await;
        shop.wait_for_pairs(pairs, pairs_after).await;
        // A pair is counted before its sample is stored.
        until(&format!("the difference of {kind}"), || async {
            let shown = shop.cli(&["diffs", "orders", "--json"]).await;
            (shown.contains(path) && shown.contains(difference)).then_some(())
        })
        .await;
    }
    let evidence = shop.wait_for_pairs(pairs, 7).await;
    assert_eq!(evidence["mismatched"], 3, "{evidence}");
    // Legacy made all calls, and the engine none: 7 charges and mails, 12 labels, and one booking less.
    assert_eq!(shop.world.count(), 7 + 7 + 12 + 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_charge_by_a_workflow_below_shows_in_shadow() {
    calls_below_are_compared("shadow", "shadow_pairs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_charge_by_a_workflow_below_shows_in_dark() {
    calls_below_are_compared("dark", "dark_pairs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_name_the_steps_of_workflows_below() {
    let shop = Shop::start("shadow").await;
    let check = async |compare: &str| {
        shop.flags.write("routes/orders.yaml", &route("shadow", compare));
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pointsman"));
        let output = command.arg("check").arg(shop.flags.path()).output().await.expect("it runs");
        (output.status.code(), output_text(&output))
    };
    for (compare, code, part) in [
        (", compare: { effects: { pay/charge: { tolerance: { $.amount: 1 } } } }", 0, ""),
        (", compare: { effects: { ship/print/label: { unseen: 'a printer' } } }", 0, ""),
        (", compare: { assert: ['${size(effects(\"pay/charge\")) == 1}'] }", 0, ""),
        (", compare: { effects: { pay: { ignore: [$.amount] } } }", 1, "name one of its steps: `pay/charge`"),
        (", compare: { effects: { pay/chrage: { ignore: [$.amount] } } }", 1, "did you mean `pay/charge`?"),
    ] {
        let (found, text) = check(compare).await;
        assert!(found == Some(code) && text.contains(part), "{compare}: {text}");
    }
    // In force, the tolerance explains a wrong amount, and nothing is missed of what is not seen.
    let rules = ", compare: { effects: { pay/charge: { tolerance: { $.amount: 1 } }, ship: { unseen: 'a printer' } } }";
    shop.flags.write("routes/orders.yaml", &route("shadow", rules));
    shop.cli(&["reload"]).await;
    shop.order("wrong", 0, 1).await;
    shop.order("unbooked", 1, 1).await;
    let evidence = shop.wait_for_pairs("shadow_pairs", 2).await;
    assert_eq!(evidence["mismatched"], 0, "{evidence}\n{}", shop.cli(&["diffs", "orders"]).await);
}
