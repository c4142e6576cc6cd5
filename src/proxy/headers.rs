//! Header fields that are removed from messages, and those that are added.
//!
//! Always true:
//! - Hop-by-hop fields, and those that `Connection` names, are removed in both directions.
//! - Framing fields (`content-length`, `transfer-encoding`) are never removed, except that a reply with two framings
//!   keeps only one (`strip_reply`).
//! - The client's `Host` is passed on unchanged, so that legacy answers as it would without the proxy.
//! - Values that are the same for all requests of a connection are built once.

use std::cell::Cell;
use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::hygiene::tokens;
use super::removed_fields::{
    X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, remove_identity, remove_in_order, remove_respelled_forwarded,
};
use crate::flag::HOP_BY_HOP_HEADERS;
use crate::listener::{ForwardedFields, Forwarding};
use crate::traces::{self, TraceContext};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// In maps with more names than this, fields are looked up by hash.
const SCANNED_NAMES_MAX: usize = 16;
/// Fields of a request that are addressed to the proxy.
static FOR_PROXY: [HeaderName; 3] = [TE, EXPECT, HTTP2_SETTINGS];

const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");
const POINTSMAN: HeaderValue = HeaderValue::from_static("1.1 pointsman");
const UPGRADE_TOKEN: HeaderValue = HeaderValue::from_static("upgrade");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
/// The size of a block of which header values are slices. The block stays in memory as long as one of its slices does.
const SHARED_BLOCK_BYTES: usize = 1 << 10;

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// Removes and adds header fields in the requests of one client connection.
pub(super) struct Forwarder {
    peer: HeaderValue,
    /// The value of `X-Forwarded-Proto`.
    proto: HeaderValue,
    /// The header fields for the client's certificate.
    identity: Vec<(HeaderName, HeaderValue)>,
    /// The client as an element of `Forwarded`, without its host: `for=192.0.2.1;proto=https`.
    element: Option<String>,
    fields: ForwardedFields,
    /// Whether the peer is trusted: its `X-Forwarded-*` and `Forwarded` are kept and added to, instead of replaced.
    trust: bool,
}

impl Forwarder {
    pub(super) fn new(
        peer: IpAddr,
        scheme: Scheme,
        forwarding: &Forwarding,
        identity: Vec<(HeaderName, HeaderValue)>,
    ) -> Self {
        let Forwarding { trust, fields } = forwarding;
        let (trust, fields, peer) = (trust.trusts(peer), *fields, peer.to_canonical());
        let element = fields.have_forwarded().then(|| match (peer, scheme) {
            (IpAddr::V4(v4), Scheme::Http) => format!("for={v4};proto=http"),
            (IpAddr::V4(v4), Scheme::Https) => format!("for={v4};proto=https"),
            (IpAddr::V6(v6), Scheme::Http) => format!("for=\"[{v6}]\";proto=http"),
            (IpAddr::V6(v6), Scheme::Https) => format!("for=\"[{v6}]\";proto=https"),
        });
        let peer = HeaderValue::from_str(&peer.to_string());
        let proto = match scheme {
            Scheme::Http => HTTP,
            Scheme::Https => HTTPS,
        };
        Self { peer: peer.unwrap_or(HeaderValue::from_static("unknown")), proto, identity, element, fields, trust }
    }

    /// The header fields for the client's certificate.
    pub(super) fn into_identity(self) -> Vec<(HeaderName, HeaderValue)> {
        self.identity
    }

    /// Whether the peer is trusted to say who its client is.
    pub(super) fn trusts_peer(&self) -> bool {
        self.trust
    }

    /// Removes the header fields for clients' certificates as the client sent them, and adds those of this client.
    pub(super) fn set_identity(&self, headers: &mut HeaderMap, of_listeners: &[HeaderName]) {
        if of_listeners.is_empty() {
            return;
        }
        remove_identity(headers, of_listeners);
        for (name, value) in &self.identity {
            headers.insert(name, value.clone());
        }
    }

    /// Removes hop-by-hop fields from a request, and adds a `traceparent` if the request has no valid one.
    pub(super) fn strip_request(&self, headers: &mut HeaderMap, upgrade: bool) {
        strip_hop_by_hop(headers, upgrade);
        if trace_context(headers).is_none() {
            // With `traces:` in the files, an unrecorded exchange is passed on with the flag `00`, so that the services
            // that are called do not record it either.
            set_trace_context(headers, TraceContext::random(traces::installed().is_none()));
        }
    }

