//! The sample that is stored of a pair that differs.
//!
//! Always true: the sensitive values of the run, and those that its workflow declares in the request, are replaced in
//! all of it before any of it is cut.

use serde_json::Value;

use super::redaction::PairRedaction;
use crate::clock;
use crate::compare::{
    Body, CompareBounds, Comparison, Difference, DifferenceKind, HidesSensitive, Observation, SensitiveParts,
    sample_text, shorten,
};
use crate::evidence::Sample;
use crate::exchange::{Answered, RunReport};
use crate::limits::Limits;
use crate::secret::{STARS, redact_line};

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
    let bytes_max = usize::try_from(limits.sample_bytes_max / 3).unwrap_or(usize::MAX);
    let reply = |seen: &Observation| {
        let hide = |value: &mut Value| redaction.into_iter().for_each(|parts| parts.hide_in_reply_body(value));
        let body = sample_text(seen.headers(), seen.body(), &bounds, &hide);
        shorten(&format!("{}\n{body}", seen.status().as_u16()), bytes_max)
    };
    let query = request.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let line = format!("{} {}{query}", request.method, request.path);
    let line = redact_line(&redaction.map_or(line.clone(), |parts| parts.hide_in_text(&line)));
    let body = Body::Whole(request.body.clone());
    let hide = |value: &mut Value| redaction.into_iter().for_each(|parts| parts.hide_in_request_body(value));
    let body = sample_text(&request.headers, &body, &bounds, &hide);
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
fn shown(mut difference: Difference, redaction: Option<&PairRedaction<'_>>) -> Difference {
    if let Some(redaction) = redaction {
        difference.hide_earlier_pairings(|path| redaction.hides_at(path));
    }
    match redaction {
        None => difference.mask_and_cut(str::to_owned),
        Some(redaction) if redaction.hides_at(&difference.path) => difference.mask_and_cut(|_| STARS.to_owned()),
        Some(_) if difference.kind == DifferenceKind::Status => {}
        Some(redaction) => {
            difference.hide_error_of_assert();
            difference.mask_and_cut(|value| redaction.hide_in_text(value));
        }
    }
    difference
}
