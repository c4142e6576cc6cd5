//! Random operations from outside: keyed orders and their retries, flips, edits of the flag files, freezes, faults of
//! services, kills and restarts, in an order that a seed picks.
//!
//! Whatever came in between, each keyed order has its effects from one arm, once (the checker compares the traces, and
//! the retries of a key are of one trace); answers of the engine to it are the same; and an order that the engine
//! created is read from the engine. A person forces gates that lack evidence, and no gate that names retries of requests
//! that legacy served.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use http::{Method, StatusCode};
use pointsman::demo::world::Fault;
use serde_json::{Value, json};

use crate::support::Pointsman;
use crate::support::seed::{report_violations, seed, tries_everything};
use crate::support::test_system::{TestSystem, id, some_order};
use crate::support::until;

const ORDERS: &str = "routes/orders.yaml";
const STATES: [&str; 5] = ["off", "shadow", "dark", "live", "only"];
const OPERATIONS: usize = 60;

/// The ids that the family may have: creator, reader, canceller.
const NAMES: [[&str; 3]; 3] = [
    ["orders.create", "orders.get", "orders.cancel"],
    ["orders.make", "orders.read", "orders.undo"],
    ["sales.create", "sales.read", "sales.undo"],
];

/// What an edit changes. After some edits no route may go to `live` for a day, so a walk has some kinds only.
#[derive(Clone, Copy)]
enum Edit {
    Rename,
    RetryKey,
    Cohort,
    Share,
    Workflow,
    Rules,
}

const EDITS: [Edit; 6] = [Edit::Rename, Edit::RetryKey, Edit::Cohort, Edit::Share, Edit::Workflow, Edit::Rules];

/// What the files say.
#[derive(Clone, Debug, PartialEq)]
struct Files {
    /// The present ids, of [`NAMES`].
    names: usize,
    /// The earlier ids, the newest first.
    was: Vec<usize>,
    /// The header that the retry key is read from.
    retry_key: &'static str,
    /// The state of the cohort of the staff.
    cohort: &'static str,
    /// The share of `live`, in percent.
    live_share: u64,
    /// Whether the creator has its workflow.
    has_workflow: bool,
    /// A header that is compared, so that the evidence starts anew.
    compared: &'static str,
}

