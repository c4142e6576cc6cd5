//! Addresses to listen on.

use std::net::SocketAddr;

use crate::problem::{Problems, Site};

/// Whether two listeners cannot both be bound.
pub(super) fn addresses_collide(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

/// Parses an address to listen on.
///
/// # Errors
/// What is wrong with it, and what to do.
pub fn parse_address(text: &str) -> Result<SocketAddr, (String, String)> {
    let example = "write `ADDRESS:PORT`, for example `127.0.0.1:8080` or `[::]:8080`".to_owned();
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    if let Ok(address) = numeric.parse() {
        return Ok(address);
    }
    let hint = match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        Ok(port) => format!("write `127.0.0.1:{port}`, or `0.0.0.0:{port}` for all addresses of this machine"),
        Err(_) => example,
    };
    Err((format!("`{text}` is not an address to listen on"), hint))
}

/// Parses an address in the files, and reports an error.
pub(super) fn address(text: &str, site: &Site, problems: &mut Problems) -> Option<SocketAddr> {
    match parse_address(text) {
        Ok(address) => Some(address),
        Err((message, hint)) => {
            problems.error(site, message).hint(hint);
            None
        }
    }
}
