//! Acquires runs for a worker.
//!
//! Always true: a run is acquired by one statement on the writer's session, so that a statement whose reply was lost
//! has ended before it is repeated. Requests for due runs have the same id until a reply has arrived, so that the next
//! request also returns the runs that the lost reply held. A process skips runs that another one is acquiring at that
//! moment.
//!
//! The names of tables and columns are explained in [`crate::store`].

use std::time::Duration;

use sqlx::Row;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::columns::{sql_limit, uuid};
use super::read::summary;
use super::session::Session;
use crate::names::{Fence, RunId, WorkerId};
use crate::store::summary::decoded_or_logged;
use crate::store::write_error::WriteError;
use crate::store::{AcquireResult, OwnedRun, StoreError};

/// What the writer does between two batches.
pub(super) enum WriterRequest {
    Acquire(WorkerId, RunId, oneshot::Sender<Result<AcquireResult, StoreError>>),
    /// The worker, how many runs it acquires at most, and the runs that it cannot read.
    AcquireDue(WorkerId, usize, Vec<RunId>, oneshot::Sender<Result<Vec<OwnedRun>, StoreError>>),
    Close(oneshot::Sender<()>),
}

/// The most attempts of a request, and how long a new connection may take in between.
const ATTEMPTS_MAX: u32 = 3;
const RECONNECT_WITHIN: Duration = Duration::from_secs(1);

const ACQUIRE: &str = "UPDATE runs SET owner = $1, fence = fence + 1, turn = NULL, taken = NULL \
    WHERE run_id = $2 AND NOT ended AND (owner IS NULL OR owner = $1 OR NOT EXISTS \
        (SELECT FROM workers WHERE worker = runs.owner AND alive_until > statement_timestamp())) \
    RETURNING fence, summary, seq, last_at";
const OWNER: &str = "SELECT r.ended, r.summary, r.seq, r.last_at, w.worker, w.name FROM runs r \
    LEFT JOIN workers w ON w.worker = r.owner WHERE r.run_id = $1";
/// A run that another worker acquired since `due` was read has another fencing token and is skipped. The runs that this
/// request acquired before come first: the reply that said so was lost.
const ACQUIRE_DUE: &str = "WITH due AS ( \
        (SELECT run_id, fence FROM runs WHERE NOT ended AND owner IS NULL AND turn <= now_ns() ORDER BY run_id LIMIT $3) \
        UNION (SELECT r.run_id, r.fence FROM runs r WHERE NOT r.ended AND r.owner IS NULL \
            AND r.run_id IN (SELECT o.run_id FROM orders o WHERE o.answer IS NULL) ORDER BY r.run_id LIMIT $3) \
        UNION (SELECT run_id, fence FROM runs WHERE NOT ended AND owner IS NOT NULL AND owner <> $1 AND NOT EXISTS \
            (SELECT FROM workers WHERE worker = runs.owner AND alive_until > statement_timestamp()) \
            AND (run_id <> ALL ($4) OR run_id IN (SELECT o.run_id FROM orders o WHERE o.answer IS NULL)) \
            ORDER BY run_id LIMIT $3) \
        UNION (SELECT run_id, fence FROM runs WHERE NOT ended AND owner = $1 AND taken = $2) \
    ), free AS ( \
        SELECT r.run_id FROM runs r JOIN due ON due.run_id = r.run_id AND due.fence = r.fence \
        WHERE NOT r.ended ORDER BY coalesce(r.taken = $2, false) DESC, r.run_id LIMIT $3 FOR UPDATE OF r SKIP LOCKED \
    ) UPDATE runs SET owner = $1, fence = runs.fence + 1, turn = NULL, taken = $2 \
      FROM free WHERE runs.run_id = free.run_id \
      RETURNING runs.fence, runs.summary, runs.seq, runs.last_at, runs.run_id";

/// Acquires runs for this process's worker.
#[derive(Default)]
pub(super) struct RunAcquirer {
    request: DueRequest,
}

/// The request for due runs whose reply has not arrived: its id, and how many runs it may have acquired.
#[derive(Default)]
struct DueRequest(Option<(Uuid, usize)>);

impl DueRequest {
    /// The id and the limit of the next request. A repeated one asks for at least as many runs as before: what a lost
    /// reply held beyond that would stay with this worker, and nobody would execute it.
    fn begin(&mut self, limit: usize) -> (Uuid, usize) {
        let (_, limit_before) = self.0.get_or_insert_with(|| (Uuid::from_u128(fastrand::u128(..)), limit));
        *limit_before = limit.max(*limit_before);
        self.0.unwrap_or_default()
    }

    /// The runs are known.
    fn end(&mut self) {
        self.0 = None;
    }
}

