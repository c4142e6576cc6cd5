//! Moves of routes that two processes on one PostgreSQL have in force together.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use pointsman::demo::LedgerEntry;
use pointsman::demo::http::Client;
use pointsman::demo::world::Fault;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::seed::{report_violations, seed};
use crate::support::test_system::{FAMILY, some_order};
use crate::support::two_processes::{LEASE, TwoProcesses};
use crate::support::{WAIT_MAX, until};

const CREATOR: &str = "orders.create";
/// How much longer than a lease a move may take on a busy machine.
const SLACK: Duration = Duration::from_secs(6);

/// The status and the answer of a flip at a process.
pub async fn flip(two: &TwoProcesses, at: usize, route: &str, flip: Value) -> (u16, Value) {
    let path = format!("/api/v2/routes/{route}/flip");
    let reply = two.processes[at].api(Method::POST, &path, flip).await;
    (reply.status.as_u16(), reply.json())
}

/// A flip by force.
pub fn forced(to: &str) -> Value {
    json!({ "to": to, "force": true, "reason": "the test moves it" })
}

/// The requested state of a route, as a process shows it.
pub async fn requested(two: &TwoProcesses, at: usize, route: &str) -> String {
    let shown = two.processes[at].get(&format!("/api/v2/routes/{route}")).await;
    shown["row"]["requested"].as_str().unwrap_or_default().to_owned()
}

/// Raises the family, each route at another process, and returns what is not in force in the other one at once.
async fn climb(two: &TwoProcesses, rungs: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (rung_at, rung) in rungs.iter().enumerate() {
        for (route_at, route) in FAMILY.into_iter().enumerate() {
            let by = (rung_at + route_at) % 2;
            let (status, reply) = flip(two, by, route, forced(rung)).await;
            if status != 200 || !reply["not_in_force_in"].is_null() {
                wrong.push(format!("`{route}` to `{rung}` at process {by}: {status} {reply}"));
            }
            let other = requested(two, 1 - by, route).await;
            if other != *rung {
                wrong.push(format!("`{route}` is `{other}` at the other process after a flip to `{rung}`"));
            }
        }
    }
    wrong
}

async fn order(client: &Client, two: &TwoProcesses, at: usize, number: u64) -> Value {
    let (url, key) = (format!("{}/orders", two.processes[at].url()), format!("order-{number}"));
    let headers = [("idempotency-key", key.as_str()), ("x-tenant", "tenant")];
    client.json(Method::POST, &url, &headers, &some_order(number)).await.expect("a reply").json()
}

/// The status of a try of an order, 0 for none, and the id in the answer, or the whole answer if it did not create the
/// order.
pub type Try = (u16, Value);

/// Sends a keyed order, whose calls can be found in the ledger by its number.
pub async fn try_order(client: &Client, process: &str, number: u64) -> Try {
    let key = format!("key-{number}");
    let (trace, tenant) = (format!("00-{number:032x}-{number:016x}-01"), format!("tenant-{}", number % 41));
    let headers = [("idempotency-key", key.as_str()), ("x-tenant", tenant.as_str()), ("traceparent", trace.as_str())];
    let reply = client.json(Method::POST, &format!("{process}/orders"), &headers, &some_order(number)).await;
    let Ok(reply) = reply else { return (0, Value::Null) };
    let (status, answer) = (reply.status.as_u16(), reply.json());
    (status, if status == 201 { answer["id"].clone() } else { answer })
}

/// The ids in the answers of two tries that created the order.
pub fn created<'a>(one: &'a Try, other: &'a Try) -> Vec<&'a Value> {
    [one, other].into_iter().filter(|reply| reply.0 == 201).map(|reply| &reply.1).collect()
}

/// What is wrong with the two tries of an order: one arm has to have performed it, and the engine once.
pub fn what_is_wrong(ledger: &[LedgerEntry], number: u64, one: &Try, other: &Try) -> Option<String> {
    let trace = format!("{number:032x}");
    let charges: Vec<&str> = ledger
        .iter()
        .filter(|entry| entry.operation == "charge" && !entry.repeated)
        .filter(|entry| entry.trace.as_deref().is_some_and(|of| of.contains(&trace)))
        .map(|entry| entry.caused_by.as_str())
        .collect();
    let created = created(one, other);
    // Legacy gets both tries of an order that it has, and makes what it wants of two that come at once.
    let is_of_legacy = !charges.is_empty() && charges.iter().all(|by| by.starts_with("legacy:"));
    let is_right = match created[..] {
        _ if is_of_legacy => created.iter().all(|id| id.is_number()),
        [] => charges.len() <= 1,
        [_] => charges.len() == 1,
        [one, other] => charges.len() == 1 && one == other,
        _ => false,
    };
    (!is_right).then(|| format!("order {number}: charged by {charges:?}, and the answers are {one:?} and {other:?}"))
}

