//! Shows the path of a call without the values that differ from request to request.

use super::call_template::VALUE;

/// A longer word is treated as a value.
const WORD_CHARS_MAX: usize = 24;
/// The most segments that are shown.
const SEGMENTS_MAX: usize = 12;

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

/// Returns a URL as people are shown it: without the query and without the values in the path, which may be secret.
pub fn url_without_values(url: &str) -> String {
    let host = url.find("://").map_or(0, |at| at + 3);
    let path = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    let (base, rest) = url.split_at(path);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{base}{}", derived_template(path, |_| false))
}

/// The path of a whole URL.
pub fn path_of_url(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    rest.find('/').map_or("/", |at| &rest[at..])
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
