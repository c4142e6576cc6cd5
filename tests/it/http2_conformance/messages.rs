//! RFC 9113, section 8: requests as HTTP/2 carries them.

use super::case::Case;
use super::case::Outcome::{Answered, Malformed, StreamOrConnectionError};
use crate::support::http2::frames::*;
use crate::support::http2::hpack::{field, fields, request};

pub fn cases() -> Vec<Case> {
    let mut all = framing();
    all.extend(field_syntax());
    all.extend(pseudo_fields());
    all.extend(connection_fields());
    all.extend(lengths());
    all
}

/// A GET with these pseudo-fields instead of its own.
fn with_pseudo(name: &'static str, all: &[(&str, &str)]) -> Case {
    Case::new(name, Malformed(1)).send(&[&headers(1, WHOLE, &fields(all))])
}

/// A request with one more field.
fn malformed(name: &'static str, more: &[(&str, &str)]) -> Case {
    Case::new(name, Malformed(1)).send(&[&headers(1, WHOLE, &request("GET", more))])
}

fn framing() -> Vec<Case> {
    let post = headers(1, END_HEADERS, &request("POST", &[]));
    vec![
        Case::new("8.1: a second HEADERS without END_STREAM", StreamOrConnectionError(1, &[PROTOCOL_ERROR])).send(&[
            &post,
            &data(1, 0, b"x"),
            &headers(1, END_HEADERS, &field("x", "y")),
        ]),
        Case::new("8.1: trailers with a pseudo-field", Answered(1, 200))
            .send(&[&post, &data(1, 0, b"x"), &headers(1, WHOLE, &field(":method", "GET"))])
            .deviates("the h2 crate removes it from the trailers: legacy does not get it"),
        Case::new("8.1: trailers with an upper-case name", StreamOrConnectionError(1, &[PROTOCOL_ERROR])).send(&[
            &post,
            &data(1, 0, b"x"),
            &headers(1, WHOLE, &field("X-Sum", "4")),
        ]),
        Case::new("8.1: trailers directly behind the head", Answered(1, 200))
            .send(&[&post, &headers(1, WHOLE, &field("x-sum", "0"))]),
        Case::new("8.1: two requests on one stream", StreamOrConnectionError(1, &[STREAM_CLOSED, PROTOCOL_ERROR]))
            .send(&[&headers(1, WHOLE, &request("GET", &[])), &headers(1, WHOLE, &request("GET", &[]))]),
        Case::new("8.4: PUSH_PROMISE of a client", StreamOrConnectionError(1, &[PROTOCOL_ERROR]))
            .send(&[&post, &frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 4][..], &request("GET", &[])].concat())]),
        Case::new("8.5: CONNECT with a path", Malformed(1)).send(&[&headers(1, WHOLE, &request("CONNECT", &[]))]),
        Case::new("8.5: CONNECT", Malformed(1)).send(&[&headers(
            1,
            END_HEADERS,
            &fields(&[(":method", "CONNECT"), (":authority", "shop.test:443")]),
        )]),
        Case::new("8.5 (RFC 8441): `:protocol` without the setting", Malformed(1)).send(&[&headers(
            1,
            END_HEADERS,
            &fields(&[
                (":method", "GET"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "shop.test"),
            ]),
        )]),
    ]
}

