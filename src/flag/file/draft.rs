//! The form of the route files, for serde and JSON Schema. A value that may be written in two ways is deserialised by
//! hand, because an untagged enum would lose digits of numbers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{
    AdoptDraft, AutoDraft, CreatesDraft, GuardDraft, InvariantsDraft, NextPageDraft, PromoteDraft, RedactDraft,
    SizeDraft, TimeoutsDraft,
};
use crate::flag::{Compress, State};

/// A file of `flags/routes/`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteFileDraft {
    /// The routes; their order is the order of listings.
    pub routes: Vec<RouteDraft>,
}

/// One endpoint in front of legacy.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteDraft {
    /// The route's id: unique, a metric label. Lower case letters, digits, `.`, `_`, `-`; a letter or digit at least.
    pub id: String,
    /// Earlier ids of the route, the newest first: the route keeps their flips, evidence, pins and retry keys.
    #[serde(default)]
    pub was: Vec<String>,
    /// Which requests belong to it.
    #[serde(rename = "match")]
    pub matches: MatchDraft,
    /// The service that answers the route today.
    pub legacy: String,
    /// The workflow that the engine runs for the route; without one only `off` is possible.
    pub workflow: Option<String>,
    /// The route's state.
    #[serde(default = "off")]
    pub state: State,
    /// Overrides the gate.
    pub force: Option<ForceDraft>,
    /// The share of requests or keys that are on the rung in `state`; or a map with the share of each rung by name.
    pub percent: Option<PercentDraft>,
    /// Identifies the caller, for shares: a template over the request, never its body.
    pub key: Option<String>,
    /// Rules that put some callers on another rung, in order.
    #[serde(default)]
    pub cohorts: Vec<CohortDraft>,
    /// What the route does with instances.
    pub instance: Option<InstanceDraft>,
    /// A template over the request. A request with the same value as an earlier request is a retry of it. Default: the
    /// header `Idempotency-Key`.
    pub retry_key: Option<String>,
    /// How the retry key is scoped by caller: by headers (the default is `authorization`), or by a verified token.
    pub caller: Option<CallerDraft>,
    /// Which of the engine's runs are kept in the store: `all` (the default), or `none`, for a workflow that only
    /// reads: its runs leave nothing behind, and a retry reads again.
    pub keep: Option<KeepDraft>,
    /// How long the answer to the caller may take: `5s`.
    pub deadline: Option<String>,
    /// A body of at most this size is forwarded only when it has arrived as a whole: `64KiB`. Default: that of the
    /// service.
    pub buffer_request: Option<SizeDraft>,
    /// Whether answers of the engine are compressed for clients that accept it: `gzip`, or `off`. Default: that of the
    /// service.
    pub compress: Option<Compress>,
    /// How many requests may be in flight at the same time, whichever arm answers them; others wait for their turn.
    pub requests_max: Option<u64>,
    /// Time-outs of requests that are forwarded to legacy. Default: those of the service.
    pub timeouts: Option<TimeoutsDraft>,
    /// Whether a request changes nothing at legacy, so that legacy may be asked a second time.
    #[serde(default)]
    pub replay_safe: bool,
    /// With `replay_safe`: the share of compared requests that are sent to legacy twice. Default: `1%`.
    pub noise: Option<String>,
    /// With `replay_safe`: the share of the requests that the engine answers in `live` and that legacy is asked
    /// afterwards, so that its reply is compared. Default: `1%`.
    pub reverse: Option<String>,
    /// The share of compared requests in `shadow` for which the engine is run a second time, from the same inputs.
    /// Default: `1%`.
    pub rehearse_twice: Option<String>,
    /// Whether the reads of a run in `shadow` or `dark` are answered from legacy's own equal reads. It wants `egress:`.
    #[serde(default)]
    pub replay_reads: bool,
    /// `strict` refuses every unusual spelling of the path; `lenient` only where it could bypass or change the match of
    /// a route with a workflow. Default: `paths:` of the service.
    pub paths: Option<PathsDraft>,
    /// Whether each answer says which arm gave it (`pointsman-arm: legacy`, `engine` or `proxy`). Default: `expose` of
    /// pointsman.yaml.
    pub expose: Option<bool>,
    /// How pairs are compared.
    #[serde(default)]
    #[schemars(schema_with = "anything")]
    pub compare: Option<Value>,
    /// What the gates require of the route's evidence.
    pub promote: Option<PromoteDraft>,
    /// When the route is lowered automatically. What is left out is as `guard:` of pointsman.yaml says.
    pub guard: Option<GuardDraft>,
    /// How the share grows by itself within a state.
    pub auto: Option<AutoDraft>,
    /// The share of the compared pairs that are captured, for `pointsman rehearse`: `10%`.
    pub capture: Option<String>,
    /// What is redacted in addition to what `redact:` of pointsman.yaml declares and to the names that are secret
    /// anyway.
    #[serde(default)]
    pub redact: RedactDraft,
    /// Conditions that the engine's answers have to meet in `live` and `only`: a list, or a map by name.
    pub invariants: Option<InvariantsDraft>,
}

