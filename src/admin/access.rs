//! Access control: who the caller of an endpoint is, and whether they may call it.
//!
//! Always true: a request by which another web site would, through a browser, change or read something is refused (by
//! Host, Origin and content type), with or without tokens; tokens are compared by hash in constant time; without
//! tokens, endpoints that require a scope take requests on a loopback listener only (the deprecated start endpoint
//! takes requests of callers on this machine on any listener), and the name that a caller without a token gives is
//! marked as unverified.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderMap, Method, StatusCode, Uri, header};

use super::caller::{ApiCaller, Viewer, valid_name};
use super::error::ApiError;
use super::serve::PeerAddress;
use crate::config::{Token, TokenScope};

/// The header in which a caller without a token gives a name.
pub(super) const AS_HEADER: &str = "x-pointsman-as";
/// Headers that a proxy adds: a request with one of them may come from another machine.
const FORWARDED: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];

struct KnownToken {
    name: String,
    hash: blake3::Hash,
    scopes: Vec<TokenScope>,
}

/// The tokens in force, and whether the listener is on loopback.
pub(super) struct AccessControl {
    tokens: Vec<KnownToken>,
    listen: SocketAddr,
}

impl AccessControl {
    pub(super) fn new(tokens: &[Token], listen: SocketAddr) -> Self {
        let known = |token: &Token| KnownToken {
            name: token.name.clone(),
            hash: blake3::hash(token.secret.reveal().as_bytes()),
            scopes: token.scopes.clone(),
        };
        Self { tokens: tokens.iter().map(known).collect(), listen }
    }

    /// Refuses a request whose Origin header is not its Host, and on a loopback listener also one whose Host does not
    /// name this machine. Applies to every path.
    pub(super) fn check_origin(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = host_of(uri, headers);
        if self.listen.ip().is_loopback() {
            self.require_own_host(host)?;
        }
        let mut origins = headers.get_all(header::ORIGIN).iter().map(|origin| origin.to_str().ok());
        if !origins.all(|origin| origin.and_then(authority_of).is_some_and(|origin| Some(origin) == host)) {
            return Err(foreign("the Origin header names another site"));
        }
        Ok(())
    }

    /// Refuses a request whose Host does not name this machine. By DNS rebinding, another site's name that resolves to
    /// this machine would make that site's pages same-origin with the API.
    fn require_own_host(&self, host: Option<&str>) -> Result<(), ApiError> {
        if host.is_some_and(|host| self.names_this_host(host)) {
            return Ok(());
        }
        let port = self.listen.port();
        let address = match self.listen.ip() {
            ip if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            ip => SocketAddr::new(ip, port),
        };
        Err(foreign("the Host header does not name this machine")
            .hint(format!("use http://{address}/ or http://localhost:{port}/")))
    }