    /// Adds the fields that tell legacy about the client.
    pub(super) fn forward(&self, headers: &mut HeaderMap) {
        if !self.trust {
            remove_respelled_forwarded(headers);
        }
        if !self.fields.have_x_forwarded() {
            if !self.trust {
                headers.remove(X_FORWARDED_FOR);
                headers.remove(X_FORWARDED_PROTO);
                headers.remove(X_FORWARDED_HOST);
            }
        } else if self.trust {
            let known = join(headers, &X_FORWARDED_FOR, &self.peer);
            headers.insert(X_FORWARDED_FOR, known.unwrap_or_else(|| self.peer.clone()));
            headers.entry(X_FORWARDED_PROTO).or_insert_with(|| self.proto.clone());
            if !headers.contains_key(X_FORWARDED_HOST)
                && let Some(host) = headers.get(HOST).cloned()
            {
                headers.insert(X_FORWARDED_HOST, host);
            }
        } else {
            headers.insert(X_FORWARDED_FOR, self.peer.clone());
            headers.insert(X_FORWARDED_PROTO, self.proto.clone());
            match find(headers, &HOST).cloned() {
                Some(host) => headers.insert(X_FORWARDED_HOST, host),
                None => headers.remove(X_FORWARDED_HOST),
            };
        }
        if !self.trust {
            headers.remove(FORWARDED);
        }
        if let Some(element) = &self.element {
            self.add_forwarded(headers, element);
        }
        headers.append(VIA, POINTSMAN);
    }

    /// Adds the client to `Forwarded`. Every character that is valid in a Host is valid in a quoted string.
    fn add_forwarded(&self, headers: &mut HeaderMap, element: &str) {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let element = match host {
            Some(host) => format!("{element};host=\"{host}\""),
            None => element.to_owned(),
        };
        if let Ok(element) = HeaderValue::from_str(&element) {
            let known = join(headers, &FORWARDED, &element);
            headers.insert(FORWARDED, known.unwrap_or(element));
        }
    }
}

/// Removes hop-by-hop fields from a request.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap, upgrade: bool) {
    let for_proxy = has_any(headers, &FOR_PROXY);
    let wants_trailers =
        for_proxy && headers.get_all(TE).iter().flat_map(tokens).any(|t| t.eq_ignore_ascii_case(b"trailers"));
    let protocol = if upgrade { headers.get(UPGRADE).cloned() } else { None };
    strip(headers, &FOR_PROXY);
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, UPGRADE_TOKEN);
    }
    if wants_trailers {
        headers.insert(TE, TRAILERS);
    }
}

/// Removes hop-by-hop fields from a reply, and keeps one framing if the reply has two. Returns `false` if the reply had
/// both a transfer coding and a length: its connection must not be reused.
pub(super) fn strip_reply(headers: &mut HeaderMap, switching: bool, adds_via: bool) -> bool {
    let protocol = if switching { headers.get(UPGRADE).cloned() } else { None };
    strip(headers, &[]);
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, UPGRADE_TOKEN);
    }
    if adds_via {
        headers.append(VIA, POINTSMAN);
    }
    let mut framed_once = true;
    if headers.contains_key(TRANSFER_ENCODING) {
        framed_once = headers.remove(CONTENT_LENGTH).is_none();
    } else {
        let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
        if let Some(first) = lengths.next()
            && (lengths.next().is_some() || first.as_bytes().contains(&b','))
        {
            // All lengths are equal, otherwise hyper would have refused the reply.
            let length = tokens(first).next().and_then(|length| HeaderValue::from_bytes(length).ok());
            match length {
                Some(length) => headers.insert(CONTENT_LENGTH, length),
                None => headers.remove(CONTENT_LENGTH),
            };
        }
    }
    framed_once
}

/// Removes hop-by-hop fields, and those in `also`. The order of the others is kept.
fn strip(headers: &mut HeaderMap, also: &[HeaderName]) {
    let (mut removed, mut is_connection_last) = (0, false);
    for name in headers.keys() {
        let is_removed = is_hop_by_hop(name) || also.contains(name);
        removed += usize::from(is_removed);
        is_connection_last = is_removed && *name == CONNECTION;
    }
    if removed == 0 {
        return;
    }
    // The usual reply: `Connection: keep-alive` comes last, and can be removed without moving another field.
    if removed == 1 && is_connection_last && named_in_connection(headers).next().is_none() {
        headers.remove(CONNECTION);
        return;
    }
    let named: Vec<_> = match headers.contains_key(CONNECTION) {
        true => named_in_connection(headers).collect(),
        false => Vec::new(),
    };
    remove_in_order(headers, |name| is_hop_by_hop(name) || also.contains(name) || named.contains(name));
}

