//! Removes fields from heads, among them those that clients must not set, in any spelling of their names.
//!
//! Always true: names that differ only in `_` for `-` count as the same. Many servers (CGI, WSGI) read both as one
//! field.

use http::header::TRAILER;
use http::{HeaderMap, HeaderName};

use super::field_names::is_read_as;
use super::hygiene::tokens;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Fields that tell legacy about the client, without `Forwarded`, whose name has no `-`.
static X_FORWARDED: [HeaderName; 3] = [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST];

/// Removes the header fields for clients' certificates, also where their names have `_` for `-`: many servers read both
/// as the same field. If such a field is announced as a trailer, no trailer is forwarded.
pub(super) fn remove_identity(headers: &mut HeaderMap, of_listeners: &[HeaderName]) {
    let is_one = |name: &[u8]| of_listeners.iter().any(|other| is_read_as(name, other.as_str().as_bytes()));
    let sent: Vec<HeaderName> = headers.keys().filter(|name| is_one(name.as_str().as_bytes())).cloned().collect();
    for name in sent {
        headers.remove(name);
    }
    // Only announced trailers are forwarded: without an announcement there are none.
    if headers.get_all(TRAILER).iter().flat_map(tokens).any(is_one) {
        headers.remove(TRAILER);
    }
}

/// Removes `X-Forwarded-*` fields whose names have `_` for `-`.
pub(super) fn remove_respelled_forwarded(headers: &mut HeaderMap) {
    let is_one = |name: &HeaderName| {
        let bytes = name.as_str().as_bytes();
        // The length and the first character are compared first, because nearly all names differ there.
        X_FORWARDED.iter().any(|known| {
            bytes.len() == known.as_str().len()
                && bytes.first() == Some(&b'x')
                && name != known
                && is_read_as(bytes, known.as_str().as_bytes())
        })
    };
    if headers.keys().any(is_one) {
        remove_in_order(headers, is_one);
    }
}

/// Removes fields and keeps the order of the others, unlike `HeaderMap::remove`, which moves the last field to the
/// removed one's place.
pub(super) fn remove_in_order(headers: &mut HeaderMap, is_removed: impl Fn(&HeaderName) -> bool) {
    let mut kept = HeaderMap::with_capacity(headers.keys_len());
    let mut current = None;
    for (name, value) in std::mem::take(headers) {
        // The iterator yields the name of a repeated field only once.
        if let Some(name) = name {
            current = Some(name).filter(|name| !is_removed(name));
        }
        if let Some(name) = &current {
            kept.append(name, value);
        }
    }
    *headers = kept;
}
