//! The contract of a store, tested on each of them.

mod adoptions;
mod benchmarks;
mod bound_keys;
mod captures;
mod check;
mod claims_wait;
mod commit_age;
mod contract;
mod coordination;
mod defaults;
mod disk_faults;
pub(crate) mod forward_work;
mod instances;
mod kept_files;
mod lease_terms;
mod lists;
mod model;
mod older_processes;
mod open_creators;
mod ownership;
mod pending_runs;
mod pin_collisions;
mod pool;
mod postgres;
mod power;
mod process_kill;
mod processes;
mod purge;
mod records;
mod removed_files;
mod retention;
mod rolling_upgrade;
mod run_changes;
mod run_snapshots;
mod samples;
mod service_callers;
mod shared_evidence;
pub(crate) mod simulated;
mod sqlite;
mod unavailable;
mod unpurgeable;
mod unreadable_rows;
mod upgrade;

/// The PostgreSQL server that the integration tests use too.
#[path = "../../../tests/it/support/postgres_server.rs"]
mod cluster;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::{Append, MemoryStore, NewPin, PostgresStore, Priority, SqliteStore, StoreHandle, WebhookMessage};
use crate::clock;
use crate::flag::{Arm, PinKey, RetryKey};
use crate::limits::Limits;
use crate::names::{Fence, JobId, RouteId, RunId, Seq, ServiceName, WorkerId, WorkflowName};
use crate::secret::Secret;
use crate::workflow::{
    AnswerEvent, AnswerRecord, EndingEvent, Event, Mode, Payload, RunStarted, RunStatus, RunSummary, StepEvent, fold,
};

/// The store on which a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Memory,
    Sqlite,
    Postgres,
}

impl StoreKind {
    /// Whether this machine has what the store needs: PostgreSQL is a separate package.
    pub(crate) fn is_installed(self) -> bool {
        let is_installed = !matches!(self, StoreKind::Postgres) || cluster::shared().is_some();
        if !is_installed {
            println!("not tried: PostgreSQL is not installed");
        }
        is_installed
    }
}

/// Calls a macro for each store.
macro_rules! every_store {
    ($each:ident $args:tt) => {
        $each!(memory, Memory, $args);
        $each!(sqlite, Sqlite, $args);
        $each!(postgres, Postgres, $args);
    };
}
pub(crate) use every_store;

/// An open store, and the storage behind it.
pub(crate) struct StoreFixture {
    pub(crate) store: StoreHandle,
    limits: Limits,
    storage: Storage,
}

/// The storage behind a store; it outlives the open store.
enum Storage {
    /// The content is in the store itself and ends with it.
    Memory,
    Folder(tempfile::TempDir),
    Database(cluster::Database),
}

impl Storage {
    async fn new(which: StoreKind) -> Self {
        match which {
            StoreKind::Memory => Storage::Memory,
            StoreKind::Sqlite => Storage::Folder(tempfile::tempdir().unwrap()),
            StoreKind::Postgres => Storage::Database(cluster::shared().unwrap().database()),
        }
    }

    async fn open(&self, limits: &Limits) -> StoreHandle {
        match self {
            Storage::Memory => Arc::new(MemoryStore::with_limits(limits)),
            Storage::Folder(dir) => Arc::new(SqliteStore::open(dir.path().join("test.db"), limits).await.unwrap()),
            Storage::Database(database) => {
                Arc::new(PostgresStore::open(&Secret::new(database.url()), None, limits).await.unwrap())
            }
        }
    }
}

impl StoreFixture {
    pub(crate) async fn new(which: StoreKind) -> Self {
        Self::with_limits(which, Limits::default()).await
    }

    pub(crate) async fn with_limits(which: StoreKind, limits: Limits) -> Self {
        let storage = Storage::new(which).await;
        Self { store: storage.open(&limits).await, limits, storage }
    }

    /// The database's file, where there is one.
    pub(crate) fn file(&self) -> Option<std::path::PathBuf> {
        match &self.storage {
            Storage::Memory | Storage::Database(_) => None,
            Storage::Folder(dir) => Some(dir.path().join("test.db")),
        }
    }

