//! Commands to a run: pause, resume, cancel, skip, adjust, retry, rerun, resolve, answer, signal.

use serde_json::{Value, json};

use super::common::{json_argument, path, status_tone};
use super::show;
use crate::admin::types::{
    AdjustRequest, AnswerRequest, CancelRequest, ChoiceName, OpenConflict, Orchestration, PauseRequest, RerunRequest,
    ResolveRequest, RetryRequest, RunStatus, SignalRequest, SkipRequest,
};
use crate::cli::args::{AnswerArgs, Choice, ReasonArgs, Resolve, RunArgs, Server, StepArgs};
use crate::cli::client::{CallError, Client};
use crate::cli::format::{Formatter, Tone, escape_control, without_ciphertext};
use crate::cli::output::Output;

/// One command, with its options.
pub(crate) enum RunCommand {
    Pause(RunArgs),
    Resume(RunArgs),
    Cancel { no_undo: bool, args: RunArgs },
    Skip { target: StepArgs, reason_args: ReasonArgs },
    Adjust { target: StepArgs, item: Option<u32>, input: String, reason_args: ReasonArgs },
    Retry { run: String, step: Option<String>, server: Server },
    Rerun { run: String, from: String, server: Server },
    Resolve(Resolve),
    Answer(AnswerArgs),
    Signal { run: String, name: String, payload: Option<String>, id: Option<String>, server: Server },
}

impl RunCommand {
    /// The server that receives it.
    pub(crate) fn server(&self) -> &Server {
        match self {
            RunCommand::Pause(args) | RunCommand::Resume(args) | RunCommand::Cancel { args, .. } => {
                &args.reason_args.server
            }
            RunCommand::Skip { reason_args, .. } | RunCommand::Adjust { reason_args, .. } => &reason_args.server,
            RunCommand::Retry { server, .. } | RunCommand::Rerun { server, .. } | RunCommand::Signal { server, .. } => {
                server
            }
            RunCommand::Resolve(resolve) => &resolve.reason_args.server,
            RunCommand::Answer(answer) => &answer.server,
        }
    }
}

/// Sends the command and shows the run's status after it.
pub(crate) fn send_command(client: &Client, command: RunCommand, format: Formatter) -> Result<Output, CallError> {
    let by = command.server().caller_name();
    let pauses = matches!(command, RunCommand::Pause(_));
    let (path, request) = match command {
        RunCommand::Pause(RunArgs { run, reason_args }) => {
            (path(&run, "/pause"), json!(PauseRequest { reason: reason_args.reason, by }))
        }
        RunCommand::Resume(RunArgs { run, reason_args }) => {
            (path(&run, "/resume"), json!(PauseRequest { reason: reason_args.reason, by }))
        }
        RunCommand::Cancel { no_undo, args: RunArgs { run, reason_args } } => {
            (path(&run, "/cancel"), json!(CancelRequest { compensate: !no_undo, reason: reason_args.reason, by }))
        }
        RunCommand::Skip { target: StepArgs { run, step }, reason_args } => {
            (path(&run, "/skip"), json!(SkipRequest { step, reason: reason_args.reason, by }))
        }
        RunCommand::Adjust { target: StepArgs { run, step }, item, input, reason_args } => (
            path(&run, "/adjust"),
            json!(AdjustRequest { step, item, input: json_argument(&input)?, reason: reason_args.reason, by }),
        ),
        RunCommand::Retry { run, step, server: _ } => {
            let attempt = match &step {
                Some(step) => open_attempt(client, &run, |conflict| conflict.step_id == *step)?,
                None => None,
            };
            (path(&run, "/retry"), json!(RetryRequest { step, attempt, by }))
        }
        RunCommand::Rerun { run, from, server: _ } => (path(&run, "/rerun"), json!(RerunRequest { from, by })),
        RunCommand::Resolve(resolve) => {
            let Resolve { target, choice, item, attempt, input, output, no_undo, reason_args } = resolve;
            let StepArgs { run, step } = target;
            let is_meant = |conflict: &OpenConflict| conflict.step_id == step && conflict.item == item;
            let attempt = match attempt {
                Some(attempt) => Some(attempt),
                None => open_attempt(client, &run, is_meant)?,
            };
            let request = ResolveRequest {
                step,
                item,
                attempt,
                choice: choice_name(choice),
                input: input.as_deref().map(json_argument).transpose()?,
                output: output.as_deref().map(json_argument).transpose()?,
                compensate: (choice == Choice::Cancel).then_some(!no_undo),
                reason: reason_args.reason,
                by,
            };
            (path(&run, "/resolve"), json!(request))
        }
        RunCommand::Answer(answer) => self::answer(client, answer, by)?,
        RunCommand::Signal { run, name, payload, id, server: _ } => {
            let payload = payload.as_deref().map(json_argument).transpose()?.unwrap_or(Value::Null);
            let rest = format!("/signals/{}", crate::cli::client::component(&name));
            (path(&run, &rest), json!(SignalRequest { payload, id, by }))
        }
    };
    let (envelope, json) = client.post::<Orchestration>(&path, &request)?;
    let data = envelope.data;
    let note = data.run.note.as_deref().map_or(String::new(), |note| format!("  {}", without_ciphertext(note)));
    let mut text = format!(
        "{}  {}{note}\n",
        format.tone(escape_control(&data.run_id), Tone::Strong),
        format.tone(data.status.as_str(), status_tone(data.status)),
    );
    // The command was accepted, but the run is paused: show how it goes on.
    if !pauses && data.status == RunStatus::Paused && !data.conflicts.is_empty() {
        text.push_str("accepted; the run stays paused until its conflicts are resolved:\n");
        text.push_str(&show::conflicts(&data, format));
    } else if !pauses && data.status == RunStatus::Paused {
        text.push_str(&format!(
            "accepted; the run is paused, to resume it: pointsman runs resume {}\n",
            escape_control(&data.run_id)
        ));
    }
    Ok(Output { text, json, is_ok: true })
}

