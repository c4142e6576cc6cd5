//! Reads the event stream of a run to its end, across broken connections.
//!
//! Always true: after a broken connection the stream continues after the last event that was shown, so that each event
//! is shown once. When the server cannot be reached for `BREAKS_MAX` attempts, that is an error.

use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::common::path;
use crate::cli::client::{CallError, Client, Events};
use crate::cli::format::{Formatter, Tone, duration_text, escape_control};

/// After this many reconnections without an event between them, a server that cannot be reached is an error.
const BREAKS_MAX: u32 = 20;
/// The pause before reconnecting.
const PAUSE: Duration = Duration::from_millis(500);

/// One event.
pub(super) struct StreamEvent {
    pub name: String,
    pub data: Value,
}

/// The event stream of a run.
pub(super) struct RunStream {
    /// The response; `None` when its connection is broken.
    events: Option<Events>,
    run: Option<String>,
    /// The id of the last event.
    last: Option<String>,
    breaks: u32,
    is_ended: bool,
}

impl RunStream {
    pub fn new(events: Option<Events>, run: Option<String>) -> Self {
        Self { is_ended: events.is_none(), events, run, last: None, breaks: 0 }
    }
    /// The run, once an event or the caller has named it.
    pub fn run(&self) -> Option<&str> {
        self.run.as_deref()
    }
    /// The next event; `None` after the last.
    pub fn next(&mut self, client: &Client) -> Result<Option<StreamEvent>, CallError> {
        while !self.is_ended {
            if let Some(events) = &mut self.events {
                match client.next(events) {
                    Ok(Some(event)) => {
                        self.breaks = 0;
                        self.last = event.id.or(self.last.take());
                        if let Some(run) = event.data.get("run_id").and_then(Value::as_str) {
                            self.run = Some(run.to_owned());
                        }
                        self.is_ended = event.name == "end";
                        return Ok(Some(StreamEvent { name: event.name, data: event.data }));
                    }
                    Ok(None) | Err(CallError::Failed(..)) => self.events = None,
                    Err(refused @ CallError::Refused(..)) => return Err(refused),
                }
            }
            self.reconnect(client)?;
        }
        Ok(None)
    }
    /// Reconnects after the last event.
    fn reconnect(&mut self, client: &Client) -> Result<(), CallError> {
        let Some(run) = self.run.clone() else {
            let hint = "the run may have been started: look with `pointsman runs list` before you start it again";
            return Err(CallError::Failed("the stream broke before it began".to_owned(), hint.to_owned()));
        };
        self.breaks += 1;
        std::thread::park_timeout(PAUSE);
        match client.open(Method::GET, &path(&run, "/stream"), None, self.last.as_deref()) {
            Ok(Some(events)) => self.events = Some(events),
            Ok(None) => self.is_ended = true,
            Err(gone @ CallError::Failed(..)) if self.breaks >= BREAKS_MAX => return Err(gone),
            Err(CallError::Failed(..)) => {}
            Err(refused @ CallError::Refused(..)) => return Err(refused),
        }
        Ok(())
    }
}

/// An event in one line.
pub(super) fn progress(event: &StreamEvent, format: Formatter) -> String {
    let data = &event.data;
    let text = |name: &str| data.get(name).and_then(Value::as_str).map(escape_control);
    let place = match (text("step_id"), data.get("item").and_then(Value::as_u64)) {
        (Some(step), Some(item)) => format!(" {step}[{item}]"),
        (Some(step), None) => format!(" {step}"),
        (None, _) => String::new(),
    };
    let place = match text("part").as_deref() {
        Some("undo") => format!(" the undo of{place}"),
        Some("probe") => format!(" the probe of{place}"),
        _ => place,
    };
    let (tone, rest) = match event.name.as_str() {
        "plan" => (Tone::Strong, format!(" {}", text("run_id").unwrap_or_default())),
        "step_started" => {
            let attempt = data.get("attempt").and_then(Value::as_u64).filter(|attempt| *attempt > 1);
            (Tone::Info, attempt.map_or(String::new(), |attempt| format!(" attempt {attempt}")))
        }
        "step_finished" => {
            let outcome = text("outcome").unwrap_or_default();
            let tone =
                if matches!(outcome.as_str(), "done" | "rehearsed" | "completed") { Tone::Good } else { Tone::Plain };
            (tone, format!(" {outcome}"))
        }
        "step_retrying" => (Tone::Warn, text("why").map_or(String::new(), |why| format!(" {why}"))),
        "checkpoint" => {
            let question = data.pointer("/checkpoint/question").and_then(Value::as_str).unwrap_or_default();
            let id = data.pointer("/checkpoint/id").or_else(|| data.get("escalated")).and_then(Value::as_str);
            let (id, run) = (escape_control(id.unwrap_or_default()), text("run_id").unwrap_or_default());
            let answer =
                format!("\n{:<13} answer with: pointsman runs answer {run} {id} --yes | --no | --values JSON", "");
            (Tone::Warn, format!(" {id} {}{answer}", escape_control(question)))
        }
        "conflict" => {
            let message = data.pointer("/conflict/message").and_then(Value::as_str).unwrap_or_default();
            let run = text("run_id").unwrap_or_default();
            let answer = format!("\n{:<13} how to resolve it: pointsman runs show {run}", "");
            (Tone::Bad, format!(" {}{answer}", escape_control(message)))
        }
        "end" => {
            let started = data.pointer("/data/run/started").and_then(Value::as_str);
            let took = started
                .and_then(|at| at.parse::<jiff::Timestamp>().ok())
                .zip(text("at").and_then(|at| at.parse::<jiff::Timestamp>().ok()));
            let took = took.map_or(String::new(), |(from, to)| {
                format!(" after {}", duration_text(to.duration_since(from).as_secs_f64().max(0.0)))
            });
            (Tone::Strong, format!(" {}{took}", text("status").unwrap_or_default()))
        }
        _ => (Tone::Faint, format!(" {}", text("kind").unwrap_or_default())),
    };
    format!("{}{place}{rest}\n", format.tone(format!("{:<13}", escape_control(&event.name)), tone))
}
