//! The sample that is stored of a pair that differs.
//!
//! Always true: the sensitive values of the run, those that its workflow declares in the request, and the secrets of
//! the pair are replaced in all of it before any of it is cut. What there was no time for (`compare_ms`) is left out,
//! and the sample says so.

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::event_bodies::{hide_bodies, hide_bytes};
use super::redaction::PairRedaction;
use crate::clock;
use crate::compare::{
    Body, CompareBounds, Comparison, Difference, DifferenceKind, HidesSensitive, Observation, SensitiveParts, redact,
    sample_text, shorten,
};
use crate::evidence::{RehearsedChild, RehearsedEvent, Sample};
use crate::exchange::{Answered, ChildEvents, RequestCopy, RunEvents, RunReport};
use crate::expression::MediaType;
use crate::limits::Limits;
use crate::secret::{STARS, is_secret, is_secret_segment, redact_line};
use crate::workflow::{ChildEvent, Event};

/// The redacted sample of a pair that differs, without the pair itself.
pub(super) fn sample(
    answered: &Answered,
    engine: &Observation,
    report: &RunReport,
    redaction: &PairRedaction<'_>,
    comparison: Comparison,
    limits: &Limits,
) -> Sample {
    let request = &answered.request;
    let bounds = CompareBounds::of(limits);
    let bytes_max = usize::try_from(limits.sample_bytes_max / 3).unwrap_or(usize::MAX);
    let expired = || redaction.is_over();
    // First, because without them a sample says nothing.
    let differences = comparison.differences.into_iter().map(|found| shown(found, redaction)).collect();
    let reply = |seen: &Observation| {
        let hide = |value: &mut Value| redaction.hide_in_reply_body(value);
        let body = sample_text(seen.headers(), seen.body(), &bounds, &hide, &expired);
        shorten(&format!("{}\n{body}", seen.status().as_u16()), bytes_max)
    };
    let query = request.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let line = format!("{} {}{query}", request.method, shown_path(request));
    let line = redact_line(&redaction.hide_in_text(&line));
    let body = Body::Whole(request.body.clone());
    let hide = |value: &mut Value| redaction.hide_in_request_body(value);
    let body = sample_text(&request.headers, &body, &bounds, &hide, &expired);
    let (events, mut left) = (&report.events, usize::try_from(limits.sample_bytes_max).unwrap_or(usize::MAX));
    Sample {
        route: answered.compared_as().clone(),
        fingerprint: comparison.fingerprint,
        at: clock::now(),
        run: report.run,
        differences,
        legacy: reply(&answered.legacy),
        engine: reply(engine),
        request: shorten(&format!("{line}\n{body}"), bytes_max),
        kept: None,
        // The run itself gets room for its content before its children do.
        events: shown_events(&events.own, &[of_pair(redaction)], &expired, &mut left),
        events_not_kept: events.own.not_kept,
        children: events
            .children
            .iter()
            .map(|child| shown_child(child, of_pair(redaction), &expired, &mut left))
            .collect(),
        children_not_kept: events.children_not_kept,
    }
}

/// Hides in a value what must not be stored.
type Hide<'a> = Box<dyn Fn(&mut Value) + 'a>;

fn of_pair<'a>(redaction: &'a PairRedaction<'_>) -> Hide<'a> {
    Box::new(move |value| {
        hide_in_bodies(value, redaction);
        redaction.hide_in_value(value);
    })
}

/// In events, the body of a request is a text. Where it is JSON, hides the values whose key or JSONPath is secret, and
/// bytes.
fn hide_in_bodies(value: &mut Value, redaction: &PairRedaction<'_>) {
    match value {
        Value::Object(members) => members.values_mut().for_each(|member| hide_in_bodies(member, redaction)),
        Value::Array(items) => items.iter_mut().for_each(|item| hide_in_bodies(item, redaction)),
        Value::String(text) if text.trim_start().starts_with(['{', '[']) => {
            let Ok(parsed) = serde_json::from_str::<Value>(text) else { return };
            let mut hidden = parsed.clone();
            hide_bytes(&mut hidden);
            redaction.hide_in_value(&mut hidden);
            if hidden != parsed {
                *text = hidden.to_string();
            }
        }
        Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => {}
    }
}

