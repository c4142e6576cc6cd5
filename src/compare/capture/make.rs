//! Makes a capture of a pair.

use std::sync::Arc;

use http::HeaderMap;
use jiff::Timestamp;
use uuid::Uuid;

use super::reads::AnsweredRead;
use super::record::{CAPTURE_VERSION, Capture, CapturedBody, CapturedCall, CapturedReply, CapturedRequest};
use super::redactor::{BodyOf, Redactor};
use crate::compare::bounds::CompareBounds;
use crate::compare::effect::{Effect, EffectReply};
use crate::compare::kept::SensitiveParts;
use crate::compare::observation::{Body, Intent, Observation};
use crate::compare::pair_parts::{PairParts, body_of, headers_of};
use crate::compare::pair_secrets::quoted_secrets;
use crate::compare::parsed_body::ParsedBody;
use crate::compare::redact;
use crate::compare::rules::Rules;
use crate::compare::secret_lines::{SecretLines, with_content};
use crate::compare::structure::rendered_document;
use crate::names::{PlanId, RouteId};
use crate::secret::{RedactRules, RedactionKey};

/// A pair as it happened.
pub struct CapturedPair<'a> {
    /// The method.
    pub method: &'a http::Method,
    /// The path.
    pub path: &'a str,
    /// The parameters of the route's template.
    pub params: &'a [(Arc<str>, String)],
    /// The query.
    pub query: Option<&'a str>,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The request's body.
    pub body: &'a Body,
    /// What legacy did.
    pub legacy: &'a Observation,
    /// When the run began.
    pub started: Option<Timestamp>,
    /// Of a follow-up: what the run knew of its instance.
    pub instance: Option<InstanceOfPair<'a>>,
    /// What the reads of the run asked and were answered.
    pub reads: &'a [AnsweredRead],
    /// What the run would have sent.
    pub intents: &'a [Intent],
    /// The calls that legacy made; `None` where they were not seen, or not all of them.
    pub effects: Option<&'a [Arc<Effect>]>,
}

/// What the run of a follow-up knew of its instance.
pub struct InstanceOfPair<'a> {
    /// The value of `instance` in expressions, or a part of it.
    pub value: &'a serde_json::Value,
    /// The same with stars in place of what is sensitive; `None` if nothing is.
    pub hidden: Option<&'a serde_json::Value>,
}

/// What a pair is captured with.
pub struct CaptureContext<'a> {
    /// Identifies the capture.
    pub id: Uuid,
    /// The route.
    pub route: &'a RouteId,
    /// When it was compared.
    pub at: Timestamp,
    /// The plan that the engine ran.
    pub plan: Option<&'a PlanId>,
    /// What the comparison found.
    pub outcome: &'static str,
    /// The rules of the route. With `text:` rules the lines of texts are kept.
    pub rules: &'a Rules,
    /// What is redacted beside what is secret by its name.
    pub redact: &'a RedactRules,
    /// The key of the hashes that stand in place of secrets.
    pub key: &'a RedactionKey,
    /// Hides the sensitive values of the run; `None` if it has none.
    pub sensitive: Option<&'a dyn SensitiveParts>,
    /// The bounds within which bodies are read.
    pub bounds: &'a CompareBounds,
    /// Whether the time for the pair is over.
    pub expired: &'a dyn Fn() -> bool,
}

/// Why a pair was not captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCaptured {
    /// A body could not be read within the bounds, so nobody knows what is secret in it.
    Unreadable,
    /// It has more secrets than are looked for, so nobody knows which of its texts quote one.
    TooManySecrets,
    /// The time for the pair was over.
    Time,
}

