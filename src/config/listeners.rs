//! `listen:` of `pointsman.yaml`: the listeners of the proxy.
//!
//! Always true: there is at least one listener, and all can be bound at the same time.

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::borrow::Cow;

use super::addresses::{address, addresses_collide};
use super::listener_tls::{self, Context, TlsDraft};
use crate::limits::LISTENERS_MAX;
use crate::listener::{IdentityHeaders, Listener, Network, ProxyProtocol, ProxyVersion};
use crate::problem::{Problems, Site, nearest};

/// The address if the files have no `listen:`.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8080";

/// `listen:`: one listener, or a list of them.
#[derive(Clone, Debug)]
pub(crate) enum ListenDraft {
    /// One listener.
    One(ListenerDraft),
    /// A list of them.
    Several(Vec<ListenerDraft>),
}

/// A listener: its address, or a map.
#[derive(Clone, Debug)]
pub(crate) enum ListenerDraft {
    /// The address of a listener for plain HTTP.
    Address(String),
    /// A map of settings.
    Map(Box<ListenerMapDraft>),
}

/// A listener with its settings.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenerMapDraft {
    /// `ADDRESS:PORT`.
    pub address: String,
    /// `v1`, `v2` or `any`: each connection begins with a PROXY header of this version, from a load balancer. Or a map
    /// that also lists the networks that may send one.
    pub proxy_protocol: Option<ProxyProtocolDraft>,
    /// HTTP is spoken over TLS.
    pub tls: Option<TlsDraft>,
    /// Whether clients may speak HTTP/2 (the default).
    #[serde(default = "default_true")]
    pub http2: bool,
}

fn default_true() -> bool {
    true
}

/// The expected PROXY protocol.
#[derive(Clone, Debug)]
pub(crate) enum ProxyProtocolDraft {
    /// The version.
    Version(String),
    /// A map of settings.
    Map(ProxyProtocolMapDraft),
}

/// The expected PROXY protocol, and from whom.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProxyProtocolMapDraft {
    /// `v1`, `v2` or `any`.
    pub version: String,
    /// The networks of the load balancers, such as `10.0.0.0/8`; connections from elsewhere are closed.
    pub trust: Option<Vec<String>>,
}

impl<'de> Deserialize<'de> for ListenDraft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            value @ Value::Array(_) => serde_json::from_value(value).map(Self::Several),
            value => serde_json::from_value(value).map(Self::One),
        }
        .map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for ListenerDraft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self::Address(text)),
            value => serde_json::from_value(value).map(Self::Map).map_err(D::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for ProxyProtocolDraft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self::Version(text)),
            value => serde_json::from_value(value).map(Self::Map).map_err(D::Error::custom),
        }
    }
}

// As in `flag::file::draft`, the schemas list all types instead of using `anyOf`.

impl JsonSchema for ListenDraft {
    fn schema_name() -> Cow<'static, str> {
        "Listen".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<ListenerDraft>();
        let mut schema = ListenerMapDraft::json_schema(generator);
        schema.insert("type".to_owned(), json!(["string", "object", "array"]));
        schema.insert("items".to_owned(), item.into());
        schema.insert("description".to_owned(), "One listener, or a list of them.".into());
        schema
    }
}

impl JsonSchema for ListenerDraft {
    fn schema_name() -> Cow<'static, str> {
        "Listener".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = ListenerMapDraft::json_schema(generator);
        schema.insert("type".to_owned(), json!(["string", "object"]));
        schema.insert("description".to_owned(), "A listener: `ADDRESS:PORT` for plain HTTP, or a map.".into());
        schema
    }
}

impl JsonSchema for ProxyProtocolDraft {
    fn schema_name() -> Cow<'static, str> {
        "ProxyProtocol".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = ProxyProtocolMapDraft::json_schema(generator);
        schema.insert("type".to_owned(), json!(["string", "object"]));
        schema
    }
}

impl ListenDraft {
    /// The listeners that are maps, with their sites.
    fn maps(&self, site: &Site) -> Vec<(Site, &ListenerMapDraft)> {
        let listeners = match self {
            Self::One(listener) => vec![(site.clone(), listener)],
            Self::Several(listeners) => {
                listeners.iter().enumerate().map(|(index, listener)| (site.index(index), listener)).collect()
            }
        };
        let map = |(site, listener)| match listener {
            &ListenerDraft::Address(_) => None,
            ListenerDraft::Map(map) => Some((site, &**map)),
        };
        listeners.into_iter().filter_map(map).collect()
    }
}

