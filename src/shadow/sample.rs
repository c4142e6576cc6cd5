//! The sample that is stored of a pair that differs.
//!
//! Always true: the sensitive values of the run, and those that its workflow declares in the request, are replaced in
//! all of it before any of it is cut.

use serde_json::Value;

use super::request_value::declared_body;
use crate::clock;
use crate::compare::{Body, Bounds, Comparison, Difference, Kind, Observation, sample_text, shorten};
use crate::evidence::Sample;
use crate::exchange::{Answered, RunReport};
use crate::expression::parse_json;
use crate::limits::Limits;
use crate::secret::{STARS, redact_line};
use crate::workflow::Redaction;

/// The redacted sample of a pair that differs.
pub(super) fn sample(
    answered: &Answered,
    engine: &Observation,
    report: &RunReport,
    comparison: Comparison,
    limits: &Limits,
) -> Sample {
    let request = &answered.request;
    let bounds = Bounds::of(limits);
    // The run keeps only those parts of the request that its plan reads; here is all of it.
    let redaction = report.redaction.as_deref();
    let redaction =
        redaction.map(|redaction| redaction.with_request(&request.headers, &declared_body(request, &bounds)));
    let redaction = redaction.as_ref();
    let bytes_max = usize::try_from(limits.sample_bytes_max / 3).unwrap_or(usize::MAX);
    let reply = |seen: &Observation| {
        let body = sample_text(seen.headers(), seen.body(), &bounds);
        let body = redacted(body, redaction, Redaction::answer_body);
        shorten(&format!("{}\n{body}", seen.status().as_u16()), bytes_max)
    };
    let query = request.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let line = redact_line(&format!("{} {}{query}", request.method, request.path));
    let line = redaction.map_or(line.clone(), |redaction| redaction.text(&line));
    let body = sample_text(&request.headers, &Body::Whole(request.body.clone()), &bounds);
    let body = redacted(body, redaction, Redaction::request_body);
    Sample {
        route: answered.flag.route.id.clone(),
        fingerprint: comparison.fingerprint,
        at: clock::now(),
        run: report.run,
        differences: comparison.differences.into_iter().map(|found| shown(found, redaction)).collect(),
        legacy: reply(&answered.legacy),
        engine: reply(engine),
        request: shorten(&format!("{line}\n{body}"), bytes_max),
    }
}

/// A difference without the run's sensitive values.
fn shown(mut difference: Difference, redaction: Option<&Redaction>) -> Difference {
    match redaction {
        None => difference.show(str::to_owned),
        Some(redaction) if redaction.hides_difference_at(&difference.path) => difference.show(|_| STARS.to_owned()),
        Some(_) if difference.kind == Kind::Status => {}
        Some(redaction) => {
            difference.hide_error_of_assert();
            difference.show(|value| redaction.text(value));
        }
    }
    difference
}

/// A body for a sample, without the run's sensitive values.
fn redacted(text: String, redaction: Option<&Redaction>, of_body: fn(&Redaction, &mut Value)) -> String {
    let Some(redaction) = redaction else { return text };
    match parse_json(text.as_bytes()) {
        Ok(mut body) => {
            of_body(redaction, &mut body);
            serde_json::to_string_pretty(&body).unwrap_or_else(|_| STARS.to_owned())
        }
        Err(_) => redaction.text(&text),
    }
}
