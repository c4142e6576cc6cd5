//! The reads of a candidate's rehearsal that the plan in force made too, as reads or as effects.
//!
//! The control has acted by then: a read that is sent again would find the stock reserved or the order cancelled, and a
//! candidate that reads before it acts would do something else than its control, which read the state before. So a read
//! that the control made (URL, headers and body) is not sent, and gets the reply that the control's read got; where the
//! control made several equal reads, the first gets the first reply, the second the second, and so on.
//!
//! A candidate may declare a call `effect: read` that its control declares private or shared: rightly, because the call
//! only computes; or wrongly, and then each rehearsal would perform what the control has just performed.
//!
//! Always true: such a call is not sent either. It is recognised by the service, method and path template of an effect
//! in the control's plan, or by the method and path of an effect that the control sent, to whatever host. It gets the
//! reply to the control's own call if that call was private and equal (URL and body). Otherwise the rehearsal ends as
//! `skipped: unresolved_effect`:
//!
//! - A call that is declared to read is not compared with an effect, so no comparison would show that the two calls
//!   differ.
//! - A shared call that is declared as a read does not prevent a fallback in `live`: legacy might perform the request
//!   once more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::byte_budget::ReservedBytes;
use crate::compare::{AnsweredRead, Body, Effect, EffectReply, Intent, Rules, any_spelling, path_of_url};
use crate::exchange::Reads;
use crate::secret::STARS;
use crate::workflow::RecordedHeaders;

/// Answers the candidate's reads from what the control did. Reads that the control did not make are sent.
pub(super) struct ReadsBesideControl {
    /// The rules of the control, which have the calls of its plan.
    control: Arc<Rules>,
    /// The calls that the control made for the request; `None` if they are not known.
    calls: Option<Vec<Effect>>,
    /// The control's reads, in order, each with whether its reply was given to a read of the candidate.
    reads: Mutex<Vec<(Effect, bool)>>,
    unanswered: Mutex<Option<String>>,
    /// The memory of the reads.
    _reserved: Option<Arc<ReservedBytes>>,
}

/// The reads that a control made, with the memory that is reserved for them.
#[derive(Default)]
pub(super) struct ControlReads {
    pub reads: Vec<Effect>,
    pub reserved: Option<Arc<ReservedBytes>>,
}

impl ReadsBesideControl {
    pub(super) fn new(control: Arc<Rules>, calls: Option<Vec<Effect>>, made: ControlReads) -> Self {
        let ControlReads { reads, reserved: _reserved } = made;
        let reads = reads.into_iter().map(|read| (read, false)).collect();
        Self { control, calls, reads: Mutex::new(reads), unanswered: Mutex::default(), _reserved }
    }

    /// Whether the control sent an effect with this method to this path, in any spelling, with any query, and under any
    /// name of the service and the host: one host may have several names.
    fn is_where_an_effect_went(&self, asked: &Intent) -> bool {
        let path = any_spelling(path_of_url(&asked.url));
        let is_there = |call: &Effect| call.method == asked.method && any_spelling(path_of_url(&call.url)) == path;
        !asked.method.is_safe() && self.calls.iter().flatten().any(is_there)
    }

    /// Whether sending this would repeat what the control may have performed.
    fn may_be_an_effect(&self, asked: &Intent) -> bool {
        let is_unknown = self.calls.is_none() && !asked.method.is_safe();
        is_unknown || self.control.makes_as_effect(asked) || self.is_where_an_effect_went(asked)
    }

