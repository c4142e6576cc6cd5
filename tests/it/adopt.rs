//! Instances of legacy that the engine adopts: at their first write, or in bulk; never by a read. Whatever happens in
//! between, an order is legacy's whole or the engine's whole, and legacy never changes one that it has released.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, StatusCode};
use pointsman::demo::http::{Call, Client, HandlerResult, Reply, Server, json};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::process::{Start, cli, output_text};
use crate::support::{FlagsDir, LOCAL, Metrics, Pointsman, WAIT_MAX, until};

/// Legacy, or the new side that the workflows write to.
struct Orders {
    server: Server,
    state: Arc<Mutex<State>>,
    /// Requests whose path ends so are held while this is not empty.
    held: watch::Sender<&'static str>,
}

#[derive(Default)]
struct State {
    orders: BTreeMap<u64, Order>,
    /// The answer to the call that tells legacy to release an order, instead of 200.
    release: Option<StatusCode>,
    /// The paths of all requests but creates.
    requests: Vec<String>,
    /// Writes to orders that legacy had released.
    violations: Vec<String>,
}

#[derive(Default)]
struct Order {
    cancelled: bool,
    /// The keys of the calls that told legacy to release an order.
    released: Vec<String>,
}

impl Orders {
    async fn start(first: u64) -> Self {
        let (held, holds) = watch::channel("");
        let state: Arc<Mutex<State>> = Arc::default();
        let handled = state.clone();
        let handler = move |call: Call| {
            let (state, mut holds) = (handled.clone(), holds.clone());
            async move {
                let is_create = call.segments().len() < 2;
                if !is_create {
                    state.lock().expect("unpoisoned").requests.push(format!("{} {}", call.method, call.path));
                }
                let path = call.path.clone();
                let _ = holds.wait_for(|held| held.is_empty() || !path.ends_with(*held)).await;
                handle(&mut state.lock().expect("unpoisoned"), first, &call)
            }
        };
        Self { server: Server::start(LOCAL, handler).await.expect("a port"), state, held }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("unpoisoned")
    }

    fn count(&self, request: &str) -> usize {
        self.state().requests.iter().filter(|seen| *seen == request).count()
    }
}

fn handle(state: &mut State, first: u64, call: &Call) -> HandlerResult {
    let shown = |id: u64, order: &Order| json!({ "id": id, "state": if order.cancelled { "cancelled" } else { "open" }, "side": first });
    let segments = call.segments();
    let Some(id) = segments.get(1).and_then(|id| id.parse::<u64>().ok()) else {
        let id = first + state.orders.len() as u64;
        let order = state.orders.entry(id).or_default();
        return Ok(json(StatusCode::CREATED, &shown(id, order)));
    };
    let release = state.release;
    // The new side takes what it is told.
    let known = state.orders.contains_key(&id) || first > 1_000;
    if !known {
        return Ok(json(StatusCode::NOT_FOUND, &json!({ "error": "unknown" })));
    }
    let order = state.orders.entry(id).or_default();
    match segments.get(2).copied() {
        Some("moved") => {
            if let Some(status) = release {
                return Ok(json(status, &json!({ "error": "not now" })));
            }
            let key = call.header("idempotency-key").to_owned();
            if !order.released.contains(&key) {
                order.released.push(key);
            }
        }
        Some(_) if !order.released.is_empty() => state.violations.push(format!("{} {}", call.method, call.path)),
        Some(_) => order.cancelled = true,
        None => {}
    }
    let order = &state.orders[&id];
    Ok(json(StatusCode::OK, &shown(id, order)))
}

const WORKFLOWS: [(&str, &str); 4] = [
    (
        "create",
        "workflow: create
steps:
  make: { effect: private, call: 'POST ${services.new}/orders', body: {} }
respond: { status: 201, body: '${steps.make.output}' }
",
    ),
    (
        "read",
        "workflow: read
steps:
  look: { call: 'GET ${services.new}/orders/${instance.output.id}' }
respond: { status: 200, body: '${steps.look.output}' }
",
    ),
    (
        "cancel",
        "workflow: cancel
steps:
  stop: { effect: private, call: 'POST ${services.new}/orders/${instance.output.id}/cancel' }
respond: { status: 200, body: '${steps.stop.output}' }
",
    ),
    (
        "adopt",
        "workflow: adopt
steps:
  order: { call: 'GET ${services.old}/orders/${instance.id}' }
  let-go: { needs: [order], call: 'POST ${services.old}/orders/${instance.legacy_id}/moved', release: true, timeout: 20s }
respond: { status: 200, body: '${steps.order.output}' }
",
    ),
];

