//! Until when a retry key is bound to its first try, as conditions in SQL.
//!
//! Always true: a key is bound for the retry window after its first try. A key that a run claimed is bound also while
//! the newest run of that run's job is open, and for the retry window after its end: until then the caller was told to
//! ask again with the same key. The run that claims a key is the first of its job, so the job has that run's id.

/// Whether a run of the job of `$key.run_id` is open, or ended after `$since`.
macro_rules! has_run_since {
    ($key:literal, $since:literal) => {
        concat!(
            "(EXISTS (SELECT 1 FROM runs WHERE runs.run_id = ",
            $key,
            ".run_id AND (NOT runs.ended OR runs.updated > ",
            $since,
            ")) OR EXISTS (SELECT 1 FROM runs WHERE runs.job = ",
            $key,
            ".run_id AND (NOT runs.ended OR runs.updated > ",
            $since,
            ")))"
        )
    };
}

/// Whether the row `$key` of `retry_keys` is bound. `$since` is the time one retry window ago.
macro_rules! is_bound {
    ($key:literal, $since:literal) => {
        concat!("(", $key, ".at > ", $since, " OR ", $crate::store::bound_keys::has_run_since!($key, $since), ")")
    };
}

pub(in crate::store) use {has_run_since, is_bound};
