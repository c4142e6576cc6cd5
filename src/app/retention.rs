//! Old runs go.
//!
//! Always true: what `retention:` does not name is kept; a run goes at its age at the earliest, and soon after it; the
//! store is asked for a small batch at a time, and rests between them for longer than it worked, so that appends hardly
//! notice. Where the store does not answer, the next round tries again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::SignedDuration;

use crate::clock;
use crate::config::Retention;
use crate::store::{Purged, SharedStore, StoreError};

/// Runs that go together.
const RUNS_AT_ONCE: usize = 50;
/// A rest is so many times as long as the batch before it took, and at least this long.
const REST_TIMES: u32 = 4;
const REST_MIN: Duration = Duration::from_millis(20);
/// A round is begun this often; more often where runs are kept for minutes.
const ROUND_MAX: Duration = Duration::from_secs(60);
const ROUND_MIN: Duration = Duration::from_secs(1);

/// Purges for as long as it is polled.
pub(super) async fn keep(store: SharedStore, retention: Arc<ArcSwap<Retention>>) {
    let counter = metrics::counter!("pointsman_purged_runs_total");
    counter.increment(0);
    loop {
        let now = **retention.load();
        let shortest = now.ages().map(|(_, age)| age).min();
        let round = shortest.map_or(ROUND_MAX, |age| age / 10).clamp(ROUND_MIN, ROUND_MAX);
        tokio::time::sleep(round).await;
        let began = Instant::now();
        let mut all = Purged::default();
        let done = purge(&store, &now, &mut all, &counter).await;
        let Purged { runs, pinned, payloads } = all;
        if runs > 0 {
            tracing::info!(runs, pinned, payloads, took = ?began.elapsed(), "old runs were purged (retention)");
        }
        if let Err(error) = done {
            tracing::warn!(%error, "old runs were not purged; it is tried again");
        }
    }
}

async fn purge(
    store: &SharedStore,
    retention: &Retention,
    all: &mut Purged,
    counter: &metrics::Counter,
) -> Result<(), StoreError> {
    for (status, age) in retention.ages() {
        let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
        let Ok(before) = clock::now().checked_sub(age) else { continue };
        loop {
            let began = Instant::now();
            let Purged { runs, pinned, payloads } = store.purge(status, before, RUNS_AT_ONCE).await?;
            all.runs += runs;
            all.pinned += pinned;
            all.payloads += payloads;
            counter.increment(runs);
            if runs == 0 {
                break;
            }
            tokio::time::sleep((began.elapsed() * REST_TIMES).max(REST_MIN)).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
