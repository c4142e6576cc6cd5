//! A request that has been answered.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};

use super::KeysOfLegacy;
use crate::compare::Observation;
use crate::flag::{FlagSet, InstanceId, RouteFlag};
use crate::workflow::Mode;

/// A request as the engine sees it: read whole, the path resolved.
#[derive(Clone, Debug)]
pub struct RequestCopy {
    /// The method.
    pub method: Method,
    /// The resolved path: the one that was matched and forwarded.
    pub path: String,
    /// The raw query.
    pub query: Option<String>,
    /// The parameters of the route's path template, by name.
    pub params: Vec<(Arc<str>, String)>,
    /// The headers as the client sent them, hop-by-hop ones removed.
    pub headers: HeaderMap,
    /// Names the span that the engine's work is a child of. `None` where spans are not recorded: then the header of
    /// that name is passed on.
    pub traceparent: Option<HeaderValue>,
    /// The whole body.
    pub body: Bytes,
    /// The client's address.
    pub peer: IpAddr,
}

impl RequestCopy {
    /// The `traceparent` of whoever asks for the engine's work.
    pub fn caller_trace(&self) -> Option<&HeaderValue> {
        self.traceparent.as_ref().or_else(|| self.headers.get("traceparent"))
    }
    /// The digest of the request: requests with equal digests count as the same request.
    pub fn digest(&self) -> [u8; 32] {
        self.digest_with(&self.path)
    }
    /// The digest that it had with this path.
    pub fn digest_with(&self, path: &str) -> [u8; 32] {
        request_digest(&self.method, path, self.query.as_deref(), &self.body)
    }
}

/// The digest of a request. Of requests with one retry key, those with equal digests count as the same request. If the
/// files change how paths are spelled when they are forwarded, a retry has the path of the earlier files in one of
/// [`EarlierKeys::paths`](super::EarlierKeys::paths).
pub fn request_digest(method: &Method, path: &str, query: Option<&str>, body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in [method.as_str(), path, query.unwrap_or("")] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(body);
    *hasher.finalize().as_bytes()
}

/// A request that legacy has answered completely, with what the engine needs. Only the code that has seen the reply's
/// end builds it.
#[derive(Clone)]
pub struct Answered {
    /// The flag set by which it was decided.
    pub flags: Arc<FlagSet>,
    /// Its route.
    pub flag: Arc<RouteFlag>,
    /// [`Mode::Rehearse`] or [`Mode::Dark`].
    pub mode: Mode,
    /// The request.
    pub request: Arc<RequestCopy>,
    /// What legacy did.
    pub legacy: Arc<Observation>,
    /// The instance that it follows up.
    pub instance: Option<InstanceId>,
    /// All keys under which legacy took it.
    pub legacy_keys: KeysOfLegacy,
}

impl Answered {
    /// Bytes of memory that it holds: bodies, and a flat amount for heads.
    pub fn bytes(&self) -> usize {
        let body = match self.legacy.body() {
            crate::compare::Body::Whole(bytes) => bytes.len(),
            crate::compare::Body::TooLarge => 0,
        };
        self.request.body.len() + body + 2_048
    }
}