/// Makes the capture of a pair, without anything secret.
///
/// # Errors
/// The pair cannot be captured.
pub fn capture(pair: &CapturedPair<'_>, context: &CaptureContext<'_>) -> Result<Capture, NotCaptured> {
    let parts = PairParts {
        params: pair.params,
        query: pair.query,
        headers: pair.headers,
        body: pair.body,
        legacy: pair.legacy,
        engine: None,
        instance: pair.instance.as_ref().map(|instance| instance.value),
        reads: pair.reads,
        intents: pair.intents,
        effects: pair.effects.unwrap_or_default(),
        recorded: Vec::new(),
    };
    let quoted = quoted_secrets(context.redact, parts, context.bounds, context.expired);
    context.check_time()?;
    if quoted.is_full() {
        return Err(NotCaptured::TooManySecrets);
    }
    let CaptureContext { key, redact: rules, sensitive, expired, .. } = *context;
    let redactor = Redactor { key, rules, sensitive, quoted, expired };
    let params: Vec<(&str, &str)> = pair.params.iter().map(|(name, value)| (&**name, value.as_str())).collect();
    let making = Making { redactor, context };
    let redactor = &making.redactor;
    let calls = |effects: &[Arc<Effect>]| effects.iter().map(|effect| making.effect(effect)).collect();
    let made = Capture {
        version: CAPTURE_VERSION,
        id: context.id,
        route: context.route.clone(),
        at: context.at,
        started: pair.started,
        plan: context.plan.map(ToString::to_string),
        outcome: Some(context.outcome.to_owned()),
        request: CapturedRequest {
            method: pair.method.to_string(),
            path: redactor.path(pair.path, &params),
            query: pair.query.map(|query| redactor.query(query)),
            headers: making.headers(pair.headers),
            body: making.body(BodyOf::Request, pair.headers, pair.body)?,
        },
        legacy: making.reply(pair.legacy.status(), pair.legacy.headers(), pair.legacy.body(), BodyOf::Reply)?,
        instance: pair.instance.as_ref().map(|instance| redactor.instance(instance.value, instance.hidden)),
        reads: pair.reads.iter().map(|read| making.read(read)).collect::<Result<_, _>>()?,
        intents: pair.intents.iter().map(|intent| making.intent(intent)).collect::<Result<_, _>>()?,
        calls: pair.effects.map(calls).transpose()?,
    };
    // If the time was over before the end, the capture is of no use: the remaining texts are hidden whole.
    context.check_time()?;
    Ok(made)
}

impl CaptureContext<'_> {
    fn check_time(&self) -> Result<(), NotCaptured> {
        if (self.expired)() { Err(NotCaptured::Time) } else { Ok(()) }
    }
}

struct Making<'a> {
    redactor: Redactor<'a>,
    context: &'a CaptureContext<'a>,
}

