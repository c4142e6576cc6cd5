//! Old runs go.
//!
//! Always true: what `retention:` leaves out is kept, and where there is none the store says it; a run goes at its age at the earliest, and soon after it; the
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
/// Retry keys that go together.
const KEYS_AT_ONCE: usize = 1_000;
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
        if let Err(error) = prune_retry_keys(&store).await {
            tracing::warn!(%error, "retry keys that have run out were not removed; it is tried again");
        }
    }
}

/// Whoever took them: also where legacy never takes one, which would remove others with its own.
async fn prune_retry_keys(store: &SharedStore) -> Result<(), StoreError> {
    loop {
        let began = Instant::now();
        if store.prune_retry_keys(KEYS_AT_ONCE).await? < KEYS_AT_ONCE as u64 {
            return Ok(());
        }
        tokio::time::sleep((began.elapsed() * REST_TIMES).max(REST_MIN)).await;
    }
}

/// What is in force: what the files say, else what the store said when it was made.
pub(super) fn in_force(said: Option<Retention>, store: &SharedStore) -> Retention {
    said.unwrap_or_else(|| Retention::all(store.usual_retention()))
}

/// Says at the start how long runs are kept where nobody has said it.
pub(super) fn say(said: Option<Retention>, store: &SharedStore) {
    match (said, store.usual_retention()) {
        (Some(_), _) => {}
        (None, Some(age)) => tracing::info!(
            "runs are kept for {} days after their end, as this store was made: `retention:` says otherwise",
            age.as_secs() / 86_400
        ),
        (None, None) => tracing::info!("runs are kept for ever, as in this store before: `retention: 30d` ends that"),
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
