//! The latency of the sample services.
//!
//! Always true: the seed determines the sequence of latencies. As with real services, most calls are quick and some are
//! slow: one call in twenty takes three times as long.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Latencies with seeded jitter; clones share the sequence.
#[derive(Clone, Debug)]
pub struct Latency {
    scale: f64,
    random: Arc<Mutex<fastrand::Rng>>,
}

impl Latency {
    /// Latencies that are `scale` times as long as the callers request.
    pub fn new(scale: f64, seed: u64) -> Self {
        Self { scale, random: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))) }
    }
    /// No latency at all.
    pub fn instant() -> Self {
        Self::new(0.0, 0)
    }
    /// One latency around `ms` milliseconds.
    pub fn draw(&self, ms: f64) -> Duration {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = if random.u8(0..20) == 0 { 3.0 } else { 1.0 };
        Duration::from_secs_f64(ms * self.scale * tail * (0.75 + 0.5 * random.f64()) / 1_000.0)
    }
    /// Waits around `ms` milliseconds.
    pub async fn wait(&self, ms: f64) {
        let duration = self.draw(ms);
        if !duration.is_zero() {
            tokio::time::sleep(duration).await;
        }
    }
}
