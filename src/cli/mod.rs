//! The command line.
//!
//! Always true: stdout is data (as JSON with `--json`, which only `demo` refuses), stderr is messages; the exit code
//! is 0 for done, 1 for refused or failed (also if stdout cannot be written), 2 for wrong usage. `status`, `flip`,
//! `freeze`, `guard`, `reload`, `diffs`, `evidence`, `egress`, `flips`, `adopt`, `horizon`, `legacy`, `record`,
//! `captures`, `services`, `runs`, `explain` and `health` are clients of the API of a running process; `replay` and
//! `check --against-open-runs` are too, or read a store (`--store`); `check` without that option, `schema`, `rehearse`
//! and `record verify --file` read files only; `help` shows the reference; `completions` and `man` describe the command
//! line; `serve`, `demo` and `store` call functions of `app`, which `main` passes in [`ProcessCommands`].

mod adopt;
mod args;
mod auto;
mod callers;
mod candidates;
mod captures;
mod check;
mod client;
mod diffs;
mod egress;
mod evidence;
mod flip;
mod format;
mod gates;
mod guard;
mod health;
mod help;
mod id_prefix;
mod open_runs;
mod output;
mod process_commands;
mod processes;
mod record;
mod record_gates;
mod record_rows;
mod rehearse;
mod reload;
mod replay;
mod rule_trials;
mod run_source;
mod runs;
mod services;
mod shell_files;
mod statistics;
mod status;
mod store;
#[cfg(test)]
mod tests;

use std::io::Write;

use std::process::ExitCode;

use clap::Parser;

use args::{CapturesCommand, CliCommand, Colour, CommandLine, Globals, GuardCommand, RecordCommand, Runs, Server};
use client::{CallError, Client};
use format::{Formatter, Tone, escape_control};
use output::{Output, pretty, print, print_with, report_error};
pub use process_commands::{
    DemoOptions, ProcessCommands, SampleServices, ServeOptions, StoreCopy, StoreFinding, StoreLocation, StoreReport,
};
use rule_trials::Trial;
use runs::RunCommand;

use crate::config::{CheckFailed, Overrides};
use crate::flag::State;

/// Parses the command line, executes the command, and returns the exit code.
pub fn main(process_commands: &ProcessCommands) -> ExitCode {
    match CommandLine::try_parse() {
        Ok(line) => run(line, process_commands),
        // Printed to stderr; exits with 2.
        Err(error) if error.use_stderr() => error.exit(),
        // `--help` or `--version`, which is printed to stdout.
        Err(shown) => print_with(|_| shown.print(), Colour::Auto).exit_code(0),
    }
}

/// What `diffs` prints, for a caller that has the differences already.
pub fn diffs_text(diffs: &crate::admin::types::Diffs, colour: bool) -> String {
    diffs::text(diffs, jiff::Timestamp::now(), Formatter(colour))
}

fn run(line: CommandLine, process_commands: &ProcessCommands) -> ExitCode {
    let CommandLine { globals, command } = line;
    let out = Formatter::new(globals.color, &std::io::stdout());
    let done = match command {
        CliCommand::Serve(serve) => {
            let overrides =
                Overrides { listen: serve.listen, admin: serve.admin, store: serve.store, ..Overrides::default() };
            return exit_code(
                &globals,
                (process_commands.serve)(ServeOptions { flags: serve.flags, overrides, takes_over: serve.succeed }),
            );
        }
        // Its output is text for people only.
        CliCommand::Demo { .. } if globals.json => {
            let _ = writeln!(std::io::stderr(), "error: `demo` prints text for people and has no --json");
            return ExitCode::from(2);
        }
        CliCommand::Demo { services: true, legacy, world, .. } => {
            return exit_code(&globals, (process_commands.sample_services)(SampleServices { legacy, world }));
        }
        CliCommand::Demo { exit, .. } => {
            return exit_code(&globals, (process_commands.demo)(DemoOptions { exit, colour: out.0 }));
        }
        CliCommand::Check { dir, no_secrets, against_open_runs: false, .. } => Ok(check::check(&dir, no_secrets, out)),
        CliCommand::Check { dir, no_secrets, against_open_runs: true, store, server } => {
            open_runs::check(&dir, no_secrets, store.as_deref(), &server, out)
        }
        CliCommand::Help { topic } => return help::help(&topic, &globals),
        CliCommand::Schema { kind } => Ok(check::schema(kind)),
        CliCommand::Completions { shell } => Ok(shell_files::completions(shell)),
        CliCommand::Man { dir } => shell_files::man(&dir),
        CliCommand::Health { ready, server } => with_client(&server, |client| health::health(client, ready, out)),
        CliCommand::Store { command } => match store::run(command, process_commands, out) {
            Ok(done) => Ok(done),
            Err(error) => return exit_code(&globals, Err(error)),
        },
        CliCommand::Status { watch: true, warnings, server } if !globals.json => {
            return status::watch(&globals, &server, warnings, out);
        }
        CliCommand::Status { server, warnings, .. } => {
            with_client(&server, |client| status::show(client, warnings, out))
        }
        CliCommand::Flip { route, candidate: Some(to), plan, percent, reason, force, server, .. } => {
            let options = candidates::CandidateOptions { route, to, percent, plan, reason, force };
            with_client(&server, |client| candidates::flip(client, &server, options, out))
        }
        CliCommand::Flip { route, state, candidate: None, percent, reason, force, yes, server, .. } => {
            // The parser requires a state where there is no `--candidate`.
            let state = state.unwrap_or(State::Off);
            let options = flip::FlipOptions { route, state, percent, reason, force, yes };
            with_client(&server, |client| match options.route.strip_suffix(".*") {
                Some(prefix) => id_prefix::flip(client, &server, prefix, &options, out),
                None => flip::flip(client, &server, &options, out),
            })
        }
        CliCommand::Freeze { effects, off, reason, server } => {
            with_client(&server, |client| flip::freeze(client, &server, !off, effects, reason, out))
        }
        CliCommand::Guard { command: GuardCommand::Release { route, reason, force, server } } => {
            with_client(&server, |client| guard::release(client, &server, &route, reason, force, out))
        }
        CliCommand::Reload { server } => with_client(&server, |client| reload::reload(client, &server, out)),
        CliCommand::Diffs { route, suggest: true, candidate, server, .. } => {
            with_client(&server, |client| rule_trials::suggest(client, &route, candidate, out))
        }
        CliCommand::Diffs { route, limit, candidate, try_rules: None, server, .. } => {
            with_client(&server, |client| diffs::show(client, &route, limit, candidate, out))
        }
        CliCommand::Diffs { route, limit, candidate, try_rules: Some(file), server, .. } => {
            let asked = Trial { route: &route, candidate, file: &file };
            with_client(&server, |client| rule_trials::try_rules(client, &asked, limit, out))
        }
        CliCommand::Captures { command: CapturesCommand::Export { route, server } } => {
            with_client(&server, |client| captures::export(client, &route))
        }
        CliCommand::Rehearse(rehearsal) => rehearse::rehearse(&rehearsal, out),
        CliCommand::Evidence { route, candidate, server } => {
            with_client(&server, |client| evidence::show(client, &route, candidate, out))
        }
        CliCommand::Egress { route, server } => with_client(&server, |client| egress::show(client, &route, out)),
        CliCommand::Flips { route, limit, server } => {
            with_client(&server, |client| flip::list(client, route, limit, out))
        }
        CliCommand::Adopt { options, server } => {
            with_client(&server, |client| adopt::adopt(client, &server, options, out))
        }
        CliCommand::Horizon { route, server } => with_client(&server, |client| flip::horizon(client, &route, out)),
        CliCommand::Legacy { service, unused_for, server } => {
            with_client(&server, |client| callers::show(client, &service, unused_for, out))
        }
        CliCommand::Record { command } => run_record_command(command, out),
        CliCommand::Processes { server } => with_client(&server, |client| processes::show(client, out)),
        CliCommand::Services { server } => with_client(&server, |client| services::show(client, out)),
        CliCommand::Runs { command } => run_command(command, out, Formatter::new(globals.color, &std::io::stderr())),
        CliCommand::Explain { run, server } => with_client(&server, |client| runs::explain(client, &run, out)),
        CliCommand::Replay(replay) => replay::replay(replay, out),
    };
    match done {
        Ok(done) => {
            let text = if globals.json { pretty(&done.json) } else { done.text };
            print(&text, globals.color).exit_code(u8::from(!done.is_ok))
        }
        Err(error) => report_error(&globals, error),
    }
}

