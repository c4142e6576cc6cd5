//! The writes of what is known of instances beside their pins, and of pin collisions.

use rusqlite::{Connection, params};

use super::encoded::nanos;
use super::read::sql_limit;
use crate::flag::PinKey;
use crate::store::instances::UNKNOWN_ID;
use crate::store::write_error::WriteError;
use crate::store::{InstanceChange, PinCollision};

/// Writes changes, within the transaction that the caller has begun.
pub(super) fn write(conn: &Connection, changes: &[InstanceChange]) -> Result<(), WriteError> {
    let see = "INSERT INTO legacy_instances (family, id, seen, ended, incomplete) VALUES (?1, ?2, ?3, ?4, ?5)";
    for change in changes {
        match change {
            InstanceChange::LegacySeen(PinKey { family, id }, at) => {
                let values = params![family.as_str(), &**id, nanos(*at), None::<i64>, false];
                conn.prepare_cached(&format!("{see} ON CONFLICT DO NOTHING"))?.execute(values)?;
            }
            InstanceChange::LegacyListed(PinKey { family, id }, at)
            | InstanceChange::LegacyCreated(PinKey { family, id }, at) => {
                // A WHERE keeps the parser from taking ON for a part of a join.
                let text = "INSERT INTO legacy_instances (family, id, seen, ended, incomplete) SELECT ?1, ?2, ?3, ?4, ?5 \
                            WHERE NOT EXISTS (SELECT 1 FROM adoptions WHERE family = ?1 AND id = ?2 AND state = 'adopted') \
                            ON CONFLICT (family, id) DO UPDATE SET seen = excluded.seen, ended = NULL \
                            WHERE ended IS NOT NULL";
                let values = params![family.as_str(), &**id, nanos(*at), None::<i64>, false];
                conn.prepare_cached(text)?.execute(values)?;
                if matches!(change, InstanceChange::LegacyCreated(..)) {
                    let text = "UPDATE legacy_instances SET created = 1 WHERE family = ?1 AND id = ?2";
                    conn.prepare_cached(text)?.execute(params![family.as_str(), &**id])?;
                }
            }
            InstanceChange::LegacyEnded(PinKey { family, id }, at) => {
                let text =
                    format!("{see} ON CONFLICT (family, id) DO UPDATE SET ended = excluded.ended WHERE ended IS NULL");
                let values = params![family.as_str(), &**id, nanos(*at), nanos(*at), false];
                conn.prepare_cached(&text)?.execute(values)?;
            }
            InstanceChange::TwinIncomplete(PinKey { family, id }, at) => {
                let text = format!("{see} ON CONFLICT (family, id) DO UPDATE SET incomplete = 1");
                let values = params![family.as_str(), &**id, nanos(*at), None::<i64>, true];
                conn.prepare_cached(&text)?.execute(values)?;
            }
            InstanceChange::LegacyUnknown(family, at) => {
                let text = format!(
                    "{see} ON CONFLICT (family, id) DO UPDATE SET seen = max(seen, excluded.seen), ended = NULL"
                );
                let values = params![family.as_str(), UNKNOWN_ID, nanos(*at), None::<i64>, false];
                conn.prepare_cached(&text)?.execute(values)?;
            }
            InstanceChange::LegacyKnown(family, at) => {
                let text = "UPDATE legacy_instances SET ended = ?3 WHERE family = ?1 AND id = ?2 AND ended IS NULL";
                conn.prepare_cached(text)?.execute(params![family.as_str(), UNKNOWN_ID, nanos(*at)])?;
            }
            InstanceChange::EngineEnded { family, run, at } => {
                let text =
                    "UPDATE pins SET ended = ?3 WHERE family = ?1 AND run_id = ?2 AND arm = 'engine' AND ended IS NULL";
                let mut end = conn.prepare_cached(text)?;
                for family in family {
                    end.execute(params![family.as_str(), run.0.as_bytes().as_slice(), nanos(*at)])?;
                }
            }
            InstanceChange::Aged { family, before, at } => {
                let values = params![family.as_str(), nanos(*before), nanos(*at)];
                let text = "UPDATE legacy_instances SET ended = ?3 WHERE family = ?1 AND ended IS NULL AND seen < ?2";
                conn.prepare_cached(text)?.execute(values)?;
                let text =
                    "UPDATE pins SET ended = ?3 WHERE family = ?1 AND arm = 'engine' AND ended IS NULL AND at < ?2";
                conn.prepare_cached(text)?.execute(values)?;
            }
            InstanceChange::ForgetEnded { family, keep } => {
                let text = "DELETE FROM legacy_instances WHERE family = ?1 AND ended IS NOT NULL AND ended < \
                            (SELECT ended FROM legacy_instances WHERE family = ?1 AND ended IS NOT NULL \
                                ORDER BY ended DESC LIMIT 1 OFFSET ?2)";
                conn.prepare_cached(text)?.execute(params![family.as_str(), sql_limit(keep.saturating_sub(1))])?;
            }
        }
    }
    Ok(())
}

/// Merges collisions with the stored ones ([`PinCollision::merge`]), within the transaction that the caller has begun.
pub(super) fn put_collisions(conn: &Connection, collisions: &[PinCollision]) -> Result<(), WriteError> {
    // `max` of a NULL is NULL.
    let text = "INSERT INTO pin_collisions AS known (family, since, accepted) VALUES (?1, ?2, ?3) \
                ON CONFLICT DO UPDATE SET \
                    since = CASE WHEN excluded.since > known.accepted THEN excluded.since \
                        ELSE min(known.since, excluded.since) END, \
                    accepted = CASE WHEN excluded.since > known.accepted THEN excluded.accepted \
                        ELSE coalesce(max(known.accepted, excluded.accepted), known.accepted, excluded.accepted) END \
                WHERE excluded.accepted IS NULL OR known.since <= excluded.accepted";
    for PinCollision { family, since, accepted } in collisions {
        conn.prepare_cached(text)?.execute(params![family.as_str(), nanos(*since), accepted.map(nanos)])?;
    }
    Ok(())
}
