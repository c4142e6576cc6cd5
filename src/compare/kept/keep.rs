//! Makes the record that is kept of a pair.

use std::sync::Arc;

use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use serde_json::Value;

use super::body::{BodyMaking, KeptBody, Lines};
use super::mask::Placeholders;
use super::record::{KeptCall, KeptPair, KeptReply, NotKept, PairRecord};
use crate::compare::bounds::CompareBounds;
use crate::compare::earlier_ids::EarlierIds;
use crate::compare::effect::Effect;
use crate::compare::observation::{Body, Intent, Observation};
use crate::compare::pair::{HidesSensitive, InstanceIds, Pair};
use crate::compare::redact;
use crate::compare::rules::Rules;
use crate::secret::STARS;

/// Hides the sensitive values of one pair, by the part in which they are.
pub trait SensitiveParts: HidesSensitive {
    /// Replaces the sensitive values in the request's body.
    fn hide_in_request_body(&self, body: &mut Value);
    /// Replaces the sensitive values in the body of a reply, of either arm.
    fn hide_in_reply_body(&self, body: &mut Value);
    /// Whether a difference at this path shows something sensitive: `headers.x-token`, `effects`.
    fn hides_at(&self, path: &str) -> bool;
}

/// What is needed, besides the pair, to keep it.
pub struct KeepContext<'a> {
    /// The request as conditions and asserts read it, whether the rules have any or not.
    pub request: &'a Value,
    /// The ids that earlier pairs of its instance bound.
    pub earlier_ids: &'a [EarlierIds],
    /// The rules under which it was compared.
    pub rules: &'a Rules,
    /// The bounds under which it was compared.
    pub bounds: &'a CompareBounds,
    /// `None` if nothing is sensitive.
    pub sensitive: Option<&'a dyn SensitiveParts>,
    /// The most bytes that are kept.
    pub bytes_max: usize,
    /// Whether the time for the pair is over.
    pub expired: &'a dyn Fn() -> bool,
}

/// Makes the record of a pair. Its calls are kept only if none of them may hold something sensitive, because not every
/// part of a call is known by its path.
pub fn keep(pair: &Pair<'_>, context: &KeepContext<'_>) -> PairRecord {
    let mut keeping = Keeping { context, placeholders: Placeholders::default() };
    match keeping.pair(pair) {
        Ok(kept) => match serde_json::to_string(&kept) {
            Ok(text) if text.len() <= context.bytes_max => PairRecord::Pair(Box::new(kept)),
            Ok(_) => PairRecord::Not(NotKept::TooLarge),
            Err(_) => PairRecord::Not(NotKept::Unreadable),
        },
        Err(why) => PairRecord::Not(why),
    }
}

struct Keeping<'a> {
    context: &'a KeepContext<'a>,
    placeholders: Placeholders,
}

