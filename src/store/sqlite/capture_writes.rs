//! The writes of captures.

use std::collections::BTreeSet;

use rusqlite::{Connection, params};

use super::encoded::nanos;
use crate::names::RouteId;
use crate::store::write_error::WriteError;
use crate::store::{CaptureBounds, CaptureRecord};

/// Stores captures and removes those beyond the bounds, within the transaction that the caller has begun.
pub(super) fn write(conn: &Connection, captures: &[CaptureRecord], bounds: CaptureBounds) -> Result<(), WriteError> {
    let text =
        "INSERT INTO captures (id, route, at, bytes, record) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (id) DO NOTHING";
    let mut insert = conn.prepare_cached(text)?;
    for CaptureRecord { id, route, at, body } in captures {
        let bytes = i64::try_from(body.len()).unwrap_or(i64::MAX);
        insert.execute(params![id.as_bytes().as_slice(), route.as_str(), nanos(*at), bytes, body])?;
    }
    conn.prepare_cached("DELETE FROM captures WHERE at < ?1")?.execute(params![nanos(bounds.since)])?;
    let number_max = i64::try_from(bounds.per_route).unwrap_or(i64::MAX);
    let bytes_max = i64::try_from(bounds.bytes_per_route).unwrap_or(i64::MAX);
    let routes: BTreeSet<&RouteId> = captures.iter().map(|capture| &capture.route).collect();
    for route in routes {
        let text = "DELETE FROM captures WHERE pos IN (SELECT pos FROM (SELECT pos, row_number() OVER newest AS place, \
                    sum(bytes) OVER newest AS total FROM captures WHERE route = ?1 \
                    WINDOW newest AS (ORDER BY pos DESC ROWS UNBOUNDED PRECEDING)) WHERE place > ?2 OR total > ?3)";
        conn.prepare_cached(text)?.execute(params![route.as_str(), number_max, bytes_max])?;
    }
    Ok(())
}
