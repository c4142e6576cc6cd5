//! Checks from time to time whether the addresses of a service can serve.
//!
//! Only where the service declares `health`. Always true: each check goes over a connection of its own, which no
//! request gets; one check of an address is under way at a time; the task ends when the address is no longer one of its
//! service.

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
        let passed = timeout(check.timeout, passes(&checked, &check.path)).await.unwrap_or(false);
        if passed {
            (failures, successes) = (0, successes.saturating_add(1));
        } else {
            (failures, successes) = (failures.saturating_add(1), 0);
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

/// Up to a tenth less, so that several processes do not check at the same moment.
fn spread(every: Duration) -> Duration {
    every.mul_f64(1.0 - fastrand::f64() / 10.0)
}

/// Whether a `GET` is answered with 2xx or 3xx.
async fn passes(address: &Address, path: &str) -> bool {
    let dialer = &address.common.dialer;
    let opened = dialer.stream(address.socket, &address.target, dialer.http).await;
    let Ok((stream, spoken)) = opened else { return false };
    let target = format!("{}{path}", address.target.base);
    let Ok(mut request) = Request::get(target).body(Empty::<Bytes>::new()) else { return false };
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static("pointsman-health-check"));
    if let Some(host) = address.target.host(false) {
        headers.insert(HOST, host.clone());
    }
    let has_passed = |reply: hyper::Result<Response<Incoming>>| {
        reply.is_ok_and(|reply| reply.status().is_success() || reply.status().is_redirection())
    };
    // The connection is driven only until the head of the reply is there, then it is closed. That it has ended tells
    // nothing: it may end with a good reply.
    match spoken {
        ConnectionProtocol::Http1 => {
            let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else { return false };
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            tokio::select! {
                reply = sender.send_request(request) => has_passed(reply),
                () = drive_forever(connection) => false,
            }
        }
        ConnectionProtocol::Http2 => {
            let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
            let Ok((mut sender, connection)) = handshake.await else { return false };
            address.target.to_http2(&mut request);
            tokio::select! {
                reply = sender.send_request(request) => has_passed(reply),
                () = drive_forever(connection) => false,
            }
        }
    }
}

/// Drives a connection, and never completes.
async fn drive_forever(connection: impl Future) {
    connection.await;
    std::future::pending().await
}
