//! The calls that a run made, as effects: what the candidate of its route is compared with.
//!
//! Always true: they are the private and shared calls of the run itself, each once, however many attempts it took: its
//! own calls and those of undos, without probes, and without the calls of its child runs, whose intents are not
//! compared either. A call that began and certainly did nothing is one of them: legacy's own calls count in the same
//! way.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::compare::{Body, Effect, EffectReply};
use crate::engine::Engine;
use crate::engine::context::Core;
use crate::expression::SharedJson;
use crate::names::{RunId, StepId};
use crate::store::StoreError;
use crate::workflow::{CallRecord, EffectClass, Event, Outcome, Plan, StepFinished, StepPart, StepStarted};

impl Engine {
    /// The private and shared calls that a run made, in the order in which they began.
    ///
    /// # Errors
    /// The store does not return the run's events or its plan, or the plan cannot be read.
    pub async fn performed_calls(&self, run: RunId) -> Result<Vec<Effect>, StoreError> {
        performed(&self.core, run).await
    }
}

async fn performed(core: &Core, run: RunId) -> Result<Vec<Effect>, StoreError> {
    let events = core.events(run).await?;
    let Some(Event::RunStarted(started)) = events.first().map(|stored| &stored.event) else { return Ok(Vec::new()) };
    let snapshot = core.files.snapshot.load_full();
    let plan = match snapshot.plan(&started.plan) {
        Some(plan) => plan,
        None => {
            let source = core.ports.store.plan(started.plan.clone()).await?;
            let rebuilt = source.and_then(|source| snapshot.rebuild(&source, &core.files.limits));
            rebuilt.map(Into::into).ok_or_else(|| StoreError("the plan of the run cannot be read".to_owned()))?
        }
    };
    Ok(of_events(&plan, events.iter().map(|stored| &stored.event)))
}

fn of_events<'a>(plan: &Plan, events: impl Iterator<Item = &'a Event>) -> Vec<Effect> {
    let mut calls: Vec<Effect> = Vec::new();
    let mut open: HashMap<(&StepId, Option<u32>, StepPart), usize> = HashMap::new();
    for (number, event) in (0..).zip(events) {
        match event {
            Event::StepStarted(StepStarted { step, item, part, effect, request: Some(request), .. })
                if *effect != EffectClass::Read && *part != StepPart::Probe =>
            {
                let service = plan.step(step).and_then(|(_, step)| step.call(*part)).map(|call| call.service.clone());
                let began = Effect {
                    service,
                    method: request.method.parse().unwrap_or(Method::POST),
                    url: request.url.clone(),
                    headers: headers(request),
                    body: Body::Whole(request.body.bytes().into()),
                    reply: None,
                    number,
                    replied_before: None,
                };
                // A later attempt with another request: what it sends counts, where the first one stands.
                match open.get(&(step, *item, *part)) {
                    Some(&index) => calls[index] = Effect { number: calls[index].number, ..began },
                    None => {
                        open.insert((step, *item, *part), calls.len());
                        calls.push(began);
                    }
                }
            }
            Event::StepFinished(StepFinished { step, item, part, outcome, .. }) => {
                if let Some(&index) = open.get(&(step, *item, *part)) {
                    calls[index].reply = reply(outcome);
                    calls[index].replied_before = Some(number);
                }
            }
            _ => {}
        }
    }
    calls
}

fn headers(request: &CallRecord) -> HeaderMap {
    let field =
        |(name, value): &(String, String)| Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?));
    request.headers.iter().filter_map(field).collect()
}

/// The reply that a call ended with; `None` if it got none, or one that its step does not accept.
fn reply(outcome: &Outcome) -> Option<EffectReply> {
    let (Outcome::Done { status, headers, output } | Outcome::Unfit { status, headers, output, .. }) = outcome else {
        return None;
    };
    let status = StatusCode::from_u16(*status).ok()?;
    let field = |(name, value): (&String, &String)| {
        Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?))
    };
    let mut fields: HeaderMap = BTreeMap::iter(headers).filter_map(field).collect();
    let (body, content_type) = body(output);
    // The output is decoded already.
    fields.remove(http::header::CONTENT_ENCODING);
    fields.remove(http::header::CONTENT_LENGTH);
    if let Some(content_type) = content_type {
        fields.entry(http::header::CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
    }
    Some(EffectReply { status, headers: fields, body: Body::Whole(body) })
}

/// The bytes of an output, and the content type that is decoded to it where the reply's is not recorded.
fn body(output: &SharedJson) -> (Bytes, Option<&'static str>) {
    match &**output.shared() {
        serde_json::Value::Null => (Bytes::new(), None),
        serde_json::Value::String(text) => (Bytes::from(text.clone()), Some("text/plain")),
        value => (Bytes::from(value.to_string()), Some("application/json")),
    }
}