/// The attempt of the open conflict that is meant; `None` unless it is exactly one, of the run itself. The command
/// names the attempt, so that it cannot resolve a later conflict if it is delivered late or twice.
fn open_attempt(
    client: &Client,
    run: &str,
    is_meant: impl Fn(&OpenConflict) -> bool,
) -> Result<Option<u32>, CallError> {
    let (envelope, _) = client.get::<Orchestration>(&path(run, ""))?;
    let data = envelope.data;
    let mut meant = data.conflicts.iter().filter(|conflict| conflict.run_id == data.run_id && is_meant(conflict));
    Ok(meant.next().filter(|_| meant.next().is_none()).map(|conflict| conflict.attempt))
}

fn answer(client: &Client, answer: AnswerArgs, by: Option<String>) -> Result<(String, Value), CallError> {
    let AnswerArgs { run, checkpoint, yes, no, values, approve, strike, note, server: _ } = answer;
    let (run, checkpoint) = match checkpoint {
        Some(checkpoint) => (run, checkpoint),
        None => {
            let (envelope, _) = client.get::<Orchestration>(&path(&run, ""))?;
            let pending = envelope.data.pending_checkpoint.ok_or_else(|| {
                let message = format!("{run} has no open checkpoint: it is {}", envelope.data.status.as_str());
                CallError::Failed(message, format!("look with `pointsman runs show {run}`"))
            })?;
            // The checkpoint may be of a run that this run started.
            (pending.run_id, pending.id)
        }
    };
    let request = AnswerRequest {
        approve: (yes || no).then_some(yes),
        values: values.as_deref().map(json_argument).transpose()?,
        approved: approve,
        struck: strike,
        note,
        by,
    };
    let rest = format!("/checkpoints/{}", crate::cli::client::component(&checkpoint));
    Ok((path(&run, &rest), json!(request)))
}

fn choice_name(choice: Choice) -> ChoiceName {
    match choice {
        Choice::Retry => ChoiceName::Retry,
        Choice::RetryWith => ChoiceName::RetryWith,
        Choice::Skip => ChoiceName::Skip,
        Choice::Take => ChoiceName::Take,
        Choice::Fallback => ChoiceName::Fallback,
        Choice::Wait => ChoiceName::Wait,
        Choice::Cancel => ChoiceName::Cancel,
        Choice::CancelWithoutUndo => ChoiceName::CancelWithoutUndo,
    }
}
