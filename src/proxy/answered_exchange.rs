//! An exchange that has its answer.
//!
//! Always true: the exchange is counted once, and its record is handed to the access log, when the client's socket has
//! taken the last byte of the answer, or when the client's connection ends earlier.

use std::borrow::Cow;
use std::sync::Arc;

use http::StatusCode;

use super::admission::Admission;
use super::after_answer::AfterAnswer;
use super::cut_reason::CutReason;
use super::exchange_record::ExchangeRecord;
use super::monotonic::now;
use super::route_metrics::{AnsweredBy, CodeClass, RouteMetrics};
use super::streamed_served::StreamedServed;
use super::workflow_gate::InProgress;
use crate::exchange::OpenWriteGuard;
use crate::flag::State;

/// The facts of an exchange that has its answer.
pub(super) struct AnsweredExchange {
    pub route_metrics: Arc<RouteMetrics>,
    pub rung: State,
    pub answered_by: AnsweredBy,
    pub status: StatusCode,
    /// When the request's head was complete, in microseconds of `monotonic::now`.
    pub began: u64,
    /// Whether the answer is to say which arm gave it.
    pub exposes_arm: bool,
    /// Why the request was answered with a problem, if it was.
    pub refused: Option<Cow<'static, str>>,
    /// Set for an answer of the engine that counts for the evidence when its body has ended.
    pub served: Option<Box<StreamedServed>>,
    /// Why the answer was cut, if it was.
    pub cut: Option<CutReason>,
    /// What the request holds, if it is limited.
    pub admission: Option<Box<Admission>>,
    /// What the access log gets, if there is one.
    pub record: Option<ExchangeRecord>,
    /// Set if the route has a workflow: the request counts as in progress until what was copied of it is handed on.
    pub in_progress: Option<InProgress>,
    /// Set if the request may change something: counts it as an open write until the exchange has ended.
    pub write: Option<OpenWriteGuard>,
    /// What is done with an answer of the engine once the exchange has ended.
    pub after: Option<Box<AfterAnswer>>,
}

impl AnsweredExchange {
    /// Counts and logs the exchange, which has ended.
    pub(super) fn end(self) {
        let AnsweredExchange {
            route_metrics,
            rung,
            answered_by,
            status,
            began,
            refused,
            served,
            cut,
            record,
            after,
            ..
        } = self;
        if let Some(after) = after {
            after.end();
        }
        // Only a streamed body can end because of its sender, which is a service if the engine answered.
        let cut = if answered_by == AnsweredBy::Engine { cut.map(CutReason::of_service) } else { cut };
        let code_class = if cut.is_some() { CodeClass::Cut } else { CodeClass::of(status) };
        route_metrics.count_answer(rung, answered_by, code_class, now().saturating_sub(began));
        cut.into_iter().for_each(CutReason::count);
        served.into_iter().for_each(|served| served.count(cut));
        if let Some(mut record) = record {
            record.note(|record| {
                (record.status, record.arm) = (Some(status.as_u16()), Some(answered_by.as_str()));
                record.failure = refused;
            });
            record.end(cut);
        }
    }
}
