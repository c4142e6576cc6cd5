//! The proxy behind the egress listener, which runs next to the one that serves clients.
//!
//! Always true: the egress proxy accepts calls until the last client has its answer, since legacy may have to make a
//! call for that answer; the calls under way then have what is left of `drain_ms`, at least a second.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::proxy::{Drained, Proxy, ProxyListener};

/// How long the last calls may take if the clients used up `drain_ms`.
const LAST_CALLS_WAIT: Duration = Duration::from_secs(1);

/// The proxy behind the egress listener.
#[derive(Clone)]
pub(super) struct EgressProxy {
    pub proxy: Proxy,
    /// The address on which the proxy listens.
    pub address: SocketAddr,
}

/// The egress proxy while it serves.
pub(super) struct ServedEgress {
    proxy: Proxy,
    close: CancellationToken,
    serving: JoinHandle<Drained>,
}

impl EgressProxy {
    /// Starts to accept calls.
    pub(super) fn serve(&self, listener: ProxyListener) -> ServedEgress {
        let (proxy, close) = (self.proxy.clone(), CancellationToken::new());
        let served = {
            let (proxy, close) = (proxy.clone(), close.clone());
            async move { proxy.serve(vec![listener], close).await }
        };
        ServedEgress { proxy, close, serving: tokio::spawn(served) }
    }
}

impl ServedEgress {
    /// Called after the clients' proxy has drained: waits until the last calls have ended, and cuts them when their
    /// time is over. `is_succeeded`: another process accepts, so the calls have as long as clients would have. Returns
    /// how many calls were cut.
    pub(super) async fn end(mut self, is_succeeded: bool, clients: Drained, drain: Duration) -> usize {
        if is_succeeded {
            return self.serving.await.map_or(0, |drained| drained.cut);
        }
        self.close.cancel();
        let within = drain.saturating_sub(clients.took).max(LAST_CALLS_WAIT);
        match timeout(within, &mut self.serving).await {
            Ok(ended) => ended.map_or(0, |drained| drained.cut),
            Err(_) => {
                tracing::warn!("calls by legacy through the egress listener did not end in time, and are cut");
                self.proxy.cut();
                self.serving.await.map_or(0, |drained| drained.cut)
            }
        }
    }
}
