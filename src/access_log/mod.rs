//! The access log: one line per exchange with a client.
//!
//! The question it answers: "what did this client ask, who answered it, how, and why did it fail?" The proxy fills in a
//! [`AccessLogRecord`] during the exchange and hands the record over when the exchange is complete: after the client's
//! socket took the last byte, or when the exchange was cut off.
//!
//! Always true: handing a record over never waits and never writes. A thread of the log's own (`writer`) formats and
//! writes the lines; at most `access_log_lines_max` records wait for this thread, and a record that finds the queue
//! full is dropped and counted. Otherwise every exchange that failed gets a line, and so does the configured share of
//! those that did not.
//! No byte of a request can end a line or a field (`json`, `combined`).
//!
//! When the disk is full, the lines of the failed write are dropped and counted, and later lines are tried again.
//! When the file hangs, the queue fills and lines are dropped; requests go on. If the file cannot be reopened after
//! SIGUSR1, the old file stays in use.

mod combined;
mod json;
mod record;
mod settings;
mod text;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::Release};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use metrics::{Counter, counter};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::limits::Limits;
pub use record::{AccessLogRecord, RequestHead, Text};
pub use settings::{AccessLogSettings, LineFormat, LogFile};
use writer::{Writer, WriterMessage};

/// How long a flush waits before it tries a full queue again.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// The access log of the process.
pub struct AccessLog {
    messages: SyncSender<WriterMessage>,
    sample: f64,
    reopen: Arc<AtomicBool>,
    /// How many records were dropped because the queue was full.
    overflowed: Arc<AtomicU64>,
    dropped: Counter,
}

impl AccessLog {
    /// Opens the file and starts the thread that writes it. The thread ends when the `AccessLog` is dropped.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread cannot be started.
    pub fn start(settings: &AccessLogSettings, limits: &Limits) -> std::io::Result<Arc<Self>> {
        let AccessLogSettings { file, format, sample } = settings.clone();
        let lines_max = usize::try_from(limits.access_log_lines_max).unwrap_or(usize::MAX);
        let (messages, received) = sync_channel(lines_max);
        let [dropped, unwritten] =
            ["queue", "write"].map(|reason| counter!("pointsman_access_log_dropped_total", "reason" => reason));
        let (reopen, overflowed) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        dropped.absolute(0);
        unwritten.absolute(0);
        let writer = Writer::open(file, format, reopen.clone(), overflowed.clone(), unwritten)?;
        std::thread::Builder::new().name("access-log".into()).spawn(move || writer.run(&received))?;
        Ok(Arc::new(Self { messages, sample, reopen, overflowed, dropped }))
    }

    /// Queues the record of an exchange that has ended, unless the sample leaves it out. Never waits.
    pub fn log(&self, record: Box<AccessLogRecord>) {
        if !record.has_failed() && self.sample < 1.0 && fastrand::f64() >= self.sample {
            return;
        }
        if self.messages.try_send(WriterMessage::Line(record)).is_err() {
            self.overflowed.fetch_add(1, Relaxed);
            self.dropped.increment(1);
        }
    }

    /// Makes the writer open the file again by its name before it writes the next line.
    pub fn reopen(&self) {
        self.reopen.store(true, Release);
        // If the queue is full, the writer is busy and checks `reopen` before its next write.
        let _ = self.messages.try_send(WriterMessage::Wake);
    }

    /// Returns when every line that was handed over earlier is written, or after `within`.
    pub async fn flush(&self, within: Duration) {
        let (report, reported) = oneshot::channel();
        let flushed = async {
            let mut message = WriterMessage::Flush(report);
            while let Err(TrySendError::Full(back)) = self.messages.try_send(message) {
                message = back;
                sleep(FULL_PAUSE).await;
            }
            let _ = reported.await; // an error means that the thread has ended
        };
        if timeout(within, flushed).await.is_err() {
            tracing::error!("the last lines of the access log were not written in time");
        }
    }
}

#[cfg(test)]
mod tests;
