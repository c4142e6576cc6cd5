//! Two processes that reach PostgreSQL through PgBouncer in transaction mode, and directly for what needs a session:
//! all that works without a pooler works with it, also after it was restarted; and addresses that are mixed up are
//! refused at the start.

use std::collections::BTreeSet;

use http::Method;
use pointsman::demo::Latency;
use pointsman::demo::http::Client;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::support::pgbouncer::PgBouncer;
use crate::support::postgres_server::Cluster;
use crate::support::process::Start;
use crate::support::seed::report_violations;
use crate::support::test_system::{FAMILY, TestSystem, some_order};
use crate::support::two_processes::TwoProcesses;
use crate::support::{FlagsDir, Pointsman, WAIT_MAX, until};

const NOT_INSTALLED: &str = "not tried: PostgreSQL or PgBouncer is not installed";
/// Keyed requests in each part of the test, each tried at both processes at once.
const ORDERS: u64 = 12;

/// Clients of two processes behind a pooler.
struct Clients {
    two: TwoProcesses,
    client: Client,
}

impl Clients {
    async fn climb(&self, at: usize, rungs: &[&str]) {
        for rung in rungs {
            for route in FAMILY {
                let flip = json!({ "to": rung, "force": true, "reason": "the test moves it" });
                let path = format!("/api/v2/routes/{route}/flip");
                let reply = self.two.processes[at].api(Method::POST, &path, flip).await;
                assert!(reply.status.is_success(), "{} {}", reply.status, reply.json());
                let behind = reply.json()["not_in_force_in"].clone();
                assert!(behind.as_array().is_none_or(Vec::is_empty), "{route} to {rung}: {behind}");
            }
        }
    }

    async fn try_order(&self, at: usize, key: &str, number: u64) -> Option<(u16, Value)> {
        let url = format!("{}/orders", self.two.processes[at].url());
        let headers = [("idempotency-key", key), ("x-tenant", "tenant")];
        let reply = self.client.json(Method::POST, &url, &headers, &some_order(number)).await.ok()?;
        Some((reply.status.as_u16(), reply.json()))
    }

    async fn order(&self, at: usize, key: &str, number: u64) -> Value {
        let (status, reply) = self.try_order(at, key, number).await.expect("an answer");
        assert_eq!(status, 201, "{key} at process {at}: {reply}\n{}", self.two.processes[at].log());
        reply["id"].clone()
    }

    async fn read(&self, at: usize, id: &Value) -> (u16, Value) {
        let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        let url = format!("{}/orders/{id}", self.two.processes[at].url());
        let reply = self.client.json(Method::GET, &url, &[("x-tenant", "tenant")], &Value::Null).await;
        let reply = reply.expect("an answer");
        (reply.status.as_u16(), reply.json())
    }

    fn charges(&self) -> u64 {
        self.two.world.ledger().balance().total("charge")
    }

