//! Instances that have not ended: legacy's hold the gate to `only`, until they have ended or legacy does not list them
//! any more; the engine's are counted until they have ended; an id of which nothing is known is answered as declared.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Method, StatusCode};
use pointsman::demo::http::{Call, Client, HandlerResult, Reply, Server, json};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::process::{Start, output_text};
use crate::support::{FlagsDir, LOCAL, Metrics, Pointsman, WAIT_MAX, until};

/// A service that keeps orders: legacy, or the new side that the workflows write to.
struct Orders {
    server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Whether each order is open, by its number.
    open: BTreeMap<u64, bool>,
    /// The number of the next order, instead of the one that comes next.
    next: Option<u64>,
    /// The status and body of the list of open orders, instead of the true ones.
    list: Option<(StatusCode, Value)>,
    requests: u64,
}

impl Orders {
    async fn start(first: u64) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let handled = state.clone();
        let handler = move |call: Call| {
            let reply = handle(&mut handled.lock().expect("unpoisoned"), first, &call);
            async move { reply }
        };
        Self { server: Server::start(LOCAL, handler).await.expect("a port"), state }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("unpoisoned")
    }
}

fn handle(state: &mut State, first: u64, call: &Call) -> HandlerResult {
    state.requests += 1;
    let shown = |id: u64, open: bool| json!({ "id": id, "state": if open { "open" } else { "cancelled" } });
    if call.path.starts_with("/open") {
        if call.header("x-key") != "the key" {
            return Ok(json(StatusCode::FORBIDDEN, &json!({})));
        }
        let open = state.open.iter().filter(|(_, open)| **open).map(|(id, _)| json!({ "id": id }));
        let (status, list) =
            state.list.clone().unwrap_or((StatusCode::OK, json!({ "items": open.collect::<Vec<_>>() })));
        return Ok(json(status, &list));
    }
    let Some(id) = call.segments().get(1).and_then(|id| id.parse::<u64>().ok()) else {
        let id = state.next.take().unwrap_or(first + state.open.len() as u64);
        state.open.insert(id, true);
        return Ok(json(StatusCode::CREATED, &shown(id, true)));
    };
    let Some(open) = state.open.get_mut(&id) else {
        return Ok(json(StatusCode::NOT_FOUND, &json!({ "error": "unknown" })));
    };
    if call.method == Method::POST {
        *open = false;
    }
    Ok(json(StatusCode::OK, &shown(id, *open)))
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
        "status",
        "workflow: status
steps:
  see: { set: '${instance.status}' }
respond: { status: 200, body: { status: '${steps.see.output}' } }
",
    ),
];

/// The family; `creator` is added to the creator's `instance:`.
fn routes(state: &str, creator: &str) -> String {
    let common = format!("legacy: old, state: {state}, force: {{ reason: a test }}");
    format!(
        "routes:
- {{ id: orders.create, match: {{ method: POST, path: /orders }}, workflow: create, {common},
    instance: {{ creates: $.id{creator} }} }}
- {{ id: orders.get, match: {{ method: GET, path: '/orders/{{id}}' }}, workflow: read, {common},
    instance: {{ follows: orders.create, key: path.id, unknown: not_found }} }}
- {{ id: orders.status, match: {{ method: GET, path: '/orders/{{id}}/status' }}, workflow: status, {common},
    instance: {{ follows: orders.create, key: path.id, unknown: workflow }} }}
- {{ id: orders.cancel, match: {{ method: POST, path: '/orders/{{id}}/cancel' }}, workflow: cancel, {common},
    instance: {{ follows: orders.create, key: path.id,
                ends: '${{reply.status == 200 && reply.body.state == \"cancelled\"}}' }} }}
"
    )
}

