//! `store check` and `store backup`, which also work while a process uses the store. Also opens the two files beside
//! the store when a process starts: the file of retry keys and the file of evidence marks.
//!
//! Always true: a check changes nothing in the store; a backup is read back before it is reported as done.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::runtimes::runtime;
use crate::affinity::{
    KeyFileError, KeyFileLocation, KeyLog, StoreAffinity, default_dir, open_key_log, read_key_files,
};
use crate::cli::{StoreCopy, StoreFinding, StoreLocation, StoreReport};
use crate::config::{self, Overrides, Settings, Setup, StoreUrl};
use crate::evidence::{IncompleteEvidenceMarks, MarksLocation};
use crate::limits::Limits;
use crate::store::{Copied, PostgresStore, SqliteStore, StoreChecked, StoreHandle};

/// `pointsman store check`.
///
/// # Errors
/// The store is in memory or cannot be opened, or the flag files are refused.
pub fn store_check(location: StoreLocation) -> anyhow::Result<StoreReport> {
    let (store, limits) = resolve_location(location)?;
    runtime()?.block_on(async {
        match store {
            StoreUrl::Sqlite(path) => check_sqlite(&path, retry_window(&limits)).await,
            StoreUrl::Postgres { url, direct, password } => {
                let url = direct.unwrap_or(url);
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
/// See [`store_check`]; or the file exists or cannot be written; or the store is in PostgreSQL, which has its own
/// tools.
pub fn store_backup(location: StoreLocation, to: PathBuf) -> anyhow::Result<StoreCopy> {
    let (store, limits) = resolve_location(location)?;
    let path = match store {
        StoreUrl::Sqlite(path) => path,
        StoreUrl::Postgres { .. } => bail!(
            "PostgreSQL has its own tools: `pg_dump --schema=pointsman --file={} …` copies the store as it is at one \
             moment, also while it is in use; `pg_basebackup` copies the whole server",
            to.display()
        ),
        StoreUrl::Memory => bail!(IN_MEMORY),
    };
    runtime()?.block_on(async {
        let (window, key_file) = (retry_window(&limits), key_file_of(&path));
        let mut unread = Vec::new();
        let copied = SqliteStore::back_up(&path, &to, window, |listed| {
            let (keys, failed) = read_key_files(listed, &key_file);
            unread = failed;
            keys
        });
        let Copied { bytes, waiting_keys } = copied.await?;
        let copy = SqliteStore::check_copy(&to, window).await;
        let copy = copy.context("the copy was written, but cannot be read back")?;
        Ok(StoreCopy { bytes, waiting_keys, unread, report: report(copy, format!("sqlite:{}", to.display())) })
    })
}

const IN_MEMORY: &str = "a store in memory is lost when its process ends: there is nothing to read";

async fn check_sqlite(path: &Path, window: Duration) -> anyhow::Result<StoreReport> {
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

/// Opens the record of which arm owns which instance and retry key, from the store and the file of retry keys.
pub(super) async fn affinity(setup: &Setup, store: &StoreHandle) -> anyhow::Result<Arc<StoreAffinity>> {
    let limits = &setup.limits;
    let keys = match key_file_location(&setup.settings)? {
        Some(location) => open_key_log(store, &location, limits).await?,
        None => KeyLog::in_memory(limits),
    };
    StoreAffinity::open(store.clone(), limits, keys).await.context("reading the pins")
}

/// The location of the file of the retry keys that legacy took: in the directory that the settings name, else next to a
/// SQLite store, else in the directory of [`default_dir`]. A store in memory has no such file, since it does not
/// survive a restart.
fn key_file_location(settings: &Settings) -> Result<Option<KeyFileLocation>, KeyFileError> {
    Ok(match (&settings.retry_keys_dir, &settings.store) {
        (_, StoreUrl::Memory) => None,
        (Some(dir), _) => Some(KeyFileLocation::Dir(dir.clone())),
        (None, StoreUrl::Sqlite(path)) => Some(KeyFileLocation::File(key_file_of(path))),
        (None, StoreUrl::Postgres { .. }) => Some(KeyFileLocation::Dir(default_dir()?)),
    })
}

/// The file of retry keys beside a SQLite store.
fn key_file_of(path: &Path) -> PathBuf {
    path_with_suffix(path, ".keys")
}

fn path_with_suffix(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Opens the file that says which evidence is incomplete: next to a SQLite store, else where the files of retry keys
/// are.
pub(super) async fn evidence_marks(setup: &Setup, store: &StoreHandle) -> anyhow::Result<IncompleteEvidenceMarks> {
    let location = match (&setup.settings.store, &setup.settings.retry_keys_dir) {
        (StoreUrl::Memory, _) => MarksLocation::Nowhere,
        (StoreUrl::Sqlite(path), _) => MarksLocation::File(path_with_suffix(path, ".evidence")),
        (StoreUrl::Postgres { .. }, dir) => {
            let secret = store.secret().await.context("reading the store's secret")?;
            let id = blake3::derive_key("pointsman 2026 name of the file of evidence marks", &secret);
            let id: String = id[..8].iter().map(|byte| format!("{byte:02x}")).collect();
            let dir = dir.clone().map_or_else(default_dir, Ok)?;
            MarksLocation::Dir(dir, format!("pointsman-{id}"))
        }
    };
    Ok(IncompleteEvidenceMarks::open(&location).await?)
}

/// How long a retry key is valid. A check reports keys that are younger than this and whose run does not exist.
fn retry_window(limits: &Limits) -> Duration {
    Duration::from_secs(limits.retry_window_s)
}

/// The URL of the named store, and the limits in force for it.
fn resolve_location(location: StoreLocation) -> anyhow::Result<(StoreUrl, Limits)> {
    match location {
        StoreLocation::Url(url) => {
            let store = config::parse_store(&url, None).map_err(|why| anyhow::anyhow!("`--store`: {why}"))?;
            Ok((store, Limits::default()))
        }
        StoreLocation::Flags(dir) => {
            // Checking a store needs none of the secrets that the files name.
            let overrides = Overrides { secrets_may_be_absent: true, ..Overrides::default() };
            let setup = config::read(&dir, &overrides)?.setup;
            Ok((setup.settings.store, (*setup.limits).clone()))
        }
    }
}
