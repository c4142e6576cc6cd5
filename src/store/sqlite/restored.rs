//! Records in a database that it is a backup, and when it was first started as a store.
//!
//! Always true: a backup has the row `backup` in the table `meta` until it is started for the first time. That start
//! replaces the row by the row `restored`, which has the time of the start. So the store always knows, on any machine,
//! that it is not the original, and since when the two differ.

use jiff::Timestamp;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, SqliteExecutor};

use crate::store::Restored;

const BACKUP: &str = "backup";
const RESTORED: &str = "restored";

/// Records in a new copy that it is a backup, and that it was made at this time.
pub(super) async fn mark_as_backup(copy: &mut SqliteConnection, at: Timestamp) -> sqlx::Result<()> {
    // The original may itself be a restored backup.
    sqlx::query("DELETE FROM meta WHERE key = ?").bind(RESTORED).execute(&mut *copy).await?;
    put(copy, BACKUP, at.to_string().into_bytes()).await
}

/// Reads whether the store is a restored backup. If the row `backup` shows that this is its first start, records that.
/// If this record cannot be written, the next start counts as the first one too.
pub(super) async fn read(conn: &mut SqliteConnection, now: Timestamp) -> sqlx::Result<Option<Restored>> {
    if let Some(made_at) = get(conn, BACKUP).await? {
        let (open_runs, newest) = open_runs(conn).await?;
        let backed_up = parsed_time(&made_at).unwrap_or(now);
        // Not earlier than any event in the store, even if this machine's clock is behind.
        let restored = Restored { backed_up, started: now.max(newest), open_runs };
        tracing::warn!(
            %backed_up, open_runs,
            "the store is a backup and is started for the first time: what was done after it was made is not in it; runs \
             that were open in it are paused, and routes in `live` go down to `dark` (`pointsman help store`, \"After a restore\")"
        );
        if let Err(error) = replace_row(conn, &restored).await {
            tracing::warn!(%error, "the first start of the restored backup could not be recorded");
        }
        return Ok(Some(restored));
    }
    stored(conn).await
}

/// When a backup was first started as this store; `None` if the store is the original, or a backup that was never
/// started.
pub(super) async fn stored(conn: &mut SqliteConnection) -> sqlx::Result<Option<Restored>> {
    let row = get(conn, RESTORED).await?;
    // Without this row the open runs would go on, so one that cannot be read stops the start.
    let unreadable = |error: serde_json::Error| {
        sqlx::Error::Decode(format!("the row `{RESTORED}` of the table meta is damaged: {error}").into())
    };
    row.map(|row| serde_json::from_slice(&row).map_err(unreadable)).transpose()
}

/// Replaces the row `backup` by the row `restored`.
async fn replace_row(conn: &mut SqliteConnection, restored: &Restored) -> sqlx::Result<()> {
    let row = serde_json::to_vec(restored).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let mut write = conn.begin().await?;
    put(&mut *write, RESTORED, row).await?;
    sqlx::query("DELETE FROM meta WHERE key = ?").bind(BACKUP).execute(&mut *write).await?;
    write.commit().await
}

/// How many real runs have not ended, and the time of the newest event of any run.
async fn open_runs(conn: &mut SqliteConnection) -> sqlx::Result<(u64, Timestamp)> {
    let open = "SELECT count(*) FROM runs WHERE ended = 0 AND mode = 'real'";
    let (open,): (i64,) = sqlx::query_as(open).fetch_one(&mut *conn).await?;
    let newest = "SELECT coalesce(max(updated), 0) FROM runs";
    let (newest,): (i64,) = sqlx::query_as(newest).fetch_one(&mut *conn).await?;
    let newest = Timestamp::from_nanosecond(newest.into()).unwrap_or(Timestamp::MIN);
    Ok((open.unsigned_abs(), newest))
}

async fn get(conn: &mut SqliteConnection, key: &str) -> sqlx::Result<Option<Vec<u8>>> {
    let row: Option<(Vec<u8>,)> =
        sqlx::query_as("SELECT value FROM meta WHERE key = ?").bind(key).fetch_optional(conn).await?;
    Ok(row.map(|(value,)| value))
}

async fn put(conn: impl SqliteExecutor<'_>, key: &str, value: Vec<u8>) -> sqlx::Result<()> {
    let text = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)";
    sqlx::query(text).bind(key).bind(value).execute(conn).await.map(|_| ())
}

fn parsed_time(text: &[u8]) -> Option<Timestamp> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
