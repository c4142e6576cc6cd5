//! Two processes on one PostgreSQL, with one outside world. The first connects to the database through a
//! [`FaultyLink`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use pointsman::demo::{Latency, Legacy, OutsideWorld};
use pointsman::limits::Limits;
use pointsman::secret::Secret;
use pointsman::store::{PostgresStore, StoreHandle};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::faulty_link::FaultyLink;
use super::pgbouncer::PgBouncer;
use super::postgres_server::Cluster;
use super::process::{BINARY, Start};
use super::small_disk::SmallDisk;
use super::{FlagsDir, LOCAL, Pointsman, checker, until};

/// The lease of a process on its runs, from its last heartbeat.
pub const LEASE: Duration = Duration::from_millis(2_000);
/// A lease for tests in which nobody is to lose it.
const LONG_LEASE: Duration = Duration::from_secs(20);

/// The names of the processes' logs.
const NAMES: [&str; 2] = ["first", "second"];

/// A mail, a wait, a charge, another mail.
const RELAY: &str = r#"workflow: relay
input: { schema: { type: object, required: [pause] } }
steps:
  first:
    call: POST ${services.mail}/messages
    headers: { x-caused-by: "engine:${run.id}" }
    body: { n: 1 }
  pause: { needs: [first], wait: "${request.body.pause}" }
  second:
    needs: [pause]
    call: POST ${services.bank}/charges
    headers: { x-caused-by: "engine:${run.id}" }
    body: { amount: 5 }
    timeout: 60s
  third:
    needs: [second]
    call: POST ${services.mail}/messages
    headers: { x-caused-by: "engine:${run.id}" }
    body: { n: 2 }
respond: { status: 200, body: { done: true } }
"#;

/// How the two are started.
struct Options<'a> {
    /// The environment of the second process.
    second: &'a [(&'a str, String)],
    lease: Duration,
    binary: &'a str,
    /// Further limits of both, as in the files.
    limits: &'a str,
    /// What the database is on, if on a disk of its own.
    disk: Option<SmallDisk>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { second: &[], lease: LEASE, binary: BINARY, limits: "", disk: None }
    }
}

/// Two processes that share a database.
pub struct TwoProcesses {
    /// The outside world.
    pub world: OutsideWorld,
    /// The link between the first process and the database.
    pub link: FaultyLink,
    /// The first and the second process.
    pub processes: [Pointsman; 2],
    /// The database server.
    pub cluster: Cluster,
    /// The pooler before it, if there is one.
    pub pooler: Option<PgBouncer>,
    _legacy: Legacy,
    /// The flag files of both.
    pub flags: FlagsDir,
    /// The address of the database, as each process has it.
    stores: [String; 2],
    _dir: TempDir,
}

