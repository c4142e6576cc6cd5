//! Follow-ups that come right behind their create, or while the twin is moving: the shadow executor holds them until
//! their turn, so each is compared with the state of the twin that corresponds to legacy's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use pointsman::demo::http::{Call, Client, HandlerResult, Outage, Reply, Server, json};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::metrics::Metrics;
use crate::support::process::{Start, cli, output_text};
use crate::support::{FlagsDir, LOCAL, Pointsman, WAIT_MAX};

/// A service that keeps orders: legacy, or the new side that the workflows write to. The two number their orders
/// differently, and each remembers whether an order was cancelled.
struct Orders {
    server: Server,
    state: Arc<Mutex<BTreeMap<u64, Order>>>,
}

#[derive(Clone)]
struct Order {
    item: Value,
    state: &'static str,
    payment: u64,
    /// The number of another order.
    parent: Option<u64>,
}

impl Orders {
    /// Numbers orders from `first` on, and takes this long for each request.
    async fn start(first: u64, pause: Duration) -> Self {
        let state: Arc<Mutex<BTreeMap<u64, Order>>> = Arc::default();
        let handled = state.clone();
        let handler = move |call: Call| {
            let state = handled.clone();
            async move {
                tokio::time::sleep(pause).await;
                handle(&mut state.lock().expect("unpoisoned"), first, &call)
            }
        };
        Self { server: Server::start(LOCAL, handler).await.expect("a port"), state }
    }
}

fn handle(orders: &mut BTreeMap<u64, Order>, first: u64, call: &Call) -> HandlerResult {
    let shown = |id: u64, order: &Order| {
        let Order { item, state, payment, parent } = order;
        json!({ "id": id, "item": item, "state": state, "payment_id": payment, "parent": parent })
    };
    let reply = |status: StatusCode, body: Value| Ok(json(status, &body));
    let id = call.segments().get(1).and_then(|id| id.parse::<u64>().ok());
    let Some(id) = id else {
        let id = first + orders.len() as u64;
        let order = Order { item: call.json()["item"].clone(), state: "open", payment: 10 * id + 7, parent: None };
        let body = shown(id, &order);
        orders.insert(id, order);
        return reply(StatusCode::CREATED, body);
    };
    let Some(order) = orders.get_mut(&id) else {
        return reply(StatusCode::NOT_FOUND, json!({ "error": "unknown" }));
    };
    if call.method == Method::GET {
        return reply(StatusCode::OK, shown(id, order));
    }
    if order.state == "cancelled" {
        return reply(StatusCode::CONFLICT, json!({ "error": "cancelled before" }));
    }
    order.state = "cancelled";
    reply(StatusCode::OK, shown(id, order))
}

const CREATE: &str = "
workflow: create
steps:
  make: { effect: private, call: 'POST ${services.new}/orders', body: { item: '${request.body.item}' } }
respond: { status: 201, body: '${steps.make.output}' }
";
const READ: &str = "
workflow: read
steps:
  look: { call: 'GET ${services.new}/orders/${instance.id}' }
respond: { status: 200, body: '${steps.look.output}' }
";
const CANCEL: &str = "
workflow: cancel
steps:
  stop:
    effect: private
    call: POST ${services.new}/orders/${instance.output.id}/cancel
    accept: [2xx, 409]
respond: { status: '${steps.stop.status}', body: '${steps.stop.output}' }
";
const ROUTES: &str = "
routes:
- { id: orders.create, match: { method: POST, path: /orders }, legacy: old, workflow: create, state: dark,
    force: { reason: a test }, instance: { creates: $.id },
    compare: &ids { ids: [{ path: $.id, kind: order }, { path: $.parent, kind: order }, $.payment_id] } }
- { id: orders.get, match: { method: GET, path: '/orders/{id}' }, legacy: old, workflow: read, state: dark,
    force: { reason: a test }, instance: { follows: orders.create, key: path.id }, compare: *ids }
- { id: orders.cancel, match: { method: POST, path: '/orders/{id}/cancel' }, legacy: old, workflow: cancel,
    state: dark, force: { reason: a test }, instance: { follows: orders.create, key: path.id },
    compare: *ids }
";
const FOLLOWERS: [&str; 2] = ["orders.get", "orders.cancel"];

/// Both services, the binary between them, and a client.
struct Shop {
    pointsman: Pointsman,
    client: Client,
    old: Orders,
    new: Orders,
    start: Start,
    flags: FlagsDir,
    _dir: TempDir,
}

