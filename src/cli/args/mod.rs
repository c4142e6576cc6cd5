//! What may be typed.

mod runs;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::flag::State;

pub(crate) use runs::{Answer, Choice, EventsOf, List, OfStep, Plain, Replay, Resolve, Rest, Runs, Start};

/// Moves legacy workflow endpoints onto an embedded engine, route by route and reversibly.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, disable_help_subcommand = true)]
pub(crate) struct Line {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Globals {
    /// Print data as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// When to colour.
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub color: Colour,
}

/// What every command takes that talks to a running pointsman.
#[derive(Clone, Debug, Args)]
pub(crate) struct Server {
    /// Where the API of a running pointsman is.
    #[arg(long, env = "POINTSMAN_ADMIN", value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub admin: String,
    /// Who you are, where the API needs no token (recorded as unverified). Default: the user's name.
    #[arg(long = "as", value_name = "NAME")]
    pub by: Option<String>,
    /// A file with the API's token; POINTSMAN_TOKEN may hold the token itself.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole ladder on a sample world: no file, no network, no other program.
    Demo {
        /// End after the walk: 0 where every promise held, else 1.
        #[arg(long)]
        exit: bool,
    },
    /// Run the proxy, the engine and the API.
    Serve(Serve),
    /// Say everything that is wrong with a directory of flag files, with its place.
    Check {
        /// The directory with pointsman.yaml, routes/ and workflows/.
        #[arg(value_name = "DIR", default_value = "flags")]
        dir: PathBuf,
        /// Secrets that are not on this machine are warnings.
        #[arg(long)]
        no_secrets: bool,
        /// Also say which runs that have not ended these files could not have produced.
        #[arg(long)]
        against_open_runs: bool,
        /// Read those of the store itself, of a process that does not run, instead of asking a running one.
        #[arg(long, value_name = "URL", requires = "against_open_runs")]
        store: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Show where every route stands.
    Status {
        /// Show it again every two seconds.
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Move a route to another state: one rung up on passing evidence, or down any distance.
    Flip {
        /// The route's id.
        route: String,
        /// off, shadow, dark, live or only.
        state: State,
        /// The share of requests or keys from now on.
        #[arg(long, value_name = "N", value_parser = percent)]
        percent: Option<f64>,
        /// Why; stands in the record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Pass the gate by hand; wants a reason and stays visible.
        #[arg(long, requires = "reason")]
        force: bool,
        /// The horizon was read: wanted on the way down from `only`.
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
        /// Take it off again.
        #[arg(long)]
        off: bool,
        /// Why; stands in the record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
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
        #[command(flatten)]
        server: Server,
    },
    /// Show what the comparisons of a route add up to, and what the next rung still takes.
    Evidence {
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
    /// Show the services that steps call: their breakers, who is under way there, their rates.
    Services {
        #[command(flatten)]
        server: Server,
    },
    /// Runs of the engine.
    Runs {
        #[command(subcommand)]
        command: Runs,
    },
    /// Say in a sentence what a run waits for, since when, and what would move it.
    Explain {
        /// The run's id, or its job's.
        run: String,
        #[command(flatten)]
        server: Server,
    },
    /// Fold a run's events again and show every state on the way.
    Replay(Replay),
    /// Look at a store, or copy it; beside a running pointsman too.
    Store {
        #[command(subcommand)]
        command: Stores,
    },
    /// Explain how things work: the list of topics, or one of them; or describe a command.
    Help {
        /// A topic (`ladder`), or a command (`runs start`). Without it: the list of topics.
        #[arg(value_name = "TOPIC")]
        topic: Vec<String>,
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
    /// Where the proxy listens, instead of what the files say.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// Where the API listens, instead of what the files say.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub admin: Option<SocketAddr>,
    /// The store, instead of what the files say: `sqlite:PATH`, `postgres://USER@HOST:PORT/DATABASE` or `memory:`.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
}

/// What is done with a store.
#[derive(Debug, Subcommand)]
pub(crate) enum Stores {
    /// Read all of it and say what should not be: a gap in a run's events, a summary that its events do not come to, a
    /// pin of a run that is not there. Nothing is changed.
    Check {
        #[command(flatten)]
        of: StoreOf,
    },
    /// Copy it to a file that does not exist yet, while runs go on.
    Backup {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        of: StoreOf,
    },
}

/// Which store.
#[derive(Debug, Args)]
pub(crate) struct StoreOf {
    /// The directory of the flag files, whose `store:` is meant.
    #[arg(value_name = "DIR", default_value = "flags", conflicts_with = "store")]
    pub dir: PathBuf,
    /// The store itself: `sqlite:PATH`, or to check it `postgres://…`.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
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

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| format!("`{text}` is no number"))?;
    match crate::flag::Percent::new(number) {
        Some(percent) => Ok(percent.as_f64()),
        None => Err(format!("{number} is not between 0 and 100")),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    crate::config::parse_address(text).map_err(|(message, hint)| format!("{message}: {hint}"))
}
