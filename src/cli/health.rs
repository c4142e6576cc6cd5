//! `health`: whether the process works, for a container's health check. An image without a shell or another program can
//! ask itself with it.

use super::client::{CallError, Client};
use super::format::{Formatter, Tone, escape_control};
use super::output::Output;

/// Asks the process whether it runs, or with `ready` whether it can take runs.
pub(crate) fn health(client: &Client, ready: bool, format: Formatter) -> Result<Output, CallError> {
    let (is_ok, text) = client.probe(if ready { "/readyz" } else { "/healthz" })?;
    let (text, tone) = (text.trim(), if is_ok { Tone::Good } else { Tone::Bad });
    let json = serde_json::json!({ "ok": is_ok, "answer": text });
    Ok(Output { text: format!("{}\n", format.tone(escape_control(text), tone)), json, is_ok })
}
