//! What any client may do: everything here has to be accepted.

use super::case::Case;
use super::case::Outcome::{Answered, Ignored, IgnoredOrClosed};
use crate::support::http2::frames::*;
use crate::support::http2::hpack::Indexing::{Incremental, Never, Without};
use crate::support::http2::hpack::{
    AUTHORITY, FIRST_DYNAMIC, METHOD_GET, Name, PATH_ROOT, SCHEME_HTTP, Text, USER_AGENT, field, indexed, literal,
    request, size_update,
};

/// `www.example.com`, `custom-key` and `custom-value` in Huffman code (RFC 7541, appendix C.4).
const EXAMPLE_COM: &[u8] = &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
const CUSTOM_KEY: &[u8] = &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f];
const CUSTOM_VALUE: &[u8] = &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf];

pub fn cases() -> Vec<Case> {
    let mut all = frames();
    all.extend(representations());
    all
}

fn frames() -> Vec<Case> {
    let (get, post) = (request("GET", &[]), request("POST", &[]));
    let (first, second) = get.split_at(get.len() / 2);
    let third = second.len() / 2;
    vec![
        Case::new("generic: a GET", Answered(1, 200)).send(&[&headers(1, WHOLE, &get)]),
        Case::new("generic: a HEAD", Answered(1, 200)).send(&[&headers(1, WHOLE, &request("HEAD", &[]))]),
        Case::new("generic: a POST", Answered(1, 200))
            .send(&[&headers(1, END_HEADERS, &post), &data(1, END_STREAM, b"body")]),
        Case::new("generic: a POST with trailers", Answered(1, 200)).send(&[
            &headers(1, END_HEADERS, &request("POST", &[("trailer", "x-sum")])),
            &data(1, 0, b"body"),
            &headers(1, WHOLE, &field("x-sum", "4")),
        ]),
        Case::new("generic: several DATA frames", Answered(1, 200)).send(&[
            &headers(1, END_HEADERS, &post),
            &data(1, 0, b"one"),
            &data(1, 0, b"two"),
            &data(1, END_STREAM, b"three"),
        ]),
        Case::new("generic: an empty DATA frame that ends the stream", Answered(1, 200))
            .send(&[&headers(1, END_HEADERS, &post), &data(1, END_STREAM, &[])]),
        Case::new("generic: DATA with padding", Answered(1, 200))
            .send(&[&headers(1, END_HEADERS, &post), &data(1, END_STREAM | PADDED, &padded(b"body", 6))]),
        Case::new("generic: DATA with nothing but padding", Answered(1, 200)).send(&[
            &headers(1, END_HEADERS, &post),
            &data(1, PADDED, &padded(&[], 255)),
            &data(1, END_STREAM, b"body"),
        ]),
        Case::new("generic: HEADERS with padding", Answered(1, 200)).send(&[&headers(
            1,
            WHOLE | PADDED,
            &padded(&get, 6),
        )]),
        Case::new("generic: HEADERS with a priority", Answered(1, 200)).send(&[&headers(
            1,
            WHOLE | WITH_PRIORITY,
            &[dependency(0, false, 255), get.clone()].concat(),
        )]),
        Case::new("generic: HEADERS with padding and a priority", Answered(1, 200)).send(&[&headers(
            1,
            WHOLE | PADDED | WITH_PRIORITY,
            &padded(&[dependency(0, true, 3), get.clone()].concat(), 9),
        )]),
        Case::new("generic: one CONTINUATION", Answered(1, 200))
            .send(&[&headers(1, END_STREAM, first), &continuation(1, END_HEADERS, second)]),
        Case::new("generic: several CONTINUATIONs", Answered(1, 200)).send(&[
            &headers(1, END_STREAM, first),
            &continuation(1, 0, &second[..third]),
            &continuation(1, END_HEADERS, &second[third..]),
        ]),
        Case::new("generic: HEADERS without a byte before CONTINUATION", Answered(1, 200))
            .send(&[&headers(1, END_STREAM, &[]), &continuation(1, END_HEADERS, &get)]),
        Case::new("generic: PRIORITY with the least weight", Answered(1, 200))
            .send(&[&priority(1, 0, false, 0), &headers(1, WHOLE, &get)]),
        Case::new("generic: PRIORITY with the greatest weight", Answered(1, 200))
            .send(&[&priority(1, 0, false, 255), &headers(1, WHOLE, &get)]),
        Case::new("generic: PRIORITY that depends on another stream", Answered(1, 200))
            .send(&[&priority(1, 3, false, 15), &headers(1, WHOLE, &get)]),
        Case::new("generic: an exclusive PRIORITY", Answered(1, 200))
            .send(&[&priority(1, 3, true, 15), &headers(1, WHOLE, &get)]),
        Case::new("generic: PRIORITY of a higher idle stream before HEADERS of a lower one", Answered(1, 200))
            .send(&[&priority(5, 0, false, 15), &headers(1, WHOLE, &get)]),
        Case::new("generic: PRIORITY on an idle stream", Ignored).send(&[&priority(1, 0, false, 15)]),
        Case::new("generic: PRIORITY on a half-closed stream", Answered(1, 200))
            .send(&[&headers(1, WHOLE, &get), &priority(1, 0, false, 15)]),
        Case::new("generic: PRIORITY on a closed stream", Ignored)
            .send(&[&headers(1, WHOLE, &get)])
            .await_end(1)
            .send(&[&priority(1, 0, false, 15)]),
        Case::new("generic: RST_STREAM on a half-closed stream", IgnoredOrClosed)
            .send(&[&headers(1, WHOLE, &get), &rst_stream(1, CANCEL)]),
        Case::new("generic: RST_STREAM within a body", Ignored).send(&[
            &headers(1, END_HEADERS, &post),
            &data(1, 0, b"bo"),
            &rst_stream(1, CANCEL),
        ]),
        Case::new("generic: WINDOW_UPDATE of the connection", Ignored).send(&[&window_update(0, 1)]),
        Case::new("generic: WINDOW_UPDATE of a half-closed stream", Answered(1, 200))
            .send(&[&headers(1, WHOLE, &get), &window_update(1, 1)]),
        Case::new("generic: a graceful GOAWAY", IgnoredOrClosed).send(&[&goaway(0, 0, NO_ERROR)]),
        Case::new("generic: streams whose numbers have gaps", Answered(101, 200))
            .send(&[&headers(7, WHOLE, &get)])
            .await_end(7)
            .send(&[&headers(101, WHOLE, &get)]),
        Case::new("generic: several streams at once", Answered(5, 200)).send(&[
            &headers(1, WHOLE, &get),
            &headers(3, WHOLE, &get),
            &headers(5, WHOLE, &get),
        ]),
    ]
}

