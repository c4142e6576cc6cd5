//! Captures of compared pairs: which pairs are captured, and how they reach the store.
//!
//! The question it answers: "which pairs can be rehearsed again?"
//!
//! Always true: whoever hands over a capture never waits; what waits to be written is bounded in number and bytes, and
//! what does not fit is dropped and counted. Captures are in the store, not in files beside it: so they are in its
//! backups, several processes of one PostgreSQL have one set of them, and a successor process has them.
//!
//! When the store is slow or gone, captures wait in memory up to the bound; a kill loses those of the last second. They
//! are written in batches of bounded size, so that appends of runs wait for no longer than one such batch.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock;
use crate::compare::Capture;
use crate::flag::Percent;
use crate::names::RouteId;
use crate::secret::RedactionKey;
use crate::store::{CaptureBounds, CaptureRecord, RepeatedFailures, StoreError, StoreHandle};

/// The most captures that are kept of one route; the oldest leave first.
pub const CAPTURES_PER_ROUTE_MAX: usize = 5_000;
/// The most bytes that the captures of one route have together.
pub const CAPTURED_BYTES_PER_ROUTE_MAX: u64 = 64 << 20;
/// Captures that are older are removed.
pub const CAPTURE_AGE_MAX: SignedDuration = SignedDuration::from_hours(14 * 24);
/// The most bytes of one capture.
pub const CAPTURE_BYTES_MAX: usize = 256 << 10;
/// The most captures, of all routes together, that wait to be written.
const PENDING_CAPTURES_MAX: usize = 1_000;
/// The most bytes that wait to be written.
const PENDING_BYTES_MAX: usize = 16 << 20;
/// The most bytes that are written in one transaction, unless one capture has more.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How often captures that are too old are removed while no new one is written.
const REMOVE_EVERY: Duration = Duration::from_secs(600);

/// Why a pair was not kept as a capture: the values of a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CaptureDropped {
    /// Too many captures wait to be written.
    QueueFull,
    /// The capture is larger than [`CAPTURE_BYTES_MAX`], or its reads are, or it has more secrets than texts are
    /// searched for.
    TooLarge,
    /// A body could not be read, so nobody knows what is secret in it.
    Unreadable,
    /// The time for the pair (`compare_ms`) was over before everything secret in it was replaced.
    OverBudget,
}

impl CaptureDropped {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::QueueFull, Self::TooLarge, Self::Unreadable, Self::OverBudget];
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
            Self::OverBudget => "over_budget",
        }
    }
}

/// Takes captures to the store.
pub struct Captures {
    store: StoreHandle,
    key: RedactionKey,
    pending: Mutex<Pending>,
    /// One write at a time, so that captures are stored in their order.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Pending {
    captures: Vec<CaptureRecord>,
    bytes: usize,
}

/// Draws whether a request is sampled: true with a probability of `share`.
pub fn is_sampled(share: Percent) -> bool {
    share > Percent::NONE && fastrand::u16(..Percent::ALL.hundredths()) < share.hundredths()
}

impl Captures {
    /// Stores captures in this store, with hashes of this key in place of secrets.
    pub fn new(store: StoreHandle, key: RedactionKey) -> Arc<Self> {
        Arc::new(Self { store, key, pending: Mutex::default(), writing: tokio::sync::Mutex::default() })
    }

    /// The key of the hashes that stand in place of secrets.
    pub fn key(&self) -> &RedactionKey {
        &self.key
    }

    /// Hands over a capture. It must already be redacted.
    pub fn put(&self, capture: &Capture) {
        match serde_json::to_vec(capture) {
            Ok(body) if body.len() <= CAPTURE_BYTES_MAX => self.push(capture, body),
            Ok(_) => self.dropped(&capture.route, CaptureDropped::TooLarge),
            Err(_) => self.dropped(&capture.route, CaptureDropped::Unreadable),
        }
    }

    fn push(&self, capture: &Capture, body: Vec<u8>) {
        let record = CaptureRecord { id: capture.id, route: capture.route.clone(), at: capture.at, body };
        let is_full = {
            let mut pending = self.pending();
            let bytes = pending.bytes + record.body.len();
            let is_full = pending.captures.len() >= PENDING_CAPTURES_MAX || bytes > PENDING_BYTES_MAX;
            if !is_full {
                pending.bytes = bytes;
                pending.captures.push(record);
            }
            is_full
        };
        match is_full {
            true => self.dropped(&capture.route, CaptureDropped::QueueFull),
            false => metrics::counter!("pointsman_captures_total", "route" => capture.route.to_string()).increment(1),
        }
    }

