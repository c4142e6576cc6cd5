//! The calls that a run made: what the candidate of its route is compared with, and what its reads are answered from.
//!
//! Always true: they are the calls of the run and of those below it, each once, however many attempts it took: the
//! calls of steps and of undos, without probes. A call that began and certainly did nothing is one of them: legacy's
//! own calls count in the same way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::run_tree;
use crate::compare::{Body, Effect, EffectReply, RecordedParts};
use crate::engine::Engine;
use crate::engine::context::Core;
use crate::exchange::PerformedCalls;
use crate::expression::{MediaType, SharedJson};
use crate::names::{RunId, StepId};
use crate::store::{StoreError, StoredEvent};
use crate::workflow::{BytesMark, CallRecord, EffectClass, Event, Outcome, Plan, StepFinished, StepPart, StepStarted};

impl Engine {
    /// The calls that a run and those below it made.
    ///
    /// # Errors
    /// The store does not return the events or the plan of one of these runs, the plan cannot be read, or there are too
    /// many runs.
    pub async fn performed_calls(&self, run: RunId) -> Result<PerformedCalls, StoreError> {
        performed(&self.core, run).await
    }
}

async fn performed(core: &Core, run: RunId) -> Result<PerformedCalls, StoreError> {
    let runs = run_tree::read(core, run).await?;
    let mut events: Vec<(usize, &StoredEvent)> =
        runs.iter().enumerate().flat_map(|(index, run)| run.events.iter().map(move |stored| (index, stored))).collect();
    // A stable sort: events of one run with the same time keep their order.
    events.sort_by_key(|(_, stored)| stored.at);
    Ok(of_events(
        events.into_iter().filter_map(|(index, stored)| Some((index, &*runs.get(index)?.plan, &stored.event))),
    ))
}

/// Which call: the index of its run, the step, the item, and the part of the step.
type RunCallKey<'a> = (usize, &'a StepId, Option<u32>, StepPart);

/// The calls in the events of several runs: each with the index of its run, and the run's plan.
fn of_events<'a>(events: impl Iterator<Item = (usize, &'a Plan, &'a Event)>) -> PerformedCalls {
    let mut found = PerformedCalls::default();
    let mut open: HashMap<RunCallKey<'a>, (bool, usize)> = HashMap::new();
    for (number, (run, plan, event)) in (0..).zip(events) {
        match event {
            Event::StepStarted(StepStarted { step, item, part, effect, request: Some(request), .. })
                if *part != StepPart::Probe =>
            {
                let is_read = *effect == EffectClass::Read;
                let calls = if is_read { &mut found.reads } else { &mut found.effects };
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
                // A later attempt sent another request: it replaces the first one, at the first one's position.
                match open.get(&(run, step, *item, *part)) {
                    Some(&(_, index)) => calls[index] = Effect { number: calls[index].number, ..began },
                    None => {
                        open.insert((run, step, *item, *part), (is_read, calls.len()));
                        calls.push(began);
                    }
                }
            }
            Event::StepFinished(StepFinished { step, item, part, outcome, .. }) => {
                if let Some(&(is_read, index)) = open.get(&(run, step, *item, *part)) {
                    let calls = if is_read { &mut found.reads } else { &mut found.effects };
                    let call = &mut calls[index];
                    let headers = plan.step(step).map(|(index, _)| plan.recorded_headers(index, *part));
                    let headers = headers.map_or_else(|| Some(BTreeSet::new()), |headers| headers.names().cloned());
                    (call.reply, call.replied_before) = (reply(outcome, headers), Some(number));
                }
            }
            _ => {}
        }
    }
    found
}

fn headers(request: &CallRecord) -> HeaderMap {
    let field =
        |(name, value): &(String, String)| Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?));
    request.headers.iter().filter_map(field).collect()
}