    fn names_this_host(&self, host: &str) -> bool {
        let name = without_port(host);
        let ip = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name).parse::<IpAddr>();
        match ip {
            Ok(ip) => ip.is_loopback() || (ip == self.listen.ip() && !ip.is_unspecified()),
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Identifies the caller, and checks that they have this scope. `viewer`: who makes the request in this process.
    pub(super) fn authorize(
        &self,
        method: &Method,
        headers: &HeaderMap,
        viewer: Option<&Viewer>,
        scope: TokenScope,
    ) -> Result<ApiCaller, ApiError> {
        let caller = match viewer {
            Some(viewer) => viewer_with_scope(viewer, scope)?,
            None if self.tokens.is_empty() => self.local_caller(headers)?,
            None => self.token_holder(headers, scope)?,
        };
        require_json(method, headers)?;
        Ok(caller)
    }

    /// Identifies the caller of the deprecated start endpoint. Accepts callers on this machine whose request was not
    /// forwarded by a proxy, and holders of tokens that may start runs. Without a token the Host that a browser sends
    /// must name this machine, whatever the listener's address is: a web page's request comes from this machine too.
    pub(super) fn authorize_deprecated_start(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        peer: Option<PeerAddress>,
    ) -> Result<ApiCaller, ApiError> {
        let forwarded = FORWARDED.iter().any(|name| headers.contains_key(*name));
        let is_local = peer.is_some_and(|PeerAddress(peer)| peer.ip().to_canonical().is_loopback()) && !forwarded;
        let caller = if headers.contains_key(header::AUTHORIZATION) && !self.tokens.is_empty() {
            self.token_holder(headers, TokenScope::Run).map_err(|error| ApiError::not_for_caller(&error.0.detail))?
        } else if is_local {
            // A browser sends `Origin` with every POST; other programs need not name this machine.
            if headers.contains_key(header::ORIGIN) {
                self.require_own_host(host_of(uri, headers))?;
            }
            unverified(headers)?
        } else {
            return Err(ApiError::not_for_caller(
                "it takes callers on this machine, and callers with a token of the scope `run`",
            ));
        };
        require_json(method, headers)?;
        Ok(caller)
    }

    /// Whether the listener can be reached from this machine only.
    pub(super) fn is_on_loopback(&self) -> bool {
        self.listen.ip().is_loopback()
    }

    /// Whether callers need a token.
    pub(super) fn requires_token(&self) -> bool {
        !self.tokens.is_empty()
    }

    fn local_caller(&self, headers: &HeaderMap) -> Result<ApiCaller, ApiError> {
        if !self.listen.ip().is_loopback() {
            let detail = "this listener can be reached from other machines and no tokens are configured";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "no-tokens", "No caller is allowed", detail)
                .hint("give `admin: { tokens: … }` in pointsman.yaml, or listen on 127.0.0.1"));
        }
        unverified(headers)
    }

    fn token_holder(&self, headers: &HeaderMap, scope: TokenScope) -> Result<ApiCaller, ApiError> {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let unauthorized = |detail: &str| ApiError::new(StatusCode::UNAUTHORIZED, "token", "A token is needed", detail);
        let Some(given) = given else { return Err(unauthorized("send `Authorization: Bearer …`")) };
        let Some(token) = self.known_token(given) else {
            tracing::warn!("a request with an unknown token was refused");
            return Err(unauthorized("the token is not known"));
        };
        require_scope(&token.name, &token.scopes, scope)?;
        Ok(ApiCaller::Token(token.name.clone()))
    }

    fn known_token(&self, given: &str) -> Option<&KnownToken> {
        let hash = blake3::hash(given.as_bytes());
        // Compares the hash with that of every token, each in constant time, so that the time taken reveals nothing
        // about a guess.
        let mut found = None;
        for token in &self.tokens {
            if token.hash == hash {
                found = Some(token);
            }
        }
        found
    }

    /// The name, the scopes and the hash of a token.
    pub(super) fn token(&self, given: &str) -> Option<(String, Vec<TokenScope>, blake3::Hash)> {
        self.known_token(given).map(|token| (token.name.clone(), token.scopes.clone(), token.hash))
    }

    /// The name and the scopes of the token with this name, if it still has this hash.
    pub(super) fn token_by_hash(&self, name: &str, hash: blake3::Hash) -> Option<(String, Vec<TokenScope>)> {
        let token = self.tokens.iter().find(|token| token.name == name && token.hash == hash)?;
        Some((token.name.clone(), token.scopes.clone()))
    }
}

fn viewer_with_scope(viewer: &Viewer, scope: TokenScope) -> Result<ApiCaller, ApiError> {
    if let ApiCaller::Token(name) = &viewer.caller {
        require_scope(name, &viewer.scopes, scope)?;
    }
    Ok(viewer.caller.clone())
}

fn require_scope(name: &str, scopes: &[TokenScope], scope: TokenScope) -> Result<(), ApiError> {
    if scopes.contains(&scope) {
        return Ok(());
    }
    let scope_names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    let detail = format!("the token `{name}` does not have the scope `{}`", scope.as_str());
    Err(ApiError::new(StatusCode::FORBIDDEN, "scope", "The token lacks the scope", detail)
        .hint(format!("its scopes: {}", scope_names.join(", "))))
}

/// The host that a request names; `None` if it names none, or several.
fn host_of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, _) => uri.authority().map(http::uri::Authority::as_str),
        (Some(_), Some(_)) => None,
    }
}

fn foreign(what: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "foreign", "The request comes from another site", what)
}

/// A caller without a token, with the name that they give.
fn unverified(headers: &HeaderMap) -> Result<ApiCaller, ApiError> {
    let name = headers
        .get(AS_HEADER)
        .map(|name| name.to_str().map_err(|_| ApiError::bad("the name in X-Pointsman-As is not plain ASCII")));
    let name = name.transpose()?.map(|name| valid_name(name).map(str::to_owned)).transpose()?;
    Ok(ApiCaller::Unverified(name))
}

/// Content types other than JSON are refused: an HTML form of another site can send those without a preflight request.
fn require_json(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    if method != Method::GET && method != Method::HEAD && !is_json(headers) {
        let title = "The request is not JSON";
        let detail = "the Content-Type must be application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", title, detail));
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

/// `host:port` of an origin; `None` for anything else, such as `null`.
fn authority_of(origin: &str) -> Option<&str> {
    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
}
