//! `strace` on the process under test: makes its system calls fail, or kills it at one.
//!
//! Counts (`when=N`) are per thread, from the moment of attaching.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::until;

/// Traces a process, until [`Strace::end`] or the end of the process.
pub struct Strace(Child);

impl Strace {
    /// Attaches to every thread and injects `fault` (`error=ENOSPC`, `signal=SIGKILL:when=3`) into `calls`
    /// (`fsync,fdatasync`).
    pub async fn inject(pid: u32, calls: &str, fault: &str) -> Self {
        Self::inject_on(pid, calls, fault, &[]).await
    }
    /// Like [`Strace::inject`], only for calls on one of these files, or on any file if none is given.
    pub async fn inject_on(pid: u32, calls: &str, fault: &str, files: &[PathBuf]) -> Self {
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")])
            .args(files.iter().flat_map(|file| [OsStr::new("-P"), file.as_os_str()]))
            .args(["-e", &format!("inject={calls}:{fault}"), "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("strace starts (tests/run installs it)");
        until("strace to hold every thread, or to have ended the process", || async {
            // A call that a thread makes while the others are still being attached may be the one to be killed at.
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            if status.is_empty() || status.contains("State:\tZ") {
                return Some(());
            }
            let mut threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
            threads
                .all(|thread| {
                    let status = thread.map(|t| std::fs::read_to_string(t.path().join("status")).unwrap_or_default());
                    status.is_ok_and(|text| !text.contains("TracerPid:\t0\n"))
                })
                .then_some(())
        })
        .await;
        Self(strace)
    }
    /// Ends strace with SIGTERM, so that it detaches cleanly.
    pub async fn end(mut self) {
        if let Some(pid) = self.0.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw)
        {
            let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        // strace may wait for ever for a process that has just died.
        if tokio::time::timeout(Duration::from_secs(5), self.0.wait()).await.is_err() {
            self.0.kill().await.expect("it could be killed");
        }
    }
}
