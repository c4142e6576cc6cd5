//! The transfer coding of a reply (RFC 9112, section 7).

use http::HeaderMap;
use http::header::TRANSFER_ENCODING;

/// Whether the only transfer coding of a reply, if it has any, is `chunked`. hyper decodes no other coding: the body
/// would be passed on, or read, as if it had none.
pub fn has_known_coding(headers: &HeaderMap) -> bool {
    let values = headers.get_all(TRANSFER_ENCODING).iter();
    let mut codings = values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii))
        .filter(|coding| !coding.is_empty());
    codings.next().is_none_or(|coding| coding.eq_ignore_ascii_case(b"chunked")) && codings.next().is_none()
}
