//! Connections to the collector, plain or over TLS.
//!
//! Always true: nothing of a request, no credential among it, is sent before the collector's certificate was verified.

use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tower::ServiceExt;

use crate::flag::{HttpVersion, ServiceTls};
use crate::names::ServiceName;
use crate::transport::{SecuredPeer, ServiceStream};

/// The label `service` of its failed handshakes. No service of the files can have this name.
const LABEL: &str = "traces.otlp";

/// Opens connections to the collector.
#[derive(Clone)]
pub(super) struct Connector {
    tls: Option<ServiceTls>,
    service: ServiceName,
}

impl Connector {
    pub(super) fn new(tls: Option<ServiceTls>) -> Self {
        Self { tls, service: LABEL.into() }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<ServiceStream>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { tls, service } = self.clone();
        Box::pin(async move {
            let mut connector = HttpConnector::new();
            connector.enforce_http(false);
            let socket = connector.oneshot(uri.clone()).await?.into_inner();
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
            let secured = tls.as_ref().map(|tls| SecuredPeer { service: &service, tls, host });
            let (stream, _) = ServiceStream::open(socket, secured, HttpVersion::Http1).await?;
            Ok(TokioIo::new(stream))
        })
    }
}
