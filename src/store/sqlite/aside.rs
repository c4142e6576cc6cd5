//! What the writer writes beside appends: plans, flips, declarations, samples, evidence, legacy's retry keys.
//!
//! Always true: each is one transaction on the writer's connection, acknowledged after its commit; one whose commit is
//! in doubt is looked for (a flip) or written again (the rest: twice is as good as once) on a fresh connection.

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::sqlite::SqliteConnection;
use sqlx::{Executor, SqlSafeStr};
use tokio::sync::oneshot;

use super::commit::Committer;
use super::fault::Fault;
use super::job::nanos;
use super::moves::{self, Move, Moved};
use crate::clock;
use crate::flag::{Arm, RetryKey};
use crate::names::{PlanId, RouteId, RunId};
use crate::store::{DeclaredState, EvidenceRecord, FlipRecord, News, SampleRecord, StoreError};

/// The reply of a write that returns nothing.
type Done = oneshot::Sender<Result<(), StoreError>>;

/// One such write. Large ones are bounded by who hands them in.
pub(super) enum Aside {
    Write(Work, Done),
    Flips(Flips, oneshot::Sender<Result<Vec<u64>, StoreError>>),
    Move(Move, oneshot::Sender<Result<Moved, StoreError>>),
    Close(oneshot::Sender<()>),
}

/// What to write; repeating it does no harm.
pub(super) enum Work {
    Plan(PlanId, serde_json::Value),
    /// `None` takes it away.
    RunKey(RunId, Option<Vec<u8>>),
    LegacyTries(Vec<RetryKey>),
    Samples {
        samples: Vec<SampleRecord>,
        per_fingerprint: usize,
        fingerprints: usize,
    },
    ClearSamples(RouteId),
    Evidence(Vec<EvidenceRecord>),
}

/// Flips that are recorded together, and what the files declare from then on.
pub(super) struct Flips {
    pub flips: Vec<FlipRecord>,
    /// `None` leaves what is remembered as it is.
    pub declared: Option<Vec<DeclaredState>>,
}

/// Retry keys that have run out go in portions of this size.
const PRUNED_AT_ONCE: i64 = 1_000;

/// Performs one and answers it.
pub(super) async fn perform(aside: Aside, committer: &mut Committer, healthy: &AtomicBool) {
    match aside {
        Aside::Write(work, done) => {
            let result = twice(&Task::Work(work), committer, healthy).await;
            let _ = done.send(result.map(|_| ()));
        }
        Aside::Flips(flips, done) => {
            let result = twice(&Task::Flips(flips), committer, healthy).await;
            let _ = done.send(result.map(|wrote| wrote.numbers));
        }
        Aside::Move(asked, done) => {
            let result = twice(&Task::Move(asked), committer, healthy).await;
            let _ = done.send(result.map(|wrote| wrote.moved));
        }
        Aside::Close(done) => {
            let _ = done.send(());
        }
    }
}

enum Task {
    Work(Work),
    Flips(Flips),
    Move(Move),
}

/// What a transaction gave.
struct Wrote {
    /// Of flips, in order.
    numbers: Vec<u64>,
    /// Of a move.
    moved: Moved,
    news: Vec<News>,
}

/// Once, and again on a fresh connection where the first outcome is in doubt.
async fn twice(task: &Task, committer: &mut Committer, healthy: &AtomicBool) -> Result<Wrote, StoreError> {
    let fault = match transact(task, committer, false).await {
        Ok(wrote) => {
            healthy.store(true, Ordering::Release);
            return Ok(tell(task, wrote, committer));
        }
        Err(fault) => fault,
    };
    committer.conn.roll_back().await;
    committer.told(&fault);
    tracing::error!(error = fault.text(), "the store did not commit");
    if let Fault::Unclear(_) = fault {
        committer.conn.drop_it();
        if committer.conn.probe(nanos(clock::now())).await.is_ok() {
            match transact(task, committer, true).await {
                Ok(wrote) => return Ok(tell(task, wrote, committer)),
                Err(_) => committer.conn.roll_back().await,
            }
        }
    }
    if !matches!(fault, Fault::Constraint(_)) {
        healthy.store(false, Ordering::Release);
    }
    Err(StoreError(fault.text().to_owned()))
}

fn tell(task: &Task, mut wrote: Wrote, committer: &mut Committer) -> Wrote {
    if let Task::Move(asked) = task {
        moves::written(asked, &wrote.moved, std::mem::take(&mut wrote.news), &mut committer.hints);
    }
    wrote
}

async fn transact(task: &Task, committer: &mut Committer, again: bool) -> Result<Wrote, Fault> {
    let now_ns = nanos(clock::now());
    let since = committer.since(now_ns);
    let conn = committer.conn.get().await?;
    conn.execute("BEGIN IMMEDIATE".into_sql_str()).await?;
    let mut wrote = Wrote { numbers: Vec::new(), moved: Moved::Nothing, news: Vec::new() };
    match task {
        Task::Flips(flips) => wrote.numbers = put_flips(conn, flips, again).await?,
        Task::Work(work) => write(conn, work, now_ns, since).await?,
        Task::Move(asked) => (wrote.moved, wrote.news) = moves::write(conn, asked, &committer.hints, now_ns).await?,
    }
    conn.execute("COMMIT".into_sql_str()).await?;
    Ok(wrote)
}

