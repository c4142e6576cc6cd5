//! What evidence knows of a request that was offered for a comparison.

use std::sync::Arc;

use http::{Method, StatusCode};

use crate::flag::{SkipReason, State, StratumValue};
use crate::names::RouteId;

/// A request that was offered for a comparison, as far as evidence is concerned.
#[derive(Clone, Debug)]
pub struct OfferedRequest {
    /// Its route.
    pub route: RouteId,
    /// The version of the files that decided it.
    pub files_version: u64,
    /// The rung on which it was decided.
    pub rung: State,
    /// Its method.
    pub method: Method,
    /// The name of its caller's cohort.
    pub cohort: Option<Arc<str>>,
    /// Its value of the route's `promote.strata_by`.
    pub declared: Option<StratumValue>,
    /// The status of legacy's reply; `None` if there was no reply, or if it is not known.
    pub legacy_status: Option<StatusCode>,
}

impl OfferedRequest {
    /// A request of a route, decided by this version of the files: a GET in `shadow`, outside cohorts, without a reply.
    pub fn new(route: impl Into<RouteId>, files_version: u64) -> Self {
        let (rung, method) = (State::Shadow, Method::GET);
        Self { route: route.into(), files_version, rung, method, cohort: None, declared: None, legacy_status: None }
    }

    /// Whether evidence has less coverage because this request was skipped for this reason. Not counted:
    /// - a request that the route's share left out, or that repeats another one;
    /// - a request without a whole reply of legacy;
    /// - a request of an instance for which the engine would not answer;
    /// - a read with a condition (`If-None-Match`): reads without one are compared in its place.
    pub fn counts_against_coverage(&self, reason: SkipReason) -> bool {
        reason.may_count_against_coverage() && (reason != SkipReason::Conditional || !self.method.is_safe())
    }

    /// Whether legacy answered with an error (4xx or 5xx).
    pub fn is_error_of_legacy(&self) -> bool {
        self.legacy_status.is_some_and(|status| status.as_u16() >= 400)
    }

    /// Whether legacy answered that it failed itself.
    pub fn is_failure_of_legacy(&self) -> bool {
        self.legacy_status.is_some_and(|status| status.is_server_error())
    }

    /// The kind of request for which evidence is kept apart: method, class of legacy's status, cohort and declared
    /// value, as in `POST 2xx staff "web"`. `None` for a request that is never compared: one without a reply, a HEAD,
    /// and one whose reply answers a condition, a range or an upgrade, or says that legacy is overloaded (429, 503).
    pub fn stratum(&self) -> Option<String> {
        let status = self.legacy_status?;
        let is_compared = match status {
            StatusCode::SWITCHING_PROTOCOLS
            | StatusCode::PARTIAL_CONTENT
            | StatusCode::NOT_MODIFIED
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::RANGE_NOT_SATISFIABLE
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE => false,
            _ => self.method != Method::HEAD,
        };
        is_compared.then(|| {
            let cohort = self.cohort.as_ref().map(|cohort| format!(" {cohort}")).unwrap_or_default();
            let declared = self.declared.as_ref().map(|value| format!(" {}", value.shown)).unwrap_or_default();
            format!("{} {}xx{cohort}{declared}", self.method, status.as_u16() / 100)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, status: Option<u16>) -> OfferedRequest {
        let legacy_status = status.map(|status| StatusCode::from_u16(status).unwrap());
        OfferedRequest { method, legacy_status, ..OfferedRequest::new("r", 0) }
    }

    #[test]
    fn a_stratum_is_named_by_method_status_class_and_cohort() {
        assert_eq!(request(Method::POST, Some(201)).stratum().as_deref(), Some("POST 2xx"));
        let of_staff = OfferedRequest { cohort: Some("staff".into()), ..request(Method::GET, Some(404)) };
        assert_eq!(of_staff.stratum().as_deref(), Some("GET 4xx staff"));
        let declared = Some(StratumValue { key: "k".into(), shown: "\"web\"".into() });
        let of_channel = OfferedRequest { declared: declared.clone(), ..request(Method::GET, Some(200)) };
        assert_eq!(of_channel.stratum().as_deref(), Some("GET 2xx \"web\""));
        let of_both = OfferedRequest { declared, ..of_staff };
        assert_eq!(of_both.stratum().as_deref(), Some("GET 4xx staff \"web\""));
    }

    #[test]
    fn what_is_never_compared_is_of_no_stratum() {
        for status in [None, Some(304), Some(206), Some(412), Some(429), Some(503)] {
            assert_eq!(request(Method::GET, status).stratum(), None, "{status:?}");
        }
        assert_eq!(request(Method::HEAD, Some(200)).stratum(), None);
    }

    #[test]
    fn only_a_write_with_a_condition_counts_against_coverage() {
        assert!(request(Method::PUT, None).counts_against_coverage(SkipReason::Conditional));
        assert!(!request(Method::GET, None).counts_against_coverage(SkipReason::Conditional));
        assert!(!request(Method::PUT, None).counts_against_coverage(SkipReason::NotSampled));
        assert!(request(Method::PUT, None).counts_against_coverage(SkipReason::QueueFull));
    }
}