/// A request with one field, encoded as these bytes; legacy has to get this name and value.
fn with(name: &'static str, field: &[u8], seen: &'static str, value: &'static str) -> Case {
    let block = [&request("GET", &[]), field].concat();
    Case::new(name, Answered(1, 200)).send(&[&headers(1, WHOLE, &block)]).legacy_sees(seen, value)
}

fn representations() -> Vec<Case> {
    let start = [indexed(METHOD_GET), indexed(SCHEME_HTTP), indexed(PATH_ROOT)].concat();
    let host = |indexing| literal(indexing, Name::Index(AUTHORITY), Text::Plain("shop.test"));
    let whole = |more: &[u8]| headers(1, WHOLE, &[&start, more].concat());
    vec![
        Case::new("generic/HPACK: indexed fields", Answered(1, 200)).send(&[&whole(&host(Without))]),
        Case::new("generic/HPACK: incremental, indexed name", Answered(1, 200))
            .send(&[&whole(&host(Incremental))])
            .legacy_sees("host", "shop.test"),
        Case::new("generic/HPACK: never indexed, indexed name", Answered(1, 200)).send(&[&whole(&host(Never))]),
        Case::new("generic/HPACK: incremental, indexed name, Huffman", Answered(1, 200))
            .send(&[&whole(&literal(Incremental, Name::Index(AUTHORITY), Text::Huffman(EXAMPLE_COM)))])
            .legacy_sees("host", "www.example.com"),
        Case::new("generic/HPACK: without indexing, indexed name, Huffman", Answered(1, 200))
            .send(&[&whole(&literal(Without, Name::Index(AUTHORITY), Text::Huffman(EXAMPLE_COM)))])
            .legacy_sees("host", "www.example.com"),
        Case::new("generic/HPACK: never indexed, indexed name, Huffman", Answered(1, 200))
            .send(&[&whole(&literal(Never, Name::Index(AUTHORITY), Text::Huffman(EXAMPLE_COM)))])
            .legacy_sees("host", "www.example.com"),
        with(
            "generic/HPACK: without indexing, a name of the end of the table",
            &literal(Without, Name::Index(USER_AGENT), Text::Plain("ours")),
            "user-agent",
            "ours",
        ),
        with(
            "generic/HPACK: incremental, new name",
            &literal(Incremental, Name::New("custom-key"), Text::Plain("v")),
            "custom-key",
            "v",
        ),
        with(
            "generic/HPACK: incremental, new name, Huffman",
            &literal(Incremental, Name::Huffman(CUSTOM_KEY), Text::Huffman(CUSTOM_VALUE)),
            "custom-key",
            "custom-value",
        ),
        with(
            "generic/HPACK: without indexing, new name",
            &literal(Without, Name::New("custom-key"), Text::Plain("v")),
            "custom-key",
            "v",
        ),
        with(
            "generic/HPACK: without indexing, new name, Huffman",
            &literal(Without, Name::Huffman(CUSTOM_KEY), Text::Huffman(CUSTOM_VALUE)),
            "custom-key",
            "custom-value",
        ),
        with(
            "generic/HPACK: never indexed, new name",
            &literal(Never, Name::New("custom-key"), Text::Plain("v")),
            "custom-key",
            "v",
        ),
        with(
            "generic/HPACK: never indexed, new name, Huffman",
            &literal(Never, Name::Huffman(CUSTOM_KEY), Text::Huffman(CUSTOM_VALUE)),
            "custom-key",
            "custom-value",
        ),
        Case::new("generic/HPACK: an update of the table's size", Answered(1, 200)).send(&[&headers(
            1,
            WHOLE,
            &[size_update(128), request("GET", &[])].concat(),
        )]),
        Case::new("generic/HPACK: two updates of the table's size", Answered(1, 200)).send(&[&headers(
            1,
            WHOLE,
            &[size_update(0), size_update(4_096), request("GET", &[])].concat(),
        )]),
        Case::new("generic/HPACK: a field of the dynamic table on another stream", Answered(3, 200))
            .send(&[&whole(&[host(Without), literal(Incremental, Name::New("x-kept"), Text::Plain("v"))].concat())])
            .await_end(1)
            .send(&[&headers(3, WHOLE, &[&start[..], &host(Without), &indexed(FIRST_DYNAMIC)].concat())])
            .legacy_sees("x-kept", "v"),
    ]
}