/// Hides a body that is neither a JSON object or list nor a form: nothing in it has a name that tells whether it is
/// secret. In a form the values are looked at as they were before they were encoded. `content_type`: if it is known.
fn hide_text_body(body: &mut String, content_type: Option<&str>, hide: &[Hide<'_>]) {
    if body.is_empty() || serde_json::from_str::<Value>(body).is_ok_and(|json| json.is_object() || json.is_array()) {
        return;
    }
    let plain = percent_decode_str(&body.replace('+', " ")).decode_utf8_lossy().into_owned();
    // What is encoded in base64 may end in `=`.
    let is_field =
        |field: &str| field.split_once('=').is_some_and(|(name, value)| !name.is_empty() && !value.is_empty());
    let may_be_form = content_type.map(MediaType::of).is_none_or(|kind| kind.is_form() || kind.is_empty());
    let is_form = may_be_form && !body.contains(char::is_whitespace) && body.split('&').all(is_field);
    let mut shown = Value::from(redact_line(&plain));
    hide.iter().for_each(|hide| hide(&mut shown));
    if !is_form || shown.as_str() != Some(&plain) {
        *body = STARS.to_owned();
    }
}

/// The events of a run below a rehearsal. Its workflow declares sensitive values of its own.
fn shown_child(child: &ChildEvents, of_pair: Hide<'_>, expired: &dyn Fn() -> bool, left: &mut usize) -> RehearsedChild {
    let own: Hide<'_> = Box::new(|value| child.redaction.iter().for_each(|redaction| redaction.value(value)));
    RehearsedChild {
        run: child.run,
        events: shown_events(&child.events, &[own, of_pair], expired, left),
        events_not_kept: child.events.not_kept,
    }
}

/// The events of a rehearsal without the run's sensitive values, and without what their names say is secret. `left`:
/// how many bytes of content there is room for; beyond that, and once the time is over, only their kinds are kept, and
/// which child began.
fn shown_events(
    events: &RunEvents,
    hide: &[Hide<'_>],
    expired: &dyn Fn() -> bool,
    left: &mut usize,
) -> Vec<RehearsedEvent> {
    let shown = events.first.iter().zip(1..).map(|((at, event), seq)| {
        let kind = event.kind().to_owned();
        let without_time = || RehearsedEvent {
            seq,
            at: *at,
            kind: kind.clone(),
            event: json!({ &kind: without_content(event, NO_TIME) }),
        };
        if expired() {
            return without_time();
        }
        let mut event = event.clone();
        hide_bodies(&mut event, &|text, content_type| hide_text_body(text, content_type, hide));
        // An event is a struct of texts, numbers and JSON, which has a JSON value always.
        let mut value = serde_json::to_value(&event).unwrap_or_default();
        match left.checked_sub(value.to_string().len()) {
            Some(rest) => *left = rest,
            None => value = json!({ &kind: without_content(&event, TOO_LARGE) }),
        }
        hide_bytes(&mut value);
        hide.iter().for_each(|hide| hide(&mut value));
        // If the time has ended by now, texts were hidden whole, and ids of runs with them.
        if expired() {
            return without_time();
        }
        hide_headers(&mut value);
        RehearsedEvent { seq, at: *at, kind, event: redact(&value) }
    });
    shown.collect()
}

/// What stands in place of the content of an event for which there is no room.
const TOO_LARGE: &str = "(its content is too large to be kept)";
/// What stands in place of one that there was no time to redact.
const NO_TIME: &str = "(its content is not kept: the time for the pair was over)";

/// What is kept of an event without its content; `why` says why the content is missing. The start of a child keeps the
/// child's id, by which alone its run is found.
fn without_content(event: &Event, why: &str) -> Value {
    match event {
        Event::Child(ChildEvent::Started { step, item, child, workflow, input: _ }) => {
            json!({ "step": step, "item": item, "child": child, "workflow": workflow, "input": why })
        }
        _ => why.into(),
    }
}

/// Puts stars in place of the value of each pair of texts whose name says that it is secret: a header.
fn hide_headers(value: &mut Value) {
    match value {
        Value::Array(items) => {
            if let [Value::String(name), shown @ Value::String(_)] = items.as_mut_slice()
                && is_secret(name)
            {
                *shown = STARS.into();
            }
            items.iter_mut().for_each(hide_headers);
        }
        Value::Object(members) => members.values_mut().for_each(hide_headers),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The path, with stars in place of parameters whose names say that they are secret.
fn shown_path(request: &RequestCopy) -> String {
    let params: Vec<(&str, &str)> = request.params.iter().map(|(name, value)| (&**name, value.as_str())).collect();
    let shown = |segment| if is_secret_segment(segment, &params, is_secret) { STARS } else { segment };
    request.path.split('/').map(shown).collect::<Vec<_>>().join("/")
}

/// A difference without the run's sensitive values.
pub(super) fn shown(mut difference: Difference, redaction: &PairRedaction<'_>) -> Difference {
    difference.hide_earlier_pairings(|path| redaction.hides_at(path));
    // The path of an assert is the text of its expression. If a secret's name is in it, that does not mean that the
    // difference is at a secret place, and the verdict of an assert shows no value.
    let is_assert = difference.kind == DifferenceKind::Assert;
    let is_hidden = !is_assert && redaction.hides_at(&difference.path);
    let earlier = difference.contradicts.iter_mut().map(|earlier| &mut earlier.path);
    // A key may be a secret that another part of the pair tells.
    earlier.chain([&mut difference.path]).for_each(|path| *path = redaction.hide_in_name(path));
    if is_hidden {
        difference.mask_and_cut(|_| STARS.to_owned());
    } else if difference.kind != DifferenceKind::Status {
        if redaction.declares_secrets() {
            difference.hide_values_in_error_of_assert();
        }
        difference.mask_and_cut(|value| redaction.hide_in_text(value));
    }
    difference
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[test]
    fn bodies_that_are_neither_json_nor_a_form_are_hidden() {
        let shown = |body: &str, content_type: Option<&str>| {
            let mut shown = body.to_owned();
            hide_text_body(&mut shown, content_type, &[]);
            shown
        };
        for hidden in [
            "<a><password>hunter22</password></a>",
            "hunter22",
            "47110815",
            "\"hunter22\"",
            "c2VjcmV0LXBhc3N3b3Jk=",
            "total 5",
            "a=1&password=hunter22",
        ] {
            assert_eq!(shown(hidden, None), STARS, "{hidden}");
        }
        for kept in ["{\"a\":1}", " [1]", "a=1&b=x+y", ""] {
            assert_eq!(shown(kept, None), kept);
        }
        assert_eq!(shown("a=1", Some("application/x-www-form-urlencoded; charset=utf-8")), "a=1");
        assert_eq!(
            (shown("a=1", Some("text/plain")), shown("{\"a\":1}", Some("text/plain"))),
            (STARS.into(), "{\"a\":1}".into())
        );
    }

    #[test]
    fn a_path_shows_no_parameter_whose_name_is_secret() {
        let request = |path: &str, params: &[(&str, &str)]| RequestCopy {
            method: http::Method::GET,
            path: path.into(),
            query: None,
            params: params.iter().map(|(name, value)| ((*name).into(), (*value).to_owned())).collect(),
            headers: http::HeaderMap::new(),
            traceparent: None,
            body: bytes::Bytes::new(),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let shown = |path: &str, params: &[(&str, &str)]| shown_path(&request(path, params));
        assert_eq!(shown("/pay/4711/x", &[("card", "4711"), ("kind", "x")]), "/pay/***/x");
        assert_eq!(shown("/pay/a%20b", &[("token", "a b")]), "/pay/***");
        assert_eq!(shown("/orders/17", &[("id", "17")]), "/orders/17");
    }
}
