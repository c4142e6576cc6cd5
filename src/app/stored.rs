//! A store that nobody uses, looked into from the command line.
//!
//! When a process runs on it, that is said (a SQLite file belongs to one process); nothing is made where nothing was.

use anyhow::{Context as _, bail};

use crate::admin::replay;
use crate::admin::types::EventRow;
use crate::config::{StoreUrl, parse_store};
use crate::limits::Limits;
use crate::names::{RunId, Seq};
use crate::store::{PostgresStore, SharedStore, SqliteStore};

/// The events of a run.
///
/// # Errors
/// The store cannot be opened, or has no such run.
pub fn stored_events(url: &str, run: &str) -> anyhow::Result<Vec<EventRow>> {
    let id: RunId = run.parse().with_context(|| format!("`{run}` is not a run's id"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = open(url).await?;
        let events = store.events(id, Seq::FIRST).await;
        store.close().await;
        let events = events.context("reading the events")?;
        if events.is_empty() {
            bail!("the store has no events of {id}");
        }
        events.into_iter().map(|stored| replay::row(stored).context("an event cannot be shown")).collect()
    })
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
            let store = PostgresStore::open(&url, password.as_ref(), &Limits::default()).await;
            Ok(std::sync::Arc::new(store.context("opening the store")?))
        }
        StoreUrl::Memory => bail!("a store in memory is gone with its process"),
    }
}
