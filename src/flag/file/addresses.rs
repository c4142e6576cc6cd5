//! The keys `urls`, `eject` and `health` of a service, which concern its addresses: their form in the files, and their
//! checks.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::values::duration;
use crate::flag::{Eject, HealthCheck};
use crate::problem::{Problems, Site};

/// The largest weight of a URL.
const WEIGHT_MAX: u32 = 1_000;
/// The largest number of failures or successes in a row.
const IN_A_ROW_MAX: u32 = 1_000;
/// The shortest pause that is allowed between two health checks of an address.
const EVERY_MIN: Duration = Duration::from_millis(100);

/// A base URL, or a map with its weight.
#[derive(Clone, Debug)]
pub struct UrlDraft {
    /// The base URL.
    pub url: String,
    /// The URL's weight; `None` means 1.
    pub weight: Option<u32>,
    /// Whether the URL is written as a map.
    pub is_map: bool,
}

/// The map form of [`UrlDraft`].
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UrlMapDraft {
    /// `http://host:port`, and a base path where there is one.
    url: String,
    /// The weight, 1 by default: the URL's share of the requests is its weight divided by the sum of all weights.
    weight: Option<u32>,
}

impl<'de> Deserialize<'de> for UrlDraft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(url) => Ok(Self { url, weight: None, is_map: false }),
            value => {
                let UrlMapDraft { url, weight } = serde_json::from_value(value).map_err(serde::de::Error::custom)?;
                Ok(Self { url, weight, is_map: true })
            }
        }
    }
}

impl JsonSchema for UrlDraft {
    fn schema_name() -> Cow<'static, str> {
        "BaseUrl".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = UrlMapDraft::json_schema(generator);
        schema.insert("type".to_owned(), serde_json::json!(["string", "object"]));
        schema.insert("description".to_owned(), "A base URL, or a map with its weight.".into());
        schema
    }
}

/// `on`, `off`, or settings.
#[derive(Clone, Debug)]
pub enum EjectDraft {
    /// `off` or `on`.
    Word(String),
    /// On, with some of its settings.
    Map(EjectMapDraft),
}

/// When an address gets no requests for a while. Settings that are left out have their defaults.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EjectMapDraft {
    /// How many requests in a row without an answer cause an ejection: 3.
    pub after: Option<u32>,
    /// How long the first ejection lasts: `10s`; doubled for each further one that follows soon, up to `for_max`.
    #[serde(rename = "for")]
    pub time: Option<String>,
    /// The longest time of an ejection: `5m`.
    #[serde(rename = "for_max")]
    pub time_max: Option<String>,
}

impl<'de> Deserialize<'de> for EjectDraft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(word) => Ok(Self::Word(word)),
            value => serde_json::from_value(value).map(Self::Map).map_err(serde::de::Error::custom),
        }
    }
}

impl JsonSchema for EjectDraft {
    fn schema_name() -> Cow<'static, str> {
        "Eject".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = EjectMapDraft::json_schema(generator);
        schema.insert("type".to_owned(), serde_json::json!(["string", "object"]));
        let text = "When an address gets no requests for a while: a map of settings, or `off` (never).";
        schema.insert("description".to_owned(), text.into());
        schema
    }
}

/// A request that is sent to each address periodically, to find out whether it can serve.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthDraft {
    /// The target of the `GET`, below the base URL: `/healthz`.
    pub path: String,
    /// The pause between two checks of an address: `5s`.
    pub every: Option<String>,
    /// A check without a reply after this time has failed: `1s`.
    pub timeout: Option<String>,
    /// After how many failures in a row an address gets no requests: 3.
    pub failures: Option<u32>,
    /// After how many successes in a row it gets requests again: 2.
    pub successes: Option<u32>,
}

/// The weight of a URL.
pub(super) fn weight(draft: &UrlDraft, site: &Site, problems: &mut Problems) -> u32 {
    match draft.weight {
        Some(weight) if !(1..=WEIGHT_MAX).contains(&weight) => {
            let message = format!("a weight of {weight} is not between 1 and {WEIGHT_MAX}");
            problems.error(&site.key("weight"), message).hint("leave out a URL that is to get no requests");
            1
        }
        weight => weight.unwrap_or(1),
    }
}

/// The ejection in force: the default where the file declares none, `None` where it is `off`.
pub(super) fn eject(draft: Option<&EjectDraft>, site: &Site, problems: &mut Problems) -> Option<Eject> {
    let default = Eject::default();
    let EjectMapDraft { after, time, time_max } = match draft {
        None => return Some(default),
        Some(EjectDraft::Map(map)) => map,
        Some(EjectDraft::Word(word)) => {
            let hint = "`off`, or a map: { after: 3, for: 10s, for_max: 5m }";
            match word.as_str() {
                "on" => return Some(default),
                "off" => {}
                _ => drop(problems.error(site, format!("`{word}` is not a setting of `eject`")).hint(hint)),
            }
            return None;
        }
    };
    let after = in_a_row(*after, default.after, &site.key("after"), problems);
    let mut length = |key: &str, text: &Option<String>| duration(text.as_ref()?, &site.key(key), problems);
    let (time, declared_max) = (length("for", time).unwrap_or(default.time), length("for_max", time_max));
    // A `for` longer than the default `for_max` raises `for_max` with it.
    let time_max = declared_max.unwrap_or(default.time_max.max(time));
    if time_max < time {
        problems.error(&site.key("for_max"), "`for_max` is shorter than `for`").hint("it must be at least as long");
    }
    Some(Eject { after, time, time_max })
}

