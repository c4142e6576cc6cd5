//! RFC 7541: header blocks that cannot be decoded end the connection.

use super::case::Case;
use super::case::Outcome::{Answered, ConnectionError};
use crate::support::http2::frames::*;
use crate::support::http2::hpack::Indexing::{Incremental, Never, Without};
use crate::support::http2::hpack::{
    FIRST_DYNAMIC, Name, Text, field, indexed, integer, literal, request, size_update, string,
};

/// A request with these bytes at the end of its block.
fn with(name: &'static str, bytes: &[u8]) -> Case {
    Case::new(name, ConnectionError(&[COMPRESSION_ERROR])).send(&[&headers(
        1,
        WHOLE,
        &[&request("GET", &[])[..], bytes].concat(),
    )])
}

/// A field whose value has this Huffman code.
fn huffman(code: &[u8]) -> Vec<u8> {
    literal(Without, Name::New("x-test"), Text::Huffman(code))
}

pub fn cases() -> Vec<Case> {
    let get = request("GET", &[]);
    // Fills the table, which has room for 4,096 bytes: the first of them is evicted.
    let large = "v".repeat(1_500);
    let many: Vec<u8> = ["x-a", "x-b", "x-c"]
        .iter()
        .flat_map(|name| literal(Incremental, Name::New(name), Text::Plain(&large)))
        .collect();
    vec![
        with("HPACK 2.3.3: an index beyond the tables", &indexed(FIRST_DYNAMIC + 8)),
        with("HPACK 2.3.3: a name beyond the tables", &literal(Incremental, Name::Index(70), Text::Plain("v"))),
        with(
            "HPACK 2.3.3: a name beyond the tables, without indexing",
            &literal(Without, Name::Index(70), Text::Plain("v")),
        ),
        with(
            "HPACK 2.3.3: a name beyond the tables, never indexed",
            &literal(Never, Name::Index(70), Text::Plain("v")),
        ),
        with("HPACK 4.2: an update of the table's size behind a field", &size_update(1)),
        with("HPACK 5.1: an integer that does not end", &[0xff; 12]),
        with("HPACK 5.1: an integer beyond 32 bits", &integer(7, 0x80, 1 << 40)),
        with("HPACK 5.2: a string longer than the block", &[0, 0x7f, 0x20, b'x']),
        // `0` is 5 bits; 11 ones follow.
        with("HPACK 5.2: padding of more than 7 bits", &huffman(&[0x07, 0xff])),
        with("HPACK 5.2: padding of zeros", &huffman(&[0b0000_0000])),
        with("HPACK 5.2: the end symbol in a string", &huffman(&[0xff, 0xff, 0xff, 0xff])),
        with("HPACK 6.1: index 0", &indexed(0)),
        with("HPACK 6.2: a field without its value", &[&[0x40][..], &string(false, b"x-test")].concat()),
        Case::new("HPACK 6.3: a table larger than the settings", ConnectionError(&[COMPRESSION_ERROR]))
            .send(&[&headers(1, WHOLE, &[size_update(4_097), get.clone()].concat())]),
        Case::new("HPACK 4.4: a field that was evicted", ConnectionError(&[COMPRESSION_ERROR])).send(&[&headers(
            1,
            WHOLE,
            &[get.clone(), many.clone(), indexed(FIRST_DYNAMIC + 2)].concat(),
        )]),
        Case::new("HPACK 4.4: the fields that were not evicted", Answered(1, 200)).send(&[&headers(
            1,
            WHOLE,
            &[get.clone(), many, indexed(FIRST_DYNAMIC + 1)].concat(),
        )]),
        Case::new("HPACK 4.3: a table of size 0 forgets its fields", ConnectionError(&[COMPRESSION_ERROR]))
            .send(&[&headers(
                1,
                WHOLE,
                &[get.clone(), literal(Incremental, Name::New("x-kept"), Text::Plain("v"))].concat(),
            )])
            .await_end(1)
            .send(&[&headers(
                3,
                WHOLE,
                &[size_update(0), size_update(4_096), get.clone(), indexed(FIRST_DYNAMIC)].concat(),
            )]),
        Case::new("HPACK 4.4: a field larger than the table empties it", ConnectionError(&[COMPRESSION_ERROR])).send(
            &[&headers(
                1,
                WHOLE,
                &[
                    get.clone(),
                    literal(Incremental, Name::New("x-kept"), Text::Plain("v")),
                    literal(Incremental, Name::New("x-large"), Text::Plain(&"v".repeat(4_096))),
                    indexed(FIRST_DYNAMIC),
                ]
                .concat(),
            )],
        ),
        Case::new("HPACK: an unreadable block in trailers", ConnectionError(&[COMPRESSION_ERROR])).send(&[
            &headers(1, END_HEADERS, &request("POST", &[])),
            &data(1, 0, b"x"),
            &headers(1, WHOLE, &[field("x-sum", "1"), indexed(0)].concat()),
        ]),
    ]
}
