//! The migrations of the tables, in order.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// The migration that creates the table of appends. The events of an older file are moved after it.
pub(super) const CREATES_APPENDS: i64 = 7;
/// The last migration.
pub(in crate::store) const NEWEST_VERSION: i64 = 19;

/// The version of the tables after each migration, its name and its statements. What was released never changes.
const MIGRATIONS: [(i64, &str, &str); 19] = [
    (1, "first", include_str!("../schema/0001_first.sql")),
    (2, "run_keys", include_str!("../schema/0002_run_keys.sql")),
    (3, "work", include_str!("../schema/0003_work.sql")),
    (4, "carried", include_str!("../schema/0004_carried.sql")),
    (5, "lists", include_str!("../schema/0005_lists.sql")),
    (6, "births", include_str!("../schema/0006_births.sql")),
    (CREATES_APPENDS, "appends", include_str!("../schema/0007_appends.sql")),
    (8, "events moved", include_str!("../schema/0008_events_moved.sql")),
    (9, "run snapshots", include_str!("../schema/0009_run_snapshots.sql")),
    (10, "event version 3", include_str!("../schema/0010_event_version_3.sql")),
    (11, "request digests", include_str!("../schema/0011_request_digests.sql")),
    (12, "record", include_str!("../schema/0012_record.sql")),
    (13, "instances", include_str!("../schema/0013_instances.sql")),
    (14, "adoptions", include_str!("../schema/0014_adoptions.sql")),
    (15, "service callers", include_str!("../schema/0015_service_callers.sql")),
    (16, "captures", include_str!("../schema/0016_captures.sql")),
    (17, "sample runs", include_str!("../schema/0017_sample_runs.sql")),
    (18, "pin collisions", include_str!("../schema/0018_pin_collisions.sql")),
    (NEWEST_VERSION, "created instances", include_str!("../schema/0019_created_instances.sql")),
];

/// The migrations up to a version, in order.
pub(super) fn migrations(last: i64) -> Migrator {
    let migration = |(version, name, text): (i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    let up_to_last = MIGRATIONS.into_iter().filter(|(version, ..)| *version <= last);
    Migrator::with_migrations(up_to_last.map(migration).collect::<Vec<_>>())
}
