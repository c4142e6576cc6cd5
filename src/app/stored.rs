//! Reads a store for the command line: a SQLite file that no process uses, or a PostgreSQL database, even while
//! processes use it.
//!
//! Always true: nothing in a store is changed. Opening a missing store fails and creates nothing. Opening a SQLite file
//! that a process uses fails, since the file belongs to that process; so does opening one that an older version wrote,
//! since it would have to be upgraded to be read.

use anyhow::{Context as _, bail};

use crate::admin::replay;
use crate::admin::types::EventRow;
use crate::config::{StoreUrl, parse_store};
use crate::limits::Limits;
use crate::names::{PlanId, RunId, Seq, WorkflowName};
use crate::store::{PostgresStore, RunFilter, SqliteStore, StoreHandle};
use crate::workflow::{RunStatus, RunSummary};

/// A store that is open for reading its runs.
pub struct StoredRuns {
    store: StoreHandle,
    runtime: tokio::runtime::Runtime,
}

/// A run that has not ended.
pub struct OpenRun {
    /// The run's id, `run_…`.
    pub run_id: String,
    /// The run's workflow.
    pub workflow: WorkflowName,
    /// The plan that the run was started with.
    pub plan: PlanId,
}

/// A page of open runs, newest first, and the cursor of the next page, if there is one.
pub type OpenRunPage = (Vec<OpenRun>, Option<String>);

/// How many runs are read with one query.
const PAGE: usize = 1_000;

impl StoredRuns {
    /// Opens the store with this URL.
    ///
    /// # Errors
    /// The store does not exist, a process uses it, or another version wrote its tables.
    pub fn open(url: &str, limits: &Limits) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let store = runtime.block_on(open(url, limits))?;
        Ok(Self { store, runtime })
    }
    /// The secret from which random values are derived.
    ///
    /// # Errors
    /// The store does not answer.
    pub fn secret(&self) -> anyhow::Result<[u8; 32]> {
        self.runtime.block_on(self.store.secret()).context("reading the store's secret")
    }
    /// The events of a run.
    ///
    /// # Errors
    /// The store has no events of this run, or more than `most`.
    pub fn events(&self, run: &str, most: Option<u64>) -> anyhow::Result<Vec<EventRow>> {
        let id: RunId = run.parse().with_context(|| format!("`{run}` is not a run's id"))?;
        if let Some(most) = most {
            let row = self.runtime.block_on(self.store.run(id)).context("reading the run")?;
            if row.is_some_and(|row| row.seq.0 > most) {
                bail!("{}", too_many_events(most));
            }
        }
        let events = self.runtime.block_on(self.store.events(id, Seq::FIRST)).context("reading the events")?;
        if events.is_empty() {
            match self.runtime.block_on(self.store.run(id)).context("reading the run")? {
                Some(run) => bail!("{}", run.purged_message()),
                None => bail!("the store has no run {id}"),
            }
        }
        events.into_iter().map(|stored| replay::event_row(stored).context("an event cannot be shown")).collect()
    }
    /// A stored plan.
    ///
    /// # Errors
    /// The store does not answer, or has no such plan.
    pub fn plan(&self, plan: &PlanId) -> anyhow::Result<serde_json::Value> {
        let stored = self.runtime.block_on(self.store.plan(plan.clone())).context("reading a stored plan")?;
        stored.with_context(|| format!("the store has no plan {plan}"))
    }
    /// A page of the runs that have not ended: the newest ones, or the newest before the run `before`.
    ///
    /// # Errors
    /// The store does not answer.
    pub fn open_runs(&self, before: Option<&str>) -> anyhow::Result<OpenRunPage> {
        let before = before.map(str::parse).transpose().context("the id of a run")?;
        let filter = RunFilter { statuses: RunStatus::OPEN.to_vec(), before, limit: PAGE, ..RunFilter::default() };
        let page = self.runtime.block_on(self.store.runs(filter)).context("listing the runs")?;
        let next = page.last().filter(|_| page.len() == PAGE).map(|run| run.run_id.to_string());
        let run =
            |run: RunSummary| OpenRun { run_id: run.run_id.to_string(), workflow: run.workflow, plan: run.plan_id };
        Ok((page.into_iter().map(run).collect(), next))
    }
}

/// The message about a run that has too many events to be read.
pub fn too_many_events(most: u64) -> String {
    format!("it has more than {most} events, and was not checked")
}

impl Drop for StoredRuns {
    fn drop(&mut self) {
        self.runtime.block_on(self.store.close());
    }
}

async fn open(url: &str, limits: &Limits) -> anyhow::Result<StoreHandle> {
    match parse_store(url, None).map_err(anyhow::Error::msg)? {
        StoreUrl::Sqlite(path) => {
            if !path.exists() {
                bail!("there is no store at {}", path.display());
            }
            let store = SqliteStore::open_for_reading(&path, limits).await;
            Ok(std::sync::Arc::new(store.with_context(|| format!("opening the store sqlite:{}", path.display()))?))
        }
        StoreUrl::Postgres { url, password, .. } => {
            let store = PostgresStore::open_for_reading(&url, password.as_ref(), limits).await;
            Ok(std::sync::Arc::new(store.context("opening the store")?))
        }
        StoreUrl::Memory => bail!("a store in memory is lost when its process ends: there is nothing to read"),
    }
}