fn routes(adopt: &str) -> String {
    let common = "legacy: old, state: shadow, retry_key: '${request.headers.k}'";
    format!(
        "routes:
- {{ id: orders.create, match: {{ method: POST, path: /orders }}, workflow: create, {common},
    instance: {{ creates: $.id, {adopt} }} }}
- {{ id: orders.get, match: {{ method: GET, path: '/orders/{{id}}' }}, workflow: read, {common},
    instance: {{ follows: orders.create, key: path.id }} }}
- {{ id: orders.cancel, match: {{ method: POST, path: '/orders/{{id}}/cancel' }}, workflow: cancel, {common},
    instance: {{ follows: orders.create, key: path.id,
                ends: '${{reply.status == 200 && reply.body.state == \"cancelled\"}}' }} }}
"
    )
}

const ADOPT: &str = "adopt: { workflow: adopt, settles: 0s }";
const PROMOTE: &str = "promote: { pairs: 1, mismatch_below: 100%, coverage_at_least: 0%, strata_at_least: 0, \
                       effects_compared: false, errors_not_worse_by: 100%, answers: 1, window: 0s }\n";
/// Followers first.
const ROUTES: [&str; 3] = ["orders.get", "orders.cancel", "orders.create"];
const OLD_SIDE: u64 = 1;
const NEW_SIDE: u64 = 1_000_001;

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
    /// A shop with so many orders of legacy, whose family is in `live`. `old` is added to legacy's service.
    async fn start(orders: usize, old_service: &str) -> Self {
        let (old, new) = (Orders::start(OLD_SIDE).await, Orders::start(NEW_SIDE).await);
        let flags = FlagsDir::empty();
        flags.write(
            "pointsman.yaml",
            &format!(
                "services:\n  old: {{ urls: [{}]{old_service} }}\n  new: {}\ndefault_legacy: old\n{PROMOTE}",
                old.server.url(),
                new.server.url()
            ),
        );
        for (name, text) in WORKFLOWS {
            flags.write(&format!("workflows/{name}.yaml"), text);
        }
        flags.write("routes/orders.yaml", &routes(ADOPT));
        let dir = tempfile::tempdir().expect("a directory");
        let store = format!("sqlite:{}", dir.path().join("db").display());
        let start = Start { flags: flags.path().to_owned(), store, log: dir.path().join("log"), env: Vec::new() };
        let pointsman = Pointsman::start(&start).await;
        let shop = Self { pointsman, client: Client::new(WAIT_MAX), old, new, start, flags, _dir: dir };
        for _ in 0..orders {
            assert_eq!(shop.send(Method::POST, "/orders").await.status, StatusCode::CREATED);
        }
        shop.until_alive("legacy", orders as u64).await;
        shop.force_all("live").await;
        shop
    }

    async fn send_with(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
        let url = format!("{}{path}", self.pointsman.url());
        let body = if method == Method::GET { Value::Null } else { json!({}) };
        self.client.json(method, &url, headers, &body).await.unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    async fn send(&self, method: Method, path: &str) -> Reply {
        self.send_with(method, path, &[]).await
    }

    /// Cancels an order; says which side did.
    async fn cancel(&self, id: u64) -> u64 {
        let reply = self.send(Method::POST, &format!("/orders/{id}/cancel")).await;
        assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
        reply.json()["side"].as_u64().expect("a side")
    }

    async fn flip(&self, route: &str, to: &str, force: bool) -> Result<(), String> {
        let body = json!({ "to": to, "reason": "a test", "force": force });
        let reply = self.pointsman.api(Method::POST, &format!("/api/v2/routes/{route}/flip"), body).await;
        match reply.status {
            StatusCode::OK | StatusCode::ACCEPTED => Ok(()),
            _ => Err(reply.json().to_string()),
        }
    }

    async fn force_all(&self, to: &str) {
        let rungs: &[&str] = if to == "live" { &["dark", "live"] } else { &[to] };
        for rung in rungs {
            for route in ROUTES {
                self.flip(route, rung, true).await.unwrap_or_else(|why| panic!("{route}: {why}"));
            }
        }
    }

    async fn until_alive(&self, arm: &str, alive: u64) {
        until(&format!("{alive} instances of {arm}"), async || {
            let detail = self.pointsman.get("/api/v2/routes/orders.create").await;
            let rows = detail["row"]["instances"].as_array().cloned().unwrap_or_default();
            let found = rows.iter().find(|row| row["arm"] == arm).map_or(0, |row| row["alive"].as_u64().unwrap_or(0));
            (found == alive).then_some(())
        })
        .await;
    }

    async fn adoptions(&self) -> Value {
        self.pointsman.get("/api/v2/routes/orders.create/adoptions").await
    }

    /// Asks for a bulk and does not wait for it.
    async fn begin_bulk(&self, ids: &[u64]) {
        let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
        let path = "/api/v2/routes/orders.create/adoptions";
        let reply = self.pointsman.api(Method::POST, path, json!({ "ids": ids })).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{:?}", reply.body);
    }

    async fn until_count(&self, what: &str, number: u64) {
        until(&format!("{number} {what}"), async || (self.adoptions().await[what] == number).then_some(())).await;
    }

    async fn reload(&self, routes: &str) {
        self.flags.write("routes/orders.yaml", routes);
        let done = self.pointsman.cli(&["reload"]).await;
        assert!(done.status.success(), "{}", output_text(&done));
    }

    async fn kill_and_restart(&mut self) {
        self.pointsman.kill().await;
        self.pointsman = Pointsman::start(&self.start).await;
    }

    async fn finish(mut self) {
        assert_eq!(self.old.state().violations, Vec::<String>::new(), "legacy changed what it had released");
        for (id, order) in &self.old.state().orders {
            assert!(order.released.len() <= 1, "{id} was released {} times", order.released.len());
        }
        assert_eq!(self.pointsman.stop().await, Some(0), "{}", self.pointsman.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_write_moves_an_order_and_a_read_never_does() {
    let mut shop = Shop::start(2, "").await;
    for _ in 0..3 {
        let read = shop.send(Method::GET, "/orders/1").await;
        assert_eq!(read.json()["side"], OLD_SIDE, "legacy answers reads");
    }
    assert_eq!(shop.adoptions().await["adopted"], 0);
    assert_eq!(shop.cancel(1).await, NEW_SIDE, "the engine answers the write that moved the order");
    assert_eq!((shop.old.count("POST /orders/1/cancel"), shop.new.count("POST /orders/1/cancel")), (0, 1));
    shop.until_alive("legacy", 1).await;
    assert_eq!(shop.send(Method::GET, "/orders/1").await.json()["side"], NEW_SIDE);
    // As any pin: in every state, and after a kill.
    shop.force_all("off").await;
    shop.kill_and_restart().await;
    assert_eq!(shop.send(Method::GET, "/orders/1").await.json()["side"], NEW_SIDE);
    assert_eq!(shop.cancel(2).await, OLD_SIDE, "below `live` nothing is moved");
    shop.finish().await;
}

/// Legacy reads `001` as order 1. Adopted under each spelling, it would be cancelled by the engine once for each.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_under_another_spelling_of_its_id_is_not_the_engines() {
    let shop = Shop::start(1, "").await;
    for _ in 0..2 {
        let refused = shop.send(Method::POST, "/orders/001/cancel").await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", refused.body);
    }
    let (old, new) = (shop.old.count("POST /orders/001/cancel"), shop.new.count("POST /orders/1/cancel"));
    assert_eq!((old, new), (0, 0), "nobody has cancelled it");
    let adoptions = shop.adoptions().await;
    let why = adoptions["instances"][0]["reason"].as_str().unwrap_or_default();
    assert!(why.contains(r#"whose id is "1", and "001" was asked for"#), "{adoptions}");
    assert_eq!((&adoptions["adopted"], &adoptions["unknown"]), (&json!(0), &json!(1)));
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_at_the_same_time_make_one_adoption_and_the_engine_answers_all() {
    let shop = Shop::start(1, "").await;
    let writes = (0..8).map(|_| shop.cancel(1));
    let sides = futures_util::future::join_all(writes).await;
    assert_eq!(sides, [NEW_SIDE; 8]);
    assert_eq!(shop.old.count("POST /orders/1/moved"), 1);
    assert_eq!(shop.adoptions().await["adopted"], 1);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_moves_only_when_what_legacy_has_of_it_has_ended() {
    let shop = Shop::start(2, "").await;
    shop.old.held.send_replace("/orders/1");
    let (read, write, other) = tokio::join!(
        shop.send(Method::GET, "/orders/1"),
        async {
            until("legacy to have the read", async || (shop.old.count("GET /orders/1") > 0).then_some(())).await;
            shop.cancel(1).await
        },
        async {
            until("legacy to have the read", async || (shop.old.count("GET /orders/1") > 0).then_some(())).await;
            let other = shop.cancel(2).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(shop.adoptions().await["moving"], 0, "it is not claimed while legacy has a request");
            assert_eq!(shop.old.count("POST /orders/1/moved"), 0);
            shop.old.held.send_replace("");
            other
        },
    );
    assert_eq!(read.json()["side"], OLD_SIDE);
    assert_eq!((write, other), (NEW_SIDE, NEW_SIDE), "the other order did not wait");
    shop.finish().await;
}

/// Four orders are being moved when new files take `adopt:` away: they end, and no other order begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_stops_where_new_files_no_longer_say_adopt() {
    let shop = Shop::start(9, "").await;
    shop.old.held.send_replace("/moved");
    let all = ["adopt", "orders.create", "--all"];
    let (bulk, ()) = tokio::join!(shop.pointsman.cli(&all), async {
        let moved = |id: u64| shop.old.count(&format!("POST /orders/{id}/moved"));
        until("four orders to be released", async || ((1..=9).map(moved).sum::<usize>() == 4).then_some(())).await;
        shop.reload(&routes("")).await;
        shop.old.held.send_replace("");
    });
    let told = output_text(&bulk);
    assert!(!bulk.status.success() && told.contains("9 of 9: 4 adopted, 5 stayed legacy's"), "{told}");
    assert!(told.contains("the files no longer say `adopt:` for its family"), "{told}");
    shop.finish().await;
}

/// A write that was decided by files without `adopt:` is not counted as its order's. While legacy has it, no order moves.
#[tokio::test(flavor = "multi_thread")]
async fn no_order_moves_while_legacy_has_a_write_that_earlier_files_decided() {
    let shop = Shop::start(3, "").await;
    shop.reload(&routes("")).await;
    shop.old.held.send_replace("/orders/1/cancel");
    let (slow, other) = tokio::join!(shop.cancel(1), async {
        let is_there = async || (shop.old.count("POST /orders/1/cancel") > 0).then_some(());
        until("legacy to have the write", is_there).await;
        shop.reload(&routes(ADOPT)).await;
        let other = shop.cancel(2).await;
        let bulk = shop.pointsman.cli(&["adopt", "orders.create", "--id", "1"]).await;
        let why = "a request that may change something, and began under earlier files, has not ended";
        assert!(output_text(&bulk).contains(why), "{}", output_text(&bulk));
        shop.old.held.send_replace("");
        other
    });
    assert_eq!((slow, other), (OLD_SIDE, OLD_SIDE));
    until("an order to move after that", async || {
        shop.pointsman.cli(&["adopt", "orders.create", "--id", "3"]).await;
        (shop.adoptions().await["adopted"] == 1).then_some(())
    })
    .await;
    assert_eq!(shop.cancel(3).await, NEW_SIDE);
    shop.finish().await;
}

/// What was asked for when the write came is no longer wanted when legacy has ended the order's requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_waits_stops_when_the_files_no_longer_ask_for_it() {
    let shop = Shop::start(1, "").await;
    shop.reload(&routes(ADOPT).replace("workflow: cancel,", "workflow: cancel, requests_max: 50,")).await;
    shop.old.held.send_replace("/orders/1");
    let (read, side, ()) = tokio::join!(
        shop.send(Method::GET, "/orders/1"),
        async {
            until("legacy to have the read", async || (shop.old.count("GET /orders/1") > 0).then_some(())).await;
            shop.cancel(1).await
        },
        async {
            until("the write to wait", async || {
                let metrics = shop.pointsman.metrics().await;
                let cancels = metrics.sum("pointsman_route_requests_in_flight", &[("route", "orders.cancel")]);
                (cancels == 1.0).then_some(())
            })
            .await;
            shop.reload(&routes("")).await;
            shop.old.held.send_replace("");
        },
    );
    assert_eq!((&read.json()["side"], side), (&json!(OLD_SIDE), OLD_SIDE));
    assert_eq!(shop.old.count("POST /orders/1/moved"), 0);
    shop.finish().await;
}

/// Which requests legacy has of an order is known of those that were counted as the order's: requests that earlier
/// files found in another way may still be under way.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_change_of_how_followers_find_their_order_legacys_requests_must_end_before_orders_move() {
    let shop = Shop::start(2, "").await;
    let routes = routes("adopt: { workflow: adopt, settles: 1h }");
    shop.reload(&routes).await;
    assert_eq!(shop.cancel(1).await, NEW_SIDE, "in a new store its first files are counted from the start");
    shop.reload(&routes.replace("'/orders/{id}/cancel' }", "'/orders/{id}/{what}' }")).await;
    assert_eq!(shop.cancel(2).await, OLD_SIDE);
    assert_eq!((shop.adoptions().await["adopted"].clone(), shop.old.count("POST /orders/2/moved")), (json!(1), 0));
    shop.finish().await;
}

/// The family when its creator lists an id that is older than all others.
fn with_older_id() -> String {
    routes(ADOPT).replace("{ id: orders.create,", "{ id: orders.create, was: [orders.older],")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_order_moves_while_legacy_has_a_write_from_before_the_creator_listed_an_older_id() {
    let shop = Shop::start(2, "").await;
    for route in ROUTES.iter().rev() {
        shop.flip(route, "dark", false).await.expect("down is open");
    }
    shop.old.held.send_replace("/orders/1/cancel");
    let has = async |count: usize| {
        let is_there = async || (shop.old.count("POST /orders/1/cancel") == count).then_some(());
        until("legacy to have the writes", is_there).await;
    };
    let (first, second, ()) = tokio::join!(
        shop.cancel(1),
        async {
            has(1).await;
            shop.force_all("live").await;
            shop.reload(&with_older_id()).await;
            shop.cancel(1).await
        },
        async {
            has(2).await;
            shop.old.held.send_replace("");
        },
    );
    assert_eq!((first, second, shop.old.count("POST /orders/1/moved")), (OLD_SIDE, OLD_SIDE, 0));
    until("an order to move after that", async || {
        shop.pointsman.cli(&["adopt", "orders.create", "--id", "2"]).await;
        (shop.adoptions().await["adopted"] == 1).then_some(())
    })
    .await;
    assert_eq!(shop.cancel(2).await, NEW_SIDE);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_order_is_decided_after_its_creator_listed_an_older_id() {
    let mut shop = Shop::start(1, "").await;
    shop.old.state().release = Some(StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(shop.send(Method::POST, "/orders/1/cancel").await.status, StatusCode::SERVICE_UNAVAILABLE);
    shop.reload(&with_older_id()).await;
    assert_eq!(shop.send(Method::GET, "/orders/1").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let listed = shop.adoptions().await;
    assert_eq!((&listed["unknown"], &listed["instances"][0]["state"]), (&json!(1), &json!("unknown")), "{listed}");
    shop.old.state().release = None;
    let args = ["adopt", "orders.create", "--id", "1", "--legacy", "--reason", "asked legacy"];
    let decided = shop.pointsman.cli(&args).await;
    assert!(decided.status.success(), "{}", output_text(&decided));
    assert_eq!(shop.send(Method::GET, "/orders/1").await.json()["side"], OLD_SIDE);
    shop.kill_and_restart().await;
    // A process that has just started counts legacy's requests from then on.
    until("the order to move", async || (shop.cancel(1).await == NEW_SIDE).then_some(())).await;
    let listed = shop.adoptions().await;
    assert_eq!((&listed["unknown"], &listed["adopted"]), (&json!(0), &json!(1)), "one adoption of one order: {listed}");
    shop.until_alive("legacy", 0).await;
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_to_only_opens_once_all_orders_were_adopted() {
    let shop = Shop::start(7, "").await;
    let order = shop.send(Method::POST, "/orders").await.json()["id"].as_u64().expect("an id");
    shop.send(Method::GET, &format!("/orders/{order}")).await;
    assert_eq!(shop.cancel(order).await, NEW_SIDE);
    let refused = shop.flip("orders.get", "only", false).await.expect_err("legacy has orders");
    assert!(
        refused.contains("legacy still has 7 instances") && refused.contains("pointsman adopt orders.create --all")
    );
    let adopted = shop.pointsman.cli(&["adopt", "orders.create", "--all"]).await;
    assert!(adopted.status.success(), "{}", output_text(&adopted));
    assert!(output_text(&adopted).contains("7 of 7: 7 adopted"), "{}", output_text(&adopted));
    shop.until_alive("engine", 7).await;
    for route in ROUTES {
        shop.flip(route, "only", false).await.unwrap_or_else(|why| panic!("{route}: {why}"));
    }
    for id in 1..=7 {
        assert_eq!(shop.cancel(id).await, NEW_SIDE);
    }
    // Once more: nothing is left.
    let again = shop.pointsman.cli(&["adopt", "orders.create", "--id", "3", "--json"]).await;
    assert!(again.status.success(), "{}", output_text(&again));
    assert_eq!(shop.old.state().orders.values().filter(|order| order.released.len() == 1).count(), 7);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_legacy_does_not_let_go_of_stays_legacys_and_is_listed() {
    let shop = Shop::start(2, "").await;
    shop.old.state().release = Some(StatusCode::CONFLICT);
    assert_eq!(shop.cancel(1).await, OLD_SIDE, "legacy answers the write");
    let listed = shop.adoptions().await;
    assert_eq!((&listed["given_back"], &listed["adopted"]), (&json!(1), &json!(0)), "{listed}");
    let row = &listed["instances"][0];
    assert_eq!((&row["id"], &row["state"]), (&json!("1"), &json!("given_back")), "{listed}");
    assert!(row["reason"].as_str().is_some_and(|why| why.contains("409")), "{listed}");
    let bulk = shop.pointsman.cli(&["adopt", "orders.create", "--id", "2", "--id", "77"]).await;
    assert_eq!(bulk.status.code(), Some(1));
    let shown = output_text(&bulk);
    assert!(shown.contains("77") && shown.contains("404"), "{shown}");
    // A bulk that has ended before its first look fails too.
    let bulk = shop.pointsman.cli(&["adopt", "orders.create", "--id", "78"]).await;
    assert_eq!(bulk.status.code(), Some(1), "{}", output_text(&bulk));
    // Later legacy releases it.
    shop.old.state().release = None;
    let bulk = shop.pointsman.cli(&["adopt", "orders.create", "--id", "2"]).await;
    assert!(bulk.status.success(), "{}", output_text(&bulk));
    assert_eq!(shop.cancel(2).await, NEW_SIDE);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers_for_an_unknown_order_until_a_person_has_decided() {
    let mut shop = Shop::start(2, "").await;
    shop.old.state().release = Some(StatusCode::INTERNAL_SERVER_ERROR);
    for id in [1, 2] {
        let write = shop.send(Method::POST, &format!("/orders/{id}/cancel")).await;
        assert_eq!(write.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", write.body);
        assert!(write.json()["detail"].as_str().is_some_and(|text| text.contains("pointsman adopt")));
        let read = shop.send(Method::GET, &format!("/orders/{id}")).await;
        assert_eq!(read.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", read.body);
    }
    shop.kill_and_restart().await;
    assert_eq!(shop.send(Method::GET, "/orders/1").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let listed = shop.adoptions().await;
    assert_eq!((&listed["unknown"], &listed["instances"][0]["state"]), (&json!(2), &json!("unknown")), "{listed}");
    assert!(shop.flip("orders.get", "only", false).await.expect_err("a person decides").contains("2 instances"));
    until("status to say so", async || {
        let status = shop.pointsman.get("/api/v2/status").await;
        status["adoption_trouble"].as_str()?.contains("2 instances of `orders.create`").then_some(())
    })
    .await;
    shop.old.state().release = None;
    for (id, owner, side) in [(1_u64, "--legacy", OLD_SIDE), (2, "--engine", NEW_SIDE)] {
        let id_text = id.to_string();
        let args = ["adopt", "orders.create", "--id", &id_text, owner, "--reason", "asked legacy"];
        let decided = shop.pointsman.cli(&args).await;
        assert!(decided.status.success(), "{}", output_text(&decided));
        let again = shop.pointsman.cli(&args).await;
        assert!(!again.status.success() && output_text(&again).contains("nobody has to decide"));
        if side == OLD_SIDE {
            assert_eq!(shop.send(Method::GET, &format!("/orders/{id}")).await.json()["side"], side);
        }
    }
    shop.until_alive("engine", 1).await;
    until("the decisions in the record", async || {
        let page = shop.pointsman.get("/api/v2/record").await;
        let decided = page["entries"].as_array()?.iter().filter(|entry| entry["kind"] == "instance").cloned();
        let decided: Vec<_> =
            decided.map(|entry| (entry["body"]["instance"].clone(), entry["body"]["owner"].clone())).collect();
        (decided == [(json!("1"), json!("legacy")), (json!("2"), json!("engine"))]).then_some(())
    })
    .await;
    shop.finish().await;
}

/// Nothing but `--id` has named these orders: no request has shown them.
#[tokio::test(flavor = "multi_thread")]
async fn the_gate_to_only_counts_what_is_unknown_and_what_a_person_gave_back() {
    let shop = Shop::start(0, "").await;
    for id in [5, 6] {
        shop.old.state().orders.insert(id, Order::default());
    }
    shop.old.state().release = Some(StatusCode::INTERNAL_SERVER_ERROR);
    let order = shop.send(Method::POST, "/orders").await.json()["id"].as_u64().expect("an id");
    shop.send(Method::GET, &format!("/orders/{order}")).await;
    let bulk = shop.pointsman.cli(&["adopt", "orders.create", "--id", "5", "--id", "6"]).await;
    assert_eq!(bulk.status.code(), Some(1), "{}", output_text(&bulk));
    shop.until_alive("legacy", 2).await;
    let refused = shop.flip("orders.get", "only", false).await.expect_err("they are unknown");
    assert!(refused.contains("2 instances"), "{refused}");
    let both = ["adopt", "orders.create", "--id", "5", "--id", "6", "--legacy", "--reason", "asked legacy"];
    let decided = shop.pointsman.cli(&both).await;
    assert!(decided.status.success(), "{}", output_text(&decided));
    let listed = shop.adoptions().await;
    assert_eq!((&listed["unknown"], &listed["given_back"], &listed["adopted"]), (&json!(0), &json!(2), &json!(0)));
    let refused = shop.flip("orders.get", "only", false).await.expect_err("legacy has them");
    assert!(refused.contains("2 instances"), "{refused}");
    let no_owner = shop.pointsman.cli(&["adopt", "orders.create", "--id", "5", "--reason", "no owner"]).await;
    assert_eq!(no_owner.status.code(), Some(2), "{}", output_text(&no_owner));
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_what_legacy_took_stays_with_legacy() {
    let shop = Shop::start(1, ", keyed: true").await;
    shop.force_all("dark").await;
    let keyed =
        async || shop.send_with(Method::POST, "/orders/1/cancel", &[("k", "once")]).await.json()["side"].clone();
    assert_eq!(keyed().await, OLD_SIDE);
    shop.force_all("live").await;
    assert_eq!(keyed().await, OLD_SIDE, "a retry moves nothing");
    assert_eq!(shop.adoptions().await["adopted"], 0);
    shop.begin_bulk(&[1]).await;
    shop.until_count("adopted", 1).await;
    let before = shop.new.count("POST /orders/1/cancel");
    assert_eq!(keyed().await, OLD_SIDE, "legacy has the answer to what it took");
    assert_eq!(shop.new.count("POST /orders/1/cancel"), before, "the engine did not do it a second time");
    // Legacy recognises its own retry; this one does not.
    shop.old.state().violations.clear();
    shop.finish().await;
}

/// A service that does not recognise retries would do it again, or for the first time.
#[tokio::test(flavor = "multi_thread")]
async fn legacy_gets_no_retry_for_an_adopted_order_unless_it_recognises_retries() {
    let shop = Shop::start(1, "").await;
    shop.force_all("dark").await;
    let keyed = async || shop.send_with(Method::POST, "/orders/1/cancel", &[("k", "once")]).await;
    assert_eq!(keyed().await.json()["side"], OLD_SIDE);
    shop.force_all("live").await;
    shop.begin_bulk(&[1]).await;
    shop.until_count("adopted", 1).await;
    let before = (shop.old.count("POST /orders/1/cancel"), shop.new.count("POST /orders/1/cancel"));
    let retried = keyed().await;
    assert_eq!(retried.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", retried.body);
    assert!(
        retried.json()["detail"].as_str().is_some_and(|text| text.contains("with a new key")),
        "{:?}",
        retried.body
    );
    assert_eq!((shop.old.count("POST /orders/1/cancel"), shop.new.count("POST /orders/1/cancel")), before);
    assert_eq!(shop.cancel(1).await, NEW_SIDE, "a new request is the engine's");
    shop.finish().await;
}

/// Legacy's counter starts anew, as after a restart or with a restored backup. Requests about the new order 1 would reach
/// the old one.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_an_adopted_order_that_legacy_gives_out_again_is_a_pin_collision() {
    let shop = Shop::start(3, "").await;
    let adopted = shop.pointsman.cli(&["adopt", "orders.create", "--all"]).await;
    assert!(adopted.status.success(), "{}", output_text(&adopted));
    shop.flip("orders.create", "dark", false).await.expect("down");
    let collisions = |metrics: &Metrics| metrics.sum("pointsman_pin_collisions_total", &[("route", "orders.create")]);
    assert_eq!(shop.send(Method::POST, "/orders").await.json()["id"], 4);
    shop.old.state().orders.clear();
    assert_eq!(shop.send(Method::POST, "/orders").await.json()["id"], 1);
    shop.pointsman.until_metric("the collision", |metrics| collisions(metrics) == 1.0).await;
    let refused = shop.flip("orders.create", "live", false).await.expect_err("the engine creates no orders now");
    assert!(refused.contains("the same id"), "{refused}");
    shop.finish().await;
}

/// At each of these points the process is killed; the next one goes on, and the order is one arm's.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_leaves_an_order_that_the_next_one_finishes() {
    // A keyed service recognises the repeated call.
    let mut shop = Shop::start(2, ", keyed: true").await;
    for (id, held) in [(1, "/orders/1"), (2, "/moved")] {
        shop.old.held.send_replace(held);
        shop.begin_bulk(&[id]).await;
        let method = if held == "/moved" { "POST" } else { "GET" };
        let path = if held == "/moved" { format!("/orders/{id}/moved") } else { held.to_owned() };
        let call = format!("{method} {path}");
        until("the call", async || (shop.old.count(&call) > 0).then_some(())).await;
        assert_eq!(shop.adoptions().await["moving"], 1);
        shop.pointsman.kill().await;
        shop.old.held.send_replace("");
        shop.pointsman = Pointsman::start(&shop.start).await;
        assert_eq!(shop.cancel(id).await, NEW_SIDE, "its first request waits until the move is finished");
    }
    shop.until_count("adopted", 2).await;
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_goes_on_after_kills_at_any_moment() {
    let mut shop = Shop::start(24, ", keyed: true").await;
    let ids: Vec<u64> = (1..=24).collect();
    for round in 0..5 {
        shop.begin_bulk(&ids).await;
        tokio::time::sleep(Duration::from_millis(5 + 23 * round)).await;
        shop.kill_and_restart().await;
    }
    let done = shop.pointsman.cli(&["adopt", "orders.create", "--all"]).await;
    assert!(done.status.success(), "{}", output_text(&done));
    shop.until_count("adopted", 24).await;
    for id in ids {
        assert_eq!(shop.cancel(id).await, NEW_SIDE);
    }
    assert!(shop.old.state().orders.values().all(|order| order.released.len() == 1 && !order.cancelled));
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_refuses_what_may_not_move_an_order() {
    let good = WORKFLOWS[3].1;
    let passive = "workflow: adopt
legacy_passive: { reason: legacy only answers }
steps: { order: { call: 'GET ${services.old}/orders/${instance.id}' } }
respond: { status: 200, body: '${steps.order.output}' }
";
    let cases: [(&str, String, &str); 9] = [
        (ADOPT, good.to_owned(), ""),
        ("adopt: adopt", passive.to_owned(), ""),
        ("adopt: adopd", good.to_owned(), "no workflow is called `adopd`"),
        (ADOPT, good.replace("release: true, ", ""), "does not say how legacy releases"),
        (
            ADOPT,
            passive.replace("legacy_passive: { reason: legacy only answers }\n", ""),
            "does not say how legacy releases",
        ),
        (
            ADOPT,
            good.replace("steps:\n", "legacy_passive: { reason: x }\nsteps:\n"),
            "`legacy_passive` says that legacy need not be told",
        ),
        (
            ADOPT,
            good.replace("steps:\n", "steps:\n  more: { call: 'PUT ${services.new}/x' }\n"),
            "`more` is a shared step",
        ),
        (ADOPT, good.replace("${instance.id}", "${request.path}"), "`request` cannot be read"),
        (ADOPT, good.replace("${instance.id}", "${instance.input.id}"), "`instance.input` cannot be read"),
    ];
    for (adopt, workflow, message) in cases {
        let flags = FlagsDir::empty();
        let services = "services: { old: 'http://127.0.0.1:9', new: 'http://127.0.0.1:8' }\ndefault_legacy: old\n";
        flags.write("pointsman.yaml", services);
        for (name, text) in WORKFLOWS {
            flags.write(&format!("workflows/{name}.yaml"), text);
        }
        flags.write("workflows/adopt.yaml", &workflow);
        flags.write("routes/orders.yaml", &routes(adopt));
        let checked = cli(&["check", &flags.path().display().to_string()], &[]).await;
        let text = output_text(&checked);
        assert_eq!(checked.status.success(), message.is_empty(), "{adopt}\n{workflow}\n{text}");
        assert!(text.contains(message), "{message}: {text}");
    }
}