impl Files {
    fn text(&self, example: &str) -> String {
        let mut text = example.replace("follows: orders.create", &format!("follows: {}", NAMES[self.names][0]));
        let cohort = format!(
            "    cohorts: [{{ name: staff, when: '${{request.headers[\"x-staff\"] == \"1\"}}', state: {}, force: {{ \
             reason: a pilot }} }}]\n    percent: {{ live: {} }}\n",
            self.cohort, self.live_share
        );
        for (n, name) in NAMES[self.names].iter().enumerate() {
            let was: Vec<&str> = self.was.iter().map(|names| NAMES[*names][n]).collect();
            let was = if was.is_empty() { String::new() } else { format!("    was: [{}]\n", was.join(", ")) };
            let more = if n == 0 && self.has_workflow { cohort.as_str() } else { "" };
            text = text.replace(&format!("- id: {}\n", NAMES[0][n]), &format!("- id: {name}\n{was}{more}"));
        }
        if !self.has_workflow {
            text = text.replacen("    workflow: create-order\n", "", 1);
        }
        text.replace(r#"request.headers["idempotency-key"]"#, &format!(r#"request.headers["{}"]"#, self.retry_key))
            .replace("headers: [content-type, location]", &format!("headers: [content-type, {}]", self.compared))
    }

    /// One edit of a kind.
    fn changed(&self, kind: Edit, random: &mut Rng) -> Self {
        let mut files = self.clone();
        match kind {
            Edit::Rename => {
                let names = random.usize(..NAMES.len());
                if names != self.names {
                    files.was.insert(0, self.names);
                    files.was.retain(|earlier| *earlier != names);
                    files.names = names;
                }
            }
            Edit::RetryKey => {
                files.retry_key = if self.retry_key == "x-request-id" { "idempotency-key" } else { "x-request-id" }
            }
            Edit::Cohort => files.cohort = STATES[random.usize(..4)],
            Edit::Share => files.live_share = [10, 50, 100][random.usize(..3)],
            Edit::Workflow => files.has_workflow = !self.has_workflow,
            Edit::Rules => files.compared = if self.compared == "location" { "cache-control" } else { "location" },
        }
        files
    }
}

/// A keyed order of a client.
struct Order {
    number: u64,
    is_staff: bool,
    /// Its first successful answer.
    answer: Option<Value>,
}

fn is_from_engine(order: &Value) -> bool {
    order["id"].is_string()
}

struct Walk {
    system: TestSystem,
    random: Rng,
    edits: Vec<Edit>,
    example: String,
    /// What the files in the directory say.
    files: Files,
    /// What they said before, the newest last.
    earlier: Vec<Files>,
    orders: Vec<Order>,
    wrong: Vec<String>,
}

impl Walk {
    async fn start(seed: u64) -> Self {
        let files = Files {
            names: 0,
            was: Vec::new(),
            retry_key: "idempotency-key",
            cohort: "shadow",
            live_share: 100,
            has_workflow: true,
            compared: "location",
        };
        let mut example = String::new();
        let mut system = TestSystem::with(|flags| {
            flags.edit(ORDERS, |text| {
                example = text;
                files.text(&example)
            });
        })
        .await;
        system.allowed.unacknowledged = true;
        system.allowed.legacy_repeats = true;
        let mut random = Rng::with_seed(seed);
        let edits = random.choose_multiple(EDITS, 3);
        let (earlier, orders, wrong) = Default::default();
        let mut walk = Self { system, random, edits, example, files, earlier, orders, wrong };
        walk.flip(3).await;
        walk
    }

    fn names(&self) -> [&'static str; 3] {
        NAMES[self.files.names]
    }

    /// Sends some orders at once, new ones and retries; kills the process meanwhile if asked to.
    async fn send_orders(&mut self, kill_after: Option<Duration>) {
        let mut sent = Vec::new();
        for _ in 0..self.random.usize(1..7) {
            if self.orders.is_empty() || self.random.u8(..100) < 55 {
                let number = self.orders.len() as u64;
                self.orders.push(Order { number, is_staff: self.random.u8(..4) == 0, answer: None });
                sent.push(self.orders.len() - 1);
            } else {
                sent.push(self.random.usize(..self.orders.len()));
            }
        }
        let replies = join_all(sent.iter().map(|order| self.send_order(&self.orders[*order])));
        let replies: Vec<_> = match kill_after {
            None => replies.await,
            Some(wait) => {
                let pid = rustix::process::Pid::from_raw(i32::try_from(self.system.pointsman.pid()).expect("a pid"));
                let kill = async {
                    tokio::time::sleep(wait).await; // the moment of the fault
                    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::KILL).expect("killed");
                };
                tokio::join!(replies, kill).0
            }
        };
        for (order, answer) in sent.into_iter().zip(replies) {
            let Some(answer) = answer else { continue };
            match &self.orders[order].answer {
                None => {
                    self.system.record_order(answer.clone());
                    self.orders[order].answer = Some(answer);
                }
                // Two tries that are with legacy at once may get two of its orders.
                Some(first) if id(first) != id(&answer) && (is_from_engine(first) || is_from_engine(&answer)) => {
                    self.wrong.push(format!("order {order}: first answered with {first}, then with {answer}"));
                }
                Some(_) => {}
            }
        }
    }

    /// The answer, if it is a success.
    async fn send_order(&self, order: &Order) -> Option<Value> {
        let number = order.number;
        let (key, trace) = (format!("key-{number}"), format!("00-{:032x}-{:016x}-01", number + 1, number + 1));
        let headers = [
            ("idempotency-key", key.as_str()),
            ("x-request-id", key.as_str()),
            ("traceparent", trace.as_str()),
            ("x-staff", if order.is_staff { "1" } else { "0" }),
        ];
        let reply = self.system.send_with(Method::POST, "/orders", &headers, &some_order(number)).await.ok()?;
        (reply.status == StatusCode::CREATED).then(|| reply.json())
    }

