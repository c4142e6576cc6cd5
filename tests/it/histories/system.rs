//! Processes on one PostgreSQL behind a small balancer; they are killed, stopped and cut off while clients use them.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fastrand::Rng;
use http::Method;
use pointsman::demo::http::Client;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::RwLock;

use super::history::Recorder;
use super::legacy::KeyedLegacy;
use crate::support::faketime::FakeClock;
use crate::support::small_disk::SmallDisk;
use crate::support::two_processes::TwoProcesses;
use crate::support::{Pointsman, until};

/// The size of the disk that the database is on.
const DISK: &str = "1200m";
/// How long a client waits for an answer.
pub const CLIENT_WAIT: Duration = Duration::from_secs(10);

/// The processes. The first one's link to the database can be cut.
pub struct Fleet {
    pub two: TwoProcesses,
    third: Option<Pointsman>,
}

impl Fleet {
    pub fn process(&self, at: usize) -> &Pointsman {
        if at < 2 { &self.two.processes[at] } else { self.third.as_ref().expect("a third process") }
    }
}

/// What the balancer knows of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Well,
    /// It answers late or not at all: it gets few requests.
    Slow,
    Gone,
}

/// What faults and moves must not do at once.
#[derive(Debug, Default)]
struct Situation {
    /// The creator is, or may come, below `dark`.
    is_below_dark: bool,
    /// The creator is raised to where the engine answers.
    is_raised: bool,
    has_fault: bool,
    has_database_fault: bool,
}

/// A running system.
pub struct System {
    pub fleet: RwLock<Fleet>,
    pub count: usize,
    pub recorder: Recorder,
    pub seed: u64,
    conditions: Mutex<Vec<Condition>>,
    situation: Mutex<Situation>,
    /// The clock of the second process's machine.
    pub clock: FakeClock,
    /// The database is on a disk that only it uses.
    pub has_own_disk: AtomicBool,
    _clock_dir: TempDir,
    _shop: KeyedLegacy,
}

impl System {
    /// `None` without PostgreSQL.
    pub async fn start(seed: u64) -> Option<Self> {
        let mut shop = None;
        let clock_dir = tempfile::tempdir().expect("a directory");
        let clock = FakeClock::in_dir(clock_dir.path());
        let disk = SmallDisk::mount(DISK);
        let has_own_disk = disk.is_some();
        let with_shop = async |legacy| shop.insert(KeyedLegacy::start(legacy).await).url();
        let two = TwoProcesses::start_with_shop(&clock.env(), disk, with_shop).await?;
        let third = match seed % 2 {
            0 => None,
            _ => Some(two.start_another("third").await),
        };
        let count = 2 + usize::from(third.is_some());
        let situation = Situation { is_below_dark: true, ..Situation::default() };
        Some(Self {
            fleet: RwLock::new(Fleet { two, third }),
            count,
            recorder: Recorder::new(),
            seed,
            conditions: Mutex::new(vec![Condition::Well; count]),
            situation: Mutex::new(situation),
            clock,
            has_own_disk: AtomicBool::new(has_own_disk),
            _clock_dir: clock_dir,
            _shop: shop.expect("it was started"),
        })
    }
    /// A random sequence for one of those that act.
    pub fn random_of(&self, n: u64) -> Rng {
        Rng::with_seed(self.seed.wrapping_mul(1_000) + n)
    }
    pub fn condition(&self, at: usize) -> Condition {
        self.conditions.lock().unwrap()[at]
    }
    pub fn set_condition(&self, at: usize, condition: Condition) {
        self.conditions.lock().unwrap()[at] = condition;
    }
    /// The balancer's choice: a process that is not gone, rarely one that is slow.
    pub fn pick(&self, random: &mut Rng) -> usize {
        loop {
            let at = random.usize(..self.count);
            match self.condition(at) {
                Condition::Well => return at,
                Condition::Slow if random.u8(..12) == 0 => return at,
                Condition::Slow | Condition::Gone => {}
            }
            // All may be slow at once, when the database is.
            if (0..self.count).all(|at| self.condition(at) != Condition::Well) && self.condition(at) != Condition::Gone
            {
                return at;
            }
        }
    }
    /// The URL of a process's proxy.
    pub async fn url(&self, at: usize) -> String {
        self.fleet.read().await.process(at).url()
    }
    /// The URL of a process's API.
    pub async fn admin_url(&self, at: usize) -> String {
        self.fleet.read().await.process(at).admin_url()
    }
    /// A process's API at this path; `None` if it does not answer with success.
    pub async fn get(&self, client: &Client, at: usize, path: &str) -> Option<Value> {
        let url = format!("{}{path}", self.admin_url(at).await);
        let reply = client.json(Method::GET, &url, &[], &Value::Null).await.ok()?;
        reply.status.is_success().then(|| reply.json())
    }

