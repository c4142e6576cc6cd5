//! `runs` and its commands, and the other commands for one run, as clap parses them.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::common::Server;

/// Runs of the engine.
#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// List runs, newest first.
    List(ListArgs),
    /// Show one run: its steps, what it waits for and what happened.
    Show {
        /// The run's id, or its job's.
        run: String,
        /// Print a flowchart of the run instead, as an SVG image.
        #[arg(long)]
        svg: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Show every event of a run in full.
    Events(EventsArgs),
    /// Start a run of a workflow, and wait for it.
    Start(Start),
    /// Show the events of a run as they happen, until it ends.
    Follow {
        /// The run's id, or its job's.
        run: String,
        #[command(flatten)]
        server: Server,
    },
    /// Pause a run: calls in flight finish, nothing more begins.
    Pause(RunArgs),
    /// Resume a paused run.
    Resume(RunArgs),
    /// Cancel a run; steps that are done and have an `undo` are undone.
    Cancel {
        /// Undo nothing.
        #[arg(long)]
        no_undo: bool,
        #[command(flatten)]
        args: RunArgs,
    },
    /// Skip a step that has not begun, or that waits for a time, a signal, its next attempt or the resolution of its
    /// conflict.
    Skip {
        #[command(flatten)]
        target: StepArgs,
        #[command(flatten)]
        reason_args: ReasonArgs,
    },
    /// Replace the input of a step that has not begun.
    Adjust {
        #[command(flatten)]
        target: StepArgs,
        /// The item of a `for_each`.
        #[arg(long, value_name = "N")]
        item: Option<u32>,
        /// The input: JSON, a file with it, or `-`.
        #[arg(long, value_name = "JSON|FILE")]
        input: String,
        #[command(flatten)]
        reason_args: ReasonArgs,
    },
    /// Start the next attempt now, of one step or of all steps that wait for one. For a step whose outcome is unknown
    /// this is the decision to send its call again.
    Retry {
        /// The run's id, or its job's.
        run: String,
        /// The step.
        step: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Run a job again from a step: a new run takes over the results of the steps that do not depend on that step.
    Rerun {
        /// The run's id, or its job's.
        run: String,
        /// The step that is run again, with the steps that depend on it.
        #[arg(long, value_name = "STEP")]
        from: String,
        #[command(flatten)]
        server: Server,
    },
    /// Resolve a conflict.
    Resolve(Resolve),
    /// Answer a checkpoint.
    Answer(AnswerArgs),
    /// Deliver a signal.
    Signal {
        /// The run's id, or its job's.
        run: String,
        /// The signal's name.
        name: String,
        /// The payload: JSON, a file with it, or `-`.
        #[arg(long, value_name = "JSON|FILE")]
        payload: Option<String>,
        /// The id of the delivery: a second delivery with the same id changes nothing.
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        server: Server,
    },
}

/// `runs list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only with this status, or several separated by commas; `open` is all that have not ended.
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
    /// Only runs that this run started as steps.
    #[arg(long, value_name = "RUN")]
    pub parent: Option<String>,
    /// Only runs started at or after this time (RFC 3339).
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
pub(crate) struct EventsArgs {
    /// The run's id, or its job's.
    pub run: String,
    /// From this sequence number on; the first is 1.
    #[arg(long, value_name = "SEQ", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub from: u64,
    /// At most this many. Default: all.
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
    /// The workflow's input, which it reads as `request.body`: JSON, a file with it, or `-`.
    #[arg(long, value_name = "JSON|FILE")]
    pub input: Option<String>,
    /// The idempotency key: a repetition with the same key returns the same run.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Show the events as they happen, until the run ends.
    #[arg(long)]
    pub follow: bool,
    #[command(flatten)]
    pub server: Server,
}

/// A run, and the reason of a command.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The run's id, or its job's.
    pub run: String,
    #[command(flatten)]
    pub reason_args: ReasonArgs,
}

/// The reason of a command, and the server.
#[derive(Debug, Args)]
pub(crate) struct ReasonArgs {
    /// The reason; it is recorded in the audit trail.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    #[command(flatten)]
    pub server: Server,
}

/// One step of one run.
#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    /// The run's id, or its job's.
    pub run: String,
    /// The step.
    pub step: String,
}

/// `runs resolve`.
#[derive(Debug, Args)]
pub(crate) struct Resolve {
    #[command(flatten)]
    pub target: StepArgs,
    /// How to resolve it; `runs show` lists the possible choices.
    #[arg(value_enum)]
    pub choice: Choice,
    /// The item of a `for_each`.
    #[arg(long, value_name = "N")]
    pub item: Option<u32>,
    /// The attempt that the conflict is about, as `runs show` shows it. Default: that of the conflict that is open now.
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
    /// For `retry-with`: what to send. JSON, a file with it, or `-`.
    #[arg(long, value_name = "JSON|FILE")]
    pub input: Option<String>,
    /// For `take`: the step's output. JSON, a file with it, or `-`.
    #[arg(long, value_name = "JSON|FILE")]
    pub output: Option<String>,
    /// For `cancel`: undo nothing.
    #[arg(long)]
    pub no_undo: bool,
    #[command(flatten)]
    pub reason_args: ReasonArgs,
}

/// The ways to resolve a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// Another attempt, with the same bytes and idempotency key.
    Retry,
    /// Another attempt with another input, under a new idempotency key.
    #[value(alias = "retry_with")]
    RetryWith,
    /// The step is skipped, and so are the steps that need it.
    Skip,
    /// The step counts as done, with an output that you give.
    Take,
    /// The step's declared fallback runs instead.
    Fallback,
    /// For a lock that is held: wait for it.
    Wait,
    /// The run is cancelled.
    Cancel,
    /// The run is cancelled, and what is not undone yet is left as it is.
    #[value(alias = "cancel_without_undo")]
    CancelWithoutUndo,
}

/// `runs answer`.
#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// The run's id, or its job's.
    pub run: String,
    /// The checkpoint's id. Default: the first open checkpoint of the run.
    pub checkpoint: Option<String>,
    /// Yes.
    #[arg(long, conflicts_with = "no")]
    pub yes: bool,
    /// No.
    #[arg(long)]
    pub no: bool,
    /// The values that were asked for: JSON, a file with it, or `-`.
    #[arg(long, value_name = "JSON|FILE")]
    pub values: Option<String>,
    /// For a review: the indexes of the items that may be performed.
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub approve: Vec<u32>,
    /// For a review: the indexes of the items that are struck out.
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub strike: Vec<u32>,
    /// A comment, recorded with the answer.
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
    /// Read the run from a store instead of from the API: `postgres://…`, or `sqlite:PATH` while no process uses it.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Show where this version of the workflow would have decided differently.
    #[arg(long, value_name = "FILE")]
    pub with: Option<PathBuf>,
    /// The directory of flag files to which that workflow belongs.
    #[arg(long, value_name = "DIR", default_value = "flags", requires = "with")]
    pub flags: PathBuf,
    #[command(flatten)]
    pub server: Server,
}
