//! Constant traffic from a few clients, and a count of the answers.
//!
//! Always true: a client follows up only orders that were acknowledged to it; every answer is checked (its status; id
//! and total of an order that is read), and a wrong answer counts as a failure. A client waits up to ten seconds for an
//! answer; no answer is a failure; no request is repeated.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::http::{Client, Reply};

/// How many recent latencies of each arm are kept.
const LATENCIES: usize = 200;
/// The most failures whose texts are kept; further ones are only counted.
const FAILURES_KEPT: usize = 10;
/// The longest wait for a round: every request of a round may run into the client's timeout.
const ROUND_WAIT_MAX: Duration = Duration::from_secs(120);

/// Counts of the clients' requests and answers so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// The number of requests that were answered with the expected status.
    pub answered: u64,
    /// The number of acknowledged orders.
    pub orders: u64,
    /// How many of those the engine made.
    pub engine_orders: u64,
    /// The number of acknowledged cancellations.
    pub cancelled: u64,
    /// The number of acknowledged campaigns.
    pub campaigns: u64,
    /// The number of requests with a wrong answer or none.
    pub failed: u64,
    /// The first failures, a sentence each.
    pub failures: Vec<String>,
    /// The traces of creates that the engine answered, and of cancellations of orders that it made.
    pub engine_traces: HashSet<String>,
    /// How long the latest orders took.
    pub order_latencies: Latencies,
    /// How long the latest campaigns took.
    pub campaign_latencies: Latencies,
    /// The orders that legacy made and that were not cancelled.
    pub open_at_legacy: Vec<String>,
    /// The last order that the engine made and that was not cancelled.
    pub engine_order: Option<String>,
}

/// Recent latencies of one kind of request, by arm.
#[derive(Debug, Default)]
pub struct Latencies {
    legacy: VecDeque<Duration>,
    engine: VecDeque<Duration>,
}

impl Latencies {
    /// The median latency of requests that legacy answered.
    pub fn legacy_p50(&self) -> Option<Duration> {
        median(&self.legacy)
    }
    /// The median latency of requests that the engine answered.
    pub fn engine_p50(&self) -> Option<Duration> {
        median(&self.engine)
    }
    fn note(&mut self, by_engine: bool, latency: Duration) {
        let recent = if by_engine { &mut self.engine } else { &mut self.legacy };
        recent.push_back(latency);
        if recent.len() > LATENCIES {
            recent.pop_front();
        }
    }
}

impl Tally {
    fn fail(&mut self, why: String) {
        self.failed += 1;
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(why);
        }
    }
}

fn median(latencies: &VecDeque<Duration>) -> Option<Duration> {
    let mut sorted: Vec<Duration> = latencies.iter().copied().collect();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied()
}

#[derive(Debug)]
struct Shared {
    base: String,
    client: Client,
    tally: Mutex<Tally>,
    stop: AtomicBool,
    // Whether clients request lists; only legacy answers these, so they are switched off during its outage.
    lists: AtomicBool,
    // The number of rounds that each client has finished.
    rounds: Vec<AtomicU64>,
}

/// Running clients.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

