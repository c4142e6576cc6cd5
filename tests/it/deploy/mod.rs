//! The files under `deploy/`: each checked by its own tool, and run where it can be.

mod compose;
mod debian;
mod image;
mod kubernetes;
mod systemd;

use std::path::{Path, PathBuf};
use std::process::Command;

use pointsman::limits::Limits;

/// A file under `deploy/`.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The program that an environment variable names: `tests/run` installs it and sets the variable.
fn program(variable: &str) -> Command {
    let found = std::env::var(variable);
    Command::new(found.unwrap_or_else(|_| panic!("{variable} names a program that tests/run installs")))
}

/// Runs a program: whether it succeeded, and what it printed on both streams.
fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs it"));
    (
        output.status.success(),
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat(),
    )
}

/// Runs a program that has to succeed; what it printed on stdout.
fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs it"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// How long the program may take from SIGTERM to its end by its default limits, in seconds, as
/// `pointsman help production` says.
fn stop_s_max() -> u64 {
    let limits = Limits::default();
    (limits.stop_delay_ms + limits.shadow_drain_ms + 3 * limits.drain_ms) / 1_000
}
