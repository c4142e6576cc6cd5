//! How many round trips to PostgreSQL requests, runs and an idle process take, counted on the wire by a proxy between
//! the process and the database. The figures of `src/docs/scale.md` are these.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use http::Method;
use pointsman::demo::Latency;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::support::counting_proxy::{CountingProxy, PING, PREPARE, RoundTrips};
use crate::support::documented;
use crate::support::postgres_server::Cluster;
use crate::support::seed::report_violations;
use crate::support::test_system::{FAMILY, TestSystem, some_order};
use crate::support::until;

/// Requests or runs per figure.
const REPEATED: u64 = 40;
/// How long the idle process is watched.
const IDLE: Duration = Duration::from_secs(20);
/// The figures, each with how far a count may be below it and above it. Below it is wide, because what follows behind a
/// request is written in batches. Above it is less than half a round trip, so that one more for each request or run is
/// found. That is enough: the statements that an idle process sends too are not counted ([`CountedSystem::idle`]), and
/// of those whose number depends on the time that the requests take, only [`PERIODIC_MAX`] are ([`Figure::each`]).
const TOLERANCES: &[(&str, f64, f64)] = &[
    ("run of 10 charges", 1.1, 0.4),
    ("run of 10 reads", 1.1, 0.4),
    ("keyed request in off", 1.0, 0.4),
    // What follows behind its answer is two writes, which are in one batch or in two, and a look-up and an append of the
    // engine, for each request or for several together.
    ("keyed request in dark", 1.6, 1.0),
    ("keyed request in live", 1.1, 0.4),
    ("follow-up in live", 1.1, 0.4),
    // What is sent less often than once a second falls into this count or not.
    ("idle process, per second", 1.5, 1.5),
];
/// Statements that are sent at an interval as long as there is something to write, however many requests it is for.
const PERIODIC: [&str; 5] = [
    "INSERT INTO legacy_instances",
    "UPDATE legacy_instances",
    "SELECT own.route, own.record, sha256(own.record) FROM evidence",
    "WITH new AS MATERIALIZED (SELECT * FROM unnest($1, $2, $3) AS n(route, version, record))",
    "WITH put AS (INSERT INTO service_callers",
];
/// The shortest of their intervals.
const PERIOD: Duration = Duration::from_millis(200);
/// Of each of them at most this many count for a figure, as many as on an idle machine. On a busy machine the requests
/// take longer, and more of these statements are sent meanwhile.
const PERIODIC_MAX: u64 = 6;
/// How the keys of requests are written behind, and how the engine looks them up in `dark`. Each request has two keys,
/// which are in one statement or in two: of each of these statements, one for each request counts, unless there are more
/// than two. Only where they follow behind: in `live` the caller waits for each.
const ABOUT_KEYS: [&str; 2] =
    ["INSERT INTO retry_keys AS held", "SELECT key, arm, run_id, request, at FROM retry_keys"];
/// The limits: no sweep falls into a count of requests.
const LIMITS: &str = "limits: { sweep_ms: 600000 }\n";

/// A step with a shared effect, and one that reads.
const CHARGE: &str = "    call: POST ${services.bank}/charges\n    headers: { x-caused-by: \"engine:${run.id}\" }\n    \
                      body: { amount: 1 }\n";
const READ: &str =
    "    call: POST ${services.prices}/quotes\n    effect: read\n    body: { items: [{ sku: tea, qty: 1 }] }\n";

/// A system whose store is behind a counting proxy.
struct CountedSystem {
    cluster: Cluster,
    proxy: CountingProxy,
    system: TestSystem,
    /// The statements that an idle process sends too: not counted for requests.
    background: BTreeSet<String>,
}

/// One figure: how many requests, runs or seconds it is for, how long they took, and the round trips by statement.
struct Figure {
    what: &'static str,
    number: f64,
    took: Duration,
    trips: RoundTrips,
}

