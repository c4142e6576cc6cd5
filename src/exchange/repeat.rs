//! A request that legacy gets after its client has the reply: a second time, to learn how legacy differs from itself;
//! or after the engine has answered it, to compare the engine's answer with legacy's (a reverse comparison).
//!
//! Always true: a [`RepeatRequest`] exists only for a request without a retry key of a route that is declared safe to
//! repeat. Only such a value is sent to legacy after a reply, so no other request reaches legacy twice, or both arms.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{Answered, EngineAnswered, RequestCopy};
use crate::compare::Observation;
use crate::flag::{Percent, Route, SentHost};
use crate::names::{RouteId, ServiceName};

/// Marks a repeated request, with its purpose: `pointsman-repeat: noise`.
pub const REPEAT_HEADER: HeaderName = HeaderName::from_static("pointsman-repeat");

/// The header fields that the repeated request lacks: those of the message itself, and those of its trace, because the
/// calls that legacy makes for the repeated request must not be attributed to the first one.
const FIELDS_LEFT_OUT: [HeaderName; 5] = [
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    EXPECT,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// Why legacy gets the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Legacy answered the request before: how does legacy differ from itself?
    Noise,
    /// The engine answered the request: what would legacy have answered?
    Reverse,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Reverse => "reverse",
        }
    }
}

/// A request to legacy that one of the arms has answered. The legacy of a route, as a tower
/// `Service<RepeatRequest, Response = RepeatReply, Error = Infallible>`, answers it.
#[derive(Clone)]
pub struct RepeatRequest {
    route: RouteId,
    service: ServiceName,
    request: Arc<RequestCopy>,
    headers: HeaderMap,
    within: Duration,
    purpose: Purpose,
}

/// What legacy did with it.
pub type RepeatReply = Result<Observation, NotRepeated>;

/// Why there is no reply that could be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotRepeated {
    /// The files in force do not say any more that the route is safe to repeat, or legacy no longer answers it.
    Forbidden,
    /// Nothing was sent: the process ends, or the service has as many calls as it may get.
    Refused,
    /// No whole reply came in time, it is too large, or legacy said 429 or 503.
    Failed,
}

impl NotRepeated {
    /// The label `outcome`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl RepeatRequest {
    /// The second copy of a request that was chosen to be repeated. `None` if its route is not declared safe to repeat,
    /// if it creates an instance or changes one, or if the request has a retry key: legacy would recognise the
    /// repetition.
    pub fn of(answered: &Answered, within: Duration) -> Option<Self> {
        let sent = answered.repeat.as_ref().filter(|_| answered.legacy_keys.keys.is_empty())?;
        Self::new(&answered.flag.route, &answered.request, sent, within, Purpose::Noise)
    }

    /// A request that the engine answered and that was chosen for a reverse comparison. `None` if its route is not
    /// declared safe to repeat, or if it creates an instance or changes one. The caller knows that it has no retry key.
    /// The calls that legacy makes for it are its own, so it gets a trace (`traceparent`) of its own.
    pub fn of_engine_answer(answered: &EngineAnswered, within: Duration, trace: HeaderValue) -> Option<Self> {
        let sent = &answered.reverse.as_ref()?.sent;
        let mut request = Self::new(&answered.flag.route, &answered.request, sent, within, Purpose::Reverse)?;
        request.headers.insert(HeaderName::from_static("traceparent"), trace);
        Some(request)
    }

    fn new(
        route: &Route,
        request: &Arc<RequestCopy>,
        sent: &HeaderMap,
        within: Duration,
        purpose: Purpose,
    ) -> Option<Self> {
        if !is_allowed(route, &request.method) {
            return None;
        }
        let mut headers = HeaderMap::clone(sent);
        FIELDS_LEFT_OUT.iter().for_each(|name| drop(headers.remove(name)));
        match &route.legacy.host {
            SentHost::Client => {}
            SentHost::Url => drop(headers.remove(HOST)),
            SentHost::Fixed(name) => {
                headers.insert(HOST, HeaderValue::from_str(name.as_str()).ok()?);
            }
        }
        headers.insert(REPEAT_HEADER, HeaderValue::from_static(purpose.as_str()));
        let (route, service) = (route.id.clone(), route.legacy.name.clone());
        Some(Self { route, service, request: Arc::clone(request), headers, within, purpose })
    }

    /// Its route.
    pub fn route(&self) -> &RouteId {
        &self.route
    }
    /// The service that answers the route.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }
    /// The request, without its headers.
    pub fn request(&self) -> &RequestCopy {
        &self.request
    }
    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
    /// How long the reply may take.
    pub fn within(&self) -> Duration {
        self.within
    }
    /// Whether the route, as the files in force declare it, still allows this request.
    pub fn is_allowed_by(&self, route: &Route) -> bool {
        let share = match self.purpose {
            Purpose::Noise => route.noise,
            Purpose::Reverse => route.reverse,
        };
        share > Percent::NONE && route.legacy.name == self.service && is_allowed(route, &self.request.method)
    }
}

/// Whether requests of this route and method may be sent to legacy a second time.
fn is_allowed(route: &Route, method: &Method) -> bool {
    let changes_instance = route.instance.is_some() && !method.is_safe();
    route.replay_safe && route.workflow.is_some() && !changes_instance
}
