//! The thread that formats and writes lines.
//!
//! Always true: while lines keep coming, the file is written at most once per [`BATCH_PAUSE`] or per [`BATCH_BYTES`],
//! so that handing a record over seldom has to wake this thread; when a full disk has cut a line short, that part is
//! removed from the file, and where it cannot be removed, or an earlier process left it, a line break is written before
//! the next line.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
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

use super::record::AccessLogRecord;
use super::settings::{LineFormat, LogFile};
use super::{combined, json};

/// How long lines are collected before the next write.
const BATCH_PAUSE: Duration = Duration::from_millis(10);
/// About how many bytes are collected for one write.
const BATCH_BYTES: usize = 64 << 10;
/// How long one wait for room in a full pipe lasts.
const ROOM_WAIT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Lost lines are reported in the process's log at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// A message to the writer's thread.
pub(super) enum WriterMessage {
    /// A line to write.
    Line(Box<AccessLogRecord>),
    /// Makes the writer check whether the file is to be reopened.
    Wake,
    /// Replies when everything sent earlier is written.
    Flush(oneshot::Sender<()>),
}

/// The state of the writer's thread.
pub(super) struct Writer {
    file: LogFile,
    open: File,
    format: LineFormat,
    reopen: Arc<AtomicBool>,
    /// Formatted lines that are not written yet.
    lines: Vec<u8>,
    /// Whether the file ends in the middle of a line.
    is_torn: bool,
    overflowed: Arc<AtomicU64>,
    unwritten: Counter,
    lost: LostLines,
}

/// Counts lines that were lost since the last report.
#[derive(Default)]
struct LostLines {
    in_write: u64,
    last_error: Option<io::Error>,
    /// How many records had overflowed the queue at the last report.
    overflowed_before: u64,
    reported: Option<Instant>,
}

impl Writer {
    /// Opens the file.
    ///
    /// # Errors
    /// The file cannot be opened for appending.
    pub(super) fn open(
        file: LogFile,
        format: LineFormat,
        reopen: Arc<AtomicBool>,
        overflowed: Arc<AtomicU64>,
        unwritten: Counter,
    ) -> io::Result<Self> {
        let open = open(&file)?;
        let (lines, is_torn, lost) = (Vec::new(), ends_within_a_line(&file), LostLines::default());
        Ok(Self { file, open, format, reopen, lines, is_torn, overflowed, unwritten, lost })
    }

    /// Writes lines until the sender is dropped.
    pub(super) fn run(mut self, messages: &Receiver<WriterMessage>) {
        while let Ok(first) = messages.recv() {
            let mut reports = Vec::new();
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    WriterMessage::Line(record) => match self.format {
                        LineFormat::Json => json::write(&record, &mut self.lines),
                        LineFormat::Combined => combined::write(&record, &mut self.lines),
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
                let _ = report.send(()); // the receiver may have stopped waiting
            }
            if is_small && has_lines {
                park_timeout(BATCH_PAUSE);
            }
        }
    }

    /// Opens the file again; returns whether that succeeded.
    fn open_again(&mut self) -> bool {
        match open(&self.file) {
            Ok(file) => {
                // The reopened file may be the same file, still ending in part of a line.
                self.is_torn &= file.metadata().is_ok_and(|file| file.len() > 0 || !file.is_file());
                self.open = file;
                tracing::info!("the access log was opened again");
                true
            }
            Err(error) => {
                tracing::error!(
                    %error, file = ?self.file,
                    "the access log cannot be opened again: the old file stays in use. Correct that, then send SIGUSR1"
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
                    // After SIGUSR1 perhaps nobody reads the old pipe any more, so this write stops waiting for room.
                    if self.reopen.swap(false, Acquire) && self.reopen_during_write(written) {
                        return self.write_lines();
                    }
                }
                Err(error) => return self.lose(written, error),
            }
        }
        (self.is_torn, _) = (false, self.lines.clear());
    }

    /// Opens the file again in the middle of a write. `written` bytes of `lines` are in the old file; the line that is
    /// in the old file only in part is lost. Returns whether the file was opened.
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

    /// Discards the lines that are not written, and counts them as lost.
    fn lose(&mut self, written: usize, error: io::Error) {
        if written > 0 {
            let torn = self.lines[..written].iter().rev().take_while(|byte| **byte != b'\n').count();
            self.is_torn = torn > 0 && !self.remove_from_end(torn as u64);
        }
        let rest = &self.lines[written..];
        let lost = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
        // The line break that ends a torn line is not a lost line.
        let lost = lost - u64::from(written == 0 && rest.first() == Some(&b'\n'));
        self.unwritten.increment(lost);
        self.lost.in_write += lost;
        self.lost.last_error = Some(error);
        self.lines.clear();
    }

