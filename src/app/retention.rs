//! Deletes old runs and expired retry keys.
//!
//! Always true: a run is deleted in the first round after it has reached the age that `retention:` gives for its status
//! and after its retry keys have expired (at the end of the retry window), never earlier; runs with a status that
//! `retention:` leaves out are kept; without `retention:` the default of the store applies. Runs are deleted in small
//! batches, with pauses longer than the work, so that appends are hardly delayed. When the store does not answer, the
//! next round tries again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::SignedDuration;

use crate::clock;
use crate::config::Retention;
use crate::store::{Purged, StoreError, StoreHandle};

/// How many runs are deleted in one batch.
const RUNS_PER_BATCH: usize = 50;
/// How many retry keys are examined in one batch.
const KEYS_PER_BATCH: usize = 1_000;
/// The pause after a batch, as a multiple of the time that the batch took.
const PAUSE_FACTOR: u32 = 4;
/// The shortest pause after a batch.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// How long after the end of a run its retry key may be stored, since an append may have to wait for the store.
const KEY_DELAY_MAX: Duration = Duration::from_secs(5);
/// The interval between rounds: a tenth of the shortest age, within these bounds.
const ROUND_MAX: Duration = Duration::from_secs(60);
const ROUND_MIN: Duration = Duration::from_secs(1);

/// Purges old runs at intervals; never returns.
pub(super) async fn purge_periodically(store: StoreHandle, retention: Arc<ArcSwap<Retention>>, retry_window: Duration) {
    let counter = metrics::counter!("pointsman_purged_runs_total");
    counter.increment(0);
    loop {
        let current = **retention.load();
        let shortest = current.ages().map(|(_, age)| age).min();
        let round = shortest.map_or(ROUND_MAX, |age| age / 10).clamp(ROUND_MIN, ROUND_MAX);
        tokio::time::sleep(round).await;
        let began = Instant::now();
        let mut all = Purged::default();
        let done = purge(&store, &current, retry_window, &mut all, &counter).await;
        let Purged { runs, pinned, payloads } = all;
        if runs > 0 {
            tracing::info!(runs, pinned, payloads, took = ?began.elapsed(), "old runs were purged (retention)");
        }
        if let Err(error) = done {
            tracing::warn!(%error, "old runs could not be purged; the next round tries again");
        }
    }
}

/// How long samples of pairs that differ are kept.
const SAMPLE_AGE_MAX: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How often older samples are removed.
const SAMPLES_ROUND: Duration = Duration::from_secs(3_600);

/// Removes old samples at intervals; never returns.
pub(super) async fn remove_old_samples(store: StoreHandle) {
    loop {
        let removed = match clock::now().checked_sub(SAMPLE_AGE_MAX) {
            Ok(before) => store.remove_samples_before(before).await,
            Err(_) => Ok(()),
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "old samples could not be removed; the next round tries again");
        }
        tokio::time::sleep(SAMPLES_ROUND).await;
    }
}

/// Removes expired retry keys of both arms at intervals; never returns. It is a task of its own, because a round of
/// purging runs may take long, and on some routes every request adds a key.
pub(super) async fn prune_periodically(store: StoreHandle) {
    loop {
        tokio::time::sleep(ROUND_MAX).await;
        if let Err(error) = prune_retry_keys(&store).await {
            tracing::warn!(%error, "expired retry keys could not be removed; the next round tries again");
        }
    }
}

async fn prune_retry_keys(store: &StoreHandle) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let began = Instant::now();
        after = store.prune_retry_keys(after, KEYS_PER_BATCH).await?.next;
        if after.is_none() {
            return Ok(());
        }
        tokio::time::sleep((began.elapsed() * PAUSE_FACTOR).max(PAUSE_MIN)).await;
    }
}

/// The retention in force: that of the files, else the default with which the store was created.
pub(super) fn in_force(configured: Option<Retention>, store: &StoreHandle) -> Retention {
    configured.unwrap_or_else(|| Retention::all(store.default_retention()))
}

/// Logs at the start how long runs are kept, if the files do not say so.
pub(super) fn log_default(configured: Option<Retention>, store: &StoreHandle) {
    match (configured, store.default_retention()) {
        (Some(_), _) => {}
        (None, Some(age)) => tracing::info!(
            "ended runs are kept for {} days, the default of this store: `retention:` changes it",
            age.as_secs() / 86_400
        ),
        (None, None) => {
            tracing::info!(
                "ended runs are kept for ever, the default of this older store: `retention: 30d` changes it"
            );
        }
    }
}

/// Removes expired retry keys, then deletes the runs beyond their age whose keys have expired. The keys come first,
/// because a stored key that has expired may become valid again: after a restart, if less of the time since its first
/// try counts ([`clock::RunningTimes`]), or if the files give a longer window. The key would then lead a retry to a run
/// that is gone.
async fn purge(
    store: &StoreHandle,
    retention: &Retention,
    retry_window: Duration,
    all: &mut Purged,
    counter: &metrics::Counter,
) -> Result<(), StoreError> {
    if retention.ages().next().is_none() {
        return Ok(());
    }
    let keys_expired_at = clock::window_start(Duration::ZERO, retry_window.saturating_add(KEY_DELAY_MAX));
    prune_retry_keys(store).await?;
    for (status, age) in retention.ages() {
        let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
        let Ok(before) = clock::now().checked_sub(age) else { continue };
        let before = before.min(keys_expired_at);
        loop {
            let began = Instant::now();
            let Purged { runs, pinned, payloads } = store.purge(status, before, RUNS_PER_BATCH).await?;
            all.runs += runs;
            all.pinned += pinned;
            all.payloads += payloads;
            counter.increment(runs);
            if runs == 0 {
                break;
            }
            tokio::time::sleep((began.elapsed() * PAUSE_FACTOR).max(PAUSE_MIN)).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
