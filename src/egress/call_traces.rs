//! What the `traceparent` fields of a call say of its request. Trace Context, section 3.2: a request has at most one
//! such field; a call that has different ones names no request for certain.

use http::HeaderMap;

use crate::traces::TraceContext;

/// The traces that the fields of a call name.
pub(super) struct CallTraces {
    first: Option<TraceContext>,
    others: Vec<TraceContext>,
    /// Whether there are different fields, readable or not.
    has_different_fields: bool,
}

impl CallTraces {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let fields = headers.get_all("traceparent");
        let mut traces = fields.iter().filter_map(|field| TraceContext::parse(field.as_bytes()));
        let (first, others) = (traces.next(), traces.collect());
        let first_field = fields.iter().next();
        Self { first, others, has_different_fields: fields.iter().any(|field| Some(field) != first_field) }
    }
    /// The trace that the first readable field names.
    pub(super) fn first(&self) -> Option<TraceContext> {
        self.first
    }
    /// Whether different fields were sent.
    pub(super) fn has_different_fields(&self) -> bool {
        self.has_different_fields
    }
    /// All traces that the fields name.
    pub(super) fn all(&self) -> impl Iterator<Item = TraceContext> {
        self.first.iter().chain(&self.others).copied()
    }
    /// The ids of the traces.
    pub(super) fn ids(&self) -> impl Iterator<Item = u128> {
        self.all().map(|trace| trace.trace_id)
    }
}
