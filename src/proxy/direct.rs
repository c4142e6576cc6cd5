//! Answers a request without a socket of its client, for simulations.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;

use super::Proxy;
use super::client_addresses::ConnectionPermit;
use super::client_body::ClientBody;
use super::exchange_record::CurrentRecord;
use super::headers::{Forwarder, Scheme};
use super::proxied_request::Client;
use super::switch;
use super::wait::ConnectionWait;

impl Proxy {
    /// Answers a request that has no body, as that of a client with a new connection. `None`: the answer was cut, or
    /// there are too many connections. No time limits apply: a connection's task enforces them.
    pub(crate) async fn answer(&self, request: Request<()>) -> Option<Response<Bytes>> {
        let (shared, peer) = (self.shared.clone(), IpAddr::from(Ipv4Addr::LOCALHOST));
        let permit = shared.connection_permits.clone().try_acquire_owned().ok()?;
        let client = Client {
            wait: Arc::new(ConnectionWait::with_rates(&shared.wait_limits)),
            forwarder: Arc::new(Forwarder::new(peer, Scheme::Http, &shared.forwarding.load(), Vec::new())),
            peer,
            record: CurrentRecord::new(None),
            own_connections: Arc::default(),
            connection_permit: Arc::new(ConnectionPermit::new(permit)),
            shared,
        };
        let answered = switch::serve(Arc::new(client), request.map(|()| ClientBody::None)).await;
        let (head, body) = answered.unwrap_or_else(|never| match never {}).into_parts();
        Some(Response::from_parts(head, body.collect().await.ok()?.to_bytes()))
    }
}
