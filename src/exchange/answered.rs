//! A request that has been answered.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};

use super::{KeysOfLegacy, Reads, RequestEffects, TimeAtLegacy};
use crate::compare::Observation;
use crate::flag::{FlagSet, InstanceId, RouteFlag, loosest_spelling};
use crate::names::{PlanSet, RouteId, RunId};
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
    /// The `traceparent` that names the span of which the engine's work is a child. `None` where spans are not
    /// recorded: then the client's own header `traceparent` is passed on.
    pub traceparent: Option<HeaderValue>,
    /// The whole body.
    pub body: Bytes,
    /// The client's address.
    pub peer: IpAddr,
}

impl RequestCopy {
    /// The `traceparent` under which the engine works.
    pub fn caller_trace(&self) -> Option<&HeaderValue> {
        self.traceparent.as_ref().or_else(|| self.headers.get("traceparent"))
    }
    /// See [`RequestDigests::present`].
    pub fn digest(&self) -> [u8; 32] {
        digest(&self.method, &loosest_spelling(&self.path), self.query.as_deref(), &self.body)
    }
    /// See [`RequestDigests::of_earlier_versions`]. The body is hashed only if there is such a digest.
    pub fn digest_of_earlier_versions(&self) -> Option<[u8; 32]> {
        digest_of_earlier_versions(&self.method, &self.path, self.query.as_deref(), &self.body)
    }
}

/// The digests of a request. Of requests with one retry key, those with equal digests count as the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestDigests {
    /// The digest under which it is recorded. Spellings of a path that some service may take for the same have the same
    /// digest, so it does not change if the files change how paths are read while a retry is on its way.
    pub present: [u8; 32],
    /// The digest under which earlier versions of Pointsman recorded it, if it differs: they hashed the path as it is
    /// forwarded.
    pub of_earlier_versions: Option<[u8; 32]>,
}

impl RequestDigests {
    /// The digests of a request with this resolved path.
    pub fn of(method: &Method, path: &str, query: Option<&str>, body: &[u8]) -> Self {
        Self {
            present: digest(method, &loosest_spelling(path), query, body),
            of_earlier_versions: digest_of_earlier_versions(method, path, query, body),
        }
    }
    /// Both digests.
    pub fn all(&self) -> impl Iterator<Item = [u8; 32]> + use<> {
        [self.present].into_iter().chain(self.of_earlier_versions)
    }
}

fn digest_of_earlier_versions(method: &Method, path: &str, query: Option<&str>, body: &[u8]) -> Option<[u8; 32]> {
    (loosest_spelling(path) != path).then(|| digest(method, path, query, body))
}

fn digest(method: &Method, path: &str, query: Option<&str>, body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in [method.as_str(), path, query.unwrap_or("")] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(body);
    *hasher.finalize().as_bytes()
}

/// A request that has been answered completely, with what the engine needs: by legacy, or, if `candidate` is set, by
/// the engine with the plan in force. Only the code that has seen the reply's end builds it.
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
    /// What legacy did; if `candidate` is set, what the plan in force did.
    pub legacy: Arc<Observation>,
    /// The instance that it follows up.
    pub instance: Option<InstanceId>,
    /// All keys under which legacy took it.
    pub legacy_keys: KeysOfLegacy,
    /// The calls that legacy made for it, which may still grow. `None` if nothing watches legacy's calls, or there was
    /// no room to watch those of this request: then nothing is said about its effects.
    pub effects: Option<RequestEffects>,
    /// Answers the reads of the engine's run in place of the services, where a capture is rehearsed.
    pub reads: Option<Arc<dyn Reads>>,
    /// If it was chosen to be sent to legacy a second time: the headers with which legacy got it.
    pub repeat: Option<Arc<HeaderMap>>,
    /// Set if the engine answered: the request is then compared with the candidate of its route, and `legacy` is what
    /// the plan in force did.
    pub candidate: Option<ForCandidate>,
    /// When legacy had it, if it was announced as a request of an instance ([`super::Offer::announce`]).
    pub at_legacy: Option<TimeAtLegacy>,
}

/// What the comparison of a candidate needs in addition to the answered request.
#[derive(Clone, Debug)]
pub struct ForCandidate {
    /// The candidate's plans.
    pub plans: Arc<PlanSet>,
    /// The id under which its evidence and its rules are kept.
    pub id: RouteId,
    /// The run that answered with the plans in force; `None` if it is not stored (a run that only reads need not be).
    pub control: Option<RunId>,
}

impl Answered {
    /// The id under which the outcome counts: that of the route, or of its candidate.
    pub fn compared_as(&self) -> &RouteId {
        self.candidate.as_ref().map_or(&self.flag.route.id, |candidate| &candidate.id)
    }
    /// The plans to run; `None` if the files decide.
    pub fn plans(&self) -> Option<Arc<PlanSet>> {
        match &self.candidate {
            Some(candidate) => Some(Arc::clone(&candidate.plans)),
            None => self.flag.plans.as_ref().map(|plans| Arc::clone(&plans.in_force)),
        }
    }
    /// Bytes of memory that it holds: bodies, and a flat amount for heads.
    pub fn bytes(&self) -> usize {
        let body = match self.legacy.body() {
            crate::compare::Body::Whole(bytes) => bytes.len(),
            crate::compare::Body::TooLarge => 0,
        };
        self.request.body.len() + body + 2_048
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_that_some_service_takes_for_the_same_are_one_request() {
        let digests = |path: &str| RequestDigests::of(&Method::POST, path, Some("a=1"), b"{}");
        let canonical = digests("/orders/17/cancel");
        assert_eq!(canonical.of_earlier_versions, None);
        assert_eq!(canonical.present[..4], [216, 245, 254, 179], "stored digests stay valid");
        for path in [
            "/Orders/17/CANCEL",
            "/orders/17/cancel/",
            "/orders/17/cancel.json",
            "/orders/17/cancel.v1.json",
            "/orders/17/cancel;jsessionid=1",
            "/orders;v=1/17/cancel",
            "/%6Frders/17/cancel",
        ] {
            let digests = digests(path);
            assert_eq!(digests.present, canonical.present, "{path}");
            assert!(digests.of_earlier_versions.is_some_and(|earlier| earlier != digests.present), "{path}");
        }
        for path in ["/orders/18/cancel", "/orders/17", "/orders/17/cancel/x", "/orders17/cancel"] {
            assert_ne!(digests(path).present, canonical.present, "{path}");
        }
        let others = [
            RequestDigests::of(&Method::PUT, "/orders/17/cancel", Some("a=1"), b"{}"),
            RequestDigests::of(&Method::POST, "/orders/17/cancel", Some("A=1"), b"{}"),
            RequestDigests::of(&Method::POST, "/orders/17/cancel", Some("a=1"), b"{} "),
        ];
        for other in others {
            assert_ne!(other.present, canonical.present);
        }
    }
}
