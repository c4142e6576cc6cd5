//! A service's `breaker`, `rate` and `burst`: their form in the files, and their checks.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::values::{duration, percentage};
use crate::flag::{BreakerSettings, Rate};
use crate::problem::{Problems, Site};

/// The greatest number of probes: with more, the probes would overload the service that the breaker protects.
const PROBES_MAX: u32 = 100;
/// The highest number of calls in a rate, whatever its unit of time.
const RATE_MAX: u64 = 1_000_000;

/// `on`, `off`, or the settings of the breaker.
#[derive(Clone, Debug)]
pub enum BreakerDraft {
    /// `off` or `on`.
    Word(String),
    /// On, with some of its settings.
    Map(BreakerMapDraft),
}

/// When calls of steps are refused without being tried. Settings that are left out have their defaults.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakerMapDraft {
    /// The breaker opens when at least `min` calls ended within `over` and at least this share of them failed: `50%`.
    pub failures: Option<String>,
    /// The time over which calls and failures are counted: `10s`.
    pub over: Option<String>,
    /// With fewer calls than this within `over` the breaker does not open.
    pub min: Option<u32>,
    /// A call that takes longer counts as failed: `2s`. Default: no call counts as failed because of its duration.
    pub slow: Option<String>,
    /// How long the breaker stays open before probes go through: `5s`; doubled each time a probe fails, up to
    /// `open_max`.
    pub open: Option<String>,
    /// The longest time for which the breaker stays open before probes go through: `60s`.
    pub open_max: Option<String>,
    /// How many probes go through. If all succeed, the breaker closes.
    pub probes: Option<u32>,
}

impl<'de> Deserialize<'de> for BreakerDraft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(word) => Ok(Self::Word(word)),
            value => serde_json::from_value(value).map(Self::Map).map_err(serde::de::Error::custom),
        }
    }
}

impl JsonSchema for BreakerDraft {
    fn schema_name() -> Cow<'static, str> {
        "Breaker".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = BreakerMapDraft::json_schema(generator);
        schema.insert("type".to_owned(), serde_json::json!(["string", "object"]));
        let text = "When calls of steps are refused without being tried: a map of settings, or `off` (they never are).";
        schema.insert("description".to_owned(), text.into());
        schema
    }
}

/// The breaker in force: the default where the file declares none, `None` where it is `off`.
pub(super) fn breaker(draft: Option<&BreakerDraft>, site: &Site, problems: &mut Problems) -> Option<BreakerSettings> {
    let default = BreakerSettings::default();
    let BreakerMapDraft { failures, over, min, slow, open, open_max, probes } = match draft {
        None => return Some(default),
        Some(BreakerDraft::Map(map)) => map,
        Some(BreakerDraft::Word(word)) => {
            let hint = "`off`, or a map: { failures: 50%, over: 10s, min: 20, open: 5s }";
            match word.as_str() {
                "on" => return Some(default),
                "off" => {}
                _ => drop(problems.error(site, format!("`{word}` is not a breaker setting")).hint(hint)),
            }
            return None;
        }
    };
    let mut time = |key: &str, text: &Option<String>| duration(text.as_ref()?, &site.key(key), problems);
    let (over, slow) = (time("over", over), time("slow", slow));
    let (declared_open, declared_open_max) = (time("open", open), time("open_max", open_max));
    let failures = failures.as_ref().and_then(|text| percentage(text, &site.key("failures"), problems));
    if failures == Some(0.0) {
        problems
            .error(&site.key("failures"), "with 0% the breaker would open without any failure")
            .hint("a small share is for example 5%; `min: 1` with `failures: 100%` opens at the first failure");
    }
    if *min == Some(0) {
        problems.error(&site.key("min"), "a share of failed calls needs at least one call").hint("at least 1");
    }
    match *probes {
        Some(0) => {
            problems.error(&site.key("probes"), "without a probe the breaker would never close").hint("at least 1");
        }
        Some(probes) if probes > PROBES_MAX => {
            let hint = format!("at most {PROBES_MAX}: they go to a service that may be overloaded");
            problems.error(&site.key("probes"), format!("{probes} probes are too many")).hint(hint);
        }
        Some(_) | None => {}
    }
    let open_for = declared_open.unwrap_or(default.open);
    // An `open` longer than the default `open_max` raises `open_max` with it.
    let open_max = declared_open_max.unwrap_or(default.open_max.max(open_for));
    if open_max < open_for {
        let message = format!("`open` is {}, and `open_max` is only {}", text_of(open_for), text_of(open_max));
        problems.error(&site.key("open_max"), message).hint("`open_max` must be at least `open`");
    }
    Some(BreakerSettings {
        failures: failures.unwrap_or(default.failures),
        over: over.unwrap_or(default.over),
        min: min.unwrap_or(default.min),
        slow,
        open: open_for,
        open_max,
        probes: probes.unwrap_or(default.probes),
    })
}

/// Checks `rate: 100/s` and `burst`.
pub(super) fn rate(text: Option<&String>, burst: Option<u64>, site: &Site, problems: &mut Problems) -> Option<Rate> {
    if burst == Some(0) {
        problems.error(&site.key("burst"), "with 0 no call could ever begin").hint("at least 1");
    }
    let Some(text) = text else {
        if burst.is_some() {
            let site = site.key("burst").at_key();
            let hint = "add a rate, such as `rate: 100/s`, or leave `burst` out";
            problems.error(&site, "`burst` without `rate` has no effect").hint(hint);
        }
        return None;
    };
    let site = site.key("rate");
    let parsed = text.split_once('/').and_then(|(calls, unit)| {
        let per = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return None,
        };
        Some((calls.trim().parse::<u64>().ok()?, Duration::from_secs(per)))
    });
    match parsed {
        Some((calls, per)) if (1..=RATE_MAX).contains(&calls) => {
            // The default burst is a tenth of a second's calls: enough to keep up the rate, too small to overload.
            let burst = burst.unwrap_or(calls / (10 * per.as_secs())).max(1);
            Some(Rate { calls, per, burst })
        }
        Some((calls, _)) => {
            problems.error(&site, format!("{calls} is not between 1 and {RATE_MAX}"));
            None
        }
        None => {
            let hint = "a whole number and its time: 100/s, 600/m, 1000/h";
            problems.error(&site, format!("`{text}` is not a rate of calls")).hint(hint);
            None
        }
    }
}

fn text_of(duration: Duration) -> String {
    match (duration.as_millis() % 1_000, duration.as_secs()) {
        (0, seconds) => format!("{seconds}s"),
        _ => format!("{}ms", duration.as_millis()),
    }
}
