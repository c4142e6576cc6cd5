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

/// The reads of retry keys of one store.
pub(super) struct FirstTries {
    pool: Arc<Pool>,
    retry_window_ns: i64,
    asked: Mutex<Asked>,
    /// Those of threads of lower priority.
    asked_by_lowered: Mutex<Asked>,
}

/// Sends the statement when it is dropped, also with a caller that stops waiting.
struct SendOnDrop(Arc<FirstTries>, IsLowered);

/// Whether a thread of lower priority has asked.
type IsLowered = bool;

impl FirstTries {
    pub(super) fn new(pool: Arc<Pool>, retry_window_ns: i64) -> Arc<Self> {
        Arc::new(Self { pool, retry_window_ns, asked: Mutex::default(), asked_by_lowered: Mutex::default() })
    }

    pub(super) async fn read(self: Arc<Self>, key: RetryKey) -> Result<Option<StoredFirstTry>> {
        if !priority::is_lowered() {
            return self.ask(key, false).await;
        }
        let runtime = self.pool.runtime().clone();
        AbortOnDropHandle::new(runtime.spawn(self.ask(key, true))).await.unwrap_or_else(|_| Err(closed()))
    }

    async fn ask(self: Arc<Self>, key: RetryKey, is_lowered: IsLowered) -> Result<Option<StoredFirstTry>> {
        let (reply, replied) = oneshot::channel();
        let is_first = {
            let mut asked = self.asked(is_lowered);
            asked.push((key, reply));
            asked.len() == 1
        };
        if is_first {
            let _send = SendOnDrop(self, is_lowered);
            // A request asks for several keys at once, each in a future of its own.
            tokio::task::yield_now().await;
        }
        replied.await.unwrap_or_else(|_| Err(closed()))
    }

    fn asked(&self, is_lowered: IsLowered) -> MutexGuard<'_, Asked> {
        let asked = if is_lowered { &self.asked_by_lowered } else { &self.asked };
        asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_asked(&self, is_lowered: IsLowered) -> Asked {
        std::mem::take(&mut *self.asked(is_lowered))
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
        let Self(first_tries, is_lowered) = self;
        let (first_tries, runtime) = (first_tries.clone(), self.0.pool.runtime());
        if *is_lowered {
            let unsent = Unsent(Some(first_tries));
            runtime.spawn(unsent.send());
        } else {
            let asked = first_tries.take_asked(false);
            runtime.spawn(async move { first_tries.answer(asked).await });
        }
    }
}

/// What threads of lower priority asked for, until one of their connections is free. Those that ask meanwhile are
/// answered by the same statement. If the runtime ends before, all of them get an error.
struct Unsent(Option<Arc<FirstTries>>);

impl Unsent {
    async fn send(mut self) {
        let Some(pool) = self.0.as_ref().map(|first_tries| first_tries.pool.clone()) else { return };
        // Once the pool is closed there is no permit, and the statement fails.
        let _permit = pool.low_priority_permit().await;
        if let Some(first_tries) = self.0.take() {
            let asked = first_tries.take_asked(true);
            first_tries.answer(asked).await;
        }
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some(first_tries) = &self.0 {
            drop(first_tries.take_asked(true));
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