    /// Removes the last bytes that this writer has written, if they are the end of a file. Returns whether it did.
    /// Another process on the same file may have appended lines behind them, or rotation may have emptied the file.
    fn remove_from_end(&mut self, bytes: u64) -> bool {
        // The standard output may be open without O_APPEND: the next write would leave a gap.
        if matches!(self.file, LogFile::Stdout) {
            return false;
        }
        let (Ok(position), Ok(file)) = (self.open.stream_position(), self.open.metadata()) else { return false };
        let is_end = file.is_file() && file.len() == position;
        is_end && position.checked_sub(bytes).is_some_and(|length| self.open.set_len(length).is_ok())
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
        let what = "lines of the access log were lost: its file takes them more slowly than they arrive, or cannot be \
                    written (`error`); requests are served all the same. Free disk space, or read the pipe";
        tracing::error!(in_queue, in_write, error, "{what}");
        (*in_write, *overflowed_before, *reported) = (0, overflowed, Some(Instant::now()));
    }
}

/// Waits until a pipe that is full takes bytes, for a bounded time.
fn wait_for_room(pipe: &File) {
    // An error and a timeout need no handling: the next write reports what is wrong, or waits again.
    let _ = poll(&mut [PollFd::new(pipe, PollFlags::OUT)], Some(&ROOM_WAIT));
}

/// Opens the file for appending. Never waits for the reader of a pipe: without a reader the result is an error.
fn open(file: &LogFile) -> io::Result<File> {
    match file {
        LogFile::Stdout => Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
        LogFile::Path(path) => open_path(path),
    }
}

/// Whether an earlier process left part of a line at the end of the file.
fn ends_within_a_line(file: &LogFile) -> bool {
    let LogFile::Path(path) = file else { return false };
    let read_last = || -> io::Result<bool> {
        // The end of a pipe cannot be read without taking a line from its reader.
        if !std::fs::metadata(path)?.is_file() {
            return Ok(false);
        }
        let (mut file, mut last) = (File::open(path)?, [0]);
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        Ok(last != *b"\n")
    };
    read_last().unwrap_or(false) // the file is empty, or may only be written
}

fn open_path(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().append(true).create(true).custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer whose last write ended after these bytes of `lines`.
    fn writer_after(path: &Path, lines: &[u8], written: usize) -> Writer {
        let file = LogFile::Path(path.to_owned());
        let mut writer =
            Writer::open(file, LineFormat::Json, Arc::default(), Arc::default(), Counter::noop()).expect("opened");
        writer.lines = lines.to_vec();
        writer.open.write_all(&lines[..written]).expect("written");
        writer
    }

    #[test]
    fn a_line_that_a_full_disk_cuts_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        for (written, expected) in [(9, "one\n"), (4, "one\n"), (2, "")] {
            let path = dir.path().join(written.to_string());
            let mut writer = writer_after(&path, b"one\ntwo-half\nthree\n", written);
            writer.lose(written, ErrorKind::StorageFull.into());
            assert_eq!(std::fs::read_to_string(&path).expect("text"), expected);
            writer.lines = b"four\n".to_vec();
            writer.write_lines();
            assert_eq!(std::fs::read_to_string(&path).expect("text"), format!("{expected}four\n"));
        }
    }

    #[test]
    fn a_cut_line_with_another_processs_line_behind_it_stays_and_is_ended() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let mut writer = writer_after(&path, b"one\n", 2);
        open_path(&path).expect("opened").write_all(b"other\n").expect("written");
        writer.lose(2, ErrorKind::StorageFull.into());
        writer.lines = b"two\n".to_vec();
        writer.write_lines();
        assert_eq!(std::fs::read_to_string(&path).expect("text"), "onother\n\ntwo\n");
    }

    #[test]
    fn part_of_a_line_from_an_earlier_process_is_ended() {
        let dir = tempfile::tempdir().expect("a directory");
        for (before, after) in [("one\ntw", "one\ntw\n"), ("one\n", "one\n"), ("", "")] {
            let path = dir.path().join("log");
            std::fs::write(&path, before).expect("written");
            let mut writer = writer_after(&path, b"three\n", 0);
            writer.write_lines();
            assert_eq!(std::fs::read_to_string(&path).expect("text"), format!("{after}three\n"));
        }
    }
}
