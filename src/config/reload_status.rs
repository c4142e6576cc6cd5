//! How old the files in force are, and why the newest version of them was refused.
//!
//! Always true: the age counts from when the set was put in force; an error stays until a valid set is put in force.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::render::{CheckFailed, Findings};

/// What `status` and the metrics show about the files in force.
pub struct ReloadStatus {
    in_force: ArcSwap<InForce>,
    error: ArcSwapOption<String>,
}

/// The set in force.
struct InForce {
    since: Instant,
    warnings: Findings,
    needs_restart: Vec<&'static str>,
}

impl ReloadStatus {
    /// The status of the set with which the process starts, which has these warnings.
    pub fn new(warnings: Findings) -> Self {
        let in_force = InForce { since: Instant::now(), warnings, needs_restart: Vec::new() };
        let status = Self { in_force: ArcSwap::from_pointee(in_force), error: ArcSwapOption::empty() };
        metrics::counter!("pointsman_flags_reload_failures_total").absolute(0);
        status.publish();
        status
    }
    /// Notes that a valid set was put in force. `needs_restart`: its settings that differ from those with which the
    /// process was started, and take effect at the next start.
    pub fn record_accepted(&self, warnings: Findings, needs_restart: Vec<&'static str>) {
        self.in_force.store(Arc::new(InForce { since: Instant::now(), warnings, needs_restart }));
        self.error.store(None);
        self.publish();
    }
    /// Notes that the check refused a set.
    pub fn record_refused(&self, failed: &CheckFailed) {
        self.record_failure(failed.render(false));
    }
    /// Notes that a valid set is not in force: the ladder refused it, or the store did not record its flips or has not
    /// answered yet.
    pub fn record_failure(&self, text: String) {
        metrics::counter!("pointsman_flags_reload_failures_total").increment(1);
        self.error.store(Some(Arc::new(text)));
    }
    /// How long the set has been in force.
    pub fn age(&self) -> Duration {
        self.in_force.load().since.elapsed()
    }
    /// The whole text of the last refusal or failure, until a valid set is put in force.
    pub fn last_error(&self) -> Option<String> {
        self.error.load().as_deref().cloned()
    }
    /// The warnings about the set in force, one line each, without the word "warning".
    pub fn warnings(&self) -> Vec<String> {
        self.in_force.load().warnings.0.iter().map(super::render::Finding::without_severity).collect()
    }
    /// The settings of the set in force that take effect at the next start.
    pub fn needs_restart(&self) -> Vec<&'static str> {
        self.in_force.load().needs_restart.clone()
    }
    /// Sets the metrics of the age and of the last reading; called before each scrape.
    pub fn publish(&self) {
        metrics::gauge!("pointsman_flags_age_seconds").set(self.age().as_secs_f64());
        let is_in_force = self.error.load().is_none();
        metrics::gauge!("pointsman_flags_need_restart").set(self.in_force.load().needs_restart.len() as f64);
        metrics::gauge!("pointsman_flags_last_reload_successful").set(f64::from(is_in_force));
    }
}
