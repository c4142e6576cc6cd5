//! What may be typed behind `runs`, and what is said of one run.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Server;

/// Runs of the engine.
#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// List runs, newest first.
    List(List),
    /// Show one run: its steps, what it waits for and what happened.
    Show {
        /// The run's id, or its job's.
        run: String,
        #[command(flatten)]
        server: Server,
    },
    /// Show what happened to a run, every event in full.
    Events(EventsOf),
    /// Start a run of a workflow, and wait for it.
    Start(Start),
    /// Show what happens to a run, as it happens, until it ends.
    Follow {
        /// The run's id, or its job's.
        run: String,
        #[command(flatten)]
        server: Server,
    },
    /// Begin nothing more; what is under way ends.
    Pause(Plain),
    /// Go on.
    Resume(Plain),
    /// End a run; what is done and has an `undo` is undone.
    Cancel {
        /// Undo nothing.
        #[arg(long)]
        no_undo: bool,
        #[command(flatten)]
        plain: Plain,
    },
    /// Skip a step that has not begun, or that only waits: for a time, a signal, its next attempt, or somebody to decide
    /// its conflict.
    Skip {
        #[command(flatten)]
        of: OfStep,
        #[command(flatten)]
        rest: Rest,
    },
    /// Give a step that has not begun another input.
    Adjust {
        #[command(flatten)]
        of: OfStep,
        /// The item of a `for_each`.
        #[arg(long, value_name = "N")]
        item: Option<u32>,
        /// The input: JSON, a file with it, or `-`.
        #[arg(long, value_name = "JSON|FILE")]
        input: String,
        #[command(flatten)]
        rest: Rest,
    },
    /// Start the next attempt now, of one step or of all that wait for one.
    Retry {
        /// The run's id, or its job's.
        run: String,
        /// The step.
        step: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Run again from a step: another run takes over the results before it.
    Rerun {
        /// The run's id, or its job's.
        run: String,
        /// The step.
        #[arg(long, value_name = "STEP")]
        from: String,
        #[command(flatten)]
        server: Server,
    },
    /// Decide a conflict.
    Resolve(Resolve),
    /// Answer what a run asks.
    Answer(Answer),
    /// Deliver a signal.
    Signal {
        /// The run's id, or its job's.
        run: String,
        /// The signal's name.
        name: String,
        /// What it carries: JSON, a file with it, or `-`.
        #[arg(long, value_name = "JSON|FILE")]
        payload: Option<String>,
        /// Names the delivery: a second one under the same id changes nothing.
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        server: Server,
    },
}

/// `runs list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only with this status, or several with commas; `open` is all that have not ended.
    #[arg(long, value_name = "STATUS")]
    pub status: Option<String>,
    /// Only of this workflow.
    #[arg(long, value_name = "NAME")]
    pub workflow: Option<String>,
    /// Only of this route.
    #[arg(long, value_name = "ROUTE")]
    pub route: Option<String>,
    /// Only of this mode: real or dark.
    #[arg(long, value_name = "MODE")]
    pub mode: Option<String>,
    /// Only runs of this job.
    #[arg(long, value_name = "JOB")]
    pub job: Option<String>,
    /// Only runs that this one began.
    #[arg(long, value_name = "RUN")]
    pub parent: Option<String>,
    /// Only runs born at or after this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Show this many.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: u32,
    /// Only runs before this one: the next page.
    #[arg(long, value_name = "RUN")]
    pub before: Option<String>,
    #[command(flatten)]
    pub server: Server,
}

/// `runs events`.
#[derive(Debug, Args)]
pub(crate) struct EventsOf {
    /// The run's id, or its job's.
    pub run: String,
    /// From this place on; the first is 1.
    #[arg(long, value_name = "SEQ", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub from: u64,
    /// At most this many; all where nothing is said.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    #[command(flatten)]
    pub server: Server,
}

/// `runs start`.
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// The workflow.
    pub workflow: String,
    /// The body of its request: JSON, a file with it, or `-`.
    #[arg(long, value_name = "JSON|FILE")]
    pub input: Option<String>,
    /// Names the start: asked again with it, the same run answers.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Show what happens, as it happens, until the run ends.
    #[arg(long)]
    pub follow: bool,
    #[command(flatten)]
    pub server: Server,
}

/// One run, and why.
#[derive(Debug, Args)]
pub(crate) struct Plain {
    /// The run's id, or its job's.
    pub run: String,
    #[command(flatten)]
    pub rest: Rest,
}

/// Why, and of whom it is asked.
#[derive(Debug, Args)]
pub(crate) struct Rest {
    /// Why; stands in the audit trail.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    #[command(flatten)]
    pub server: Server,
}

/// One step of one run.
#[derive(Debug, Args)]
pub(crate) struct OfStep {
    /// The run's id, or its job's.
    pub run: String,
    /// The step.
    pub step: String,
}

/// `runs resolve`.
#[derive(Debug, Args)]
pub(crate) struct Resolve {
    #[command(flatten)]
    pub of: OfStep,
    /// How; `runs show` says which there are.
    #[arg(value_enum)]
    pub choice: Choice,
    /// The item of a `for_each`.
    #[arg(long, value_name = "N")]
    pub item: Option<u32>,
    /// Of `retry-with`: what to try with. JSON, a file with it, or `-`.
    #[arg(long, value_name = "JSON|FILE")]
    pub input: Option<String>,
    /// Of `take`: the step's output. JSON, a file with it, or `-`.
    #[arg(long, value_name = "JSON|FILE")]
    pub output: Option<String>,
    /// Of `cancel`: undo nothing.
    #[arg(long)]
    pub no_undo: bool,
    #[command(flatten)]
    pub rest: Rest,
}

/// How a conflict is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// Another attempt, with the same bytes and key.
    Retry,
    /// Another attempt with another input, under a new key.
    #[value(alias = "retry_with")]
    RetryWith,
    /// The step is skipped, and so is what needs it.
    Skip,
    /// The step is done, with an output that is given.
    Take,
    /// The declared fallback takes its place.
    Fallback,
    /// Of a lock that is held: wait for it.
    Wait,
    /// The run is cancelled.
    Cancel,
}

/// `runs answer`.
#[derive(Debug, Args)]
pub(crate) struct Answer {
    /// The run's id, or its job's.
    pub run: String,
    /// The checkpoint; without it, the first that waits.
    pub checkpoint: Option<String>,
    /// Yes.
    #[arg(long, conflicts_with = "no")]
    pub yes: bool,
    /// No.
    #[arg(long)]
    pub no: bool,
    /// What was asked for: JSON, a file with it, or `-`.
    #[arg(long, value_name = "JSON|FILE")]
    pub values: Option<String>,
    /// Of a review: the places that may be performed.
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub approve: Vec<u32>,
    /// Of a review: the places that are struck out.
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub strike: Vec<u32>,
    /// A remark.
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    #[command(flatten)]
    pub server: Server,
}

/// `replay`.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The run's id.
    pub run: String,
    /// Read the store itself, of a process that does not run: `sqlite:PATH` or `postgres://…`. No API is asked then.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Say where this workflow would have decided otherwise.
    #[arg(long, value_name = "FILE")]
    pub with: Option<PathBuf>,
    /// The directory of flag files that it belongs to.
    #[arg(long, value_name = "DIR", default_value = "flags", requires = "with")]
    pub flags: PathBuf,
    #[command(flatten)]
    pub server: Server,
}
