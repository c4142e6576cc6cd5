//! `runs …` and `explain`: runs started, looked at, spoken to.

mod events;
mod follow;
mod list;
mod say;
mod show;
mod start;

pub(crate) use events::events;
pub(crate) use list::list;
#[cfg(test)]
pub(crate) use list::table;
pub(crate) use say::{Said, say};
#[cfg(test)]
pub(crate) use show::text;
pub(crate) use show::{explain, show};
pub(crate) use start::{follow, start};

use std::io::Read;

use jiff::Timestamp;
use serde_json::Value;

use super::args::Server;
use super::client::{CallError, component};
use super::paint::{Tone, lasting};
use crate::admin::types::RunStatus;

/// The largest input that is read.
const INPUT_BYTES_MAX: u64 = 64 << 20;

#[cfg(test)]
pub(crate) fn progress(name: &str, data: Value, paint: super::paint::Paint) -> String {
    follow::progress(&follow::Frame { name: name.to_owned(), data }, paint)
}

/// The path of a run, and what comes behind it.
fn path(run: &str, rest: &str) -> String {
    format!("/api/v2/orchestrate/run/{}{rest}", component(run))
}

/// The name that is recorded where the API needs no token.
fn who(server: &Server) -> Option<String> {
    server.by.clone().or_else(|| std::env::var("USER").ok()).filter(|name| !name.trim().is_empty())
}

/// A value that was typed: JSON, or a file with it, or `-` for what comes in.
fn value(text: &str) -> Result<Value, CallError> {
    let wrong = |message: String| {
        CallError::Unreachable(message, "give JSON, a file with it, or - for standard input".to_owned())
    };
    let looks_like_json = text.starts_with(['{', '[', '"']) || serde_json::from_str::<Value>(text).is_ok();
    if looks_like_json {
        return serde_json::from_str(text).map_err(|error| wrong(format!("`{text}` is no JSON: {error}")));
    }
    let mut content = Vec::new();
    let read = match text {
        "-" => std::io::stdin().take(INPUT_BYTES_MAX).read_to_end(&mut content),
        path => std::fs::File::open(path).and_then(|file| file.take(INPUT_BYTES_MAX).read_to_end(&mut content)),
    };
    read.map_err(|error| wrong(format!("`{text}` cannot be read: {error}")))?;
    serde_json::from_slice(&content).map_err(|error| wrong(format!("`{text}` holds no JSON: {error}")))
}

/// How long a run, or a step of it, has been going on: one that has not ended goes on until now.
fn took(started: Timestamp, updated: Timestamp, status: RunStatus, now: Timestamp) -> String {
    let until = if status.is_final() { updated } else { now.max(updated) };
    lasting(until.duration_since(started).as_secs_f64().max(0.0))
}

fn tone(status: RunStatus) -> Tone {
    match status {
        RunStatus::Completed => Tone::Good,
        RunStatus::Failed => Tone::Bad,
        RunStatus::Paused | RunStatus::Compensating | RunStatus::WaitingCheckpoint | RunStatus::WaitingSignal => {
            Tone::Warn
        }
        RunStatus::Cancelled | RunStatus::Abandoned => Tone::Faint,
        RunStatus::Queued | RunStatus::Running => Tone::Low,
    }
}