    /// Counts a pair that was to be captured and is not.
    pub fn dropped(&self, route: &RouteId, why: CaptureDropped) {
        let route = route.to_string();
        metrics::counter!("pointsman_captures_dropped_total", "route" => route, "reason" => why.as_str()).increment(1);
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// The store does not answer. What is not written goes on waiting.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.writing.lock().await;
        loop {
            let batch = self.next_batch();
            let (number, bytes) = (batch.len(), batch.iter().map(|capture| capture.body.len()).sum::<usize>());
            if number == 0 {
                return Ok(());
            }
            self.store.put_captures(batch, bounds(clock::now())).await?;
            // Removed only after the write, so that nothing is lost if this task is dropped during it. A repeated write
            // stores nothing twice, because the captures have the same ids.
            let mut pending = self.pending();
            pending.captures.drain(..number);
            pending.bytes -= bytes;
        }
    }

    /// Copies of the oldest captures that wait, as many as one transaction takes.
    fn next_batch(&self) -> Vec<CaptureRecord> {
        let pending = self.pending();
        let mut bytes = 0;
        let fits = |capture: &&CaptureRecord| {
            let is_first = bytes == 0;
            bytes += capture.body.len();
            is_first || bytes <= BATCH_BYTES_MAX
        };
        pending.captures.iter().take_while(fits).cloned().collect()
    }

    /// Flushes at an interval until the task is aborted, and removes captures that are too old.
    pub async fn write_behind(self: Arc<Self>, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let failures = RepeatedFailures::default();
        let mut removed: Option<tokio::time::Instant> = None;
        loop {
            let now = ticks.tick().await;
            let written = match removed.is_none_or(|removed| now.duration_since(removed) >= REMOVE_EVERY) {
                true => {
                    removed = Some(now);
                    self.store.put_captures(Vec::new(), bounds(clock::now())).await
                }
                false => Ok(()),
            };
            if let Err(error) = written.and(self.flush().await)
                && let Some(unlogged) = failures.count(&error.0)
            {
                tracing::warn!(%error, unlogged, "captures are not written yet; they wait in memory up to a bound");
            }
        }
    }

    /// The next captures, at most `limit`, that are stored under these ids of a route behind the position `after`. They
    /// are in the order in which they were stored, each with its position.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn page(
        &self,
        ids: &[RouteId],
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, CaptureRecord)>, StoreError> {
        let mut found = Vec::new();
        for id in ids {
            found.extend(self.store.captures(id.clone(), after, limit).await?);
        }
        found.sort_by_key(|(position, _)| *position);
        found.truncate(limit);
        Ok(found)
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bounds(now: Timestamp) -> CaptureBounds {
    CaptureBounds {
        per_route: CAPTURES_PER_ROUTE_MAX,
        bytes_per_route: CAPTURED_BYTES_PER_ROUTE_MAX,
        since: now.saturating_sub(CAPTURE_AGE_MAX).unwrap_or(Timestamp::MIN),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::evidence::testing;
    use crate::store::CaptureStore as _;

    fn capture(n: u128, text: usize) -> Capture {
        let capture = json!({
            "version": 1, "id": uuid::Uuid::from_u128(n), "route": "orders", "at": clock::now(),
            "request": {"method": "POST", "path": "/", "headers": [], "body": {"text": "x".repeat(text)}},
            "legacy": {"status": 200, "headers": []},
        });
        Capture::read(&capture.to_string()).unwrap()
    }

    #[tokio::test]
    async fn captures_wait_within_bounds_and_are_written_in_batches() {
        let (_, store) = testing::evidence().await;
        let captures = Captures::new(store.clone(), RedactionKey::derived_from(&[1; 32]));
        captures.put(&capture(0, CAPTURE_BYTES_MAX));
        assert_eq!(captures.pending().captures.len(), 0, "too large");
        for n in 1..=200 {
            captures.put(&capture(n, 200 << 10));
        }
        let waiting = captures.pending().captures.len();
        assert!(waiting < 100 && captures.pending().bytes <= PENDING_BYTES_MAX, "{waiting}");
        assert!(captures.next_batch().len() <= BATCH_BYTES_MAX / (200 << 10));
        captures.flush().await.unwrap();
        {
            let pending = captures.pending();
            assert_eq!((pending.captures.len(), pending.bytes), (0, 0));
        }
        let stored = captures.page(&["other".into(), "orders".into()], 0, 500).await.unwrap();
        assert_eq!(stored.len(), waiting);
        assert_eq!(store.captures("orders".into(), 0, 1).await.unwrap()[0].1.id, uuid::Uuid::from_u128(1));
        for n in 1_000..=3_000 {
            captures.put(&capture(n, 0));
        }
        assert_eq!(captures.pending().captures.len(), PENDING_CAPTURES_MAX);
    }

    #[test]
    fn a_share_of_the_requests_is_sampled() {
        let taken = |share: f64| (0..10_000).filter(|_| is_sampled(Percent::new(share).unwrap())).count();
        assert_eq!((taken(0.0), taken(100.0)), (0, 10_000));
        assert!((2_000..3_000).contains(&taken(25.0)));
    }
}
