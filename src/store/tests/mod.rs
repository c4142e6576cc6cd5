//! What every store must fulfil, run on each of them.

mod beside;
mod between;
mod check;
mod contract;
mod disk;
mod kill;
mod lists;
mod model;
mod ownership;
mod pending_runs;
mod postgres;
mod power;
mod purge;
mod rate;
mod retention;
mod run_snapshots;
mod sqlite;
pub(crate) mod through;
mod trouble;
mod upgrade;
mod usual;

/// The servers that the end-to-end tests use too.
#[path = "../../../tests/it/support/postgres_server.rs"]
mod cluster;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::{Append, MemoryStore, NewPin, PostgresStore, Priority, SharedStore, SqliteStore, WebhookMessage};
use crate::flag::{Arm, PinKey};
use crate::limits::Limits;
use crate::names::{Fence, RouteId, RunId, Seq, ServiceName, WorkerId, WorkflowName};
use crate::secret::Secret;
use crate::workflow::{
    AnswerEvent, AnswerRecord, EndingEvent, Event, Mode, Payload, RunStarted, RunStatus, RunSummary, StepEvent, fold,
};

/// Which store a case runs on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    Memory,
    Sqlite,
    Postgres,
}

impl Which {
    /// Whether this machine has it: PostgreSQL comes with a package.
    pub(crate) fn is_here(self) -> bool {
        let here = !matches!(self, Which::Postgres) || cluster::shared().is_some();
        if !here {
            println!("not tried: PostgreSQL is not installed");
        }
        here
    }
}

/// Every store: all that the contract's tests and the model know of them.
macro_rules! every_store {
    ($each:ident $args:tt) => {
        $each!(memory, Memory, $args);
        $each!(sqlite, Sqlite, $args);
        $each!(postgres, Postgres, $args);
    };
}
pub(crate) use every_store;

/// A store and what it lives in.
pub(crate) struct Place {
    pub(crate) store: SharedStore,
    limits: Limits,
    home: Home,
}

/// What outlives a store that is closed.
enum Home {
    /// Nothing.
    Process,
    Folder(tempfile::TempDir),
    Database(cluster::Database),
}

impl Home {
    async fn new(which: Which) -> Self {
        match which {
            Which::Memory => Home::Process,
            Which::Sqlite => Home::Folder(tempfile::tempdir().unwrap()),
            Which::Postgres => Home::Database(cluster::shared().unwrap().database()),
        }
    }

    async fn open(&self, limits: &Limits) -> SharedStore {
        match self {
            Home::Process => Arc::new(MemoryStore::with_limits(limits)),
            Home::Folder(dir) => Arc::new(SqliteStore::open(dir.path().join("test.db"), limits).await.unwrap()),
            Home::Database(database) => {
                Arc::new(PostgresStore::open(&Secret::new(database.url()), None, limits).await.unwrap())
            }
        }
    }
}

impl Place {
    pub(crate) async fn new(which: Which) -> Self {
        Self::with(which, Limits::default()).await
    }

    pub(crate) async fn with(which: Which, limits: Limits) -> Self {
        let home = Home::new(which).await;
        Self { store: home.open(&limits).await, limits, home }
    }

    /// The database's file, where there is one.
    pub(crate) fn file(&self) -> Option<std::path::PathBuf> {
        match &self.home {
            Home::Process | Home::Database(_) => None,
            Home::Folder(dir) => Some(dir.path().join("test.db")),
        }
    }

    /// As after a restart; the memory store has none.
    pub(crate) async fn reopen(&mut self) {
        if !matches!(self.home, Home::Process) {
            self.store.close().await;
            self.store = self.home.open(&self.limits).await;
        }
    }
}

#[test]
fn what_finds_newer_events_knows_the_newest_version() {
    // The index of newer events is made for one version: another one needs a step that makes it anew.
    assert_eq!(Event::VERSION, 2);
}

/// Some fact of a run; different for different numbers.
pub(crate) fn test_event(n: u64) -> Event {
    Event::Step(StepEvent::Computed { step: format!("step-{n}").as_str().into(), output: Arc::new(json!({ "n": n })) })
}

/// A time, `n` seconds into the test's world.
pub(crate) fn at(n: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + n).unwrap()
}

/// A run's id, in the order of the number.
pub(crate) fn run_id(n: u64) -> RunId {
    RunId(Uuid::from_u64_pair(0x0190_0000_0000_7000 + (n << 16), 0x8000_0000_0000_0000 + n))
}