    /// Whether a fault may begin; it ends by [`System::end_fault`]. None begins while the creator is raised to where
    /// the engine answers: a key that legacy took a moment ago may not be in the database yet, and is lost to the
    /// others if its process is killed or stopped then. Below `dark`, legacy answers although the database does not.
    pub fn begin_fault(&self, is_of_database: bool) -> bool {
        let mut situation = self.situation.lock().unwrap();
        if situation.has_fault || situation.is_raised || (is_of_database && situation.is_below_dark) {
            return false;
        }
        (situation.has_fault, situation.has_database_fault) = (true, is_of_database);
        true
    }
    pub fn end_fault(&self) {
        let mut situation = self.situation.lock().unwrap();
        (situation.has_fault, situation.has_database_fault) = (false, false);
    }
    /// Waits until the fault is over, and lets none begin until [`System::end_raise`]: the creator is raised to where
    /// the engine answers.
    pub async fn begin_raise(&self) {
        self.situation.lock().unwrap().is_raised = true;
        until("the fault to be over", || async { (!self.situation.lock().unwrap().has_fault).then_some(()) }).await;
    }
    pub fn end_raise(&self) {
        self.situation.lock().unwrap().is_raised = false;
    }
    /// Whether the creator may go below `dark`; that ends by [`System::is_at_dark`].
    pub fn may_go_below_dark(&self) -> bool {
        let mut situation = self.situation.lock().unwrap();
        situation.is_below_dark |= !situation.has_database_fault;
        situation.is_below_dark
    }
    /// The creator is at `dark` or above.
    pub fn is_at_dark(&self) {
        self.situation.lock().unwrap().is_below_dark = false;
    }

    /// Kills a process, which is started again by [`System::start_again`].
    pub async fn kill(&self, at: usize) {
        self.set_condition(at, Condition::Gone);
        self.signal(at, Signal::KILL).await;
        until("the killed process to be gone", || async {
            self.fleet.read().await.process(at).is_gone().then_some(())
        })
        .await;
    }
    pub async fn start_again(&self, at: usize) {
        let started = {
            let fleet = self.fleet.read().await;
            match at {
                0 => fleet.two.start_again(at).await,
                1 => fleet.two.start_again_with(at, &self.clock.env()).await,
                _ => fleet.two.start_another("third").await,
            }
        };
        let mut fleet = self.fleet.write().await;
        match at {
            0 | 1 => fleet.two.processes[at] = started,
            _ => fleet.third = Some(started),
        }
        drop(fleet);
        self.set_condition(at, Condition::Well);
    }
    pub async fn signal(&self, at: usize, signal: Signal) {
        self.fleet.read().await.process(at).signal(signal);
    }
    /// Waits until a process has a lease, and has in force what any process had when this was called.
    pub async fn until_followed(&self, client: &Client, at: usize) {
        let rows = async || -> Vec<Value> {
            let shown = self.get(client, at, "/api/v2/processes").await;
            shown.and_then(|rows| rows.as_array().cloned()).unwrap_or_default()
        };
        let newest = async || {
            let mut newest = 0;
            for other in 0..self.count {
                if self.condition(other) != Condition::Gone
                    && let Some(rows) = self.get(client, other, "/api/v2/processes").await
                {
                    let flips = rows.as_array().into_iter().flatten().filter_map(|row| row["newest_flip"].as_u64());
                    newest = flips.max().unwrap_or(0).max(newest);
                }
            }
            newest
        };
        let newest = newest().await;
        until("the process to follow", || async {
            let rows = rows().await;
            let own = rows.iter().find(|row| row["is_this"] == true)?;
            let has_lease = own["lease_left_ms"].as_u64().is_some_and(|left| left > 0);
            (has_lease && own["newest_flip"].as_u64() >= Some(newest)).then_some(())
        })
        .await;
    }

    /// Stops all processes and checks the store and what was delivered twice, with at most `extra_max` repeated
    /// deliveries of a key. Returns the violations, the ledger and the history.
    pub async fn finish(
        self,
        extra_max: u64,
    ) -> (Vec<String>, Vec<pointsman::demo::ledger::LedgerEntry>, super::history::History) {
        let Fleet { two, third } = self.fleet.into_inner();
        let mut wrong = Vec::new();
        if let Some(mut third) = third {
            let code = third.stop().await;
            if code != Some(0) {
                wrong.push(format!("the third process ended with {code:?}:\n{}", third.log()));
            }
        }
        let ledger = two.world.ledger().clone();
        wrong.extend(two.finish(extra_max).await);
        let history = self.recorder.history().clone();
        (wrong, ledger.entries(), history)
    }
}
