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
use crate::store::{PostgresStore, SqliteStore, StoreChecked};

/// `pointsman store check`.
///
/// # Errors
/// The flag files do not name a store that can be looked at, or it cannot be opened.
pub fn store_check(place: StorePlace) -> anyhow::Result<StoreReport> {
    let (store, limits) = named(place)?;
    runtime()?.block_on(async {
        match store {
            StoreUrl::Sqlite(path) => checked(&path, window(&limits)).await,
            StoreUrl::Postgres { url, password } => {
                let (checked, shown) = PostgresStore::check(&url, password.as_ref(), &limits).await?;
                Ok(report(checked, shown))
            }
            StoreUrl::Memory => bail!(IN_MEMORY),
        }
    })
}

/// `pointsman store backup`.
///
/// # Errors
/// As [`store_check`]; or the file exists or cannot be written; or the database has a better way of its own.
pub fn store_backup(place: StorePlace, to: PathBuf) -> anyhow::Result<StoreCopy> {
    let (store, limits) = named(place)?;
    let path = match store {
        StoreUrl::Sqlite(path) => path,
        StoreUrl::Postgres { .. } => bail!(
            "PostgreSQL has its own: `pg_dump --schema=pointsman --file={} …` copies what stands there at one moment, \
             while it is used; `pg_basebackup` copies the whole server",
            to.display()
        ),
        StoreUrl::Memory => bail!(IN_MEMORY),
    };
    runtime()?.block_on(async {
        let bytes = SqliteStore::back_up(&path, &to).await?;
        let report = checked(&to, window(&limits)).await.context("the copy was written, and cannot be read back")?;
        Ok(StoreCopy { bytes, report })
    })
}

const IN_MEMORY: &str = "a store in memory is gone with its process: there is nothing to look at";

async fn checked(path: &Path, window: Duration) -> anyhow::Result<StoreReport> {
    Ok(report(SqliteStore::check(path, window).await?, format!("sqlite:{}", path.display())))
}

fn report(checked: StoreChecked, place: String) -> StoreReport {
    let StoreChecked { runs, purged, events, payloads, findings, unlisted } = checked;
    let findings = findings.into_iter().map(|finding| StoreFinding {
        run: finding.run.map(|run| run.to_string()),
        what: finding.what,
        todo: finding.todo,
    });
    StoreReport { place, runs, purged, events, payloads, findings: findings.collect(), unlisted }
}

/// How long a retry key may name a run that must be there.
fn window(limits: &Limits) -> Duration {
    Duration::from_secs(limits.retry_window_s)
}

/// The store that is named.
fn named(place: StorePlace) -> anyhow::Result<(StoreUrl, Limits)> {
    match place {
        StorePlace::Url(url) => {
            let store = config::parse_store(&url, None).map_err(|why| anyhow::anyhow!("`--store`: {why}"))?;
            Ok((store, Limits::default()))
        }
        StorePlace::Flags(dir) => {
            // It is looked at where it stands, whether or not the secrets are there too.
            let over = Overrides { secrets_may_be_absent: true, ..Overrides::default() };
            let setup = config::read(&dir, &over)?.setup;
            Ok((setup.settings.store, (*setup.limits).clone()))
        }
    }
}