    /// Orders of which each is tried at both processes, one after the other, and read at both. Returns their ids.
    async fn orders(&self, name: &str, wrong: &mut Vec<String>) -> Vec<Value> {
        let before = self.charges();
        let one = async |number: u64| {
            let (key, at) = (format!("{name}-{number}"), (number % 2) as usize);
            let id = self.order(at, &key, number).await;
            let again = self.order(1 - at, &key, number).await;
            let read = [self.read(0, &id).await, self.read(1, &id).await];
            (id, again, read)
        };
        let orders = futures_util::future::join_all((0..ORDERS).map(one)).await;
        let mut ids = Vec::new();
        for (id, again, read) in orders {
            if id != again || !id.is_string() {
                wrong.push(format!("{name}: the tries of an order got {id} and {again}"));
            }
            if let Some((status, reply)) = read.iter().find(|(status, _)| *status != 200) {
                wrong.push(format!("{name}: order {id} is answered with {status} {reply}"));
            }
            ids.push(id);
        }
        let charges = self.charges() - before;
        if charges != ORDERS || ids.iter().map(Value::to_string).collect::<BTreeSet<_>>().len() as u64 != ORDERS {
            wrong.push(format!("{name}: {charges} charges for {ORDERS} orders {ids:?}"));
        }
        ids
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_work_through_a_pooler_in_transaction_mode() {
    let Some(two) = TwoProcesses::start_behind_pooler().await else {
        eprintln!("{NOT_INSTALLED}");
        return;
    };
    let mut clients = Clients { two, client: Client::new(WAIT_MAX) };
    let mut wrong = Vec::new();
    clients.climb(0, &["shadow", "dark", "live"]).await;
    let ids = clients.orders("live", &mut wrong).await;
    // Runs that wait, and are finished by whichever process has them.
    let mut runs = Vec::new();
    for at in [0, 1, 0, 1] {
        runs.push(clients.two.start_run(at, "300ms").await);
    }
    clients.two.wait_until_completed(1, &runs).await;

    // Down again: the engine's orders and keys stay the engine's, and new ones are legacy's.
    clients.climb(1, &["off"]).await;
    for (number, id) in ids.iter().enumerate() {
        let again = clients.order(number % 2, &format!("live-{number}"), number as u64).await;
        let read = clients.read(number % 2, id).await;
        if again != *id || read.0 != 200 {
            wrong.push(format!("in off: order {id} is {again}, and read as {read:?}"));
        }
    }
    let of_legacy = clients.order(0, "off", 1).await;
    if !of_legacy.is_number() {
        wrong.push(format!("in off the engine made {of_legacy}"));
    }
    let through = clients.two.pooler.as_ref().map_or(0, |pooler| block_in_place(|| pooler.transactions()));
    let direct = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    let listening = block_in_place(|| clients.two.cluster.query(direct)).expect("it answers");
    if through == 0 || listening.trim() != "2" {
        wrong.push(format!("{through} transactions went through the pooler, {} sessions listen", listening.trim()));
    }

    // Without the pooler nothing is performed twice, and no lease is lost; when it is back, all works as before.
    clients.climb(0, &["shadow", "dark", "live"]).await;
    let before = clients.charges();
    if let Some(pooler) = &mut clients.two.pooler {
        block_in_place(|| pooler.stop());
    }
    let without = clients.try_order(0, "without", 1).await.expect("an answer");
    let rows = clients.two.processes[0].get("/api/v2/processes").await;
    if let Some(pooler) = &mut clients.two.pooler {
        block_in_place(|| pooler.start_again());
    }
    if rows.as_array().map(Vec::len) != Some(2) {
        wrong.push(format!("without the pooler these processes have a lease: {rows}"));
    }
    let again = until("the order to be taken", || async {
        clients.try_order(1, "without", 1).await.filter(|(status, _)| *status == 201)
    })
    .await;
    if clients.charges() != before + 1 || (without.0 == 201 && without.1["id"] != again.1["id"]) {
        let charges = clients.charges() - before;
        wrong.push(format!("without the pooler {without:?}, then {again:?}, with {charges} charges"));
    }
    clients.orders("restarted", &mut wrong).await;
    let figures =
        format!("{}, {} orders, {through} transactions through it, 1 restart", PgBouncer::version(), 2 * ORDERS);
    wrong.extend(clients.two.finish(0).await);
    report_violations("pooler::two_processes_work_through_a_pooler_in_transaction_mode", None, &figures, &wrong);
}

/// One process climbs through its real gates: evidence, samples and lists are read and written through the pooler.
#[tokio::test(flavor = "multi_thread")]
async fn a_family_climbs_through_its_gates_behind_a_pooler() {
    let started = block_in_place(|| {
        let cluster = Cluster::start()?;
        let pooler = PgBouncer::start(&cluster)?;
        Some((cluster, pooler))
    });
    let Some((cluster, pooler)) = started else {
        eprintln!("{NOT_INSTALLED}");
        return;
    };
    let direct = format!("store_direct: {}\n", cluster.url());
    let mut system = TestSystem::on(Some(pooler.url()), Latency::instant(), |flags| {
        flags.edit("pointsman.yaml", |text| text + &direct)
    })
    .await;
    system.climb_to("live").await;
    system.create_read_cancel_many(10).await;
    let shown = system.pointsman.cli(&["diffs", "orders.create"]).await;
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let runs = system.pointsman.get("/api/v2/orchestrate/runs").await;
    assert!(!runs.to_string().is_empty());
    let log = system.pointsman.log();
    assert!(!log.contains("the store did not answer"), "{log}");
    // The checker reads the store directly.
    system.use_url(cluster.url());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_mixed_up_are_refused_at_the_start() {
    let started = block_in_place(|| {
        let cluster = Cluster::start()?;
        let pooler = PgBouncer::start(&cluster)?;
        Some((cluster, pooler))
    });
    let Some((cluster, mut pooler)) = started else {
        eprintln!("{NOT_INSTALLED}");
        return;
    };
    block_in_place(|| {
        cluster.query("CREATE DATABASE empty").expect("created");
        cluster.query("CREATE DATABASE other").expect("created");
    });
    let dir = tempfile::tempdir().expect("a directory");
    let refused = async |store: &str, direct: Option<&str>| {
        let flags = FlagsDir::example("http://127.0.0.1:9", "http://127.0.0.1:9");
        let line = direct.map(|direct| format!("store_direct: {direct}\n")).unwrap_or_default();
        flags.edit("pointsman.yaml", |text| text + "limits: { store_connect_ms: 2000 }\n" + &line);
        let start = Start { store: store.to_owned(), ..Start::in_memory(flags.path(), dir.path()) };
        let _ = std::fs::remove_file(dir.path().join("log"));
        match Pointsman::try_start(&start).await {
            Ok(mut started) => {
                started.stop().await;
                "it started".to_owned()
            }
            Err(log) => log,
        }
    };
    let pooled = pooler.url();
    let through = |database: &str| pooled.trim_end_matches("postgres").to_owned() + database;
    let mut wrong = Vec::new();
    let mut expect = |what: &str, log: String, says: &str| {
        if !log.contains(says) {
            wrong.push(format!("{what}: the log does not say `{says}`:\n{log}"));
        }
    };
    let as_pooler = "is a pooler in transaction mode";
    expect("a pooler alone", refused(&pooler.url(), None).await, as_pooler);
    let again = format!("{}?application_name=pointsman", pooler.url());
    expect("a pooler twice", refused(&pooler.url(), Some(&again)).await, as_pooler);
    expect("the same address", refused(&cluster.url(), Some(&cluster.url())).await, "is the URL of `store`");
    // A store in each of two databases.
    expect("a store", refused(&through("postgres"), Some(&cluster.url())).await, "it started");
    expect("another store", refused(&cluster.url_of("other"), None).await, "it started");
    expect("no store", refused(&through("empty"), Some(&cluster.url())).await, "`empty`, which has no store");
    let log = refused(&through("other"), Some(&cluster.url())).await;
    expect("two stores", log, "`other`, which has another store");
    block_in_place(|| pooler.stop());
    let log = refused(&through("postgres"), Some(&cluster.url())).await;
    expect("a pooler that is gone", log, "(`store`), which should be a pooler before");
    report_violations("pooler::addresses_that_are_mixed_up_are_refused_at_the_start", None, "8 starts", &wrong);
}
