//! One `GET` over a connection of its own, with the whole reply.
//!
//! Always true: the reply's body is bounded, and so is the time for the whole exchange. The outcome counts neither for
//! nor against the address. Meant for questions that the process itself asks, not for requests of clients.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, timeout_at};

use super::address::TrafficClass;
use super::address_choice::AddressChoice;
use super::addresses::ServiceAddresses;
use super::tls::ConnectionProtocol;

/// A whole reply.
#[derive(Debug)]
pub struct WholeReply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Sends a `GET` with this path and query, which are appended to the service's base, and reads the reply.
///
/// # Errors
/// There is no whole reply `within` this time, or its body has more than `body_bytes_max` bytes; the text says why.
pub async fn get_once(
    addresses: &Arc<ServiceAddresses>,
    path: &str,
    headers: HeaderMap,
    body_bytes_max: usize,
    within: Duration,
) -> Result<WholeReply, String> {
    let until = Instant::now() + within;
    let reply = timeout_at(until, get(addresses, path, headers, body_bytes_max, until)).await;
    reply.unwrap_or_else(|_| Err(format!("no whole answer within {} ms", within.as_millis())))
}

async fn get(
    addresses: &Arc<ServiceAddresses>,
    path: &str,
    headers: HeaderMap,
    body_bytes_max: usize,
    until: Instant,
) -> Result<WholeReply, String> {
    let choice = AddressChoice::begin(addresses, TrafficClass::Secondary, until).await?;
    let address = choice.in_flight.address();
    let connected = choice.in_flight.connect(address.common.dialer.http).await;
    let (stream, spoken) = connected.map_err(|error| format!("no connection: {error}"))?;
    let request = Request::get(format!("{}{path}", address.target.base)).body(Empty::<Bytes>::new());
    let mut request = request.map_err(|error| error.to_string())?;
    *request.headers_mut() = headers;
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("pointsman"));
    if let Some(host) = address.target.host(false) {
        request.headers_mut().insert(HOST, host.clone());
    }
    match spoken {
        ConnectionProtocol::Http1 => {
            let opened = http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = opened.map_err(|error| error.to_string())?;
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            tokio::select! {
                reply = async { read(sender.send_request(request).await, body_bytes_max).await } => reply,
                never = drive_forever(connection) => match never {},
            }
        }
        ConnectionProtocol::Http2 => {
            let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
            let (mut sender, connection) = handshake.await.map_err(|error| error.to_string())?;
            address.target.to_http2(&mut request);
            tokio::select! {
                reply = async { read(sender.send_request(request).await, body_bytes_max).await } => reply,
                never = drive_forever(connection) => match never {},
            }
        }
    }
}

async fn read(reply: hyper::Result<Response<Incoming>>, body_bytes_max: usize) -> Result<WholeReply, String> {
    let (head, body) = reply.map_err(|error| error.to_string())?.into_parts();
    let body = Limited::new(body, body_bytes_max).collect().await;
    let body = body.map_err(|error| format!("its body could not be read (at most {body_bytes_max} bytes): {error}"))?;
    Ok(WholeReply { status: head.status, headers: head.headers, body: body.to_bytes() })
}

/// Drives a connection, and never completes: its end may follow a whole reply.
async fn drive_forever(connection: impl Future) -> Infallible {
    connection.await;
    std::future::pending().await
}
