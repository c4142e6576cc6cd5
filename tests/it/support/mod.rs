//! Helpers of the end-to-end tests.
//!
//! A test starts a [`test_system::TestSystem`] (outside world, legacy, the real binary), does something to it, and ends
//! with [`test_system::TestSystem::finish`], which runs the checker over store, ledger and metrics; dropping it
//! unfinished fails the test. Every wait is bounded and polls a condition; everything listens on port 0, except
//! programs that cannot, which get a port that was free just before.

pub mod bulk_server;
pub mod certificates;
pub mod checker;
pub mod collector;
pub mod continuous_load;
pub mod counting_proxy;
pub mod documented;
pub mod echo_origins;
pub mod faketime;
pub mod faulty_link;
pub mod flags;
pub mod http2;
pub mod in_process_engine;
pub mod lossy_proxy;
pub mod metrics;
pub mod mutator;
pub mod origin;
pub mod pgbouncer;
pub mod postgres_server;
pub mod process;
pub mod raw_connection;
pub mod raw_requests;
pub mod raw_service;
pub mod seed;
pub mod slow_order;
pub mod small_disk;
pub mod step_service;
pub mod strace;
pub mod test_system;
pub mod tls_front;
pub mod two_processes;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

pub use flags::{FlagsDir, PROMOTE, PROMOTE_WITH_EFFECTS};
pub use metrics::Metrics;
pub use process::Pointsman;

/// Any free port of this machine.
pub const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The usual bound of a wait in a test: generous, since all tests run at once.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// A port on which nothing listens, so that connections are refused, as long as the socket exists.
pub fn closed_port() -> tokio::net::TcpSocket {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(LOCAL).expect("a free port");
    socket
}

/// Polls until `look` returns something; fails the test with `what` when that takes longer than `WAIT_MAX`.
pub async fn until<T, F, Fut>(what: &str, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + WAIT_MAX;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited {WAIT_MAX:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Like [`until`], for a condition that is not async.
pub async fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || std::future::ready(look().then_some(()))).await;
}