fn field_syntax() -> Vec<Case> {
    vec![
        malformed("8.2.1: an upper-case name", &[("X-Test", "ok")]),
        malformed("8.2.1: a name without a character", &[("", "ok")]),
        malformed("8.2.1: a name with a space", &[("x test", "ok")]),
        malformed("8.2.1: a name with a colon", &[("x:test", "ok")]),
        malformed("8.2.1: a name with a control character", &[("x\u{1}", "ok")]),
        malformed("8.2.1: a name with a line feed", &[("x\nhost", "ok")]),
        malformed("8.2.1: a value with NUL", &[("x-test", "a\0b")]),
        malformed("8.2.1: a value with a line feed", &[("x-test", "a\nhost: b")]),
        malformed("8.2.1: a value with a carriage return", &[("x-test", "a\r\nhost: b")]),
        malformed("8.2.1: a value with leading space", &[("x-test", " a")]),
        malformed("8.2.1: a value with a trailing tab", &[("x-test", "a\t")]),
        Case::new("8.2.3: a divided cookie", Answered(1, 200))
            .send(&[&headers(1, WHOLE, &request("GET", &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]))])
            .legacy_sees("cookie", "a=1; b=2; c=3"),
        Case::new("8.2: many fields of one name", Answered(1, 200)).send(&[&headers(
            1,
            WHOLE,
            &request("GET", &[("accept", "a"), ("accept", "b")]),
        )]),
        Case::new("8.2: a field without a value", Answered(1, 200))
            .send(&[&headers(1, WHOLE, &request("GET", &[("x-empty", "")]))])
            .legacy_sees("x-empty", ""),
    ]
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/");
const HOST: (&str, &str) = (":authority", "shop.test");

fn pseudo_fields() -> Vec<Case> {
    vec![
        with_pseudo("8.3: an unknown pseudo-field", &[METHOD, SCHEME, PATH, HOST, (":test", "ok")]),
        with_pseudo("8.3: a pseudo-field of answers", &[METHOD, SCHEME, PATH, HOST, (":status", "200")]),
        with_pseudo("8.3: a pseudo-field behind a field", &[METHOD, SCHEME, HOST, ("x-test", "ok"), PATH]),
        with_pseudo("8.3: a repeated pseudo-field behind a field", &[METHOD, SCHEME, PATH, HOST, ("x", "y"), METHOD]),
        with_pseudo("8.3.1: no path", &[METHOD, SCHEME, HOST]),
        with_pseudo("8.3.1: an empty path", &[METHOD, SCHEME, (":path", ""), HOST]),
        with_pseudo("8.3.1: a path without a slash", &[METHOD, SCHEME, (":path", "orders"), HOST]),
        with_pseudo("8.3.1: `*` with GET", &[METHOD, SCHEME, (":path", "*"), HOST]),
        with_pseudo("8.3.1: a path with a space", &[METHOD, SCHEME, (":path", "/a b"), HOST]),
        with_pseudo("8.3.1: a path with a line feed", &[METHOD, SCHEME, (":path", "/a\r\nhost: x"), HOST]),
        with_pseudo("8.3.1: a URL as path", &[METHOD, SCHEME, (":path", "http://other.test/"), HOST]),
        with_pseudo("8.3.1: no method", &[SCHEME, PATH, HOST]),
        with_pseudo("8.3.1: an empty method", &[(":method", ""), SCHEME, PATH, HOST]),
        with_pseudo("8.3.1: a method with a space", &[(":method", "GET /x"), SCHEME, PATH, HOST]),
        with_pseudo("8.3.1: no scheme", &[METHOD, PATH, HOST]),
        with_pseudo("8.3.1: an empty scheme", &[METHOD, (":scheme", ""), PATH, HOST]),
        with_pseudo("8.3.1: a scheme with a line feed", &[METHOD, (":scheme", "http\r\n"), PATH, HOST]),
        with_pseudo("8.3.1: two methods", &[METHOD, (":method", "POST"), SCHEME, PATH, HOST]),
        with_pseudo("8.3.1: two schemes", &[METHOD, SCHEME, SCHEME, PATH, HOST]),
        with_pseudo("8.3.1: two paths", &[METHOD, SCHEME, PATH, (":path", "/other"), HOST]),
        with_pseudo("8.3.1: two authorities", &[METHOD, SCHEME, PATH, HOST, (":authority", "other.test")]),
        with_pseudo("8.3.1: an authority with a user", &[METHOD, SCHEME, PATH, (":authority", "a@shop.test")]),
        with_pseudo("8.3.1: an authority with a path", &[METHOD, SCHEME, PATH, (":authority", "shop.test/x")]),
        with_pseudo("8.3.1: neither authority nor host", &[METHOD, SCHEME, PATH]),
        with_pseudo("8.3.1: a host that differs from the authority", &[METHOD, SCHEME, PATH, HOST, ("host", "b.test")]),
        Case::new("8.3.1: a host that equals the authority", Answered(1, 200))
            .send(&[&headers(1, WHOLE, &fields(&[METHOD, SCHEME, PATH, HOST, ("host", "shop.test")]))])
            .legacy_sees("host", "shop.test"),
        Case::new("8.3.1: a host instead of an authority", Answered(1, 200))
            .send(&[&headers(1, WHOLE, &fields(&[METHOD, SCHEME, PATH, ("host", "shop.test")]))])
            .legacy_sees("host", "shop.test"),
        Case::new("8.3.1: a path with a fragment", Answered(1, 200))
            .send(&[&headers(1, WHOLE, &fields(&[METHOD, SCHEME, (":path", "/a#b"), HOST]))])
            .deviates("what is behind # is removed, as in HTTP/1.1: matched and forwarded is the path before it"),
        Case::new("8.3.1: `*` with OPTIONS", Answered(1, 200)).send(&[&headers(
            1,
            WHOLE,
            &fields(&[(":method", "OPTIONS"), SCHEME, (":path", "*"), HOST]),
        )]),
    ]
}

