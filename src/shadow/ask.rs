//! Asks the engine to run one request.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http::StatusCode;
use tower::ServiceExt;

use super::engine_result::{EngineResult, refused, unresolved};
use super::legacy_calls::CallsOfRequest;
use super::run::Runner;
use super::run_facts::{awaited_intents, instance_ids};
use crate::compare::{Body, Observation};
use crate::exchange::{
    AnswerBody, Answered, ArmReply, ArmRequest, ComparisonOutcome, EarlierKeys, LegacyCalls, MayBegin, Reads, RunReport,
};
use crate::flag::{Instance, UnknownInstance};
use crate::limits::Limits;
use crate::workflow::Mode;

impl Runner {
    /// Asks the engine, for at most `shadow_run_ms`. `reads` answers the run's reads, or records them.
    pub(super) async fn ask(
        &self,
        answered: &Answered,
        reads: Option<Arc<dyn Reads>>,
    ) -> Result<EngineResult, ComparisonOutcome> {
        let route = &answered.flag.route;
        // `check` refuses a route above `off` without a workflow.
        let Some(workflow) = route.workflow.clone() else { return Err(ComparisonOutcome::Failed("no_workflow")) };
        let dark = answered.mode == Mode::Dark;
        let within = Limits::ms(self.limits.shadow_run_ms);
        let is_replay = reads.as_ref().is_some_and(|reads| reads.is_replay());
        let request = ArmRequest {
            route: route.id.clone(),
            files_version: answered.flags.files_version,
            workflow: Some(workflow),
            plans: answered.plans(),
            mode: answered.mode,
            request: Arc::clone(&answered.request),
            legacy: Some(Arc::clone(&answered.legacy)),
            legacy_calls: self.legacy_calls(answered, !is_replay),
            reads,
            instance: answered.instance.clone(),
            // Nobody waits for an answer, and legacy has the instance.
            unknown_instance: UnknownInstance::NotDeclared,
            instance_ids: instance_ids(answered),
            creates: match &route.instance {
                Some(Instance::Creates { id }) if dark => Some((answered.flag.family.clone(), id.clone())),
                Some(Instance::Creates { .. } | Instance::Follows { .. }) | None => None,
            },
            // Such a run claims no keys: legacy took the request, and a second try is found by `legacy_keys`.
            retry_keys: None,
            may_begin: if dark { MayBegin::UnlessFrozen } else { MayBegin::Always },
            earlier: EarlierKeys::none(),
            legacy_keys: (dark && route.keeps_runs).then(|| answered.legacy_keys.clone()),
            keep: route.keeps_runs,
            may_fall_back: false,
            deadline: within,
            awaited_intents: awaited_intents(answered, &self.rules_of(answered.compared_as())),
            set_in_use: None,
        };
        let started = Instant::now();
        let engine = self.engine.clone();
        let asked = AssertUnwindSafe(async move { engine.oneshot(request).await }).catch_unwind();
        match tokio::time::timeout(within, asked).await {
            Err(_) => Err(ComparisonOutcome::Failed("timeout")),
            Ok(Err(_)) => {
                tracing::error!(route = %route.id, "the engine panicked in a shadow run");
                Err(ComparisonOutcome::Failed("panic"))
            }
            Ok(Ok(Err(never))) => match never {},
            Ok(Ok(Ok(reply))) => {
                Ok(self.result_of(reply, started.elapsed()).skipped_if_unanswered(answered.reads.as_deref()))
            }
        }
    }

    /// Legacy's calls as of now, if steps take their outputs from them.
    fn legacy_calls(&self, answered: &Answered, is_counted: bool) -> Option<Arc<dyn LegacyCalls>> {
        let route = &answered.flag.route.id;
        let rules = self.rules_of(answered.compared_as());
        let effects = answered.effects.as_ref().filter(|_| rules.takes_replies())?;
        let of_candidate = answered.candidate.is_some();
        Some(Arc::new(CallsOfRequest::new(route.clone(), rules, effects, &self.limits, is_counted, of_candidate)))
    }

    fn result_of(&self, reply: ArmReply, latency: Duration) -> EngineResult {
        match reply {
            ArmReply::Answer(answer) => {
                let report = answer.report;
                if let Some((reason, detail)) = &report.unresolved {
                    tracing::debug!(run = ?report.run, %detail, reason = reason.as_str(), "not comparable");
                    return unresolved(*reason, answer.status, report, latency);
                }
                let fits = |body: &Bytes| body.len() as u64 <= self.limits.body_capture_bytes_max;
                let body = match answer.body {
                    AnswerBody::Whole(body) if fits(&body) => Body::Whole(body),
                    // Only an answer for a caller is streamed.
                    AnswerBody::Whole(_) | AnswerBody::Streamed(_) => Body::TooLarge,
                };
                let seen = Observation::new(answer.status, answer.headers, body, latency, report.intents.clone());
                EngineResult::Comparable(seen.with_steps_without_items(report.steps_without_items.clone()), report)
            }
            ArmReply::Refused(problem, report) => match report.unresolved.as_ref().map(|(reason, _)| *reason) {
                Some(reason) => {
                    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                    unresolved(reason, status, report, latency)
                }
                None => refused(problem, report, latency),
            },
            ArmReply::Abandoned(_) => {
                EngineResult::NotComparable(ComparisonOutcome::Failed("abandoned"), RunReport::default())
            }
        }
    }
}
