//! A client's connection as the h2 crate reads and writes it.
//!
//! Always true:
//! - All bytes pass unchanged, except those of empty DATA frames ([`EmptyDataFilter`]), up to a frame that ends the
//!   connection.
//! - `traffic` sees each byte once, and a written byte only when the transport has taken it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::traffic::{PREFACE, Traffic};
use crate::proxy::socket::{Closing, Transport, take_read_before};
use crate::proxy::wait::ConnectionWait;
use crate::transport::EmptyDataFilter;

/// The client's side of one connection.
pub(super) struct Http2Io {
    transport: Arc<Transport>,
    wait: Arc<ConnectionWait>,
    traffic: Arc<Traffic>,
    /// Bytes that were already read to find out which protocol the client speaks.
    read_before: Bytes,
    closing: Closing,
    empty_data: EmptyDataFilter,
}

impl Http2Io {
    pub(super) fn new(
        transport: Arc<Transport>,
        wait: Arc<ConnectionWait>,
        traffic: Arc<Traffic>,
        read_before: Bytes,
    ) -> Self {
        let empty_data = EmptyDataFilter::new(PREFACE.len());
        Self { transport, wait, traffic, read_before, closing: Closing::default(), empty_data }
    }

    /// Reports the result of a write to `traffic`.
    fn report_write(&self, bufs: &[IoSlice<'_>], polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &polled {
            Poll::Ready(Ok(count)) => self.traffic.on_sent(bufs, *count),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.traffic.on_write_blocked(),
        }
        polled
    }
}

impl AsyncRead for Http2Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { transport, wait, traffic, read_before, empty_data, .. } = &mut *self;
        empty_data.poll_read(buf, |buf| {
            let read = match read_before.is_empty() {
                true => ready!(transport.poll_read(wait, cx, buf))?,
                false => take_read_before(read_before, buf),
            };
            match read {
                0 => wait.on_fin(),
                count => {
                    let before = buf.filled().len() - count;
                    let accepted = traffic.on_received(&buf.filled()[before..]);
                    buf.set_filled(before + accepted);
                    if accepted == 0 {
                        // No waker is needed: `connection`, which is polling this, ends the connection next.
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Http2Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.report_write(&[IoSlice::new(buf)], self.transport.poll_write(&self.wait, cx, buf))
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.report_write(bufs, self.transport.poll_write_vectored(&self.wait, cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.transport.poll_flush(&self.wait, cx) {
            Poll::Ready(Ok(())) => self.traffic.on_flushed(),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                self.traffic.on_write_blocked();
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.closing.poll(&this.transport, &this.wait, cx)
    }
}
