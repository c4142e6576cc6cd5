//! A complete test system: outside world, legacy, the binary in front of it, and a client.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use pointsman::demo::http::{Client, NoReply, Reply};
use pointsman::demo::{Latency, Legacy, OutsideWorld};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::checker::{self, Allowed};
use super::process::{self, Start};
use super::{FlagsDir, LOCAL, Pointsman, WAIT_MAX};

/// The family of the example set, in the order in which its routes are raised.
pub const FAMILY: [&str; 3] = ["orders.get", "orders.cancel", "orders.create"];

/// A complete test system. [`TestSystem::finish`] ends it and checks the invariants.
pub struct TestSystem {
    /// The outside world.
    pub world: OutsideWorld,
    /// The legacy.
    pub legacy: Legacy,
    /// The flag files.
    pub flags: FlagsDir,
    /// The binary.
    pub pointsman: Pointsman,
    /// What the checker tolerates.
    pub allowed: Allowed,
    start: Start,
    _dir: TempDir,
    client: Client,
    placed: Mutex<Vec<Value>>,
    requests: AtomicU64,
    finished: bool,
}

impl TestSystem {
    /// Starts with the example set, on SQLite, and without latencies in the outside world.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }
    /// Like [`TestSystem::start`], with changed files.
    pub async fn with(change: impl FnOnce(&FlagsDir)) -> Self {
        Self::with_latency(Latency::instant(), change).await
    }
    /// Like [`TestSystem::with`], with latencies in the outside world.
    pub async fn with_latency(latency: Latency, change: impl FnOnce(&FlagsDir)) -> Self {
        Self::on(None, latency, change).await
    }
    /// Like [`TestSystem::with_latency`], on another store.
    pub async fn on(store: Option<String>, latency: Latency, change: impl FnOnce(&FlagsDir)) -> Self {
        let world = OutsideWorld::start(LOCAL, latency.clone()).await.expect("a port");
        let legacy = Legacy::start(LOCAL, &world.url(), latency).await.expect("a port");
        let flags = FlagsDir::example(&legacy.url(), &world.url());
        change(&flags);
        let dir = tempfile::tempdir().expect("a directory");
        let start = Start {
            flags: flags.path().to_owned(),
            store: store.unwrap_or_else(|| format!("sqlite:{}", dir.path().join("pointsman.db").display())),
            log: dir.path().join("log"),
            env: Vec::new(),
        };
        let pointsman = Pointsman::start(&start).await;
        Self {
            world,
            legacy,
            flags,
            pointsman,
            allowed: Allowed::default(),
            start,
            _dir: dir,
            client: Client::new(WAIT_MAX),
            placed: Mutex::default(),
            requests: AtomicU64::new(0),
            finished: false,
        }
    }
    /// The store for the checker: its file, or its address.
    pub fn store(&self) -> PathBuf {
        self.start.store.strip_prefix("sqlite:").unwrap_or(&self.start.store).into()
    }
    /// Sends one request through the proxy, with its own trace.
    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Reply, NoReply> {
        self.send_with(method, path, &[], body).await
    }
    /// Like [`TestSystem::send`], with more headers; a `traceparent` among them replaces the request's own.
    pub async fn send_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Reply, NoReply> {
        self.send_by(&self.client, method, path, headers, body).await
    }
    /// Like [`TestSystem::send_with`], by another client, which has its own connections.
    pub async fn send_by(
        &self,
        client: &Client,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Reply, NoReply> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let trace = format!("00-{number:032x}-{number:016x}-01");
        let tenant = format!("tenant-{}", number % 7);
        let mut all = vec![("x-tenant", tenant.as_str())];
        if !headers.iter().any(|(name, _)| *name == "traceparent") {
            all.push(("traceparent", trace.as_str()));
        }
        all.extend_from_slice(headers);
        client.json(method, &format!("{}{path}", self.pointsman.url()), &all, body).await
    }
    /// Sends a request that must succeed.
    pub async fn send_ok(&self, method: Method, path: &str, body: &Value) -> Value {
        let reply = self.send(method.clone(), path, body).await;
        let reply = reply.unwrap_or_else(|e| panic!("{method} {path}: {e}\n{}", self.pointsman.log()));
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(reply.status.is_success(), "{method} {path}: {} {text}\n{}", reply.status, self.pointsman.log());
        reply.json()
    }
    /// Places an order; the checker will require its effects.
    pub async fn order(&self) -> Value {
        let number = self.requests.load(Ordering::Relaxed);
        let order = self.send_ok(Method::POST, "/orders", &some_order(number)).await;
        self.record_order(order.clone());
        order
    }
    /// Records an order that was placed in another way.
    pub fn record_order(&self, order: Value) {
        self.placed.lock().expect("unpoisoned").push(order);
    }
    /// Takes back [`TestSystem::record_order`]: the checker does not require the order's effects.
    pub fn forget_order(&self, order: &Value) {
        self.placed.lock().expect("unpoisoned").retain(|placed| id(placed) != id(order));
    }
    /// Reads the order.
    pub async fn read(&self, order: &Value) -> Value {
        self.send_ok(Method::GET, &format!("/orders/{}", id(order)), &Value::Null).await
    }
    /// Cancels the order.
    pub async fn cancel(&self, order: &Value) -> Value {
        self.send_ok(Method::POST, &format!("/orders/{}/cancel", id(order)), &Value::Null).await
    }
    /// Places, reads and cancels one order.
    pub async fn create_read_cancel(&self) {
        let order = self.order().await;
        self.read(&order).await;
        self.cancel(&order).await;
    }
    /// Places, reads and cancels many orders; waits for the shadow executor between the kinds of request, because a
    /// follow-up before the dark twin exists could not be compared.
    pub async fn create_read_cancel_many(&self, count: usize) {
        let mut orders = Vec::new();
        for _ in 0..count {
            orders.push(self.order().await);
        }
        self.wait_for_shadow_idle().await;
        for order in &orders {
            self.read(order).await;
        }
        for order in &orders {
            self.cancel(order).await;
        }
        self.wait_for_shadow_idle().await;
    }
    /// Waits until the shadow executor has nothing to do.
    pub async fn wait_for_shadow_idle(&self) {
        self.pointsman
            .until_metric("the shadow executor to be idle", |metrics| {
                let busy = |name: &str| metrics.sum(name, &[]);
                busy("pointsman_shadow_queue_depth")
                    + busy("pointsman_shadow_in_flight")
                    + busy("pointsman_followups_pending")
                    == 0.0
            })
            .await;
    }
    /// Waits until every answer of the engine that is checked was checked.
    pub async fn wait_for_answer_checks(&self) {
        let is_idle = |metrics: &super::metrics::Metrics| metrics.sum("pointsman_answer_checks", &[]) == 0.0;
        self.pointsman.until_metric("the engine's answers to be checked", is_idle).await;
    }
    /// Moves a route through the CLI. Returns the output, also if the move was refused.
    pub async fn flip(&self, route: &str, state: &str, more: &[&str]) -> Result<String, String> {
        let mut arguments = vec!["flip", route, state];
        arguments.extend_from_slice(more);
        let output = self.pointsman.cli(&arguments).await;
        if output.status.success() { Ok(process::output_text(&output)) } else { Err(process::output_text(&output)) }
    }
    /// Moves the family up to a state, one rung at a time, through its real gates, driving traffic until they open.
    pub async fn climb_to(&self, to: &str) {
        const RUNGS: [&str; 5] = ["off", "shadow", "dark", "live", "only"];
        for rung in RUNGS {
            self.gather_evidence(rung).await;
            for route in FAMILY {
                self.raise(route, rung).await;
            }
            if rung == to {
                return;
            }
        }
        panic!("no such state: {to}");
    }
    /// Drives traffic until the creator has the evidence for a rung. Followers are raised first, and their requests
    /// have no twin until the creator is raised too; so the creator must have its evidence before any of them is
    /// raised.
    async fn gather_evidence(&self, rung: &str) {
        for _ in 0..40 {
            let detail = self.pointsman.get("/api/v2/routes/orders.create").await;
            let count = |name: &str| detail["evidence"][name].as_u64().unwrap_or(0);
            let enough = match rung {
                "dark" => count("shadow_pairs") + count("dark_pairs") >= 20,
                "live" => count("dark_pairs") >= 20,
                "only" => count("engine_answers") >= 50,
                _ => true,
            };
            if enough {
                return;
            }
            self.create_read_cancel_many(10).await;
        }
        panic!("no evidence for {rung}:\n{}", self.pointsman.log());
    }
    /// Moves one route up to a rung. Does nothing if it is on that rung already, or on a higher one.
    async fn raise(&self, route: &str, rung: &str) {
        let deadline = tokio::time::Instant::now() + 2 * WAIT_MAX;
        let rank = |state: &str| ["off", "shadow", "dark", "live", "only"].iter().position(|s| *s == state);
        let row = self.pointsman.get(&format!("/api/v2/routes/{route}")).await;
        if rank(row["row"]["requested"].as_str().unwrap_or_default()) >= rank(rung) {
            return;
        }
        loop {
            let Err(why) = self.flip(route, rung, &["--reason", "the test climbs"]).await else { return };
            assert!(tokio::time::Instant::now() < deadline, "{route} to {rung} stays shut: {why}");
            self.create_read_cancel_many(10).await;
        }
    }
    /// Lowers the family, creator first.
    pub async fn lower(&self, to: &str) {
        for route in FAMILY.iter().rev() {
            self.flip(route, to, &["--reason", "the test steps back", "--acknowledge"])
                .await
                .expect("down is always open");
        }
    }
    /// Kills the process (kill -9).
    pub async fn kill(&mut self) {
        self.pointsman.kill().await;
        self.allowed.crashes += 1;
    }
    /// Starts again on the same files and store.
    pub async fn restart(&mut self) {
        self.pointsman = Pointsman::start(&self.start).await;
    }
    /// Like [`TestSystem::restart`]; returns the log if the process ends instead.
    pub async fn start_again(&mut self) -> Result<(), String> {
        self.pointsman = Pointsman::try_start(&self.start).await?;
        Ok(())
    }
    /// Starts again on another store, which replaces the first one.
    pub async fn restart_on(&mut self, store: PathBuf) {
        self.use_store(store);
        self.restart().await;
    }
    /// Replaces the store by another one from the next start on.
    pub fn use_store(&mut self, store: PathBuf) {
        self.start.store = format!("sqlite:{}", store.display());
    }
    /// Names the store for the checker by another address of it.
    pub fn use_url(&mut self, url: String) {
        self.start.store = url;
    }
    /// The arguments of a start.
    pub fn arguments(&self) -> Start {
        self.start.clone()
    }
    /// Starts the process again, and requires that it fails to start. Returns its log.
    pub async fn restart_refused(&self) -> String {
        match Pointsman::try_start(&self.start).await {
            Ok(_) => panic!("the process started, and should have refused to"),
            Err(log) => log,
        }
    }
    /// Waits until no durable run is running, queued or compensating.
    pub async fn wait_for_runs_to_end(&self) {
        self.pointsman
            .until_metric("all runs to end", |metrics| {
                let active = |status| metrics.sum("pointsman_runs_active", &[("status", status)]);
                active("running") + active("queued") + active("compensating") == 0.0
            })
            .await;
    }
    /// Stops the binary gracefully and runs the checker.
    pub async fn finish(self) {
        self.finish_then(|_| async {}).await;
    }
    /// Ends a system in which a violation was found already: nothing more is checked.
    pub async fn finish_unchecked(mut self) {
        self.finished = true;
        self.pointsman.kill().await;
    }
    /// Like [`TestSystem::finish`], but neither waits for runs to end nor checks the metrics.
    pub async fn finish_with_open_runs(mut self) {
        self.finished = true;
        assert_eq!(self.pointsman.stop().await, Some(0), "it exits with code 0:\n{}", self.pointsman.log());
        let placed = std::mem::take(&mut *self.placed.lock().expect("unpoisoned"));
        checker::check(&self.store(), self.world.ledger(), &placed, &self.allowed).await;
    }
    /// Like [`TestSystem::finish`], and reads the store before it is removed.
    pub async fn finish_then<T, Fut: Future<Output = T>>(mut self, look: impl FnOnce(PathBuf) -> Fut) -> T {
        self.finished = true;
        self.wait_for_runs_to_end().await;
        let metrics = self.pointsman.metrics().await;
        checker::check_balance(&metrics);
        assert_eq!(self.pointsman.stop().await, Some(0), "it exits with code 0:\n{}", self.pointsman.log());
        let placed = std::mem::take(&mut *self.placed.lock().expect("unpoisoned"));
        checker::check(&self.store(), self.world.ledger(), &placed, &self.allowed).await;
        look(self.store()).await
    }
}

impl Drop for TestSystem {
    fn drop(&mut self) {
        if !self.finished && !std::thread::panicking() {
            panic!("a test ended without `finish`: nothing was checked");
        }
    }
}

/// An order with enough items for a discount. With an odd number, the items are not sorted.
pub fn some_order(number: u64) -> Value {
    let sku = |n: u64| ["tea", "cup", "pot", "jam", "oat", "fig"][(n % 6) as usize];
    json!({
        "email": format!("somebody-{number}@example.com"),
        "items": [
            { "sku": sku(number * 5 + 1), "qty": 1 + number % 3 },
            { "sku": sku(number * 5 + 2), "qty": 2 },
        ],
    })
}

/// An order's id as paths contain it.
pub fn id(order: &Value) -> String {
    match &order["id"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A short pause in load loops, which would otherwise starve the process under test.
pub async fn short_pause() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}
