//! The statements that record who called which service.

use rusqlite::{Connection, params};

use super::encoded::nanos;
use crate::store::service_callers::SERVICE_CALLERS_MAX;
use crate::store::write_error::WriteError;
use crate::store::{ServiceCaller, WatchedTime};

/// Adds callers, and removes those beyond the bound.
pub(super) fn write(conn: &Connection, callers: &[ServiceCaller], watched: &WatchedTime) -> Result<(), WriteError> {
    let text = "INSERT INTO service_callers (service, source, client, path, first_call, last_call) \
                VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE \
                SET first_call = min(first_call, excluded.first_call), last_call = max(last_call, excluded.last_call)";
    for ServiceCaller { service, source, client, path, first, last } in callers {
        let values = params![service.as_str(), source, client, path, nanos(*first), nanos(*last)];
        conn.prepare_cached(text)?.execute(values)?;
    }
    for service in callers.iter().map(|caller| &caller.service).collect::<std::collections::BTreeSet<_>>() {
        let text = "DELETE FROM service_callers WHERE (service, source, client, path) IN \
                    (SELECT service, source, client, path FROM service_callers WHERE service = ?1 \
                     ORDER BY last_call DESC LIMIT -1 OFFSET ?2)";
        conn.prepare_cached(text)?.execute(params![service.as_str(), SERVICE_CALLERS_MAX as i64])?;
    }
    let WatchedTime { process, since, until, has_ended } = watched;
    let text = "INSERT INTO watched_times (process, since, until, ended) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE \
                SET until = max(until, excluded.until), ended = max(ended, excluded.ended)";
    let values = params![process.as_bytes().as_slice(), nanos(*since), nanos(*until), has_ended];
    conn.prepare_cached(text)?.execute(values)?;
    let text = "DELETE FROM watched_times WHERE process IN \
                (SELECT process FROM watched_times ORDER BY until DESC LIMIT -1 OFFSET ?1)";
    conn.prepare_cached(text)?.execute(params![SERVICE_CALLERS_MAX as i64])?;
    Ok(())
}
