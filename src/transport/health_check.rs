//! Checks from time to time whether the addresses of a service that declares `health` can serve.
//!
//! Always true: each check goes over a connection of its own, which no request gets; one check of an address is under
//! way at a time; the task of an address ends when its service no longer has the address.

use std::convert::Infallible;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{sleep, timeout};

use super::address::Address;
use super::tls::ConnectionProtocol;
use crate::flag::HealthCheck;

/// Starts the checks of an address, if its service declares them and they are not running.
pub(super) fn start(address: &Arc<Address>) {
    if let Some(check) = &address.common.health
        && !address.is_checked.swap(true, Relaxed)
    {
        address.common.spawn(check_repeatedly(Arc::downgrade(address), check.clone()));
    }
}

async fn check_repeatedly(address: Weak<Address>, check: HealthCheck) {
    let (mut failures, mut successes) = (0_u32, 0_u32);
    loop {
        let Some(checked) = address.upgrade().filter(|address| !address.is_removed()) else { return };
        let in_time = timeout(check.timeout, try_once(&checked, &check.path)).await;
        match in_time.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(()) => (failures, successes) = (0, successes.saturating_add(1)),
            Err(why) => {
                checked.check_failed(&why);
                (failures, successes) = (failures.saturating_add(1), 0);
            }
        }
        if failures >= check.failures {
            checked.set_healthy(false);
        } else if successes >= check.successes {
            checked.set_healthy(true);
        }
        drop(checked);
        sleep(spread(check.every)).await;
    }
}

/// Returns the period, shortened at random by up to a tenth, so that several processes do not check at the same moment.
fn spread(every: Duration) -> Duration {
    every.mul_f64(1.0 - fastrand::f64() / 10.0)
}

/// Sends a `GET`.
///
/// # Errors
/// The `GET` is not answered with 2xx or 3xx.
async fn try_once(address: &Address, path: &str) -> Result<(), String> {
    let dialer = &address.common.dialer;
    let opened = dialer.stream(address.socket, &address.target, dialer.http).await;
    let (stream, spoken) = opened.map_err(|error| format!("no connection: {error}"))?;
    let target = format!("{}{path}", address.target.base);
    let request = Request::get(target).body(Empty::<Bytes>::new());
    let mut request = request.map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static("pointsman-health-check"));
    if let Some(host) = address.target.host(false) {
        headers.insert(HOST, host.clone());
    }
    let has_passed = |reply: hyper::Result<Response<Incoming>>| match reply.map(|reply| reply.status()) {
        Ok(status) if status.is_success() || status.is_redirection() => Ok(()),
        Ok(status) => Err(format!("it answered {}", status.as_u16())),
        Err(error) => Err(error.to_string()),
    };
    // The connection is driven only until the head of the reply is there; then it is closed. An end of the connection
    // is not reported as a failure here, since it may follow a good reply.
    match spoken {
        ConnectionProtocol::Http1 => {
            let opened = http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = opened.map_err(|error| error.to_string())?;
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            tokio::select! {
                reply = sender.send_request(request) => has_passed(reply),
                never = drive_forever(connection) => match never {},
            }
        }
        ConnectionProtocol::Http2 => {
            let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
            let (mut sender, connection) = handshake.await.map_err(|error| error.to_string())?;
            address.target.to_http2(&mut request);
            tokio::select! {
                reply = sender.send_request(request) => has_passed(reply),
                never = drive_forever(connection) => match never {},
            }
        }
    }
}

/// Drives a connection, and never completes.
async fn drive_forever(connection: impl Future) -> Infallible {
    connection.await;
    std::future::pending().await
}