fn run_record_command(command: RecordCommand, out: Formatter) -> Result<Output, CallError> {
    match command {
        RecordCommand::Show { route, limit, server } => {
            with_client(&server, |client| record::show(client, route.as_deref(), limit, out))
        }
        RecordCommand::Verify { file: Some(file), hash, .. } => record::verify_file(&file, hash.as_deref(), out),
        RecordCommand::Verify { file: None, hash, server } => {
            with_client(&server, |client| record::verify(client, hash.as_deref(), out))
        }
        RecordCommand::Export { server } => with_client(&server, record::export),
    }
}

fn run_command(command: Runs, out: Formatter, err: Formatter) -> Result<Output, CallError> {
    let command = match command {
        Runs::List(list) => return with_client(&list.server.clone(), |client| runs::list(client, list, out)),
        Runs::Show { run, svg: true, server } => return with_client(&server, |client| runs::chart(client, &run)),
        Runs::Show { run, svg: false, server } => return with_client(&server, |client| runs::show(client, &run, out)),
        Runs::Events(args) => return with_client(&args.server.clone(), |client| runs::events(client, &args, out)),
        Runs::Start(start) => return with_client(&start.server.clone(), |client| runs::start(client, start, out, err)),
        Runs::Follow { run, server } => return with_client(&server, |client| runs::follow(client, &run, out, err)),
        Runs::Pause(args) => RunCommand::Pause(args),
        Runs::Resume(args) => RunCommand::Resume(args),
        Runs::Cancel { no_undo, args } => RunCommand::Cancel { no_undo, args },
        Runs::Skip { target, reason_args } => RunCommand::Skip { target, reason_args },
        Runs::Adjust { target, item, input, reason_args } => RunCommand::Adjust { target, item, input, reason_args },
        Runs::Retry { run, step, server } => RunCommand::Retry { run, step, server },
        Runs::Rerun { run, from, server } => RunCommand::Rerun { run, from, server },
        Runs::Resolve(resolve) => RunCommand::Resolve(resolve),
        Runs::Answer(answer) => RunCommand::Answer(answer),
        Runs::Signal { run, name, payload, id, server } => RunCommand::Signal { run, name, payload, id, server },
    };
    with_client(&command.server().clone(), |client| runs::send_command(client, command, out))
}

fn with_client(
    server: &Server,
    command: impl FnOnce(&Client) -> Result<Output, CallError>,
) -> Result<Output, CallError> {
    command(&Client::new(server)?)
}

/// Prints the error of `serve`, `demo` or `store`, if any, and returns the exit code.
fn exit_code(globals: &Globals, outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    let err = Formatter::new(globals.color, &std::io::stderr());
    let text = match error.downcast_ref::<CheckFailed>() {
        Some(failed) => failed.render(err.0),
        None => format!("{} {}", err.tone("error:", Tone::Bad), escape_control(&format!("{error:#}"))),
    };
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(1)
}
