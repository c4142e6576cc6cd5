//! The writes of adoptions.

use rusqlite::{Connection, OptionalExtension, params};

use super::encoded::nanos;
use crate::store::write_error::WriteError;
use crate::store::{AdoptionOutcome, AdoptionState, NewAdoption, PinAdoption};

/// Claims an instance, within the transaction that the caller has begun.
pub(super) fn claim(conn: &Connection, new: &NewAdoption) -> Result<(), WriteError> {
    let NewAdoption { key, id, pins, twins, run, workflow, by, at, worker: _, settles_s: _ } = new;
    let run = run.0.as_bytes().as_slice();
    let mut owned = conn.prepare_cached(
        "SELECT 1 FROM pins WHERE family = ?1 AND id = ?2 AND arm = 'engine' AND (adoption IS NULL OR run_id <> ?3)",
    )?;
    for pin in pins.iter().chain(twins) {
        if owned.query_row(params![pin.family.as_str(), &*pin.id, run], |_| Ok(())).optional()?.is_some() {
            return Ok(());
        }
    }
    let text = "INSERT INTO adoptions AS held (family, id, spelled, run_id, workflow, state, reason, by, claimed, at) \
                VALUES (?1, ?2, ?3, ?4, ?5, 'moving', NULL, ?6, ?7, ?7) ON CONFLICT (family, id) DO UPDATE SET \
                spelled = excluded.spelled, run_id = excluded.run_id, workflow = excluded.workflow, state = 'moving', \
                reason = NULL, by = excluded.by, claimed = excluded.claimed, at = excluded.at \
                WHERE held.state = 'given_back' AND held.run_id <> excluded.run_id";
    let values = params![key.family.as_str(), &*key.id, &**id, run, workflow.as_str(), by, nanos(*at)];
    if conn.prepare_cached(text)?.execute(values)? == 0 {
        return Ok(());
    }
    let mut remove = conn.prepare_cached("DELETE FROM pins WHERE family = ?1 AND id = ?2 AND arm = 'legacy'")?;
    for pin in pins.iter().chain(twins) {
        remove.execute(params![pin.family.as_str(), &*pin.id])?;
    }
    let text = "INSERT INTO pins (family, id, arm, run_id, at, adoption) VALUES (?1, ?2, 'engine', ?3, ?4, ?5)";
    let mut add = conn.prepare_cached(text)?;
    for pin in pins {
        add.execute(params![pin.family.as_str(), &*pin.id, run, nanos(*at), PinAdoption::Moving.as_str()])?;
    }
    Ok(())
}

/// Ends an adoption, within the transaction that the caller has begun.
pub(super) fn record_outcome(conn: &Connection, outcome: &AdoptionOutcome) -> Result<(), WriteError> {
    let AdoptionOutcome { key, run, state, reason, by, at } = outcome;
    let run = run.0.as_bytes().as_slice();
    let text = "UPDATE adoptions SET state = ?4, reason = ?5, by = coalesce(?6, by), at = ?7 \
                WHERE family = ?1 AND id = ?2 AND run_id = ?3 AND state IN ('moving', 'unknown')";
    let values = params![key.family.as_str(), &*key.id, run, state.as_str(), reason, by, nanos(*at)];
    if conn.prepare_cached(text)?.execute(values)? == 0 {
        return Ok(());
    }
    if *state == AdoptionState::GivenBack {
        conn.prepare_cached("DELETE FROM pins WHERE run_id = ? AND adoption IS NOT NULL")?.execute([run])?;
        return Ok(());
    }
    let text = "UPDATE pins SET adoption = ?2 WHERE run_id = ?1 AND adoption IS NOT NULL";
    conn.prepare_cached(text)?.execute(params![run, state.as_str()])?;
    conn.prepare_cached("UPDATE runs SET pinned = 1 WHERE run_id = ?")?.execute([run])?;
    if *state == AdoptionState::Adopted {
        // Also where no request has shown it yet: one that waits to be recorded is no new instance then.
        let text = "INSERT INTO legacy_instances (family, id, seen, ended, incomplete) VALUES (?1, ?2, ?3, ?3, 0) \
                    ON CONFLICT (family, id) DO UPDATE SET ended = excluded.ended WHERE ended IS NULL";
        conn.prepare_cached(text)?.execute(params![key.family.as_str(), &*key.id, nanos(*at)])?;
    }
    Ok(())
}