fn connection_fields() -> Vec<Case> {
    vec![
        malformed("8.2.2: Connection", &[("connection", "keep-alive")]),
        malformed("8.2.2: Keep-Alive", &[("keep-alive", "timeout=5")]),
        malformed("8.2.2: Proxy-Connection", &[("proxy-connection", "keep-alive")]),
        malformed("8.2.2: Transfer-Encoding", &[("transfer-encoding", "chunked")]),
        malformed("8.2.2: Upgrade", &[("upgrade", "h2c")]),
        malformed("8.2.2: TE with something else than trailers", &[("te", "trailers, deflate;q=0.5")]),
        Case::new("8.2.2: TE with trailers", Answered(1, 200)).send(&[&headers(
            1,
            WHOLE,
            &request("GET", &[("te", "trailers")]),
        )]),
    ]
}

fn lengths() -> Vec<Case> {
    let post = |length: &str| headers(1, END_HEADERS, &request("POST", &[("content-length", length)]));
    vec![
        Case::new("8.1.1: a length without a body", Malformed(1)).send(&[&headers(
            1,
            WHOLE,
            &request("POST", &[("content-length", "1")]),
        )]),
        Case::new("8.1.1: a body longer than its length", Malformed(1))
            .send(&[&post("1"), &data(1, END_STREAM, b"test")]),
        Case::new("8.1.1: a body shorter than its length", Malformed(1))
            .send(&[&post("5"), &data(1, END_STREAM, b"test")]),
        Case::new("8.1.1: a body in pieces longer than its length", Malformed(1)).send(&[
            &post("4"),
            &data(1, 0, b"test"),
            &data(1, END_STREAM, b"test"),
        ]),
        Case::new("8.1.1: a body in pieces shorter than its length", Malformed(1)).send(&[
            &post("9"),
            &data(1, 0, b"test"),
            &data(1, END_STREAM, b"test"),
        ]),
        Case::new("8.1.1: trailers before the length is reached", Malformed(1)).send(&[
            &post("9"),
            &data(1, 0, b"test"),
            &headers(1, WHOLE, &field("x-sum", "4")),
        ]),
        Case::new("8.1.1: two lengths that differ", Malformed(1)).send(&[
            &headers(1, END_HEADERS, &request("POST", &[("content-length", "4"), ("content-length", "5")])),
            &data(1, END_STREAM, b"test"),
        ]),
        Case::new("8.1.1: a length that is no number", Malformed(1))
            .send(&[&post("+4"), &data(1, END_STREAM, b"test")]),
        Case::new("8.1.1: a body of its length, padded", Answered(1, 200))
            .send(&[&post("4"), &data(1, END_STREAM | PADDED, &padded(b"test", 7))]),
    ]
}
