//! A machine's clock that a test sets: libfaketime in front of the C library's `clock_gettime`.
//!
//! Only the wall clock is faked. The steady clocks are not: `CLOCK_MONOTONIC` because a setting says so, and
//! `CLOCK_BOOTTIME` because the process reads it from the kernel and not through the C library.

use std::path::{Path, PathBuf};

/// Environment for a process whose machine's clock is off by a fixed time (`+2h`).
pub fn offset(by: &str) -> Vec<(&'static str, String)> {
    let mut env = library();
    env.push(("FAKETIME", by.to_owned()));
    env
}

/// A machine's clock that may be set while a process runs.
pub struct FakeClock(PathBuf);

impl FakeClock {
    /// Correct at first. The offset is kept in a file of this directory.
    pub fn in_dir(dir: &Path) -> Self {
        let clock = Self(dir.join("clock-offset"));
        clock.set("+0");
        clock
    }
    /// Sets the offset from the correct time; a process sees it within about a second.
    pub fn set(&self, by: &str) {
        // Renamed, so that a partial file is never read.
        let next = self.0.with_extension("next");
        std::fs::write(&next, format!("{by}\n")).expect("written");
        std::fs::rename(&next, &self.0).expect("moved");
    }
    /// Environment for the process.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let mut env = library();
        env.push(("FAKETIME_TIMESTAMP_FILE", self.0.display().to_string()));
        env.push(("FAKETIME_CACHE_DURATION", "1".to_owned()));
        env
    }
}

/// The library itself, not the `faketime` command: the command fails (`sem_open: File exists`) where an earlier one with
/// the same process id was killed, as it creates a semaphore that is named after the id.
fn library() -> Vec<(&'static str, String)> {
    let directories = std::fs::read_dir("/usr/lib").expect("Debian's libraries");
    let mut files = directories.filter_map(|directory| {
        let file = directory.ok()?.path().join("faketime/libfaketimeMT.so.1");
        file.exists().then_some(file)
    });
    let library = files.next().expect("libfaketime is not installed (tests/run does it)");
    vec![("LD_PRELOAD", library.display().to_string()), ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned())]
}
