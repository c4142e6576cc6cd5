//! Checks a call: its URL, body, headers, retries and effect class.

use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::context::Check;
use super::names::{ExpressionContext, Usage};
use super::values;
use crate::expression::UrlTemplate;
use crate::names::ServiceName;
use crate::problem::Site;
use crate::workflow::definition::{RetryDraft, StepDraft};
use crate::workflow::{Call, CallBody, EffectClass, Rehearsal, Retry, Statuses, wire};

/// The default of `retry:`.
const RETRY: Retry = Retry { attempts: 3, base: Duration::from_millis(50), max: Duration::from_secs(2) };
/// The greatest number of attempts that is accepted; more is probably a typing error.
const ATTEMPTS_MAX: u64 = 100;
/// The value of `rehearse:` with which the output is taken from the call by legacy that corresponds.
const FROM_LEGACY: &str = "legacy";

impl Check<'_> {
    /// Checks a call. `at` is the place of the method and the URL, `site` that of the other keys.
    pub(super) fn call(
        &mut self,
        text: &str,
        at: &Site,
        site: &Site,
        draft: &StepDraft,
        context: &mut ExpressionContext<'_>,
    ) -> Option<Call> {
        context.usage = Usage::Wire;
        let target = self.target(text, at, context);
        let headers = self.headers(&draft.headers, &site.key("headers"), context);
        context.usage = Usage::Value;
        let body = self.body(site, draft, context);
        context.usage = Usage::Rehearse;
        let rehearse = draft.rehearse.as_ref().map(|value| match value.as_str() {
            Some(FROM_LEGACY) => Some(Rehearsal::FromLegacy),
            _ => self.template(value, &site.key("rehearse"), context).map(Rehearsal::Declared),
        });
        context.usage = Usage::Value;
        let retry = self.retry(draft.retry.as_ref(), &site.key("retry"));
        let timeout = draft.timeout.as_ref().map(|text| self.duration(text, &site.key("timeout")));
        let accept = match &draft.accept {
            Some(list) => self.statuses(list, &site.key("accept")),
            None => Statuses(vec![(200, 299)]),
        };
        if accept.0.is_empty() {
            self.problems.error(&site.key("accept"), "a call that accepts nothing always fails");
        }
        let not_done = self.statuses(draft.not_done.as_deref().unwrap_or_default(), &site.key("not_done"));
        let (method, url, service, keyed) = target?;
        let effect = draft.effect.unwrap_or_else(|| EffectClass::of_method(&method));
        let call = Call {
            method,
            url,
            service,
            keyed,
            effect,
            headers,
            body: body?,
            retry: retry?,
            timeout: timeout.map_or(Some(None), |timeout| timeout.map(Some))?,
            accept,
            not_done,
            rehearse: rehearse.map_or(Some(None), |rehearse| rehearse.map(Some))?,
            stream: draft.stream,
            volatile: draft.volatile,
        };
        if matches!(call.rehearse, Some(Rehearsal::FromLegacy)) && call.effect == EffectClass::Read {
            self.problems
                .error(
                    &site.key("rehearse"),
                    "`rehearse: legacy` takes what legacy's own call got, and this step reads",
                )
                .hint("leave `rehearse` out: a read is sent in shadow and dark");
        }
        self.refuse_now_with_secrets(at, &call);
        self.warn_of_unusual_settings(site, draft, &call);
        Some(call)
    }

    fn target(
        &mut self,
        text: &str,
        at: &Site,
        context: &mut ExpressionContext<'_>,
    ) -> Option<(Method, UrlTemplate, ServiceName, bool)> {
        let (method, offset, url) = match values::call(text) {
            Ok(parts) => parts,
            Err((message, hint)) => {
                let problem = self.problems.error(at, message);
                if let Some(hint) = hint {
                    problem.hint(hint);
                }
                return None;
            }
        };
        let parsed = match UrlTemplate::parse_within(url, &self.bounds) {
            Ok(parsed) => parsed,
            Err(error) => {
                self.report_parse_error(at, &error, offset);
                return None;
            }
        };
        let Some(name) = parsed.service() else {
            let base = parsed.base().unwrap_or_default();
            let problem = self.problems.error(at, "a call has to go to a declared service, not to an address");
            problem
                .hint(format!("declare `{base}` under `services:` in pointsman.yaml and write `${{services.NAME}}`"));
            problem.offset(offset);
            return None;
        };
        self.reads(parsed.reads(), url, offset, at, context);
        let keyed = match self.known.services.get(name) {
            Some(keyed) => *keyed,
            // The files in force lack the service, so it is not known to be `keyed`.
            None if self.is_stored_definition => false,
            None => return None,
        };
        let service = ServiceName::new(name);
        Some((method, parsed, service, keyed))
    }

    fn body(&mut self, site: &Site, draft: &StepDraft, context: &mut ExpressionContext<'_>) -> Option<CallBody> {
        let keys = [
            ("body", draft.body.is_some()),
            ("form", draft.form.is_some()),
            ("text", draft.text.is_some()),
            ("raw", draft.raw.is_some()),
        ];
        let mut given = keys.into_iter().filter(|(_, is_given)| *is_given).map(|(key, _)| key);
        if let (Some(first), Some(second)) = (given.next(), given.next()) {
            self.problems
                .error(&site.key(second).at_key(), format!("a call has one body: either `{first}` or `{second}`"));
        }
        if let Some(value) = &draft.body {
            return self.template(value, &site.key("body"), context).map(CallBody::Json);
        }
        if let Some(fields) = &draft.form {
            let at = site.key("form");
            let parsed: Vec<_> = fields
                .iter()
                .map(|(name, value)| Some((name.clone(), self.template(value, &at.key(name.as_str()), context)?)))
                .collect();
            return parsed.into_iter().collect::<Option<_>>().map(CallBody::Form);
        }
        if let Some(text) = &draft.text {
            return self.template(&Value::String(text.clone()), &site.key("text"), context).map(CallBody::Text);
        }
        if let Some(raw) = &draft.raw {
            let at = site.key("raw");
            let template = self.template(&Value::String(raw.clone()), &at, context)?;
            let is_raw = template.single().is_some_and(|expression| expression.source().trim() == "request.raw");
            if !is_raw {
                let problem = self.problems.error(&at, "`raw` passes the bytes of the request on, and nothing else");
                problem.hint("write `raw: ${request.raw}`; use `text:` or `body:` for anything else");
                return None;
            }
            return Some(CallBody::Raw);
        }
        Some(CallBody::Empty)
    }

    fn retry(&mut self, draft: Option<&RetryDraft>, site: &Site) -> Option<Retry> {
        let Some(draft) = draft else { return Some(RETRY) };
        let base = draft.base.as_ref().map(|text| self.duration(text, &site.key("base")));
        let max = draft.max.as_ref().map(|text| self.duration(text, &site.key("max")));
        let base = base.unwrap_or(Some(RETRY.base))?;
        let max = max.unwrap_or(Some(RETRY.max.max(base)))?;
        if max < base {
            self.problems.error(&site.key("max"), "`max` is shorter than `base`");
        }
        let attempts = draft.attempts.unwrap_or(u64::from(RETRY.attempts));
        let message = match attempts {
            0 => "0 attempts would never call".to_owned(),
            1..=ATTEMPTS_MAX => return Some(Retry { attempts: u32::try_from(attempts).unwrap_or(1), base, max }),
            more => format!("{more} attempts are too many; at most {ATTEMPTS_MAX}"),
        };
        self.problems.error(&site.key("attempts"), message).hint("`attempts` counts the first one too: 1 is no retry");
        None
    }

    pub(super) fn duration(&mut self, text: &str, site: &Site) -> Option<Duration> {
        values::duration(text).map_err(|message| self.problems.error(site, message)).ok()
    }

    pub(super) fn statuses(&mut self, list: &[Value], site: &Site) -> Statuses {
        let (statuses, bad) = values::statuses(list);
        for (index, message) in bad {
            self.problems.error(&site.index(index), message);
        }
        statuses
    }

    /// Refuses `now` in a URL or headers that hold a secret: these are recorded with stars and evaluated again when the
    /// call is sent, so `now` would then have another value than in the record.
    fn refuse_now_with_secrets(&mut self, at: &Site, call: &Call) {
        let mut wire = call.headers.iter().map(|(_, value)| value.reads()).chain([call.url.reads()]);
        if wire.any(|reads| reads.iter().any(|path| path.root() == "now")) && wire::has_hidden_parts(call) {
            let problem = self.problems.error(at, "URL and headers cannot read `now` beside a secret or a credential");
            problem.hint("compute it in a `set` step before: `stamp: { set: \"${now}\" }`");
        }
    }

    /// Warns about what is allowed and probably not meant. Refuses a status that is both accepted and `not_done`.
    fn warn_of_unusual_settings(&mut self, site: &Site, draft: &StepDraft, call: &Call) {
        let writes = matches!(call.method, Method::PUT | Method::PATCH | Method::DELETE);
        if call.effect == EffectClass::Read && writes {
            let message =
                format!("a {} that is declared `read` is sent in shadow, in addition to legacy's own", call.method);
            self.problems.warn(&site.key("effect"), message).hint("`read` means that it changes nothing at all");
        }
        // A step with a probe is tried again where the probe says that nothing was done.
        let explicit = draft.retry.is_some() && draft.probe.is_none();
        if explicit && call.retry.attempts > 1 && !call.repeat_is_harmless() {
            let message = format!(
                "after an unknown outcome (a timeout, a cut connection) this {} is not tried again: doing it twice could do harm",
                call.method
            );
            let hint = format!(
                "declare `{}` as `keyed: true` if it honours Idempotency-Key; else `retry` holds only for attempts that certainly did nothing",
                call.service
            );
            self.problems.warn(&site.key("retry").at_key(), message).hint(hint);
        }
        let judges_503 = call.not_done.contains(503) || call.accept.contains(503);
        if draft.fallback.is_some() && call.effect != EffectClass::Read && !judges_503 {
            let message = "a 503 does not lead to the fallback: a proxy answers 503 also when the service was cut off \
                           after it had the request, so the outcome is unknown and the run pauses";
            let hint = format!(
                "say `not_done: [503]` if every 503 of `{}`, and of each proxy in front of it, means that nothing was done",
                call.service
            );
            self.problems.warn(&site.key("fallback").at_key(), message).hint(hint);
        }
        let (busy_on, _) = values::statuses(draft.busy_on.as_deref().unwrap_or_default());
        let leaves_unknown = |status: u16| !call.not_done.contains(status) && !call.accept.contains(status);
        let unknown = busy_on.0.iter().any(|(low, high)| ((*low).max(500)..=*high).any(leaves_unknown));
        if unknown && call.effect != EffectClass::Read {
            let message = "a 5xx does not count as busy: a proxy answers it also when the service was cut off after it \
                           had the request, so the outcome is unknown";
            let hint = format!(
                "list it under `not_done` too if, from `{}` and each proxy in front of it, it always means that nothing was done",
                call.service
            );
            self.problems.warn(&site.key("busy_on"), message).hint(hint);
        }
        if call.volatile && call.effect != EffectClass::Read {
            self.problems.warn(&site.key("volatile"), "`volatile` means something only for a `read`");
        }
        if matches!(call.method, Method::GET | Method::HEAD) && !matches!(call.body, CallBody::Empty) {
            let message = format!("a {} with a body is not understood by every service", call.method);
            self.problems.warn(&site.key("call"), message);
        }
        let overlap =
            call.not_done.0.iter().any(|(low, high)| (*low..=*high).any(|status| call.accept.contains(status)));
        if overlap {
            self.problems.error(&site.key("not_done"), "a status cannot be both a result (`accept`) and `not_done`");
        }
    }
}
