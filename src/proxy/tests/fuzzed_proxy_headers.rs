//! Mutated PROXY headers of both versions: where a header ends does not depend on how its bytes arrive, and a header
//! that was parsed can be written and parsed again.

use std::net::IpAddr;

use crate::flag::test_mutator::Mutator;
use crate::listener::ProxyVersion;
use crate::proxy::proxy_header::{Parsed, parse};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(command: u8, family: u8, following: &[u8]) -> Vec<u8> {
    let length = u16::try_from(following.len()).unwrap().to_be_bytes();
    [V2, &[0x20 | command, family], &length, following, b"GET / HTTP/1.1\r\n\r\n"].concat()
}

/// The line of version 1 for a client.
fn line(source: IpAddr) -> String {
    match source {
        IpAddr::V4(source) => format!("PROXY TCP4 {source} 192.0.2.1 5000 443\r\n"),
        IpAddr::V6(source) => format!("PROXY TCP6 {source} 2001:db8::1 5000 443\r\n"),
    }
}

#[test]
fn a_mutated_proxy_header_ends_at_one_place_or_is_refused() {
    let corpus: Vec<Vec<u8>> = vec![
        b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\nGET / HTTP/1.1\r\n\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\nGET / HTTP/1.1\r\n\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
        // A line that was once accepted if it came at once, and refused if it came in two parts.
        b"PROXY UNKNOWN ffff::1\nffff::2 1 2\r\n".to_vec(),
        v2(1, 0x11, &[192, 0, 2, 7, 192, 0, 2, 1, 0x13, 0x88, 1, 0xbb]),
        v2(1, 0x11, &[192, 0, 2, 7, 192, 0, 2, 1, 0x13, 0x88, 1, 0xbb, 4, 0, 2, 0, 0]),
        v2(1, 0x21, &[9; 36]),
        v2(1, 0x31, &[0; 216]),
        v2(0, 0, &[]),
        v2(1, 0, &[1, 2, 3]),
    ];
    let words: [&[u8]; 12] = [
        V2,
        b"PROXY ",
        b"TCP4",
        b"TCP6",
        b"UNKNOWN",
        b"\r\n",
        b" ",
        b"255.255.255.255",
        b"::1",
        b"65535",
        b"0",
        b"\0\x0c",
    ];
    let mut mutator = Mutator::new(&corpus, &words);
    let (mut complete, mut malformed) = (0_u64, 0_u64);
    while let Some((number, bytes)) = mutator.next() {
        let case = || mutator.case(number, &bytes);
        let whole = parse(&bytes, ProxyVersion::Any);
        // Each version alone gives the same result, or refuses the header.
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let alone = parse(&bytes, version);
            assert!(alone == whole || alone.is_err() || bytes.is_empty(), "{alone:?} and {whole:?}: {}", case());
        }
        match whole {
            Ok(Parsed::Complete { length, source }) => {
                complete += 1;
                assert!(length <= bytes.len(), "{length}: {}", case());
                // Neither the bytes that follow nor the division of the bytes matters.
                assert_eq!(parse(&bytes[..length], ProxyVersion::Any), whole, "{}", case());
                for part in 0..length {
                    assert_eq!(parse(&bytes[..part], ProxyVersion::Any), Ok(Parsed::Incomplete), "{part}: {}", case());
                }
                if let Some(source) = source {
                    let line = line(source);
                    let again = Parsed::Complete { length: line.len(), source: Some(source) };
                    assert_eq!(parse(line.as_bytes(), ProxyVersion::V1), Ok(again), "{}", case());
                }
            }
            Ok(Parsed::Incomplete) => {}
            Err(_) => {
                malformed += 1;
                // A refused header stays refused, whatever follows.
                let more = [&bytes[..], b"\r\n more"].concat();
                assert!(parse(&more, ProxyVersion::Any).is_err(), "{}", case());
            }
        }
    }
    println!("{complete} complete, {malformed} refused");
    mutator.report("a_mutated_proxy_header_ends_at_one_place_or_is_refused");
    assert!(complete > 5 && malformed > 5);
}
