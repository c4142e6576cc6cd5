//! Refuses request heads that servers could interpret differently.
//!
//! hyper has refused what it cannot frame (spaces before colons, conflicting lengths, bad chunk sizes, …); this checks
//! what hyper accepts. Always true: a head that passes has one Host (in HTTP/1.0: at most one), one framing, and no
//! field that another parser could take for a framing field. An ambiguous request is refused, and over HTTP/1.1 its
//! connection is closed, since the bytes that follow cannot be trusted. The one exception is a Content-Length beside
//! chunked framing: hyper has removed it, and the request is served. `flag` checks the path.

use http::header::{CONNECTION, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, request};

use super::client_upgrade::is_extended_connect;
use super::field_names::is_read_as;

/// Why a request's head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadRefusal {
    /// Servers could interpret the head as different requests.
    Ambiguous(&'static str),
    /// CONNECT is not served.
    Connect,
    /// TRACE is not served: its reply would repeat the request's fields, including credentials and those that were
    /// added on the way.
    Trace,
    /// An `Expect` other than `100-continue`.
    Expectation,
    /// The request has passed through too many Pointsman processes: the addresses of their services form a loop.
    Loop,
}

/// The number of Pointsman processes that one request may pass through.
const VIA_MAX: usize = 8;

/// A head that passed the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CheckedHead {
    /// Whether the request asks for another protocol, and this may be forwarded.
    pub upgrade: bool,
    /// Whether the transfer coding is `chunked` in another case (`Chunked`), which some servers do not know.
    pub odd_coding: bool,
}

/// Checks a head.
pub(super) fn check(head: &request::Parts) -> Result<CheckedHead, HeadRefusal> {
    if head.method == Method::CONNECT {
        return Err(HeadRefusal::Connect);
    }
    if head.method == Method::TRACE {
        return Err(HeadRefusal::Trace);
    }
    if !matches!(head.version, Version::HTTP_11 | Version::HTTP_10 | Version::HTTP_2) {
        return Err(HeadRefusal::Ambiguous("the version is none of HTTP/1.0, HTTP/1.1 and HTTP/2"));
    }
    let host = check_host(head)?;
    check_target(head, host)?;
    let present = PresentFields::of(&head.headers);
    let odd_coding = present.coding && check_framing(&head.headers)?;
    let mut via = 0;
    for (name, value) in &head.headers {
        // The HTTP/1.1 parser has removed such white space; in HTTP/2 it is malformed, and the next server would remove
        // it.
        if head.version == Version::HTTP_2 && has_outer_space(value.as_bytes()) {
            return Err(HeadRefusal::Ambiguous("a field's value begins or ends with white space"));
        }
        if name.as_str().as_bytes().contains(&b'_') {
            check_underscore_name(name.as_str())?;
        } else if *name == http::header::VIA {
            via += value.as_bytes().split(|b| *b == b',').filter(|part| part.ends_with(b" pointsman")).count();
        }
    }
    if via >= VIA_MAX {
        return Err(HeadRefusal::Loop);
    }
    if present.expect
        && let Some(expect) = head.headers.get(EXPECT)
        && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(HeadRefusal::Expectation);
    }
    let names_upgrade = present.connection && check_connection(&head.headers)?;
    let may_upgrade = head.version == Version::HTTP_11 || is_extended_connect(head);
    let upgrade = names_upgrade && may_upgrade && wants_upgrade(&head.headers);
    Ok(CheckedHead { upgrade, odd_coding })
}

/// Which of the fields that need a check are present. Determined in one pass over the names, which is cheaper than a
/// lookup of each name, because most heads have none of these.
#[derive(Default)]
struct PresentFields {
    coding: bool,
    expect: bool,
    connection: bool,
}

impl PresentFields {
    fn of(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        for name in headers.keys() {
            match *name {
                TRANSFER_ENCODING => present.coding = true,
                EXPECT => present.expect = true,
                CONNECTION => present.connection = true,
                _ => {}
            }
        }
        present
    }
}

fn has_outer_space(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_space(value.first()) || is_space(value.last())
}

/// Fields by which many frameworks let a POST act as another method.
const METHOD_OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// Returns the methods that a server may perform in place of POST, because a field of the request names them.
pub(super) fn overriding_methods(head: &request::Parts) -> impl Iterator<Item = Method> {
    let headers = if head.method == Method::POST { Some(&head.headers) } else { None };
    let is_one = |name: &HeaderName| {
        let bytes = name.as_str().as_bytes();
        bytes.first() == Some(&b'x') && METHOD_OVERRIDES.iter().any(|known| is_read_as(bytes, known.as_bytes()))
    };
    let values = headers.into_iter().flatten().filter(move |(name, _)| is_one(name)).map(|(_, value)| value);
    let method = |value: &[u8]| Method::from_bytes(&value.to_ascii_uppercase()).ok();
    values.flat_map(tokens).filter_map(method).filter(|method| *method != Method::POST)
}