/// A move at one process is in force in the other one when its caller has the answer, and so is a freeze. The other one
/// knows the engine's instances and keys, and a process that starts later has all of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_in_force_in_all_processes() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    let client = Client::new(WAIT_MAX);
    let mut wrong = climb(&two, &["shadow", "dark", "live"]).await;
    let created = order(&client, &two, 0, 1).await;
    if !created["id"].is_string() {
        wrong.push(format!("the engine did not answer: {created}"));
    }
    let get = async |at: usize, id: &Value| {
        let url = format!("{}/orders/{}", two.processes[at].url(), id.as_str().unwrap_or_default());
        client.json(Method::GET, &url, &[], &Value::Null).await.expect("a reply")
    };
    let followed_up = get(1, &created["id"]).await;
    if followed_up.status != 200 {
        wrong.push(format!("the other process does not know the instance: {}", followed_up.json()));
    }
    let again = order(&client, &two, 1, 1).await;
    if again["id"] != created["id"] {
        wrong.push(format!("the retry at the other process got {again} instead of {created}"));
    }

    let freeze = async |at: usize, on: bool| {
        let reply =
            two.processes[at].api(Method::POST, "/api/v2/freeze", json!({ "on": on, "reason": "a test" })).await;
        (reply.status.as_u16(), reply.json())
    };
    for (by, number) in [(0, 2), (1, 3)] {
        let (status, reply) = freeze(by, true).await;
        if status != 200 || !reply["not_in_force_in"].is_null() || !reply["note"].is_null() {
            wrong.push(format!("the freeze at process {by}: {status} {reply}"));
        }
        let frozen = order(&client, &two, 1 - by, number).await;
        if !frozen["id"].is_number() {
            wrong.push(format!("frozen at process {by}, the other one answers {frozen}"));
        }
        // The other one ends it.
        let (status, reply) = freeze(1 - by, false).await;
        if status != 200 {
            wrong.push(format!("the end of the freeze at process {}: {status} {reply}", 1 - by));
        }
        let ended = order(&client, &two, by, number + 10).await;
        if !ended["id"].is_string() {
            wrong.push(format!("after the end of the freeze process {by} answers {ended}"));
        }
    }

    let share = json!({ "to": "live", "percent": 30, "force": true, "reason": "a smaller share" });
    let (status, reply) = flip(&two, 1, CREATOR, share).await;
    let mut third = two.start_another("third").await;
    for (name, process) in [("first", &two.processes[0]), ("third", &third)] {
        let row = process.get(&format!("/api/v2/routes/{CREATOR}")).await;
        if row["row"]["shares"]["live"] != 30.0 {
            wrong.push(format!("the share at the {name} process: {}, after {status} {reply}", row["row"]["shares"]));
        }
    }
    third.stop().await;
    let (status, reply) = flip(&two, 0, CREATOR, json!({ "to": "dark" })).await;
    if status != 200 || requested(&two, 1, CREATOR).await != "dark" {
        wrong.push(format!("down at process 0: {status} {reply}"));
    }
    let below = order(&client, &two, 1, 30).await;
    if !below["id"].is_number() {
        wrong.push(format!("in `dark` the other process answers {below}"));
    }
    let shown = two.processes[0].get("/api/v2/processes").await;
    let numbers: Vec<_> = shown.as_array().expect("rows").iter().map(|row| row["newest_flip"].clone()).collect();
    if numbers.len() != 2 || !numbers[0].is_u64() || numbers[0] != numbers[1] {
        wrong.push(format!("the newest flips of the processes: {numbers:?}"));
    }
    wrong.extend(two.finish(0).await);
    report_violations("shared_moves::a_move_is_in_force_in_all_processes", None, "14 moves, 4 of the freeze", &wrong);
}

/// The engine does not answer before a hanging process has lost its lease. That process serves again only with the move
/// in force.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_to_live_waits_for_a_process_that_hangs() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    let client = Client::new(WAIT_MAX);
    let mut wrong = climb(&two, &["shadow", "dark"]).await;
    for route in &FAMILY[..2] {
        let (status, reply) = flip(&two, 0, route, forced("live")).await;
        assert_eq!(status, 200, "{reply}");
    }
    two.processes[1].signal(Signal::STOP);
    let began = Instant::now();
    let (status, reply) = flip(&two, 0, CREATOR, forced("live")).await;
    let took = began.elapsed();
    if status != 200 || took > LEASE + SLACK {
        wrong.push(format!("a hanging process: {status} {reply} after {took:?}, and a lease lasts {LEASE:?}"));
    }
    let created = order(&client, &two, 0, 1).await;
    two.processes[1].signal(Signal::CONT);
    let again = order(&client, &two, 1, 1).await;
    if !created["id"].is_string() || (again["id"] != created["id"] && again["status"] != 503) {
        wrong.push(format!("created {created}, and the process that hung answers {again}"));
    }
    until("the process to follow", || async { (requested(&two, 1, CREATOR).await == "live").then_some(()) }).await;
    wrong.extend(two.finish(0).await);
    let figures = format!("1 flip, after {took:.1?}");
    report_violations("shared_moves::a_move_to_live_waits_for_a_process_that_hangs", None, &figures, &wrong);
}

