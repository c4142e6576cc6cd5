//! Shows the path of a call without the values that differ from request to request.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::call_template::VALUE;

/// A longer word is treated as a value.
const WORD_CHARS_MAX: usize = 24;
/// The most segments that are shown.
const SEGMENTS_MAX: usize = 12;
/// How many times a path is percent-decoded to look for dot segments: each server on the way may decode it once more.
const DECODED_MAX: usize = 4;

/// Derives the template of a path that belongs to no step of the workflow. A segment that is not plainly a word counts
/// as a value: it may be an id, and may be secret. A word has only letters, `-` and `_`, and no capital after its first
/// character; or it is `v` and up to three digits. `is_id` tells which words are ids.
pub(super) fn derived_template(path: &str, is_id: impl Fn(&str) -> bool) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        if segments.len() > SEGMENTS_MAX {
            segments.push("…");
            break;
        }
        segments.push(if segment.is_empty() || is_word(segment) && !is_id(segment) { segment } else { VALUE });
    }
    segments.join("/")
}

/// A path without the values in it: one text for all paths of a kind, as far as the path tells.
pub fn path_without_values(path: &str) -> String {
    derived_template(path, |_| false)
}

/// Returns a URL as people are shown it: without the query and without the values in the path, which may be secret.
pub fn url_without_values(url: &str) -> String {
    let host = url.find("://").map_or(0, |at| at + 3);
    let path = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    let (base, rest) = url.split_at(path);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{base}{}", path_without_values(path))
}

/// The path of a whole URL.
pub fn path_of_url(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    rest.find('/').map_or("/", |at| &rest[at..])
}

/// Host and port of a whole URL, in lower case; without the port if it is the scheme's default.
pub fn authority_of_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    authority.strip_suffix(port).map(str::to_owned).unwrap_or(authority)
}

/// One text for all paths that a server may take for the same: in lower case, decoded, without empty segments, dot
/// segments and what follows a semicolon in a segment.
pub fn any_spelling(path: &str) -> String {
    let decoded = percent_decode_str(path).decode_utf8_lossy().to_lowercase();
    let mut segments = Vec::new();
    for segment in decoded.split(['/', '\\']).map(|segment| segment.split(';').next().unwrap_or_default()) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

/// Whether a server may take a segment of the path for `.` or `..`, so that the path leads elsewhere than it reads:
/// also percent-encoded (once or several times), with a semicolon behind it, or behind a backslash.
pub fn has_dot_segments(path: &str) -> bool {
    let mut path = Cow::Borrowed(path);
    for _ in 0..DECODED_MAX {
        let segments = path.split(['/', '\\']).map(|segment| segment.split(';').next().unwrap_or_default());
        if segments.into_iter().any(|segment| matches!(segment.trim(), "." | "..")) {
            return true;
        }
        let decoded = percent_decode_str(&path).decode_utf8_lossy().into_owned();
        if decoded == *path {
            break;
        }
        path = Cow::Owned(decoded);
    }
    false
}

/// A path in which only the characters are encoded that must be, with capital letters (RFC 3986, 6.2.2).
pub(super) fn normal_encoding(path: &str) -> Cow<'_, str> {
    let mut rest = path;
    let mut normal = String::new();
    while let Some(at) = rest.find('%') {
        let digits = rest.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let Some((digits, byte)) = digits.and_then(|digits| Some((digits, u8::from_str_radix(digits, 16).ok()?)))
        else {
            normal.push_str(&rest[..=at]);
            rest = &rest[at + 1..];
            continue;
        };
        normal.push_str(&rest[..at]);
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            normal.push(char::from(byte));
        } else {
            normal.push('%');
            normal.push_str(&digits.to_ascii_uppercase());
        }
        rest = &rest[at + 3..];
    }
    if rest.len() == path.len() {
        return Cow::Borrowed(path);
    }
    normal.push_str(rest);
    Cow::Owned(normal)
}

fn is_word(segment: &str) -> bool {
    let is_version = |text: &str| text.len() <= 3 && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    segment.strip_prefix('v').is_some_and(is_version)
        || segment.chars().count() <= WORD_CHARS_MAX
            && segment.bytes().all(|b| b.is_ascii_alphabetic() || matches!(b, b'-' | b'_'))
            // A segment with capital letters after the first letter is more often a token than a word.
            && !segment.bytes().skip(1).any(|b| b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equivalent_percent_encodings_have_one_normal_form() {
        for (path, normal) in [
            ("/a~b/c", "/a~b/c"),
            ("/a%7eb%20c", "/a~b%20c"),
            ("/%2fa%2Fb", "/%2Fa%2Fb"),
            ("/100%/%zz/%4", "/100%/%zz/%4"),
            ("/%C3%a4%41", "/%C3%A4A"),
            ("/ä%é%41", "/ä%éA"),
        ] {
            assert_eq!(normal_encoding(path), normal);
        }
    }

    #[test]
    fn dot_segments_are_found_in_each_spelling() {
        for path in [
            "/mail/../b",
            "/mail/./b",
            "/mail/..",
            "/mail/%2e%2E/b",
            "/mail/.%2e/b",
            "/mail%2f..%2Fb",
            "/mail/%252e%252e/b",
            "/mail/..;a=1/b",
            "/mail\\..\\b",
            "/mail/%5c..%5cb",
        ] {
            assert!(has_dot_segments(path), "{path}");
        }
        for path in ["/mail/...", "/mail/a..b", "/.well-known/x", "/v1.2/..a", "/100%", "/a%2eb", "", "/"] {
            assert!(!has_dot_segments(path), "{path}");
        }
    }

    #[test]
    fn values_of_a_path_are_left_out() {
        for (path, template) in [
            ("/", "/"),
            ("/v1/charges", "/v1/charges"),
            ("/orders/17/cancel", "/orders/{}/cancel"),
            ("/mail/ada@example.org", "/mail/{}"),
            ("/t/abcdefghijklmnopqrstuvwxyz", "/t/{}"),
            ("/u/alice", "/u/{}"),
        ] {
            assert_eq!(derived_template(path, |word| word == "alice"), template, "{path}");
        }
        for (url, shown) in [
            ("https://hooks.test/services/T0/B0/XyZsecret?a=1", "https://hooks.test/services/{}/{}/{}"),
            ("http://bank.test/charges", "http://bank.test/charges"),
            ("http://bank.test?q=1", "http://bank.test"),
            ("/v1/17", "/v1/{}"),
        ] {
            assert_eq!(url_without_values(url), shown, "{url}");
        }
        assert!(derived_template(&"/a".repeat(100), |_| false).ends_with("/a/…"));
    }
}