    /// The reply to an equal read of the control: to the first that was not taken yet, else to the last. `None`: it
    /// made none.
    fn reply_to_read(&self, asked: &Intent, headers: &RecordedHeaders) -> Option<Result<EffectReply, String>> {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut last, mut is_made) = (None, false);
        for (read, is_taken) in reads.iter_mut().filter(|(read, _)| is_same(read, asked) && has_headers(read, asked)) {
            is_made = true;
            let Some(reply) = &read.reply else { continue };
            if !std::mem::replace(is_taken, true) {
                return Some(whole(reply, asked, headers));
            }
            last = Some(whole(reply, asked, headers));
        }
        // The read is not sent although no reply was kept: its reply might show what the control has changed since.
        let unknown = || format!("the reply that the plan in force got to the read of `{}` was not kept", asked.step);
        is_made.then(|| last.unwrap_or_else(|| Err(unknown())))
    }

    fn reply_of_control(&self, asked: &Intent, headers: &RecordedHeaders) -> Result<EffectReply, String> {
        let declared =
            format!("`{}` is declared `effect: read`, but the plan in force makes such calls as effects", asked.step);
        let Some(calls) = &self.calls else {
            return Err(format!(
                "`{}` has no safe method, and the calls of the plan in force did not become known in time",
                asked.step
            ));
        };
        let same = calls
            .iter()
            .find(|call| is_same(call, asked))
            .ok_or_else(|| format!("{declared}; for this request it made no equal call"))?;
        if self.control.makes_as_shared(same) {
            return Err(format!(
                "`{}` is declared `effect: read`, but the plan in force makes this call as a shared effect: if the \
                 call only computes, put the candidate in force with `--force`",
                asked.step
            ));
        }
        let reply = same.reply.as_ref().ok_or_else(|| format!("{declared}; its equal call got no reply"))?;
        whole(reply, asked, headers)
    }
}

impl Reads for ReadsBesideControl {
    fn answer(&self, asked: &Intent, headers: &RecordedHeaders) -> Option<Result<EffectReply, String>> {
        let answer = match self.reply_to_read(asked, headers) {
            Some(reply) => reply,
            None if self.may_be_an_effect(asked) => self.reply_of_control(asked, headers),
            None => return None,
        };
        if let Err(why) = &answer {
            self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.clone());
        }
        Some(answer)
    }
    fn record(&self, _read: AnsweredRead) {}
    fn unanswered(&self) -> Option<String> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The reply to a call of the control.
///
/// # Errors
/// The control's events lack a part of the reply that the candidate's step would record: the candidate's run would go
/// on with less than the service answered.
fn whole(reply: &EffectReply, asked: &Intent, headers: &RecordedHeaders) -> Result<EffectReply, String> {
    match reply.lacks(headers.names()) {
        None => Ok(reply.clone()),
        Some(lacking) => Err(format!(
            "the events of the plan in force do not have all of the reply to `{}`: {lacking} is missing",
            asked.step
        )),
    }
}

/// Whether a call is the one that was asked for. The name of the service is not compared: two services may have one
/// address, and the whole URL tells where the call goes.
fn is_same(call: &Effect, asked: &Intent) -> bool {
    call.method == asked.method && call.url == asked.url && has_body(&call.body, asked)
}

/// Whether two calls have the same headers, except for those that differ with each call. A header that has stars in
/// place of a secret counts as equal: it is not known whether the secrets differ.
fn has_headers(call: &Effect, asked: &Intent) -> bool {
    const PER_CALL: [&str; 3] = ["traceparent", "tracestate", "idempotency-key"];
    let of_call = call.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or("")));
    let of_call: BTreeSet<(String, &str)> = of_call.collect();
    let of_asked = asked.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()));
    let of_asked: BTreeSet<(String, &str)> = of_asked.collect();
    let is_starred =
        |name: &str| of_call.iter().chain(&of_asked).any(|(header, value)| header == name && value.contains(STARS));
    of_call.symmetric_difference(&of_asked).all(|(name, _)| PER_CALL.contains(&name.as_str()) || is_starred(name))
}