impl Keeping<'_> {
    fn check_time(&self) -> Result<(), NotKept> {
        if (self.context.expired)() { Err(NotKept::Time) } else { Ok(()) }
    }

    fn pair(&mut self, pair: &Pair<'_>) -> Result<KeptPair, NotKept> {
        let (intents, sent_reads) = (pair.engine.intents(), pair.engine.sent_reads());
        let has_calls = !intents.is_empty()
            || sent_reads.is_some_and(|reads| !reads.is_empty())
            || pair.effects.is_some_and(|effects| !effects.is_empty());
        let hides_calls =
            self.context.sensitive.is_some_and(|parts| parts.hides_at("effects.") || parts.hides_at("intents."));
        if has_calls && hides_calls {
            return Err(NotKept::SensitiveCalls);
        }
        // If both arms had intents, these would be compared too. Legacy's observation never has any today.
        if !pair.legacy.intents().is_empty() {
            return Err(NotKept::Unreadable);
        }
        let calls = |effects: &[Arc<Effect>]| effects.iter().map(|effect| self.call(effect)).collect();
        let effects: Option<Result<Vec<KeptCall>, NotKept>> = pair.effects.map(calls);
        Ok(KeptPair {
            request: self.request()?.to_string(),
            legacy: self.reply(pair.legacy)?,
            engine: self.reply(pair.engine)?,
            intents: self.intents(intents)?,
            sent_reads: sent_reads.map(|reads| self.intents(reads)).transpose()?,
            steps_without_items: pair.engine.steps_without_items().to_vec(),
            unattributed_steps: pair.engine.unattributed_steps().to_vec(),
            effects: effects.transpose()?,
            instance: pair.instance.map(|ids| self.instance(ids)),
            earlier_ids: self.context.earlier_ids.iter().map(|ids| self.earlier(ids)).collect(),
            stale_reads: pair.stale_reads,
            has_stopped: pair.engine.has_stopped(),
        })
    }

    fn instance(&mut self, InstanceIds { legacy, engine }: &InstanceIds) -> InstanceIds {
        InstanceIds { legacy: self.id(legacy), engine: self.id(engine) }
    }

    fn earlier(&mut self, ids: &EarlierIds) -> EarlierIds {
        let mut masked = |id: &String| match ids.is_secret {
            true => self.placeholders.text(id, STARS),
            false => self.id(id),
        };
        EarlierIds { legacy: masked(&ids.legacy), engine: masked(&ids.engine), ..ids.clone() }
    }

    fn id(&mut self, id: &str) -> String {
        let hidden = self.context.sensitive.map_or_else(|| id.to_owned(), |parts| parts.hide_in_text(id));
        self.placeholders.text(id, &hidden)
    }

    fn request(&mut self) -> Result<Value, NotKept> {
        self.check_time()?;
        let (request, sensitive) = (self.context.request, self.context.sensitive);
        let mut redacted = request.clone();
        if let Some(parts) = sensitive {
            if let Some(body) = redacted.get_mut("body") {
                parts.hide_in_request_body(body);
            }
            parts.hide_in_value(&mut redacted);
        }
        self.check_time()?;
        // Redacted by itself: as a member of the request, a body that is a lone text or number would count as the value
        // under the key `body`, and would not be hidden.
        let body = redacted.get("body").map(redact::redact);
        let mut redacted = redact::redact(&redacted);
        if let (Some(body), Some(members)) = (body, redacted.as_object_mut()) {
            members.insert("body".to_owned(), body);
        }
        self.check_time()?;
        Ok(self.placeholders.value(request, &redacted))
    }

    fn reply(&mut self, reply: &Observation) -> Result<KeptReply, NotKept> {
        let sensitive = self.context.sensitive;
        let hide = |value: &mut Value| {
            if let Some(parts) = sensitive {
                parts.hide_in_reply_body(value);
            }
        };
        let headers = self.headers(reply.headers())?;
        let body = self.body(reply.headers(), reply.body(), self.context.rules.text.is_some(), &hide)?;
        // The body alone exceeds the bound for the whole pair: no time is spent on the rest.
        if body.shown().len() > self.context.bytes_max {
            return Err(NotKept::TooLarge);
        }
        let was_encoded = reply.headers().contains_key(CONTENT_ENCODING);
        Ok(KeptReply { status: reply.status().as_u16(), headers, was_encoded, body })
    }

    fn call(&mut self, effect: &Effect) -> Result<KeptCall, NotKept> {
        let sensitive = self.context.sensitive;
        let hide = |value: &mut Value| hide_in_value(sensitive, value);
        // The body was not captured whole, and no rule reads it, or the pair would not have been compared.
        let body = match &effect.body {
            Body::Whole(_) => self.body(&effect.headers, &effect.body, self.keeps_lines_of_calls(), &hide)?,
            Body::TooLarge => KeptBody::Digest(String::new()),
        };
        Ok(KeptCall {
            service: effect.service.clone(),
            method: effect.method.to_string(),
            url: self.url(&effect.url)?,
            headers: self.headers(&effect.headers)?,
            body,
            reply_status: effect.reply.as_ref().filter(|reply| !reply.may_be_unread).map(|reply| reply.status.as_u16()),
            number: effect.number,
            replied_before: effect.replied_before,
        })
    }

    fn intents(&mut self, intents: &[Intent]) -> Result<Vec<Intent>, NotKept> {
        intents.iter().map(|intent| self.intent(intent)).collect()
    }

    fn intent(&mut self, intent: &Intent) -> Result<Intent, NotKept> {
        let sensitive = self.context.sensitive;
        let hide = |value: &mut Value| hide_in_value(sensitive, value);
        let headers = intent.headers.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
        let headers: HeaderMap = headers.collect();
        let bytes = match &intent.bytes {
            None => None,
            Some(bytes) => {
                match self.body(&headers, &Body::Whole(bytes.clone()), self.keeps_lines_of_calls(), &hide)? {
                    KeptBody::Digest(_) => return Err(NotKept::Unreadable),
                    body => body.bytes(),
                }
            }
        };
        let mut redacted = intent.body.clone();
        hide(&mut redacted);
        self.check_time()?;
        let body = match (&redacted, &bytes) {
            // A body that is text is kept as it was redacted in its exact bytes.
            (Value::String(_), Some(kept)) => Value::from(String::from_utf8_lossy(kept).into_owned()),
            (redacted, _) => self.placeholders.value(&intent.body, &redact::redact(redacted)),
        };
        let headers = intent.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(CONTENT_ENCODING.as_str()));
        let headers = headers.map(|(name, value)| {
            // Stars stand in place of what is filled in only when the call is sent: nothing else of it is secret.
            let is_masked = value.contains(STARS);
            (name.clone(), if is_masked { value.clone() } else { self.header(name, value) })
        });
        let headers = headers.collect();
        Ok(Intent { url: self.url(&intent.url)?, headers, body, bytes, ..intent.clone() })
    }

    /// Whether the lines of calls are kept. Each comparison finds out anew by which step's rules a call is compared, so
    /// the rules of all steps count.
    fn keeps_lines_of_calls(&self) -> bool {
        let rules = self.context.rules;
        rules.text.is_some() || rules.effects.compares_text()
    }

    fn body(
        &mut self,
        headers: &HeaderMap,
        body: &Body,
        keeps_lines: bool,
        hide: &dyn Fn(&mut Value),
    ) -> Result<KeptBody, NotKept> {
        self.check_time()?;
        let lines = if keeps_lines { Lines::Kept } else { Lines::Digested };
        let KeepContext { bounds, expired, rules, .. } = *self.context;
        let making = BodyMaking { bounds, hide, is_secret: &|name| rules.texts.redact().is_secret(name), expired };
        let kept = KeptBody::of(headers, body, lines, &mut self.placeholders, &making);
        let kept = kept.map_err(|_| NotKept::Unreadable)?;
        self.check_time()?;
        Ok(kept)
    }

    fn url(&mut self, url: &str) -> Result<String, NotKept> {
        let sensitive = self.context.sensitive;
        let hide = |text: &str| sensitive.map_or_else(|| text.to_owned(), |parts| parts.hide_in_text(text));
        self.placeholders.url(url, &hide).ok_or(NotKept::SecretAddress)
    }

    fn headers(&mut self, headers: &HeaderMap) -> Result<Vec<(String, String)>, NotKept> {
        let others = headers.iter().filter(|(name, _)| *name != CONTENT_ENCODING);
        let kept = others.map(|(name, value)| {
            let value = value.to_str().map_err(|_| NotKept::Unreadable)?;
            Ok((name.as_str().to_owned(), self.header(name.as_str(), value)))
        });
        kept.collect()
    }

    fn header(&mut self, name: &str, value: &str) -> String {
        let redacted = match self.context.sensitive {
            Some(parts) if parts.hides_at(&format!("headers.{name}")) => STARS.to_owned(),
            Some(parts) => redact::header(name, &parts.hide_in_text(value)),
            None => redact::header(name, value),
        };
        self.placeholders.text(value, &redacted)
    }
}

fn hide_in_value(sensitive: Option<&dyn SensitiveParts>, value: &mut Value) {
    if let Some(parts) = sensitive {
        parts.hide_in_value(value);
    }
}
