//! Reads the rows that a batch may conflict with, and locks its runs and its bound retry keys until the transaction
//! ends.

use std::collections::HashMap;

use sqlx::Row;

use super::columns::{arm, run_id, utf8_text, uuid};
use super::session::Session;
use crate::flag::{PinKey, RetryKey};
use crate::names::{Fence, RouteId};
use crate::store::Claim;
use crate::store::bound_keys::is_bound;
use crate::store::encoded::EncodedAppend;
use crate::store::validate::{FirstTryHolder, StoredPin, StoredState};
use crate::store::write_error::WriteError;

const RUNS: &str = "SELECT run_id, seq, fence FROM runs WHERE run_id = ANY ($1) ORDER BY run_id FOR UPDATE";
const BATCHES: &str = "SELECT want.run_id, want.seq, a.batch FROM unnest($1, $2) AS want(run_id, seq) \
    CROSS JOIN LATERAL (SELECT batch, last FROM appends WHERE appends.run_id = want.run_id \
        AND appends.first <= want.seq ORDER BY appends.first DESC LIMIT 1) AS a WHERE a.last >= want.seq";
const CLAIMS: &str = concat!(
    "SELECT key, run_id, request FROM retry_keys WHERE key = ANY ($1) AND ",
    is_bound!("retry_keys", "(now_ns() - $2)"),
    " ORDER BY key FOR UPDATE"
);
const PINS: &str = "SELECT p.family, p.id, p.arm, p.run_id, p.adoption IS NOT NULL FROM unnest($1, $2) AS want(family, id) \
    JOIN pins p ON p.family = want.family AND sha256(p.id) = sha256(want.id)";

/// Reads the rows that these appends may conflict with, and locks their runs.
pub(super) async fn read_stored_state(
    session: &mut Session,
    appends: &[EncodedAppend],
    retry_window_ns: i64,
) -> Result<StoredState, WriteError> {
    let mut stored = StoredState::default();
    let mut runs: Vec<&[u8]> = appends.iter().map(|append| append.run_id.0.as_bytes().as_slice()).collect();
    runs.sort_unstable();
    runs.dedup();
    let mut heads = HashMap::new();
    for row in session.query(sqlx::query(RUNS).bind(&runs)).await? {
        let run = run_id(row.try_get(0)?)?;
        let fence = Fence(row.try_get::<i64, _>(2)?.cast_unsigned());
        heads.insert(run, (row.try_get::<i64, _>(1)?.cast_unsigned(), fence));
    }
    stored.heads = Some(heads);

    let runs: Vec<&[u8]> = appends.iter().map(|append| append.run_id.0.as_bytes().as_slice()).collect();
    let firsts: Vec<i64> = appends.iter().map(|append| append.first.cast_signed()).collect();
    for row in session.query(sqlx::query(BATCHES).bind(&runs).bind(&firsts)).await? {
        let run_and_seq = (run_id(row.try_get(0)?)?, row.try_get::<i64, _>(1)?.cast_unsigned());
        stored.batches.insert(run_and_seq, uuid(row.try_get(2)?)?);
    }

    let claims = appends.iter().filter_map(|append| append.claim.as_ref());
    let keys: Vec<RetryKey> = claims.flat_map(Claim::looked_up_keys).collect();
    if !keys.is_empty() {
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.0.as_slice()).collect();
        for row in session.query(sqlx::query(CLAIMS).bind(&keys).bind(retry_window_ns)).await? {
            let Ok(key) = row.try_get::<&[u8], _>(0)?.try_into() else { continue };
            let request = row.try_get::<Option<&[u8]>, _>(2)?.and_then(|request| request.try_into().ok());
            let holder = match row.try_get::<Option<&[u8]>, _>(1)? {
                None => FirstTryHolder::Legacy,
                Some(run) => FirstTryHolder::Run(run_id(run)?, request),
            };
            stored.claims.insert(RetryKey(key), holder);
        }
    }

    let pins: Vec<&PinKey> =
        appends.iter().flat_map(|append| append.original.pins.iter().map(|pin| &pin.key)).collect();
    if !pins.is_empty() {
        let families: Vec<&str> = pins.iter().map(|key| key.family.as_str()).collect();
        let ids: Vec<&[u8]> = pins.iter().map(|key| key.id.as_bytes()).collect();
        for row in session.query(sqlx::query(PINS).bind(&families).bind(&ids)).await? {
            let family = RouteId::new(row.try_get::<String, _>(0)?);
            let key = PinKey { family, id: utf8_text(row.try_get(1)?)?.into() };
            let run = row.try_get::<Option<&[u8]>, _>(3)?.map(run_id).transpose()?;
            let pin = StoredPin { arm: arm(row.try_get(2)?)?, run, is_adopted: row.try_get(4)? };
            stored.pins.insert(key, pin);
        }
    }
    Ok(stored)
}
