//! Ids that stand elsewhere than in paths and in bodies of replies: a creator answers without a body, and the id of the
//! new order is in the header `location`, of legacy's reply as of the engine's; a follower has it in the body of its
//! request. What follows an order up goes to the arm that made it, also over kill -9.

use std::sync::{Arc, Mutex};

use http::header::LOCATION;
use http::{HeaderValue, Method, StatusCode};
use pointsman::demo::http::{Call, Client, HandlerResult, Reply, Server, empty, json};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::process::Start;
use crate::support::{FlagsDir, LOCAL, Pointsman, WAIT_MAX, until};

/// Legacy, or the new side that the workflows write to: it numbers its orders, and answers a create with `location`;
/// an action names its order in its body.
struct Orders {
    server: Server,
    orders: Arc<Mutex<Vec<u64>>>,
}

impl Orders {
    async fn start(first: u64) -> Self {
        let orders: Arc<Mutex<Vec<u64>>> = Arc::default();
        let handled = orders.clone();
        let handler = move |call: Call| {
            let reply = handle(&mut handled.lock().expect("unpoisoned"), first, &call);
            async move { reply }
        };
        Self { server: Server::start(LOCAL, handler).await.expect("a port"), orders }
    }

    fn count(&self) -> usize {
        self.orders.lock().expect("unpoisoned").len()
    }
}

fn handle(orders: &mut Vec<u64>, first: u64, call: &Call) -> HandlerResult {
    let named = |body: Value| body["order"].as_str().and_then(|id| id.parse().ok());
    let of_path = call.segments().get(1).and_then(|id| id.parse::<u64>().ok());
    let Some(id) = of_path.or_else(|| named(call.json())) else {
        let id = first + orders.len() as u64;
        orders.push(id);
        let mut reply = empty(StatusCode::CREATED);
        let location = HeaderValue::try_from(format!("http://shop.example/orders/{id}?new")).expect("a value");
        reply.headers_mut().insert(LOCATION, location);
        return Ok(reply);
    };
    let is_known = orders.contains(&id);
    let status = if is_known { StatusCode::OK } else { StatusCode::NOT_FOUND };
    Ok(json(status, &json!({ "id": id, "made_by": if is_known { first } else { 0 } })))
}

const CREATE: &str = "workflow: create
steps:
  make: { effect: private, call: 'POST ${services.new}/orders', body: {} }
respond: { status: 201, headers: { location: '${steps.make.headers.location}' } }
";
const READ: &str = "workflow: read
steps:
  look: { call: 'GET ${services.new}/orders/${instance.id}' }
respond: { status: 200, body: '${steps.look.output}' }
";
const ACT: &str = "workflow: act
steps:
  act:
    effect: private
    call: POST ${services.new}/actions
    body: { order: '${instance.id}' }
    accept: [2xx, 404]
respond: { status: 200, body: '${steps.act.output}' }
";
const ADOPT: &str = "workflow: adopt
legacy_passive: { reason: a test }
steps:
  order: { call: 'GET ${services.old}/orders/${instance.id}' }
respond: { status: 200, headers: { location: '/orders/${steps.order.output.id}' }, body: '${steps.order.output}' }
";
const ROUTES: &str = "routes:
- { id: orders.create, match: { method: POST, path: /orders }, legacy: old, workflow: create, state: dark,
    force: { reason: a test }, instance: { creates: header.location },
    compare: { ids: [{ header.location: '/orders/{id}' }] } }
- { id: orders.get, match: { method: GET, path: '/orders/{id}' }, legacy: old, workflow: read, state: dark,
    force: { reason: a test }, instance: { follows: orders.create, key: path.id },
    compare: { ids: [$.id], ignore: [$.made_by] } }
- { id: orders.act, match: { method: POST, path: /actions }, legacy: old, workflow: act, state: dark,
    force: { reason: a test }, instance: { follows: orders.create, key: body.order },
    compare: { ids: [$.id], ignore: [$.made_by] } }
";

struct Shop {
    pointsman: Pointsman,
    client: Client,
    old: Orders,
    new: Orders,
    start: Start,
    _flags: FlagsDir,
    _dir: TempDir,
}