impl TwoProcesses {
    /// Starts the database and both processes; the second process gets this environment. `None` without PostgreSQL.
    pub async fn start(second: &[(&str, String)]) -> Option<Self> {
        let options = Options { second, ..Options::default() };
        Self::start_on(options, |_| None, async |legacy| legacy).await
    }
    /// As [`Self::start`], with a further limit for both.
    pub async fn start_with_limits(limits: &str) -> Option<Self> {
        Self::start_on(Options { limits, ..Options::default() }, |_| None, async |legacy| legacy).await
    }
    /// As [`Self::start`], with a lease that a busy machine renews in time, and a further limit for both, if any.
    pub async fn start_with_long_lease(limits: &str) -> Option<Self> {
        let options = Options { lease: LONG_LEASE, limits, ..Options::default() };
        Self::start_on(options, |_| None, async |legacy| legacy).await
    }
    /// As [`Self::start_with_long_lease`], with another binary.
    pub async fn start_binaries(binary: &str) -> Option<Self> {
        let options = Options { lease: LONG_LEASE, binary, ..Options::default() };
        Self::start_on(options, |_| None, async |legacy| legacy).await
    }
    /// Like [`TwoProcesses::start`], with the service in front of legacy that `shop` starts: it gets the URL of legacy,
    /// and returns its own. The database is on this disk, if any.
    pub async fn start_with_shop(
        second: &[(&str, String)],
        disk: Option<SmallDisk>,
        shop: impl AsyncFnOnce(String) -> String,
    ) -> Option<Self> {
        Self::start_on(Options { second, disk, ..Options::default() }, |_| None, shop).await
    }
    /// Starts the database, PgBouncer in transaction mode before it, and both processes, which reach the database
    /// through it and directly. `None` without PostgreSQL or PgBouncer.
    pub async fn start_behind_pooler() -> Option<Self> {
        let two = Self::start_on(Options::default(), PgBouncer::start, async |legacy| legacy).await?;
        two.pooler.is_some().then_some(two)
    }
    async fn start_on(
        Options { second, lease, binary, limits, disk }: Options<'_>,
        pooler: impl FnOnce(&Cluster) -> Option<PgBouncer> + Send + 'static,
        shop: impl AsyncFnOnce(String) -> String,
    ) -> Option<Self> {
        let started = tokio::task::spawn_blocking(move || {
            let cluster = match disk {
                Some(disk) => Cluster::start_in(disk)?,
                None => Cluster::start()?,
            };
            let pooler = pooler(&cluster);
            Some((cluster, pooler))
        });
        let Some((cluster, pooler)) = started.await.expect("a server") else {
            eprintln!("not tried: PostgreSQL is not installed");
            return None;
        };
        let world = OutsideWorld::start(LOCAL, Latency::instant()).await.expect("a port");
        let legacy = Legacy::start(LOCAL, &world.url(), Latency::instant()).await.expect("a port");
        let flags = FlagsDir::example(&shop(legacy.url()).await, &world.url());
        flags.write("workflows/relay.yaml", RELAY);
        let lease = lease.as_millis();
        flags.edit("pointsman.yaml", |text| {
            let comma = if limits.is_empty() { "" } else { ", " };
            format!("{text}limits: {{ lease_ms: {lease}, sweep_ms: 400, command_wait_ms: 20000{comma}{limits} }}\n")
        });
        let direct = cluster.url();
        let database: SocketAddr = direct
            .split(['@', '/'])
            .find_map(|part| part.parse().ok())
            .unwrap_or_else(|| panic!("no address in {direct}"));
        let link = FaultyLink::to(database).await;
        let through = direct.replace(&database.to_string(), &link.address().to_string());
        let dir = tempfile::tempdir().expect("a directory");
        let start = |store: String, name: &str, env: &[(&str, String)]| Start {
            flags: flags.path().to_owned(),
            store,
            log: PathBuf::from(dir.path()).join(name),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        };
        let [through, direct] = match &pooler {
            None => [through, direct],
            Some(pooler) => {
                flags.edit("pointsman.yaml", |text| format!("{text}store_direct: {direct}\n"));
                [pooler.url(), pooler.url()]
            }
        };
        let started = async |start: Start| {
            let started = Pointsman::try_start_binary(&start, binary).await;
            started.unwrap_or_else(|log| panic!("it did not start:\n{log}"))
        };
        let first = started(start(through.clone(), NAMES[0], &[])).await;
        let second = started(start(direct.clone(), NAMES[1], second)).await;
        Some(Self {
            world,
            link,
            processes: [first, second],
            cluster,
            pooler,
            _legacy: legacy,
            flags,
            stores: [through, direct],
            _dir: dir,
        })
    }
    /// Starts one of them again, which was killed, without an environment of its own.
    pub async fn start_again(&self, at: usize) -> Pointsman {
        self.start_again_with(at, &[]).await
    }
    /// Starts one of them again, which was killed, with this environment.
    pub async fn start_again_with(&self, at: usize, env: &[(&str, String)]) -> Pointsman {
        let started = self.try_start_with(at, BINARY, env).await;
        started.unwrap_or_else(|log| panic!("it did not start:\n{log}"))
    }
    /// Starts one of them again, which has ended, with another binary; returns the log if it ends instead.
    pub async fn try_start_again(&self, at: usize, binary: &str) -> Result<Pointsman, String> {
        self.try_start_with(at, binary, &[]).await
    }
    async fn try_start_with(&self, at: usize, binary: &str, env: &[(&str, String)]) -> Result<Pointsman, String> {
        let log = PathBuf::from(self._dir.path()).join(NAMES[at]);
        let (flags, store) = (self.flags.path().to_owned(), self.stores[at].clone());
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Pointsman::try_start_binary(&Start { flags, store, log, env }, binary).await
    }
    /// Starts another process on the same store, with the files as they are now.
    pub async fn start_another(&self, name: &str) -> Pointsman {
        self.start_with_files(name, &self.flags).await
    }
    /// Starts another process on the same store, with other files.
    pub async fn start_with_files(&self, name: &str, flags: &FlagsDir) -> Pointsman {
        let log = PathBuf::from(self._dir.path()).join(name);
        let start = Start { flags: flags.path().to_owned(), store: self.cluster.url(), log, env: Vec::new() };
        Pointsman::start(&start).await
    }
    /// Starts a run of `relay` at one of them; does not wait for it.
    pub async fn start_run(&self, at: usize, pause: &str) -> String {
        let body = json!({ "workflow": "relay", "input": { "pause": pause }, "stream": false });
        let reply =
            self.processes[at].api_with(Method::POST, "/api/v2/orchestrate/run", &[("prefer", "respond-async")], body);
        let reply = reply.await;
        assert!(reply.status.is_success(), "{} {}", reply.status, reply.json());
        reply.json()["data"]["run_id"].as_str().expect("a run").to_owned()
    }
    /// Starts a run at a process that may refuse with "nothing was started": tries at most this many times more.
    pub async fn start_run_after_refusals(&self, at: usize, pause: &str, refusals_max: usize) -> String {
        for _ in 0..refusals_max {
            let body = json!({ "workflow": "relay", "input": { "pause": pause }, "stream": false });
            let path = "/api/v2/orchestrate/run";
            let reply = self.processes[at].api_with(Method::POST, path, &[("prefer", "respond-async")], body).await;
            if reply.status.is_success() {
                return reply.json()["data"]["run_id"].as_str().expect("a run").to_owned();
            }
            let body = reply.json();
            assert_eq!((reply.status.as_u16(), &body["title"]), (503, &json!("Nothing was started")), "{body}");
        }
        self.start_run(at, pause).await
    }
    /// A run as one of them shows it.
    pub async fn show(&self, at: usize, run: &str) -> Value {
        self.processes[at].get(&format!("/api/v2/orchestrate/run/{run}")).await["data"].clone()
    }
    /// Waits until runs have completed, as one of them shows it.
    pub async fn wait_until_completed(&self, at: usize, runs: &[String]) {
        for run in runs {
            until(&format!("{run} to complete"), || async {
                let shown = self.show(at, run).await;
                let status = shown["status"].as_str().unwrap_or_default().to_owned();
                assert!(!matches!(status.as_str(), "failed" | "paused"), "{shown}\n{}", self.processes[at].log());
                (status == "completed").then_some(())
            })
            .await;
        }
    }
    /// Stops both gracefully; returns violations in the store (I1, I2, I4) and in the ledger (I3, with at most
    /// `extra_max` repeated deliveries of one key).
    pub async fn finish(mut self, extra_max: u64) -> Vec<String> {
        let mut wrong = Vec::new();
        for one in &mut self.processes {
            let code = one.stop().await;
            if code != Some(0) {
                wrong.push(format!("a process ended with {code:?}:\n{}", one.log()));
            }
        }
        let url = Secret::new(self.cluster.url());
        let store = PostgresStore::open(&url, None, &Limits::default()).await.expect("the store opens");
        let store: StoreHandle = Arc::new(store);
        checker::check_store(&store, &[], &mut wrong).await;
        store.close().await;
        let mut keys: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for entry in self.world.ledger().entries() {
            let (accepted, extra) = keys.entry((entry.service, entry.key.unwrap_or_default())).or_default();
            *(if entry.repeated { extra } else { accepted }) += 1;
        }
        for ((service, key), (accepted, extra)) in keys {
            if accepted != 1 || extra > extra_max {
                wrong.push(format!("I3: {service} {key}: {accepted} accepted, {extra} extra"));
            }
        }
        wrong
    }
}
