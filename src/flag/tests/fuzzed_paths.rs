//! Mutated paths: the matched path is the one that a server resolves by the letter of RFC 3986.

use std::borrow::Cow;

use super::super::path::*;
use super::super::test_mutator::Mutator;

const CORPUS: &[&str] = &[
    "/",
    "/orders/17",
    "/orders/17/cancel",
    "/a/../admin",
    "/a/%2e%2E/admin",
    "/./a/./b/.",
    "/a//b",
    "/a%2Fb",
    "/a\\b%5cc",
    "/a;b=1/..;/c",
    "/a%252Fb",
    "/%u002f",
    "/caf%c3%a9/%ff",
    "/../../x",
    "/.hidden/...",
    "/100%25",
];
const WORDS: &[&str] = &[
    "/", "//", ".", "..", "/../", "/./", "%2e", "%2E%2e", "%2f", "%5c", "\\", ";", "%3b", "%25", "%252e", "%00", "%",
    "%c3", "%a9", "orders", "é",
];
/// The bytes of each segment, as found by a server that decodes once and then resolves dot segments (RFC 3986, sections
/// 2.4 and 5.2.4); `None` if a dot segment leads above the root.
fn reference(path: &str) -> Option<Vec<Vec<u8>>> {
    let decode = |segment: &str| {
        let (bytes, mut at, mut out) = (segment.as_bytes(), 0, Vec::new());
        while let Some(byte) = bytes.get(at) {
            let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
            match (byte, digit(at + 1), digit(at + 2)) {
                (b'%', Some(high), Some(low)) => {
                    out.push(u8::try_from(high * 16 + low).unwrap());
                    at += 3;
                }
                (byte, ..) => {
                    out.push(*byte);
                    at += 1;
                }
            }
        }
        out
    };
    let mut resolved = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (n, segment) in segments.iter().enumerate() {
        let (decoded, is_last) = (decode(segment), n + 1 == segments.len());
        match &decoded[..] {
            b"." | b".." => {
                if decoded == b".." {
                    resolved.pop()?;
                }
                if is_last {
                    resolved.push(Vec::new());
                }
            }
            _ => resolved.push(decoded),
        }
    }
    Some(resolved)
}

#[test]
fn a_mutated_path_is_matched_as_servers_resolve_it() {
    let mut mutator = Mutator::new(CORPUS, WORDS);
    let (mut plain, mut refused) = (0_u64, 0_u64);
    while let Some((number, bytes)) = mutator.next() {
        let Ok(path) = String::from_utf8(bytes) else { continue };
        if !path.starts_with('/') {
            continue;
        }
        let case = || mutator.case(number, path.as_bytes());
        let (found, once) = (unusual(&path), resolve_dots(&path));
        let key = match_key(&once.path);
        // Resolving is idempotent, and leaves no dot segment, however it is spelled.
        let twice = resolve_dots(&once.path);
        assert!(matches!(twice.path, Cow::Borrowed(_)) && !twice.above_root, "{}", case());
        assert!(!once.path.split('/').any(|part| matches!(&*match_key(part), "." | "..")), "{}", case());
        // The key stands for the bytes that a server sees: it does not change when these are encoded again.
        let ascii = once.path.bytes().all(|byte| byte.is_ascii());
        if found.without(UnusualParts::DOTS).is_plain() && ascii && !path.contains("//") {
            match reference(&path) {
                None => {
                    assert!(once.above_root, "a server refuses it: {}", case());
                    refused += 1;
                }
                Some(segments) => {
                    assert!(!once.above_root, "a server takes it: {}", case());
                    let encode = |byte: &u8| format!("%{byte:02X}");
                    let encoded: String = segments
                        .iter()
                        .map(|part| format!("/{}", part.iter().map(encode).collect::<String>()))
                        .collect();
                    assert_eq!(key, match_key(&encoded), "{}", case());
                    plain += 1;
                }
            }
        }
    }
    println!("{plain} resolved as by the reference, {refused} refused as by it");
    mutator.report("a_mutated_path_is_matched_as_servers_resolve_it");
    assert!(plain > 20);
}
