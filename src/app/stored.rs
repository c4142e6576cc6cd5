//! A store that nobody uses, looked into from the command line.
//!
//! When a process runs on it, that is said (a SQLite file belongs to one process); nothing is made where nothing was.

use anyhow::{Context as _, bail};

use crate::admin::replay;
use crate::admin::types::EventRow;
use crate::config::{StoreUrl, parse_store};
use crate::limits::Limits;
use crate::names::{PlanId, RunId, Seq, WorkflowName};
use crate::store::{PostgresStore, RunFilter, SharedStore, SqliteStore};
use crate::workflow::RunStatus;

/// The runs of a store that no process uses.
pub struct StoredRuns {
    store: SharedStore,
    runtime: tokio::runtime::Runtime,
}

/// A run that has not ended.
pub struct OpenRun {
    /// Its id, `run_…`.
    pub run_id: String,
    /// Its workflow.
    pub workflow: WorkflowName,
    /// The plan it keeps.
    pub plan: PlanId,
}

/// Runs that are read with one look.
const PAGE: usize = 1_000;

impl StoredRuns {
    /// Opens it.
    ///
    /// # Errors
    /// It is not there, or a process uses it.
    pub fn open(url: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let store = runtime.block_on(open(url))?;
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
    /// The store has none of it.
    pub fn events(&self, run: &str) -> anyhow::Result<Vec<EventRow>> {
        let id: RunId = run.parse().with_context(|| format!("`{run}` is not a run's id"))?;
        let events = self.runtime.block_on(self.store.events(id, Seq::FIRST)).context("reading the events")?;
        if events.is_empty() {
            bail!("the store has no events of {id}");
        }
        events.into_iter().map(|stored| replay::event_row(stored).context("an event cannot be shown")).collect()
    }
    /// The definition that a run keeps.
    ///
    /// # Errors
    /// The store does not answer, or has none.
    pub fn plan(&self, plan: &PlanId) -> anyhow::Result<serde_json::Value> {
        let kept = self.runtime.block_on(self.store.plan(plan.clone())).context("reading a kept plan")?;
        kept.with_context(|| format!("the store has no plan {plan}"))
    }
    /// All runs that have not ended.
    ///
    /// # Errors
    /// The store does not answer.
    pub fn open_runs(&self) -> anyhow::Result<Vec<OpenRun>> {
        let mut all = Vec::new();
        let mut filter = RunFilter { statuses: RunStatus::OPEN.to_vec(), limit: PAGE, ..RunFilter::default() };
        loop {
            let page = self.runtime.block_on(self.store.runs(filter.clone())).context("listing the runs")?;
            let last = page.last().map(|run| run.run_id).filter(|_| page.len() == PAGE);
            all.extend(page.into_iter().map(|run| OpenRun {
                run_id: run.run_id.to_string(),
                workflow: run.workflow,
                plan: run.plan_id,
            }));
            match last {
                Some(last) => filter.before = Some(last),
                None => return Ok(all),
            }
        }
    }
}

impl Drop for StoredRuns {
    fn drop(&mut self) {
        self.runtime.block_on(self.store.close());
    }
}

async fn open(url: &str) -> anyhow::Result<SharedStore> {
    match parse_store(url, None).map_err(anyhow::Error::msg)? {
        StoreUrl::Sqlite(path) => {
            if !path.exists() {
                bail!("there is no store at {}", path.display());
            }
            let store = SqliteStore::open(&path, &Limits::default()).await;
            Ok(std::sync::Arc::new(store.with_context(|| format!("opening the store sqlite:{}", path.display()))?))
        }
        StoreUrl::Postgres { url, password } => {
            let store = PostgresStore::open_existing(&url, password.as_ref(), &Limits::default()).await;
            Ok(std::sync::Arc::new(store.context("opening the store")?))
        }
        StoreUrl::Memory => bail!("a store in memory is gone with its process"),
    }
}