/// A summary of a run that stands at a seq.
pub(crate) fn summary(run: RunId, seq: u64) -> RunSummary {
    RunSummary {
        run_id: run,
        workflow: WorkflowName::new("create-order"),
        plan_id: "plan_1".into(),
        route: Some(RouteId::new("orders.create")),
        mode: Mode::Real,
        status: RunStatus::Running,
        seq: Seq(seq),
        started: at(0),
        updated: at(seq.cast_signed()),
        note: None,
        job: None,
        parent: None,
        wake: None,
        checkpoint: None,
    }
}

/// Events `first..first + count` of a run, with nothing beside them.
pub(crate) fn append(run: RunId, first: u64, count: u64) -> Append {
    Append {
        run_id: run,
        first: Seq(first),
        events: (first..first + count).map(|n| (at(n.cast_signed()), test_event(n))).collect(),
        summary: summary(run, first + count - 1),
        batch: Uuid::now_v7(),
        pins: Vec::new(),
        claim: None,
        priority: Priority::Live,
        worker: worker(1),
        fence: Fence::FIRST,
        release: false,
        locks: Vec::new(),
        webhook_messages: Vec::new(),
        settled: Vec::new(),
        pending_runs: Vec::new(),
        size: Default::default(),
    }
}

/// A worker; different for different numbers.
pub(crate) fn worker(n: u128) -> WorkerId {
    WorkerId(Uuid::from_u128(n))
}

/// The same append, after which the run stands so.
pub(crate) fn standing(append: Append, status: RunStatus) -> Append {
    Append { summary: RunSummary { status, ..append.summary }, ..append }
}

/// The first fact of a run.
pub(crate) fn born(run: RunId, at: Timestamp) -> Event {
    Event::RunStarted(Arc::new(RunStarted {
        run,
        workflow: "create-order".into(),
        plan: "plan_1".into(),
        mode: Mode::Real,
        route: Some("orders.create".into()),
        started: at,
        request: Arc::new(json!({ "body": { "items": [1] } })),
        credentials: Default::default(),
        sealed: None,
        legacy: None,
        instance: None,
        creates: None,
        traceparent: None,
        job: None,
        parent: None,
        bytes_marked: true,
        sensitive: false,
        rerun_of: None,
        by: None,
        until: None,
    }))
}

/// A whole run, with a request and an answer.
pub(crate) fn answered(run: RunId, at: Timestamp) -> Append {
    let body = Payload::Text(r#"{"id":"17"}"#.into());
    let answer = Arc::new(AnswerRecord { status: 201, headers: Vec::new(), body });
    let events = vec![
        (at, born(run, at)),
        (at, test_event(1)),
        (at, Event::Answer(AnswerEvent::Responded { answer, pin: None })),
        (at, Event::Ending(EndingEvent::Completed {})),
    ];
    let summary = fold(events.iter().map(|(_, event)| event)).unwrap().summary(at);
    Append { events, summary, ..append(run, 1, 1) }
}

/// A pin of an instance of `orders.create`.
pub(crate) fn pin(id: &str, arm: Arm) -> NewPin {
    NewPin { key: PinKey { family: RouteId::new("orders.create"), id: id.into() }, arm }
}

/// A message about a run.
pub(crate) fn notice(run: RunId, n: u64) -> WebhookMessage {
    WebhookMessage {
        number: 0,
        run,
        destination: "${services.ops}/hook".into(),
        service: Some(ServiceName::new("ops")),
        by: Some(worker(1)),
        url: "http://127.0.0.1/hook".into(),
        body: json!({ "n": n }),
        at: at(1),
    }
}

/// The seqs that are stored of a run.
pub(crate) async fn seqs(store: &SharedStore, run: RunId) -> Vec<u64> {
    store.events(run, Seq::FIRST).await.unwrap().iter().map(|event| event.seq.0).collect()
}

/// Each case as a test on every store.
macro_rules! on_every_store {
    ($($cases:tt)*) => {
        every_store!(on_one_store { $($cases)* });
    };
}
use on_every_store;

macro_rules! on_one_store {
    ($name:ident, $which:ident, { $($(#[$meta:meta])* $case:ident),* $(,)? }) => {
        mod $name {
            $(
                #[tokio::test]
                $(#[$meta])*
                async fn $case() {
                    if super::super::Which::$which.is_here() {
                        super::$case(super::super::Which::$which).await
                    }
                }
            )*
        }
    };
}
use on_one_store;