    /// Makes the summary of a run unreadable; `false` for the memory store, which has no rows.
    pub(crate) async fn damage_summary(&self, run: RunId) -> bool {
        let id = run.0.simple();
        match &self.storage {
            Storage::Memory => return false,
            Storage::Folder(dir) => {
                let text = format!("UPDATE runs SET summary = '{{}}' WHERE run_id = x'{id}'");
                check::edit(&dir.path().join("test.db"), &text).await;
            }
            Storage::Database(database) => {
                database.query(&format!("UPDATE pointsman.runs SET summary = '{{}}' WHERE run_id = '\\x{id}'"));
            }
        }
        true
    }

    /// Runs a statement on the database, not through the store; `false` for the memory store, which has no rows.
    pub(crate) async fn edit(&self, text: &str) -> bool {
        match &self.storage {
            Storage::Memory => return false,
            Storage::Folder(dir) => check::edit(&dir.path().join("test.db"), text).await,
            Storage::Database(database) => {
                database.query(&format!("SET search_path = pointsman; {text}"));
            }
        }
        true
    }

    /// Closes the store and opens it again, as a restart does. Does nothing for the memory store, whose content would
    /// be lost.
    pub(crate) async fn reopen(&mut self) {
        if !matches!(self.storage, Storage::Memory) {
            self.store.close().await;
            self.store = self.storage.open(&self.limits).await;
        }
    }
}

/// The index has the appends whose events have a greater version than [`Event::VERSION`] was when it was created. When
/// that number grows, a migration has to create the index again; otherwise it would contain every append.
#[tokio::test]
async fn the_index_of_newer_events_is_created_for_the_current_version() {
    let expected = format!("version > {}", Event::VERSION);
    let sqlite = StoreFixture::new(StoreKind::Sqlite).await;
    let conn = crate::store::sqlite::Options::new(&sqlite.file().unwrap()).open().unwrap();
    let text = "SELECT sql FROM sqlite_schema WHERE name = 'appends_newer'";
    let index: String = conn.query_row(text, [], |row| row.get(0)).unwrap();
    assert!(index.ends_with(&expected), "{index}");
    if StoreKind::Postgres.is_installed() {
        let fixture = StoreFixture::new(StoreKind::Postgres).await;
        let Storage::Database(database) = &fixture.storage else { unreachable!("it is one of PostgreSQL") };
        let index = database.query("SELECT indexdef FROM pg_indexes WHERE indexname = 'appends_newer'");
        assert!(index.trim_end().trim_end_matches(')').ends_with(&expected), "{index}");
    }
}

/// A test event with this number in it.
pub(crate) fn test_event(n: u64) -> Event {
    Event::Step(StepEvent::Computed { step: format!("step-{n}").as_str().into(), output: json!({ "n": n }).into() })
}

/// The time `n` seconds after the start of the tests' time.
pub(crate) fn at(n: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + n).unwrap()
}

/// First tries that legacy takes now, one for each key.
pub(crate) fn taken_now(keys: impl IntoIterator<Item = RetryKey>) -> Vec<(RetryKey, Timestamp)> {
    let now = clock::now();
    keys.into_iter().map(|key| (key, now)).collect()
}

/// The id of the run with this number; ids have the same order as their numbers.
pub(crate) fn run_id(n: u64) -> RunId {
    RunId(Uuid::from_u64_pair(0x0190_0000_0000_7000 + (n << 16), 0x8000_0000_0000_0000 + n))
}

/// The summary of a run whose last event has this number.
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

/// An append of the events `first..first + count` of a run, with nothing else in it (no pins, no locks).
pub(crate) fn append(run: RunId, first: u64, count: u64) -> Append {
    Append {
        run_id: run,
        first: Seq(first),
        events: (first..first + count).map(|n| (at(n.cast_signed()), test_event(n))).collect(),
        summary: summary(run, first + count - 1),
        batch: Uuid::now_v7(),
        pins: Vec::new(),
        claim: None,
        priority: Priority::Real,
        worker: worker(1),
        fence: Fence::FIRST,
        release: false,
        locks: Vec::new(),
        webhook_messages: Vec::new(),
        answered_commands: Vec::new(),
        pending_runs: Vec::new(),
        size: Default::default(),
    }
}

