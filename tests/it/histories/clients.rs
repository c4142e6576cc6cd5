//! The clients: they send keyed orders, several tries of each at once and later, sometimes with another body, and read
//! the orders that were created.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use http::Method;
use pointsman::demo::http::{Client, NoReply, Reply};
use serde_json::Value;

use super::checker::Timed;
use super::history::OrderOperation;
use super::legacy::OTHER_BODY;
use super::models::{Answer, KeyOperation};
use super::system::{CLIENT_WAIT, System};
use crate::support::test_system::{id, some_order};

pub const CLIENTS: u64 = 8;
const ANSWERS_OF_EACH_ARM: u64 = 60;

/// The reasons of problems that say that nothing was done for this request: `pointsman help failures`.
const NOTHING_DONE: [&str; 22] = [
    "abandoned-before",
    "engine-unavailable",
    "files-changed",
    "given-to-legacy",
    "handed-over",
    "legacy-busy",
    "legacy-took-first-try",
    "legacy-unreachable",
    "no-first-try",
    "no-instance",
    "no-safe-arm",
    "overloaded",
    "pin-collision",
    "plan-not-runnable",
    "resuming-runs",
    "retried",
    "retry-key-held",
    "retry-key-not-noted",
    "route-busy",
    "shutting-down",
    "store-refused",
    "too-many-runs",
];

/// What the clients share.
pub struct Clients<'a> {
    system: &'a System,
    /// How many operations are to be sent.
    operations: u64,
    sent: AtomicU64,
    next: AtomicU64,
    /// Orders that were answered, with their ids.
    answered: Mutex<Vec<(u64, String)>>,
    /// How many answers came from legacy and from the engine.
    by_arm: [AtomicU64; 2],
}

/// An answer to an order or a read of it, as both arms give it.
fn answer_of(order: &Value) -> Answer {
    let total = order["total"].as_f64().unwrap_or_default();
    Answer {
        id: id(order),
        by_engine: order["id"].is_string(),
        rest: format!("{total} {} {} {}", order["payment_id"], order["status"], order["reservations"]),
    }
}

/// The reason of a problem document, or the status.
fn reason_of(reply: &Reply) -> String {
    let body = reply.json();
    match body["type"].as_str().and_then(|kind| kind.rsplit_once(':')) {
        Some((_, reason)) => reason.to_owned(),
        None => format!("status {}", reply.status.as_u16()),
    }
}

impl<'a> Clients<'a> {
    pub fn new(system: &'a System, operations: u64) -> Self {
        let by_arm = Default::default();
        Self {
            system,
            operations,
            sent: AtomicU64::new(0),
            next: AtomicU64::new(1),
            answered: Mutex::default(),
            by_arm,
        }
    }

    /// Whether all operations were sent, and each arm gave some answers: on a busy machine, moves take long.
    fn is_enough(&self) -> bool {
        let sent = self.sent.load(Ordering::Relaxed);
        let has_both = self.by_arm.iter().all(|answers| answers.load(Ordering::Relaxed) >= ANSWERS_OF_EACH_ARM);
        sent >= self.operations && (has_both || sent >= 4 * self.operations)
    }

    /// Sends all operations.
    pub async fn run(&self) {
        join_all((0..CLIENTS).map(|client| self.run_one(client))).await;
    }

    async fn run_one(&self, of: u64) {
        let (client, mut random) = (Client::new(CLIENT_WAIT), self.system.random_of(of));
        while !self.is_enough() {
            match random.u8(..10) {
                0..=2 => {
                    let number = self.next.fetch_add(1, Ordering::Relaxed);
                    let tries = random.usize(1..4);
                    self.try_at_once(&client, &mut random, number, tries).await;
                }
                3..=5 => {
                    let newest = self.next.load(Ordering::Relaxed);
                    // Among the last ones, or among all.
                    let oldest = if random.bool() { newest.saturating_sub(40).max(1) } else { 1 };
                    let number = random.u64(oldest..newest.max(2));
                    let tries = random.usize(1..3);
                    self.try_at_once(&client, &mut random, number, tries).await;
                }
                _ => {
                    let order = random.choice(&*self.answered.lock().unwrap()).cloned();
                    if let Some((number, id)) = order {
                        let at = self.system.pick(&mut random);
                        self.read(&client, number, &id, at).await;
                    }
                }
            }
        }
    }

    /// Tries of one order that overlap or nearly do, each at any process.
    async fn try_at_once(&self, client: &Client, random: &mut Rng, number: u64, tries: usize) {
        let tries = (0..tries).map(|_| {
            let (at, pause) = (self.system.pick(random), Duration::from_micros(random.u64(..30_000)));
            let body = u8::from(random.u8(..10) == 0);
            async move {
                tokio::time::sleep(pause).await; // how far apart the tries are differs
                self.order(client, number, body, at).await;
            }
        });
        // Collected first, since each takes from the random sequence.
        join_all(tries.collect::<Vec<_>>()).await;
    }

