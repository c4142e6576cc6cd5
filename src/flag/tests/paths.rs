//! How raw paths are normalised.

use proptest::prelude::*;

use std::borrow::Cow;

use super::super::path::*;

fn path(raw: &str) -> String {
    resolve_dots(raw).path.into_owned()
}

#[test]
fn dot_segments_are_resolved_however_they_are_written() {
    for (raw, resolved) in [
        ("/a/../admin", "/admin"),
        ("/a/%2e%2E/admin", "/admin"),
        ("/a/.%2e/admin", "/admin"),
        ("/./a/./b/.", "/a/b/"),
        ("/a/b/..", "/a/"),
        ("/a/..", "/"),
        ("/a//../b", "/a/b"),
        ("/../a", "/a"),
    ] {
        assert_eq!(path(raw), resolved, "{raw}");
        assert!(unusual(raw).has(UnusualParts::DOTS), "{raw}");
    }
    for raw in ["/.hidden/...", "/%2ehidden", "/", "/a..b/.c", "/.well-known/x"] {
        assert!(matches!(resolve_dots(raw).path, Cow::Borrowed(_)) && unusual(raw).is_plain(), "{raw}");
    }
}

#[test]
fn paths_in_flag_files_must_be_plain() {
    for (raw, why) in [
        ("/..", PathRefusal::AboveRoot),
        ("/a/%2e./../b", PathRefusal::AboveRoot),
        ("/%zz", PathRefusal::Percent),
        ("/100%", PathRefusal::Percent),
        ("/a%2", PathRefusal::Percent),
        ("/a%00b", PathRefusal::Control),
        ("/a%0d%0ab", PathRefusal::Control),
        ("a", PathRefusal::NotAbsolute),
        ("", PathRefusal::NotAbsolute),
    ] {
        assert_eq!(check_plain(raw), Err(NotPlain::Refused(why)), "{raw}");
    }
    assert_eq!(check_plain("/a/./b"), Err(NotPlain::Dots("/a/b".into())));
    assert_eq!(check_plain("/a%2fb"), Err(NotPlain::Slashes));
    assert_eq!(check_plain("/orders/{id}"), Ok(()));
}

#[test]
fn unusual_spellings_are_found() {
    for (raw, found) in [
        ("//a", UnusualParts::SLASHES),
        ("/a%2Fb", UnusualParts::SLASHES),
        ("/a%5cb", UnusualParts::SLASHES),
        ("/a\\b", UnusualParts::SLASHES),
        ("/a;b=1", UnusualParts::PARAMETERS),
        ("/a%3Bb", UnusualParts::PARAMETERS),
        ("/a/..;/b", UnusualParts::PARAMETERS.and(UnusualParts::DOTS)),
        ("/a%252Fb", UnusualParts::DOUBLE),
        ("/a%25%32%46b", UnusualParts::DOUBLE),
        ("/100%25", UnusualParts::default()),
        ("/a%00", UnusualParts::CONTROL),
        ("/a%u002f", UnusualParts::PERCENT),
        ("/orders/17", UnusualParts::default()),
        ("/caf%C3%A9", UnusualParts::default()),
        ("/a.b/c..d", UnusualParts::default()),
    ] {
        assert_eq!(unusual(raw), found, "{raw}");
    }
}

#[test]
fn keys_are_decoded_once() {
    for (path, key) in [
        ("/%6Frders/%31%37", "/orders/17"),
        ("/a%252Fb", "/a%2Fb"),
        ("/caf%c3%a9", "/café"),
        ("/%ff%fe/x", "/\u{10ffff}\u{10fffe}/x"),
        ("/a%2fb", "/a\u{10ff2f}b"),
        ("/%c3%2f%a9", "/\u{10ffc3}\u{10ff2f}\u{10ffa9}"),
    ] {
        assert_eq!(match_key(path), key, "{path}");
    }
}

/// Otherwise the pins or retry keys of two instances could coincide.
#[test]
fn paths_of_different_bytes_have_different_keys() {
    let all = [
        "/x/%FC",
        "/x/%25FC",
        "/x/%C3%BC",
        "/x/%F4%8F%BF%BC",
        "/x/%EF%BF%BD",
        "/x/a%2Fb",
        "/x/a%252Fb",
        "/x/a%5Cb",
        "/x/a%255Cb",
        "/x/a/b",
    ];
    for (n, path) in all.iter().enumerate() {
        for other in &all[..n] {
            assert_ne!(match_key(path), match_key(other), "{path} and {other}");
        }
    }
    for (path, same) in [("/x/%fc", "/x/%FC"), ("/x/a%2fb", "/x/a%2Fb"), ("/x/%41", "/x/A"), ("/x/ü", "/x/%C3%BC")] {
        assert_eq!(match_key(path), match_key(same), "{path} and {same}");
    }
}

proptest! {
    #[test]
    fn resolving_twice_is_resolving_once(raw in "/([a-c/.;\\\\]|%2e|%2E|%2f|%5c|%61|%25|%c3%a9|%ff){0,12}") {
        let once = path(&raw);
        let twice = resolve_dots(&once);
        prop_assert!(matches!(twice.path, Cow::Borrowed(_)) && !twice.above_root);
        let dotted = |s: &str| matches!(&*match_key(s), "." | "..");
        prop_assert!(!once.split('/').any(dotted), "{}", once);
    }
}