impl Figure {
    /// The round trips for each of them. Periodic statements that came as often as their interval allows count at most
    /// [`PERIODIC_MAX`] times; for [`ABOUT_KEYS`] see there.
    fn each(&self) -> f64 {
        let intervals = self.took.as_millis() / PERIOD.as_millis() + 1;
        let counted = |(label, sent): (&String, &u64)| {
            let is_periodic = PERIODIC.iter().any(|periodic| label.starts_with(periodic));
            let of_keys = self.keys_follow_behind() && ABOUT_KEYS.iter().any(|text| label.starts_with(text));
            match () {
                () if is_periodic && u128::from(*sent) <= intervals => (*sent).min(PERIODIC_MAX),
                () if of_keys && *sent <= 2 * REPEATED => (*sent).min(REPEATED),
                () => *sent,
            }
        };
        self.trips.iter().map(counted).sum::<u64>() as f64 / self.number
    }

    fn keys_follow_behind(&self) -> bool {
        ["keyed request in off", "keyed request in dark"].contains(&self.what)
    }
}

impl CountedSystem {
    async fn start() -> Option<Self> {
        let Some(cluster) = block_in_place(Cluster::start) else {
            eprintln!("not tried: PostgreSQL is not installed");
            return None;
        };
        let proxy = CountingProxy::to(cluster.address()).await;
        let url = cluster.url().replace(&cluster.address().to_string(), &proxy.address().to_string());
        let system = TestSystem::on(Some(url + "?sslmode=disable"), Latency::instant(), |flags| {
            flags.edit("pointsman.yaml", |text| text + LIMITS);
            flags.write("workflows/ten-charges.yaml", &ten_steps("ten-charges", CHARGE));
            flags.write("workflows/ten-reads.yaml", &ten_steps("ten-reads", READ));
        })
        .await;
        Some(Self { cluster, proxy, system, background: BTreeSet::new() })
    }

    /// What an idle process sends, per second.
    async fn idle(&mut self) -> Figure {
        let before = self.proxy.counted();
        tokio::time::sleep(IDLE).await;
        let trips = self.proxy.since(&before);
        self.background = trips.keys().cloned().collect();
        Figure { what: "idle process, per second", number: IDLE.as_secs_f64(), took: IDLE, trips }
    }

    /// Does something repeatedly, until `done` counts it in the database; returns the round trips, without those of
    /// statements that an idle process sends too.
    async fn each(&self, what: &'static str, done: &str, act: impl AsyncFn(u64)) -> Figure {
        let count = || -> u64 {
            let count = block_in_place(|| self.cluster.query(done)).expect("it answers");
            count.trim().parse().expect("a number")
        };
        let before = count();
        let earlier = self.proxy.counted();
        let begun = Instant::now();
        for number in 0..REPEATED {
            act(number).await;
        }
        until(what, || async { (count() >= before + REPEATED).then_some(()) }).await;
        // They read the runs, after the replies.
        self.system.wait_for_answer_checks().await;
        let (mut trips, took) = (self.proxy.since(&earlier), begun.elapsed());
        trips.retain(|label, _| !self.background.contains(label) && !label.starts_with(PREPARE));
        Figure { what, number: REPEATED as f64, took, trips }
    }

    async fn order(&self, key: &str) -> Value {
        let headers = [("idempotency-key", key)];
        let reply = self.system.send_with(Method::POST, "/orders", &headers, &some_order(2)).await.expect("an answer");
        assert!(reply.status.is_success(), "{}: {}", reply.status, reply.json());
        reply.json()
    }

    async fn climb(&self, to: &str) {
        for route in FAMILY {
            self.system.flip(route, to, &["--force", "--reason", "the test climbs"]).await.expect("it climbs");
        }
    }
}

