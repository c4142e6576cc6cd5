//! What the writer writes about who moves a run, what is asked of it, and what is purged.
//!
//! Always true: each is one transaction on the writer's connection; twice is as good as once, but that a run that is
//! taken twice skips a number. A purge drops what is left of its runs in portions, so that appends wait for one of
//! them at most; what it left undone is gone on with.

use serde_json::Value;
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Sqlite};
use uuid::Uuid;

use super::fault::Fault;
use super::hints::Hints;
use super::look::run_id;
use crate::names::{Fence, RunId, WorkerId};
use crate::store::summary::current;
use crate::store::{News, OrderRecord, Owned, Taken, no_such_run, run_has_ended};

/// Rows of appends that go in one transaction, and payloads.
const SWEPT_APPENDS: u64 = 200;
const SWEPT_PAYLOADS: u64 = 16;

pub(super) enum Move {
    Leave(WorkerId),
    Take(WorkerId, RunId),
    TakeDue(WorkerId, i64),
    Ask(Box<OrderRecord>),
    Settle(Uuid, Value),
    NoticeDone(i64),
    DropBirth(RunId),
    /// Runs to drop, each with what remains of it (JSON) where it is pinned.
    Doom(Vec<(RunId, Option<Vec<u8>>)>),
    /// A portion of what is left of dropped runs.
    Sweep,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Moved {
    Nothing,
    Taken(Taken),
    Due(Vec<Owned>),
    /// So many runs.
    Doomed(u64),
    /// So many payloads, and whether nothing is left to sweep.
    Swept(u64, bool),
}

/// Writes it, within a transaction; what is to be told goes out once that is committed.
pub(super) async fn write(
    conn: &mut SqliteConnection,
    asked: &Move,
    hints: &Hints,
    now_ns: i64,
) -> Result<(Moved, Vec<News>), Fault> {
    let mut news = Vec::new();
    let moved = match asked {
        Move::Leave(worker) => {
            let text = "UPDATE runs SET owner = NULL, turn = 0 WHERE ended = 0 AND owner = ? RETURNING run_id";
            let left: Vec<(Vec<u8>,)> =
                sqlx::query_as(text).bind(worker.0.as_bytes().as_slice()).fetch_all(conn).await?;
            news.extend(left.into_iter().filter_map(|(run,)| run_id(run)).map(News::Run));
            Moved::Nothing
        }
        Move::Take(worker, run) => Moved::Taken(take(conn, *worker, *run).await?),
        Move::TakeDue(worker, limit) => {
            if hints.strangers_to(*worker) {
                let text = "UPDATE runs SET owner = NULL, turn = 0 \
                            WHERE ended = 0 AND owner IS NOT NULL AND owner <> ?";
                sqlx::query(text).bind(worker.0.as_bytes().as_slice()).execute(&mut *conn).await?;
            }
            Moved::Due(take_due(conn, *worker, *limit, now_ns).await?)
        }
        Move::Ask(order) => {
            news.push(ask(conn, order).await?);
            Moved::Nothing
        }
        Move::Settle(id, answer) => {
            let text = "UPDATE orders SET answer = ? WHERE id = ? AND answer IS NULL";
            sqlx::query(text).bind(json(answer)?).bind(id.as_bytes().as_slice()).execute(conn).await?;
            news.push(News::Order(*id));
            Moved::Nothing
        }
        Move::NoticeDone(number) => {
            sqlx::query("DELETE FROM notices WHERE number = ?").bind(number).execute(conn).await?;
            Moved::Nothing
        }
        Move::DropBirth(run) => {
            sqlx::query("DELETE FROM births WHERE run_id = ?").bind(run.0.as_bytes().as_slice()).execute(conn).await?;
            Moved::Nothing
        }
        Move::Doom(runs) => Moved::Doomed(doom(conn, runs).await?),
        Move::Sweep => {
            let (payloads, done) = sweep(conn).await?;
            Moved::Swept(payloads, done)
        }
    };
    Ok((moved, news))
}

/// It is committed.
pub(super) fn written(asked: &Move, moved: &Moved, news: Vec<News>, hints: &mut Hints) {
    match (asked, moved) {
        (Move::Take(worker, _), Moved::Taken(Taken::Mine(_))) => hints.took(*worker),
        (Move::TakeDue(worker, _), _) => hints.alone(*worker),
        (Move::Ask(order), _) if news.contains(&News::Run(order.run)) => hints.asked(order.run, order.id),
        _ => {}
    }
    hints.tell(news);
}

async fn take(conn: &mut SqliteConnection, worker: WorkerId, run: RunId) -> Result<Taken, Fault> {
    let text = "UPDATE runs SET owner = ?, turn = NULL, fence = fence + 1 WHERE run_id = ? AND ended = 0 \
                RETURNING fence, summary, seq, updated";
    let taken: Option<OwnedRow> = sqlx::query_as(text)
        .bind(worker.0.as_bytes().as_slice())
        .bind(run.0.as_bytes().as_slice())
        .fetch_optional(&mut *conn)
        .await?;
    if let Some(row) = taken {
        return Ok(Taken::Mine(owned(row)?));
    }
    let ended: Option<OwnedRow> = sqlx::query_as("SELECT fence, summary, seq, updated FROM runs WHERE run_id = ?")
        .bind(run.0.as_bytes().as_slice())
        .fetch_optional(conn)
        .await?;
    match ended {
        Some(row) => Ok(Taken::Ended(owned(row)?.summary)),
        None => Ok(Taken::Unknown),
    }
}

async fn take_due(conn: &mut SqliteConnection, worker: WorkerId, limit: i64, now_ns: i64) -> Result<Vec<Owned>, Fault> {
    let text = "UPDATE runs SET owner = ?1, turn = NULL, fence = fence + 1 WHERE run_id IN ( \
                    SELECT run_id FROM ( \
                        SELECT run_id FROM runs WHERE turn IS NOT NULL AND turn <= ?2 \
                        UNION SELECT runs.run_id FROM orders CROSS JOIN runs ON runs.run_id = orders.run_id \
                        WHERE orders.answer IS NULL AND runs.ended = 0 AND runs.owner IS NULL \
                    ) ORDER BY run_id LIMIT ?3 \
                ) RETURNING fence, summary, seq, updated";
    let taken: Vec<OwnedRow> =
        sqlx::query_as(text).bind(worker.0.as_bytes().as_slice()).bind(now_ns).bind(limit).fetch_all(conn).await?;
    let mut taken = taken.into_iter().map(owned).collect::<Result<Vec<_>, _>>()?;
    taken.sort_by_key(|owned| owned.summary.run_id);
    Ok(taken)
}

/// What is asked of a run that will not come to it is settled at once.
async fn ask(conn: &mut SqliteConnection, order: &OrderRecord) -> Result<News, Fault> {
    let ended: Option<(bool,)> = sqlx::query_as("SELECT ended FROM runs WHERE run_id = ?")
        .bind(order.run.0.as_bytes().as_slice())
        .fetch_optional(&mut *conn)
        .await?;
    let refused = match ended {
        None => Some(no_such_run()),
        Some((ended,)) => ended.then(run_has_ended),
    };
    let record = json(&OrderRecord { answer: None, ..order.clone() })?;
    sqlx::query("INSERT INTO orders (id, run_id, record, answer) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")
        .bind(order.id.as_bytes().as_slice())
        .bind(order.run.0.as_bytes().as_slice())
        .bind(record)
        .bind(refused.as_ref().map(json).transpose()?)
        .execute(conn)
        .await?;
    Ok(if refused.is_some() { News::Order(order.id) } else { News::Run(order.run) })
}

async fn doom(conn: &mut SqliteConnection, runs: &[(RunId, Option<Vec<u8>>)]) -> Result<u64, Fault> {
    if runs.is_empty() {
        return Ok(0);
    }
    let among = |text: &str| {
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new(text);
        query.push(" WHERE run_id IN (");
        let mut list = query.separated(", ");
        for (run, _) in runs {
            list.push_bind(run.0.as_bytes().to_vec());
        }
        query.push(")");
        query
    };
    let mut doomed = among("INSERT INTO purging SELECT run_id FROM runs");
    doomed.push(" AND ended = 1 AND remains IS NULL ON CONFLICT DO NOTHING");
    let doomed = doomed.build().execute(&mut *conn).await?.rows_affected();
    among("DELETE FROM orders").build().execute(&mut *conn).await?;
    for (run, remains) in runs {
        let Some(remains) = remains else { continue };
        sqlx::query("UPDATE runs SET remains = ? WHERE run_id = ?")
            .bind(remains.as_slice())
            .bind(run.0.as_bytes().as_slice())
            .execute(&mut *conn)
            .await?;
    }
    let mut dropped = among("DELETE FROM runs");
    dropped.push(" AND ended = 1 AND remains IS NULL");
    dropped.build().execute(conn).await?;
    Ok(doomed)
}

async fn sweep(conn: &mut SqliteConnection) -> Result<(u64, bool), Fault> {
    let text = "DELETE FROM appends WHERE pos IN \
                (SELECT appends.pos FROM purging CROSS JOIN appends ON appends.run_id = purging.run_id LIMIT ?)";
    let appends = sqlx::query(text).bind(SWEPT_APPENDS.cast_signed()).execute(&mut *conn).await?.rows_affected();
    if appends == SWEPT_APPENDS {
        return Ok((0, false));
    }
    let text = "DELETE FROM payload_refs WHERE (run_id, seq, path) IN ( \
                    SELECT r.run_id, r.seq, r.path FROM purging CROSS JOIN payload_refs AS r ON r.run_id = purging.run_id \
                    LIMIT ? \
                ) RETURNING hash";
    let hashes: Vec<(Vec<u8>,)> = sqlx::query_as(text).bind(SWEPT_PAYLOADS.cast_signed()).fetch_all(&mut *conn).await?;
    let mut payloads = 0;
    for (hash,) in &hashes {
        let text = "DELETE FROM payloads WHERE hash = ?1 \
                    AND NOT EXISTS (SELECT 1 FROM payload_refs WHERE payload_refs.hash = ?1)";
        payloads += sqlx::query(text).bind(hash).execute(&mut *conn).await?.rows_affected();
    }
    if hashes.len() as u64 == SWEPT_PAYLOADS {
        return Ok((payloads, false));
    }
    sqlx::query("DELETE FROM purging").execute(conn).await?;
    Ok((payloads, true))
}

/// Fence, summary, seq, and when the last event happened.
type OwnedRow = (i64, Vec<u8>, i64, i64);

fn owned((fence, summary, seq, updated): OwnedRow) -> Result<Owned, Fault> {
    let summary = current(&summary, seq, Some(updated)).map_err(|error| Fault::Sure(error.0))?;
    Ok(Owned { summary, fence: Fence(fence.cast_unsigned()) })
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(value).map_err(|error| Fault::Sure(format!("it cannot be written as JSON: {error}")))
}
