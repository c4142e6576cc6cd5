//! What is said to a run: orders, answers, signals.
//!
//! Always true: what was taken is on disk when it is answered, and the answer is the run after it; what is refused
//! names the run's status and the reason.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::{Seen, envelope, find, start};
use crate::admin::extract::{Ask, Named};
use crate::admin::guard::Who;
use crate::admin::problem::Refusal;
use crate::admin::types::{
    AdjustAsk, AnswerAsk, CancelAsk, ChoiceName, Delivery, Orchestration, PlainAsk, RerunAsk, ResolveAsk, RetryAsk,
    SignalAsk, SkipAsk,
};
use crate::admin::{Admin, Answer};
use crate::names::{CheckpointId, RunId, StepId};
use crate::workflow::{Choice, Order, Said};

/// An answer that was taken is on disk within this time, or its time is not shown.
const ANSWER_KEPT_MAX: Duration = Duration::from_secs(2);

/// Says it, and shows the run after it.
async fn say(admin: &Admin, id: &str, who: &Who, by: Option<&str>, order: Order) -> Answer<Orchestration> {
    let by = who.name(by)?;
    let run = find(admin, id).await?;
    let step = match &order {
        Order::Skip { step, .. } | Order::Adjust { step, .. } | Order::Resolve { step, .. } => Some(step.clone()),
        Order::Retry { step } => step.clone(),
        Order::Pause { .. }
        | Order::Resume { .. }
        | Order::Cancel { .. }
        | Order::Answer { .. }
        | Order::HandOver { .. }
        | Order::Signal { .. } => None,
    };
    if let Err(error) = admin.parts.desk.order(run, order, by).await {
        return Err(told(admin, run, step.as_ref(), Refusal::not_done(error, &run.to_string())).await);
    }
    Ok(Json(Seen::read(admin, run).await?.envelope(admin, Delivery::Sync)))
}

/// A refusal with what a person needs to see of the run.
async fn told(admin: &Admin, run: RunId, step: Option<&StepId>, mut refusal: Refusal) -> Refusal {
    if refusal.0.kind.ends_with(":unknown-step")
        && let (Some(step), Ok(seen)) = (step, Seen::read(admin, run).await)
    {
        let known = seen.planned().chain(seen.view.steps.iter().map(|step| step.step.as_str()));
        let known: std::collections::BTreeSet<&str> = known.collect();
        refusal = Refusal::unknown("step", step.as_str(), known.into_iter());
        // The run that was asked is there: what is said to it names what is not.
        refusal.0.status = StatusCode::UNPROCESSABLE_ENTITY.as_u16();
        refusal.0.run_id = Some(run.to_string());
        refusal.0.run_status = Some(seen.view.status);
    }
    if let Some(first) = &mut refusal.0.first {
        // It may be on its way to the disk still.
        let before = crate::names::Seq(first.seq.saturating_sub(1));
        admin.parts.desk.beyond(run, before, ANSWER_KEPT_MAX).await;
    }
    if let Some(first) = &mut refusal.0.first
        && let Ok(events) = admin.parts.store.events(run, crate::names::Seq(first.seq)).await
    {
        first.at = events.first().map(|stored| stored.at);
    }
    refusal
}

pub(in crate::admin) async fn pause(
    admin: Admin,
    Named(id): Named<String>,
    Ask(ask, who): Ask<PlainAsk>,
) -> Answer<Orchestration> {
    let PlainAsk { reason, by } = ask;
    say(&admin, &id, &who, by.as_deref(), Order::Pause { reason }).await
}

pub(in crate::admin) async fn resume(
    admin: Admin,
    Named(id): Named<String>,
    Ask(ask, who): Ask<PlainAsk>,
) -> Answer<Orchestration> {
    let PlainAsk { reason, by } = ask;
    say(&admin, &id, &who, by.as_deref(), Order::Resume { reason }).await
}

pub(in crate::admin) async fn cancel(
    admin: Admin,
    Named(id): Named<String>,
    Ask(ask, who): Ask<CancelAsk>,
) -> Answer<Orchestration> {
    let CancelAsk { compensate, reason, by } = ask;
    say(&admin, &id, &who, by.as_deref(), Order::Cancel { compensate, reason }).await
}

pub(in crate::admin) async fn skip(
    admin: Admin,
    Named(id): Named<String>,
    Ask(ask, who): Ask<SkipAsk>,
) -> Answer<Orchestration> {
    let SkipAsk { step, reason, by } = ask;
    say(&admin, &id, &who, by.as_deref(), Order::Skip { step: step.as_str().into(), reason }).await
}

