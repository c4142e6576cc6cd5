//! `retention:`: how long ended runs are kept.
//!
//! Always true: without `retention:`, the default with which the store was created applies. If `retention:` is a map,
//! runs with a status that it leaves out are kept for ever. `app` and the store delete the runs.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::problem::{Problems, Site};
use crate::workflow::RunStatus;

/// How long a run is kept after its end, by its final status; `None` means for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Runs in which everything was done.
    pub completed: Option<Duration>,
    /// Runs that failed.
    pub failed: Option<Duration>,
    /// Runs that were cancelled, by a person, by the parent run or by a rule of the workflow (`busy: cancel`).
    pub cancelled: Option<Duration>,
    /// Runs that the engine gave back to legacy, which answered.
    pub abandoned: Option<Duration>,
}

impl Retention {
    /// One age for all runs.
    pub fn all(age: Option<Duration>) -> Self {
        Self { completed: age, failed: age, cancelled: age, abandoned: age }
    }
    /// The statuses whose runs are not kept for ever, with their ages.
    pub fn ages(&self) -> impl Iterator<Item = (RunStatus, Duration)> {
        let Self { completed, failed, cancelled, abandoned } = *self;
        let all = [
            (RunStatus::Completed, completed),
            (RunStatus::Failed, failed),
            (RunStatus::Cancelled, cancelled),
            (RunStatus::Abandoned, abandoned),
        ];
        all.into_iter().filter_map(|(status, age)| Some((status, age?)))
    }
}

/// One age for all runs, or one for each final status.
#[derive(Clone, Debug)]
pub(crate) enum RetentionDraft {
    /// `30d`, or `forever`.
    All(String),
    /// `{ completed: 30d, failed: 90d }`; what is left out is kept for ever.
    Each(RetentionMapDraft),
}

/// How long runs that have ended are kept: one age for all (`30d`, `forever`), or by how they ended; what is left out
/// is kept for ever. Without it, the default with which the store was created.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RetentionMapDraft {
    /// Runs in which everything was done: `30d`.
    pub completed: Option<String>,
    /// Runs that failed: `90d`.
    pub failed: Option<String>,
    /// Runs that were cancelled, by a person, by the parent run or by a rule of the workflow (`busy: cancel`).
    pub cancelled: Option<String>,
    /// Runs that the engine gave back to legacy, which answered.
    pub abandoned: Option<String>,
}

impl<'de> Deserialize<'de> for RetentionDraft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self::All(text)),
            value => serde_json::from_value(value).map(Self::Each).map_err(serde::de::Error::custom),
        }
    }
}

impl JsonSchema for RetentionDraft {
    fn schema_name() -> Cow<'static, str> {
        "Retention".into()
    }
    // Both types are in one schema: with `anyOf` a validator would not name an unknown key.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = RetentionMapDraft::json_schema(generator);
        schema.insert("type".to_owned(), serde_json::json!(["string", "object"]));
        schema
    }
}

/// The word for runs that are never deleted.
const FOREVER: &str = "forever";

/// The longest age; a longer one is refused in favour of `forever`.
const AGE_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Checks the ages. A run whose retry key has not expired is kept in any case.
pub(super) fn check(
    draft: Option<&RetentionDraft>,
    retry_window: Duration,
    site: &Site,
    problems: &mut Problems,
) -> Option<Retention> {
    let mut read_age = |text: &str, site: &Site| {
        let age = age(text, site, problems)?;
        if age < retry_window {
            let window = retry_window.as_secs();
            problems
                .warn(site, format!("`{text}` is shorter than `retry_window_s`: runs are kept for {window} s"))
                .hint("a client that retries within that time gets the answer of its first try, which needs the run");
        }
        Some(age)
    };
    match draft {
        None => None,
        Some(RetentionDraft::All(text)) => Some(Retention::all(read_age(text, site))),
        Some(RetentionDraft::Each(map)) => {
            let mut age_of = |key: &str, text: &Option<String>| read_age(text.as_ref()?, &site.key(key));
            Some(Retention {
                completed: age_of("completed", &map.completed),
                failed: age_of("failed", &map.failed),
                cancelled: age_of("cancelled", &map.cancelled),
                abandoned: age_of("abandoned", &map.abandoned),
            })
        }
    }
}

fn age(text: &str, site: &Site, problems: &mut Problems) -> Option<Duration> {
    if text == FOREVER {
        return None;
    }
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        "w" => Some(7 * 86_400),
        _ => None,
    };
    let seconds = scale.and_then(|scale| number.trim_end().parse::<u64>().ok()?.checked_mul(scale));
    match seconds.map(Duration::from_secs) {
        Some(age) if age.is_zero() => {
            problems
                .error(site, format!("`{text}` would delete every run as soon as it ends"))
                .hint("`forever` keeps them");
            None
        }
        Some(age) if age > AGE_MAX => {
            problems.error(site, format!("`{text}` is longer than a hundred years")).hint("`forever` keeps them");
            None
        }
        Some(age) => Some(age),
        None => {
            problems
                .error(site, format!("`{text}` is not an age"))
                .hint("a whole number and its unit: 12h, 30d, 8w; or `forever`");
            None
        }
    }
}
