//! Reads of retry keys. Those that are asked for at the same moment are read by one statement.
//!
//! Always true: a statement is sent after the calls that it answers, so that it finds whatever was stored before them;
//! no delay is added but one turn of the task scheduler. When a caller stops waiting, the others are answered. None of
//! them waits for a thread of lower priority: a task of the pool's runtime asks for such a thread, and sends.

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
pub(super) struct FirstTries {
    pool: Arc<Pool>,
    retry_window_ns: i64,
    asked: Mutex<Vec<(RetryKey, Reply)>>,
}

/// Sends the statement when it is dropped, also with a caller that stops waiting.
struct SendOnDrop(Arc<FirstTries>);

impl FirstTries {
    pub(super) fn new(pool: Arc<Pool>, retry_window_ns: i64) -> Arc<Self> {
        Arc::new(Self { pool, retry_window_ns, asked: Mutex::default() })
    }

    pub(super) async fn read(self: Arc<Self>, key: RetryKey) -> Result<Option<StoredFirstTry>> {
        if !priority::is_lowered() {
            return self.ask(key).await;
        }
        let runtime = self.pool.runtime().clone();
        AbortOnDropHandle::new(runtime.spawn(self.ask(key))).await.unwrap_or_else(|_| Err(closed()))
    }

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

    fn asked(&self) -> MutexGuard<'_, Vec<(RetryKey, Reply)>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, asked: Vec<(RetryKey, Reply)>) {
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
        let (first_tries, asked) = (self.0.clone(), std::mem::take(&mut *self.0.asked()));
        self.0.pool.runtime().spawn(async move { first_tries.answer(asked).await });
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
