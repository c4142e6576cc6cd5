//! What is known of instances beside their pins, and pin collisions: the writes and the reads.
//!
//! Always true: each statement is idempotent and locks its rows in the order of their keys, so that two processes
//! cannot deadlock.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::columns::{Result, column, sql_limit, time, utf8_text};
use super::pool::Pool;
use crate::flag::{Arm, PinKey};
use crate::names::RouteId;
use crate::store::encoded::nanos;
use crate::store::instances::UNKNOWN_ID;
use crate::store::{
    InstanceChange, InstanceCount, InstanceStore, LegacyInstance, PinCollision, PinCollisionStore, StoreError,
};

impl InstanceStore for PostgresStore {
    fn change_instances(&self, changes: Vec<InstanceChange>) -> BoxFuture<'_, Result<()>> {
        write(&self.pool, changes).boxed()
    }

    fn instance_counts(&self, families: Vec<RouteId>) -> BoxFuture<'_, Result<Vec<InstanceCount>>> {
        counts(&self.pool, families).boxed()
    }

    fn legacy_instance(&self, key: PinKey) -> BoxFuture<'_, Result<Option<LegacyInstance>>> {
        legacy_instance(&self.pool, key).boxed()
    }

    fn legacy_instances(
        &self,
        family: RouteId,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<LegacyInstance>>> {
        legacy_instances(&self.pool, family, after, limit).boxed()
    }
}

impl PinCollisionStore for PostgresStore {
    fn put_pin_collisions(&self, collisions: Vec<PinCollision>) -> BoxFuture<'_, Result<()>> {
        put_collisions(&self.pool, collisions).boxed()
    }

    fn pin_collisions(&self) -> BoxFuture<'_, Result<Vec<PinCollision>>> {
        pin_collisions(&self.pool).boxed()
    }
}

/// See [`PinCollision::merge`].
async fn put_collisions(pool: &Pool, collisions: Vec<PinCollision>) -> Result<()> {
    const PUT: &str = "INSERT INTO pin_collisions AS known (family, since, accepted) \
             SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS new (family, since, accepted) ORDER BY 1 \
         ON CONFLICT (family) DO UPDATE SET \
             since = CASE WHEN excluded.since > known.accepted THEN excluded.since \
                 ELSE least(known.since, excluded.since) END, \
             accepted = CASE WHEN excluded.since > known.accepted THEN excluded.accepted \
                 ELSE greatest(known.accepted, excluded.accepted) END \
         WHERE excluded.accepted IS NULL OR known.since <= excluded.accepted";
    let families: Vec<&str> = collisions.iter().map(|collision| collision.family.as_str()).collect();
    let since: Vec<i64> = collisions.iter().map(|collision| nanos(collision.since)).collect();
    let accepted: Vec<Option<i64>> = collisions.iter().map(|collision| collision.accepted.map(nanos)).collect();
    pool.query(|| sqlx::query(PUT).bind(&families).bind(&since).bind(&accepted)).await.map(drop)
}

async fn pin_collisions(pool: &Pool) -> Result<Vec<PinCollision>> {
    let text = "SELECT family, since, accepted FROM pin_collisions ORDER BY family COLLATE \"C\"";
    let collision = |row: &PgRow| {
        Ok(PinCollision {
            family: RouteId::new(column::<&str>(row, 0)?),
            since: time(column(row, 1)?)?,
            accepted: column::<Option<i64>>(row, 2)?.map(time).transpose()?,
        })
    };
    pool.query(|| sqlx::query(text)).await?.iter().map(collision).collect()
}

/// The rows of legacy's instances that changes add or edit. Several changes of one instance are merged into one row.
#[derive(Default)]
struct LegacyRows(BTreeMap<PinKey, LegacyRow>);

#[derive(Clone, Copy)]
struct LegacyRow {
    seen: Timestamp,
    ended: Option<Timestamp>,
    is_incomplete: bool,
}

impl LegacyRows {
    fn of(&mut self, key: PinKey, seen: Timestamp) -> &mut LegacyRow {
        self.0.entry(key).or_insert(LegacyRow { seen, ended: None, is_incomplete: false })
    }
}

/// The beginning of the statement that adds the rows that pass the filter; what follows edits those that exist.
macro_rules! put_rows {
    ($filter:literal) => {
        concat!(
            "INSERT INTO legacy_instances AS known (family, id, seen, ended, incomplete) \
             SELECT * FROM unnest($1, $2, $3, $4, $5) AS new (family, id, seen, ended, incomplete) ",
            $filter,
            " ORDER BY family, sha256(id) ON CONFLICT (family, sha256(id)) DO UPDATE SET "
        )
    };
}