/// Whether the body of a call is the one that was asked for: as JSON, or byte by byte.
fn has_body(body: &Body, asked: &Intent) -> bool {
    let Body::Whole(body) = body else { return false };
    match &asked.bytes {
        Some(bytes) => bytes == body,
        None if body.is_empty() => asked.body.is_null(),
        None => serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|body| body == asked.body),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method, StatusCode};
    use serde_json::{Value, json};

    use super::*;
    use crate::compare::{CallRole, CallTemplate, CompareContext, RecordedParts, RulesDraft};
    use crate::problem::{Problems, Site};

    /// The rules of a control that charges a card, has a mail sent by a workflow that it runs, and reads quotes.
    fn control() -> Arc<Rules> {
        let of = |step: Option<&str>, path: &str, role| CallTemplate {
            step: step.map(Into::into),
            service: "bank".into(),
            method: Method::POST,
            path: path.into(),
            role,
            takes_reply: false,
            after: BTreeSet::new(),
            fan_out: None,
        };
        let calls = [
            of(Some("charge"), "/orders/{}/charges", CallRole::Shared),
            of(Some("note"), "/orders/{}/notes", CallRole::Private),
            of(None, "/mails", CallRole::NotCompared { is_effect: true }),
            of(None, "/rates", CallRole::NotCompared { is_effect: false }),
            of(Some("quote"), "/quotes", CallRole::Read { is_recorded: false }),
        ];
        let context = CompareContext { calls: &calls, ..CompareContext::default() };
        let (draft, site) = (RulesDraft::default(), Site::file("r.yaml"));
        Arc::new(Rules::check(&draft, &site, &context, &mut Problems::default()).unwrap())
    }

    fn asked(path: &str, body: Value) -> Intent {
        Intent {
            step: "pay".into(),
            item: None,
            method: Method::POST,
            url: format!("http://bank{path}"),
            headers: Vec::new(),
            body,
            service: Some("bank".into()),
            bytes: None,
            taken_from: None,
        }
    }

    fn charged(path: &str, body: &'static str, has_reply: bool) -> Effect {
        let reply = EffectReply::new(StatusCode::CREATED, HeaderMap::new(), body_of("{}"));
        Effect {
            service: Some("bank".into()),
            method: Method::POST,
            url: format!("http://bank{path}"),
            headers: HeaderMap::new(),
            body: body_of(body),
            reply: has_reply.then_some(reply),
            number: 1,
            replied_before: None,
        }
    }

    fn body_of(text: &'static str) -> Body {
        Body::Whole(Bytes::from_static(text.as_bytes()))
    }

    const NO_HEADERS: RecordedHeaders = RecordedHeaders::Only(BTreeSet::new());

    /// Whether the read is sent; else the status that it is answered with, or why there is none.
    fn outcome(calls: Option<Vec<Effect>>, asked: &Intent) -> Result<Option<u16>, String> {
        let reads = ReadsBesideControl::new(control(), calls, ControlReads::default());
        let answer = reads.answer(asked, &NO_HEADERS);
        assert_eq!(reads.unanswered(), answer.as_ref().and_then(|answer| answer.as_ref().err().cloned()));
        answer.map(|answer| answer.map(|reply| reply.status.as_u16())).transpose()
    }

    /// The run of the candidate would fail where that of the control did not, because the events have less than the
    /// service answered.
    #[test]
    fn a_reply_of_which_something_is_missing_answers_no_read() {
        let only = |names: &[&str]| names.iter().map(|name| (*name).into()).collect::<BTreeSet<_>>();
        let answer = |recorded: &[&str], has_body: bool, asks: &[&str]| {
            let recorded = Some(RecordedParts { headers: Some(only(recorded)), has_body });
            let reply = EffectReply::new(StatusCode::OK, HeaderMap::new(), body_of("{}"));
            let reply = Some(EffectReply { recorded, ..reply });
            let reads = vec![Effect { reply, ..charged("/quotes", "", true) }];
            let made = ControlReads { reads, ..ControlReads::default() };
            let reads = ReadsBesideControl::new(control(), Some(Vec::new()), made);
            let answer = reads.answer(&asked("/quotes", Value::Null), &RecordedHeaders::Only(only(asks)));
            answer.expect("the control made it").map(|reply| reply.status.as_u16())
        };
        assert_eq!(answer(&["etag", "date"], true, &["etag"]), Ok(200));
        let header = answer(&["date"], true, &["date", "etag"]).unwrap_err();
        assert!(header.contains("the header `etag`"), "{header}");
        let body = answer(&[], false, &[]).unwrap_err();
        assert!(body.contains("its body, which is bytes"), "{body}");
    }

    #[test]
    fn equal_reads_get_the_replies_of_the_controls_in_their_order() {
        let status = |status: u16| {
            let reply = EffectReply::new(StatusCode::from_u16(status).unwrap(), HeaderMap::new(), body_of("{}"));
            Effect { reply: Some(reply), ..charged("/quotes", "", true) }
        };
        let without_reply = charged("/quotes", "", false);
        let refused = Effect { reply: None, ..charged("/refused", "", false) };
        let reads = vec![status(200), without_reply, status(202), refused];
        let reads =
            ReadsBesideControl::new(control(), Some(Vec::new()), ControlReads { reads, ..ControlReads::default() });
        let answer = |path: &str, body: Value| {
            let answer = reads.answer(&asked(path, body), &NO_HEADERS);
            answer.map(|reply| reply.unwrap().status.as_u16())
        };
        assert_eq!(answer("/quotes", json!({ "other": 1 })), None, "another body: it is sent");
        let found = [0; 4].map(|_| answer("/quotes", Value::Null));
        assert_eq!(found, [Some(200), Some(202), Some(202), Some(202)]);
        assert_eq!(answer("/rates", Value::Null), None);
        let why =
            reads.answer(&asked("/refused", Value::Null), &NO_HEADERS).map(|answer| answer.map(|_| ()).unwrap_err());
        assert!(why.is_some_and(|why| why.contains("was not kept")), "sent again, it may be answered otherwise");
        let for_tenant = Intent { headers: vec![("x-tenant".into(), "b".into())], ..asked("/quotes", Value::Null) };
        assert!(reads.answer(&for_tenant, &NO_HEADERS).is_none(), "other headers: it is sent");
        let traced = Intent { headers: vec![("traceparent".into(), "00-1".into())], ..asked("/quotes", Value::Null) };
        assert!(reads.answer(&traced, &NO_HEADERS).is_some());
    }

    #[test]
    fn a_read_that_the_control_makes_as_an_effect_is_not_sent() {
        let seven = json!({ "amount": 7 });
        let made = |body, has_reply| Some(vec![charged("/orders/1/notes", body, has_reply)]);
        let note = asked("/orders/1/notes", seven.clone());
        assert_eq!(outcome(made(r#"{ "amount": 7 }"#, true), &note), Ok(Some(201)), "the same private call");
        let refused = |calls, asked: &Intent| outcome(calls, asked).unwrap_err();
        assert!(refused(made(r#"{ "amount": 8 }"#, true), &note).contains("made no equal call"));
        assert!(refused(made(r#"{ "amount": 7 }"#, true), &asked("/orders/2/notes", seven.clone())).contains("equal"));
        assert!(refused(made(r#"{ "amount": 7 }"#, false), &note).contains("got no reply"));
        assert!(refused(None, &note).contains("did not become known in time"));
        // The same address under the name of another service, and another name of the host.
        let elsewhere = |body: Value| Intent { service: Some("bank2".into()), ..asked("/orders/1/notes", body) };
        assert_eq!(outcome(made(r#"{ "amount": 7 }"#, true), &elsewhere(seven.clone())), Ok(Some(201)));
        assert!(refused(made(r#"{ "amount": 8 }"#, true), &elsewhere(seven.clone())).contains("made no equal call"));
        let other_host = Intent { url: "http://bank.local:80/orders/1/notes?a".into(), ..elsewhere(seven.clone()) };
        assert!(refused(made(r#"{ "amount": 7 }"#, true), &other_host).contains("made no equal call"));
        let charge = Some(vec![charged("/orders/1/charges", r#"{ "amount": 7 }"#, true)]);
        for path in ["/orders/1/charges/", "//orders/1//charges", "/orders/1/x/../charges", "/Orders/1/CHARGES;v=1"] {
            assert!(refused(charge.clone(), &asked(path, seven.clone())).contains("made no equal call"), "{path}");
        }
        let asked_charge = asked("/orders/1/charges", seven.clone());
        assert!(refused(charge.clone(), &asked_charge).contains("as a shared effect"));
        let elsewhere = Intent { service: Some("bank2".into()), ..asked_charge };
        assert!(refused(charge, &elsewhere).contains("as a shared effect"));
        assert!(refused(Some(Vec::new()), &asked("/mails", Value::Null)).contains("`pay` is declared `effect: read`"));
        for path in ["/quotes", "/rates", "/other", "/orders/charges"] {
            assert_eq!(outcome(Some(Vec::new()), &asked(path, seven.clone())), Ok(None), "{path}");
        }
    }
}