/// Whether a field is hop-by-hop even if `Connection` does not name it.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(*name, CONNECTION | PROXY_AUTHORIZATION | TE | UPGRADE) || *name == KEEP_ALIVE || *name == PROXY_CONNECTION
}

/// Returns the end-to-end fields that are removed only because `Connection` names them.
pub(super) fn end_to_end_in_connection(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    named_in_connection(headers).filter(|name| !HOP_BY_HOP_HEADERS.contains(&name.as_str()))
}

/// Returns the fields that are removed because `Connection` names them. Framing fields and `Host` never are.
fn named_in_connection(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let tokens = headers.get_all(CONNECTION).iter().flat_map(tokens);
    tokens
        .filter(|t| !t.eq_ignore_ascii_case(b"close") && !t.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|t| HeaderName::from_bytes(t).ok())
        .filter(|name| !matches!(*name, CONTENT_LENGTH | TRANSFER_ENCODING | HOST))
}

/// Returns the first value of a field. In a map of few names, compares the names one by one. That takes fewer
/// instructions than hashing `name` if the field is usually among the first ones (`Host`) or its name is long; for
/// other fields [`HeaderMap::get`] is cheaper.
pub(super) fn find<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    if headers.keys_len() > SCANNED_NAMES_MAX {
        return headers.get(name);
    }
    headers.iter().find_map(|(found, value)| (found == name).then_some(value))
}

/// Whether any of the fields is present. One pass over the fields is cheaper than a lookup of each name, because most
/// messages have none of them.
fn has_any(headers: &HeaderMap, names: &[HeaderName]) -> bool {
    headers.keys().any(|name| names.contains(name))
}

/// Joins the lines of a field and one more value into one line.
fn join(headers: &HeaderMap, name: &HeaderName, last: &HeaderValue) -> Option<HeaderValue> {
    let mut lines = headers.get_all(name).iter().peekable();
    lines.peek()?;
    let mut all = Vec::with_capacity(64);
    for line in lines {
        all.extend_from_slice(line.as_bytes());
        all.extend_from_slice(b", ");
    }
    all.extend_from_slice(last.as_bytes());
    HeaderValue::from_bytes(&all).ok()
}

/// Returns the trace that a message belongs to, if its `traceparent` is valid.
pub(super) fn trace_context(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::parse(find(headers, &TRACEPARENT)?.as_bytes())
}

/// Sets `traceparent` to the span for which the message is sent.
pub(super) fn set_trace_context(headers: &mut HeaderMap, context: TraceContext) {
    if let Some(value) = traceparent(context) {
        headers.insert(TRACEPARENT, value);
    }
}

/// Returns the value of a `traceparent` that names this span.
pub(super) fn traceparent(context: TraceContext) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(cut_from_block(&context.to_traceparent())).ok()
}

/// Copies `text` into a block that it shares with other values of this thread, so that few values need an allocation.
fn cut_from_block(text: &[u8]) -> Bytes {
    thread_local! {
        static BLOCK: Cell<BytesMut> = Cell::default();
    }
    let mut block = BLOCK.take();
    if block.capacity() < text.len() {
        block = BytesMut::with_capacity(SHARED_BLOCK_BYTES);
    }
    block.extend_from_slice(text);
    let cut = block.split().freeze();
    BLOCK.set(block);
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `check` refuses expressions that read these fields, by the list in `flag`.
    #[test]
    fn every_field_that_is_always_removed_is_known_as_hop_by_hop() {
        let always = [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHORIZATION, TE, UPGRADE];
        assert!(always.iter().all(is_hop_by_hop));
        for name in always.iter().chain(&FOR_PROXY) {
            assert!(HOP_BY_HOP_HEADERS.contains(&name.as_str()), "{name}");
        }
        assert!(!is_hop_by_hop(&HOST) && !is_hop_by_hop(&TRACEPARENT));
    }

    #[test]
    fn a_field_is_found_among_few_names_and_among_many() {
        let mut headers = HeaderMap::new();
        for number in 0..2 * SCANNED_NAMES_MAX {
            assert_eq!(find(&headers, &TRACEPARENT), None, "{number}");
            headers.append(HeaderName::try_from(format!("x-{number}")).unwrap(), HTTP);
        }
        for names in [1, SCANNED_NAMES_MAX + 1] {
            let mut headers: HeaderMap = headers.iter().take(names).map(|(n, v)| (n.clone(), v.clone())).collect();
            headers.append(TRACEPARENT, HTTPS);
            headers.append(TRACEPARENT, HTTP);
            assert_eq!(find(&headers, &TRACEPARENT), Some(&HTTPS), "the first of two, {names}");
            assert_eq!(find(&headers, &HOST), None);
        }
    }
}
