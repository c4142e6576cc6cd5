//! Looks up the addresses of a name.
//!
//! The system's resolver is used, so `/etc/hosts` and the rest of its configuration count. The resolver does not tell
//! how long an answer is valid, so names are looked up again at an interval of our own (`service_resolve_ms`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;

/// The most addresses of one name that are used; further ones are left out.
const ADDRESSES_MAX: usize = 64;

type LookUp = dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Looks up names.
#[derive(Clone)]
pub(super) struct Resolver(Arc<LookUp>);

impl Resolver {
    /// Creates one that uses the system's resolver.
    pub(super) fn system() -> Self {
        Self::new(|name, port| {
            Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect::<Vec<_>>()) })
        })
    }
    pub(super) fn new(
        look_up: impl Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(look_up))
    }

    /// Returns the addresses of a name, each once.
    ///
    /// # Errors
    /// The name has no address, or the lookup failed.
    pub(super) async fn look_up(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut sockets = (self.0)(name.to_owned(), port).await?;
        let mut seen = Vec::new();
        sockets.retain(|socket| {
            let is_new = !seen.contains(socket) && seen.len() < ADDRESSES_MAX;
            seen.extend(is_new.then_some(*socket));
            is_new
        });
        match sockets.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            false => Ok(sockets),
        }
    }
}
