//! Who may come in, and who it is.
//!
//! The question it answers: "is this call from somebody who may make it?" Always true: a call that another web site
//! makes a browser send is refused (Host, Origin, content type), with tokens or without; tokens are compared by hash in
//! constant time; without tokens only a loopback listener lets anybody in, and the name they give is marked as
//! unverified.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method, StatusCode, Uri, header};

use super::problem::Refusal;
use super::serve::Peer;
use crate::config::Token;
use crate::workflow::UNVERIFIED;

/// The name that an open listener's caller gives.
pub(super) const AS: &str = "x-pointsman-as";
/// By these a call says that somebody passed it on.
const FORWARDED: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];
/// Longest name that is recorded.
const NAME_CHARS_MAX: usize = 64;

/// What a call does to the world, and so which scope it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Looks.
    Read,
    /// Starts runs and sends them signals.
    Run,
    /// Answers checkpoints, decides conflicts, orders runs about.
    Decide,
    /// Moves routes, sets the kill switch.
    Flip,
}

impl Scope {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Run => "run",
            Scope::Decide => "decide",
            Scope::Flip => "flip",
        }
    }
}

/// Who makes a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// A token's name.
    Token(String),
    /// Somebody on this machine, by the name in the header, if there is one.
    Anybody(Option<String>),
}

impl Who {
    /// As it is recorded. `said` is the name in the body, which only counts where there is no token.
    pub(super) fn name(&self, said: Option<&str>) -> Result<String, Refusal> {
        let said = said.map(fit).transpose()?;
        let name = match self {
            Who::Token(name) => return Ok(name.clone()),
            Who::Anybody(name) => said.or(name.as_deref()).map(str::trim).filter(|name| !name.is_empty()),
        };
        Ok(format!("{}{UNVERIFIED}", name.unwrap_or("somebody on this machine")))
    }
}

fn fit(name: &str) -> Result<&str, Refusal> {
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(Refusal::bad(format!("a name has 1 to {NAME_CHARS_MAX} characters and none that control")));
    }
    Ok(name)
}

struct Known {
    name: String,
    hash: blake3::Hash,
    may: Vec<String>,
}

/// The door.
pub(super) struct Guard {
    tokens: Vec<Known>,
    bound: SocketAddr,
}

impl Guard {
    pub(super) fn new(tokens: &[Token], bound: SocketAddr) -> Self {
        let known = |token: &Token| Known {
            name: token.name.clone(),
            hash: blake3::hash(token.secret.reveal().as_bytes()),
            may: token.may.clone(),
        };
        Self { tokens: tokens.iter().map(known).collect(), bound }
    }

    /// Whether the call comes from where it says. Holds for every path.
    pub(super) fn same_origin(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().ok(),
            (None, _) => uri.authority().map(http::uri::Authority::as_str),
            (Some(_), Some(_)) => None,
        };
        let refused =
            |what: &str| Refusal::new(StatusCode::FORBIDDEN, "foreign", "The call comes from elsewhere", what);
        if self.bound.ip().is_loopback() && !host.is_some_and(|host| self.is_here(host)) {
            // A name that somebody else's DNS points at this machine would make a browser our neighbour.
            return Err(refused("the Host header does not name this machine").hint(format!(
                "use http://{}/ or http://localhost:{}/",
                self.bound,
                self.bound.port()
            )));
        }
        let mut origins = headers.get_all(header::ORIGIN).iter().map(|origin| origin.to_str().ok());
        if !origins.all(|origin| origin.and_then(authority_of).is_some_and(|origin| Some(origin) == host)) {
            return Err(refused("the Origin header names another site"));
        }
        Ok(())
    }

    fn is_here(&self, host: &str) -> bool {
        let name = without_port(host);
        let ip = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name).parse::<IpAddr>();
        match ip {
            Ok(ip) => ip.is_loopback() || ip == self.bound.ip(),
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Whether the caller may do this, and who it is.
    pub(super) fn admit(&self, method: &Method, headers: &HeaderMap, wants: Scope) -> Result<Who, Refusal> {
        let who = if self.tokens.is_empty() { self.anybody(headers)? } else { self.bearer(headers, wants)? };
        json_only(method, headers)?;
        Ok(who)
    }

    /// The older entrance: callers on this machine, whom nobody forwards, and who may start runs.
    pub(super) fn admit_older(&self, method: &Method, headers: &HeaderMap, peer: Option<Peer>) -> Result<Who, Refusal> {
        let forwarded = FORWARDED.iter().any(|name| headers.contains_key(*name));
        let here = peer.is_some_and(|Peer(peer)| peer.ip().to_canonical().is_loopback()) && !forwarded;
        let who = if headers.contains_key(header::AUTHORIZATION) && !self.tokens.is_empty() {
            self.bearer(headers, Scope::Run).map_err(|refusal| Refusal::elsewhere(&refusal.0.detail))?
        } else if here {
            named(headers)?
        } else {
            return Err(Refusal::elsewhere("it takes callers on this machine, and tokens that may `run`"));
        };
        json_only(method, headers)?;
        Ok(who)
    }

    /// Whether callers need a token.
    pub(super) fn wants_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    fn anybody(&self, headers: &HeaderMap) -> Result<Who, Refusal> {
        if !self.bound.ip().is_loopback() {
            let detail = "this listener can be reached from other machines and has no tokens";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "no-tokens", "Nobody may come in", detail)
                .hint("give `admin: { tokens: … }` in pointsman.yaml, or listen on 127.0.0.1"));
        }
        named(headers)
    }

    fn bearer(&self, headers: &HeaderMap, wants: Scope) -> Result<Who, Refusal> {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let refused = |detail: &str| Refusal::new(StatusCode::UNAUTHORIZED, "token", "A token is needed", detail);
        let Some(given) = given else { return Err(refused("send `Authorization: Bearer …`")) };
        let hash = blake3::hash(given.as_bytes());
        // Every token is looked at, each in constant time, so that time says nothing of how near a guess was.
        let mut found = None;
        for token in &self.tokens {
            if token.hash == hash {
                found = Some(token);
            }
        }
        let Some(token) = found else {
            tracing::warn!("a call with an unknown token was refused");
            return Err(refused("the token is not known here"));
        };
        if !token.may.iter().any(|may| may == wants.as_str()) {
            let detail = format!("the token `{}` may not `{}`", token.name, wants.as_str());
            return Err(Refusal::new(StatusCode::FORBIDDEN, "scope", "The token may not do this", detail)
                .hint(format!("it may: {}", token.may.join(", "))));
        }
        Ok(Who::Token(token.name.clone()))
    }
}

/// Somebody on this machine, by the name that they give.
fn named(headers: &HeaderMap) -> Result<Who, Refusal> {
    let name = headers.get(AS).map(|name| name.to_str().map_err(|_| Refusal::bad("the name is not plain ASCII")));
    let name = name.transpose()?.map(|name| fit(name).map(str::to_owned)).transpose()?;
    Ok(Who::Anybody(name))
}

/// A form of another site can send the other kinds without asking the browser.
fn json_only(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    if method != Method::GET && method != Method::HEAD && !is_json(headers) {
        let title = "The call is not JSON";
        let detail = "the Content-Type must be application/json";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", title, detail));
    }
    Ok(())
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        Some(_) | None => host,
    }
}

/// `http://host:port` without its scheme; anything else, `null` too, is nobody's.
fn authority_of(origin: &str) -> Option<&str> {
    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
}
