//! Connections to the collector, plain or over TLS.
//!
//! Always true: no part of a request, credentials included, is sent before the collector's certificate was verified.
//! The address of a new connection is chosen as for services (`transport`): the collector's name is looked up again
//! from time to time, and an address that accepts no connection is left for another one.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::flag::{HttpVersion, Service, ServiceTls};
use crate::limits::{Limits, SPANS_ANSWER_WAIT_MAX};
use crate::transport::{AddressChoice, AddressRegistry, ServiceAddresses, ServiceInUse, ServiceStream, TrafficClass};

/// The label `service` of its metrics. No service of the files can have this name.
const LABEL: &str = "traces.otlp";

/// Opens connections to the collector.
#[derive(Clone)]
pub(super) struct Connector {
    addresses: Arc<ServiceAddresses>,
    _in_use: Arc<ServiceInUse>,
}

impl Connector {
    pub(super) fn new(base: &Uri, tls: Option<ServiceTls>, limits: &Limits) -> Self {
        let collector = Service { tls, http: HttpVersion::Http1, ..Service::at(LABEL, [base.clone()]) };
        let addresses = AddressRegistry::new().of(&collector, limits);
        Self { _in_use: Arc::new(addresses.in_force()), addresses }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<ServiceStream>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Uri) -> Self::Future {
        let addresses = self.addresses.clone();
        Box::pin(async move {
            // Whoever sends a batch bounds the time for all addresses together.
            let until = Instant::now() + SPANS_ANSWER_WAIT_MAX;
            let mut choice = AddressChoice::begin(&addresses, TrafficClass::Real, until).await?;
            loop {
                match choice.in_flight.connect(HttpVersion::Http1).await {
                    Ok((stream, _)) => return Ok(TokioIo::new(stream)),
                    Err(error) if choice.try_another(&error) => {}
                    Err(error) => return Err(error.to_string().into()),
                }
            }
        })
    }
}
