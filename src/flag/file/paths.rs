//! `paths:` of a service: its form in the files.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::flag::{DoubleEncoding, ExtraPart, Framework, PathConventions, SpellingRule};
use crate::problem::{Problems, Site, nearest};

/// The names of [`Framework`] in files.
const NAMES: [&str; 6] = ["tomcat", "spring", "express", "rails", "iis", "strict"];

/// How a service reads paths: the name of a framework, or a map.
#[derive(Clone, Debug)]
pub enum ServicePathsDraft {
    /// The defaults of the framework of this name.
    Named(String),
    /// Setting by setting.
    Map(ServicePathsMapDraft),
}

/// How a service reads paths. Settings that are left out are taken from `like`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServicePathsMapDraft {
    /// Where settings that are left out are taken from: `tomcat`, `spring`, `express`, `rails`, `iis` or `strict`.
    pub like: Option<Framework>,
    /// Whether `/orders/` is the same as `/orders`: `same` or `different`.
    pub trailing_slash: Option<SpellingRule>,
    /// Whether `/ORDERS` is the same as `/orders`: `same` or `different`.
    pub case: Option<SpellingRule>,
    /// Whether the service ignores `;v=1` at the end of a segment: `strip` or `keep`.
    pub parameters: Option<ExtraPart>,
    /// Whether the service ignores `.json` and the like at the end of a path: `strip` or `keep`.
    pub suffix: Option<ExtraPart>,
    /// Whether a path that leads to a route with a workflow only if decoded twice gets 400: `refuse` or `allow`.
    pub decode_twice: Option<DoubleEncoding>,
}

impl ServicePathsDraft {
    /// Checks the draft; `site` is where the value of `paths:` stands.
    pub(super) fn check(&self, site: &Site, problems: &mut Problems) -> PathConventions {
        match self {
            Self::Named(name) => match serde_json::from_value(Value::String(name.clone())) {
                Ok(framework) => PathConventions::of(framework),
                Err(_) => {
                    let problem = problems.error(site, format!("`paths: {name}` is not known"));
                    match nearest(name, NAMES) {
                        Some(near) => problem.hint(format!("did you mean `{near}`?")),
                        None => problem.hint(format!("one of {}, or a map of settings", NAMES.join(", "))),
                    };
                    PathConventions::default()
                }
            },
            Self::Map(map) => {
                let ServicePathsMapDraft { like, trailing_slash, case, parameters, suffix, decode_twice } = map;
                let like = like.map(PathConventions::of).unwrap_or_default();
                PathConventions {
                    trailing_slash: trailing_slash.or(like.trailing_slash),
                    case: case.or(like.case),
                    parameters: parameters.or(like.parameters),
                    suffix: suffix.or(like.suffix),
                    decode_twice: decode_twice.or(like.decode_twice),
                    strict: like.strict,
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for ServicePathsDraft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(name) => Ok(Self::Named(name)),
            value => serde_json::from_value(value).map(Self::Map).map_err(serde::de::Error::custom),
        }
    }
}

impl JsonSchema for ServicePathsDraft {
    fn schema_name() -> Cow<'static, str> {
        "ServicePaths".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = ServicePathsMapDraft::json_schema(generator);
        schema.insert("type".to_owned(), json!(["string", "object"]));
        let text = "How the service reads paths: `tomcat`, `spring`, `express`, `rails`, `iis`, `strict`, or a map.";
        schema.insert("description".to_owned(), text.into());
        schema
    }
}