/// Returns the known method that differs from this one in case only; `None` if there is none, or if this method is
/// itself known.
pub(super) fn known_in_another_case(method: &Method) -> Option<Method> {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
        Method::CONNECT,
        Method::TRACE,
    ];
    if KNOWN.contains(method) {
        return None;
    }
    KNOWN.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(method.as_str()))
}

fn check_host(head: &request::Parts) -> Result<Option<&HeaderValue>, HeadRefusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(HeadRefusal::Ambiguous("there are two Host fields"));
    }
    match host {
        None if head.version != Version::HTTP_10 => Err(HeadRefusal::Ambiguous("there is no Host field")),
        None => Ok(None),
        Some(host) if is_host(host.as_bytes()) => Ok(Some(host)),
        Some(_) => Err(HeadRefusal::Ambiguous("the Host field is not a host and port")),
    }
}

/// Whether these bytes are a name or an address, with an optional port.
fn is_host(host: &[u8]) -> bool {
    let name_end = match host.first() {
        Some(b'[') => match host.iter().position(|b| *b == b']') {
            Some(end) if end > 1 && host[1..end].iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) => {
                end + 1
            }
            _ => return false,
        },
        _ => host.iter().position(|b| *b == b':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(name_end);
    let is_name_byte = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    let is_name = !name.is_empty() && (name[0] == b'[' || name.iter().all(is_name_byte));
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_name && is_port
}

fn check_target(head: &request::Parts, host: Option<&HeaderValue>) -> Result<(), HeadRefusal> {
    match head.uri.authority() {
        None => {
            let path = head.uri.path();
            match path.as_bytes().first() {
                Some(b'/') => Ok(()),
                Some(b'*') if path == "*" && head.method == Method::OPTIONS => Ok(()),
                _ => Err(HeadRefusal::Ambiguous("the target is not a path")),
            }
        }
        Some(authority) => {
            if !matches!(head.uri.scheme_str(), Some("http" | "https")) {
                return Err(HeadRefusal::Ambiguous("the target's scheme is not http"));
            }
            if authority.as_str().contains('@') {
                return Err(HeadRefusal::Ambiguous("the target names a user"));
            }
            match host {
                Some(host) if host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => Ok(()),
                Some(_) => Err(HeadRefusal::Ambiguous("target and Host field name different hosts")),
                None => Err(HeadRefusal::Ambiguous("the target names a host and there is no Host field")),
            }
        }
    }
}

/// Refuses every transfer coding but `chunked`; returns whether `chunked` is written in another case.
fn check_framing(headers: &HeaderMap) -> Result<bool, HeadRefusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(false) };
    if codings.next().is_some() {
        return Err(HeadRefusal::Ambiguous("there are two Transfer-Encoding fields"));
    }
    if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(HeadRefusal::Ambiguous("the Transfer-Encoding is not just `chunked`"));
    }
    Ok(coding != "chunked")
}

/// Refuses names like `Content_Length`, which some servers read as `Content-Length`.
fn check_underscore_name(name: &str) -> Result<(), HeadRefusal> {
    const FRAMING: [&str; 7] =
        ["content-length", "transfer-encoding", "host", "connection", "upgrade", "expect", "trailer"];
    let same = |known: &str| {
        known.len() == name.len() && known.bytes().zip(name.bytes()).all(|(k, n)| k == n || (k == b'-' && n == b'_'))
    };
    match FRAMING.iter().any(|known| same(known)) {
        true => Err(HeadRefusal::Ambiguous("a field's name differs from a framing field only by an underscore")),
        false => Ok(()),
    }
}

/// Refuses a Connection field that names a framing field; returns whether it names `upgrade`.
fn check_connection(headers: &HeaderMap) -> Result<bool, HeadRefusal> {
    let mut upgrade = false;
    for value in headers.get_all(CONNECTION) {
        for token in tokens(value) {
            if [&b"content-length"[..], b"transfer-encoding", b"host", b"connection", b"content-type"]
                .iter()
                .any(|framing| token.eq_ignore_ascii_case(framing))
            {
                return Err(HeadRefusal::Ambiguous("Connection names a field that frames or routes the request"));
            }
            upgrade |= token.eq_ignore_ascii_case(b"upgrade");
        }
    }
    Ok(upgrade)
}

/// Returns the members of a comma-separated field.
pub(super) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether the request asks for a protocol other than HTTP/2. An upgrade to HTTP/2 is never forwarded: the requests on
/// the upgraded connection would bypass all checks.
fn wants_upgrade(headers: &HeaderMap) -> bool {
    let mut any = false;
    for token in headers.get_all(UPGRADE).iter().flat_map(tokens) {
        if token.len() >= 3 && token[..3].eq_ignore_ascii_case(b"h2c") || token.eq_ignore_ascii_case(b"http/2.0") {
            return false;
        }
        any = true;
    }
    any
}

/// Builds a target in origin form from path and query.
pub(super) fn origin_form(path: &str, query: Option<&str>) -> Option<Uri> {
    let text = match query {
        Some(query) => [path, "?", query].concat(),
        None => path.to_owned(),
    };
    Uri::from_maybe_shared(bytes::Bytes::from(text)).ok().filter(|uri| uri.authority().is_none())
}
