//! How the calls that legacy makes reach the requests that they were made for: what observes the calls, and what knows
//! the requests.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::{CallTarget, RequestCopy, RequestEffects};
use crate::compare::Effect;
use crate::names::RouteId;

/// Is told of the calls that legacy makes through the egress listener. No method is async or waits.
pub trait EffectObserver: Send + Sync {
    /// Whether calls are captured now. If not, nothing of a call is copied.
    fn is_watching(&self) -> bool;
    /// Records that a call begins. `head` is the call without its body, which is still to come. The call counts as open
    /// until exactly one of [`Self::observe`] and [`Self::lose`] is called with its number. Takes constant time.
    fn begin(&self, head: &Effect, body: Option<Arc<dyn SentBody>>);
    /// Counts a tunnel as open until the returned value is dropped. What legacy calls through a tunnel is not seen.
    fn tunnel(&self, _to: CallTarget) -> Box<dyn Send> {
        Box::new(())
    }
    /// Takes a call that has ended. Not called by a thread that serves clients or legacy.
    fn observe(&self, effect: Effect);
    /// Records that a call will not be observed because there was no room for it. Takes constant time.
    fn lose(&self, number: u64);
}

/// Knows the requests for which legacy may make calls. No method is async or waits.
pub trait EffectRegistry: Send + Sync {
    /// Watches a request that is about to be sent to legacy: calls can be attributed to it until some time after the
    /// returned watch was dropped. If there is no room, only the existence of the request is remembered for that time,
    /// and a call that it may have caused is attributed to no other request either.
    fn watch(&self, request: RequestToWatch<'_>) -> Box<dyn EffectWatch>;
    /// The size up to which the body of a request has to be copied so that calls can be attributed to the request;
    /// `None` if attribution does not read bodies.
    fn body_bytes_max(&self) -> Option<usize>;
}

/// A request that is about to be sent to legacy.
pub struct RequestToWatch<'a> {
    /// Its route, if it is compared. `None`: it is watched only so that its calls are not
    /// attributed to a request that is compared.
    pub compared: Option<&'a RouteId>,
    /// Makes a copy of the request as the client sent it; the body is still to come.
    pub request: &'a dyn Fn() -> RequestCopy,
    /// The headers as legacy gets them, `traceparent` included.
    pub sent: &'a HeaderMap,
    /// The body; `None` if it has none.
    pub body: Option<Arc<dyn SentBody>>,
}

/// The body of a request that is being sent to legacy, or of a call that legacy is sending.
pub trait SentBody: Send + Sync {
    /// All of it; `None` while it is being sent, and if it is too large to be captured. Takes constant time.
    fn whole(&self) -> Option<Bytes>;
}

/// A request that is watched. Dropped when its exchange has ended.
pub trait EffectWatch: Send + Sync {
    /// The calls that are attributed to it. `None`: there was no room, and nothing is said about its calls.
    fn effects(&self) -> Option<RequestEffects>;
    /// Reports that the reply was passed on. Called by a thread for which no client waits, so that it may do the work
    /// that [`EffectRegistry::watch`] put off: indexing the watched requests.
    fn reply_passed_on(&self);
}