impl Shop {
    /// A shop with these routes.
    async fn start(routes: &str) -> Self {
        let (old, new) = (Orders::start(1).await, Orders::start(1_000_001).await);
        let flags = FlagsDir::empty();
        let services = format!("services:\n  old: {}\n  new: {}\n", old.server.url(), new.server.url());
        flags.write("pointsman.yaml", &format!("{services}default_legacy: old\n"));
        flags.write("workflows/create.yaml", CREATE);
        flags.write("workflows/read.yaml", READ);
        flags.write("workflows/act.yaml", ACT);
        if routes.contains("adopt:") {
            flags.write("workflows/adopt.yaml", ADOPT);
        }
        flags.write("routes/orders.yaml", routes);
        let dir = tempfile::tempdir().expect("a directory");
        let store = format!("sqlite:{}", dir.path().join("db").display());
        let start = Start { flags: flags.path().to_owned(), store, log: dir.path().join("log"), env: Vec::new() };
        let pointsman = Pointsman::start(&start).await;
        Self { pointsman, client: Client::new(WAIT_MAX), old, new, start, _flags: flags, _dir: dir }
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> Reply {
        let url = format!("{}{path}", self.pointsman.url());
        self.client.json(method, &url, &[], &body).await.unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Makes an order; returns the path in the header `location`.
    async fn order(&self) -> String {
        let made = self.send(Method::POST, "/orders", json!({})).await;
        assert_eq!((made.status, made.body.len()), (StatusCode::CREATED, 0), "{:?}", made.body);
        let location = made.headers[LOCATION].to_str().expect("visible").to_owned();
        let (_, id) = location.trim_end_matches("?new").rsplit_once('/').expect("a path");
        format!("/orders/{id}")
    }

    /// Which side made an order, according to what answers a read of it, and an action on it.
    async fn maker(&self, order: &str) -> Value {
        let id = order.trim_start_matches("/orders/");
        let read = self.send(Method::GET, order, Value::Null).await;
        let acted = self.send(Method::POST, "/actions", json!({ "order": id })).await;
        assert_eq!((read.status, acted.status), (StatusCode::OK, StatusCode::OK), "{order}: {:?}", acted.body);
        assert_eq!(read.json(), acted.json(), "{order}");
        read.json()["made_by"].clone()
    }

    async fn force_all(&self, to: &str) {
        for route in ["orders.get", "orders.act", "orders.create"] {
            let body = json!({ "to": to, "reason": "a test", "force": true });
            let reply = self.pointsman.api(Method::POST, &format!("/api/v2/routes/{route}/flip"), body).await;
            assert!(reply.status.is_success(), "{route}: {:?}", reply.body);
        }
    }

    /// Waits until one instance of this arm is alive, according to the store.
    async fn until_one_of(&self, arm: &str) {
        until(&format!("one instance of {arm}"), async || {
            let detail = self.pointsman.get("/api/v2/routes/orders.create").await;
            let rows = detail["row"]["instances"].as_array().cloned().unwrap_or_default();
            rows.iter().any(|row| row["arm"] == arm && row["alive"] == 1).then_some(())
        })
        .await;
    }

    async fn kill_and_restart(&mut self) {
        self.pointsman.kill().await;
        self.pointsman = Pointsman::start(&self.start).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_id_is_in_a_header_is_followed_up_where_it_was_made_also_over_kills() {
    let mut shop = Shop::start(ROUTES).await;
    let of_legacy = shop.order().await;
    assert_eq!(of_legacy, "/orders/1");
    shop.until_one_of("legacy").await;
    shop.pointsman
        .until_metric("the create to be compared", |metrics| {
            metrics.sum("pointsman_comparisons_total", &[("route", "orders.create"), ("outcome", "ignored")]) == 1.0
        })
        .await;
    assert_eq!(shop.new.count(), 1, "the twin");
    shop.kill_and_restart().await;
    // Its twin has another id, which the engine finds in the header of its own answer.
    assert_eq!(shop.maker(&of_legacy).await, 1);
    shop.pointsman
        .until_metric("the read and the action to be compared", |metrics| {
            let compared =
                |route| metrics.sum("pointsman_comparisons_total", &[("route", route), ("outcome", "ignored")]) == 1.0;
            compared("orders.get") && compared("orders.act")
        })
        .await;

    shop.force_all("live").await;
    let of_engine = shop.order().await;
    assert_eq!((of_engine.as_str(), shop.old.count()), ("/orders/1000002", 1));
    assert_eq!(shop.maker(&of_engine).await, 1_000_001);
    shop.until_one_of("engine").await;
    shop.kill_and_restart().await;
    for state in ["live", "off"] {
        if state == "off" {
            shop.force_all(state).await;
        }
        assert_eq!(shop.maker(&of_engine).await, 1_000_001, "{state}");
        assert_eq!(shop.maker(&of_legacy).await, 1, "{state}");
    }
    // Nobody knows which order it is about: legacy gets it whole.
    let unknown = shop.send(Method::POST, "/actions", json!({ "order": ["1", "1000002"] })).await;
    assert_eq!((unknown.status, shop.old.count()), (StatusCode::CREATED, 2), "{:?}", unknown.body);
    assert_eq!(shop.pointsman.stop().await, Some(0), "{}", shop.pointsman.log());
}

/// Legacy reads `01` as `1`: adopted under both ids, the order would be acted on once for each.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_adopted_under_the_id_in_the_header_of_the_adopting_answer_only() {
    let adopting = "creates: header.location, adopt: { workflow: adopt, settles: 0s }";
    let routes = ROUTES.replace("state: dark", "state: live").replace("creates: header.location", adopting);
    let mut shop = Shop::start(&routes).await;
    shop.old.orders.lock().expect("unpoisoned").push(1);
    let act = async |order: &str| shop.send(Method::POST, "/actions", json!({ "order": order })).await;
    let other = act("01").await;
    assert_eq!(other.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", other.body);
    let adopted = act("1").await;
    // The new side answers, which did not make it.
    assert_eq!((adopted.status, &adopted.json()["made_by"]), (StatusCode::OK, &json!(0)), "{:?}", adopted.body);
    assert_eq!(shop.pointsman.stop().await, Some(0), "{}", shop.pointsman.log());
}

/// Python and PHP send `1000001.0` for a float. What the engine has made goes to no other arm for that, and what was
/// adopted is adopted once.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_in_a_body_names_the_same_order_in_each_spelling() {
    let adopting = "creates: header.location, adopt: { workflow: adopt, settles: 0s }";
    let routes = ROUTES.replace("state: dark", "state: live").replace("creates: header.location", adopting);
    let mut shop = Shop::start(&routes).await;
    shop.old.orders.lock().expect("unpoisoned").push(1);
    assert_eq!(shop.order().await, "/orders/1000001");
    let act = async |order: &str| {
        let order: Value = serde_json::from_str(order).expect("JSON");
        shop.send(Method::POST, "/actions", json!({ "order": order })).await
    };
    for order in ["1000001", "\"1000001\"", "1000001.0", "1000001e0", "1.000001e6"] {
        let acted = act(order).await;
        assert_eq!((acted.status, &acted.json()["made_by"]), (StatusCode::OK, &json!(1_000_001)), "{order}");
    }
    for order in ["1.0", "1", "10e-1", "\"1\""] {
        let acted = act(order).await;
        // The new side answers, which did not make it.
        assert_eq!((acted.status, &acted.json()["made_by"]), (StatusCode::OK, &json!(0)), "{order}");
    }
    let adopted = shop.pointsman.get("/api/v2/routes/orders.create/adoptions").await;
    assert_eq!(adopted["adopted"], 1, "{adopted}");
    assert_eq!(shop.pointsman.stop().await, Some(0), "{}", shop.pointsman.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_of_legacy_in_which_no_id_is_found_are_counted() {
    let shop = Shop::start(&ROUTES.replace("creates: header.location", "creates: header.x-order")).await;
    let url = format!("{}/orders", shop.pointsman.url());
    for _ in 0..3 {
        let reply = shop.client.json(Method::POST, &url, &[], &json!({})).await.expect("a reply");
        assert_eq!(reply.status, StatusCode::CREATED);
    }
    until("the count", || async {
        let route = [("route", "orders.create")];
        let metrics = shop.pointsman.metrics().await;
        (metrics.sum("pointsman_legacy_instances_without_id_total", &route) == 3.0).then_some(())
    })
    .await;
}
