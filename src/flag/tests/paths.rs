//! How raw paths are normalised.

use proptest::prelude::*;

use std::borrow::Cow;

use super::super::path::*;

fn path(raw: &str) -> String {
    normalise(raw).unwrap().path.into_owned()
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
        ("/.hidden/...", "/.hidden/..."),
        ("/%2ehidden", "/%2ehidden"),
        ("/a//../b", "/a/b"),
        ("/", "/"),
    ] {
        assert_eq!(path(raw), resolved, "{raw}");
    }
}

#[test]
fn malformed_paths_are_refused() {
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
        assert_eq!(normalise(raw), Err(why), "{raw}");
    }
}

#[test]
fn ambiguous_paths_are_not_changed() {
    for raw in ["//a", "/a//b", "/a%2Fb", "/a%2fb", "/a%5Cb", "/a\\b", "/..%2Fb"] {
        assert_eq!(normalise(raw), Ok(Normalised { path: Cow::Borrowed(raw), ambiguity: Ambiguity::Slashes }), "{raw}");
    }
    for raw in ["/a;b=1", "/a/..;/b", "/;"] {
        assert_eq!(
            normalise(raw),
            Ok(Normalised { path: Cow::Borrowed(raw), ambiguity: Ambiguity::Parameters }),
            "{raw}"
        );
    }
    assert_eq!(
        normalise("/a%2Fb/../c").unwrap().ambiguity,
        Ambiguity::None,
        "the encoded slash was in a removed segment"
    );
    assert_eq!(normalise("/a%252Fb").unwrap().ambiguity, Ambiguity::None, "decoded once, it is not a slash");
}

#[test]
fn ordinary_paths_are_borrowed() {
    for raw in ["/orders/17", "/caf%C3%A9", "/a.b/c..d", "/orders/%31%37"] {
        assert!(matches!(normalise(raw).unwrap().path, Cow::Borrowed(_)), "{raw}");
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

/// Pins and retry keys of two instances never coincide.
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

#[test]
fn readings_include_the_interpretations_of_lenient_origins() {
    for (path, read) in [
        ("//orders", "/orders"),
        ("/x%2F..%2Forders", "/orders"),
        ("/x\\..\\orders", "/orders"),
        ("/orders%5C17", "/orders/17"),
        ("/a%2F%2e%2e%2Forders", "/orders"),
        ("/files/a%2Fb", "/files/a\u{10ff2f}b"),
        ("/%2F%6Frders", "/orders"),
        ("/..%2Forders", "/orders"),
        ("/orders;v=1/17;x", "/orders/17"),
        ("/x/..;/orders", "/orders"),
        ("/orders;a%2Fb", "/orders"),
        ("/x;a%2F..%2Forders", "/orders"),
        ("/\\orders;a\\%2F17", "/orders/17"),
    ] {
        assert!(readings(path).iter().any(|r| r == read), "{path}: {:?}", readings(path));
    }
}

proptest! {
    #[test]
    fn normalising_twice_is_normalising_once(raw in "/([a-c/.;\\\\]|%2e|%2E|%2f|%5c|%61|%25|%c3%a9|%ff){0,12}") {
        if let Ok(once) = normalise(&raw) {
            let text = once.path.clone().into_owned();
            let twice = normalise(&text).unwrap();
            prop_assert_eq!(&*twice.path, &*once.path);
            prop_assert_eq!(twice.ambiguity, once.ambiguity);
            prop_assert!(matches!(twice.path, Cow::Borrowed(_)));
            let dotted = |s: &str| matches!(&*match_key(s), "." | "..");
                prop_assert!(!text.split('/').any(dotted), "{}", text);
        }
    }

    #[test]
    fn any_text_is_resolved_or_refused(raw in "\\PC{0,40}") {
        if let Ok(normalised) = normalise(&raw) {
            let _ = match_key(&normalised.path);
            prop_assert!(!readings(&normalised.path).is_empty());
        }
    }
}
