//! The tunnel after `101 Switching Protocols`, after the 200 to an extended CONNECT of HTTP/2, or after the 200 to a
//! CONNECT of legacy at the egress listener.
//!
//! Passes bytes both ways until both sides have ended or one has failed, nothing moves for the idle limit, or a drain
//! runs out of time. Always true: the bytes are not interpreted; a tunnel holds no request and is not compared.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio_util::sync::CancellationToken;

use super::cut_reason::CutReason;
use super::monotonic::{instant, now};

/// How a tunnel ended.
#[derive(Debug, Default)]
pub(super) struct TunnelEnd {
    /// Bytes that came from the client.
    pub from_client: u64,
    /// Bytes that came from legacy.
    pub from_legacy: u64,
    /// Why the tunnel was cut; `None` if both sides ended, or one failed.
    pub cut: Option<CutReason>,
}

/// Passes bytes between two upgraded connections.
pub(super) async fn copy_both_ways(
    client: impl Future<Output = Option<impl AsyncRead + AsyncWrite + Unpin>>,
    legacy: impl Future<Output = Option<impl AsyncRead + AsyncWrite + Unpin>>,
    idle: Duration,
    cut: CancellationToken,
) -> TunnelEnd {
    let not_begun = |cut| TunnelEnd { cut: Some(cut), ..TunnelEnd::default() };
    let upgraded = tokio::time::timeout(idle, async { tokio::join!(client, legacy) });
    let (client, legacy) = match upgraded.await {
        Ok((Some(client), Some(legacy))) => (client, legacy),
        Ok(_) => return not_begun(CutReason::ClientGone),
        Err(_) => {
            tracing::debug!("an upgrade was not completed in time");
            return not_begun(CutReason::TunnelIdle);
        }
    };
    let moved = Arc::new(AtomicU64::new(now()));
    let mut client = ActivityIo { io: client, moved: moved.clone(), bytes_read: 0 };
    let mut legacy = ActivityIo { io: legacy, moved: moved.clone(), bytes_read: 0 };
    let cut = tokio::select! {
        ended = copy_bidirectional(&mut client, &mut legacy) => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a tunnel ended with an error");
            }
            None
        }
        () = stalled(&moved, idle) => {
            tracing::debug!("a tunnel was idle for too long");
            Some(CutReason::TunnelIdle)
        }
        () = cut.cancelled() => Some(CutReason::Drain),
    };
    TunnelEnd { from_client: client.bytes_read, from_legacy: legacy.bytes_read, cut }
}

/// Returns when no bytes have moved for the idle limit.
async fn stalled(moved: &AtomicU64, idle: Duration) {
    let idle = u64::try_from(idle.as_micros()).unwrap_or(u64::MAX);
    loop {
        let due = moved.load(Relaxed).saturating_add(idle);
        if due <= now() {
            return;
        }
        tokio::time::sleep_until(instant(due)).await;
    }
}

/// Reads and writes `io`, and records when bytes last moved and how many were read.
struct ActivityIo<T> {
    io: T,
    /// When bytes last moved in either direction of the tunnel, by [`now`].
    moved: Arc<AtomicU64>,
    bytes_read: u64,
}

impl<T: AsyncRead + Unpin> AsyncRead for ActivityIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if polled.is_ready() {
            self.bytes_read += (buf.filled().len() - before) as u64;
            self.moved.store(now(), Relaxed);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ActivityIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        if polled.is_ready() {
            self.moved.store(now(), Relaxed);
        }
        polled
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
