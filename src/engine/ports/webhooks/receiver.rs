//! Posts one message to its receiver.
//!
//! Always true: the address is chosen as for calls of steps (`transport`), and what the delivery learns of it counts
//! there; only a failed connection goes to another address. The message goes over the version of HTTP that its service
//! speaks. It takes no permit of the service's limits, and its breaker neither refuses nor counts it: few messages are
//! sent, one at a time to each destination.
//!
//! When the receiver is slow, the delivery ends after [`DELIVERY_TIMEOUT`] at the address that accepted a connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use tokio::time::{Instant, timeout, timeout_at};

use super::queues::DeliveryResult;
use crate::clock;
use crate::engine::ports::connections::{ConnectionPool, ReusePolicy};
use crate::engine::ports::destination::Destination;
use crate::engine::ports::pooled_connection::ExchangeError;
use crate::engine::ports::protocol::{Protocol, is_https};
use crate::engine::ports::service::ServiceLimits;
use crate::flag::Service;
use crate::limits::{Limits, NOT_PROCESSED_MAX};
use crate::names::ServiceName;
use crate::transport::{
    AddressChoice, AddressRegistry, ConnectError, NotedCaller, ServiceAddresses, TrafficClass, path_pattern,
};

/// How long the status of an answer is waited for.
pub(super) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the body of an answer is waited for after that. The result of the delivery does not depend on it.
const BODY_TIMEOUT: Duration = Duration::from_millis(500);
/// A connection whose answer has a longer body is not used again.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Where a message goes.
pub(super) struct Receiver {
    service: ServiceName,
    protocol: Protocol,
    addresses: Arc<ServiceAddresses>,
    /// The message's URL at each of the service's base URLs, in their order.
    pub uris: Vec<Uri>,
}

impl Receiver {
    /// A path at a service of the files in force.
    ///
    /// # Errors
    /// The path makes no valid URL.
    pub fn at_service(service_limits: &ServiceLimits, path: &str) -> Result<Self, DeliveryResult> {
        let uris =
            service_limits.urls().iter().map(|base| parse(&format!("{base}{path}"))).collect::<Result<_, _>>()?;
        let (service, protocol) = (service_limits.name().clone(), service_limits.protocol().clone());
        Ok(Self { service, protocol, addresses: service_limits.addresses().clone(), uris })
    }

    /// A URL of earlier files, whose service is not in those in force.
    ///
    /// # Errors
    /// The URL is invalid, or an https URL: no files say how the receiver is verified.
    pub fn at_url(service: &str, url: &str, limits: &Limits) -> Result<Self, DeliveryResult> {
        let uri = parse(url)?;
        if is_https(&uri) {
            let why = "its URL is an https URL, and its service is not in the files in force";
            return Err(DeliveryResult::Failed(why.to_owned()));
        }
        let service = Service::at(service, [uri.clone()]);
        // In a registry of its own: it shares nothing with a service that has this name later.
        let addresses = AddressRegistry::new().of(&service, limits);
        Ok(Self { protocol: Protocol::of(&service), service: service.name, addresses, uris: vec![uri] })
    }
}

fn parse(url: &str) -> Result<Uri, DeliveryResult> {
    url.parse().map_err(|error| DeliveryResult::Refused(format!("its URL is invalid: {error}")))
}

/// Posts a message; returns the status of the answer.
///
/// # Errors
/// There is no answer. Unless no connection was made, it is unknown whether the receiver has the message.
pub(super) async fn post(
    pool: &Arc<ConnectionPool>,
    receiver: &Receiver,
    mut request: Request<Full<Bytes>>,
) -> Result<StatusCode, String> {
    let Receiver { service, protocol, addresses, uris } = receiver;
    if let Some(uri) = uris.first() {
        let path = path_pattern(&Method::POST, uri.path());
        let caller = NotedCaller { source: "notify".to_owned(), client: String::new(), path };
        addresses.callers().note(caller, clock::now());
    }
    let mut until = Instant::now() + DELIVERY_TIMEOUT;
    let mut choice = AddressChoice::begin(addresses, TrafficClass::Real, until).await?;
    Destination::of(protocol, &choice, uris).put_into(&mut request, false);
    // A message may come twice: its receiver recognises it.
    let (mut reuse, mut not_processed) = (ReusePolicy::Any, 0);
    loop {
        let destination = Destination::of(protocol, &choice, uris);
        let taken = timeout_at(until, pool.take(&destination, reuse)).await.unwrap_or(Err(ConnectError::TimedOut));
        let mut connection = match taken {
            Ok(connection) => connection,
            Err(error) if choice.try_another(&error) => {
                Destination::of(protocol, &choice, uris).put_into(&mut request, false);
                until = Instant::now() + DELIVERY_TIMEOUT;
                continue;
            }
            Err(error) => return Err(error.to_string()),
        };
        match connection.send(request, until).await {
            Ok(Some(reply)) => {
                choice.in_flight.answered();
                let (head, mut body) = reply.into_parts();
                // Read only so that the connection can be used again.
                let read = timeout(BODY_TIMEOUT, connection.read_whole(&mut body, BODY_BYTES_MAX)).await;
                if matches!(read, Ok(Ok(Ok(_)))) {
                    pool.give_back(connection).await;
                }
                return Ok(head.status);
            }
            Ok(None) => {
                choice.in_flight.unanswered();
                return Err(format!("no answer within {} s", DELIVERY_TIMEOUT.as_secs()));
            }
            Err((error, Some(unsent))) if not_processed < NOT_PROCESSED_MAX => {
                if let ExchangeError::NotProcessed(reason, _) = &error {
                    reason.count(service);
                }
                not_processed += 1;
                (request, reuse) = (unsent, ReusePolicy::None);
            }
            Err((ExchangeError::CutOff(why), _)) => {
                choice.in_flight.unanswered();
                return Err(why);
            }
            Err((ExchangeError::NotSent(why) | ExchangeError::NotProcessed(_, why), _)) => return Err(why),
        }
    }
}