impl Traffic {
    /// Starts this number of clients against a base URL.
    pub fn start(base: &str, clients: usize) -> Self {
        let shared = Arc::new(Shared {
            base: base.to_owned(),
            client: Client::new(Duration::from_secs(10)),
            tally: Mutex::default(),
            stop: AtomicBool::new(false),
            lists: AtomicBool::new(true),
            rounds: (0..clients).map(|_| AtomicU64::new(0)).collect(),
        });
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            tasks.spawn(client(shared.clone(), number));
        }
        Self { shared, clients: tasks }
    }
    /// The counts so far.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.shared.tally()
    }
    /// Reads one order, independently of the clients' rounds.
    ///
    /// # Errors
    /// The answer was not the order; the text says what came instead.
    pub async fn read(&self, id: &str) -> Result<Value, String> {
        let path = format!("/orders/{id}");
        let trace = format!("{:032x}", fastrand::u128(1..));
        let reply = self.shared.send(Method::GET, &path, &trace, "demo", &Value::Null).await?;
        if reply.status == StatusCode::OK { Ok(reply.json()) } else { Err(format!("GET {path}: {}", reply.status)) }
    }
    /// Cancels up to `most` of the orders that legacy made and that are not cancelled, a few at a time; returns how
    /// many it cancelled.
    pub async fn cancel_orders_of_legacy(&self, most: usize) -> usize {
        const CONCURRENT: usize = 16;
        let orders: Vec<String> = {
            let open = &mut self.tally().open_at_legacy;
            let most = most.min(open.len());
            open.drain(..most).collect()
        };
        let mut cancelled = 0;
        for some in orders.chunks(CONCURRENT) {
            let trace = || format!("{:032x}", fastrand::u128(1..));
            let cancel = async |id: &String| self.shared.cancel(id, &trace(), "demo").await;
            let done = futures_util::future::join_all(some.iter().map(cancel)).await;
            cancelled += done.iter().flatten().count();
        }
        cancelled
    }
    /// Sets whether the clients also ask for the list of orders, which only legacy answers.
    pub fn set_list_requests(&self, on: bool) {
        self.shared.lists.store(on, Ordering::SeqCst);
    }
    /// Waits until every client has finished a round that began after this call, for at most [`ROUND_WAIT_MAX`].
    pub async fn wait_for_full_round(&self) {
        let begun = Instant::now();
        let now = |s: &Shared| s.rounds.iter().map(|r| r.load(Ordering::SeqCst)).collect::<Vec<u64>>();
        let before = now(&self.shared);
        let is_open = || now(&self.shared).iter().zip(&before).any(|(now, before)| *now < before + 2);
        while begun.elapsed() < ROUND_WAIT_MAX && is_open() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    /// Lets every client finish its round: when this returns, every request has been answered.
    pub async fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.clients.join_next().await {
            if let Err(error) = ended {
                self.shared.tally().fail(format!("a client of the demo panicked: {error}"));
            }
        }
    }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
    async fn send(&self, method: Method, path: &str, trace: &str, tenant: &str, body: &Value) -> Result<Reply, String> {
        let parent = format!("00-{trace}-{}-01", &trace[16..]);
        let mut headers = vec![("traceparent", parent.as_str()), ("x-tenant", tenant)];
        if method == Method::POST {
            headers.push(("idempotency-key", trace));
        }
        let answer = self.client.json(method.clone(), &format!("{}{path}", self.base), &headers, body).await;
        answer.map_err(|why| format!("{method} {path}: no answer: {why}"))
    }
    /// Cancels an order; `None` if it was not cancelled.
    async fn cancel(&self, id: &str, trace: &str, tenant: &str) -> Option<()> {
        let path = format!("/orders/{id}/cancel");
        let done = self.send_expecting(Method::POST, &path, trace, tenant, &Value::Null, StatusCode::OK).await?;
        let mut tally = self.tally();
        tally.cancelled += 1;
        // Legacy's ids are numbers, the engine's are strings, also that of an order which the engine has adopted.
        if done["id"].is_string() {
            tally.engine_traces.insert(trace.to_owned());
        }
        Some(())
    }
    /// Sends a request and compares the status of the answer; counts the result. `None` if the status is another one.
    async fn send_expecting(
        &self,
        method: Method,
        path: &str,
        trace: &str,
        tenant: &str,
        body: &Value,
        expected_status: StatusCode,
    ) -> Option<Value> {
        let outcome = match self.send(method.clone(), path, trace, tenant, body).await {
            Ok(reply) if reply.status == expected_status => Ok(reply.json()),
            Ok(reply) => {
                let text: String = String::from_utf8_lossy(&reply.body).chars().take(300).collect();
                Err(format!("{method} {path}: {} instead of {expected_status}: {text}", reply.status))
            }
            Err(why) => Err(why),
        };
        let mut tally = self.tally();
        match outcome {
            Ok(body) => {
                tally.answered += 1;
                Some(body)
            }
            Err(why) => {
                tally.fail(why);
                None
            }
        }
    }
}

