//! Interim replies (1xx) of legacy on their way to a client of HTTP/2, such as 103 Early Hints.
//!
//! Always true: those that wait for one exchange are bounded, and more are dropped and counted. A client of HTTP/1.1
//! gets none but `100 Continue`, which hyper sends by itself; hyper consumes the others, and `transport` counts them.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, Request, Response, StatusCode};
use metrics::counter;

use super::request_body::RequestBody;
use super::wait::ConnectionWait;
use crate::limits::INTERIM_REPLIES_MAX;

/// Those of one exchange that the client has not got.
#[derive(Clone, Default)]
pub(super) struct InterimReplies(Arc<Mutex<Vec<(StatusCode, HeaderMap)>>>);

impl InterimReplies {
    /// Has those that come for this request kept.
    pub(super) fn listen(self, request: &mut Request<RequestBody>, wait: &Arc<ConnectionWait>) {
        let wait = wait.clone();
        hyper::ext::on_informational(request, move |reply| {
            // 100 is the proxy's matter, and 101 is the end of the exchange.
            if matches!(reply.status(), StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
                return;
            }
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let has_room = waiting.len() < INTERIM_REPLIES_MAX;
            let outcome = if has_room { "passed" } else { "dropped" };
            counter!("pointsman_interim_replies_total", "outcome" => outcome).increment(1);
            if has_room {
                waiting.push((reply.status(), reply.headers().clone()));
                wait.waker.wake();
            }
        });
    }

    /// Takes those that came since the last time.
    pub(super) fn take(&self) -> Vec<Response<()>> {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let response = |(status, headers)| {
            let mut response = Response::new(());
            (*response.status_mut(), *response.headers_mut()) = (status, headers);
            response
        };
        waiting.into_iter().map(response).collect()
    }
}