/// A workflow of ten steps, one after the other.
fn ten_steps(name: &str, call: &str) -> String {
    let step = |number: u32| {
        let needs = if number == 1 { String::new() } else { format!("    needs: [s{}]\n", number - 1) };
        format!("  s{number}:\n{needs}{call}")
    };
    let steps: String = (1..=10).map(step).collect();
    format!("workflow: {name}\nsteps:\n{steps}respond: {{ status: 200, body: {{ done: true }} }}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_round_trips_of_runs_requests_and_an_idle_process_are_bounded() {
    let Some(mut of_test) = CountedSystem::start().await else { return };
    let mut figures = vec![of_test.idle().await];
    let counted = &of_test;
    let run = async |workflow: &str| {
        let body = json!({ "workflow": workflow, "input": {}, "stream": false });
        let reply = counted.system.pointsman.api(Method::POST, "/api/v2/orchestrate/run", body).await;
        let reply = reply.json();
        assert_eq!(reply["data"]["status"], "completed", "{reply}");
    };
    let ended = "SELECT count(*) FROM pointsman.runs WHERE ended";
    for (what, workflow) in [("run of 10 charges", "ten-charges"), ("run of 10 reads", "ten-reads")] {
        run(workflow).await;
        figures.push(counted.each(what, ended, async |_| run(workflow).await).await);
    }
    let keys = "SELECT count(*) FROM pointsman.retry_keys";
    for (what, state) in
        [("keyed request in off", "off"), ("keyed request in dark", "dark"), ("keyed request in live", "live")]
    {
        if state != "off" {
            for rung in ["shadow", "dark", "live"] {
                counted.climb(rung).await;
                if rung == state {
                    break;
                }
            }
        }
        counted.order(&format!("{state}-first")).await;
        counted.system.wait_for_shadow_idle().await;
        figures.push(
            counted
                .each(what, keys, async |number| {
                    counted.order(&format!("{state}-{number}")).await;
                })
                .await,
        );
        counted.system.wait_for_shadow_idle().await;
    }
    let order = counted.order("followed").await;
    counted.system.wait_for_runs_to_end().await;
    counted.system.wait_for_answer_checks().await;
    figures.push(counted.each("follow-up in live", ended, async |_| drop(counted.system.read(&order).await)).await);
    let documented = documented::table("scale", "| what | round trips |");
    let mut wrong = Vec::new();
    for figure in &figures {
        let (Figure { what, trips, .. }, each) = (figure, figure.each());
        println!("{what}: {each:.1} round trips: {trips:#?}");
        let shown = documented.iter().find(|row| row[0] == *what).and_then(|row| row[1].parse::<f64>().ok());
        let Some(shown) = shown else {
            wrong.push(format!("scale.md has no figure for: {what}, {each:.1}"));
            continue;
        };
        let (_, below, above) = TOLERANCES.iter().find(|(name, ..)| name == what).expect("a tolerance");
        if each < shown - below || each > shown + above {
            wrong.push(format!("{what}: {each:.1} round trips, and scale.md says {shown}: {trips:#?}"));
        }
        // A ping is a round trip that carries nothing.
        if trips.contains_key(PING) {
            wrong.push(format!("{what}: {} pings", trips[PING]));
        }
        let of_keys = ["FROM retry_keys", "engine_took_any_after"];
        let is_look_up = |statement: &&String| {
            statement.contains("SELECT") && of_keys.iter().any(|of_keys| statement.contains(of_keys))
        };
        // In `dark` the engine looks keys up, after the reply.
        if let Some(look_up) = trips.keys().find(is_look_up).filter(|_| *what == "keyed request in off") {
            wrong.push(format!("{what} waits for a look-up: {look_up}"));
        }
    }
    if documented.len() != figures.len() {
        wrong.push(format!("scale.md has {} figures, and {} were counted", documented.len(), figures.len()));
    }
    let shown: Vec<String> = figures.iter().map(|figure| format!("{}: {:.1}", figure.what, figure.each())).collect();
    of_test.system.allowed.unacknowledged = true;
    of_test.system.finish().await;
    let test = "round_trips::the_round_trips_of_runs_requests_and_an_idle_process_are_bounded";
    report_violations(test, None, &shown.join(", "), &wrong);
}
