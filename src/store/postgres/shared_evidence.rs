//! Evidence that several processes add to.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::PostgresStore;
use super::columns::{Result, column, json};
use super::pool::Pool;
use crate::names::RouteId;
use crate::store::record_log::checked_record;
use crate::store::{EvidenceRecord, EvidenceReplacement, EvidenceVersion, SharedEvidence};

/// A row's version is a hash of its record, so that rows that an earlier version of this program wrote have one too.
const CHANGED: &str = "SELECT own.route, own.record, sha256(own.record) FROM evidence AS own \
     LEFT JOIN unnest($1, $2) AS known(route, version) ON known.route = own.route \
     WHERE known.version IS NULL OR sha256(own.record) <> known.version ORDER BY own.route";

/// Locks the rows in the order of their routes, so that two processes cannot deadlock. A row that another process
/// replaces meanwhile is compared again once that is done.
const REPLACE: &str = "WITH new AS MATERIALIZED (SELECT * FROM unnest($1, $2, $3) AS n(route, version, record)), \
          locked AS MATERIALIZED (SELECT route FROM evidence WHERE route IN (SELECT route FROM new) \
                                  ORDER BY route FOR UPDATE), \
          updated AS (UPDATE evidence AS own SET record = new.record FROM new \
                      WHERE own.route = new.route AND own.route IN (SELECT route FROM locked) \
                            AND sha256(own.record) = new.version RETURNING own.route, sha256(own.record) AS version), \
          inserted AS (INSERT INTO evidence (route, record) \
                       SELECT route, record FROM new WHERE version IS NULL ORDER BY route ON CONFLICT DO NOTHING \
                       RETURNING route, sha256(record) AS version) \
     SELECT route, version FROM updated UNION ALL SELECT route, version FROM inserted";

async fn changed(
    pool: &Pool,
    known: Vec<(RouteId, EvidenceVersion)>,
) -> Result<Vec<(EvidenceRecord, EvidenceVersion)>> {
    let routes: Vec<&str> = known.iter().map(|(route, _)| route.as_str()).collect();
    let versions: Vec<&[u8]> = known.iter().map(|(_, version)| version.0.as_slice()).collect();
    let found = pool.query(|| sqlx::query(CHANGED).bind(&routes).bind(&versions)).await?;
    let row = |row| {
        let record = checked_record("evidence", column(row, 0)?, column(row, 1)?, |of: &EvidenceRecord| &of.route)?;
        Ok((record, EvidenceVersion(column(row, 2)?)))
    };
    found.iter().map(row).collect()
}

async fn replace(pool: &Pool, rows: Vec<EvidenceReplacement>) -> Result<Vec<(RouteId, EvidenceVersion)>> {
    let routes: Vec<&str> = rows.iter().map(|row| row.record.route.as_str()).collect();
    let versions: Vec<Option<&[u8]>> =
        rows.iter().map(|row| row.instead_of.as_ref().map(|version| version.0.as_slice())).collect();
    let records = rows.iter().map(|row| json(&row.record)).collect::<Result<Vec<_>>>()?;
    let found = pool.query(|| sqlx::query(REPLACE).bind(&routes).bind(&versions).bind(&records)).await?;
    let stored = |row| {
        let route: &str = column(row, 0)?;
        Ok((RouteId::from(route), EvidenceVersion(column(row, 1)?)))
    };
    found.iter().map(stored).collect()
}

impl SharedEvidence for PostgresStore {
    fn changed_evidence(
        &self,
        known: Vec<(RouteId, EvidenceVersion)>,
    ) -> BoxFuture<'_, Result<Vec<(EvidenceRecord, EvidenceVersion)>>> {
        changed(&self.pool, known).boxed()
    }

    fn replace_evidence(
        &self,
        rows: Vec<EvidenceReplacement>,
    ) -> BoxFuture<'_, Result<Vec<(RouteId, EvidenceVersion)>>> {
        replace(&self.pool, rows).boxed()
    }
}
