//! What is counted and listed of the calls that legacy makes.
//!
//! Always true: what is returned of a call is redacted; the list is bounded. It is redacted when it is read, because
//! calls may come much more often than somebody reads the list, which is never stored.

use std::collections::{HashMap, VecDeque};

use http::Method;
use jiff::Timestamp;
use metrics::{Counter, counter};

use super::tunnels::TunnelCounts;
use crate::clock;
use crate::compare::{Effect, url_without_values};
use crate::limits::{EGRESS_LISTED_CALLS_MAX, EGRESS_LISTED_URL_BYTES_MAX};
use crate::names::{RouteId, ServiceName};
use crate::secret::{LengthMax, masked_and_cut, redact_line};

/// By what a call was attributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributedBy {
    /// The trace that legacy was sent.
    Traceparent,
    /// The declared header.
    Header,
    /// The declared value.
    Value,
}

impl AttributedBy {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            AttributedBy::Traceparent => "traceparent",
            AttributedBy::Header => "header",
            AttributedBy::Value => "value",
        }
    }
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectOutcome {
    /// It belongs to a request that is compared; by what it was attributed.
    Attributed(AttributedBy),
    /// It belongs to a request that is not compared.
    NotCompared,
    /// Several requests could have caused it.
    Ambiguous,
    /// No watched request caused it, as far as is known.
    Unattributed,
}

impl EffectOutcome {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            EffectOutcome::Attributed(_) => "attributed",
            EffectOutcome::NotCompared => "not_compared",
            EffectOutcome::Ambiguous => "ambiguous",
            EffectOutcome::Unattributed => "unattributed",
        }
    }

    fn by(self) -> &'static str {
        match self {
            EffectOutcome::Attributed(by) => by.as_str(),
            EffectOutcome::NotCompared | EffectOutcome::Ambiguous | EffectOutcome::Unattributed => "none",
        }
    }
}

/// The calls for the requests of one route since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteCalls {
    /// Requests that were watched.
    pub requests: u64,
    /// Of these, those whose `egress.window` after their end is over. Requests that were dropped before that, to make
    /// room for others, are not among them.
    pub closed: u64,
    /// Of the closed ones, those to which no call was attributed, and which could not have caused an ambiguous one.
    pub without_call: u64,
    /// Calls that were attributed by the trace.
    pub by_traceparent: u64,
    /// Calls that were attributed by the declared header.
    pub by_header: u64,
    /// Calls that were attributed by the declared value.
    pub by_value: u64,
}

/// All calls since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TotalCalls {
    /// Those of some request that is compared.
    pub attributed: u64,
    /// Those of requests that are not compared.
    pub not_compared: u64,
    /// Those that several requests could have caused.
    pub ambiguous: u64,
    /// Those of no watched request.
    pub unattributed: u64,
    /// Attributed ones that were not kept for the comparison, because there was no room.
    pub not_kept: u64,
    /// Requests that were not watched, or not until `egress.window` after their end, because there was no room.
    pub requests_left_out: u64,
    /// The same of requests that are not compared.
    pub uncompared_requests_left_out: u64,
}

/// A call that was attributed to no request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedCall {
    /// When it had ended.
    pub at: Timestamp,
    /// The service that it went to.
    pub service: Option<ServiceName>,
    /// The method.
    pub method: String,
    /// The URL, redacted and cut.
    pub url: String,
    /// [`EffectOutcome::Ambiguous`] or [`EffectOutcome::Unattributed`].
    pub outcome: EffectOutcome,
}

/// What is known of the calls for one route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EgressReport {
    /// The rule that applies besides the trace; `None` if there is none.
    pub correlate: Option<String>,
    /// For how long after its end calls are attributed to a request.
    pub window: std::time::Duration,
    /// The calls for this route.
    pub route: RouteCalls,
    /// All calls.
    pub total: TotalCalls,
    /// The last ones that were attributed to no request, newest first.
    pub listed: Vec<ListedCall>,
    /// The tunnels that legacy opened, for whatever request.
    pub tunnels: TunnelCounts,
}

/// All counts.
#[derive(Default)]
pub(super) struct Counts {
    routes: HashMap<RouteId, RouteCalls>,
    pub(super) total: TotalCalls,
    last: VecDeque<LastCall>,
    /// The counters of `pointsman_effects_total` that were used, by service.
    counters: HashMap<Option<ServiceName>, Vec<(EffectOutcome, Counter)>>,
}

/// A call that was attributed to no request, before redaction.
struct LastCall {
    at: Timestamp,
    service: Option<ServiceName>,
    method: Method,
    url: String,
    outcome: EffectOutcome,
}

impl LastCall {
    fn redacted(&self) -> ListedCall {
        let max = LengthMax::Bytes(EGRESS_LISTED_URL_BYTES_MAX);
        ListedCall {
            at: self.at,
            service: self.service.clone(),
            method: self.method.to_string(),
            url: masked_and_cut(&url_without_values(&self.url), redact_line, max),
            outcome: self.outcome,
        }
    }
}

impl Counts {
    pub(super) fn of(&self, route: &RouteId) -> RouteCalls {
        self.routes.get(route).copied().unwrap_or_default()
    }

    pub(super) fn route(&mut self, route: &RouteId) -> &mut RouteCalls {
        self.routes.entry(route.clone()).or_default()
    }

    pub(super) fn listed(&self) -> Vec<ListedCall> {
        self.last.iter().rev().map(LastCall::redacted).collect()
    }

    /// Counts a call, and lists it if it belongs to no request.
    pub(super) fn count(&mut self, effect: &Effect, outcome: EffectOutcome, route: Option<&RouteId>) {
        self.increment(&effect.service, outcome);
        match outcome {
            EffectOutcome::Attributed(by) => {
                self.total.attributed += 1;
                if let Some(route) = route {
                    let calls = self.route(route);
                    match by {
                        AttributedBy::Traceparent => calls.by_traceparent += 1,
                        AttributedBy::Header => calls.by_header += 1,
                        AttributedBy::Value => calls.by_value += 1,
                    }
                }
            }
            EffectOutcome::NotCompared => self.total.not_compared += 1,
            EffectOutcome::Ambiguous => {
                self.total.ambiguous += 1;
                self.list(effect, outcome);
            }
            EffectOutcome::Unattributed => {
                self.total.unattributed += 1;
                self.list(effect, outcome);
            }
        }
    }

    /// Counts one call. The counters are kept, because a lookup of one by its labels takes longer than all else here.
    fn increment(&mut self, service: &Option<ServiceName>, outcome: EffectOutcome) {
        let counters = self.counters.entry(service.clone()).or_default();
        if let Some((_, counter)) = counters.iter().find(|(of, _)| *of == outcome) {
            return counter.increment(1);
        }
        let name = service.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
        let (label, by) = (outcome.as_str(), outcome.by());
        let counter = counter!("pointsman_effects_total", "service" => name, "outcome" => label, "by" => by);
        counter.increment(1);
        counters.push((outcome, counter));
    }

    fn list(&mut self, effect: &Effect, outcome: EffectOutcome) {
        if self.last.len() >= EGRESS_LISTED_CALLS_MAX {
            self.last.pop_front();
        }
        let (at, service) = (clock::now(), effect.service.clone());
        let (method, url) = (effect.method.clone(), effect.url.clone());
        self.last.push_back(LastCall { at, service, method, url, outcome });
    }
}
