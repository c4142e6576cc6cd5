//! Is this request unambiguous?
//!
//! hyper has refused what it cannot frame (spaces before colons, conflicting lengths, bad chunk sizes, …); this looks at
//! what it lets through and two readers could read in two ways. Always true: what passes has one Host, one framing, and
//! no field that another parser could take for a framing field. Nothing is repaired: what is ambiguous is refused and
//! the connection closed, since what follows on it cannot be trusted. The path is `flag`'s business.

use http::header::{CONNECTION, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Version, request};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dirty {
    /// Two readers could take it for two different requests.
    Ambiguous(&'static str),
    /// We are no tunnel.
    Connect,
    /// It expects something that nobody here can give.
    Expectation,
    /// It has been through too many of us: the addresses make a loop.
    Loop,
}

/// Pointsmen that one request may pass through.
const VIA_MAX: usize = 8;

/// What the switch wants to know of a clean head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clean {
    /// It asks for another protocol, and may have it.
    pub upgrade: bool,
}

/// Looks at a head.
pub(super) fn check(head: &request::Parts) -> Result<Clean, Dirty> {
    if head.method == Method::CONNECT {
        return Err(Dirty::Connect);
    }
    if head.version != Version::HTTP_11 && head.version != Version::HTTP_10 {
        return Err(Dirty::Ambiguous("the version is neither HTTP/1.1 nor HTTP/1.0"));
    }
    let host = host(head)?;
    target(head, host)?;
    framing(&head.headers)?;
    let mut via = 0;
    for (name, value) in &head.headers {
        if name.as_str().as_bytes().contains(&b'_') {
            twin(name.as_str())?;
        } else if name == http::header::VIA {
            via += value.as_bytes().split(|b| *b == b',').filter(|part| part.ends_with(b" pointsman")).count();
        }
    }
    if via >= VIA_MAX {
        return Err(Dirty::Loop);
    }
    if let Some(expect) = head.headers.get(EXPECT)
        && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Dirty::Expectation);
    }
    let named = connection(&head.headers)?;
    let upgrade = named && head.version == Version::HTTP_11 && wanted_upgrade(&head.headers);
    Ok(Clean { upgrade })
}

fn host(head: &request::Parts) -> Result<Option<&HeaderValue>, Dirty> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Dirty::Ambiguous("there are two Host fields"));
    }
    match host {
        None if head.version == Version::HTTP_11 => Err(Dirty::Ambiguous("there is no Host field")),
        None => Ok(None),
        Some(host) if is_host(host.as_bytes()) => Ok(Some(host)),
        Some(_) => Err(Dirty::Ambiguous("the Host field is no host and port")),
    }
}

/// Name or address, and a port.
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
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    let named = !name.is_empty() && (name[0] == b'[' || name.iter().all(plain));
    let ported = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    named && ported
}

fn target(head: &request::Parts, host: Option<&HeaderValue>) -> Result<(), Dirty> {
    match head.uri.authority() {
        None => {
            let path = head.uri.path();
            match path.as_bytes().first() {
                Some(b'/') => Ok(()),
                Some(b'*') if path == "*" && head.method == Method::OPTIONS => Ok(()),
                _ => Err(Dirty::Ambiguous("the target is no path")),
            }
        }
        Some(authority) => {
            if !matches!(head.uri.scheme_str(), Some("http" | "https")) {
                return Err(Dirty::Ambiguous("the target's scheme is not http"));
            }
            if authority.as_str().contains('@') {
                return Err(Dirty::Ambiguous("the target names a user"));
            }
            match host {
                Some(host) if host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => Ok(()),
                Some(_) => Err(Dirty::Ambiguous("target and Host field name different hosts")),
                None => Err(Dirty::Ambiguous("the target names a host and there is no Host field")),
            }
        }
    }
}

fn framing(headers: &HeaderMap) -> Result<(), Dirty> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if codings.next().is_some() {
        return Err(Dirty::Ambiguous("there are two Transfer-Encoding fields"));
    }
    if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Dirty::Ambiguous("the Transfer-Encoding is not just `chunked`"));
    }
    Ok(())
}

/// Some servers read `Content_Length` as `Content-Length`.
fn twin(name: &str) -> Result<(), Dirty> {
    const FRAMING: [&str; 7] =
        ["content-length", "transfer-encoding", "host", "connection", "upgrade", "expect", "trailer"];
    let same = |known: &str| {
        known.len() == name.len() && known.bytes().zip(name.bytes()).all(|(k, n)| k == n || (k == b'-' && n == b'_'))
    };
    match FRAMING.iter().any(|known| same(known)) {
        true => Err(Dirty::Ambiguous("a field's name differs from a framing field only by an underscore")),
        false => Ok(()),
    }
}

/// Refuses a Connection field that would take the framing away; tells whether it names `upgrade`.
fn connection(headers: &HeaderMap) -> Result<bool, Dirty> {
    let mut upgrade = false;
    for value in headers.get_all(CONNECTION) {
        for token in tokens(value) {
            if [&b"content-length"[..], b"transfer-encoding", b"host", b"connection", b"content-type"]
                .iter()
                .any(|framing| token.eq_ignore_ascii_case(framing))
            {
                return Err(Dirty::Ambiguous("Connection names a field that frames or routes the request"));
            }
            upgrade |= token.eq_ignore_ascii_case(b"upgrade");
        }
    }
    Ok(upgrade)
}

/// The words of a comma-separated field.
pub(super) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// HTTP/2 is not spoken here, and a tunnel into it would walk round every check: that wish is not heard.
fn wanted_upgrade(headers: &HeaderMap) -> bool {
    let mut any = false;
    for token in headers.get_all(UPGRADE).iter().flat_map(tokens) {
        if token.len() >= 3 && token[..3].eq_ignore_ascii_case(b"h2c") || token.eq_ignore_ascii_case(b"http/2.0") {
            return false;
        }
        any = true;
    }
    any
}