impl Shop {
    /// A shop whose services take this long for each request; `more` is added to `pointsman.yaml`.
    async fn start(old: Duration, new: Duration, more: &str) -> Self {
        Self::start_with(old, new, more, ROUTES).await
    }

    async fn start_with(old: Duration, new: Duration, more: &str, routes: &str) -> Self {
        let (old, new) = (Orders::start(1, old).await, Orders::start(1_000_001, new).await);
        let flags = FlagsDir::empty();
        let services = format!("services:\n  old: {}\n  new: {}\n", old.server.url(), new.server.url());
        flags.write("pointsman.yaml", &format!("{services}default_legacy: old\n{more}"));
        for (name, text) in [("create", CREATE), ("read", READ), ("cancel", CANCEL)] {
            flags.write(&format!("workflows/{name}.yaml"), text.trim_start());
        }
        flags.write("routes/orders.yaml", routes);
        let dir = tempfile::tempdir().expect("a directory");
        let store = format!("sqlite:{}", dir.path().join("db").display());
        let start = Start { flags: flags.path().to_owned(), store, log: dir.path().join("log"), env: Vec::new() };
        let pointsman = Pointsman::start(&start).await;
        Self { pointsman, client: Client::new(WAIT_MAX), old, new, start, flags, _dir: dir }
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Reply {
        let url = format!("{}{path}", self.pointsman.url());
        self.client.json(method, &url, &[], body).await.unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Creates an order, and follows it up at once: reads it, cancels it, and reads it again.
    async fn create_and_follow_up(&self, item: u64) {
        let made = self.send(Method::POST, "/orders", &json!({ "item": item })).await;
        assert_eq!(made.status, StatusCode::CREATED);
        let path = format!("/orders/{}", made.json()["id"]);
        let read = self.send(Method::GET, &path, &Value::Null).await.json();
        assert_eq!((&read["item"], &read["state"]), (&json!(item), &json!("open")));
        assert_eq!(self.send(Method::POST, &format!("{path}/cancel"), &Value::Null).await.status, StatusCode::OK);
        let read = self.send(Method::GET, &path, &Value::Null).await.json();
        assert_eq!(read["state"], "cancelled");
    }

    /// Waits until all requests of the followers are settled, `count` of them; returns how many had each outcome.
    async fn outcomes(&self, count: u64) -> BTreeMap<String, u64> {
        let settled = self.pointsman.until_metric("all follow-ups to be settled", |metrics| {
            let all = FOLLOWERS.iter().map(|route| metrics.sum("pointsman_comparisons_total", &[("route", route)]));
            all.sum::<f64>() >= count as f64
        });
        settled.await;
        let metrics = self.pointsman.metrics().await;
        assert!(metrics.unbalanced().is_empty(), "{:?}", metrics.unbalanced());
        let mut outcomes = BTreeMap::new();
        for outcome in metrics.values("pointsman_comparisons_total", "outcome") {
            for reason in metrics.values("pointsman_comparisons_total", "reason") {
                let counted = FOLLOWERS.iter().map(|route| {
                    let labels = [("route", *route), ("outcome", outcome.as_str()), ("reason", reason.as_str())];
                    metrics.sum("pointsman_comparisons_total", &labels)
                });
                let sum = counted.sum::<f64>() as u64;
                let name = if reason.is_empty() { outcome.clone() } else { format!("{outcome}: {reason}") };
                if sum > 0 {
                    outcomes.insert(name, sum);
                }
            }
        }
        outcomes
    }

    async fn finish(mut self) {
        assert_eq!(self.pointsman.stop().await, Some(0), "{}", self.pointsman.log());
    }
}

/// All follow-ups are equal but for the ids.
fn compared(count: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([("ignored".to_owned(), count)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_follows_up_at_once_gives_neither_no_twin_nor_a_false_difference() {
    const ORDERS: u64 = 200;
    let shop = Shop::start(Duration::ZERO, Duration::ZERO, "").await;
    for item in 0..ORDERS {
        shop.create_and_follow_up(item).await;
    }
    let mut outcomes = shop.outcomes(3 * ORDERS).await;
    // A read is not compared if its thread offers it after that of a later write: the write does not wait for it.
    let overtaken = outcomes.remove("skipped: overlapped").unwrap_or_default();
    assert!(overtaken <= ORDERS / 50, "{overtaken}");
    assert_eq!(outcomes, compared(3 * ORDERS - overtaken));
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_and_a_slow_new_side_give_neither_no_twin_nor_a_false_difference() {
    const CLIENTS: u64 = 12;
    const EACH: u64 = 20;
    let shop = Shop::start(Duration::from_millis(1), Duration::from_millis(15), "").await;
    join_all((0..CLIENTS).map(async |client| {
        for item in 0..EACH {
            shop.create_and_follow_up(client * 1_000 + item).await;
        }
    }))
    .await;
    assert_eq!(shop.outcomes(3 * CLIENTS * EACH).await, compared(3 * CLIENTS * EACH));
    let count = |orders: &Orders| orders.state.lock().expect("unpoisoned").len();
    assert_eq!(count(&shop.old), count(&shop.new), "each order of legacy has a twin");
    let metrics = shop.pointsman.metrics().await;
    let held = |outcome| metrics.sum("pointsman_followups_total", &[("outcome", outcome)]);
    assert!(held("settled_match") > 0.0, "some had to wait");
    assert_eq!((held("settled_diff"), held("never_settled"), held("not_compared")), (0.0, 0.0, 0.0));
    assert_eq!(metrics.sum("pointsman_followups_pending", &[]), 0.0);
    shop.finish().await;
}

/// Each pair is equal by itself, because its ids correspond one to one.
#[tokio::test(flavor = "multi_thread")]
async fn a_follow_up_that_names_another_payment_or_another_order_is_a_difference() {
    let shop = Shop::start(Duration::ZERO, Duration::ZERO, "").await;
    let mut outcomes = BTreeMap::new();
    let orders: Vec<u64> = (0..3).collect();
    for item in &orders {
        shop.create_and_follow_up(*item).await;
        outcomes = shop.outcomes(3 * (item + 1)).await;
    }
    assert_eq!(outcomes, compared(9));
    let set = |orders: &Orders, id: u64, payment: u64, parent: u64| {
        let mut orders = orders.state.lock().expect("unpoisoned");
        let order = orders.get_mut(&id).expect("the order");
        (order.payment, order.parent) = (payment, Some(parent));
    };
    let right = (10_000_017, 1_000_002);
    for (n, (payment, parent), differing) in [
        (10, right, None),
        (11, (10_000_027, 1_000_002), Some(("$.payment_id", "$.payment_id of an earlier pair"))),
        (12, (10_000_017, 1_000_003), Some(("$.parent", "instance.id of an earlier pair"))),
    ] {
        set(&shop.old, 1, 17, 2);
        set(&shop.new, 1_000_001, payment, parent);
        shop.send(Method::GET, "/orders/1", &Value::Null).await;
        let mismatched = shop.outcomes(n).await.get("mismatched").copied().unwrap_or_default();
        let diffs = shop.pointsman.get("/api/v2/routes/orders.get/diffs").await;
        assert_eq!(mismatched, n - 10, "{diffs}");
        let Some((path, contradicted)) = differing else { continue };
        let groups = diffs["groups"].as_array().cloned().unwrap_or_default();
        let differences = groups.iter().flat_map(|group| group["differences"].as_array().cloned().unwrap_or_default());
        let found: Vec<Value> = differences.filter(|difference| difference["path"] == path).collect();
        assert_eq!(found.len(), 1, "{diffs}");
        let paths: Vec<_> =
            found[0]["contradicts"].as_array().into_iter().flatten().map(|earlier| &earlier["path"]).collect();
        assert!(paths.contains(&&json!(contradicted)), "{diffs}");
    }
    shop.finish().await;
}

/// The engine cannot cancel the twin, and the process is started again afterwards. What follows would differ because of that,
/// so it is not compared, by this process nor by the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_twin_that_could_not_follow_legacy_is_not_compared_any_more_also_after_a_restart() {
    let mut shop = Shop::start(Duration::ZERO, Duration::ZERO, "").await;
    let made = shop.send(Method::POST, "/orders", &json!({ "item": 1 })).await.json();
    let path = format!("/orders/{}", made["id"]);
    shop.send(Method::GET, &path, &Value::Null).await;
    assert_eq!(shop.outcomes(1).await, compared(1));
    shop.new.server.switch().set(Outage::Unavailable);
    assert_eq!(shop.send(Method::POST, &format!("{path}/cancel"), &Value::Null).await.status, StatusCode::OK);
    let after_failure = shop.outcomes(2).await;
    assert_eq!(after_failure["ignored"], 1, "{after_failure:?}");
    shop.new.server.switch().set(Outage::None);
    shop.send(Method::GET, &path, &Value::Null).await;
    assert_eq!(shop.outcomes(3).await.get("skipped: no_twin"), Some(&1));
    let marked = |metrics: &Metrics| metrics.sum("pointsman_twins_incomplete_total", &[("reason", "write")]) == 1.0;
    shop.pointsman.until_metric("the mark", marked).await;
    assert_eq!(shop.pointsman.stop().await, Some(0), "{}", shop.pointsman.log());
    shop.pointsman = Pointsman::start(&shop.start).await;
    shop.send(Method::GET, &path, &Value::Null).await;
    assert_eq!(shop.outcomes(1).await, BTreeMap::from([("skipped: no_twin".to_owned(), 1)]));
    shop.finish().await;
}

/// How many pairs of the reads of a file of captures matched, by rules or without, mismatched, and were skipped because
/// nothing is known of the instance.
async fn rehearsed_reads(flags: &FlagsDir, file: &Path) -> [u64; 3] {
    let (flags, file) = (flags.path().to_str().expect("a path"), file.to_str().expect("a path"));
    let output = cli(&["rehearse", "--flags", flags, "--from", file, "--route", "orders.get", "--json"], &[]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", output_text(&output)));
    let found = &report["routes"]["orders.get"];
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    assert_eq!(found["failed"], json!({}), "{report}");
    [
        count(&found["matched"]) + count(&found["ignored"]),
        count(&found["mismatched"]),
        count(&found["skipped"]["no_instance"]),
    ]
}

/// What the run of a follow-up knew of its instance is in its capture, so that a changed workflow may be rehearsed with
/// it when the instance is gone.
#[tokio::test(flavor = "multi_thread")]
async fn captured_follow_ups_are_rehearsed_with_what_was_known_of_their_instance() {
    let routes = ROUTES.replace("state: dark,", "state: dark, capture: 100%,");
    let mut shop = Shop::start_with(Duration::ZERO, Duration::ZERO, "", &routes).await;
    for item in 0..3 {
        shop.create_and_follow_up(item).await;
    }
    shop.outcomes(9).await;
    let exported = shop.pointsman.cli(&["captures", "export", "orders.get"]).await;
    assert!(exported.status.success(), "{}", output_text(&exported));
    let text = String::from_utf8(exported.stdout).expect("text");
    assert_eq!(text.lines().count(), 6, "{text}");
    assert_eq!(shop.pointsman.stop().await, Some(0), "{}", shop.pointsman.log());
    let (flags, dir) = (&shop.flags, tempfile::tempdir().expect("a directory"));
    let file = dir.path().join("captures.ndjson");
    let write = |change: &dyn Fn(&mut Value)| {
        let lines = text.lines().map(|line| {
            let mut capture: Value = serde_json::from_str(line).expect("JSON");
            assert!(capture["instance"]["id"] != capture["instance"]["legacy_id"], "{capture}");
            assert_eq!(capture["instance"]["output"]["state"], "open", "{capture}");
            change(&mut capture);
            format!("{capture}\n")
        });
        std::fs::write(&file, lines.collect::<String>()).expect("a written file");
    };
    write(&|_| {});
    assert_eq!(rehearsed_reads(flags, &file).await, [6, 0, 0]);
    // The answer to the create is right until the order is cancelled.
    let answers_from_create = "workflow: read\nsteps: { nothing: { set: 1 } }\n\
                               respond: { status: 200, body: '${instance.output}' }\n";
    flags.write("workflows/read.yaml", answers_from_create);
    assert_eq!(rehearsed_reads(flags, &file).await, [3, 3, 0]);
    // Captured by a workflow that read nothing of the instance, of which the ids alone are known then.
    write(&|capture| capture["instance"].as_object_mut().expect("a map").retain(|name, _| name.contains("id")));
    assert_eq!(rehearsed_reads(flags, &file).await, [0, 0, 6]);
    flags.write("workflows/read.yaml", READ.trim_start());
    assert_eq!(rehearsed_reads(flags, &file).await, [6, 0, 0]);
    // Captured before instances were.
    write(&|capture| drop(capture.as_object_mut().expect("a map").remove("instance")));
    assert_eq!(rehearsed_reads(flags, &file).await, [0, 0, 6]);
}
