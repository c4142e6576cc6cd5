//! Creators that answer without a body: the id of a new order stands in the header `location` of the reply, of legacy's
//! as of the engine's. What follows an order up goes to the arm that made it, also over kill -9.

use std::sync::{Arc, Mutex};

use http::header::LOCATION;
use http::{HeaderValue, Method, StatusCode};
use pointsman::demo::http::{Call, Client, HandlerResult, Reply, Server, empty, json};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::process::Start;
use crate::support::{FlagsDir, LOCAL, PATIENCE, Pointsman, until};

/// Legacy, or the new side that the workflows write to: it numbers its orders, and answers a create with `location`.
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
    let Some(id) = call.segments().get(1).and_then(|id| id.parse::<u64>().ok()) else {
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
const ROUTES: &str = "routes:
- { id: orders.create, match: { method: POST, path: /orders }, legacy: old, workflow: create, state: dark,
    force: { reason: a test }, instance: { creates: header.location },
    compare: { ids: [{ header.location: '/orders/{id}' }] } }
- { id: orders.get, match: { method: GET, path: '/orders/{id}' }, legacy: old, workflow: read, state: dark,
    force: { reason: a test }, instance: { follows: orders.create, key: path.id },
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
    /// A shop whose routes are in `dark`.
    async fn start() -> Self {
        let (old, new) = (Orders::start(1).await, Orders::start(1_000_001).await);
        let flags = FlagsDir::empty();
        let services = format!("services:\n  old: {}\n  new: {}\n", old.server.url(), new.server.url());
        flags.write("pointsman.yaml", &format!("{services}default_legacy: old\n"));
        flags.write("workflows/create.yaml", CREATE);
        flags.write("workflows/read.yaml", READ);
        flags.write("routes/orders.yaml", ROUTES);
        let dir = tempfile::tempdir().expect("a directory");
        let store = format!("sqlite:{}", dir.path().join("db").display());
        let start = Start { flags: flags.path().to_owned(), store, log: dir.path().join("log"), env: Vec::new() };
        let pointsman = Pointsman::start(&start).await;
        Self { pointsman, client: Client::new(PATIENCE), old, new, start, _flags: flags, _dir: dir }
    }

    async fn send(&self, method: Method, path: &str) -> Reply {
        let url = format!("{}{path}", self.pointsman.url());
        let body = if method == Method::GET { Value::Null } else { json!({}) };
        self.client.json(method, &url, &[], &body).await.unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Makes an order; returns the path in the header `location`.
    async fn order(&self) -> String {
        let made = self.send(Method::POST, "/orders").await;
        assert_eq!((made.status, made.body.len()), (StatusCode::CREATED, 0), "{:?}", made.body);
        let location = made.headers[LOCATION].to_str().expect("visible").to_owned();
        let (_, id) = location.trim_end_matches("?new").rsplit_once('/').expect("a path");
        format!("/orders/{id}")
    }

    /// Which side made an order, according to what answers a read of it.
    async fn maker(&self, order: &str) -> Value {
        let read = self.send(Method::GET, order).await;
        assert_eq!(read.status, StatusCode::OK, "{order}: {:?}", read.body);
        read.json()["made_by"].clone()
    }

    async fn force_all(&self, to: &str) {
        for route in ["orders.get", "orders.create"] {
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
    let mut shop = Shop::start().await;
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
        .until_metric("the read to be compared", |metrics| {
            metrics.sum("pointsman_comparisons_total", &[("route", "orders.get"), ("outcome", "ignored")]) == 1.0
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
    assert_eq!(shop.pointsman.stop().await, Some(0), "{}", shop.pointsman.log());
}
