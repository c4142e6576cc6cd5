//! Conditional requests for answers of the engine (RFC 9110, section 13): `If-Match`, `If-None-Match`,
//! `If-Modified-Since`, `If-Unmodified-Since`.
//!
//! Always true: a condition counts only for GET and HEAD, only where the answer without it is a 2xx, and only if the
//! answer has the validator that the condition concerns (`etag` or `last-modified`). Not used for legacy's replies:
//! legacy evaluates conditions itself.

use std::time::SystemTime;

use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, Method, StatusCode};

/// What the conditions of a request mean for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preconditions {
    /// The answer is sent unchanged.
    Met,
    /// The client has this answer already: 304 is sent instead.
    NotModified,
    /// The answer is not of the version that the client asked for: 412 is sent instead.
    Failed,
}

/// Evaluates the conditions of a request, in the order of RFC 9110, section 13.2.2.
pub(super) fn judge(method: &Method, request: &HeaderMap, status: StatusCode, answer: &HeaderMap) -> Preconditions {
    if !matches!(*method, Method::GET | Method::HEAD) || !status.is_success() {
        return Preconditions::Met;
    }
    let etag = answer.get(ETAG).and_then(|value| EntityTag::parse(value.as_bytes())).map(|(tag, _)| tag);
    let modified = date(answer, &LAST_MODIFIED);
    if request.contains_key(IF_MATCH) {
        if etag.is_some_and(|etag| !any_tag_matches(request, &IF_MATCH, |tag| tag.matches_strongly(&etag))) {
            return Preconditions::Failed;
        }
    } else if let (Some(modified), Some(since)) = (modified, date(request, &IF_UNMODIFIED_SINCE))
        && modified > since
    {
        return Preconditions::Failed;
    }
    if request.contains_key(IF_NONE_MATCH) {
        if etag.is_some_and(|etag| any_tag_matches(request, &IF_NONE_MATCH, |tag| tag.matches_weakly(&etag))) {
            return Preconditions::NotModified;
        }
    } else if let (Some(modified), Some(since)) = (modified, date(request, &IF_MODIFIED_SINCE))
        && modified <= since
    {
        return Preconditions::NotModified;
    }
    Preconditions::Met
}

/// Removes the fields that describe the content, which a 304 does not have.
pub(super) fn strip_content_fields(answer: &mut HeaderMap) {
    for name in [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE] {
        answer.remove(name);
    }
}

/// An entity tag.
#[derive(Clone, Copy, PartialEq, Eq)]
struct EntityTag<'a> {
    is_weak: bool,
    /// The tag with its quotes.
    opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Reads a tag at the beginning of these bytes; also returns the bytes after it.
    fn parse(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (is_weak, quoted) = match bytes.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, bytes),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let length = inner.iter().position(|byte| *byte == b'"')?;
        let (opaque, rest) = quoted.split_at(length + 2);
        Some((Self { is_weak, opaque }, rest))
    }
    /// The strong comparison (RFC 9110, section 8.8.3.2).
    fn matches_strongly(&self, other: &Self) -> bool {
        !self.is_weak && !other.is_weak && self.opaque == other.opaque
    }
    /// The weak comparison (RFC 9110, section 8.8.3.2).
    fn matches_weakly(&self, other: &Self) -> bool {
        self.opaque == other.opaque
    }
}

