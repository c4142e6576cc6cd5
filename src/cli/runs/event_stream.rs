//! Reads the event stream of a run to its end, across broken connections.
//!
//! Always true: after a broken connection the stream continues after the last event that was shown, so that each event
//! is shown once. When `BREAKS_MAX` attempts in a row bring no event, that is an error, whether the server cannot be
//! reached or accepts each connection and breaks it.

use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::common::path;
use crate::cli::client::{CallError, Client, Events};
use crate::cli::format::{Formatter, Tone, duration_text, escape_control};

/// After this many reconnections without an event between them, the next break is an error.
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
    /// The reconnections since the last event.
    breaks: u32,
    /// How long to wait before reconnecting.
    pause: Duration,
    is_ended: bool,
}

impl RunStream {
    pub fn new(events: Option<Events>, run: Option<String>) -> Self {
        Self { is_ended: events.is_none(), events, run, last: None, breaks: 0, pause: PAUSE }
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
        if self.breaks >= BREAKS_MAX {
            return Err(CallError::Failed(
                format!("the event stream of run {run} broke {BREAKS_MAX} times without an event in between"),
                format!(
                    "the run itself is not affected: see it with `pointsman runs show {run}`; if a proxy or load balancer \
                     stands in front of the API, let it pass event streams without a time limit, then go on with \
                     `pointsman runs follow {run}`"
                ),
            ));
        }
        self.breaks += 1;
        std::thread::park_timeout(self.pause);
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::cli::args::Server;

    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

    /// A server that answers each request with a head and `body(n)`, for the nth request, and closes the connection.
    fn serve(body: impl Fn(u32) -> &'static str + Send + 'static) -> (Client, Arc<AtomicU32>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let admin = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(AtomicU32::new(0));
        let counted = requests.clone();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let (mut request, mut byte) = (Vec::new(), [0]);
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                    request.extend_from_slice(&byte);
                }
                let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
                let _ = stream.write_all((HEAD.to_owned() + body(number)).as_bytes());
            }
        });
        let client = Client::new(&Server { admin, by: None, token_file: None }).expect("a client");
        (client, requests)
    }

    fn stream() -> RunStream {
        // Without a response, `new` takes the stream as ended.
        RunStream { pause: Duration::ZERO, is_ended: false, ..RunStream::new(None, Some("r-1".to_owned())) }
    }

    #[test]
    fn a_stream_that_breaks_each_time_without_an_event_is_an_error() {
        let (client, requests) = serve(|_| ": heartbeat\n\n");
        let Err(CallError::Failed(message, hint)) = stream().next(&client) else { panic!("the stream goes on") };
        assert_eq!(message, "the event stream of run r-1 broke 20 times without an event in between");
        assert!(hint.contains("`pointsman runs follow r-1`"), "{hint}");
        assert_eq!(requests.load(Ordering::SeqCst), BREAKS_MAX);
    }

    #[test]
    fn each_event_allows_as_many_breaks_again() {
        let (client, requests) = serve(|number| match number {
            20 => "id: 1\nevent: plan\ndata: {}\n\n",
            40 => "id: 2\nevent: end\ndata: {}\n\n",
            _ => "",
        });
        let mut stream = stream();
        let mut names = Vec::new();
        while let Some(event) = stream.next(&client).expect("the breaks are few enough") {
            names.push(event.name);
        }
        assert_eq!((names, requests.load(Ordering::SeqCst)), (vec!["plan".to_owned(), "end".to_owned()], 40));
    }
}
