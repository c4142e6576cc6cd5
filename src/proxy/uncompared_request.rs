//! A request that goes to legacy and is not compared, where legacy's own calls are watched.
//!
//! Always true: such a request is announced before legacy gets it, like a compared request. Otherwise a call that
//! legacy makes for it could be attributed to a compared request of the same trace or value. Its body is copied only
//! where the attribution rule in the files reads bodies, and up to the size that the rule reads.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use http::Request;

use super::body_copy::BodyCopy;
use super::request_body::RequestBody;
use crate::exchange::{EffectRegistry, EffectWatch, RequestCopy, RequestToWatch, SentBody};

/// A request that is sent to legacy, is not compared, and still has to be announced to the effect registry.
pub(super) struct UncomparedRequest<'a> {
    registry: &'a dyn EffectRegistry,
    body: Option<Arc<Mutex<BodyCopy>>>,
}

impl<'a> UncomparedRequest<'a> {
    /// Prepares the announcement. Returns the body that goes to legacy, which is copied on its way if the rule reads
    /// bodies.
    pub(super) fn begin(registry: &'a dyn EffectRegistry, body: RequestBody) -> (Self, RequestBody) {
        let bytes_max = registry.body_bytes_max().filter(|_| !http_body::Body::is_end_stream(&body));
        let copy = bytes_max.map(|bytes_max| Arc::new(Mutex::new(BodyCopy { bytes_max, ..BodyCopy::default() })));
        (Self { registry, body: copy.clone() }, body.copied_to(copy))
    }

    /// Announces the request as it is about to be sent to legacy. The caller holds the returned value until the
    /// exchange has ended.
    pub(super) fn announce(
        self,
        request: &Request<RequestBody>,
        params: &[(Arc<str>, String)],
        peer: IpAddr,
    ) -> Box<dyn EffectWatch> {
        let copy = || RequestCopy {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().map(str::to_owned),
            params: params.to_vec(),
            headers: request.headers().clone(),
            traceparent: None,
            body: bytes::Bytes::new(),
            peer,
        };
        let body = self.body.map(|copy| copy as Arc<dyn SentBody>);
        self.registry.watch(RequestToWatch { compared: None, request: &copy, sent: request.headers(), body })
    }
}
