//! `store check` and `store backup`: a store is opened beside whatever uses it.
//!
//! Always true: nothing is changed in the store; a backup is read back before it is called done.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::doors::runtime;
use crate::cli::{StoreCopy, StoreFinding, StorePlace, StoreReport};
use crate::config::{self, Overrides, StoreUrl};
use crate::limits::Limits;
use crate::store::{SqliteStore, StoreChecked};

/// `pointsman store check`.
///
/// # Errors
/// The flag files do not name a store that can be looked at, or it cannot be opened.
pub fn store_check(place: StorePlace) -> anyhow::Result<StoreReport> {
    let (path, window) = sqlite(place)?;
    runtime()?.block_on(checked(&path, window))
}

/// `pointsman store backup`.
///
/// # Errors
/// As [`store_check`]; or the file exists or cannot be written.
pub fn store_backup(place: StorePlace, to: PathBuf) -> anyhow::Result<StoreCopy> {
    let (path, window) = sqlite(place)?;
    runtime()?.block_on(async {
        let bytes = SqliteStore::back_up(&path, &to).await?;
        let report = checked(&to, window).await.context("the copy was written, and cannot be read back")?;
        Ok(StoreCopy { bytes, report })
    })
}

async fn checked(path: &Path, window: Duration) -> anyhow::Result<StoreReport> {
    let StoreChecked { runs, purged, events, payloads, findings, unlisted } = SqliteStore::check(path, window).await?;
    let findings = findings.into_iter().map(|finding| StoreFinding {
        run: finding.run.map(|run| run.to_string()),
        what: finding.what,
        todo: finding.todo,
    });
    let place = format!("sqlite:{}", path.display());
    Ok(StoreReport { place, runs, purged, events, payloads, findings: findings.collect(), unlisted })
}

/// The file, and how long a retry key may name a run that must be there.
fn sqlite(place: StorePlace) -> anyhow::Result<(PathBuf, Duration)> {
    let (store, limits) = match place {
        StorePlace::Url(url) => {
            let store = config::parse_store(&url, None).map_err(|why| anyhow::anyhow!("`--store {url}`: {why}"))?;
            (store, Limits::default())
        }
        StorePlace::Flags(dir) => {
            // It is looked at where it stands, whether or not the secrets are there too.
            let over = Overrides { secrets_may_be_absent: true, ..Overrides::default() };
            let setup = config::read(&dir, &over)?.setup;
            (setup.settings.store, (*setup.limits).clone())
        }
    };
    match store {
        StoreUrl::Sqlite(path) => Ok((path, Duration::from_secs(limits.retry_window_s))),
        StoreUrl::Postgres { .. } => bail!("this looks at SQLite files; `pg_dump` copies a PostgreSQL database"),
        StoreUrl::Memory => bail!("a store in memory is gone with its process: there is nothing to look at"),
    }
}
