//! The thread that formats and writes lines.
//!
//! Always true: while lines come, the file is written at most once in [`BATCH_PAUSE`] or [`BATCH_BYTES`], so that who
//! hands a record over seldom has to wake this thread; a line that was written in part, because the disk was full, is
//! ended before the next one.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use metrics::Counter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;

use super::record::Record;
use super::settings::{LineFormat, LogFile};
use super::{common, json};

/// How long lines are collected.
const BATCH_PAUSE: Duration = Duration::from_millis(10);
/// How many bytes are collected, about.
const BATCH_BYTES: usize = 64 << 10;
/// How long to wait for room in a pipe before it is tried again.
const ROOM_WAIT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Lost lines are reported in the process's log at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// What the thread is given.
pub(super) enum WriterMessage {
    /// A line to write.
    Line(Box<Record>),
    /// Look whether the file is to be opened again.
    Wake,
    /// Replies when everything before it is written.
    Flush(oneshot::Sender<()>),
}

/// Writes lines.
pub(super) struct Writer {
    file: LogFile,
    open: File,
    format: LineFormat,
    reopen: Arc<AtomicBool>,
    /// The formatted lines that are not written.
    lines: Vec<u8>,
    /// Whether the file ends with a part of a line.
    is_torn: bool,
    overflowed: Arc<AtomicU64>,
    unwritten: Counter,
    lost: LostLines,
}

/// Lines that were lost since the last report.
#[derive(Default)]
struct LostLines {
    in_write: u64,
    last_error: Option<io::Error>,
    /// How many had found no room at the last report.
    overflowed_before: u64,
    reported: Option<Instant>,
}

impl Writer {
    /// Opens the file.
    ///
    /// # Errors
    /// It cannot be opened for appending.
    pub(super) fn open(
        file: LogFile,
        format: LineFormat,
        reopen: Arc<AtomicBool>,
        overflowed: Arc<AtomicU64>,
        unwritten: Counter,
    ) -> io::Result<Self> {
        let open = open(&file)?;
        let (lines, is_torn, lost) = (Vec::new(), false, LostLines::default());
        Ok(Self { file, open, format, reopen, lines, is_torn, overflowed, unwritten, lost })
    }

    /// Works until the sender is dropped.
    pub(super) fn run(mut self, messages: &Receiver<WriterMessage>) {
        while let Ok(first) = messages.recv() {
            let mut reports = Vec::new();
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    WriterMessage::Line(record) => match self.format {
                        LineFormat::Json => json::write(&record, &mut self.lines),
                        LineFormat::Common => common::write(&record, &mut self.lines),
                    },
                    WriterMessage::Wake => {}
                    WriterMessage::Flush(report) => reports.push(report),
                }
                next = if self.lines.len() < BATCH_BYTES { messages.try_recv().ok() } else { None };
            }
            if self.reopen.swap(false, Acquire) {
                self.open_again();
            }
            let is_small = self.lines.len() < BATCH_BYTES;
            let has_lines = !self.lines.is_empty();
            self.write_lines();
            self.report_lost();
            for report in reports {
                let _ = report.send(()); // whoever asked may have stopped waiting
            }
            if is_small && has_lines {
                park_timeout(BATCH_PAUSE);
            }
        }
    }

    /// Returns whether the file was opened.
    fn open_again(&mut self) -> bool {
        match open(&self.file) {
            Ok(file) => {
                // It may be the same file.
                self.is_torn &= file.metadata().is_ok_and(|file| file.len() > 0 || !file.is_file());
                self.open = file;
                tracing::info!("the access log was opened again");
                true
            }
            Err(error) => {
                tracing::error!(
                    %error, file = ?self.file,
                    "the access log cannot be opened again: the old file stays in use. Send SIGUSR1 once it can be"
                );
                false
            }
        }
    }

    fn write_lines(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        if self.is_torn {
            self.lines.insert(0, b'\n');
        }
        let mut written = 0;
        while written < self.lines.len() {
            match self.open.write(&self.lines[written..]) {
                Ok(0) => return self.lose(written, ErrorKind::WriteZero.into()),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait_for_room(&self.open);
                    // After SIGUSR1 nobody may read the old pipe any more, so this write does not wait for it.
                    if self.reopen.swap(false, Acquire) && self.reopen_during_write(written) {
                        return self.write_lines();
                    }
                }
                Err(error) => return self.lose(written, error),
            }
        }
        (self.is_torn, _) = (false, self.lines.clear());
    }

    /// Opens the file again while so many bytes of the lines are written. The line that the old file has in part is
    /// lost. Returns whether the file was opened.
    fn reopen_during_write(&mut self, written: usize) -> bool {
        self.is_torn = written > 0 && self.lines[written - 1] != b'\n';
        let is_cut = self.is_torn;
        if !self.open_again() {
            self.is_torn = false;
            return false;
        }
        let rest = &self.lines[written..];
        let skipped =
            if is_cut { rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1) } else { 0 };
        self.lines.drain(..written + skipped);
        if is_cut {
            self.unwritten.increment(1);
            self.lost.in_write += 1;
        }
        true
    }

    /// The lines from here on cannot be written.
    fn lose(&mut self, written: usize, error: io::Error) {
        if written > 0 {
            self.is_torn = self.lines[written - 1] != b'\n';
        }
        let rest = &self.lines[written..];
        let lost = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
        // The line break that was put before the first line is no line.
        let lost = lost - u64::from(written == 0 && rest.first() == Some(&b'\n'));
        self.unwritten.increment(lost);
        self.lost.in_write += lost;
        self.lost.last_error = Some(error);
        self.lines.clear();
    }

    fn report_lost(&mut self) {
        let overflowed = self.overflowed.load(Relaxed);
        let LostLines { in_write, last_error, overflowed_before, reported } = &mut self.lost;
        let in_queue = overflowed - *overflowed_before;
        let is_due = reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY);
        if (in_queue, *in_write) == (0, 0) || !is_due {
            return;
        }
        let error = last_error.take().map(|error| error.to_string());
        let what = "lines of the access log were lost: it takes them more slowly than they come, or cannot be written \
                    (`error`); requests are served all the same. Free its disk, or read its pipe";
        tracing::error!(in_queue, in_write, error, "{what}");
        (*in_write, *overflowed_before, *reported) = (0, overflowed, Some(Instant::now()));
    }
}

/// Waits until a pipe that is full takes bytes, for a bounded time.
fn wait_for_room(pipe: &File) {
    // An error or the end of the time: the next write shows what is wrong, or waits again.
    let _ = poll(&mut [PollFd::new(pipe, PollFlags::OUT)], Some(&ROOM_WAIT));
}

/// Opens the file for appending. Never waits for the reader of a pipe: then this is an error.
fn open(file: &LogFile) -> io::Result<File> {
    match file {
        LogFile::Stdout => Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
        LogFile::Path(path) => open_path(path),
    }
}

fn open_path(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().append(true).create(true).custom_flags(flags).open(path)
}
