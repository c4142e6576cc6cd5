//! The sample that is stored of a pair that differs.
//!
//! Always true: the sensitive values of the run, and those that its workflow declares in the request, are replaced in
//! all of it before any of it is cut.

use std::cell::OnceCell;

use serde_json::Value;

use super::declared_body::declared_body;
use crate::clock;
use crate::compare::{
    Body, CompareBounds, Comparison, Difference, DifferenceKind, HidesSensitive, Observation, SensitiveParts,
    sample_text, shorten,
};
use crate::evidence::Sample;
use crate::exchange::{Answered, RunReport};
use crate::limits::Limits;
use crate::secret::{STARS, redact_line};
use crate::workflow::Redaction;

/// Hides the sensitive values of one pair; made when the first of them may be shown.
pub(super) struct PairRedaction<'a> {
    answered: &'a Answered,
    engine: &'a Observation,
    of_run: &'a Redaction,
    bounds: CompareBounds,
    made: OnceCell<Redaction>,
}

impl<'a> PairRedaction<'a> {
    /// `None` where the run has no sensitive values.
    pub(super) fn of(
        answered: &'a Answered,
        engine: &'a Observation,
        report: &'a RunReport,
        bounds: CompareBounds,
    ) -> Option<Self> {
        let of_run = report.redaction.as_deref()?;
        Some(Self { answered, engine, of_run, bounds, made: OnceCell::new() })
    }
    fn redaction(&self) -> &Redaction {
        self.made.get_or_init(|| {
            // The run keeps only those parts of the request and of legacy's reply that its plan reads; a sample shows
            // all of both.
            let request = &self.answered.request;
            let redaction = self.of_run.with_request(&request.headers, &declared_body(request, &self.bounds));
            redaction.with_reply(self.answered.legacy.headers()).with_reply(self.engine.headers())
        })
    }
}

impl HidesSensitive for PairRedaction<'_> {
    fn hide_in_value(&self, value: &mut Value) {
        self.redaction().value(value);
    }
    fn hide_in_text(&self, text: &str) -> String {
        self.redaction().text(text)
    }
}

impl SensitiveParts for PairRedaction<'_> {
    fn hide_in_request_body(&self, body: &mut Value) {
        self.redaction().request_body(body);
    }
    fn hide_in_reply_body(&self, body: &mut Value) {
        self.redaction().answer_body(body);
    }
    fn hides_at(&self, path: &str) -> bool {
        self.redaction().hides_difference_at(path)
    }
}

/// The redacted sample of a pair that differs, without the pair itself.
pub(super) fn sample(
    answered: &Answered,
    engine: &Observation,
    report: &RunReport,
    redaction: Option<&PairRedaction<'_>>,
    comparison: Comparison,
    limits: &Limits,
) -> Sample {
    let request = &answered.request;
    let bounds = CompareBounds::of(limits);
    let redaction = redaction.map(PairRedaction::redaction);
    let bytes_max = usize::try_from(limits.sample_bytes_max / 3).unwrap_or(usize::MAX);
    let reply = |seen: &Observation| {
        let body = redacted(seen.headers(), seen.body(), &bounds, redaction, Redaction::answer_body);
        shorten(&format!("{}\n{body}", seen.status().as_u16()), bytes_max)
    };
    let query = request.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let line = format!("{} {}{query}", request.method, request.path);
    let line = redact_line(&redaction.map_or(line.clone(), |redaction| redaction.text(&line)));
    let body = Body::Whole(request.body.clone());
    let body = redacted(&request.headers, &body, &bounds, redaction, Redaction::request_body);
    Sample {
        route: answered.flag.route.id.clone(),
        fingerprint: comparison.fingerprint,
        at: clock::now(),
        run: report.run,
        differences: comparison.differences.into_iter().map(|found| shown(found, redaction)).collect(),
        legacy: reply(&answered.legacy),
        engine: reply(engine),
        request: shorten(&format!("{line}\n{body}"), bytes_max),
        kept: None,
    }
}

/// A difference without the run's sensitive values.
fn shown(mut difference: Difference, redaction: Option<&Redaction>) -> Difference {
    if let Some(redaction) = redaction {
        difference.hide_earlier_pairings(|path| redaction.hides_difference_at(path));
    }
    match redaction {
        None => difference.mask_and_cut(str::to_owned),
        Some(redaction) if redaction.hides_difference_at(&difference.path) => {
            difference.mask_and_cut(|_| STARS.to_owned())
        }
        Some(_) if difference.kind == DifferenceKind::Status => {}
        Some(redaction) => {
            difference.hide_error_of_assert();
            difference.mask_and_cut(|value| redaction.text(value));
        }
    }
    difference
}

/// A body for a sample, without the run's sensitive values.
fn redacted(
    headers: &http::HeaderMap,
    body: &Body,
    bounds: &CompareBounds,
    redaction: Option<&Redaction>,
    of_body: fn(&Redaction, &mut Value),
) -> String {
    let Some(redaction) = redaction else { return sample_text(headers, body, bounds, &|_| {}) };
    sample_text(headers, body, bounds, &|value| of_body(redaction, value))
}