    /// Reads an order that the engine created.
    async fn read_order(&mut self) {
        let by_engine = |order: &&Order| order.answer.as_ref().is_some_and(is_from_engine);
        let of_engine: Vec<&Order> = self.orders.iter().filter(by_engine).collect();
        let Some(order) = self.random.choice(of_engine) else { return };
        let path = format!("/orders/{}", id(order.answer.as_ref().expect("it was answered")));
        let reply = self.system.send(Method::GET, &path, &Value::Null).await;
        if reply.as_ref().is_ok_and(|reply| reply.status != StatusCode::OK) {
            let what = reply.map(|reply| format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body)));
            self.wrong.push(format!("{path} of the engine is answered with {what:?}"));
        }
    }

    async fn requested(&self, route: &str) -> usize {
        let row = self.system.pointsman.get(&format!("/api/v2/routes/{route}")).await;
        STATES.iter().position(|state| row["row"]["requested"] == **state).unwrap_or(0)
    }

    /// Moves the family to a state, a rung at a time on the way up; stops at a gate that must not be forced.
    async fn flip(&mut self, to: usize) {
        let [creator, reader, canceller] = self.names();
        for (rung, state) in STATES.iter().enumerate().take(to + 1) {
            for route in [reader, canceller, creator] {
                if self.requested(route).await < rung && !self.flip_route(route, state).await {
                    return;
                }
            }
        }
        if self.requested(creator).await > to {
            self.flip_route(creator, STATES[to]).await;
        }
    }

    /// Whether it was moved.
    async fn flip_route(&mut self, route: &str, to: &str) -> bool {
        let path = format!("/api/v2/routes/{route}/flip");
        let flip = async |pointsman: &Pointsman, force: bool| {
            let body = json!({ "to": to, "reason": "a test", "force": force, "acknowledge": true });
            pointsman.api(Method::POST, &path, body).await
        };
        let mut reply = flip(&self.system.pointsman, false).await;
        let why = String::from_utf8_lossy(&reply.body).into_owned();
        let names_retries = ["retr", "copy", "record"].iter().any(|word| why.contains(word));
        if reply.status == StatusCode::CONFLICT && why.contains("gate-shut") && !names_retries {
            reply = flip(&self.system.pointsman, true).await;
        }
        eprintln!("{route} to {to}: {}", reply.status);
        reply.status.is_success()
    }

    /// Writes the files, changed or as they were before; whether there was a change.
    fn write_files(&mut self) -> bool {
        let next = match self.earlier.last() {
            Some(earlier) if self.random.u8(..4) == 0 => earlier.clone(),
            _ => self.files.changed(*self.random.choice(&self.edits).expect("some"), &mut self.random),
        };
        if next == self.files {
            return false;
        }
        eprintln!("the files: {next:?}");
        self.system.flags.write(ORDERS, &next.text(&self.example));
        self.earlier.push(std::mem::replace(&mut self.files, next));
        true
    }

    /// Changes the files while the process runs. If it refuses them, they are taken back.
    async fn edit(&mut self) {
        let loaded = self.loaded().await;
        if !self.write_files() {
            return;
        }
        let read = until("the files to be read", || async {
            let now = self.loaded().await;
            (now != loaded).then_some(now)
        })
        .await;
        if read.0 == loaded.0 {
            let status = self.system.pointsman.get("/api/v2/status").await;
            eprintln!("refused: {}", status["flags"]["last_error"]);
            self.take_back();
            until("the files to be as before", || async {
                self.system.pointsman.get("/api/v2/status").await["flags"]["last_error"].is_null().then_some(())
            })
            .await;
        }
    }

    /// The generation of the files in force, and how many readings were refused.
    async fn loaded(&self) -> (u64, u64) {
        let status = self.system.pointsman.get("/api/v2/status").await;
        let refused = self.system.pointsman.metrics().await.sum("pointsman_flags_reload_failures_total", &[]);
        (status["flags"]["generation"].as_u64().expect("a number"), refused as u64)
    }

    fn take_back(&mut self) {
        self.files = self.earlier.pop().expect("there was an edit");
        eprintln!("the files are refused and taken back");
        self.system.flags.write(ORDERS, &self.files.text(&self.example));
    }

    /// Starts the process again, if asked to with changed files. If it refuses them, they are taken back, and it has to
    /// start.
    async fn restart(&mut self, edits: bool) {
        if edits && self.write_files() {
            if self.system.start_again().await.is_ok() {
                return;
            }
            self.take_back();
        }
        if let Err(log) = self.system.start_again().await {
            panic!("it does not start on files that were in force before:\n{log}");
        }
    }

    async fn freeze(&self, body: Value) {
        self.system.pointsman.api(Method::POST, "/api/v2/freeze", body).await;
    }

    /// One operation.
    async fn operate(&mut self) {
        match self.random.u8(..20) {
            0..=6 => self.send_orders(None).await,
            7 | 8 => self.read_order().await,
            9..=11 => {
                let to = [0, 1, 2, 3, 3, 3, 4][self.random.usize(..7)];
                self.flip(to).await;
            }
            12..=14 => self.edit().await,
            15 => {
                eprintln!("SIGTERM");
                assert_eq!(self.system.pointsman.stop().await, Some(0), "{}", self.system.pointsman.log());
                let edits = self.random.bool();
                self.restart(edits).await;
            }
            16 | 17 => {
                eprintln!("kill");
                let wait = Duration::from_micros(self.random.u64(..60_000));
                self.send_orders(Some(wait)).await;
                self.system.kill().await;
                let edits = self.random.bool();
                self.restart(edits).await;
            }
            18 => {
                eprintln!("freeze");
                let effects = self.random.bool();
                self.freeze(json!({ "on": true, "effects": effects, "reason": "a test" })).await;
                self.send_orders(None).await;
                self.freeze(json!({ "on": false, "reason": "a test" })).await;
            }
            _ => {
                let faults = [Fault::Refuse(503), Fault::Refuse(400), Fault::LoseReply, Fault::Close];
                let operation = ["charge", "reserve", "mail"][self.random.usize(..3)];
                eprintln!("a fault of {operation}");
                self.system.world.fault(operation, faults[self.random.usize(..4)], 1);
                self.system.allowed.lost_replies += 1;
            }
        }
    }
}

