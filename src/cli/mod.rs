//! The command line.
//!
//! The question it answers: "what did the person type, and what do they see?" Always true: stdout is data (`--json`
//! everywhere), stderr is talk; the exit code is 0 for done, 1 for refused or failed, 2 for wrong usage. `status`,
//! `flip`, `freeze`, `diffs`, `evidence`, `flips`, `services`, `runs`, `explain` and `replay` are clients of the API of a
//! running process; `check` and `schema` read files only; `help` shows the reference; what `serve`, `demo` and `store` do is the business of `app`,
//! reached through [`Doors`].

mod args;
mod client;
mod diffs;
mod evidence;
mod files;
mod flip;
mod help;
mod open_runs;
mod paint;
mod replay;
mod runs;
mod services;
mod status;
mod store;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::Value;

use args::{Command, Globals, Line, Runs, Server};
use client::{CallError, Client};
use paint::{Paint, Tone, harmless};
use runs::Said;

use crate::admin::types::FirstAnswer;
use crate::config::{Failed, Overrides};

/// What `serve` was told.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The directory of the flag files.
    pub flags: PathBuf,
    /// What the command line says instead of the files.
    pub over: Overrides,
}

/// What `demo` was told.
#[derive(Clone, Copy, Debug)]
pub struct DemoOptions {
    /// End after the walk.
    pub exit: bool,
    /// Whether to colour.
    pub colour: bool,
}

/// Which store is meant.
#[derive(Clone, Debug)]
pub enum StorePlace {
    /// The one that the flag files of this directory name.
    Flags(PathBuf),
    /// `sqlite:PATH`.
    Url(String),
}

/// Something in a store that should not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFinding {
    /// The run that it is about.
    pub run: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub todo: String,
}

/// What `store check` saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreReport {
    /// Where the store is.
    pub place: String,
    /// Runs.
    pub runs: u64,
    /// Of those, runs of which only the summary is kept.
    pub purged: u64,
    /// Events.
    pub events: u64,
    /// Payloads beside events.
    pub payloads: u64,
    /// What should not be.
    pub findings: Vec<StoreFinding>,
    /// Findings beyond those.
    pub unlisted: u64,
}

/// What `store backup` wrote, and what a look at the copy showed.
#[derive(Clone, Debug)]
pub struct StoreCopy {
    /// How large it is.
    pub bytes: u64,
    /// The copy, read back.
    pub report: StoreReport,
}

/// Why `serve` or `demo` ended badly. A [`Failed`] inside is shown with its lines and carets.
pub type Failure = anyhow::Error;

/// The commands that run a process, which return when it has ended, and those that open a store.
pub struct Doors {
    /// `serve`.
    pub serve: fn(ServeOptions) -> Result<(), Failure>,
    /// `demo`.
    pub demo: fn(DemoOptions) -> Result<(), Failure>,
    /// `store check`.
    pub store_check: fn(StorePlace) -> Result<StoreReport, Failure>,
    /// `store backup`.
    pub store_backup: fn(StorePlace, PathBuf) -> Result<StoreCopy, Failure>,
}

/// Reads the command line, does what it says, and gives the exit code.
pub fn main(doors: &Doors) -> ExitCode {
    let line = Line::parse(); // ends with 2 by itself where it cannot be read
    run(line, doors)
}

/// What `diffs` prints, for whoever has the differences already.
pub fn diffs_text(diffs: &crate::admin::types::Diffs, colour: bool) -> String {
    diffs::text(diffs, jiff::Timestamp::now(), Paint(colour))
}

/// How a command ended: what to print on stdout, and whether it was refused.
pub(crate) struct Done {
    /// Data, for a person.
    pub text: String,
    /// The same for a program.
    pub json: Value,
    /// Exit 0, or 1.
    pub fine: bool,
}

fn run(line: Line, doors: &Doors) -> ExitCode {
    let Line { globals, command } = line;
    let out = Paint::new(globals.color, &std::io::stdout());
    let done = match command {
        Command::Serve(serve) => {
            let over =
                Overrides { listen: serve.listen, admin: serve.admin, store: serve.store, ..Overrides::default() };
            return ended(&globals, (doors.serve)(ServeOptions { flags: serve.flags, over }));
        }
        // It is a walk for a person: half a table would be no data.
        Command::Demo { .. } if globals.json => {
            let _ = writeln!(std::io::stderr(), "error: `demo` is told to a person and has no --json");
            return ExitCode::from(2);
        }
        Command::Demo { exit } => return ended(&globals, (doors.demo)(DemoOptions { exit, colour: out.0 })),
        Command::Check { dir, no_secrets, against_open_runs: false, .. } => Ok(files::check(&dir, no_secrets, out)),
        Command::Check { dir, no_secrets, against_open_runs: true, store, server } => {
            open_runs::check(&dir, no_secrets, store.as_deref(), &server, out)
        }
        Command::Help { topic } => return help::help(&topic, &globals),
        Command::Schema { kind } => Ok(files::schema(kind)),
        Command::Store { command } => match store::run(command, doors, out) {
            Ok(done) => Ok(done),
            Err(error) => return ended(&globals, Err(error)),
        },
        Command::Status { watch, server } if watch && !globals.json => return status::watch(&globals, &server, out),
        Command::Status { server, .. } => ask(&server, |client| status::show(client, out)),
        Command::Flip { route, state, percent, reason, force, yes, server } => {
            let wish = flip::Wish { route, state, percent, reason, force, yes };
            ask(&server, |client| flip::flip(client, &server, wish, out))
        }
        Command::Freeze { effects, off, reason, server } => {
            ask(&server, |client| flip::freeze(client, &server, !off, effects, reason, out))
        }
        Command::Diffs { route, limit, server } => ask(&server, |client| diffs::show(client, &route, limit, out)),
        Command::Evidence { route, server } => ask(&server, |client| evidence::show(client, &route, out)),
        Command::Flips { route, limit, server } => ask(&server, |client| flip::list(client, route, limit, out)),
        Command::Services { server } => ask(&server, |client| services::show(client, out)),
        Command::Runs { command } => of_runs(command, out, Paint::new(globals.color, &std::io::stderr())),
        Command::Explain { run, server } => ask(&server, |client| runs::explain(client, &run, out)),
        Command::Replay(replay) => replay::replay(replay, out),
    };
    match done {
        Ok(done) => {
            let text = if globals.json { pretty(&done.json) } else { done.text };
            print(&text);
            ExitCode::from(u8::from(!done.fine))
        }
        Err(error) => {
            complain(&globals, error);
            ExitCode::from(1)
        }
    }
}