/// The header fields for clients' certificates, of all listeners, including those that `--listen` replaces: legacy
/// trusts these fields whichever listener a request comes through.
pub(super) fn identity_headers(draft: Option<&ListenDraft>, site: &Site) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for (site, map) in draft.map(|draft| draft.maps(site)).unwrap_or_default() {
        let Some(tls) = &map.tls else { continue };
        // Problems of these fields are reported by the check of the listener.
        let IdentityHeaders { subject, names: sans } =
            listener_tls::identity_headers(tls, &site.key("tls"), &mut Problems::default());
        for name in subject.into_iter().chain(sans) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// Checks the listeners; returns them with the sites of their addresses. `--listen` replaces those of the files by one
/// address.
pub(super) fn check(
    draft: Option<&ListenDraft>,
    site: &Site,
    context: &mut Context<'_>,
    problems: &mut Problems,
) -> Vec<(Site, Listener)> {
    if let Some(address) = context.overrides.listen {
        return vec![(site.clone(), Listener::plain(address))];
    }
    let checked: Vec<_> = match draft {
        None => {
            let default = ListenerDraft::Address(DEFAULT_ADDRESS.to_owned());
            listener(&default, site, context, problems).into_iter().collect()
        }
        Some(ListenDraft::One(draft)) => listener(draft, site, context, problems).into_iter().collect(),
        Some(ListenDraft::Several(drafts)) => {
            if drafts.is_empty() {
                problems
                    .error(site, "the list has no listener")
                    .hint(format!("write an address, for example `{DEFAULT_ADDRESS}`"));
            }
            if drafts.len() > LISTENERS_MAX {
                problems.error(site, format!("{} listeners are too many: at most {LISTENERS_MAX}", drafts.len()));
            }
            drafts
                .iter()
                .enumerate()
                .filter_map(|(index, draft)| listener(draft, &site.index(index), context, problems))
                .collect()
        }
    };
    for (index, (site, listener)) in checked.iter().enumerate() {
        let earlier = checked[..index].iter().find(|(_, other)| addresses_collide(other.address, listener.address));
        if let Some((_, other)) = earlier {
            let message = match other.address == listener.address {
                true => format!("two listeners have the address {}", listener.address),
                false => format!("{} and {} cannot both be listened on", other.address, listener.address),
            };
            problems.error(site, message).hint("give each listener a port of its own");
        }
    }
    checked
}

fn listener(
    draft: &ListenerDraft,
    site: &Site,
    context: &mut Context<'_>,
    problems: &mut Problems,
) -> Option<(Site, Listener)> {
    match draft {
        ListenerDraft::Address(text) => Some((site.clone(), Listener::plain(address(text, site, problems)?))),
        ListenerDraft::Map(draft) => {
            let at = site.key("address");
            let address = address(&draft.address, &at, problems);
            let http2 = draft.http2;
            let tls =
                draft.tls.as_ref().map(|tls| listener_tls::check(tls, http2, &site.key("tls"), context, problems));
            let site = site.key("proxy_protocol");
            let proxy_protocol = match &draft.proxy_protocol {
                Some(draft) => Some(proxy_protocol(draft, &site, problems)?),
                None => None,
            };
            let tls = match tls {
                Some(checked) => Some(checked?),
                None => None,
            };
            let listener = Listener { address: address?, proxy_protocol, tls, http2 };
            warn_open_proxy_protocol(&listener, &site, problems);
            Some((at, listener))
        }
    }
}

fn proxy_protocol(draft: &ProxyProtocolDraft, site: &Site, problems: &mut Problems) -> Option<ProxyProtocol> {
    let (text, version_site, trust) = match draft {
        ProxyProtocolDraft::Version(text) => (text, site.clone(), None),
        ProxyProtocolDraft::Map(map) => (&map.version, site.key("version"), map.trust.as_deref()),
    };
    const VERSIONS: [&str; 3] = ["v1", "v2", "any"];
    let version = match text.as_str() {
        "v1" => Some(ProxyVersion::V1),
        "v2" => Some(ProxyVersion::V2),
        "any" => Some(ProxyVersion::Any),
        other => {
            let problem = problems.error(&version_site, format!("`{other}` is not a version of the PROXY protocol"));
            match nearest(other, VERSIONS) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint("write `v1`, `v2` or `any`"),
            };
            None
        }
    };
    let mut networks = Vec::new();
    let trust_site = site.key("trust");
    if trust.is_some_and(<[String]>::is_empty) {
        problems
            .error(&trust_site, "the list trusts no network, so every connection would be closed")
            .hint("name the networks of the load balancers, or leave `trust` out to trust all");
    }
    for (index, text) in trust.unwrap_or_default().iter().enumerate() {
        match Network::parse(text) {
            Ok(network) => networks.push(network),
            Err((message, hint)) => {
                problems.error(&trust_site.index(index), message).hint(hint);
            }
        }
    }
    Some(ProxyProtocol { version: version?, trust: networks })
}

/// Warns if anybody who can connect can claim any client address.
fn warn_open_proxy_protocol(listener: &Listener, site: &Site, problems: &mut Problems) {
    let is_open = listener.proxy_protocol.as_ref().is_some_and(|declared| declared.trust.is_empty());
    if is_open && !listener.address.ip().is_loopback() {
        problems
            .warn(site, format!("whoever can connect to {} can name any address as the client's", listener.address))
            .hint("`proxy_protocol: { version: any, trust: [10.0.0.0/8] }` names the networks of the load balancers");
    }
}
