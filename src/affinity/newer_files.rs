//! Finds a retry that was taken before its first try, where a reload between the two gave them different retry keys.
//!
//! The keys of a request follow from the flag files that are in force when it begins. So a request that begins before a
//! reload and its retry after the reload may have different keys (where `retry_key` or `caller` changed). Whichever of
//! the two is taken second must find the other:
//!
//! - the retry is second: it has keys by the earlier files too, and finds the first try in `tries` or in the store;
//! - the first try is second, because its body arrived slowly: when the retry was taken, the keys that it has by
//!   earlier files were marked in this module, and the first try finds the mark under its own key.
//!
//! Example: version 4 of the files scopes keys by the header `authorization`, version 5 by `x-tenant`.
//!
//! 1. `POST /orders` with `Idempotency-Key: k1` begins under version 4. Its key is K4. Nobody has taken it: the body is
//!    still arriving.
//! 2. Version 5 comes into force, and the client repeats the request. The retry's key is K5, and K4 by the earlier
//!    files. The engine takes it. Now `tries` has K5 for the engine, and [`NewerFilesMarks`] has a mark under K4: files
//!    version 5, the engine, the digest of the request.
//! 3. The body of the first request is complete, and legacy is to take it. `tries` has nothing under K4; the mark is of
//!    a newer version than 4 and has the same digest. The first request is refused ([`FoundMark::Engine`]).
//!
//! Always true: looking up, taking and marking happen under one lock, so that the second of the two finds the first. A
//! mark counts only for requests of older files: under the same or newer files a retry has the key that the marked
//! request took.
//!
//! Marks are in memory only, because requests in flight end with their process. Other processes on the same store do
//! not see them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::Counter;

use crate::exchange::{EarlierKeys, KnownBody};
use crate::flag::RetryKey;
use crate::limits::Limits;

/// The marks that requests left under the keys that they have by earlier files.
pub(super) struct NewerFilesMarks(Mutex<TakenMarks>);

/// The marks of [`NewerFilesMarks`], while their lock is held.
pub(super) struct TakenMarks {
    by_key: HashMap<RetryKey, Vec<NewerFilesMark>>,
    count: usize,
    /// The most marks that are kept. When there would be more, all are dropped, and requests of older files that are
    /// still in flight are refused.
    marks_max: usize,
    dropped_total: Counter,
    /// Marks of requests under files up to this version were dropped.
    dropped_through: u64,
}

struct NewerFilesMark {
    files_version: u64,
    by: MarkedBy,
}

/// Who took a request.
#[derive(Clone, Copy)]
enum MarkedBy {
    Legacy,
    /// A request with this digest.
    Engine([u8; 32]),
}

/// What the marks of newer files say about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundMark {
    /// No mark of newer files is under this key (`tries` or the store may still have it).
    None,
    /// Legacy took a request.
    Legacy,
    /// The engine took the same request.
    Engine,
    /// The engine took a request; only the body tells whether it is the same one.
    NeedsBody,
    /// It is not known, because marks were dropped.
    Unknown,
}

