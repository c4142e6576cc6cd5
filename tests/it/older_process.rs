//! Processes of an older version and of this one on one PostgreSQL, as during a rolling update and while it is taken
//! back: two processes are replaced one after the other, while keyed orders are sent to both and a route moves up and
//! down. One arm performs each order once. While this version replaces the older one, both have to answer orders at the
//! same time. An older process that does not know the tables of this version has to say so and not start. With an older
//! version whose processes do not follow each other's moves, the route stays in `off`.
//!
//! `POINTSMAN_OLDER_BINARY` names the older binary; without it the tests are skipped. `tests/run` builds one with
//! `POINTSMAN_ALL=1`.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use pointsman::demo::http::Client;
use serde_json::Value;

use crate::shared_moves::{Try, created, forced, try_order, what_is_wrong};
use crate::support::process::BINARY;
use crate::support::seed::{report_violations, seed};
use crate::support::test_system::FAMILY;
use crate::support::two_processes::TwoProcesses;
use crate::support::{WAIT_MAX, until, until_true};

const CREATOR: &str = "orders.create";
/// The states of the route, from the lowest, and those that it moves between.
const LADDER: [&str; 4] = ["off", "shadow", "dark", "live"];
const TARGETS: [&str; 3] = ["off", "dark", "live"];
/// How often a retry at the end is sent again that an older process refuses.
const RETRIES_MAX: usize = 20;
/// Orders before the first process is replaced, between the two, and afterwards.
const ORDERS_PER_PHASE: u64 = 200;
const CLIENTS: u64 = 8;
/// Orders between two moves: the engine, which answers more slowly, gets more of them.
const ORDERS_PER_MOVE: u64 = 8;
const ORDERS_IN_LIVE: u64 = 40;
/// What a process says that does not start, because its tables do not go together with those of the other version: the
/// older one at newer tables, and the newer one while older processes use theirs.
const REFUSALS: [&str; 2] = ["it was written by a newer pointsman", "which older processes still use"];

/// The older binary; says so if there is none.
fn older_binary(test: &str) -> Option<String> {
    let found = std::env::var("POINTSMAN_OLDER_BINARY").ok().filter(|path| !path.is_empty());
    if found.is_none() {
        eprintln!("\n==== SKIPPED {test}: POINTSMAN_OLDER_BINARY names no binary of an older version ====");
    }
    found
}

/// Whether processes of a version follow the moves of others: its help says what an answer to a move names.
fn follows_moves(binary: &str) -> bool {
    let help = Command::new(binary).args(["help", "postgresql"]).output().expect("the older binary runs");
    String::from_utf8_lossy(&help.stdout).contains("not_in_force_in")
}

/// Where a process takes requests, and where it takes commands.
#[derive(Clone)]
struct Addresses {
    proxy: String,
    admin: String,
}

/// Both processes as clients see them, and what has happened so far.
struct Traffic {
    addresses: Mutex<[Addresses; 2]>,
    client: Client,
    seed: u64,
    next: AtomicU64,
    answered: AtomicU64,
    /// How many orders each process has created, by the address of its proxy.
    created: Mutex<HashMap<String, u64>>,
    moves: AtomicU64,
    /// Flips that were refused, or that a process had not acknowledged when they were answered.
    unusual_moves: Mutex<Vec<String>>,
    is_over: AtomicBool,
    tries: Mutex<Vec<(u64, Try, Try)>>,
}

