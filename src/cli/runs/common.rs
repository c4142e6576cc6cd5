//! What several `runs` commands need: paths, JSON arguments, the colour of a status, the text of a duration.

use std::io::Read;

use jiff::Timestamp;
use serde_json::Value;

use crate::admin::types::RunStatus;
use crate::cli::client::{CallError, component};
use crate::cli::format::{Tone, duration_text};
use crate::expression::parse_json;

/// The largest input that is read.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// The path of a run in the API, with a suffix.
pub(super) fn path(run: &str, rest: &str) -> String {
    format!("/api/v2/orchestrate/run/{}{rest}", component(run))
}

/// A JSON argument: given as JSON, as a file, or as `-` for standard input.
pub(super) fn json_argument(text: &str) -> Result<Value, CallError> {
    let wrong =
        |message: String| CallError::Failed(message, "give JSON, a file with it, or - for standard input".to_owned());
    let looks_like_json = text.starts_with(['{', '[', '"']) || parse_json(text.as_bytes()).is_ok();
    if looks_like_json {
        return parse_json(text.as_bytes()).map_err(|error| wrong(format!("`{text}` is not JSON: {error}")));
    }
    let mut content = Vec::new();
    let read = match text {
        "-" => std::io::stdin().take(INPUT_BYTES_MAX).read_to_end(&mut content),
        path => std::fs::File::open(path).and_then(|file| file.take(INPUT_BYTES_MAX).read_to_end(&mut content)),
    };
    read.map_err(|error| wrong(format!("`{text}` cannot be read: {error}")))?;
    parse_json(&content).map_err(|error| wrong(format!("`{text}` does not contain JSON: {error}")))
}

/// How long a run or a step took; up to now where it has not ended.
pub(super) fn elapsed(started: Timestamp, updated: Timestamp, status: RunStatus, now: Timestamp) -> String {
    let until = if status.is_final() { updated } else { now.max(updated) };
    duration_text(until.duration_since(started).as_secs_f64().max(0.0))
}

pub(super) fn status_tone(status: RunStatus) -> Tone {
    match status {
        RunStatus::Completed => Tone::Good,
        RunStatus::Failed => Tone::Bad,
        RunStatus::Paused | RunStatus::Compensating | RunStatus::WaitingCheckpoint | RunStatus::WaitingSignal => {
            Tone::Warn
        }
        RunStatus::Cancelled | RunStatus::Abandoned => Tone::Faint,
        RunStatus::Queued | RunStatus::Running => Tone::Info,
    }
}
