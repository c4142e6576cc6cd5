//! Interim replies (1xx) of legacy on their way to a client of HTTP/2, such as 103 Early Hints.
//!
//! Always true: the number of replies that wait for one exchange is bounded; further ones are dropped and counted. A
//! client of HTTP/1.1 gets no interim reply but `100 Continue`, which hyper sends by itself; hyper consumes the others,
//! and `transport` counts them.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, Request, Response, StatusCode};
use metrics::counter;

use super::request_body::RequestBody;
use super::wait::ConnectionWait;
use crate::limits::INTERIM_REPLIES_MAX;

/// The interim replies of one exchange that the client has not got yet.
#[derive(Clone, Default)]
pub(super) struct InterimReplies(Arc<Mutex<Vec<(StatusCode, HeaderMap)>>>);

impl InterimReplies {
    /// Collects the interim replies to this request.
    pub(super) fn listen(self, request: &mut Request<RequestBody>, wait: &Arc<ConnectionWait>) {
        let wait = wait.clone();
        hyper::ext::on_informational(request, move |reply| {
            // The proxy sends 100 itself, and 101 ends the exchange.
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

    /// Takes the replies that came since the last call.
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
