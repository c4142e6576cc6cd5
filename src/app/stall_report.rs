//! Reports commits of the store that stall: the log has one line when a commit has stalled and one when it has ended,
//! and a gauge shows the age of the present commit.

use std::time::Duration;

use super::parts::Parts;
use crate::store::{CommitAge, stall_text};

/// What was reported last.
pub(super) struct StallReport {
    age: metrics::Gauge,
    /// The age of the stalled commit at the last update, if the log says that it has stalled.
    stalled: Option<Duration>,
    /// Whether the store was healthy at the last update. While it is not, the writer's attempts may take long as well,
    /// and the log already has their error.
    was_healthy: bool,
}

impl StallReport {
    pub(super) fn new() -> Self {
        Self { age: metrics::gauge!("pointsman_store_commit_age_seconds"), stalled: None, was_healthy: true }
    }

    /// Checks the present commit.
    pub(super) fn update(&mut self, parts: &Parts) {
        self.age.set(parts.store.commit_age().and_then(CommitAge::get).unwrap_or_default().as_secs_f64());
        match (parts.store.stalled_for(), self.stalled) {
            (Some(age), None) if self.was_healthy => {
                tracing::error!(
                    error = stall_text(age),
                    "the store hangs: the process is not ready, requests for which nothing was begun fall back or get \
                     503, and what was handed to the store waits"
                );
                self.stalled = Some(age);
            }
            (Some(age), Some(_)) => self.stalled = Some(age),
            (None, Some(age)) => {
                tracing::info!(stalled_s = age.as_secs(), "the commit that had stalled has ended");
                self.stalled = None;
            }
            (Some(_) | None, None) => {}
        }
        self.was_healthy = parts.store.healthy();
    }
}
