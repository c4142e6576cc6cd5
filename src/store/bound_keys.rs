//! Until when a retry key is bound to its first try, and whether its run gave it back, as conditions in SQL; and pages
//! of old keys.
//!
//! Always true: a key is bound for the retry window after its first try. A key that a run claimed is bound also while
//! the newest run of that run's job is open, and for the retry window after its end: until then the caller was told to
//! ask again with the same key. The run that claims a key is the first of its job, so the job has that run's id.
//!
//! However many old keys stay bound, a page examines a bounded number of them.

use jiff::Timestamp;

use crate::flag::RetryKey;

/// A position among the retry keys, which are in the order of their first tries, then of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RetryKeyPosition {
    /// The time of the first try.
    pub at: Timestamp,
    /// The key.
    pub key: RetryKey,
}

/// What was found, or done, on one page of old retry keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryKeyPage<T> {
    /// The result.
    pub result: T,
    /// The last position that was examined: the next page comes after it. `None` if no old key is left.
    pub next: Option<RetryKeyPosition>,
}

/// A key whose window after the first try is over, or soon will be.
pub(in crate::store) struct OldKey {
    pub(in crate::store) position: RetryKeyPosition,
    /// Whether the key's run keeps it bound.
    pub(in crate::store) is_bound: bool,
}

/// The keys of a page that are bound, or those that are not. `limit` is the most keys that the page may have.
pub(in crate::store) fn page_of(old: &[OldKey], limit: usize, is_bound: bool) -> RetryKeyPage<Vec<RetryKey>> {
    let result = old.iter().filter(|old| old.is_bound == is_bound).map(|old| old.position.key).collect();
    let next = old.last().filter(|_| old.len() >= limit).map(|old| old.position);
    RetryKeyPage { result, next }
}

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

/// Whether the run that claimed the row `$key` of `retry_keys` was abandoned: the engine gave the request back to
/// legacy.
macro_rules! is_given_back {
    ($key:literal) => {
        concat!("EXISTS (SELECT 1 FROM runs WHERE runs.run_id = ", $key, ".run_id AND runs.status = 'abandoned')")
    };
}

pub(in crate::store) use {has_run_since, is_bound, is_given_back};