    /// Sends one try, and records it. Returns whether it got the order.
    pub async fn order(&self, client: &Client, number: u64, body: u8, at: usize) -> bool {
        let (key, trace) = (format!("key-{number}"), format!("00-{number:032x}-{number:016x}-01"));
        let tenant = format!("tenant-{}", number % 41);
        let headers =
            [("idempotency-key", key.as_str()), ("x-tenant", tenant.as_str()), ("traceparent", trace.as_str())];
        let order = some_order(number + u64::from(body) * 1_000_003);
        let url = format!("{}/orders", self.system.url(at).await);
        let invoked = self.system.recorder.now();
        let reply = client.json(Method::POST, &url, &headers, &order).await;
        let returned = self.system.recorder.now();
        self.sent.fetch_add(1, Ordering::Relaxed);
        let operation = match self.outcome(&reply) {
            Outcome::Created(answer) => KeyOperation::Ordered { body, answer },
            Outcome::OtherBody => KeyOperation::OtherBody { body },
            Outcome::NothingDone => return false,
            Outcome::Unknown => KeyOperation::Unknown { body },
        };
        let returned = (!matches!(operation, KeyOperation::Unknown { .. })).then_some(returned);
        let id = match &operation {
            KeyOperation::Ordered { answer, .. } => Some(answer.id.clone()),
            _ => None,
        };
        self.record(number, Timed { invoked, returned, operation });
        let is_created = id.is_some();
        self.answered.lock().unwrap().extend(id.map(|id| (number, id)));
        is_created
    }

    fn outcome(&self, reply: &Result<Reply, NoReply>) -> Outcome {
        let count = |outcome: String| self.system.recorder.count(outcome);
        let reply = match reply {
            Ok(reply) => reply,
            Err(_) => {
                count("no reply".to_owned());
                return Outcome::Unknown;
            }
        };
        let body = reply.json();
        if reply.status == 201 && !body["id"].is_null() {
            let answer = answer_of(&body);
            count(if answer.by_engine { "by the engine" } else { "by legacy" }.to_owned());
            self.by_arm[usize::from(answer.by_engine)].fetch_add(1, Ordering::Relaxed);
            return Outcome::Created(answer);
        }
        let reason = reason_of(reply);
        if reason == "retry-key-reused" || body["error"] == OTHER_BODY {
            count("another body".to_owned());
            return Outcome::OtherBody;
        }
        let is_nothing = NOTHING_DONE.contains(&reason.as_str());
        count(reason);
        if is_nothing { Outcome::NothingDone } else { Outcome::Unknown }
    }

    /// Reads an order that was created.
    pub async fn read(&self, client: &Client, number: u64, id: &str, at: usize) {
        let url = format!("{}/orders/{id}", self.system.url(at).await);
        let invoked = self.system.recorder.now();
        let reply = client.json(Method::GET, &url, &[], &Value::Null).await;
        let returned = Some(self.system.recorder.now());
        self.sent.fetch_add(1, Ordering::Relaxed);
        let operation = match &reply {
            Ok(reply) if reply.status == 200 => KeyOperation::Read(answer_of(&reply.json())),
            Ok(reply) if reply.status == 404 => KeyOperation::NotFound,
            // A read that fails says nothing of the order.
            Ok(reply) => return self.system.recorder.count(format!("read: {}", reason_of(reply))),
            Err(_) => return self.system.recorder.count("read: no reply"),
        };
        self.system.recorder.count(if operation == KeyOperation::NotFound { "read: not found" } else { "read" });
        self.record(number, Timed { invoked, returned, operation });
    }

    fn record(&self, number: u64, operation: OrderOperation) {
        self.system.recorder.history().orders.entry(number).or_default().push(operation);
    }

    /// Tries each order again that was sent and has no answer yet, once nothing fails any more.
    pub async fn try_unanswered(&self) {
        let (client, mut random) = (Client::new(CLIENT_WAIT), self.system.random_of(CLIENTS + 3));
        let answered: std::collections::BTreeSet<u64> =
            self.answered.lock().unwrap().iter().map(|(number, _)| *number).collect();
        let open = (1..self.next.load(Ordering::Relaxed)).filter(|number| !answered.contains(number));
        for number in open {
            for body in [0, 1] {
                let at = self.system.pick(&mut random);
                if self.order(&client, number, body, at).await {
                    break;
                }
            }
        }
    }
}

/// What became of a try.
enum Outcome {
    Created(Answer),
    OtherBody,
    NothingDone,
    Unknown,
}