/// The health check.
pub(super) fn health(draft: &HealthDraft, site: &Site, problems: &mut Problems) -> HealthCheck {
    let HealthDraft { path, every, timeout, failures, successes } = draft;
    let is_target = path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok() && !path.contains('#');
    if !is_target {
        let message = format!("`{path}` is not the path of a request");
        problems.error(&site.key("path"), message).hint("for example /healthz");
    }
    let mut length = |key: &str, text: &Option<String>| duration(text.as_ref()?, &site.key(key), problems);
    let every = length("every", every).unwrap_or(Duration::from_secs(5));
    let timeout = length("timeout", timeout).unwrap_or(Duration::from_secs(1));
    if every < EVERY_MIN {
        let hint = format!("at least {}ms", EVERY_MIN.as_millis());
        problems.error(&site.key("every"), "health checks as often as this would be a load").hint(hint);
    }
    HealthCheck {
        path: path.clone(),
        every,
        timeout,
        failures: in_a_row(*failures, 3, &site.key("failures"), problems),
        successes: in_a_row(*successes, 2, &site.key("successes"), problems),
    }
}

fn in_a_row(declared: Option<u32>, default: u32, site: &Site, problems: &mut Problems) -> u32 {
    match declared {
        Some(number) if !(1..=IN_A_ROW_MAX).contains(&number) => {
            problems.error(site, format!("{number} is not between 1 and {IN_A_ROW_MAX}"));
            default
        }
        number => number.unwrap_or(default),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::flag::file::{ServiceDraft, check_service};
    use crate::flag::{BaseUrl, Service};

    fn check(draft: Value) -> (Option<Service>, Vec<String>) {
        let draft: ServiceDraft = serde_json::from_value(draft).unwrap();
        let mut problems = Problems::default();
        let site = Site::file("p.yaml").key("services").key("shop");
        let service = check_service("shop", &draft, &site, &mut |_, _, _| None, &mut problems);
        (service, problems.iter().map(|problem| problem.message.clone()).collect())
    }

    #[test]
    fn addresses_are_read() {
        let (service, messages) = check(json!({
            "urls": ["http://a:1", { "url": "http://b:2", "weight": 3 }],
            "eject": { "after": 5, "for": "10m" },
            "health": { "path": "/up?x=1", "every": "2s" },
            "slow_start": "30s",
        }));
        let service = service.unwrap_or_else(|| panic!("{messages:?}"));
        let uri = |text: &str| text.parse::<http::Uri>().unwrap();
        assert_eq!(service.urls, [BaseUrl::from(uri("http://a:1")), BaseUrl { uri: uri("http://b:2"), weight: 3 }]);
        let time = Duration::from_secs(600);
        assert_eq!(service.eject, Some(Eject { after: 5, time, time_max: time }));
        let health = service.health.unwrap();
        assert_eq!((health.path.as_str(), health.every.as_secs(), health.failures), ("/up?x=1", 2, 3));
        assert_eq!(service.slow_start, Some(Duration::from_secs(30)));
        let (service, _) = check(json!({ "urls": ["http://a:1"], "eject": "off" }));
        assert_eq!(service.unwrap().eject, None);
        assert_eq!(check(json!("http://a:1")).0.unwrap().eject, Some(Eject::default()));
    }

    #[test]
    fn invalid_values_are_refused() {
        for (key, value, message) in [
            ("urls", json!([{ "url": "http://a", "weight": 0 }]), "a weight of 0 is not between"),
            ("urls", json!([{ "url": "ftp://a" }]), "is not an http or https URL"),
            ("eject", json!("never"), "is not a setting of `eject`"),
            ("eject", json!({ "after": 0 }), "0 is not between 1 and"),
            ("eject", json!({ "for": "10s", "for_max": "5s" }), "shorter than `for`"),
            ("health", json!({ "path": "healthz" }), "is not the path of a request"),
            ("health", json!({ "path": "/a b" }), "is not the path of a request"),
            ("health", json!({ "path": "/", "every": "10ms" }), "would be a load"),
            ("health", json!({ "path": "/", "successes": 0 }), "0 is not between 1 and"),
            ("slow_start", json!("soon"), "is not a duration"),
        ] {
            let mut draft = json!({ "urls": ["http://a"] });
            draft[key] = value;
            let (service, messages) = check(draft.clone());
            assert!(service.is_none() && messages.len() == 1 && messages[0].contains(message), "{draft}: {messages:?}");
        }
    }
}
