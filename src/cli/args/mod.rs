//! The command line as clap parses it; the comments on fields and variants are the text of `--help`.

mod common;
mod parsers;
mod record;
mod runs;
mod store;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::admin::types::CandidateStage;
use crate::flag::State;

use self::parsers::{address, candidate_stage, percent};
pub(crate) use common::{Colour, Globals, Server};
pub(crate) use record::RecordCommand;
pub(crate) use runs::{
    AnswerArgs, Choice, EventsArgs, ListArgs, ReasonArgs, Replay, Resolve, RunArgs, Runs, Start, StepArgs,
};
pub(crate) use store::{StoreArgs, StoreCommand};

/// Moves legacy workflow endpoints onto an embedded engine, route by route and reversibly.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, disable_help_subcommand = true)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: CliCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Demonstrate the whole ladder with built-in sample services: needs no file, no network, no other program.
    Demo {
        /// Exit when the demonstration has ended: with 0 where every check passed, else with 1.
        #[arg(long)]
        exit: bool,
        /// Only serve the sample services, for a process that is started by itself: the shop that is legacy, and what
        /// the shop and the workflows in flags/ call.
        #[arg(long, conflicts_with = "exit")]
        services: bool,
        /// Where the sample shop listens.
        #[arg(long, value_name = "ADDRESS", value_parser = address, requires = "services",
            default_value = "127.0.0.1:9000")]
        legacy: SocketAddr,
        /// Where the other sample services listen.
        #[arg(long, value_name = "ADDRESS", value_parser = address, requires = "services",
            default_value = "127.0.0.1:9100")]
        world: SocketAddr,
    },
    /// Run the proxy, the engine and the API.
    Serve(Serve),
    /// Check a directory of flag files and print every error, with file, line and column.
    Check {
        /// The directory with pointsman.yaml, routes/ and workflows/.
        #[arg(value_name = "DIR", default_value = "flags")]
        dir: PathBuf,
        /// Report secrets and keys of token issuers that cannot be read on this machine as warnings, not as errors.
        /// Those that can be read are checked.
        #[arg(long)]
        no_secrets: bool,
        /// Also report open runs that do not fit these files: their workflow is not in the files or would have decided
        /// differently, they need something that the files do not have, or a call of unknown outcome went to another
        /// URL of its service.
        #[arg(long)]
        against_open_runs: bool,
        /// Read open runs from a store instead of from the API: `postgres://…`, or `sqlite:PATH` while no process uses
        /// it.
        #[arg(long, value_name = "URL", requires = "against_open_runs")]
        store: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Show the state of every route.
    Status {
        /// Refresh every two seconds.
        #[arg(long)]
        watch: bool,
        /// Show each warning about the files, not only how many there are; `--json` always has them.
        #[arg(short = 'v', long)]
        warnings: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Move a route to another state: one rung up on passing evidence, or down any distance.
    Flip {
        /// The route's id; `NAME.*` for all routes whose ids begin with `NAME.`, in the right order.
        route: String,
        /// off, shadow, dark, live or only.
        #[arg(required_unless_present = "candidate")]
        state: Option<State>,
        /// Move the route's candidate instead, its changed workflow: live (with --percent), in-force; shadow: back.
        #[arg(long, value_name = "STAGE", value_parser = candidate_stage, conflicts_with_all = ["state", "yes"])]
        candidate: Option<CandidateStage>,
        /// Move the candidate only if it is this plan; without it: the plan that is the candidate now, which is shown.
        #[arg(long, value_name = "PLAN", requires = "candidate")]
        plan: Option<String>,
        /// The share of requests or keys from now on, in percent.
        #[arg(long, value_name = "N", value_parser = percent)]
        percent: Option<f64>,
        /// The reason; it is recorded.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Pass the gate without its evidence; requires a reason and stays visible.
        #[arg(long, requires = "reason")]
        force: bool,
        /// Confirm that the consequences were read; required to lower a route from `only`.
        #[arg(long, visible_alias = "acknowledge")]
        yes: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Set the kill switch: no new engine instances.
    Freeze {
        /// Also hold every private and shared step that has not begun.
        #[arg(long, conflicts_with = "off")]
        effects: bool,
        /// Lift the freeze.
        #[arg(long)]
        off: bool,
        /// The reason; it is recorded.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Lift the limit that the guard of a route has set, or end its alarm.
    ///
    /// Its settings are in the files: `guard:` of the route, or of pointsman.yaml for all routes;
    /// `pointsman help guard` explains them. What it did and still does: `pointsman status`. What it counts now, and at
    /// how many bad requests it acts: `pointsman evidence ROUTE`. What it did before: `pointsman flips ROUTE`,
    /// `by guard`.
    Guard {
        #[command(subcommand)]
        command: GuardCommand,
    },
    /// Have the running process read its files again now, and show the result.
    Reload {
        #[command(flatten)]
        server: Server,
    },
    /// Show where legacy and engine differ, grouped, with one sample each.
    Diffs {
        /// The route's id.
        route: String,
        /// Show this many groups.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// Where the route's candidate and its plan in force differ.
        #[arg(long)]
        candidate: bool,
        /// Judge the samples again as if this file were the `compare:` of the route, and show what would differ.
        /// Changes nothing.
        #[arg(long = "try", value_name = "FILE")]
        try_rules: Option<PathBuf>,
        /// Propose the smallest set of rules that explains the differences, each with what it would hide. Changes
        /// nothing.
        #[arg(long, conflicts_with = "try_rules")]
        suggest: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Captures of a route: pairs that are kept whole, without secrets (`capture:` of the route).
    Captures {
        #[command(subcommand)]
        command: CapturesCommand,
    },
    /// Run the workflows of a directory over captures, without any network, and show what would differ from legacy.
    /// Exits with 0 if something was compared and nothing differs.
    Rehearse(Rehearse),
    /// Show what the comparisons of a route add up to, and what the next rung still requires.
    Evidence {
        /// The route's id.
        route: String,
        /// What those of the route's candidate add up to, and what it still requires.
        #[arg(long)]
        candidate: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Show the calls that legacy makes, and which share of them was attributed to requests, by what.
    Egress {
        /// The route's id.
        route: String,
        #[command(flatten)]
        server: Server,
    },
    /// Show who flipped what, when and why.
    Flips {
        /// Only of this route.
        route: Option<String>,
        /// Show this many.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        server: Server,
    },
    /// Have the engine adopt instances that legacy made (`instance.adopt`), or show which it has adopted.
    Adopt {
        #[command(flatten)]
        options: AdoptArgs,
        #[command(flatten)]
        server: Server,
    },
    /// Show what legacy would not know if the route were lowered now: the instances that only the engine has.
    Horizon {
        /// The route's id.
        route: String,
        #[command(flatten)]
        server: Server,
    },
    /// Show who still calls a service, what may call it, and since when nothing has called it.
    Legacy {
        /// The service's name.
        service: String,
        /// Exit with 1 unless nothing has called it for so long: `30d`, `12h`.
        #[arg(long, value_name = "DURATION", value_parser = crate::cli::callers::parse_positive_duration)]
        unused_for: Option<std::time::Duration>,
        #[command(flatten)]
        server: Server,
    },
    /// The record of all moves of routes: a chain of entries, each with the hash of the one before.
    Record {
        #[command(subcommand)]
        command: RecordCommand,
    },
    /// Show the processes that share the store: where each is, its version, whether its flag files are the same.
    Processes {
        #[command(flatten)]
        server: Server,
    },
    /// Show the services of the files: their breakers, calls in flight, rates, addresses.
    Services {
        #[command(flatten)]
        server: Server,
    },
    /// Runs of the engine.
    Runs {
        #[command(subcommand)]
        command: Runs,
    },
    /// Explain what a run waits for, since when, and what would resume it.
    Explain {
        /// The run's id, or its job's.
        run: String,
        #[command(flatten)]
        server: Server,
    },
    /// Replay a run's events and show the state after each.
    Replay(Replay),
    /// Check a store, or copy it, also while a process uses it.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Show the list of help topics, one topic, or the options of a command.
    Help {
        /// A topic (`ladder`), or a command (`runs start`). Without it: the list of topics.
        #[arg(value_name = "TOPIC")]
        topic: Vec<String>,
    },
    /// Ask a process whether it runs. Exits with 0 if it answers so within two seconds, else with 1: for the health
    /// check of a container that has no other program.
    Health {
        /// Ask whether it can take runs (`/readyz`) instead of whether it runs (`/healthz`).
        #[arg(long)]
        ready: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Print the script that completes commands and options in a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the pages for `man` into a directory.
    Man {
        /// The directory.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Print the JSON Schema of a kind of flag file, for editors.
    Schema {
        /// Which file: pointsman.yaml, routes/*.yaml or workflows/*.yaml. Without it: all three, by name.
        #[arg(value_enum)]
        kind: Option<SchemaKind>,
    },
}

/// `serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The directory with pointsman.yaml, routes/ and workflows/.
    #[arg(long, value_name = "DIR", default_value = "flags")]
    pub flags: PathBuf,
    /// The address on which the proxy listens; overrides the files.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// The address on which the API listens; overrides the files.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub admin: Option<SocketAddr>,
    /// The store: `sqlite:PATH`, `postgres://USER@HOST:PORT/DATABASE` or `memory:`; overrides the files.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Take over from the process that has the SQLite store: accept on its sockets at once, and have the store when it
    /// has released it. Start as usual if there is no such process.
    #[arg(long)]
    pub succeed: bool,
}

/// `adopt`.
#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// The id of the route that creates the instances.
    pub route: String,
    /// Adopt all instances that legacy is known to have. May be repeated: it goes on with those that are left.
    #[arg(long, conflicts_with = "id")]
    pub all: bool,
    /// Adopt the instance with this id, or decide about it. May be given several times.
    #[arg(long, value_name = "ID")]
    pub id: Vec<String>,
    /// Decide that the instances named are legacy's: it did not release them.
    #[arg(long, group = "owner", requires_all = ["id", "reason"], conflicts_with = "all")]
    pub legacy: bool,
    /// Decide that the instances named are the engine's: legacy released them.
    #[arg(long, group = "owner", requires_all = ["id", "reason"], conflicts_with = "all")]
    pub engine: bool,
    /// The reason of the decision; it is recorded.
    #[arg(long, value_name = "TEXT", requires = "owner")]
    pub reason: Option<String>,
}

/// Commands for guards.
#[derive(Debug, Subcommand)]
pub(crate) enum GuardCommand {
    /// Release what the guard of a route did: the route returns to the state that was requested. No gate is asked; what
    /// it would still require is shown.
    Release {
        /// The route's id.
        route: String,
        /// The reason; it is recorded.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Release it also if the route was changed since its evidence, or if a follower of it is still lowered.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        server: Server,
    },
}

/// Commands for captures.
#[derive(Debug, Subcommand)]
pub(crate) enum CapturesCommand {
    /// Print the captures of a route, one line of JSON each, the oldest first.
    Export {
        /// The route's id.
        route: String,
        #[command(flatten)]
        server: Server,
    },
}

/// `rehearse`.
#[derive(Debug, Args)]
pub(crate) struct Rehearse {
    /// The directory with pointsman.yaml, routes/ and workflows/.
    #[arg(long, value_name = "DIR", default_value = "flags")]
    pub flags: PathBuf,
    /// The captures: a file that `captures export` wrote, a HAR file (`.har`), or `-` for stdin.
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// Only the captures of this route.
    #[arg(long, value_name = "ROUTE")]
    pub route: Option<String>,
    /// Only captures of this time or later (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub since: Option<jiff::Timestamp>,
    /// Exit with 1 if a smaller share of a route's captures could be compared, in percent; the gates want 95. By
    /// default one compared capture of each route is enough.
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "0", hide_default_value = true)]
    pub coverage_at_least: f64,
}

/// Kinds of flag file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaKind {
    /// pointsman.yaml
    Pointsman,
    /// routes/*.yaml
    Routes,
    /// workflows/*.yaml
    Workflow,
}