impl Making<'_> {
    fn headers(&self, headers: &HeaderMap) -> Vec<(String, String)> {
        self.redactor.headers(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
    }

    fn body(&self, of: BodyOf, headers: &HeaderMap, body: &Body) -> Result<CapturedBody, NotCaptured> {
        let Body::Whole(_) = body else { return Ok(CapturedBody::TooLarge) };
        self.context.check_time()?;
        let bounds = self.context.bounds;
        let unreadable = |_| NotCaptured::Unreadable;
        Ok(match ParsedBody::of_parts(headers, body, bounds).map_err(unreadable)? {
            ParsedBody::Empty => CapturedBody::Empty,
            ParsedBody::Json(value, _) => CapturedBody::Text(self.redactor.body(of, &value).to_string()),
            ParsedBody::Bytes(bytes) => CapturedBody::Text(self.redactor.opaque(&bytes)),
            // Hidden as a whole: in the lines of a broken JSON document, secrets are recognised less reliably.
            ParsedBody::NotJson(text) => CapturedBody::Text(self.redactor.opaque(text.as_bytes())),
            ParsedBody::Text(text) => {
                let mut redacted = |value: &serde_json::Value| self.redactor.body(of, value);
                match rendered_document(headers, &text, bounds, &mut redacted).map_err(unreadable)? {
                    Some(rendered) => CapturedBody::Text(rendered),
                    None if self.keeps_lines(of) => CapturedBody::Text(self.lines(of, &text)),
                    // A line has no name that tells whether it is secret.
                    None => CapturedBody::Text(self.redactor.opaque(text.as_bytes())),
                }
            }
        })
    }

    /// Whether a text is kept line by line, because rules compare texts by line. The reply to a call is not compared
    /// itself, only what the engine makes of it, so the rules for calls do not count for it.
    fn keeps_lines(&self, of: BodyOf) -> bool {
        let rules = self.context.rules;
        rules.text.is_some() || matches!(of, BodyOf::Call) && rules.effects.compares_text()
    }

    /// A text line by line.
    fn lines(&self, of: BodyOf, text: &str) -> String {
        let mut hidden = serde_json::Value::from(text);
        if let Some(parts) = self.context.sensitive {
            match of {
                BodyOf::Request => parts.hide_in_request_body(&mut hidden),
                BodyOf::Reply => parts.hide_in_reply_body(&mut hidden),
                BodyOf::Call | BodyOf::ReplyToCall => {}
            }
        }
        if hidden.as_str() != Some(text) {
            return self.redactor.opaque(text.as_bytes());
        }
        let is_secret = |name: &str| self.context.redact.is_secret(name);
        let mut secret = SecretLines::of(&is_secret);
        let line = |line: &str| {
            if secret.next(line).is_some() {
                return with_content(line, &self.redactor.opaque(line.trim().as_bytes()));
            }
            let shown = self.redactor.text(line);
            let cut = redact::line(&shown);
            if cut == shown { shown } else { cut.replace(crate::secret::STARS, &self.redactor.opaque(line.as_bytes())) }
        };
        text.split('\n').map(line).collect::<Vec<_>>().join("\n")
    }

    fn reply(
        &self,
        status: http::StatusCode,
        headers: &HeaderMap,
        body: &Body,
        of: BodyOf,
    ) -> Result<CapturedReply, NotCaptured> {
        Ok(CapturedReply {
            status: status.as_u16(),
            headers: self.headers(headers),
            body: self.body(of, headers, body)?,
            may_be_unread: false,
        })
    }

    fn reply_to_call(&self, reply: Option<&EffectReply>) -> Result<Option<CapturedReply>, NotCaptured> {
        let Some(reply) = reply else { return Ok(None) };
        let captured = self.reply(reply.status, &reply.headers, &reply.body, BodyOf::ReplyToCall)?;
        Ok(Some(CapturedReply { may_be_unread: reply.may_be_unread, ..captured }))
    }

    fn read(&self, AnsweredRead { asked, reply }: &AnsweredRead) -> Result<CapturedCall, NotCaptured> {
        Ok(CapturedCall { reply: self.reply_to_call(reply.as_ref())?, ..self.intent(asked)? })
    }

    fn intent(&self, intent: &Intent) -> Result<CapturedCall, NotCaptured> {
        let headers = intent.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let body = Body::Whole(body_of(intent));
        Ok(CapturedCall {
            step: Some(intent.step.clone()),
            item: intent.item,
            service: intent.service.clone(),
            method: intent.method.to_string(),
            url: self.redactor.url(&intent.url),
            headers: self.redactor.headers(headers),
            body: self.body(BodyOf::Call, &headers_of(&intent.headers), &body)?,
            reply: None,
            number: None,
            replied_before: None,
        })
    }

    fn effect(&self, effect: &Effect) -> Result<CapturedCall, NotCaptured> {
        Ok(CapturedCall {
            step: None,
            item: None,
            service: effect.service.clone(),
            method: effect.method.to_string(),
            url: self.redactor.url(&effect.url),
            headers: self.headers(&effect.headers),
            body: self.body(BodyOf::Call, &effect.headers, &effect.body)?,
            reply: self.reply_to_call(effect.reply.as_ref())?,
            number: Some(effect.number),
            replied_before: effect.replied_before,
        })
    }
}
