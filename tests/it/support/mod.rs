//! Helpers of the end-to-end tests.
//!
//! A test starts a [`town::Town`] (outside world, legacy, the real binary), does something to it, and ends with
//! [`town::Town::finish`], which runs the checker over store, ledger and metrics; a town that is dropped unfinished fails
//! its test. Every wait is bounded and watches something; everything listens on port 0.

pub mod checker;
pub mod cluster;
pub mod faketime;
pub mod flags;
pub mod lossy;
pub mod metrics;
pub mod origin;
pub mod pair;
pub mod process;
pub mod pump;
pub mod raw;
pub mod seed;
pub mod strace;
pub mod town;
pub mod wire;
pub mod works;
pub mod yard;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

pub use flags::FlagsDir;
pub use metrics::Metrics;
pub use process::Pointsman;

/// Any free port of this machine.
pub const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The longest that a test waits for anything: generous, since all of them run at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `look` returns something; fails the test with `what` when that takes longer than `PATIENCE`.
pub async fn until<T, F, Fut>(what: &str, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The same, where looking is not async.
pub async fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || std::future::ready(look().then_some(()))).await;
}