async fn write(pool: &Pool, changes: Vec<InstanceChange>) -> Result<()> {
    let (mut rows, mut listed) = (LegacyRows::default(), LegacyRows::default());
    let (mut created, mut others) = (Vec::new(), Vec::new());
    for change in changes {
        // The rows of listed instances are written last, and clear the end. So that an end that comes after the listing
        // stays, what precedes it is written first.
        if let InstanceChange::LegacyEnded(key, _) = &change
            && listed.0.contains_key(key)
        {
            put_in_order(pool, std::mem::take(&mut rows), std::mem::take(&mut listed)).await?;
        }
        match change {
            InstanceChange::LegacySeen(key, at) => drop(rows.of(key, at)),
            InstanceChange::LegacyEnded(key, at) => drop(rows.of(key, at).ended.get_or_insert(at)),
            InstanceChange::TwinIncomplete(key, at) => rows.of(key, at).is_incomplete = true,
            InstanceChange::LegacyListed(key, at) => drop(listed.of(key, at)),
            InstanceChange::LegacyCreated(key, at) => {
                listed.of(key.clone(), at);
                created.push(key);
            }
            other @ (InstanceChange::LegacyUnknown(..)
            | InstanceChange::LegacyKnown(..)
            | InstanceChange::EngineEnded { .. }
            | InstanceChange::Aged { .. }
            | InstanceChange::ForgetEnded { .. }) => others.push(other),
        }
    }
    put_in_order(pool, rows, listed).await?;
    mark_created(pool, &created).await?;
    for change in others {
        write_other(pool, change).await?;
    }
    Ok(())
}

/// Writes rows, then those of instances that legacy lists.
async fn put_in_order(pool: &Pool, rows: LegacyRows, listed: LegacyRows) -> Result<()> {
    const KEEP_ENDED: &str = concat!(
        put_rows!(""),
        "ended = coalesce(known.ended, excluded.ended), incomplete = known.incomplete OR excluded.incomplete \
         WHERE (known.ended IS NULL AND excluded.ended IS NOT NULL) OR (excluded.incomplete AND NOT known.incomplete)"
    );
    const REOPEN: &str = concat!(
        put_rows!(
            "WHERE NOT EXISTS (SELECT FROM adoptions a WHERE a.family = new.family AND sha256(a.id) = sha256(new.id) \
                 AND a.state = 'adopted')"
        ),
        "seen = excluded.seen, ended = NULL WHERE known.ended IS NOT NULL"
    );
    put_legacy(pool, &rows, KEEP_ENDED).await?;
    put_legacy(pool, &listed, REOPEN).await
}

async fn put_legacy(pool: &Pool, LegacyRows(rows): &LegacyRows, text: &'static str) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let families: Vec<&str> = rows.keys().map(|key| key.family.as_str()).collect();
    let ids: Vec<&[u8]> = rows.keys().map(|key| key.id.as_bytes()).collect();
    let seen: Vec<i64> = rows.values().map(|row| nanos(row.seen)).collect();
    let ended: Vec<Option<i64>> = rows.values().map(|row| row.ended.map(nanos)).collect();
    let incomplete: Vec<bool> = rows.values().map(|row| row.is_incomplete).collect();
    let make = || sqlx::query(text).bind(&families).bind(&ids).bind(&seen).bind(&ended).bind(&incomplete);
    pool.query(make).await.map(drop)
}

async fn mark_created(pool: &Pool, keys: &[PinKey]) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let text = "UPDATE legacy_instances SET created = true FROM unnest($1::text[], $2::bytea[]) AS new (family, id) \
                WHERE legacy_instances.family = new.family AND sha256(legacy_instances.id) = sha256(new.id) \
                    AND NOT created";
    let families: Vec<&str> = keys.iter().map(|key| key.family.as_str()).collect();
    let ids: Vec<&[u8]> = keys.iter().map(|key| key.id.as_bytes()).collect();
    pool.query(|| sqlx::query(text).bind(&families).bind(&ids)).await.map(drop)
}