fn of_runs(command: Runs, out: Paint, err: Paint) -> Result<Done, CallError> {
    let said = match command {
        Runs::List(list) => return ask(&list.server.clone(), |client| runs::list(client, list, out)),
        Runs::Show { run, server } => return ask(&server, |client| runs::show(client, &run, out)),
        Runs::Events(of) => return ask(&of.server.clone(), |client| runs::events(client, &of, out)),
        Runs::Start(start) => return ask(&start.server.clone(), |client| runs::start(client, start, out, err)),
        Runs::Follow { run, server } => return ask(&server, |client| runs::follow(client, &run, out, err)),
        Runs::Pause(plain) => Said::Pause(plain),
        Runs::Resume(plain) => Said::Resume(plain),
        Runs::Cancel { no_undo, plain } => Said::Cancel { no_undo, plain },
        Runs::Skip { of, rest } => Said::Skip { of, rest },
        Runs::Adjust { of, item, input, rest } => Said::Adjust { of, item, input, rest },
        Runs::Retry { run, step, server } => Said::Retry { run, step, server },
        Runs::Rerun { run, from, server } => Said::Rerun { run, from, server },
        Runs::Resolve(resolve) => Said::Resolve(resolve),
        Runs::Answer(answer) => Said::Answer(answer),
        Runs::Signal { run, name, payload, id, server } => Said::Signal { run, name, payload, id, server },
    };
    ask(&said.server().clone(), |client| runs::say(client, said, out))
}

fn ask(server: &Server, talk: impl FnOnce(&Client) -> Result<Done, CallError>) -> Result<Done, CallError> {
    talk(&Client::new(server)?)
}

/// The end of `serve`, `demo` or `store`.
fn ended(globals: &Globals, outcome: Result<(), Failure>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    let err = Paint::new(globals.color, &std::io::stderr());
    let text = match error.downcast_ref::<Failed>() {
        Some(failed) => failed.render(err.0),
        None => format!("{} {}", err.tone("error:", Tone::Bad), harmless(&format!("{error:#}"))),
    };
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(1)
}

/// An error goes to stderr for people, and with `--json` to stdout as the problem that it is.
fn complain(globals: &Globals, error: CallError) {
    let err = Paint::new(globals.color, &std::io::stderr());
    let mut lines = Vec::new();
    let (hint, json) = match error {
        CallError::Refused(problem, value) => {
            lines.push(format!("{} {}", err.tone("refused:", Tone::Bad), harmless(&problem.title)));
            if !problem.detail.is_empty() && !problem.detail.eq_ignore_ascii_case(&problem.title) {
                lines.push(format!("  {}", harmless(&problem.detail)));
            }
            if let Some(status) = problem.run_status {
                lines.push(format!("  the run is {}", status.as_str()));
            }
            lines.extend(problem.first.as_deref().map(first));
            if problem.status == 404 && !problem.reasons.is_empty() {
                lines.push("  there is:".to_owned());
            }
            lines.extend(problem.reasons.iter().map(|reason| format!("  - {}", harmless(reason))));
            (problem.hint, value)
        }
        CallError::Unreachable(message, hint) => {
            lines.push(format!("{} {}", err.tone("error:", Tone::Bad), harmless(&message)));
            (Some(hint), serde_json::json!({ "title": "unreachable", "detail": message }))
        }
    };
    if let Some(hint) = hint {
        lines.push(format!("  {} {}", err.tone("what to do:", Tone::Strong), harmless(&hint)));
    }
    let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
    if globals.json {
        print(&pretty(&json));
    }
}

/// The answer that was there before, in a line.
fn first(first: &FirstAnswer) -> String {
    let FirstAnswer { by, at, seq, approve, values, approved, struck, note } = first;
    let at = at.map_or(String::new(), |at| format!(" at {at:.0}"));
    let mut line = format!("  {} said {}{at} (event {seq})", harmless(by), if *approve { "yes" } else { "no" });
    if !values.is_null() {
        line.push_str(&format!(": {}", harmless(&values.to_string())));
    }
    for (word, places) in [("approved", approved), ("struck", struck)] {
        if !places.is_empty() {
            let places: Vec<String> = places.iter().map(u32::to_string).collect();
            line.push_str(&format!("; {word} {}", places.join(", ")));
        }
    }
    if let Some(note) = note {
        line.push_str(&format!("; {}", harmless(note)));
    }
    line
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
