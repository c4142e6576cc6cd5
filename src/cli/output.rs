//! What a command prints: its result on stdout, an error on stderr.

use std::io::{self, ErrorKind, StdoutLock, Write};
use std::process::ExitCode;

use serde_json::Value;

use super::args::{Colour, Globals};
use super::client::CallError;
use super::format::{Formatter, Tone, escape_control};
use crate::admin::types::FirstAnswer;

/// The result of a command.
pub(crate) struct Output {
    /// For people.
    pub text: String,
    /// The output for programs.
    pub json: Value,
    /// Whether the command succeeded: the exit code is then 0, otherwise 1.
    pub is_ok: bool,
}

/// Prints an error to stderr for people, and with `--json` also to stdout as JSON: the API's problem, if it refused.
/// Returns the exit code.
pub(super) fn report_error(globals: &Globals, error: CallError) -> ExitCode {
    let err = Formatter::new(globals.color, &io::stderr());
    let mut lines = Vec::new();
    let mut commands = Vec::new();
    let (hint, json) = match error {
        CallError::Refused(problem, value) => {
            lines.push(format!("{} {}", err.tone("refused:", Tone::Bad), escape_control(&problem.title)));
            if !problem.detail.is_empty() && !problem.detail.eq_ignore_ascii_case(&problem.title) {
                lines.push(format!("  {}", escape_control(&problem.detail)));
            }
            if let Some(status) = problem.run_status {
                lines.push(format!("  the run is {}", status.as_str()));
            }
            lines.extend(problem.first.as_deref().map(first_answer));
            if problem.status == 404 && !problem.reasons.is_empty() {
                lines.push("  known are:".to_owned());
            }
            lines.extend(problem.reasons.iter().map(|reason| format!("  - {}", escape_control(reason))));
            commands = problem.commands;
            (problem.hint, value)
        }
        CallError::Failed(message, hint) => {
            lines.push(format!("{} {}", err.tone("error:", Tone::Bad), escape_control(&message)));
            (Some(hint), serde_json::json!({ "title": "failed", "detail": message }))
        }
    };
    if let Some(hint) = hint {
        lines.push(format!("  {} {}", err.tone("what to do:", Tone::Strong), escape_control(&hint)));
    }
    if !commands.is_empty() {
        lines.push(format!("  {}", err.tone("this would pass:", Tone::Strong)));
        lines.extend(commands.iter().map(|command| format!("    {}", escape_control(command))));
    }
    let _ = writeln!(io::stderr(), "{}", lines.join("\n"));
    match globals.json {
        true => print(&pretty(&json), globals.color).exit_code(1),
        false => ExitCode::from(1),
    }
}

/// The answer that the checkpoint was given before, in one line.
pub(super) fn first_answer(first: &FirstAnswer) -> String {
    let FirstAnswer { by, at, seq, approve, values, approved, struck, note } = first;
    let at = at.map_or(String::new(), |at| format!(" at {at:.0}"));
    let mut line = format!("  {} said {}{at} (event {seq})", escape_control(by), if *approve { "yes" } else { "no" });
    if !values.is_null() {
        line.push_str(&format!(": {}", escape_control(&values.to_string())));
    }
    for (word, places) in [("approved", approved), ("struck", struck)] {
        if !places.is_empty() {
            let places: Vec<String> = places.iter().map(u32::to_string).collect();
            line.push_str(&format!("; {word} {}", places.join(", ")));
        }
    }
    if let Some(note) = note {
        line.push_str(&format!("; {}", escape_control(note)));
    }
    line
}

pub(super) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// What became of the text for stdout.
pub(super) enum Printed {
    /// It was written.
    Done,
    /// Nobody reads the pipe any more (`| head`), which is no failure.
    Closed,
    /// It could not be written, as stderr says.
    Failed,
}

impl Printed {
    /// The exit code: that of the command (`of_command`), but not 0 if the output could not be written.
    pub fn exit_code(self, of_command: u8) -> ExitCode {
        ExitCode::from(match self {
            Printed::Done | Printed::Closed => of_command,
            Printed::Failed => of_command.max(1),
        })
    }
}

/// Prints to stdout. If that fails, prints the reason to stderr.
pub(super) fn print(text: &str, colour: Colour) -> Printed {
    print_with(|out| out.write_all(text.as_bytes()), colour)
}

/// As [`print`]; `write` writes the text to stdout.
pub(super) fn print_with(write: impl FnOnce(&mut StdoutLock<'_>) -> io::Result<()>, colour: Colour) -> Printed {
    let mut out = io::stdout().lock();
    match write(&mut out).and_then(|()| out.flush()) {
        Ok(()) => Printed::Done,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Printed::Closed,
        Err(error) => {
            let label = Formatter::new(colour, &io::stderr()).tone("error:", Tone::Bad);
            let _ = writeln!(io::stderr(), "{label} the output could not be written to stdout: {error}");
            Printed::Failed
        }
    }
}