impl RunAcquirer {
    pub(super) async fn perform(&mut self, request: WriterRequest, session: &mut Session) {
        match request {
            WriterRequest::Acquire(worker, run, reply) => {
                let mut acquired = acquire(session, worker, run).await;
                for _ in 1..ATTEMPTS_MAX {
                    if acquired.is_ok() || session.get_within(RECONNECT_WITHIN).await.is_err() {
                        break;
                    }
                    acquired = acquire(session, worker, run).await;
                }
                let _ = reply.send(acquired.map_err(not_acquired));
            }
            WriterRequest::AcquireDue(worker, limit, unreadable, reply) => {
                let unreadable: Vec<Vec<u8>> = unreadable.iter().map(|run| run.0.as_bytes().to_vec()).collect();
                let (mut acquired, mut has_all_replies) =
                    (self.acquire_due_page(session, worker, limit, &unreadable).await, true);
                while let Ok(page) = &mut acquired
                    && page.needs_another
                {
                    // The runs of the last page are known, so the next page is a request with a new id. If its reply is
                    // lost, the next call asks with the same id and gets these runs.
                    self.request.end();
                    let rest = limit.saturating_sub(page.runs.len());
                    match self.acquire_due_page(session, worker, rest, &unreadable).await {
                        Ok(more) => {
                            page.runs.extend(more.runs);
                            page.needs_another = more.needs_another;
                        }
                        Err(_) => (page.needs_another, has_all_replies) = (false, false),
                    }
                }
                has_all_replies &= acquired.is_ok();
                let acquired = acquired.map(|DuePage { mut runs, .. }| {
                    runs.sort_by_key(|owned| owned.summary.run_id);
                    runs
                });
                if reply.send(acquired.map_err(not_acquired)).is_ok() && has_all_replies {
                    self.request.end();
                }
            }
            WriterRequest::Close(done) => {
                let _ = done.send(());
            }
        }
    }
}

/// Due runs that were acquired by one statement.
struct DuePage {
    runs: Vec<OwnedRun>,
    /// The page is shorter than the limit because runs whose summaries cannot be read were left out, and more runs may
    /// be due. The unreadable runs stay with the worker, so that they are not due again at once.
    needs_another: bool,
}

impl RunAcquirer {
    async fn acquire_due_page(
        &mut self,
        session: &mut Session,
        worker: WorkerId,
        limit: usize,
        unreadable: &[Vec<u8>],
    ) -> Result<DuePage, WriteError> {
        let (request, limit) = self.request.begin(limit);
        let mut acquired = acquire_due(session, worker, request, limit, unreadable).await;
        for _ in 1..ATTEMPTS_MAX {
            if acquired.is_ok() || session.get_within(RECONNECT_WITHIN).await.is_err() {
                break;
            }
            acquired = acquire_due(session, worker, request, limit, unreadable).await;
        }
        acquired
    }
}

fn not_acquired(error: WriteError) -> StoreError {
    StoreError(format!("no run could be acquired, or the reply was lost: {}", error.text()))
}

async fn acquire(session: &mut Session, worker: WorkerId, run: RunId) -> Result<AcquireResult, WriteError> {
    let (me, id) = (worker.0.as_bytes().as_slice(), run.0.as_bytes().as_slice());
    let mut attempts = ATTEMPTS_MAX;
    loop {
        attempts -= 1;
        if let Some(row) = session.query(sqlx::query(ACQUIRE).bind(me).bind(id)).await?.first() {
            let fence = Fence(row.try_get::<i64, _>(0)?.cast_unsigned());
            return Ok(match summary(row, 1) {
                Ok(summary) => AcquireResult::Acquired(OwnedRun { summary, fence }),
                Err(error) => AcquireResult::Unreadable { fence: Some(fence), why: error.0 },
            });
        }
        let owner = session.query(sqlx::query(OWNER).bind(id)).await?;
        let Some(row) = owner.first() else { return Ok(AcquireResult::Unknown) };
        if row.try_get(0)? {
            return Ok(match summary(row, 1) {
                Ok(summary) => AcquireResult::Ended(summary),
                Err(error) => AcquireResult::Unreadable { fence: None, why: error.0 },
            });
        }
        match row.try_get::<Option<&[u8]>, _>(4)? {
            Some(other) => {
                return Ok(AcquireResult::Elsewhere { worker: WorkerId(uuid(other)?), name: row.try_get(5)? });
            }
            // The owner left, or the run was released, between the two statements.
            None if attempts > 0 => {}
            None => return Err(WriteError::NotWritten("the run's owner changed at each attempt to take it".into())),
        }
    }
}

async fn acquire_due(
    session: &mut Session,
    worker: WorkerId,
    request: Uuid,
    limit: usize,
    unreadable: &[Vec<u8>],
) -> Result<DuePage, WriteError> {
    let query = sqlx::query(ACQUIRE_DUE).bind(worker.0.as_bytes().as_slice()).bind(request.as_bytes().as_slice());
    let found = session.query(query.bind(sql_limit(limit)).bind(unreadable)).await?;
    let mut runs = Vec::with_capacity(found.len());
    for row in &found {
        let fence = Fence(row.try_get::<i64, _>(0)?.cast_unsigned());
        let summary = decoded_or_logged(row.try_get(4)?, summary(row, 1));
        runs.extend(summary.map(|summary| OwnedRun { fence, summary }));
    }
    Ok(DuePage { needs_another: runs.len() < found.len() && found.len() == limit, runs })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The process may have fewer free places when it asks again.
    #[test]
    fn a_repeated_request_asks_for_all_runs_that_the_lost_reply_may_have_held() {
        let mut request = DueRequest::default();
        let (first, limit) = request.begin(64);
        assert_eq!(limit, 64);
        assert_eq!(request.begin(3), (first, 64), "the reply was lost");
        assert_eq!(request.begin(80), (first, 80));
        request.end();
        let (next, limit) = request.begin(3);
        assert!(next != first && limit == 3);
    }
}
