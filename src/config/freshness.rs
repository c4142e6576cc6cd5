//! How old the set of files in force is, and why the newest one was refused.
//!
//! Always true: the age is counted from the moment a set was taken; an error stays until a good set is taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{Failed, Findings};

/// What `status` and the metrics say of the files in force.
pub struct Freshness {
    taken: ArcSwap<(Instant, Findings)>,
    error: ArcSwapOption<String>,
}

impl Freshness {
    /// A set with these warnings has just been taken.
    pub fn new(warnings: Findings) -> Self {
        let fresh = Self { taken: ArcSwap::from_pointee((Instant::now(), warnings)), error: ArcSwapOption::empty() };
        metrics::counter!("pointsman_flags_reload_failures_total").absolute(0);
        fresh.observe();
        fresh
    }
    /// A good set was swapped in.
    pub fn taken(&self, warnings: Findings) {
        self.taken.store(Arc::new((Instant::now(), warnings)));
        self.error.store(None);
        self.observe();
    }
    /// A set was refused by its check.
    pub fn refused(&self, failed: &Failed) {
        self.refused_because(failed.render(false));
    }
    /// A set was refused for another reason (the store did not take its flips).
    pub fn refused_because(&self, text: String) {
        metrics::counter!("pointsman_flags_reload_failures_total").increment(1);
        self.error.store(Some(Arc::new(text)));
    }
    /// How long the set in force has been so.
    pub fn age(&self) -> Duration {
        self.taken.load().0.elapsed()
    }
    /// The whole text of the newest refusal, while the files are still refused.
    pub fn last_error(&self) -> Option<String> {
        self.error.load().as_deref().cloned()
    }
    /// What was warned of in the set in force, one line each.
    pub fn warnings(&self) -> Vec<String> {
        self.taken.load().1.0.iter().map(super::Finding::one_line).collect()
    }
    /// Writes the age to its metric; called before each scrape.
    pub fn observe(&self) {
        metrics::gauge!("pointsman_flags_age_seconds").set(self.age().as_secs_f64());
    }
}