fn off() -> State {
    State::Off
}

fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!(true)
}

/// Which requests belong to a route.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatchDraft {
    /// The method; a GET route also matches HEAD.
    pub method: String,
    /// The path template: `/orders/{id}`.
    pub path: String,
    /// The host, without port.
    pub host: Option<String>,
}

/// Overrides the gate.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForceDraft {
    /// Why; it stays visible until the evidence catches up.
    pub reason: String,
}

/// Puts some callers on another rung.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CohortDraft {
    /// The cohort's name.
    pub name: String,
    /// A condition over the request, never its body: `${request.headers["x-staff"] == "1"}`.
    pub when: String,
    /// The callers' state; without `force` at most `shadow` or, if higher, what evidence supports for all callers.
    pub state: State,
    /// Allows a state that the route has not reached by evidence.
    pub force: Option<ForceDraft>,
}

/// What a route does with instances: `creates`, or `follows` and `key`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceDraft {
    /// Where the id is in the reply: a JSONPath of its body, such as `$.id`, or `header.location`; or a map of a header
    /// and the pattern of its value.
    pub creates: Option<CreatesDraft>,
    /// The route that creates the instances that this one follows up.
    pub follows: Option<String>,
    /// Where a request has the id: `path.id`, `query.order`, `header.x-order-id`, `body.order.id`.
    pub key: Option<String>,
    /// The instance ends with a reply for which this holds: a condition over `request`, without its body, and `reply`,
    /// such as `${reply.status == 200 && reply.body.state == "cancelled"}`.
    pub ends: Option<String>,
    /// On a creator: instances end when they are this old, for example `90d`. By default they live until `ends:` holds.
    pub ends_after: Option<String>,
    /// On a creator: how legacy is asked which instances it still has, when the gate to `only` is asked.
    pub alive: Option<AliveDraft>,
    /// On a follower: who answers, in `only`, for an id of which nothing is known: `workflow`, or `not_found` (404).
    pub unknown: Option<UnknownDraft>,
    /// On a creator: the workflow by which instances of legacy become the engine's, one by one, at their first write in
    /// `live` or by `pointsman adopt`; or a map with `workflow` and `settles`.
    pub adopt: Option<AdoptDraft>,
}

/// A call by which legacy lists the instances that it has and that have not ended.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AliveDraft {
    /// `GET ${services.NAME}/path?query`. The reply, with the pages that follow it, has to list all instances.
    pub call: String,
    /// Where the ids are in the body of the reply: a JSONPath, such as `$.items[*].id`.
    pub ids: String,
    /// Where the address of the next page is in the body of the reply: a JSONPath, such as `$.next`; or a map with
    /// `cursor`, where the next page's cursor is, and `parameter`, the query parameter that takes it. The header `link`
    /// with `rel=next` is followed without this.
    pub next: Option<NextPageDraft>,
    /// Headers of the call; they may read `secrets`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// Who answers for an id of which nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownDraft {
    /// The workflow, with the status `unknown` in `instance`.
    Workflow,
    /// Nobody: 404.
    NotFound,
}

