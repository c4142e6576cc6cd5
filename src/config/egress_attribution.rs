//! `egress.correlate` and `egress.window`: to which request a call of legacy belongs.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::egress::{AttributionSettings, Correlate, CorrelateError};
use crate::flag::file::duration;
use crate::problem::{Problems, Site};

/// Calls that legacy makes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EgressDraft {
    /// What, beside its `traceparent`, says which request a call of legacy is for: a header that legacy hands on
    /// (`header.x-request-id`), or a value of the call that is equal to one of the request
    /// (`${call.body.order_ref == request.body.ref}`).
    pub correlate: Option<String>,
    /// For how long after its end calls are still attributed to a request: `10s`, the default.
    pub window: Option<String>,
}

/// Checks both.
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
