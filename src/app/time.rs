//! Sets the process's time at the start, by the store's time or newest event, and from then on compares it with the
//! machine's clock. Also notes in the store that the process runs, because only time in which a process runs counts
//! towards retry windows.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::affinity::StoreAffinity;
use crate::clock::{self, ClockChange, Disagreement, Moment};
use crate::store::{StoreHandle, StoreTime};

/// How often the machine's clock is compared with the process's time.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How often the store is told that the process runs.
const RUNNING_NOTED_EVERY: Duration = Duration::from_secs(600);

/// Sets the process's time from the store's, before anything is recorded or waited for.
pub(super) async fn set(store: &StoreHandle, retry_window: Duration) -> anyhow::Result<()> {
    let asked_at = Moment::now();
    match store.time().await.context("asking the store for its time")? {
        StoreTime::Now(now) => clock::process().follow(now, asked_at),
        StoreTime::NewestEvent(newest) => {
            if let Some(ahead) = newest.and_then(|newest| clock::process().raise_to_at_least(newest)) {
                // A `Disagreement` is positive if the machine's clock is ahead. Here the store is ahead, so it is
                // negative.
                tracing::warn!(newest_event = ?newest, "{}", Disagreement::StoreAhead(-ahead));
            }
            if let Some(mut times) = store.running_times().await.context("asking the store when it was in use")? {
                times.start(clock::now(), newest, retry_window);
                *clock::process().running() = times;
            }
        }
    }
    Ok(())
}

/// Notes in the store at intervals that the process runs, and begins the store's next generation (see
/// `affinity::store_generation`); never returns. If the store does not record it, less time counts than has passed, so
/// that retry keys are kept for longer.
pub(super) async fn note_running(store: StoreHandle, affinity: Arc<StoreAffinity>) {
    loop {
        let (times, generation) = {
            let mut running = clock::process().running();
            running.note(clock::now());
            let generation = running.begin_generation(affinity.generation_in_files());
            (running.clone(), generation)
        };
        match store.put_running_times(times).await {
            // Written only after the store has recorded it: a store whose generation is lower than that in the file
            // counts as a copy at the next start.
            Ok(()) => affinity.write_generation(generation),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "the store did not record that this process runs, so retry keys are kept for longer; \
                     this is tried again in ten minutes"
                )
            }
        }
        tokio::time::sleep(RUNNING_NOTED_EVERY).await;
    }
}

/// Logs and counts each jump of the machine's clock; never returns.
pub(super) async fn track_machine_clock() {
    let jumps = metrics::counter!("pointsman_clock_jumps_total");
    let offset = metrics::gauge!("pointsman_clock_offset_seconds");
    jumps.increment(0);
    let mut ticks = tokio::time::interval(CHECK_INTERVAL);
    loop {
        ticks.tick().await;
        let (change, ahead) = clock::process().check();
        offset.set(ahead.as_secs_f64());
        match change {
            Some(ClockChange::Disagrees(disagreement)) => {
                jumps.increment(u64::from(matches!(disagreement, Disagreement::Jumped(_))));
                tracing::warn!(machine_ahead_s = ahead.as_secs(), "{disagreement}");
            }
            Some(ClockChange::Agrees) => {
                tracing::info!("this machine's clock is within a minute of the process's time again");
            }
            None => {}
        }
    }
}

/// How the machine's clock differs from the process's time, as a sentence; `None` up to a minute.
pub(super) fn clock_disagreement() -> Option<String> {
    clock::process().disagreement().map(|disagreement| disagreement.to_string())
}