/// What happens to unusual spellings of a route's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathsDraft {
    /// Refused only if they would bypass or change the match of a route with a workflow.
    Lenient,
    /// Refused whenever some server could take them for the path of this route.
    Strict,
}

/// Which of the engine's runs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeepDraft {
    /// Every run.
    All,
    /// No run is written to the store.
    None,
}

/// The share of the rung in `state`, or the share of each rung.
#[derive(Clone, Debug, PartialEq)]
pub enum PercentDraft {
    /// The share of the rung in `state`.
    Current(f64),
    /// The share of each rung, by name.
    Each(BTreeMap<String, f64>),
}

/// How a route's retry keys are scoped by caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerDraft {
    /// The values of headers.
    Headers(OneOrMore),
    /// Issuer and subject of a verified token; else the values of headers.
    Token(TokenDraft),
}

/// A bearer token of the caller.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenDraft {
    /// How the token is verified.
    pub jwt: JwtDraft,
    /// The headers whose values count if there is no verified token; the default is `authorization`.
    #[serde(default)]
    pub headers: Option<OneOrMore>,
}

/// A JSON Web Token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtDraft {
    /// The file of public keys, a JWK set or PEM, relative to the directory of the flag files.
    pub keys: String,
    /// The accepted audiences (`aud`).
    pub audience: OneOrMore,
}

/// A text, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OneOrMore {
    /// One text.
    One(String),
    /// A list.
    More(Vec<String>),
}

fn read<T: serde::de::DeserializeOwned, E: serde::de::Error>(value: Value) -> Result<T, E> {
    serde_json::from_value(value).map_err(E::custom)
}

impl<'de> Deserialize<'de> for PercentDraft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Number(number) => number
                .as_f64()
                .map(Self::Current)
                .ok_or_else(|| D::Error::custom(format!("{number} is not a percentage"))),
            value => read(value).map(Self::Each),
        }
    }
}

impl<'de> Deserialize<'de> for CallerDraft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            value @ Value::Object(_) => read(value).map(Self::Token),
            value => read(value).map(Self::Headers),
        }
    }
}

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self::One(text)),
            value => read(value).map(Self::More),
        }
    }
}

// The schemas list both types instead of using `anyOf`: with `anyOf` a validator would not name an unknown key.

impl JsonSchema for PercentDraft {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The share of the rung in `state`, or of each rung by name; 0 to 100.",
            "type": ["number", "object"],
            "properties": { "shadow": { "type": "number" }, "dark": { "type": "number" }, "live": { "type": "number" } },
            "additionalProperties": false
        })
    }
}

impl JsonSchema for CallerDraft {
    fn schema_name() -> Cow<'static, str> {
        "Caller".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How the retry key is scoped by caller: by headers, or by a verified token.",
            "type": ["string", "array", "object"],
            "items": { "type": "string" },
            "properties": {
                "jwt": {
                    "description": "Issuer and subject of a verified bearer token. Headers alone are a list: `caller: [x-tenant]`.",
                    "type": "object",
                    "properties": {
                        "keys": {
                            "description": "The file of public keys, a JWK set or PEM, relative to the directory of the flag files.",
                            "type": "string"
                        },
                        "audience": {
                            "description": "The accepted audiences (`aud`).",
                            "type": ["string", "array"],
                            "items": { "type": "string" }
                        }
                    },
                    "required": ["keys", "audience"],
                    "additionalProperties": false
                },
                "headers": {
                    "description": "Without a verified token: the headers whose values count.",
                    "type": ["string", "array"],
                    "items": { "type": "string" }
                }
            },
            "required": ["jwt"],
            "additionalProperties": false
        })
    }
}

impl JsonSchema for OneOrMore {
    fn schema_name() -> Cow<'static, str> {
        "OneOrMore".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text, or a list of them.",
            "type": ["string", "array"],
            "items": { "type": "string" }
        })
    }
}
