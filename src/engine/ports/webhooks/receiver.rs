//! The HTTP clients of webhooks: one for each service, since services differ in how they are spoken to.
//!
//! Always true: a message goes over HTTP/1.1, whatever else the service offers; a client is replaced when its service
//! is spoken to in another way.

use std::collections::HashMap;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Uri;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::engine::ports::protocol::Protocol;
use crate::flag::HttpVersion;
use crate::names::ServiceName;
use crate::transport::ServiceStream;

/// The client of one service.
pub(super) type WebhookClient = Client<Connector, Full<Bytes>>;

/// The clients, by service.
pub(super) struct WebhookClients {
    connect: Duration,
    by_service: HashMap<Option<ServiceName>, (Protocol, WebhookClient)>,
}

impl WebhookClients {
    pub(super) fn new(connect: Duration) -> Self {
        Self { connect, by_service: HashMap::new() }
    }

    /// The client for a service that is spoken to in this way.
    pub(super) fn of(&mut self, service: Option<&ServiceName>, protocol: Protocol) -> WebhookClient {
        let known = self.by_service.get(&service.cloned()).filter(|(known, _)| *known == protocol);
        if let Some((_, client)) = known {
            return client.clone();
        }
        let client = webhook_client(protocol.clone(), self.connect);
        self.by_service.insert(service.cloned(), (protocol, client.clone()));
        client
    }
}

/// A client for a service that is spoken to in this way.
pub(super) fn webhook_client(protocol: Protocol, connect: Duration) -> WebhookClient {
    Client::builder(TokioExecutor::new()).build(Connector { protocol, connect })
}

/// Opens connections to a service.
#[derive(Clone)]
pub(super) struct Connector {
    protocol: Protocol,
    connect: Duration,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<ServiceStream>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { protocol, connect } = self.clone();
        Box::pin(async move {
            let (stream, _) = protocol.connect(&uri, HttpVersion::Http1, connect).await?;
            Ok(TokioIo::new(stream))
        })
    }
}