async fn write_other(pool: &Pool, change: InstanceChange) -> Result<()> {
    match change {
        InstanceChange::LegacyUnknown(family, at) => {
            let text = "INSERT INTO legacy_instances AS known (family, id, seen, ended, incomplete) \
                        VALUES ($1, $2, $3, NULL, false) ON CONFLICT (family, sha256(id)) \
                        DO UPDATE SET seen = greatest(known.seen, excluded.seen), ended = NULL";
            let id = UNKNOWN_ID.as_bytes();
            pool.query(|| sqlx::query(text).bind(family.as_str()).bind(id).bind(nanos(at))).await?;
        }
        InstanceChange::LegacyKnown(family, at) => {
            let text = "UPDATE legacy_instances SET ended = $3 \
                        WHERE family = $1 AND sha256(id) = sha256($2) AND ended IS NULL";
            let id = UNKNOWN_ID.as_bytes();
            pool.query(|| sqlx::query(text).bind(family.as_str()).bind(id).bind(nanos(at))).await?;
        }
        InstanceChange::EngineEnded { family, run, at } => {
            let families: Vec<&str> = family.iter().map(RouteId::as_str).collect();
            let text = "UPDATE pins SET ended = $3 \
                        WHERE family = ANY($1) AND run_id = $2 AND arm = 'engine' AND ended IS NULL";
            let run = run.0.as_bytes().as_slice();
            pool.query(|| sqlx::query(text).bind(&families).bind(run).bind(nanos(at))).await?;
        }
        InstanceChange::Aged { family, before, at } => {
            let tables = [
                "UPDATE legacy_instances SET ended = $3 WHERE family = $1 AND ended IS NULL AND seen < $2",
                "UPDATE pins SET ended = $3 WHERE family = $1 AND arm = 'engine' AND ended IS NULL AND at < $2",
            ];
            for text in tables {
                let make = || sqlx::query(text).bind(family.as_str()).bind(nanos(before)).bind(nanos(at));
                pool.query(make).await?;
            }
        }
        InstanceChange::ForgetEnded { family, keep } => {
            let text = "DELETE FROM legacy_instances WHERE family = $1 AND ended IS NOT NULL AND ended < \
                        (SELECT ended FROM legacy_instances WHERE family = $1 AND ended IS NOT NULL \
                            ORDER BY ended DESC LIMIT 1 OFFSET $2)";
            let offset = sql_limit(keep.saturating_sub(1));
            pool.query(|| sqlx::query(text).bind(family.as_str()).bind(offset)).await?;
        }
        InstanceChange::LegacySeen(..)
        | InstanceChange::LegacyListed(..)
        | InstanceChange::LegacyCreated(..)
        | InstanceChange::LegacyEnded(..)
        | InstanceChange::TwinIncomplete(..) => {}
    }
    Ok(())
}

async fn counts(pool: &Pool, families: Vec<RouteId>) -> Result<Vec<InstanceCount>> {
    const ENGINE: &str = "SELECT count(DISTINCT run_id), min(at), 0::bigint, 0::bigint, (SELECT max(ended) FROM pins \
             WHERE family = $1 AND arm = 'engine' AND ended IS NOT NULL) \
         FROM pins WHERE family = $1 AND arm = 'engine' AND ended IS NULL \
             AND (adoption IS NULL OR adoption = 'adopted')";
    const LEGACY: &str = "SELECT count(*) FILTER (WHERE octet_length(id) > 0), min(seen), \
             count(*) FILTER (WHERE incomplete), count(*) FILTER (WHERE octet_length(id) = 0), (SELECT max(ended) \
             FROM legacy_instances WHERE family = $1 AND ended IS NOT NULL) \
         FROM legacy_instances WHERE family = $1 AND ended IS NULL";
    let mut found = Vec::with_capacity(families.len() * 2);
    for family in families {
        for (arm, text) in [(Arm::Engine, ENGINE), (Arm::Legacy, LEGACY)] {
            let rows = pool.query(|| sqlx::query(text).bind(family.as_str())).await?;
            let row = rows.first().ok_or_else(|| StoreError("the store counted no instances".into()))?;
            found.push(InstanceCount {
                family: family.clone(),
                arm,
                alive: column::<i64>(row, 0)?.cast_unsigned(),
                oldest: column::<Option<i64>>(row, 1)?.map(time).transpose()?,
                twins_incomplete: column::<i64>(row, 2)?.cast_unsigned(),
                has_unknown: column::<i64>(row, 3)? > 0,
                last_ended: column::<Option<i64>>(row, 4)?.map(time).transpose()?,
            });
        }
    }
    Ok(found)
}

fn decoded(row: &PgRow) -> Result<LegacyInstance> {
    Ok(LegacyInstance {
        id: utf8_text(column(row, 0)?)?.into(),
        seen: time(column(row, 1)?)?,
        ended: column::<Option<i64>>(row, 2)?.map(time).transpose()?,
        is_twin_incomplete: column(row, 3)?,
        is_created: column(row, 4)?,
    })
}

async fn legacy_instance(pool: &Pool, key: PinKey) -> Result<Option<LegacyInstance>> {
    let text = "SELECT id, seen, ended, incomplete, created FROM legacy_instances \
                WHERE family = $1 AND sha256(id) = sha256($2)";
    let (family, id) = (key.family.as_str(), key.id.as_bytes());
    pool.query(|| sqlx::query(text).bind(family).bind(id)).await?.first().map(decoded).transpose()
}

/// In the order of the hashes of their ids, which the index has.
async fn legacy_instances(
    pool: &Pool,
    family: RouteId,
    after: Option<Arc<str>>,
    limit: usize,
) -> Result<Vec<LegacyInstance>> {
    let text = "SELECT id, seen, ended, incomplete, created FROM legacy_instances \
                WHERE family = $1 AND ($2::bytea IS NULL OR sha256(id) > sha256($2)) AND octet_length(id) > 0 \
                    AND ended IS NULL ORDER BY sha256(id) LIMIT $3";
    let after = after.as_deref().map(str::as_bytes);
    let make = || sqlx::query(text).bind(family.as_str()).bind(after).bind(sql_limit(limit));
    pool.query(make).await?.iter().map(decoded).collect()
}