async fn put_flips(conn: &mut SqliteConnection, all: &Flips, again: bool) -> Result<Vec<u64>, Fault> {
    let Flips { flips, declared } = all;
    if let Some(declared) = declared {
        put_declared(conn, declared).await?;
    }
    if flips.is_empty() {
        return Ok(Vec::new());
    }
    let count = i64::try_from(flips.len()).unwrap_or(i64::MAX);
    let record = |flip: &FlipRecord, number: i64| json(&FlipRecord { number: number.cast_unsigned(), ..flip.clone() });
    let mut last: Vec<(i64, Vec<u8>)> = sqlx::query_as("SELECT number, record FROM flips ORDER BY number DESC LIMIT ?")
        .bind(count)
        .fetch_all(&mut *conn)
        .await?;
    last.reverse();
    // Nobody else writes: if the first try was kept, its flips are the last rows.
    if again && last.len() == flips.len() {
        let mut is_same = true;
        for (flip, (number, stored)) in flips.iter().zip(&last) {
            is_same &= *stored == record(flip, *number)?;
        }
        if is_same {
            return Ok(last.iter().map(|(number, _)| number.cast_unsigned()).collect());
        }
    }
    let mut number = last.last().map_or(0, |(number, _)| *number);
    let mut numbers = Vec::with_capacity(flips.len());
    for flip in flips {
        number = number.saturating_add(1);
        sqlx::query("INSERT INTO flips (number, route, record) VALUES (?, ?, ?)")
            .bind(number)
            .bind(flip.route.as_ref().map(RouteId::as_str))
            .bind(record(flip, number)?)
            .execute(&mut *conn)
            .await?;
        numbers.push(number.cast_unsigned());
    }
    Ok(numbers)
}

async fn put_declared(conn: &mut SqliteConnection, declared: &[DeclaredState]) -> Result<(), Fault> {
    conn.execute("DELETE FROM declared".into_sql_str()).await?;
    for state in declared {
        sqlx::query("INSERT OR REPLACE INTO declared (route, record) VALUES (?, ?)")
            .bind(state.route.as_str())
            .bind(json(state)?)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

async fn write(conn: &mut SqliteConnection, work: &Work, now_ns: i64, since: i64) -> Result<(), Fault> {
    match work {
        Work::Plan(id, source) => {
            sqlx::query("INSERT INTO plans (id, source) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(id.as_str())
                .bind(json(source)?)
                .execute(conn)
                .await?;
        }
        Work::RunKey(run, Some(key)) => {
            sqlx::query(
                "INSERT INTO run_keys (run_id, key) VALUES (?, ?) ON CONFLICT DO UPDATE SET key = excluded.key",
            )
            .bind(run.0.as_bytes().as_slice())
            .bind(key.as_slice())
            .execute(conn)
            .await?;
        }
        Work::RunKey(run, None) => {
            sqlx::query("DELETE FROM run_keys WHERE run_id = ?")
                .bind(run.0.as_bytes().as_slice())
                .execute(conn)
                .await?;
        }
        Work::LegacyTries(keys) => {
            for key in keys {
                sqlx::query(
                    "INSERT INTO retry_keys (key, arm, at) VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE \
                     SET arm = excluded.arm, run_id = NULL, request = NULL, at = excluded.at WHERE retry_keys.at <= ?4",
                )
                .bind(key.0.as_slice())
                .bind(Arm::Legacy.as_str())
                .bind(now_ns)
                .bind(since)
                .execute(&mut *conn)
                .await?;
            }
            let prune = "DELETE FROM retry_keys WHERE pos IN \
                         (SELECT pos FROM retry_keys WHERE at <= ? ORDER BY at LIMIT ?)";
            sqlx::query(prune).bind(since).bind(PRUNED_AT_ONCE).execute(conn).await?;
        }
        Work::Samples { samples, per_fingerprint, fingerprints } => {
            for sample in samples {
                put_sample(conn, sample, *per_fingerprint, *fingerprints).await?;
            }
        }
        Work::ClearSamples(route) => {
            sqlx::query("DELETE FROM samples WHERE route = ?").bind(route.as_str()).execute(conn).await?;
        }
        Work::Evidence(evidence) => {
            for record in evidence {
                sqlx::query("INSERT OR REPLACE INTO evidence (route, record) VALUES (?, ?)")
                    .bind(record.route.as_str())
                    .bind(json(record)?)
                    .execute(&mut *conn)
                    .await?;
            }
        }
    }
    Ok(())
}

async fn put_sample(
    conn: &mut SqliteConnection,
    sample: &SampleRecord,
    per_fingerprint: usize,
    fingerprints: usize,
) -> Result<(), Fault> {
    sqlx::query("INSERT INTO samples (route, fingerprint, record) VALUES (?, ?, ?)")
        .bind(sample.route.as_str())
        .bind(&sample.fingerprint)
        .bind(json(sample)?)
        .execute(&mut *conn)
        .await?;
    sqlx::query(
        "DELETE FROM samples WHERE route = ?1 AND fingerprint = ?2 AND pos NOT IN \
         (SELECT pos FROM samples WHERE route = ?1 AND fingerprint = ?2 ORDER BY pos DESC LIMIT ?3)",
    )
    .bind(sample.route.as_str())
    .bind(&sample.fingerprint)
    .bind(i64::try_from(per_fingerprint).unwrap_or(i64::MAX))
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "DELETE FROM samples WHERE route = ?1 AND fingerprint NOT IN \
         (SELECT fingerprint FROM samples WHERE route = ?1 GROUP BY fingerprint ORDER BY max(pos) DESC LIMIT ?2)",
    )
    .bind(sample.route.as_str())
    .bind(i64::try_from(fingerprints).unwrap_or(i64::MAX))
    .execute(conn)
    .await?;
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(value).map_err(|error| Fault::Sure(format!("it cannot be written as JSON: {error}")))
}
