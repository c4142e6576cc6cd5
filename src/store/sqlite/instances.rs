//! What is known of instances beside their pins, and pin collisions. The statements of the writes are in
//! `instance_writes`.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::SqliteStore;
use super::other_writes::RecordWrite;
use super::read::{read_error, sql_limit, time};
use super::readers::Readers;
use crate::flag::{Arm, PinKey};
use crate::names::RouteId;
use crate::store::instances::UNKNOWN_ID;
use crate::store::{
    InstanceChange, InstanceCount, InstanceStore, LegacyInstance, PinCollision, PinCollisionStore, StoreError,
};

type Result<T> = std::result::Result<T, StoreError>;

impl InstanceStore for SqliteStore {
    fn change_instances(&self, changes: Vec<InstanceChange>) -> BoxFuture<'_, Result<()>> {
        self.write(RecordWrite::Instances(changes))
    }

    fn instance_counts(&self, families: Vec<RouteId>) -> BoxFuture<'_, Result<Vec<InstanceCount>>> {
        counts(&self.readers, families).boxed()
    }

    fn legacy_instance(&self, key: PinKey) -> BoxFuture<'_, Result<Option<LegacyInstance>>> {
        legacy_instance(&self.readers, key).boxed()
    }

    fn legacy_instances(
        &self,
        family: RouteId,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<LegacyInstance>>> {
        legacy_instances(&self.readers, family, after, limit).boxed()
    }
}

impl PinCollisionStore for SqliteStore {
    fn put_pin_collisions(&self, collisions: Vec<PinCollision>) -> BoxFuture<'_, Result<()>> {
        self.write(RecordWrite::PinCollisions(collisions))
    }

    fn pin_collisions(&self) -> BoxFuture<'_, Result<Vec<PinCollision>>> {
        pin_collisions(&self.readers).boxed()
    }
}

async fn pin_collisions(readers: &Readers) -> Result<Vec<PinCollision>> {
    let query = sqlx::query_as("SELECT family, since, accepted FROM pin_collisions ORDER BY family");
    let rows: Vec<(String, i64, Option<i64>)> = query.fetch_all(readers.pool()?).await.map_err(read_error)?;
    let collision = |(family, since, accepted): (String, i64, Option<i64>)| {
        let (since, accepted) = (time(since)?, accepted.map(time).transpose()?);
        Ok(PinCollision { family: RouteId::new(family), since, accepted })
    };
    rows.into_iter().map(collision).collect()
}

async fn counts(readers: &Readers, families: Vec<RouteId>) -> Result<Vec<InstanceCount>> {
    type Row = (i64, Option<i64>, i64, i64, Option<i64>);
    // Each part is answered from an index; `min(at)` reads that of the instances that have not ended.
    const ENGINE: &str = "SELECT count(DISTINCT run_id), min(at), 0, 0, (SELECT max(ended) FROM pins \
             WHERE family = ?1 AND arm = 'engine' AND ended IS NOT NULL) \
         FROM pins WHERE family = ?1 AND arm = 'engine' AND ended IS NULL \
             AND (adoption IS NULL OR adoption = 'adopted')";
    const LEGACY: &str = "SELECT count(*) FILTER (WHERE id <> ''), min(seen), \
             count(*) FILTER (WHERE incomplete), count(*) FILTER (WHERE id = ''), (SELECT max(ended) FROM \
             legacy_instances WHERE family = ?1 AND ended IS NOT NULL) \
         FROM legacy_instances WHERE family = ?1 AND ended IS NULL";
    let mut found = Vec::with_capacity(families.len() * 2);
    for family in families {
        for (arm, text) in [(Arm::Engine, ENGINE), (Arm::Legacy, LEGACY)] {
            let query = sqlx::query_as(text).bind(family.as_str());
            let (alive, oldest, incomplete, unknown, last_ended): Row =
                query.fetch_one(readers.pool()?).await.map_err(read_error)?;
            found.push(InstanceCount {
                family: family.clone(),
                arm,
                alive: alive.cast_unsigned(),
                twins_incomplete: incomplete.cast_unsigned(),
                has_unknown: unknown > 0,
                oldest: oldest.map(time).transpose()?,
                last_ended: last_ended.map(time).transpose()?,
            });
        }
    }
    Ok(found)
}

type LegacyRow = (String, i64, Option<i64>, bool, bool);

fn instance_of_row((id, seen, ended, is_twin_incomplete, is_created): LegacyRow) -> Result<LegacyInstance> {
    let ended = ended.map(time).transpose()?;
    Ok(LegacyInstance { id: id.into(), seen: time(seen)?, ended, is_twin_incomplete, is_created })
}

async fn legacy_instance(readers: &Readers, key: PinKey) -> Result<Option<LegacyInstance>> {
    let text = "SELECT id, seen, ended, incomplete, created FROM legacy_instances WHERE family = ? AND id = ?";
    let query = sqlx::query_as(text).bind(key.family.as_str()).bind(&*key.id);
    query.fetch_optional(readers.pool()?).await.map_err(read_error)?.map(instance_of_row).transpose()
}

async fn legacy_instances(
    readers: &Readers,
    family: RouteId,
    after: Option<Arc<str>>,
    limit: usize,
) -> Result<Vec<LegacyInstance>> {
    let text = "SELECT id, seen, ended, incomplete, created FROM legacy_instances \
                WHERE family = ? AND id > ? AND ended IS NULL ORDER BY id LIMIT ?";
    let after = after.as_deref().unwrap_or(UNKNOWN_ID);
    let query = sqlx::query_as(text).bind(family.as_str()).bind(after).bind(sql_limit(limit));
    query.fetch_all(readers.pool()?).await.map_err(read_error)?.into_iter().map(instance_of_row).collect()
}