/// Every keyed order is performed by one arm, once, through any order of operations.
#[tokio::test(flavor = "multi_thread")]
async fn one_arm_performs_each_order_through_random_operations() {
    let first = seed();
    let walks = if tries_everything() { 30 } else { 2 };
    let (mut wrong, mut counts) = (Vec::new(), BTreeMap::new());
    for seed in first..first + walks {
        eprintln!("seed {seed}");
        let mut walk = Walk::start(seed).await;
        for _ in 0..OPERATIONS {
            walk.operate().await;
        }
        walk.freeze(json!({ "on": false, "reason": "the end" })).await;
        walk.system.world.clear_faults();
        for order in &walk.orders {
            let by = match order.answer.as_ref().map(is_from_engine) {
                None => "not answered",
                Some(true) => "engine",
                Some(false) => "legacy",
            };
            *counts.entry(by).or_insert(0_u32) += 1;
        }
        if !walk.wrong.is_empty() {
            wrong.push(format!("seed {seed}: {}", walk.wrong.join("\n")));
        }
        walk.system.finish().await;
    }
    assert!(counts.get("engine").is_some_and(|count| *count > 0), "the engine answered nothing: {counts:?}");
    report_violations(
        "random_operations::one_arm_performs_each_order_through_random_operations",
        first,
        &format!("{walks} walks of {OPERATIONS} operations, orders by {counts:?}"),
        &wrong,
    );
}
