//! Commands whose stdout cannot be written.

use std::process::{Output, Stdio};

use tokio::process::Command;

use crate::support::process::{BINARY, output_text};
use crate::support::test_system::TestSystem;
use crate::support::{FlagsDir, WAIT_MAX};

async fn run(arguments: &[&str], stdout: impl Into<Stdio>) -> Output {
    let command = Command::new(BINARY)
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts");
    tokio::time::timeout(WAIT_MAX, command.wait_with_output()).await.expect("the command ends").expect("its output")
}

/// A file on which every write fails because the disk is full.
fn full() -> std::fs::File {
    std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full")
}

/// A pipe that nobody reads any more.
fn closed_pipe() -> std::io::PipeWriter {
    std::io::pipe().expect("a pipe").1
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_cannot_be_written_is_a_failure() {
    let flags = FlagsDir::passthrough("http://127.0.0.1:9");
    let dir = flags.path().to_str().expect("a path");
    for command in [
        vec!["help"],
        vec!["help", "ladder"],
        vec!["help", "--json"],
        vec!["--help"],
        vec!["check", "--help"],
        vec!["--version"],
        vec!["schema"],
        vec!["check", dir],
        vec!["check", dir, "--json"],
        // Has failed already, and prints its error to stdout too.
        vec!["status", "--json", "--admin", "http://127.0.0.1:9"],
    ] {
        let output = run(&command, full()).await;
        let text = output_text(&output);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {text}");
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: the output could not be written to stdout: "), "{command:?}: {text}");
        let lines = if command[0] == "status" { 3 } else { 1 };
        assert_eq!(text.lines().count(), lines, "{command:?}: {text}");
    }
    let unknown = run(&["help", "nothing-of-this-name"], full()).await;
    assert_eq!(unknown.status.code(), Some(2), "{}", output_text(&unknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_nobody_reads_any_more_is_no_failure() {
    for command in [vec!["help"], vec!["--help"], vec!["schema"]] {
        let output = run(&command, closed_pipe()).await;
        assert_eq!((output.status.code(), output_text(&output).as_str()), (Some(0), ""), "{command:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_output_of_a_running_process_that_cannot_be_written_is_a_failure() {
    let system = TestSystem::start().await;
    let admin = system.pointsman.admin_url();
    for command in [vec!["status"], vec!["status", "--watch"], vec!["runs", "list"], vec!["flips"], vec!["services"]] {
        let command = [&command[..], &["--admin", &admin]].concat();
        let output = run(&command, full()).await;
        assert_eq!(output.status.code(), Some(1), "{command:?}: {}", output_text(&output));
    }
    let watched = run(&["status", "--watch", "--admin", &admin], closed_pipe()).await;
    assert_eq!(watched.status.code(), Some(0), "{}", output_text(&watched));
    system.finish().await;
}
