//! What is said to a run.

use serde_json::{Value, json};

use super::{path, tone, value, who};
use crate::admin::types::{
    AdjustRequest, AnswerRequest, CancelRequest, ChoiceName, Orchestration, PauseRequest, RerunRequest, ResolveRequest,
    RetryRequest, RunStatus, SignalRequest, SkipRequest,
};
use crate::cli::Done;
use crate::cli::args::{Answer, Choice, OfStep, Plain, Resolve, Rest, Server};
use crate::cli::client::{CallError, Client};
use crate::cli::paint::{Paint, Tone, harmless};

/// One thing that is said.
pub(crate) enum Said {
    Pause(Plain),
    Resume(Plain),
    Cancel { no_undo: bool, plain: Plain },
    Skip { of: OfStep, rest: Rest },
    Adjust { of: OfStep, item: Option<u32>, input: String, rest: Rest },
    Retry { run: String, step: Option<String>, server: Server },
    Rerun { run: String, from: String, server: Server },
    Resolve(Resolve),
    Answer(Answer),
    Signal { run: String, name: String, payload: Option<String>, id: Option<String>, server: Server },
}

impl Said {
    /// Of whom it is asked.
    pub(crate) fn server(&self) -> &Server {
        match self {
            Said::Pause(plain) | Said::Resume(plain) | Said::Cancel { plain, .. } => &plain.rest.server,
            Said::Skip { rest, .. } | Said::Adjust { rest, .. } => &rest.server,
            Said::Retry { server, .. } | Said::Rerun { server, .. } | Said::Signal { server, .. } => server,
            Said::Resolve(resolve) => &resolve.rest.server,
            Said::Answer(answer) => &answer.server,
        }
    }
}

/// Says it, and shows where the run stands after it.
pub(crate) fn say(client: &Client, said: Said, paint: Paint) -> Result<Done, CallError> {
    let by = who(said.server());
    let pauses = matches!(said, Said::Pause(_));
    let (path, ask) = match said {
        Said::Pause(Plain { run, rest }) => (path(&run, "/pause"), json!(PauseRequest { reason: rest.reason, by })),
        Said::Resume(Plain { run, rest }) => (path(&run, "/resume"), json!(PauseRequest { reason: rest.reason, by })),
        Said::Cancel { no_undo, plain: Plain { run, rest } } => {
            (path(&run, "/cancel"), json!(CancelRequest { compensate: !no_undo, reason: rest.reason, by }))
        }
        Said::Skip { of: OfStep { run, step }, rest } => {
            (path(&run, "/skip"), json!(SkipRequest { step, reason: rest.reason, by }))
        }
        Said::Adjust { of: OfStep { run, step }, item, input, rest } => {
            (path(&run, "/adjust"), json!(AdjustRequest { step, item, input: value(&input)?, reason: rest.reason, by }))
        }
        Said::Retry { run, step, server: _ } => (path(&run, "/retry"), json!(RetryRequest { step, by })),
        Said::Rerun { run, from, server: _ } => (path(&run, "/rerun"), json!(RerunRequest { from, by })),
        Said::Resolve(resolve) => {
            let Resolve { of: OfStep { run, step }, choice, item, input, output, no_undo, rest } = resolve;
            let ask = ResolveRequest {
                step,
                item,
                choice: named(choice),
                input: input.as_deref().map(value).transpose()?,
                output: output.as_deref().map(value).transpose()?,
                compensate: (choice == Choice::Cancel).then_some(!no_undo),
                reason: rest.reason,
                by,
            };
            (path(&run, "/resolve"), json!(ask))
        }
        Said::Answer(answer) => self::answer(client, answer, by)?,
        Said::Signal { run, name, payload, id, server: _ } => {
            let payload = payload.as_deref().map(value).transpose()?.unwrap_or(Value::Null);
            let rest = format!("/signals/{}", crate::cli::client::component(&name));
            (path(&run, &rest), json!(SignalRequest { payload, id, by }))
        }
    };
    let (envelope, json) = client.post::<Orchestration>(&path, &ask)?;
    let data = envelope.data;
    let note = data.run.note.as_deref().map_or(String::new(), |note| format!("  {}", harmless(note)));
    let mut text = format!(
        "{}  {}{note}\n",
        paint.tone(harmless(&data.run_id), Tone::Strong),
        paint.tone(data.status.as_str(), tone(data.status)),
    );
    // What was said is done; that the run stands still has another reason.
    if !pauses && data.status == RunStatus::Paused && data.conflicts.is_empty() {
        text.push_str(&format!("taken; to go on: pointsman runs resume {}\n", harmless(&data.run_id)));
    }
    Ok(Done { text, json, fine: true })
}

fn answer(client: &Client, answer: Answer, by: Option<String>) -> Result<(String, Value), CallError> {
    let Answer { run, checkpoint, yes, no, values, approve, strike, note, server: _ } = answer;
    let (run, checkpoint) = match checkpoint {
        Some(checkpoint) => (run, checkpoint),
        None => {
            let (envelope, _) = client.get::<Orchestration>(&path(&run, ""))?;
            let pending = envelope.data.pending_checkpoint.ok_or_else(|| {
                let message = format!("{run} asks nothing: it is {}", envelope.data.status.as_str());
                CallError::Unreachable(message, format!("look with `pointsman runs show {run}`"))
            })?;
            // It may be one that the run began.
            (pending.run_id, pending.id)
        }
    };
    let ask = AnswerRequest {
        approve: (yes || no).then_some(yes),
        values: values.as_deref().map(value).transpose()?,
        approved: approve,
        struck: strike,
        note,
        by,
    };
    let rest = format!("/checkpoints/{}", crate::cli::client::component(&checkpoint));
    Ok((path(&run, &rest), json!(ask)))
}

fn named(choice: Choice) -> ChoiceName {
    match choice {
        Choice::Retry => ChoiceName::Retry,
        Choice::RetryWith => ChoiceName::RetryWith,
        Choice::Skip => ChoiceName::Skip,
        Choice::Take => ChoiceName::Take,
        Choice::Fallback => ChoiceName::Fallback,
        Choice::Wait => ChoiceName::Wait,
        Choice::Cancel => ChoiceName::Cancel,
    }
}