/// Each keyed order is sent to both processes while its route moves between `dark` and `live`, at either of them: one
/// arm performs it once.
#[tokio::test(flavor = "multi_thread")]
async fn one_arm_performs_each_order_while_the_route_moves() {
    const ORDERS: u64 = 600;
    const CLIENTS: u64 = 12;
    let test = "shared_moves::one_arm_performs_each_order_while_the_route_moves";
    // Moves by force do not wait for a process that has lost its lease.
    let Some(two) = TwoProcesses::start_with_long_lease("").await else { return };
    let seed = seed();
    let random_of = |n: u64| fastrand::Rng::with_seed(seed.wrapping_mul(1_000) + n);
    let mut wrong = climb(&two, &["shadow", "dark", "live"]).await;
    let (next, done, moves) = (AtomicU64::new(1), AtomicBool::new(false), AtomicU64::new(0));
    let answers = std::sync::Mutex::new(Vec::new());
    let send =
        async |client: &Client, at: usize, number: u64| try_order(client, &two.processes[at].url(), number).await;
    let clients = async {
        let one_client = async |of: u64| {
            let (client, mut random) = (Client::new(WAIT_MAX), random_of(of));
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number > ORDERS {
                    return;
                }
                let (first, pause) = (random.usize(..2), Duration::from_micros(random.u64(..40_000)));
                let second = async {
                    tokio::time::sleep(pause).await; // how far apart the tries are differs
                    send(&client, 1 - first, number).await
                };
                let both = tokio::join!(send(&client, first, number), second);
                answers.lock().unwrap().push((number, both));
            }
        };
        futures_util::future::join_all((0..CLIENTS).map(one_client)).await;
        done.store(true, Ordering::SeqCst);
    };
    let mover = async {
        let mut random = random_of(CLIENTS);
        while !done.load(Ordering::SeqCst) {
            let to = if random.bool() { "live" } else { "dark" };
            let percent = [20, 60, 100][random.usize(..3)];
            let asked = json!({ "to": to, "percent": percent, "force": true, "reason": "the test moves it" });
            let (status, _) = flip(&two, random.usize(..2), CREATOR, asked).await;
            if status == 200 {
                moves.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    tokio::join!(clients, mover);
    let (mut by, mut refused) = ([0_u64; 2], 0_u64);
    let ledger = two.world.ledger().entries();
    for (number, (one, other)) in answers.into_inner().unwrap() {
        wrong.extend(what_is_wrong(&ledger, number, &one, &other));
        let created: Vec<&Value> = created(&one, &other);
        refused += 2 - created.len() as u64;
        if let Some(arm) = created.first() {
            by[usize::from(arm.is_string())] += 1;
        }
    }
    let moves = moves.into_inner();
    let figures =
        format!("{ORDERS} orders, {moves} moves, legacy has {}, the engine {}, {refused} tries refused", by[0], by[1]);
    // On a busy machine each move takes longer.
    if moves < 4 || by.iter().any(|count| *count < 5) {
        wrong.push(format!("too little happened: {figures}"));
    }
    wrong.extend(two.finish(0).await);
    report_violations(test, Some(seed), &figures, &wrong);
}

/// A read of the workflow fails before anything has begun. Legacy answers, and gets the retry too, at either process.
#[tokio::test(flavor = "multi_thread")]
async fn a_keyed_request_that_the_engine_gives_back_is_legacys() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    let client = Client::new(WAIT_MAX);
    let mut wrong = climb(&two, &["shadow", "dark", "live"]).await;
    for (number, at) in [(1, 0), (2, 1)] {
        two.world.fault("quote", Fault::Refuse(503), 8);
        let first = order(&client, &two, at, number).await;
        two.world.clear_faults();
        let retries = [order(&client, &two, at, number).await, order(&client, &two, 1 - at, number).await];
        if !first["id"].is_number() || retries.iter().any(|retry| !retry["id"].is_number()) {
            wrong.push(format!("at process {at}: {first}, and its retries {retries:?}"));
        }
    }
    let another = order(&client, &two, 0, 3).await;
    if !another["id"].is_string() {
        wrong.push(format!("the engine does not answer the next one: {another}"));
    }
    wrong.extend(two.finish(0).await);
    report_violations("shared_moves::a_keyed_request_that_the_engine_gives_back_is_legacys", None, "3 orders", &wrong);
}
