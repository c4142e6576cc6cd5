//! A machine's clock that a test sets: libfaketime in front of the C library's `clock_gettime`.
//!
//! Only the wall clock is faked. The steady clocks are not: `CLOCK_MONOTONIC` because a setting says so, and
//! `CLOCK_BOOTTIME` because the process reads it from the kernel and not through the C library.

use std::path::{Path, PathBuf};
use std::process::Command;

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

fn library() -> Vec<(&'static str, String)> {
    let shown = Command::new("faketime").args(["-m", "-f", "+0", "env"]).output();
    let shown = shown.expect("faketime is not installed (tests/run does it)").stdout;
    let shown = String::from_utf8_lossy(&shown).into_owned();
    let library = shown.lines().find_map(|line| line.strip_prefix("LD_PRELOAD=")).expect("faketime names its library");
    vec![("LD_PRELOAD", library.to_owned()), ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned())]
}
