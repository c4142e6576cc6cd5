//! Connections to legacy that belong to one client connection.
//!
//! The question it answers: "does legacy know this client by the connection, and which connection is that?" With NTLM
//! and Negotiate, legacy authenticates the connection, and takes all later requests on it for requests of the same
//! user. Always true: from the first request or reply with such a scheme on, the requests of a client connection to
//! that service go over connections that no other client uses any more; the last of these connections is closed
//! when the client's connection ends.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::address::{ForwardedInFlight, ProxiedAddress};
use super::pool::Http1Connection;
use crate::names::ServiceName;

/// The connections to legacy of one client connection.
#[derive(Default)]
pub(super) struct OwnConnections {
    is_any_bound: AtomicBool,
    // Only the client's own exchanges take the lock.
    bound: Mutex<Vec<BoundService>>,
}

/// A service that knows the client by its connection.
struct BoundService {
    service: ServiceName,
    idle: Option<(Http1Connection, Arc<ProxiedAddress>)>,
}

/// Where the connection of an exchange returns to, if it belongs to the client.
pub(super) struct ConnectionOwner {
    own: Arc<OwnConnections>,
    service: ServiceName,
}

impl ConnectionOwner {
    /// Keeps a connection for the client's next request.
    pub(super) fn keep(self, connection: Http1Connection, address: Arc<ProxiedAddress>) {
        let mut all = self.own.lock();
        if let Some(bound) = all.iter_mut().find(|bound| bound.service == self.service) {
            bound.idle = Some((connection, address));
        }
    }
}

impl OwnConnections {
    /// Returns the owner of the connection for a request, if the service knows the client by the connection, or the
    /// request begins such an authentication.
    pub(super) fn owner_for(self: &Arc<Self>, service: &ServiceName, request: &HeaderMap) -> Option<ConnectionOwner> {
        let asks = || request.get_all(AUTHORIZATION).iter().any(is_connection_scheme);
        if self.is_any_bound.load(Relaxed) && self.lock().iter().any(|bound| bound.service == *service) {
            return Some(self.owner(service));
        }
        asks().then(|| self.bind(service))
    }

    /// Returns the owner of the connection of a reply that asks the client to authenticate the connection.
    pub(super) fn owner_after(
        self: &Arc<Self>,
        service: &ServiceName,
        status: StatusCode,
        reply: &HeaderMap,
    ) -> Option<ConnectionOwner> {
        let asks =
            status == StatusCode::UNAUTHORIZED && reply.get_all(WWW_AUTHENTICATE).iter().any(is_connection_scheme);
        asks.then(|| self.bind(service))
    }

    /// Takes the connection that is kept for the client.
    pub(super) async fn take(&self, service: &ServiceName) -> Option<(Http1Connection, ForwardedInFlight)> {
        let kept = self.lock().iter_mut().find(|bound| bound.service == *service).and_then(|bound| bound.idle.take());
        let (mut connection, address) = kept?;
        let sender = &mut connection.sender;
        // As in `pool`: the connection's task may not have noticed yet that its reply has ended.
        let is_good = !sender.is_closed() && (sender.is_ready() || sender.ready().await.is_ok());
        is_good.then(|| (connection, ForwardedInFlight::new(address)))
    }

    /// Whether a service knows the client by the connection, or knew it.
    pub(super) fn is_any_bound(&self) -> bool {
        self.is_any_bound.load(Relaxed)
    }

    fn bind(self: &Arc<Self>, service: &ServiceName) -> ConnectionOwner {
        let mut all = self.lock();
        if !all.iter().any(|bound| bound.service == *service) {
            all.push(BoundService { service: service.clone(), idle: None });
        }
        self.is_any_bound.store(true, Relaxed);
        drop(all);
        self.owner(service)
    }

    fn owner(self: &Arc<Self>, service: &ServiceName) -> ConnectionOwner {
        ConnectionOwner { own: self.clone(), service: service.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<BoundService>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the first word of a field's value is a scheme that authenticates the connection.
fn is_connection_scheme(value: &HeaderValue) -> bool {
    let value = value.as_bytes();
    let end = value.iter().position(|byte| matches!(byte, b' ' | b'\t' | b',')).unwrap_or(value.len());
    [&b"NTLM"[..], b"Negotiate"].iter().any(|scheme| value[..end].eq_ignore_ascii_case(scheme))
}