pub(in crate::admin) async fn adjust(
    admin: Admin,
    Named(id): Named<String>,
    Ask(ask, who): Ask<AdjustAsk>,
) -> Answer<Orchestration> {
    let AdjustAsk { step, item, input, reason, by } = ask;
    let order = Order::Adjust { step: step.as_str().into(), item, input: Arc::new(input), reason };
    say(&admin, &id, &who, by.as_deref(), order).await
}

pub(in crate::admin) async fn retry(
    admin: Admin,
    Named(id): Named<String>,
    Ask(ask, who): Ask<RetryAsk>,
) -> Answer<Orchestration> {
    let RetryAsk { step, by } = ask;
    say(&admin, &id, &who, by.as_deref(), Order::Retry { step: step.as_deref().map(StepId::from) }).await
}

pub(in crate::admin) async fn resolve(
    admin: Admin,
    Named(id): Named<String>,
    Ask(ask, who): Ask<ResolveAsk>,
) -> Answer<Orchestration> {
    let ResolveAsk { step, item, choice, input, output, compensate, reason, by } = ask;
    let choice = match (choice, input, output, compensate) {
        (ChoiceName::RetryWith, Some(input), None, None) => Choice::RetryWith { input: Arc::new(input) },
        (ChoiceName::Take, None, Some(output), None) => Choice::Take { output: Arc::new(output) },
        (ChoiceName::Cancel, None, None, compensate) => Choice::Cancel { compensate: compensate.unwrap_or(true) },
        (ChoiceName::Retry, None, None, None) => Choice::Retry,
        (ChoiceName::Skip, None, None, None) => Choice::Skip,
        (ChoiceName::Fallback, None, None, None) => Choice::Fallback,
        (ChoiceName::Wait, None, None, None) => Choice::Wait,
        (ChoiceName::RetryWith, None, _, _) => return Err(Refusal::unfit("`retry_with` wants `input`")),
        (ChoiceName::Take, _, None, _) => return Err(Refusal::unfit("`take` wants `output`")),
        _ => {
            let detail = "`input` goes with `retry_with`, `output` with `take`, `compensate` with `cancel`";
            return Err(Refusal::unfit(detail));
        }
    };
    let order = Order::Resolve { step: step.as_str().into(), item, choice, reason };
    say(&admin, &id, &who, by.as_deref(), order).await
}

pub(in crate::admin) async fn answer(
    admin: Admin,
    Named((id, checkpoint)): Named<(String, String)>,
    Ask(ask, who): Ask<AnswerAsk>,
) -> Answer<Orchestration> {
    let AnswerAsk { approve, values, approved, struck, note, by } = ask;
    let yes = values.is_some() || !approved.is_empty() || !struck.is_empty();
    let Some(approve) = approve.or(yes.then_some(true)) else {
        return Err(Refusal::unfit("say `approve`, or give `values`, `approved` or `struck`"));
    };
    let said = Said { approve, values: values.map(Arc::new), approved, struck, note };
    let order = Order::Answer { checkpoint: CheckpointId::from(checkpoint.as_str()), said };
    say(&admin, &id, &who, by.as_deref(), order).await
}

pub(in crate::admin) async fn signal(
    admin: Admin,
    Named((id, name)): Named<(String, String)>,
    Ask(ask, who): Ask<SignalAsk>,
) -> Answer<Orchestration> {
    let SignalAsk { payload, id: delivery, by } = ask;
    if delivery.as_deref().is_some_and(|id| !start::named(id)) {
        return Err(Refusal::bad(format!("the delivery's id {}", start::NAMED)));
    }
    let order = Order::Signal { name, payload: Arc::new(payload), id: delivery };
    say(&admin, &id, &who, by.as_deref(), order).await
}

/// Another run of the same job: 202, since it has only begun.
pub(in crate::admin) async fn rerun(
    admin: Admin,
    Named(id): Named<String>,
    Ask(ask, who): Ask<RerunAsk>,
) -> Result<Response, Refusal> {
    let RerunAsk { from, by } = ask;
    let by = who.name(by.as_deref())?;
    let run = find(&admin, &id).await?;
    let step = StepId::from(from.as_str());
    let started = match admin.parts.desk.rerun(run, step.clone(), by).await {
        Ok(started) => started,
        Err(crate::engine::NotStarted::NoRun) => return Err(Refusal::no_run(&id)),
        Err(error) => {
            let mut refusal = told(&admin, run, Some(&step), Refusal::not_started(error)).await;
            if let (None, Ok(seen)) = (refusal.0.run_status, Seen::read(&admin, run).await) {
                refusal.0.run_id = Some(run.to_string());
                refusal.0.run_status = Some(seen.view.status);
            }
            return Err(refusal);
        }
    };
    let seen = Seen::read(&admin, started.run).await?;
    let mut response = (StatusCode::ACCEPTED, Json(seen.envelope(&admin, Delivery::Sync))).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("{}/{}", envelope::RUN, started.run)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}