/// The reply that a call ended with; `None` if it got none, or one that its step does not accept. Its body counts as
/// too large where the body cannot be restored from what is recorded. `recorded` are the headers that the step
/// records; `None`: all.
fn reply(outcome: &Outcome, recorded: Option<BTreeSet<Arc<str>>>) -> Option<EffectReply> {
    let (status, headers, output, is_read) = match outcome {
        Outcome::Done { status, headers, output } => (status, headers, output, true),
        // Such a body could not be read, or not within the bounds.
        Outcome::Unfit { status, headers, output, .. } => (status, headers, output, !output.shared().is_null()),
        _ => return None,
    };
    let status = StatusCode::from_u16(*status).ok()?;
    let field = |(name, value): (&String, &String)| {
        Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?))
    };
    let mut fields: HeaderMap = BTreeMap::iter(headers).filter_map(field).collect();
    // The output is decoded already.
    fields.remove(CONTENT_ENCODING);
    fields.remove(CONTENT_LENGTH);
    let content_type = fields.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let encoded = is_read.then(|| encode_output(output, content_type)).flatten();
    let body = match encoded {
        Some((bytes, content_type)) => {
            if let Some(content_type) = content_type {
                fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            }
            Body::Whole(bytes)
        }
        None => Body::TooLarge,
    };
    let recorded = RecordedParts { headers: recorded, has_body: !BytesMark::may_be_bytes(output.shared()) };
    Some(EffectReply { recorded: Some(recorded), ..EffectReply::new(status, fields, body) })
}

/// Encodes an output as bytes that decode to the same output: under its content type, or, if one is returned with them,
/// under that one. `None` for an output that may represent bytes.
fn encode_output(output: &SharedJson, content_type: &str) -> Option<(Bytes, Option<&'static str>)> {
    let kind = MediaType::of(content_type);
    let (is_json, is_text) = (kind.is_json(), kind.is_text());
    Some(match &**output.shared() {
        serde_json::Value::Null if !is_json => (Bytes::new(), None),
        serde_json::Value::String(text) if !is_json => (Bytes::from(text.clone()), (!is_text).then_some("text/plain")),
        value if BytesMark::may_be_bytes(value) => return None,
        value => (Bytes::from(value.to_string()), (!is_json).then_some("application/json")),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The body that is written for an output, and the content type with which it is decoded.
    fn body(output: Value, content_type: &'static str) -> (Body, String) {
        let headers = BTreeMap::from([("content-type".to_owned(), content_type.to_owned())]);
        let outcome = Outcome::Done { status: 200, headers, output: output.into() };
        let EffectReply { headers, body, .. } = reply(&outcome, None).unwrap();
        (body, headers[CONTENT_TYPE].to_str().unwrap().to_owned())
    }

    #[test]
    fn a_reply_keeps_its_content_type_where_its_output_can_be_encoded_as_that_type() {
        for (output, content_type, text, written_as) in [
            (json!("a,b"), "text/csv", "a,b", "text/csv"),
            (json!("<a/>"), "application/xml", "<a/>", "application/xml"),
            (json!({ "a": 1 }), "application/hal+json", r#"{"a":1}"#, "application/hal+json"),
            (json!("text"), "application/json", r#""text""#, "application/json"),
            (json!(null), "application/json; charset=utf-8", "null", "application/json; charset=utf-8"),
            (json!({ "a": "1" }), "application/x-www-form-urlencoded", r#"{"a":"1"}"#, "application/json"),
            (json!("text"), "", "text", "text/plain"),
        ] {
            let (body, of) = body(output, content_type);
            assert_eq!((body, of.as_str()), (Body::Whole(text.into()), written_as), "{content_type}");
        }
    }

    /// A candidate whose own call would get the bytes cannot go on with this reply.
    #[test]
    fn a_reply_names_its_parts_that_the_events_lack() {
        let bytes = BytesMark::new(&[7; 32]).value(&Bytes::from_static(b"%PDF"), Some("application/pdf"));
        let lacking = |output: Value, recorded: &[&str], wanted: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|name| (*name).into()).collect::<BTreeSet<Arc<str>>>();
            let outcome = Outcome::Done { status: 200, headers: BTreeMap::new(), output: output.into() };
            reply(&outcome, Some(names(recorded))).unwrap().lacks(Some(&names(wanted)))
        };
        assert_eq!(lacking(json!({ "id": 1 }), &["etag"], &["etag"]), None);
        assert!(lacking(json!({ "id": 1 }), &["date"], &["etag"]).unwrap().contains("`etag`"));
        assert!(lacking(bytes, &[], &[]).unwrap().contains("bytes"));
    }

    #[test]
    fn a_body_that_could_not_be_read_does_not_count_as_empty() {
        let failure = crate::workflow::Failure::of_run(crate::workflow::FailureKind::Bound, "too large");
        let (headers, output) = (BTreeMap::new(), Value::Null.into());
        let unfit = Outcome::Unfit { status: 200, headers, output, failure };
        let reply = reply(&unfit, None).unwrap();
        assert_eq!((reply.lacks(None), reply.body), (None, Body::TooLarge), "the step had no more of it");
    }
}