const FOLLOWERS: [&str; 3] = ["orders.get", "orders.status", "orders.cancel"];
const PROMOTE: &str = "promote: { pairs: 1, mismatch_below: 100%, coverage_at_least: 0%, strata_at_least: 0, \
                       effects_compared: false, errors_not_worse_by: 100%, answers: 1, window: 0s }\n";

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
    /// A shop whose family is in this state; `creator` is added to the creator's `instance:`.
    async fn start(state: &str, creator: &str) -> Self {
        let (old, new) = (Orders::start(1).await, Orders::start(1_000_001).await);
        let flags = FlagsDir::empty();
        let services = format!("services:\n  old: {}\n  new: {}\n", old.server.url(), new.server.url());
        flags.write(
            "pointsman.yaml",
            &format!("{services}default_legacy: old\nsecrets: {{ shop: {{ env: SHOP_KEY }} }}\n{PROMOTE}"),
        );
        for (name, text) in WORKFLOWS {
            flags.write(&format!("workflows/{name}.yaml"), text);
        }
        flags.write("routes/orders.yaml", &routes(state, creator));
        let dir = tempfile::tempdir().expect("a directory");
        let store = format!("sqlite:{}", dir.path().join("db").display());
        let env = vec![("SHOP_KEY".to_owned(), "the key".to_owned())];
        let start = Start { flags: flags.path().to_owned(), store, log: dir.path().join("log"), env };
        let pointsman = Pointsman::start(&start).await;
        Self { pointsman, client: Client::new(WAIT_MAX), old, new, start, flags, _dir: dir }
    }

    async fn send_with(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
        let url = format!("{}{path}", self.pointsman.url());
        let body = if method == Method::GET { Value::Null } else { json!({}) };
        self.client.json(method, &url, headers, &body).await.unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    async fn send(&self, method: Method, path: &str) -> Reply {
        self.send_with(method, path, &[]).await
    }

    /// Makes an order; returns its path.
    async fn order(&self) -> String {
        let made = self.send(Method::POST, "/orders").await;
        assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
        format!("/orders/{}", made.json()["id"])
    }

    async fn cancel(&self, order: &str) {
        let cancelled = self.send(Method::POST, &format!("{order}/cancel")).await;
        assert_eq!(cancelled.status, StatusCode::OK, "{:?}", cancelled.body);
    }

    /// Makes, reads and cancels an order, so that the engine has answered on each route.
    async fn use_every_route(&self) {
        let order = self.order().await;
        for path in [order.clone(), format!("{order}/status")] {
            let read = self.send(Method::GET, &path).await;
            assert_eq!(read.status, StatusCode::OK, "{:?}", read.body);
        }
        self.cancel(&order).await;
    }

    /// Flips a route without force; an error has the reasons of the gate.
    async fn flip(&self, route: &str, to: &str, force: bool) -> Result<(), String> {
        let body = json!({ "to": to, "reason": "a test", "force": force });
        let reply = self.pointsman.api(Method::POST, &format!("/api/v2/routes/{route}/flip"), body).await;
        match reply.status {
            // A flip down may not be recorded yet.
            StatusCode::OK | StatusCode::ACCEPTED => Ok(()),
            StatusCode::CONFLICT => Err(reply.json().to_string()),
            status => panic!("{status}: {:?}", reply.body),
        }
    }

    async fn force_all(&self, to: &str) {
        for route in FOLLOWERS.into_iter().chain(["orders.create"]) {
            self.flip(route, to, true).await.unwrap_or_else(|why| panic!("{route}: {why}"));
        }
    }

    /// Waits until so many instances of an arm are alive, according to the store.
    async fn until_alive(&self, arm: &str, alive: u64) -> Value {
        until(&format!("{alive} instances of {arm}"), async || {
            let detail = self.pointsman.get("/api/v2/routes/orders.create").await;
            let rows = detail["row"]["instances"].as_array().cloned().unwrap_or_default();
            let row = rows.into_iter().find(|row| row["arm"] == arm);
            let row = row.unwrap_or_else(|| json!({ "alive": 0, "drained": null }));
            (row["alive"] == alive).then_some(row)
        })
        .await
    }

    async fn kill_and_restart(&mut self) {
        self.pointsman.kill().await;
        self.pointsman = Pointsman::start(&self.start).await;
    }

    async fn finish(mut self) {
        assert_eq!(self.pointsman.stop().await, Some(0), "{}", self.pointsman.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_shown_above_off_ends_in_off_too() {
    let shop = Shop::start("shadow", "").await;
    shop.flip("orders.cancel", "off", false).await.expect("down");
    let order = shop.order().await;
    shop.until_alive("legacy", 1).await;
    shop.cancel(&order).await;
    shop.until_alive("legacy", 0).await;
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_legacy_holds_the_gate_to_only_until_it_has_ended_also_over_kills() {
    let mut shop = Shop::start("shadow", "").await;
    let old = shop.order().await;
    shop.until_alive("legacy", 1).await;
    shop.kill_and_restart().await;
    shop.until_alive("legacy", 1).await;
    shop.force_all("live").await;
    shop.use_every_route().await;
    for route in FOLLOWERS {
        let refused = shop.flip(route, "only", false).await.expect_err("legacy has an order");
        assert!(refused.contains("legacy still has 1 instance of `orders.create`"), "{route}: {refused}");
        assert!(refused.contains("wait until they have ended"), "{route}: {refused}");
    }
    let status = output_text(&shop.pointsman.cli(&["status"]).await);
    assert!(status.contains("orders.create: instances alive: engine 0, drained for"), "{status}");
    assert!(status.contains("legacy 1, the oldest for"), "{status}");
    // Reading it does not end it, and its end outlasts the process.
    assert_eq!(shop.send(Method::GET, &old).await.json()["state"], "open");
    shop.cancel(&old).await;
    let drained = shop.until_alive("legacy", 0).await;
    assert!(drained["drained"].is_string(), "{drained}");
    shop.kill_and_restart().await;
    until("the instances to be counted", async || {
        let status = output_text(&shop.pointsman.cli(&["status"]).await);
        status.contains("legacy 0 of those that requests have shown, drained for").then_some(())
    })
    .await;
    assert_eq!(shop.send(Method::GET, &old).await.json()["state"], "cancelled", "legacy answers");
    for route in FOLLOWERS {
        let flipped = shop.pointsman.cli(&["flip", route, "only"]).await;
        let said = output_text(&flipped);
        assert!(flipped.status.success(), "{route}: {said}");
        let unlisted = "legacy's instances of `orders.create` that no request has shown are not known";
        assert!(said.contains(unlisted), "{route}: {said}");
    }
    shop.flip("orders.create", "only", false).await.expect("nothing is left at legacy");
    shop.until_alive("legacy", 0).await;
    shop.use_every_route().await;
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_asks_legacy_for_its_orders_and_a_failure_is_no_pass() {
    let alive = ", alive: { call: 'GET ${services.old}/open?all=1', ids: '$.items[*].id', \
                 headers: { x-key: '${secrets.shop}' } }";
    let shop = Shop::start("live", alive).await;
    shop.use_every_route().await;
    // An order that no request through the proxy has shown.
    shop.old.state().open.insert(17, true);
    let refusal = async || shop.flip("orders.get", "only", false).await.expect_err("the gate is shut");
    let refused = refusal().await;
    assert!(refused.contains("legacy still has 1 instance of `orders.create`"), "{refused}");
    for (status, list, why) in [
        (StatusCode::SERVICE_UNAVAILABLE, json!({ "items": [] }), "was answered with 503"),
        (StatusCode::OK, json!({ "orders": [] }), "has no list at"),
        (StatusCode::OK, json!({ "items": [{ "number": 1 }] }), "1 have no id"),
    ] {
        shop.old.state().list = Some((status, list));
        let refused = refusal().await;
        assert!(
            refused.contains("is not known: legacy did not list its instances") && refused.contains(why),
            "{refused}"
        );
    }
    shop.old.state().list = None;
    shop.old.state().open.clear();
    for route in FOLLOWERS.into_iter().chain(["orders.create"]) {
        shop.flip(route, "only", false).await.unwrap_or_else(|why| panic!("{route}: {why}"));
    }
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_does_not_go_to_only_while_legacy_creates_instances() {
    let shop = Shop::start("live", "").await;
    shop.use_every_route().await;
    shop.flip("orders.create", "dark", false).await.expect("down is always open");
    let refused = shop.flip("orders.cancel", "only", false).await.expect_err("legacy creates");
    assert!(refused.contains("`orders.create`, which creates the instances, is in `dark`"), "{refused}");
    shop.finish().await;
}

/// The new side gives out a number that legacy has given out; it stands over kills until a person accepts it.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_number_of_both_sides_stops_the_engine_from_creating_until_a_person_accepts_it() {
    const COLLIDED: &str = "both arms have given out the same id of an instance";
    let mut shop = Shop::start("dark", "").await;
    assert_eq!(shop.order().await, "/orders/1", "legacy's");
    let family = [("route", "orders.create"), ("arm", "legacy")];
    shop.pointsman.until_metric("its twin", |metrics| metrics.sum("pointsman_pins", &family) == 1.0).await;
    shop.force_all("live").await;
    shop.new.state().next = Some(1);
    assert_eq!(shop.order().await, "/orders/1", "the new side's");
    let collisions = |metrics: &Metrics| metrics.sum("pointsman_pin_collisions_total", &family[..1]);
    shop.pointsman.until_metric("the collision", |metrics| collisions(metrics) == 1.0).await;
    let open = |metrics: &Metrics| metrics.sum("pointsman_pin_collision_open", &family[..1]);
    assert_eq!(shop.order().await, "/orders/2", "legacy's");
    // A write that comes after that of the collision.
    shop.flip("orders.status", "dark", false).await.expect("down");

    shop.kill_and_restart().await;
    assert_eq!(shop.order().await, "/orders/3", "legacy's after a restart too");
    assert_eq!(collisions(&shop.pointsman.metrics().await), 0.0, "none was found since the start");
    assert_eq!(open(&shop.pointsman.metrics().await), 1.0);
    let status = output_text(&shop.pointsman.cli(&["status"]).await);
    assert!(status.contains("orders.create: both arms have given out the same id"), "{status}");
    let shown = async |shop: &Shop| shop.pointsman.get("/api/v2/routes/orders.create").await.to_string();
    let before = shown(&shop).await;
    assert!(before.contains(COLLIDED) && before.contains("pointsman flip orders.create STATE --force"), "{before}");
    shop.flip("orders.create", "live", false).await.expect("it is there");
    assert_eq!(shop.order().await, "/orders/4", "a flip without force accepts nothing");
    let arguments = ["flip", "orders.create", "live", "--force", "--reason", "the new side counts from a million"];
    let flipped = shop.pointsman.cli(&arguments).await;
    assert!(flipped.status.success(), "{}", output_text(&flipped));
    assert_eq!(shop.order().await, "/orders/1000003", "the engine's");
    assert_eq!(open(&shop.pointsman.metrics().await), 0.0);

    shop.kill_and_restart().await;
    assert_eq!(shop.order().await, "/orders/1000004", "the engine's after a restart too");
    assert!(!shown(&shop).await.contains(COLLIDED));
    let record = output_text(&shop.pointsman.cli(&["flips", "orders.create"]).await);
    assert!(record.contains("the new side counts from a million"), "{record}");
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_the_engine_ends_and_stays_with_the_engine_also_over_a_kill() {
    let mut shop = Shop::start("live", "").await;
    let (first, second) = (shop.order().await, shop.order().await);
    shop.until_alive("engine", 2).await;
    shop.cancel(&first).await;
    shop.until_alive("engine", 1).await;
    shop.kill_and_restart().await;
    let row = shop.until_alive("engine", 1).await;
    assert!(row["oldest"].is_string() && row["drained"].is_null(), "{row}");
    shop.force_all("off").await;
    let requests = shop.old.state().requests;
    for (order, state) in [(&first, "cancelled"), (&second, "open")] {
        assert_eq!(shop.send(Method::GET, order).await.json()["state"], state, "the engine answers for its orders");
    }
    assert_eq!(shop.old.state().requests, requests, "legacy does not know them");
    assert_eq!(shop.new.state().open.len(), 2);
    shop.finish().await;
}

/// After a step back from `live`, creates in `off` are searched for ids that the engine owns, and so are recorded.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_legacy_that_was_made_and_cancelled_in_off_does_not_hold_the_gate() {
    let shop = Shop::start("live", "").await;
    shop.order().await;
    shop.force_all("off").await;
    let (open, cancelled) = (shop.order().await, shop.order().await);
    shop.until_alive("legacy", 2).await;
    shop.cancel(&cancelled).await;
    shop.until_alive("legacy", 1).await;
    shop.cancel(&open).await;
    shop.until_alive("legacy", 0).await;
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_which_nothing_is_known_is_answered_as_declared_in_only() {
    let shop = Shop::start("shadow", "").await;
    let old = shop.order().await;
    shop.until_alive("legacy", 1).await;
    shop.force_all("live").await;
    let new = shop.order().await;
    shop.force_all("only").await;
    let requests = shop.old.state().requests;
    for (path, status) in [("/orders/999", StatusCode::NOT_FOUND), (&old, StatusCode::SERVICE_UNAVAILABLE)] {
        let reply = shop.send(Method::GET, path).await;
        assert_eq!(reply.status, status, "{path}: {:?}", reply.body);
    }
    assert!(shop.send(Method::GET, "/orders/999").await.json()["type"].to_string().contains("no-such-instance"));
    let unknown = shop.send(Method::GET, "/orders/999/status").await;
    assert_eq!((unknown.status, &unknown.json()["status"]), (StatusCode::OK, &json!("unknown")));
    assert_eq!(shop.send(Method::GET, &format!("{old}/status")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(shop.send(Method::GET, &format!("{new}/status")).await.json()["status"], "completed");
    assert_eq!(shop.send(Method::GET, &new).await.status, StatusCode::OK);
    assert_eq!(shop.old.state().requests, requests, "in `only` legacy is not called");
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_was_skipped_is_counted_until_its_order_ends() {
    let mut shop = Shop::start("dark", "").await;
    let complete = shop.order().await;
    let made = shop.send_with(Method::POST, "/orders", &[("if-match", "\"x\"")]).await;
    let skipped = format!("/orders/{}", made.json()["id"]);
    let incomplete = async |shop: &Shop, number: u64| {
        until(&format!("{number} incomplete twins"), async || {
            let detail = shop.pointsman.get("/api/v2/routes/orders.create").await;
            let rows = detail["row"]["instances"].as_array().cloned().unwrap_or_default();
            rows.iter().any(|row| row["arm"] == "legacy" && row["twins_incomplete"] == number).then_some(())
        })
        .await;
    };
    shop.until_alive("legacy", 2).await;
    incomplete(&shop, 1).await;
    shop.kill_and_restart().await;
    incomplete(&shop, 1).await;
    shop.cancel(&skipped).await;
    incomplete(&shop, 0).await;
    shop.until_alive("legacy", 1).await;
    shop.cancel(&complete).await;
    shop.until_alive("legacy", 0).await;
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_end_by_their_age_after_a_reload_says_so() {
    let shop = Shop::start("shadow", "").await;
    shop.order().await;
    shop.until_alive("legacy", 1).await;
    shop.flags.write("routes/orders.yaml", &routes("shadow", ", ends_after: 1s"));
    shop.until_alive("legacy", 0).await;
    shop.finish().await;
}

/// A request whose query or header has no id, or two, is about no known instance.
#[tokio::test(flavor = "multi_thread")]
async fn followers_find_the_id_in_the_query_or_in_a_header() {
    let shop = Shop::start("live", "").await;
    let follower = |id: &str, key: &str| {
        format!(
            "- {{ id: orders.{id}, match: {{ method: GET, path: '/{id}/{{any}}' }}, workflow: read, legacy: old, \
             state: live, force: {{ reason: a test }},\n    \
             instance: {{ follows: orders.create, key: {key}, unknown: not_found }} }}\n"
        )
    };
    let more = [follower("by-query", "query.ref"), follower("by-header", "header.x-order")].concat();
    shop.flags.write("routes/more.yaml", &format!("routes:\n{more}"));
    let reloaded = shop.pointsman.cli(&["reload"]).await;
    assert!(reloaded.status.success(), "{}", output_text(&reloaded));
    let order = shop.order().await;
    let id = order.trim_start_matches("/orders/");
    let read = async |path: &str, headers: &[(&str, &str)]| {
        let reply = shop.send_with(Method::GET, path, headers).await;
        (reply.status, reply.json())
    };
    let open = json!({ "id": id.parse::<u64>().expect("a number"), "state": "open" });
    assert_eq!(read(&format!("/by-query/1?x=2&ref={id}"), &[("x-order", "7")]).await, (StatusCode::OK, open.clone()));
    assert_eq!(read("/by-header/1?ref=7", &[("x-order", id)]).await, (StatusCode::OK, open));
    let of_legacy = (StatusCode::NOT_FOUND, json!({ "error": "unknown" }));
    let twice = format!("/by-query/1?ref={id}&ref={id}");
    for (path, headers) in [("/by-query/1", &[][..]), (&twice, &[]), ("/by-header/1", &[("x-order", "7")])] {
        assert_eq!(read(path, headers).await, of_legacy, "{path}");
    }
    for route in ["orders.by-query", "orders.by-header"] {
        shop.flip(route, "only", true).await.expect("force passes");
    }
    shop.force_all("only").await;
    let (status, problem) = read("/by-query/1", &[]).await;
    assert_eq!((status, &problem["title"]), (StatusCode::NOT_FOUND, &json!("There is no such instance")), "{problem}");
    assert_eq!(read(&format!("/by-query/1?ref={id}"), &[]).await.0, StatusCode::OK);
    shop.finish().await;
}