/// One client. Each round creates an order, reads it back, and in every second round cancels it; some rounds also
/// create a campaign or request the list of orders.
async fn client(shared: Arc<Shared>, number: usize) {
    let mut random = fastrand::Rng::with_seed(number as u64 + 1);
    let tenant = format!("tenant-{number}");
    let mut round = 0u64;
    while !shared.stop.load(Ordering::SeqCst) {
        round += 1;
        let trace = || format!("{:032x}", (number as u128 + 1) << 64 | u128::from(fastrand::u64(1..)));
        order(&shared, &mut random, &tenant, round, trace).await;
        if round % 5 == 1 && shared.lists.load(Ordering::SeqCst) {
            shared.send_expecting(Method::GET, "/orders", &trace(), &tenant, &Value::Null, StatusCode::OK).await;
        }
        if round % 4 == 1 {
            let brief = json!({ "product": format!("tea no. {round}"), "audience": "people who drink tea" });
            let begun = Instant::now();
            let made =
                shared.send_expecting(Method::POST, "/campaigns", &trace(), &tenant, &brief, StatusCode::CREATED).await;
            if let Some(made) = made {
                let mut tally = shared.tally();
                tally.campaigns += 1;
                // Legacy's ids are numbers, the engine's are strings.
                tally.campaign_latencies.note(made["id"].is_string(), begun.elapsed());
            }
        }
        if let Some(rounds) = shared.rounds.get(number) {
            rounds.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(random.u64(10..30))).await;
    }
}

async fn order(
    shared: &Shared,
    random: &mut fastrand::Rng,
    tenant: &str,
    round: u64,
    trace: impl Fn() -> String,
) -> Option<()> {
    const SHELF: [&str; 8] = ["tea", "cup", "pot", "jam", "oat", "fig", "rye", "nut"];
    let first = random.usize(0..SHELF.len());
    let items: Vec<Value> = (0..random.usize(1..4))
        .map(|n| json!({ "sku": SHELF[(first + n * 3) % SHELF.len()], "qty": random.u64(1..4) }))
        .collect();
    let body = json!({ "email": format!("{tenant}@example.com"), "items": items });

    let create = trace();
    let begun = Instant::now();
    let made = shared.send_expecting(Method::POST, "/orders", &create, tenant, &body, StatusCode::CREATED).await?;
    // Legacy's ids are numbers, the engine's are strings.
    let by_engine = made["id"].is_string();
    let id = made["id"].as_str().map_or_else(|| made["id"].to_string(), str::to_owned);
    {
        let mut tally = shared.tally();
        tally.order_latencies.note(by_engine, begun.elapsed());
        tally.orders += 1;
        tally.engine_orders += u64::from(by_engine);
        if by_engine {
            tally.engine_traces.insert(create);
        }
    }
    // A short pause, as a person would make.
    pause_between_requests(random).await;
    let path = format!("/orders/{id}");
    let read = shared.send_expecting(Method::GET, &path, &trace(), tenant, &Value::Null, StatusCode::OK).await?;
    if read["id"] != made["id"] || read["total"] != made["total"] {
        shared.tally().fail(format!("{path} is not the order that was created: {read} instead of {made}"));
    }
    if round % 2 == 1 {
        let mut tally = shared.tally();
        match by_engine {
            true => tally.engine_order = Some(id),
            false => tally.open_at_legacy.push(id),
        }
        return Some(());
    }
    pause_between_requests(random).await;
    shared.cancel(&id, &trace(), tenant).await
}

async fn pause_between_requests(random: &mut fastrand::Rng) {
    tokio::time::sleep(Duration::from_millis(random.u64(80..160))).await;
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::demo::{Latency, Legacy, OutsideWorld};

    #[tokio::test]
    async fn traffic_against_legacy_alone_balances() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let world = OutsideWorld::start(any, Latency::instant()).await.expect("a port");
        let legacy = Legacy::start(any, &world.url(), Latency::instant()).await.expect("a port");
        let mut traffic = Traffic::start(&legacy.url(), 3);
        for _ in 0..3 {
            traffic.wait_for_full_round().await;
        }
        traffic.stop().await;
        let tally = traffic.tally();
        assert_eq!(tally.failed, 0, "{:?}", tally.failures);
        let balance = world.ledger().balance();
        assert_eq!(balance.total("charge"), tally.orders);
        assert_eq!(balance.total("refund"), tally.cancelled);
        assert_eq!(balance.total("mail"), tally.orders + tally.cancelled);
        assert!(balance.duplicates.is_empty() && tally.orders > 0 && tally.campaigns > 0);
    }
}
