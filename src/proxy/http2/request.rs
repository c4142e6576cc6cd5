//! The head of a request as HTTP/1.1 would have it, so that `switch` treats both alike.
//!
//! Always true: nothing is decided here. Where `:authority` and Host differ, or the scheme is not HTTP, the target
//! keeps its absolute form, which `hygiene` refuses as it does for HTTP/1.1. The h2 crate has refused fields that
//! belong to a connection, and lengths that differ from each other or from the body.

use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::{HeaderMap, HeaderValue, Uri, request};

/// Rewrites a head as the equivalent HTTP/1.1 head.
pub(super) fn rewrite(head: &mut request::Parts) {
    if has_several(&head.headers, &COOKIE) {
        join_cookies(&mut head.headers);
    }
    // Several lengths are equal: the h2 crate has refused others.
    if has_several(&head.headers, &CONTENT_LENGTH)
        && let Some(length) = head.headers.get(CONTENT_LENGTH).cloned()
    {
        head.headers.insert(CONTENT_LENGTH, length);
    }
    let Some(path) = head.uri.path_and_query().cloned() else { return };
    if let Some(authority) = head.uri.authority() {
        if authority.as_str().contains('@') || !matches!(head.uri.scheme_str(), Some("http" | "https")) {
            return;
        }
        match head.headers.get(HOST) {
            Some(host) if host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {}
            Some(_) => return,
            None => {
                // The authority is not a valid host: the target stays absolute, and `hygiene` refuses it.
                let Ok(host) = HeaderValue::from_str(authority.as_str()) else { return };
                head.headers.insert(HOST, host);
            }
        }
    }
    head.uri = Uri::from(path);
}

fn has_several(headers: &HeaderMap, name: &http::HeaderName) -> bool {
    headers.get_all(name).iter().nth(1).is_some()
}

/// Joins the parts into which clients divide the field `cookie`.
fn join_cookies(headers: &mut HeaderMap) {
    let parts: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn rewritten(uri: &str, fields: &[(&'static str, &str)]) -> request::Parts {
        let mut request = Request::new(());
        *request.uri_mut() = uri.parse().unwrap();
        for (name, value) in fields {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let mut head = request.into_parts().0;
        rewrite(&mut head);
        head
    }

    #[test]
    fn the_authority_becomes_the_host() {
        let head = rewritten("https://shop.test:8443/orders?a=%2F", &[]);
        assert_eq!(
            (head.uri.to_string().as_str(), head.headers[HOST].to_str().unwrap()),
            ("/orders?a=%2F", "shop.test:8443")
        );
        let head = rewritten("http://shop.test/orders", &[("host", "Shop.Test")]);
        assert_eq!((head.uri.to_string().as_str(), head.headers[HOST].to_str().unwrap()), ("/orders", "Shop.Test"));
        assert_eq!(rewritten("/orders", &[("host", "shop.test")]).uri, "/orders");
    }

    #[test]
    fn an_ambiguous_head_keeps_the_form_that_is_refused() {
        assert!(rewritten("http://shop.test/", &[("host", "other.test")]).uri.authority().is_some());
        assert!(rewritten("http://user@shop.test/", &[]).uri.authority().is_some());
        assert!(rewritten("ftp://shop.test/", &[]).uri.authority().is_some());
        let two = rewritten("http://shop.test/", &[("host", "shop.test"), ("host", "other.test")]);
        assert_eq!(two.headers.get_all(HOST).iter().count(), 2);
    }

    #[test]
    fn the_parts_of_a_cookie_are_joined() {
        let head = rewritten("http://a/", &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")]);
        let cookies: Vec<_> = head.headers.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3"]);
    }

    #[test]
    fn equal_lengths_become_one() {
        let head = rewritten("http://a/", &[("content-length", "5"), ("content-length", "5")]);
        assert_eq!(head.headers.get_all(CONTENT_LENGTH).iter().count(), 1);
    }
}
