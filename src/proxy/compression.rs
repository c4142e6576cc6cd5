//! Compression of answers of the engine (gzip), on routes whose legacy compresses its replies (`compress: gzip`).
//!
//! Always true:
//! - Legacy's own replies are never compressed here.
//! - An answer of the engine is compressed only if its client accepts gzip, its content is text of at least
//!   [`COMPRESSED_BYTES_MIN`] bytes, and neither side forbids it (`no-transform`).
//! - An answer that would be compressed for another client says so (`vary`).
//! - The body is compressed piece by piece, as the client takes it, so that other connections of the thread do not wait
//!   for the whole body.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode, Version};

use super::hygiene::tokens;
use crate::limits::COMPRESSED_BYTES_MIN;

/// The number of bytes of an answer that are compressed at once.
const PIECE_BYTES: usize = 32 << 10;
/// The fastest level: it takes a third of the default level's time, and yields a tenth more bytes.
const LEVEL: u32 = 1;

/// The facts of a request on which it depends whether its answer is compressed.
pub(super) struct CompressionRequest<'a> {
    pub version: Version,
    pub headers: &'a HeaderMap,
}

/// Decides whether an answer is compressed, on a route with `compress: gzip`, and sets the answer's fields accordingly.
/// Returns whether the caller has to compress the body.
pub(super) fn negotiate(
    request: &CompressionRequest<'_>,
    status: StatusCode,
    answer: &mut HeaderMap,
    length: usize,
) -> bool {
    let is_candidate = length >= COMPRESSED_BYTES_MIN
        && status.is_success()
        && status != StatusCode::PARTIAL_CONTENT
        && !answer.contains_key(CONTENT_ENCODING)
        && !answer.contains_key(CONTENT_RANGE)
        && answer.get(CONTENT_TYPE).is_some_and(is_text)
        && !forbids_transforming(answer)
        && !forbids_transforming(request.headers);
    if !is_candidate {
        return false;
    }
    if !answer.get_all(VARY).iter().flat_map(tokens).any(|name| name == b"*" || is_token(name, "accept-encoding")) {
        answer.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
    // For an HTTP/1.0 client only the end of the connection can end a body of unknown length.
    if request.version == Version::HTTP_10 || !accepts_gzip(request.headers) {
        return false;
    }
    answer.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    answer.remove(CONTENT_LENGTH);
    // A strong entity tag stands for the uncompressed bytes.
    if let Some(tag) = answer.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""))
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        answer.insert(ETAG, weak);
    }
    true
}

fn is_token(name: &[u8], known: &str) -> bool {
    name.eq_ignore_ascii_case(known.as_bytes())
}

fn forbids_transforming(headers: &HeaderMap) -> bool {
    headers.get_all(CACHE_CONTROL).iter().flat_map(tokens).any(|directive| is_token(directive, "no-transform"))
}

/// Whether content of this type is worth compressing. Event streams are not: events are sent one by one.
fn is_text(content_type: &HeaderValue) -> bool {
    let name = content_type.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let name = name.trim_ascii().to_ascii_lowercase();
    let is_text = name.starts_with(b"text/") && name != b"text/event-stream";
    let others: [&[u8]; 4] =
        [b"application/json", b"application/xml", b"application/javascript", b"application/x-ndjson"];
    is_text || others.contains(&&name[..]) || name.ends_with(b"+json") || name.ends_with(b"+xml")
}

/// Whether the client accepts gzip. A request without `Accept-Encoding` does not.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut named, mut any) = (None, None);
    for coding in headers.get_all(ACCEPT_ENCODING).iter().flat_map(tokens) {
        let mut parts = coding.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix(b"q=").or(part.strip_prefix(b"Q=")));
        let is_accepted = weight.is_none_or(|weight| weight.iter().any(|byte| (b'1'..=b'9').contains(byte)));
        if is_token(name, "gzip") || is_token(name, "x-gzip") {
            named = named.or(Some(is_accepted));
        } else if name == b"*" {
            any = Some(is_accepted);
        }
    }
    named.or(any).unwrap_or(false)
}

/// A body that is compressed while it is sent.
pub(super) struct CompressedBody {
    /// What has not been compressed yet.
    rest: Bytes,
    /// `None` once everything is compressed.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl CompressedBody {
    pub(super) fn new(body: Bytes) -> Self {
        Self { rest: body, encoder: Some(GzEncoder::new(Vec::new(), Compression::new(LEVEL))) }
    }

