//! `trust_forwarded:` and `forwarded:` of `pointsman.yaml`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::listener::{ForwardedFields, ForwardedTrust, Forwarding, Network};
use crate::problem::{Problems, Site};

/// `trust_forwarded:`: everybody, nobody, or networks.
#[derive(Clone, Debug)]
pub(crate) enum TrustDraft {
    /// Everybody, or nobody.
    All(bool),
    /// The networks of proxies in front.
    Networks(Vec<String>),
}

/// `forwarded:`: the fields that tell legacy about the client.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
pub(crate) enum FieldsDraft {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    #[default]
    #[serde(rename = "x-forwarded")]
    XForwarded,
    /// `Forwarded`.
    #[serde(rename = "rfc7239")]
    Rfc7239,
    /// All of these.
    #[serde(rename = "both")]
    Both,
}

impl Default for TrustDraft {
    fn default() -> Self {
        Self::All(false)
    }
}

impl<'de> Deserialize<'de> for TrustDraft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(all) => Ok(Self::All(all)),
            value => serde_json::from_value(value).map(Self::Networks).map_err(D::Error::custom),
        }
    }
}

impl JsonSchema for TrustDraft {
    fn schema_name() -> Cow<'static, str> {
        "TrustForwarded".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Whose `X-Forwarded-*` and `Forwarded` headers are believed: the networks of the proxies in \
                            front, such as `[10.0.0.0/8]`; `true` is everybody, `false` nobody.",
            "type": ["boolean", "array"],
            "items": { "type": "string" }
        })
    }
}

/// Checks both settings.
pub(super) fn check(trust: &TrustDraft, fields: FieldsDraft, site: &Site, problems: &mut Problems) -> Forwarding {
    let site = site.key("trust_forwarded");
    let trust = match trust {
        TrustDraft::All(true) => ForwardedTrust::Everybody,
        TrustDraft::All(false) => ForwardedTrust::Nobody,
        TrustDraft::Networks(texts) => {
            if texts.is_empty() {
                problems
                    .error(&site, "the list trusts no network")
                    .hint("name the networks of the proxies in front, or leave `trust_forwarded` out to trust nobody");
            }
            let mut networks = Vec::new();
            for (index, text) in texts.iter().enumerate() {
                match Network::parse(text) {
                    Ok(network) => networks.push(network),
                    Err((message, hint)) => {
                        problems.error(&site.index(index), message).hint(hint);
                    }
                }
            }
            ForwardedTrust::Networks(networks)
        }
    };
    let fields = match fields {
        FieldsDraft::XForwarded => ForwardedFields::XForwarded,
        FieldsDraft::Rfc7239 => ForwardedFields::Rfc7239,
        FieldsDraft::Both => ForwardedFields::Both,
    };
    Forwarding { trust, fields }
}
