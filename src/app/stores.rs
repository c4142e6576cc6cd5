//! `store check` and `store backup`: a store is opened beside whatever uses it. And the file beside it that keeps retry
//! keys.
//!
//! Always true: a check changes nothing in the store; a backup is read back before it is called done.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::runtimes::runtime;
use crate::affinity::{KeyFileError, KeyLog, StoreAffinity, default_dir};
use crate::cli::{StoreCopy, StoreFinding, StoreLocation, StoreReport};
use crate::config::{self, Overrides, Settings, Setup, StoreUrl};
use crate::limits::Limits;
use crate::store::{PostgresStore, SharedStore, SqliteStore, StoreChecked};

/// `pointsman store check`.
///
/// # Errors
/// The flag files do not name a store that can be looked at, or it cannot be opened.
pub fn store_check(location: StoreLocation) -> anyhow::Result<StoreReport> {
    let (store, limits) = named(location)?;
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
pub fn store_backup(location: StoreLocation, to: PathBuf) -> anyhow::Result<StoreCopy> {
    let (store, limits) = named(location)?;
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
        let copy = SqliteStore::check_copy(&to, window(&limits)).await;
        let copy = copy.context("the copy was written, and cannot be read back")?;
        Ok(StoreCopy { bytes, report: report(copy, format!("sqlite:{}", to.display())) })
    })
}

const IN_MEMORY: &str = "a store in memory is gone with its process: there is nothing to look at";

async fn checked(path: &Path, window: Duration) -> anyhow::Result<StoreReport> {
    Ok(report(SqliteStore::check(path, window).await?, format!("sqlite:{}", path.display())))
}

fn report(checked: StoreChecked, location: String) -> StoreReport {
    let StoreChecked { runs, purged, events, payloads, findings, unlisted } = checked;
    let findings = findings.into_iter().map(|finding| StoreFinding {
        run: finding.run.map(|run| run.to_string()),
        what: finding.what,
        todo: finding.todo,
    });
    StoreReport { location, runs, purged, events, payloads, findings: findings.collect(), unlisted }
}

/// Which arm owns what, over the store and the file of retry keys.
pub(super) async fn affinity(
    setup: &Setup,
    store: &SharedStore,
    secret: &[u8; 32],
) -> anyhow::Result<Arc<StoreAffinity>> {
    let keys = key_log(&setup.settings, secret, &setup.limits)?;
    StoreAffinity::open(store.clone(), &setup.limits, keys).await.context("reading the pins")
}

/// The file of the retry keys that legacy took: beside a SQLite store, else in the directory that the settings name, else
/// in the directory that services keep their state in. A store in memory has none: it knows nothing of them after a
/// restart anyway.
fn key_log(settings: &Settings, secret: &[u8; 32], limits: &Limits) -> Result<Arc<KeyLog>, KeyFileError> {
    match (&settings.retry_keys_dir, &settings.store) {
        (_, StoreUrl::Memory) => Ok(KeyLog::in_memory(limits)),
        (Some(dir), _) => KeyLog::open_in(dir, secret, limits),
        (None, StoreUrl::Sqlite(path)) => {
            let mut name = path.as_os_str().to_owned();
            name.push(".keys");
            KeyLog::open(Path::new(&name), limits)
        }
        (None, StoreUrl::Postgres { .. }) => KeyLog::open_in(&default_dir()?, secret, limits),
    }
}

/// How long a retry key may name a run that must be there.
fn window(limits: &Limits) -> Duration {
    Duration::from_secs(limits.retry_window_s)
}

/// The store that is named.
fn named(location: StoreLocation) -> anyhow::Result<(StoreUrl, Limits)> {
    match location {
        StoreLocation::Url(url) => {
            let store = config::parse_store(&url, None).map_err(|why| anyhow::anyhow!("`--store`: {why}"))?;
            Ok((store, Limits::default()))
        }
        StoreLocation::Flags(dir) => {
            // It is looked at where it stands, whether or not the secrets are there too.
            let over = Overrides { secrets_may_be_absent: true, ..Overrides::default() };
            let setup = config::read(&dir, &over)?.setup;
            Ok((setup.settings.store, (*setup.limits).clone()))
        }
    }
}
