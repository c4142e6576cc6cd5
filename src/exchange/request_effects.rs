//! The calls that legacy made for one request, as the comparison gets them.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;

use crate::compare::{Effect, authority_of_url, has_dot_segments, path_of_url, path_without_values};
use crate::names::ServiceName;

/// The calls that legacy made for one request. Calls may be added after the request was answered. Cheap to clone.
#[derive(Clone, Default)]
pub struct RequestEffects {
    calls: Arc<AttributedCalls>,
    open: Option<Arc<dyn OpenCallsView>>,
}

/// What is known of calls that could be for one request and are not among its calls.
pub trait OpenCallsView: Send + Sync {
    /// How many such calls have begun and not ended yet.
    fn count(&self) -> u64;
    /// The calls since the request came that may have changed something and are among no request's calls, because they
    /// were attributed to no request, are still open and for no watched request, or went through a tunnel.
    fn unattributed_writes(&self) -> UnattributedWrites;
}

/// Calls by legacy that may have changed something and are among no request's calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnattributedWrites {
    /// The targets of those that were seen.
    pub calls: Vec<Arc<CallTarget>>,
    /// Whether there may have been others, which were not seen.
    pub may_have_others: bool,
}

impl UnattributedWrites {
    /// Whether there certainly were none.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty() && !self.may_have_others
    }
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallTarget {
    /// The service, if it is a known one.
    pub service: Option<ServiceName>,
    /// Host and port, in lower case.
    pub authority: String,
    /// The method; `CONNECT` for a tunnel.
    pub method: Method,
    /// The path, without the query; empty for a tunnel.
    pub path: String,
}

/// Method, service (or host) and path, without values that may be ids: `POST bank/points`.
impl fmt::Display for CallTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = self.service.as_ref().map_or(self.authority.as_str(), ServiceName::as_str);
        write!(f, "{} {to}{}", self.method, path_without_values(&self.path))
    }
}

impl CallTarget {
    /// The target of a call.
    pub fn of(call: &Effect) -> Self {
        Self {
            service: call.service.clone(),
            authority: authority_of_url(&call.url),
            method: call.method.clone(),
            path: path_of_url(&call.url).to_owned(),
        }
    }
    /// The target of all calls that differ from this one only in values of the path, with `{}` in place of each value.
    /// Dot segments stay, because they make it another path.
    pub fn without_values(&self) -> Self {
        let shown = |segment: &str| match has_dot_segments(segment) {
            true => "..".to_owned(),
            false => path_without_values(segment),
        };
        let path = self.path.split('/').map(shown).collect::<Vec<_>>().join("/");
        Self { path, ..self.clone() }
    }
}

#[derive(Default)]
struct AttributedCalls {
    calls: Mutex<Vec<Attributed>>,
    /// How many calls `calls` may lack: it is not known whether they are this request's, or they were not kept.
    gaps: AtomicU64,
    /// For how long after the exchange has ended calls may be added.
    window: Duration,
}

struct Attributed {
    effect: Effect,
    /// Accounts for the memory that the effect takes.
    _held: Box<dyn Any + Send>,
}

/// The calls of a request at one moment.
#[derive(Clone, Debug)]
pub struct EffectsSoFar {
    /// In the order in which they began.
    pub calls: Vec<Effect>,
    /// Calls that may be this request's too, because several requests could have caused them, or that were not kept. If
    /// there are any, a call that seems to be missing may be one of them.
    pub gaps: u64,
    /// How many calls have begun, are not attributed yet, and could be this request's. They end too late to be among
    /// `calls`, so they are only counted.
    pub open: u64,
}

impl RequestEffects {
    /// No calls so far; calls may be added until `window` after the exchange has ended.
    pub fn new(window: Duration) -> Self {
        Self { calls: Arc::new(AttributedCalls { window, ..AttributedCalls::default() }), open: None }
    }
    /// The same calls, with a view of those that are still open.
    pub fn with_open_calls(&self, open: Arc<dyn OpenCallsView>) -> Self {
        Self { calls: self.calls.clone(), open: Some(open) }
    }
    /// For how long after the exchange has ended calls may be added.
    pub fn window(&self) -> Duration {
        self.calls.window
    }
    /// Adds a call. `held` is dropped together with it.
    pub fn add(&self, effect: Effect, held: Box<dyn Any + Send>) {
        self.lock().push(Attributed { effect, _held: held });
    }
    /// Counts a call that may be this request's, or that was not kept.
    pub fn add_gap(&self) {
        self.calls.gaps.fetch_add(1, Relaxed);
    }
    /// How many calls it has.
    pub fn len(&self) -> usize {
        self.lock().len()
    }
    /// Whether it has no call.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// How many calls that are not in the list may have been made for this request.
    pub fn gaps(&self) -> u64 {
        self.calls.gaps.load(Relaxed)
    }
    /// The calls that may have changed something, could be its own, and are not among its calls.
    pub fn unattributed_writes(&self) -> UnattributedWrites {
        self.open.as_ref().map(|open| open.unattributed_writes()).unwrap_or_default()
    }
    /// A copy of what is known now.
    pub fn so_far(&self) -> EffectsSoFar {
        // Read before the calls: one that ends in between counts twice rather than not at all.
        let open = self.open.as_ref().map_or(0, |open| open.count());
        let mut calls: Vec<Effect> = self.lock().iter().map(|attributed| attributed.effect.clone()).collect();
        calls.sort_by_key(|effect| effect.number);
        EffectsSoFar { calls, gaps: self.gaps(), open }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Attributed>> {
        self.calls.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for RequestEffects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestEffects({} calls, {} gaps)", self.len(), self.gaps())
    }
}