impl Traffic {
    fn new(two: &TwoProcesses, seed: u64) -> Self {
        Self {
            addresses: Mutex::new([0, 1].map(|at| addresses(two, at))),
            client: Client::new(WAIT_MAX),
            seed,
            next: AtomicU64::new(1),
            answered: AtomicU64::new(0),
            created: Mutex::default(),
            moves: AtomicU64::new(0),
            unusual_moves: Mutex::default(),
            is_over: AtomicBool::new(false),
            tries: Mutex::default(),
        }
    }
    fn random(&self, of: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed.wrapping_mul(1_000) + of)
    }
    fn address(&self, at: usize) -> Addresses {
        self.addresses.lock().unwrap()[at].clone()
    }
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
    async fn wait_for_orders(&self, more: u64) {
        let wanted = self.answered.load(Ordering::SeqCst) + more;
        until_true("orders to be answered", || self.is_over() || self.answered.load(Ordering::SeqCst) >= wanted).await;
    }

    /// How many orders the present processes have created.
    fn created(&self) -> [u64; 2] {
        let created = self.created.lock().unwrap();
        [0, 1].map(|at| created.get(&self.address(at).proxy).copied().unwrap_or_default())
    }
    /// Waits for the orders of a phase. Returns whether both processes created some of them.
    async fn both_create_orders(&self) -> bool {
        let before = self.created();
        self.wait_for_orders(ORDERS_PER_PHASE).await;
        let after = self.created();
        (0..2).all(|at| after[at] > before[at])
    }

    /// Sends an order to a process.
    async fn try_at(&self, client: &Client, at: usize, number: u64) -> Try {
        let proxy = self.address(at).proxy;
        let tried = try_order(client, &proxy, number).await;
        if tried.0 == 201 {
            *self.created.lock().unwrap().entry(proxy).or_default() += 1;
        }
        tried
    }

    /// Sends each order to both processes, until the traffic is over.
    async fn send_orders(&self, of: u64) {
        let (client, mut random) = (Client::new(WAIT_MAX), self.random(of));
        while !self.is_over() {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            let (first, pause) = (random.usize(..2), Duration::from_micros(random.u64(..40_000)));
            let one = self.try_at(&client, first, number);
            let other = async {
                tokio::time::sleep(pause).await; // how far apart the tries are differs
                self.try_at(&client, 1 - first, number).await
            };
            let (one, other) = tokio::join!(one, other);
            self.tries.lock().unwrap().push((number, one, other));
            self.answered.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A flip at a process; `None` if it did not answer.
    async fn flip(&self, at: usize, route: &str, to: &str) -> Option<(u16, Value)> {
        let url = format!("{}/api/v2/routes/{route}/flip", self.address(at).admin);
        let reply = self.client.json(Method::POST, &url, &[], &forced(to)).await.ok()?;
        Some((reply.status.as_u16(), reply.json()))
    }
    /// The requested state of the creator, by whichever process answers first.
    async fn requested(&self) -> usize {
        until("a process to say the state", || async {
            for at in 0..2 {
                let url = format!("{}/api/v2/routes/{CREATOR}", self.address(at).admin);
                if let Ok(reply) = self.client.json(Method::GET, &url, &[], &Value::Null).await
                    && let Some(state) = reply.json()["row"]["requested"].as_str()
                {
                    return LADDER.iter().position(|rung| rung == &state);
                }
            }
            None
        })
        .await
    }
    /// Moves the creator, down in one step and up rung by rung, at either process.
    async fn move_route(&self) {
        let mut random = self.random(CLIENTS);
        while !self.is_over() {
            let to = TARGETS[random.usize(..TARGETS.len())];
            let (at, wanted) = (self.requested().await, LADDER.iter().position(|rung| *rung == to).expect("a rung"));
            let rungs = if wanted > at { &LADDER[at + 1..=wanted] } else { &LADDER[wanted..=wanted] };
            for rung in rungs {
                match self.flip(random.usize(..2), CREATOR, rung).await {
                    Some((200, answer)) if answer["not_in_force_in"].is_null() => {
                        self.moves.fetch_add(u64::from(answer["changed"] == true), Ordering::SeqCst);
                    }
                    Some((status, answer)) => {
                        self.unusual_moves.lock().unwrap().push(format!("to {rung}: {status} {answer}"));
                        break;
                    }
                    None => break,
                }
            }
            self.wait_for_orders(if to == "live" { ORDERS_IN_LIVE } else { ORDERS_PER_MOVE }).await;
        }
    }
}

fn addresses(two: &TwoProcesses, at: usize) -> Addresses {
    Addresses { proxy: two.processes[at].url(), admin: two.processes[at].admin_url() }
}

/// What became of a replacement.
#[derive(Default)]
struct Replacement {
    wrong: Vec<String>,
    /// How often a start was refused.
    refused: u64,
    /// Whether processes of both versions created orders in the same phase.
    both_served: bool,
}

/// Replaces both processes by another binary. A process whose start is refused is started as before if it is the older
/// one, and else when the other one has ended too.
async fn replace_both(two: &mut TwoProcesses, traffic: &Traffic, from: &str, to: &str) -> Replacement {
    let Replacement { mut wrong, mut refused, mut both_served } = Replacement::default();
    // Of which version each process is.
    let mut binaries = [from, from];
    for at in 0..2 {
        both_served |= traffic.both_create_orders().await && binaries[0] != binaries[1];
        let code = two.processes[at].stop().await;
        if code != Some(0) {
            wrong.push(format!("process {at} ended with {code:?}:\n{}", two.processes[at].log()));
        }
        two.processes[at] = match two.try_start_again(at, to).await {
            Ok(started) => {
                binaries[at] = to;
                started
            }
            Err(log) => {
                refused += 1;
                if !REFUSALS.iter().any(|refusal| log.contains(refusal)) {
                    wrong.push(format!("process {at} did not start, and did not say why:\n{log}"));
                }
                let binary = if to == BINARY {
                    let _code = two.processes[1 - at].stop().await;
                    two.processes[1 - at] = two.try_start_again(1 - at, to).await.expect("no other process lives");
                    traffic.addresses.lock().unwrap()[1 - at] = addresses(two, 1 - at);
                    binaries = [to, to];
                    to
                } else {
                    from
                };
                two.try_start_again(at, binary).await.expect("both are of one version")
            }
        };
        traffic.addresses.lock().unwrap()[at] = addresses(two, at);
    }
    both_served |= traffic.both_create_orders().await && binaries[0] != binaries[1];
    traffic.is_over.store(true, Ordering::SeqCst);
    Replacement { wrong, refused, both_served }
}

async fn check_replacement(test: &str, from: &str, to: &str) {
    let Some(mut two) = TwoProcesses::start_binaries(from).await else { return };
    let seed = seed();
    let traffic = Traffic::new(&two, seed);
    let moves_together = follows_moves(from) && follows_moves(to);
    for rung in if moves_together { &LADDER[1..] } else { &[] } {
        for route in &FAMILY[..2] {
            let (status, answer) = traffic.flip(0, route, rung).await.expect("an answer");
            assert_eq!(status, 200, "{answer}");
        }
    }
    let clients = futures_util::future::join_all((0..CLIENTS).map(|of| traffic.send_orders(of)));
    let replacing = replace_both(&mut two, &traffic, from, to);
    let moving = async {
        if moves_together {
            traffic.move_route().await;
        }
    };
    let (replaced, (), _) = tokio::join!(replacing, moving, clients);
    let Replacement { mut wrong, refused, both_served } = replaced;

    // Each order that was answered is sent once more to both.
    let tries = traffic.tries.into_inner().unwrap();
    let client = Client::new(WAIT_MAX);
    let (mut by, mut unanswered, mut refused_retries, mut again) = ([0_u64; 2], 0_u64, 0_u64, Vec::new());
    for (number, one, other) in &tries {
        let Some(id) = created(one, other).first().copied() else {
            unanswered += 1;
            continue;
        };
        by[usize::from(id.is_string())] += 1;
        for (at, process) in two.processes.iter().enumerate() {
            let logged = process.log().len();
            let mut retry = try_order(&client, &process.url(), *number).await;
            // Until December 2026 a thread that serves clients could wait for a shadow run that used a connection to
            // the database, and refuse a retry (503, nothing begun). As its client would, the retry is sent again.
            for _ in 0..if to == BINARY { 0 } else { RETRIES_MAX } {
                if retry.0 != 503 {
                    break;
                }
                refused_retries += 1;
                retry = try_order(&client, &process.url(), *number).await;
            }
            let is_same = if id.is_string() { retry.1 == *id } else { retry.1.is_number() };
            if retry.0 != 201 || !is_same {
                let log = process.log().get(logged..).map(str::to_owned).unwrap_or_default();
                again.push(format!(
                    "order {number} was {id}, its retry at process {at} is {retry:?}, and its log:\n{log}"
                ));
            }
        }
    }
    let ledger = two.world.ledger().entries();
    wrong.extend(tries.iter().filter_map(|(number, one, other)| what_is_wrong(&ledger, *number, one, other)));
    wrong.extend(again);
    let unusual = traffic.unusual_moves.into_inner().unwrap();
    let moves = traffic.moves.into_inner();
    let figures = format!(
        "{} orders, {moves} moves and {} unusual ones, {refused} starts refused, legacy has {}, the engine {}, {unanswered} \
         got no answer, {refused_retries} retries at the end were refused first",
        tries.len(),
        unusual.len(),
        by[0],
        by[1]
    );
    unusual.iter().for_each(|flip| eprintln!("unusual: {flip}"));
    if moves_together && (moves < 4 || by.iter().any(|count| *count < 5)) {
        wrong.push(format!("too little happened: {figures}"));
    }
    // An older process that does not start on newer tables cannot serve beside this version.
    if !both_served && (to == BINARY || refused == 0) {
        wrong.push(format!("processes of both versions did not answer orders at the same time: {figures}"));
    }
    wrong.extend(two.finish(0).await);
    report_violations(test, Some(seed), &figures, &wrong);
}

/// Two older processes are replaced by this version, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn older_processes_are_replaced_one_after_the_other() {
    let test = "older_process::older_processes_are_replaced_one_after_the_other";
    let Some(older) = older_binary(test) else { return };
    check_replacement(test, &older, BINARY).await;
}

/// An update is taken back: two processes of this version are replaced by older ones, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_taken_back_one_process_after_the_other() {
    let test = "older_process::an_update_is_taken_back_one_process_after_the_other";
    let Some(older) = older_binary(test) else { return };
    check_replacement(test, BINARY, &older).await;
}
