//! Whether a client begins HTTP/2 without being asked (prior knowledge), on a connection without TLS.
//!
//! Always true: the bytes that were read are passed to the code that serves the connection, so that HTTP/1.1 costs no
//! further system call; nothing is waited for once the bytes differ from the preface of HTTP/2; all is bounded by
//! `head_read_ms`, as for the head that these bytes belong to.

use bytes::Bytes;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::endpoint::Protocol;
use super::http2::PREFACE;
use super::preamble::{self, Interrupted};
use super::raw_socket;
use super::shared::Shared;
use super::wait::ConnectionWait;

/// Room for the first bytes: most heads fit.
const FIRST_READ_BYTES: usize = 4 << 10;

/// Reads the first bytes; returns them with the protocol. `None` if the client is gone, or not enough bytes came in
/// time. If the process stops or hands over meanwhile, the bytes that have come count as the beginning of an HTTP/1.1
/// head, even if the preface of HTTP/2 begins with them too.
pub(super) async fn read_first(
    shared: &Shared,
    stream: &TcpStream,
    wait: &ConnectionWait,
) -> Option<(Protocol, Bytes)> {
    let (mut bytes, mut count) = (Vec::new(), 0);
    let read = async {
        // No memory is allocated for a client that sends nothing.
        stream.readable().await.ok()?;
        bytes.resize(FIRST_READ_BYTES, 0);
        loop {
            match raw_socket::read(stream, &mut ReadBuf::new(&mut bytes[count..])) {
                Ok(0) if count == 0 => return None,
                // The client stopped sending within a head: HTTP/1.1 handles that.
                Ok(0) => break,
                Ok(read) => count += read,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => stream.readable().await.ok()?,
                Err(_) => return None,
            }
            let compared = count.min(PREFACE.len());
            if compared == PREFACE.len() || bytes[..compared] != PREFACE[..compared] {
                break;
            }
        }
        Some(())
    };
    match preamble::within(shared, wait, shared.limits.head_read_ms, read).await {
        Ok(read) => read?,
        // The beginning of a head: it still gets an answer.
        Err(Interrupted::Stopping) if count > 0 => {}
        Err(_) => return None,
    }
    bytes.truncate(count);
    let protocol = if bytes.starts_with(PREFACE) { Protocol::Http2 } else { Protocol::Http1 };
    Some((protocol, Bytes::from(bytes)))
}