/// Whether the field is `*`, or one of its tags matches. Stops reading at the first element that is not a tag.
fn any_tag_matches(request: &HeaderMap, field: &HeaderName, fits: impl Fn(&EntityTag<'_>) -> bool) -> bool {
    request.get_all(field).iter().any(|value| {
        let mut rest = value.as_bytes().trim_ascii();
        if rest == b"*" {
            return true;
        }
        loop {
            let separators = rest.iter().take_while(|byte| matches!(byte, b',' | b' ' | b'\t')).count();
            match EntityTag::parse(&rest[separators..]) {
                Some((tag, _)) if fits(&tag) => return true,
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
    })
}

/// Returns the date in a field. A field with several values, or with an invalid date, is ignored.
fn date(headers: &HeaderMap, field: &HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(field).iter();
    let (only, None) = (values.next()?, values.next()) else { return None };
    httpdate::parse_http_date(only.to_str().ok()?.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    /// Returns how the conditions treat an answer with these validators.
    fn judged(request: &[(&'static str, &str)], answer: &[(&'static str, &str)]) -> Preconditions {
        judge(&Method::GET, &map(request), StatusCode::OK, &map(answer))
    }

    #[test]
    fn tags_are_compared_as_rfc_9110_says() {
        use Preconditions::{Failed, Met, NotModified};
        let (strong, weak) = ([("etag", "\"a\"")], [("etag", "W/\"a\"")]);
        for (condition, answer, expected) in [
            (("if-none-match", "\"a\""), &strong, NotModified),
            (("if-none-match", "W/\"a\""), &strong, NotModified),
            (("if-none-match", "\"a\""), &weak, NotModified),
            (("if-none-match", "*"), &strong, NotModified),
            (("if-none-match", "\"b\", W/\"x,\" ,\"a\""), &strong, NotModified),
            (("if-none-match", "\"b\""), &strong, Met),
            (("if-none-match", "a"), &strong, Met),
            (("if-none-match", "\"a"), &strong, Met),
            (("if-match", "\"a\""), &strong, Met),
            (("if-match", "\"b\",\"a\""), &strong, Met),
            (("if-match", "*"), &strong, Met),
            (("if-match", "*"), &weak, Met),
            (("if-match", "W/\"a\""), &strong, Failed),
            (("if-match", "\"a\""), &weak, Failed),
            (("if-match", "\"b\""), &strong, Failed),
            (("if-match", "a"), &strong, Failed),
        ] {
            assert_eq!(judged(&[condition], answer), expected, "{condition:?} of {answer:?}");
        }
    }

    #[test]
    fn dates_count_where_no_tag_is_asked_for() {
        use Preconditions::{Failed, Met, NotModified};
        let answer = [("last-modified", THEN), ("etag", "\"a\"")];
        for (request, expected) in [
            (&[("if-modified-since", THEN)][..], NotModified),
            (&[("if-modified-since", LATER)], NotModified),
            (&[("if-modified-since", BEFORE)], Met),
            (&[("if-modified-since", "yesterday")], Met),
            (&[("if-modified-since", THEN), ("if-none-match", "\"b\"")], Met),
            (&[("if-modified-since", BEFORE), ("if-none-match", "\"a\"")], NotModified),
            (&[("if-unmodified-since", THEN)], Met),
            (&[("if-unmodified-since", BEFORE)], Failed),
            (&[("if-unmodified-since", BEFORE), ("if-match", "\"a\"")], Met),
            (&[("if-match", "\"a\""), ("if-none-match", "\"a\"")], NotModified),
        ] {
            assert_eq!(judged(request, &answer), expected, "{request:?}");
        }
    }

    #[test]
    fn a_condition_without_its_validator_and_an_answer_that_is_no_success_are_left_alone() {
        let all = [("if-match", "\"b\""), ("if-none-match", "*"), ("if-modified-since", LATER)];
        assert_eq!(judged(&all, &[]), Preconditions::Met);
        assert_eq!(judged(&all, &[("etag", "no quotes")]), Preconditions::Met);
        let (request, answer) = (map(&[("if-none-match", "\"a\"")]), map(&[("etag", "\"a\"")]));
        for (method, status, expected) in [
            (Method::HEAD, StatusCode::OK, Preconditions::NotModified),
            (Method::POST, StatusCode::OK, Preconditions::Met),
            (Method::GET, StatusCode::NOT_FOUND, Preconditions::Met),
        ] {
            assert_eq!(judge(&method, &request, status, &answer), expected, "{method} {status}");
        }
    }
}
