//! `egress.correlate` and `egress.window`: how calls by legacy are attributed to requests.

use std::time::Duration;

use crate::egress::{AttributionSettings, Correlate, CorrelateError};
use crate::flag::file::duration;
use crate::problem::{Problems, Site};

/// Checks both settings.
pub(super) fn check(
    correlate: Option<&str>,
    window: Option<&str>,
    site: &Site,
    problems: &mut Problems,
) -> Option<AttributionSettings> {
    let default = AttributionSettings::default();
    let correlate = match correlate.map(Correlate::parse) {
        None => Some(default.correlate),
        Some(Ok(correlate)) => Some(correlate),
        Some(Err(CorrelateError { message, hint, offset })) => {
            let problem = problems.error(&site.key("correlate"), message);
            if let Some(offset) = offset {
                problem.offset(offset);
            }
            problem.hint(hint);
            None
        }
    };
    let window: Option<Duration> = match window {
        None => Some(default.window),
        Some(text) => duration(text, &site.key("window"), problems),
    };
    Some(AttributionSettings { correlate: correlate?, window: window? })
}