    /// Returns the next compressed bytes; `None` at the end.
    ///
    /// # Errors
    /// The compressor failed; no input makes it fail.
    pub(super) fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        while let Some(encoder) = &mut self.encoder {
            if self.rest.is_empty() {
                return Ok(self.encoder.take().map(GzEncoder::finish).transpose()?.map(Bytes::from));
            }
            let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
            encoder.write_all(&piece)?;
            if !encoder.get_ref().is_empty() {
                return Ok(Some(std::mem::take(encoder.get_mut()).into()));
            }
        }
        Ok(None)
    }

    /// Whether everything has been taken.
    pub(super) fn is_at_end(&self) -> bool {
        self.encoder.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use http::HeaderName;

    use super::*;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn negotiated(request: &[(&'static str, &str)], answer: &[(&'static str, &str)]) -> (bool, HeaderMap) {
        let (request, mut answer) = (map(request), map(answer));
        let of_request = CompressionRequest { version: Version::HTTP_11, headers: &request };
        (negotiate(&of_request, StatusCode::OK, &mut answer, 1_000), answer)
    }

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

    #[test]
    fn gzip_is_used_where_the_client_accepts_it() {
        for (accepted, expected) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("x-gzip", true),
            ("*", true),
            ("br;q=1, *;q=0.1", true),
            ("gzip;q=0, *", false),
            ("gzip; q=0.000", false),
            ("*;q=0", false),
            ("br", false),
            ("identity", false),
        ] {
            let (compressed, answer) = negotiated(&[("accept-encoding", accepted)], &[JSON, ("etag", "\"a\"")]);
            assert_eq!(compressed, expected, "{accepted}");
            assert_eq!(answer[VARY], "accept-encoding", "for caches, in both cases");
            assert_eq!(answer[ETAG], if expected { "W/\"a\"" } else { "\"a\"" });
            assert_eq!(answer.contains_key(CONTENT_ENCODING), expected);
        }
        assert!(!negotiated(&[], &[JSON]).0, "a client that says nothing has not accepted it");
    }

    #[test]
    fn some_answers_are_never_compressed() {
        let gzip = ("accept-encoding", "gzip");
        for (request, answer) in [
            (&[gzip][..], &[("content-type", "image/png")][..]),
            (&[gzip], &[]),
            (&[gzip], &[("content-type", "text/event-stream")]),
            (&[gzip], &[JSON, ("cache-control", "max-age=5, No-Transform")]),
            (&[gzip, ("cache-control", "no-transform")], &[JSON]),
            (&[gzip], &[JSON, ("content-encoding", "br")]),
            (&[gzip], &[JSON, ("content-range", "bytes 0-1/2")]),
        ] {
            let (compressed, fields) = negotiated(request, answer);
            assert!(!compressed && fields == map(answer), "{request:?} {answer:?}");
        }
        let (request, mut answer) = (map(&[gzip]), map(&[JSON]));
        let of_version = |version| CompressionRequest { version, headers: &request };
        assert!(!negotiate(&of_version(Version::HTTP_11), StatusCode::OK, &mut answer, 100), "too small");
        assert!(!negotiate(&of_version(Version::HTTP_11), StatusCode::NOT_FOUND, &mut answer, 1_000), "no success");
        assert!(!negotiate(&of_version(Version::HTTP_10), StatusCode::OK, &mut answer, 1_000), "HTTP/1.0");
    }

    #[test]
    fn fields_that_are_already_set_are_kept() {
        let (_, answer) = negotiated(&[("accept-encoding", "gzip")], &[JSON, ("vary", "cookie"), ("etag", "W/\"a\"")]);
        assert_eq!(answer.get_all(VARY).iter().collect::<Vec<_>>(), ["cookie", "accept-encoding"]);
        assert_eq!(answer[ETAG], "W/\"a\"");
        let (_, answer) = negotiated(&[("accept-encoding", "gzip")], &[JSON, ("vary", "Accept-Encoding, cookie")]);
        assert_eq!(answer.get_all(VARY).iter().count(), 1);
    }

    #[test]
    fn the_pieces_are_one_stream_of_gzip() {
        for length in [1, PIECE_BYTES, 300_000] {
            let plain: Vec<u8> = (0..length).map(|at| b"abcdefgh"[at * at % 8]).collect();
            let (mut body, mut sent) = (CompressedBody::new(plain.clone().into()), Vec::new());
            while let Some(piece) = body.next().unwrap() {
                assert!(!piece.is_empty());
                sent.extend_from_slice(&piece);
            }
            assert!(body.is_at_end() && body.next().unwrap().is_none());
            let mut decoded = Vec::new();
            flate2::read::GzDecoder::new(&sent[..]).read_to_end(&mut decoded).unwrap();
            assert!(decoded == plain, "{length} bytes");
        }
    }
}
