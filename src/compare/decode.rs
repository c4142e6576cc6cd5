//! Decodes the `Content-Encoding` of a body, within a bound.

use std::io::Read;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use super::bounds::BoundExceeded;

/// A body, with its encodings removed if possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Plain(Bytes),
    /// The body as it came: the encoding that its header names is unknown, or the body is not encoded in this way.
    Opaque(Bytes),
}

/// The most encodings that may be applied one after the other; no real reply has more.
const LAYERS_MAX: usize = 4;

pub(super) fn decode(headers: &HeaderMap, body: &Bytes, bytes_max: usize) -> Result<Decoded, BoundExceeded> {
    if body.len() > bytes_max {
        return Err(BoundExceeded::Size);
    }
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let Ok(value) = value.to_str() else { return Ok(Decoded::Opaque(body.clone())) };
        codings.extend(value.split(',').map(|c| c.trim().to_ascii_lowercase()).filter(|c| !c.is_empty()));
    }
    codings.retain(|c| c != "identity");
    if codings.is_empty() || body.is_empty() {
        return Ok(Decoded::Plain(body.clone()));
    }
    if codings.len() > LAYERS_MAX {
        return Ok(Decoded::Opaque(body.clone()));
    }
    let mut plain = body.clone();
    for coding in codings.iter().rev() {
        let unpacked = match coding.as_str() {
            "gzip" | "x-gzip" => read(flate2::read::MultiGzDecoder::new(&plain[..]), bytes_max)?,
            // `deflate` means the zlib format; some servers send raw deflate data without the zlib header.
            "deflate" => match read(flate2::read::ZlibDecoder::new(&plain[..]), bytes_max)? {
                Some(unpacked) => Some(unpacked),
                None => read(flate2::read::DeflateDecoder::new(&plain[..]), bytes_max)?,
            },
            "br" => read(brotli::Decompressor::new(&plain[..], 4_096), bytes_max)?,
            _ => None,
        };
        match unpacked {
            Some(unpacked) => plain = unpacked,
            None => return Ok(Decoded::Opaque(body.clone())),
        }
    }
    Ok(Decoded::Plain(plain))
}

/// Returns a body without its `Content-Encoding`; `None` if the encoding is unknown, the body is not encoded in this
/// way, or the decoded body exceeds the bound.
pub fn decoded_body(headers: &HeaderMap, body: &Bytes, bytes_max: usize) -> Option<Bytes> {
    match decode(headers, body, bytes_max) {
        Ok(Decoded::Plain(plain)) => Some(plain),
        Ok(Decoded::Opaque(_)) | Err(_) => None,
    }
}

fn read(from: impl Read, bytes_max: usize) -> Result<Option<Bytes>, BoundExceeded> {
    let mut unpacked = Vec::new();
    match from.take(bytes_max as u64 + 1).read_to_end(&mut unpacked) {
        Ok(_) if unpacked.len() > bytes_max => Err(BoundExceeded::Size),
        Ok(_) => Ok(Some(unpacked.into())),
        Err(_) => Ok(None),
    }
}