/// The id of the worker with this number.
pub(crate) fn worker(n: u128) -> WorkerId {
    WorkerId(Uuid::from_u128(n))
}

/// The same append with another status.
pub(crate) fn with_status(append: Append, status: RunStatus) -> Append {
    Append { summary: RunSummary { status, ..append.summary }, ..append }
}

/// The same append of a run that ended longer ago than any retry window.
pub(crate) fn ended_long_ago(append: Append) -> Append {
    let updated = Timestamp::from_second(1_700_000_000).unwrap();
    Append { summary: RunSummary { status: RunStatus::Completed, updated, ..append.summary }, ..append }
}

/// The first event of a run.
pub(crate) fn run_started(run: RunId, at: Timestamp) -> Event {
    Event::RunStarted(Arc::new(RunStarted {
        run,
        workflow: "create-order".into(),
        plan: "plan_1".into(),
        mode: Mode::Real,
        child_plans: None,
        route: Some("orders.create".into()),
        started: at,
        request: Arc::new(json!({ "body": { "items": [1] } })),
        credentials: Default::default(),
        sealed: None,
        legacy: None,
        injected: None,
        instance: None,
        creates: None,
        traceparent: None,
        job: None,
        parent: None,
        route_above: None,
        approval_above: None,
        bytes_marked: true,
        bytes_opaque: true,
        sensitive: false,
        sensitive_paths: Vec::new(),
        child_before: false,
        rerun_of: None,
        pinned_before: Vec::new(),
        effects_before: None,
        deliveries_before: Vec::new(),
        by: None,
        until: None,
    }))
}

/// An append with the first event of a rerun of the first run of a job.
pub(crate) fn rerun_of(first: RunId, run: RunId) -> Append {
    let Event::RunStarted(started) = run_started(run, at(5)) else { unreachable!() };
    let event = Event::RunStarted(Arc::new(RunStarted { job: Some(JobId(first.0)), ..(*started).clone() }));
    let summary = fold([&event]).unwrap().summary(at(5));
    Append { events: vec![(at(5), event)], summary, ..append(run, 1, 1) }
}

/// All events of a completed run, with a request and an answer.
pub(crate) fn completed_run(run: RunId, at: Timestamp) -> Append {
    let answer = Arc::new(AnswerRecord::new(201, Vec::new(), Payload::Text(r#"{"id":"17"}"#.into())));
    let events = vec![
        (at, run_started(run, at)),
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
pub(crate) fn webhook_message(run: RunId, n: u64) -> WebhookMessage {
    WebhookMessage {
        number: 0,
        run,
        destination: "${services.ops}/hook".into(),
        service: Some(ServiceName::new("ops")),
        by: Some(worker(1)),
        path: Some("/hook".into()),
        url: "http://127.0.0.1/hook".into(),
        body: json!({ "n": n }),
        at: at(1),
    }
}

/// Makes a backup without files of retry keys; returns its size in bytes.
pub(crate) async fn back_up(
    from: impl AsRef<std::path::Path>,
    to: impl AsRef<std::path::Path>,
) -> Result<u64, super::StoreError> {
    SqliteStore::back_up(from, to, std::time::Duration::MAX, |_| Vec::new()).await.map(|copied| copied.bytes)
}

/// The numbers of the stored events of a run.
pub(crate) async fn seqs(store: &StoreHandle, run: RunId) -> Vec<u64> {
    store.events(run, Seq::FIRST).await.unwrap().iter().map(|event| event.seq.0).collect()
}

/// Makes each case a test on every store.
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
                    if super::super::StoreKind::$which.is_installed() {
                        super::$case(super::super::StoreKind::$which).await
                    }
                }
            )*
        }
    };
}
use on_one_store;