impl NewerFilesMarks {
    pub(super) fn new(limits: &Limits) -> Self {
        Self(Mutex::new(TakenMarks::new(limits.retry_key_marks_max)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, TakenMarks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TakenMarks {
    fn new(marks_max: u64) -> Self {
        let dropped_total = metrics::counter!("pointsman_retry_key_marks_forgotten_total");
        dropped_total.increment(0);
        let marks_max = usize::try_from(marks_max).unwrap_or(usize::MAX).max(1);
        Self { by_key: HashMap::new(), count: 0, marks_max, dropped_total, dropped_through: 0 }
    }

    /// Whether a request with this key was taken under files that are newer than this version.
    pub(super) fn find(&self, key: &RetryKey, files_version: u64, body: KnownBody) -> FoundMark {
        if files_version < self.dropped_through {
            return FoundMark::Unknown;
        }
        let newer = || self.by_key.get(key).into_iter().flatten().filter(|mark| mark.files_version > files_version);
        let engine_has = newer().any(|mark| match (mark.by, body) {
            (MarkedBy::Engine(marked), KnownBody::Digest(digest)) => marked == digest,
            (MarkedBy::Engine(_), KnownBody::Unread) => true,
            // The engine cannot have taken a request that is too large for it.
            (MarkedBy::Engine(_), KnownBody::TooLarge) | (MarkedBy::Legacy, _) => false,
        });
        match body {
            KnownBody::Unread if engine_has => FoundMark::NeedsBody,
            _ if engine_has => FoundMark::Engine,
            _ if newer().any(|mark| matches!(mark.by, MarkedBy::Legacy)) => FoundMark::Legacy,
            _ => FoundMark::None,
        }
    }

    /// Adds marks for a request that legacy takes, under the keys that earlier files give it.
    pub(super) fn mark_taken_by_legacy(&mut self, earlier: &EarlierKeys) {
        for keys in &earlier.keys {
            for key in keys.of_legacy() {
                self.add(key, NewerFilesMark { files_version: earlier.files_version, by: MarkedBy::Legacy });
            }
        }
    }

    /// Adds marks for a request that the engine takes, under the keys that earlier files give it.
    pub(super) fn mark_taken_by_engine(&mut self, earlier: &EarlierKeys, digest: &[u8; 32]) {
        for keys in &earlier.keys {
            let of_request = keys.any_caller.map(|any_caller| any_caller.of_request(digest));
            for key in [keys.scoped].into_iter().chain(of_request) {
                self.add(key, NewerFilesMark { files_version: earlier.files_version, by: MarkedBy::Engine(*digest) });
            }
        }
    }

    fn add(&mut self, key: RetryKey, mark: NewerFilesMark) {
        if self.count >= self.marks_max {
            self.drop_all();
        }
        self.by_key.entry(key).or_default().push(mark);
        self.count += 1;
    }

    fn drop_all(&mut self) {
        let files_versions = self.by_key.values().flatten().map(|mark| mark.files_version);
        let newest = files_versions.fold(self.dropped_through, u64::max);
        // Logged once for each set of files: under much traffic it happens repeatedly, and concerns the same requests.
        if newest > self.dropped_through {
            tracing::warn!(
                retry_key_marks_max = self.marks_max,
                "since the retry keys of a route changed, more requests came than are remembered: keyed requests that began \
                 before the change and are still in flight get 503, and neither arm begins them"
            );
        }
        self.dropped_total.increment(self.count as u64);
        (self.by_key, self.count, self.dropped_through) = (HashMap::new(), 0, newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::RetryKeys;

    fn earlier(key: u8, files_version: u64) -> EarlierKeys {
        let keys = RetryKeys { any_caller: Some(RetryKey([key + 100; 32])), ..RetryKey([key; 32]).into() };
        EarlierKeys { keys: vec![keys], files_version, ..EarlierKeys::none() }
    }

    #[test]
    fn a_mark_is_found_only_by_requests_of_older_files() {
        let mut marks = TakenMarks::new(100);
        marks.mark_taken_by_engine(&earlier(1, 5), &[7; 32]);
        marks.mark_taken_by_legacy(&earlier(2, 5));
        let (same, other) = (KnownBody::Digest([7; 32]), KnownBody::Digest([8; 32]));
        let (one, two) = (RetryKey([1; 32]), RetryKey([2; 32]));
        assert_eq!(marks.find(&one, 4, same), FoundMark::Engine);
        assert_eq!(marks.find(&one, 4, other), FoundMark::None, "another request");
        assert_eq!(marks.find(&one, 4, KnownBody::Unread), FoundMark::NeedsBody);
        assert_eq!(marks.find(&one, 5, same), FoundMark::None);
        assert_eq!(marks.find(&RetryKey([101; 32]).of_request(&[7; 32]), 4, same), FoundMark::Engine);
        for key in [two, RetryKey([102; 32])] {
            assert_eq!(marks.find(&key, 4, KnownBody::Unread), FoundMark::Legacy);
            assert_eq!(marks.find(&key, 6, same), FoundMark::None);
        }
    }

    #[test]
    fn after_marks_were_dropped_the_answer_is_unknown_for_older_files() {
        const MARKS_MAX: u64 = 10;
        let mut marks = TakenMarks::new(MARKS_MAX);
        let key = RetryKey([9; 32]);
        for _ in 0..MARKS_MAX / 2 {
            marks.mark_taken_by_legacy(&earlier(1, 5));
        }
        assert_eq!(marks.find(&key, 4, KnownBody::Unread), FoundMark::None);
        marks.mark_taken_by_legacy(&earlier(1, 5));
        assert!(marks.count < 3);
        assert_eq!(marks.find(&key, 4, KnownBody::Unread), FoundMark::Unknown);
        assert_eq!(marks.find(&key, 5, KnownBody::Unread), FoundMark::None);
        assert_eq!(NewerFilesMarks::new(&Limits { retry_key_marks_max: 0, ..Limits::default() }).lock().marks_max, 1);
    }
}
