//! Reads of retry keys. Those that are asked for at the same moment are read by one statement.
//!
//! Always true: a statement is sent after the calls that it answers, so that it finds whatever was stored before them;
//! no delay is added but one turn of the task scheduler. When a caller stops waiting, the others are answered. None of
//! them waits for a thread of lower priority: a task of the pool's runtime asks for such a thread, and sends. What such
//! threads ask for is read by statements of its own, within their share of the connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::postgres::PgRow;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::columns::{Result, arm, column, run_id, time};
use super::pool::Pool;
use super::read::retry_key;
use crate::flag::RetryKey;
use crate::priority;
use crate::store::bound_keys::is_bound;
use crate::store::{StoreError, StoredFirstTry};

type Reply = oneshot::Sender<Result<Option<StoredFirstTry>>>;

/// The calls that no statement has been sent for yet.
type Asked = Vec<(RetryKey, Reply)>;

/// The reads of retry keys of one store: those of threads of lower priority apart from all others.
pub(super) struct FirstTries {
    normal: Arc<Batches>,
    low_priority: Arc<Batches>,
}

/// Gathers calls, and sends a statement for them.
struct Batches {
    pool: Arc<Pool>,
    retry_window_ns: i64,
    /// Whether its statements use the connections of threads of lower priority.
    is_low_priority: bool,
    asked: Mutex<Asked>,
}

/// Sends the statement when it is dropped, also with a caller that stops waiting.
struct SendOnDrop(Arc<Batches>);

impl FirstTries {
    pub(super) fn new(pool: &Arc<Pool>, retry_window_ns: i64) -> Self {
        let batches = |is_low_priority| {
            Arc::new(Batches { pool: pool.clone(), retry_window_ns, is_low_priority, asked: Mutex::default() })
        };
        Self { normal: batches(false), low_priority: batches(true) }
    }

    pub(super) async fn read(&self, key: RetryKey) -> Result<Option<StoredFirstTry>> {
        if !priority::is_lowered() {
            return self.normal.clone().ask(key).await;
        }
        let asking = self.low_priority.pool.runtime().spawn(self.low_priority.clone().ask(key));
        AbortOnDropHandle::new(asking).await.unwrap_or_else(|_| Err(closed()))
    }
}

impl Batches {
    async fn ask(self: Arc<Self>, key: RetryKey) -> Result<Option<StoredFirstTry>> {
        let (reply, replied) = oneshot::channel();
        let is_first = {
            let mut asked = self.asked();
            asked.push((key, reply));
            asked.len() == 1
        };
        if is_first {
            let _send = SendOnDrop(self);
            // A request asks for several keys at once, each in a future of its own.
            tokio::task::yield_now().await;
        }
        replied.await.unwrap_or_else(|_| Err(closed()))
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_asked(&self) -> Asked {
        std::mem::take(&mut *self.asked())
    }

    async fn answer(&self, mut asked: Asked) {
        asked.retain(|(_, reply)| !reply.is_closed());
        if asked.is_empty() {
            return;
        }
        let keys: Vec<[u8; 32]> = asked.iter().map(|(key, _)| key.0).collect();
        match self.found(&keys).await {
            Ok(mut found) => {
                for (key, reply) in asked {
                    // The caller may have stopped waiting. One key may be asked for twice.
                    let _ = reply.send(found.get_mut(&key.0).map_or(Ok(None), |first| first.clone().map(Some)));
                }
            }
            Err(error) => asked.into_iter().for_each(|(_, reply)| drop(reply.send(Err(error.clone())))),
        }
    }

    /// The keys that are bound; a row that cannot be read is an error for its own key.
    async fn found(&self, keys: &[[u8; 32]]) -> Result<HashMap<[u8; 32], Result<StoredFirstTry>>> {
        const TEXT: &str = concat!(
            "SELECT key, arm, run_id, request, at FROM retry_keys WHERE key = ANY($1) AND ",
            is_bound!("retry_keys", "(now_ns() - $2)")
        );
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_slice()).collect();
        let found = self.pool.query(|| sqlx::query(TEXT).bind(&keys).bind(self.retry_window_ns)).await?;
        found.iter().map(|row| Ok((retry_key(row)?.0, first_try(row)))).collect()
    }
}

impl Drop for SendOnDrop {
    fn drop(&mut self) {
        let unsent = Unsent(Some(self.0.clone()));
        self.0.pool.runtime().spawn(unsent.send());
    }
}

/// Calls whose statement is to be sent, once a connection may be used for it: those that ask meanwhile are answered by
/// the same statement. If the runtime ends before, all of them get an error.
struct Unsent(Option<Arc<Batches>>);

impl Unsent {
    async fn send(mut self) {
        let _permit = match &self.0 {
            // Once the pool is closed there is no permit, and the statement fails.
            Some(batches) if batches.is_low_priority => batches.pool.low_priority_permit().await,
            Some(_) | None => None,
        };
        if let Some(batches) = self.0.take() {
            let asked = batches.take_asked();
            batches.answer(asked).await;
        }
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some(batches) = &self.0 {
            drop(batches.take_asked());
        }
    }
}

fn closed() -> StoreError {
    StoreError("the store is closed".to_owned())
}

fn first_try(row: &PgRow) -> Result<StoredFirstTry> {
    let run = column::<Option<&[u8]>>(row, 2)?.map(run_id).transpose()?;
    let request = column::<Option<&[u8]>>(row, 3)?.and_then(|bytes| bytes.try_into().ok());
    Ok(StoredFirstTry { arm: arm(column(row, 1)?)?, run, request, at: time(column(row, 4)?)? })
}
