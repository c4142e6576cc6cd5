//! Reads the rows that an append may conflict with.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::encoded::{EncodedAppend, arm};
use super::validate::{FirstTryHolder, StoredPin, StoredState};
use crate::names::{Fence, RunId};
use crate::store::Claim;
use crate::store::bound_keys::is_bound;
use crate::store::write_error::WriteError;

const HEAD: &str = "SELECT seq, fence FROM runs WHERE run_id = ?";
const BATCH: &str = "SELECT last, batch FROM appends WHERE run_id = ? AND first <= ? ORDER BY first DESC LIMIT 1";
const CLAIM: &str =
    concat!("SELECT run_id, request FROM retry_keys WHERE key = ?1 AND ", is_bound!("retry_keys", "?2"));
const PIN: &str = "SELECT arm, run_id, adoption IS NOT NULL FROM pins WHERE family = ? AND id = ?";

/// The run and the hash of its request; neither for a key that legacy took.
type ClaimRow = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Reads the rows that this append may conflict with. `since` is the time one retry window ago.
pub(super) fn read_stored_state(
    conn: &Connection,
    append: &EncodedAppend,
    since: i64,
) -> Result<StoredState, WriteError> {
    let mut stored = StoredState::default();
    let id = append.run_id.0.as_bytes().as_slice();
    let head = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?));
    let head = conn.prepare_cached(HEAD)?.query_row([id], head).optional()?;
    let mut heads = std::collections::HashMap::new();
    if let Some((seq, fence)) = head {
        heads.insert(append.run_id, (seq, Fence(fence.cast_unsigned())));
        // The seq is stored already: by this append itself, or by another one.
        if append.first <= seq {
            let batch = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?));
            let first = append.first.cast_signed();
            let found: Option<(u64, Vec<u8>)> =
                conn.prepare_cached(BATCH)?.query_row(params![id, first], batch).optional()?;
            if let Some((_, batch)) = found.filter(|(last, _)| append.first <= *last)
                && let Ok(batch) = Uuid::from_slice(&batch)
            {
                stored.batches.insert((append.run_id, append.first), batch);
            }
        }
    }
    stored.heads = Some(heads);
    for key in append.claim.iter().flat_map(Claim::looked_up_keys) {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let found: Option<ClaimRow> =
            conn.prepare_cached(CLAIM)?.query_row(params![key.0.as_slice(), since], row).optional()?;
        let holder = match found {
            None => continue,
            Some((None, _)) => FirstTryHolder::Legacy,
            Some((Some(run), request)) => {
                let Some(run) = run_id(run) else { continue };
                FirstTryHolder::Run(run, request.and_then(|request| request.try_into().ok()))
            }
        };
        stored.claims.insert(key, holder);
    }
    for pin in &append.original.pins {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let found: Option<(String, Option<Vec<u8>>, bool)> =
            conn.prepare_cached(PIN)?.query_row(params![pin.key.family.as_str(), &*pin.key.id], row).optional()?;
        if let Some((owner, run, is_adopted)) = found
            && let Some(arm) = arm(&owner)
        {
            stored.pins.insert(pin.key.clone(), StoredPin { arm, run: run.and_then(run_id), is_adopted });
        }
    }
    Ok(stored)
}

/// Parses the run id of a column.
pub(super) fn run_id(bytes: Vec<u8>) -> Option<RunId> {
    Uuid::from_slice(&bytes).ok().map(RunId)
}
