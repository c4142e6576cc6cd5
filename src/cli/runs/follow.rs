//! A run's stream, read to its end.
//!
//! Always true: after a break it goes on behind the last event that was shown, so that each is shown once. When the
//! server is gone for longer than a few tries, that is said.

use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::path;
use crate::cli::client::{CallError, Client, Events};
use crate::cli::paint::{Paint, Tone, harmless, lasting};

/// Breaks in a row without an event between them.
const BREAKS_MAX: u32 = 20;
/// After a break.
const PAUSE: Duration = Duration::from_millis(500);

/// One event of the stream.
pub(super) struct Frame {
    pub name: String,
    pub data: Value,
}

/// A stream that is read.
pub(super) struct Follow {
    events: Option<Events>,
    run: Option<String>,
    last: Option<String>,
    breaks: u32,
    ended: bool,
}

impl Follow {
    pub fn new(events: Option<Events>, run: Option<String>) -> Self {
        Self { ended: events.is_none(), events, run, last: None, breaks: 0 }
    }
    /// Which run it is.
    pub fn run(&self) -> Option<&str> {
        self.run.as_deref()
    }
    /// The next event; `None` after the last.
    pub fn next(&mut self, client: &Client) -> Result<Option<Frame>, CallError> {
        while !self.ended {
            if let Some(events) = &mut self.events {
                match client.next(events) {
                    Ok(Some(event)) => {
                        self.breaks = 0;
                        self.last = event.id.or(self.last.take());
                        if let Some(run) = event.data.get("run_id").and_then(Value::as_str) {
                            self.run = Some(run.to_owned());
                        }
                        self.ended = event.name == "end";
                        return Ok(Some(Frame { name: event.name, data: event.data }));
                    }
                    Ok(None) | Err(CallError::Unreachable(..)) => self.events = None,
                    Err(refused @ CallError::Refused(..)) => return Err(refused),
                }
            }
            self.again(client)?;
        }
        Ok(None)
    }
    /// Comes again, behind the last event.
    fn again(&mut self, client: &Client) -> Result<(), CallError> {
        let Some(run) = self.run.clone() else {
            let hint = "look with `pointsman runs list` before starting it again";
            return Err(CallError::Unreachable("the stream broke before it began".to_owned(), hint.to_owned()));
        };
        self.breaks += 1;
        std::thread::park_timeout(PAUSE);
        match client.open(Method::GET, &path(&run, "/stream"), None, self.last.as_deref()) {
            Ok(Some(events)) => self.events = Some(events),
            Ok(None) => self.ended = true,
            Err(gone @ CallError::Unreachable(..)) if self.breaks > BREAKS_MAX => return Err(gone),
            Err(CallError::Unreachable(..)) => {}
            Err(refused @ CallError::Refused(..)) => return Err(refused),
        }
        Ok(())
    }
}

/// An event in a line.
pub(super) fn progress(frame: &Frame, paint: Paint) -> String {
    let data = &frame.data;
    let text = |name: &str| data.get(name).and_then(Value::as_str).map(harmless);
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
    let (tone, rest) = match frame.name.as_str() {
        "plan" => (Tone::Strong, format!(" {}", text("run_id").unwrap_or_default())),
        "step_started" => {
            let attempt = data.get("attempt").and_then(Value::as_u64).filter(|attempt| *attempt > 1);
            (Tone::Low, attempt.map_or(String::new(), |attempt| format!(" attempt {attempt}")))
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
            let (id, run) = (harmless(id.unwrap_or_default()), text("run_id").unwrap_or_default());
            let answer =
                format!("\n{:<13} answer with: pointsman runs answer {run} {id} --yes | --no | --values JSON", "");
            (Tone::Warn, format!(" {id} {}{answer}", harmless(question)))
        }
        "conflict" => {
            let message = data.pointer("/conflict/message").and_then(Value::as_str).unwrap_or_default();
            let run = text("run_id").unwrap_or_default();
            let answer = format!("\n{:<13} how to resolve it: pointsman runs show {run}", "");
            (Tone::Bad, format!(" {}{answer}", harmless(message)))
        }
        "end" => {
            let started = data.pointer("/data/run/started").and_then(Value::as_str);
            let took = started
                .and_then(|at| at.parse::<jiff::Timestamp>().ok())
                .zip(text("at").and_then(|at| at.parse::<jiff::Timestamp>().ok()));
            let took = took.map_or(String::new(), |(from, to)| {
                format!(" after {}", lasting(to.duration_since(from).as_secs_f64().max(0.0)))
            });
            (Tone::Strong, format!(" {}{took}", text("status").unwrap_or_default()))
        }
        _ => (Tone::Faint, format!(" {}", text("kind").unwrap_or_default())),
    };
    format!("{}{place}{rest}\n", paint.tone(format!("{:<13}", harmless(&frame.name)), tone))
}
