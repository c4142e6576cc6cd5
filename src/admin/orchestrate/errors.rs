//! Converts the engine's refusals and errors to errors of the API.

use http::StatusCode;

use crate::admin::error::ApiError;
use crate::admin::types::{FirstAnswer, ValueError};
use crate::engine::{CommandError, StartError};
use crate::workflow::{self, CheckpointAnswer, RunSummary};
use serde_json::Value;

impl ApiError {
    /// 422: values that a schema refuses, each with its JSON pointer; `base` is the pointer of the validated part.
    pub(super) fn values(title: &str, wrong: Vec<String>, base: &str) -> Self {
        let errors: Vec<ValueError> = wrong
            .iter()
            .map(|text| match text.split_once(": ").filter(|(pointer, _)| pointer.starts_with('/')) {
                Some((pointer, detail)) => {
                    ValueError { pointer: format!("{base}{pointer}"), detail: detail.to_owned() }
                }
                None => ValueError { pointer: base.to_owned(), detail: text.clone() },
            })
            .collect();
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "values", title, wrong.join("; ")).reasons(wrong);
        error.0.errors = errors;
        error
    }

    /// The response to a start or rerun that was refused.
    pub(super) fn not_started(error: StartError) -> Self {
        const TITLE: &str = "Nothing was started";
        let text = error.to_string();
        match error {
            StartError::UnknownWorkflow { workflow, known } => {
                Self::unknown("workflow", &workflow, known.iter().map(String::as_str))
            }
            StartError::BadInput(wrong) => Self::values("The input is not what the workflow takes", wrong, "/input"),
            StartError::KeyReused(run) => {
                let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "key-of-other", TITLE, text)
                    .hint("repeat the first start as it was (workflow and body), or use another key");
                error.0.run_id = Some(run.to_string());
                error
            }
            StartError::Unavailable(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-now", TITLE, text).hint("nothing was done: try again")
            }
            StartError::Invalid(_) => Self::new(StatusCode::CONFLICT, "not-applicable", TITLE, text),
            StartError::NoStep => Self::no_step(text),
            StartError::NoRun => Self::new(StatusCode::NOT_FOUND, "unknown-run", "There is no such run", text),
            StartError::Store { why, unknown: false } => store_error(TITLE, why, None),
            StartError::Store { why, unknown: true } => store_error(
                "Whether the run was started is unknown",
                why,
                Some("repeat the start with the same idempotency key, or look with `runs list`"),
            ),
        }
    }

    /// The response to a command that was refused or failed.
    pub(super) fn command_failed(error: CommandError, run: &str) -> Self {
        const TITLE: &str = "The run refused the command";
        let text = error.to_string();
        match error {
            CommandError::NoRun => Self::no_run(run),
            CommandError::Refused { run, refusal } => Self::refused(&run, refusal),
            CommandError::Unreadable(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "damaged-run", TITLE, text),
            CommandError::Store { why, unknown: false } => store_error("The command was not carried out", why, None),
            CommandError::Store { why, unknown: true } => {
                store_error("Whether the command was carried out is unknown", why, Some("look at the run"))
            }
        }
    }

    fn refused(run: &RunSummary, refusal: workflow::CommandRefusal) -> Self {
        use workflow::CommandRefusal;
        let text = refusal.to_string();
        let conflict = |kind: &str, title: &str| Self::new(StatusCode::CONFLICT, kind, title, text.clone());
        let mut problem = match refusal {
            CommandRefusal::Ended => conflict("run-ended", "The run has ended"),
            CommandRefusal::NotDue(_)
            | CommandRefusal::EffectsBegun
            | CommandRefusal::Answered
            | CommandRefusal::NotApplicable(_) => {
                conflict("not-applicable", "The command does not apply in the run's present state")
            }
            CommandRefusal::NoSuchStep => Self::no_step(text),
            CommandRefusal::NoSuchCheckpoint => {
                Self::new(StatusCode::NOT_FOUND, "unknown-checkpoint", "There is no such checkpoint", text)
            }
            CommandRefusal::AnsweredBefore { by, said, seq } => {
                let mut error = conflict("answered-before", "The checkpoint has been answered");
                error.0.first = Some(Box::new(first_answer(by, *said, seq.0)));
                error
            }
            CommandRefusal::NotYours(_) => {
                Self::new(StatusCode::FORBIDDEN, "not-yours", "Somebody else has to give this answer", text)
            }
            CommandRefusal::BadValues(wrong) => {
                Self::values("The answer does not have the form that the checkpoint asks for", wrong, "/values")
            }
        };
        problem.0.run_id = Some(run.run_id.to_string());
        problem.0.run_status = Some(run.status);
        problem
    }

    fn no_step(text: String) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown-step", "There is no such step", text)
    }

    /// 410: the run's events were purged by retention.
    pub(super) fn purged(run: &RunSummary) -> Self {
        let mut error = Self::new(StatusCode::GONE, "purged", "The run's events are gone", run.purged_message());
        error.0.run_id = Some(run.run_id.to_string());
        error.0.run_status = Some(run.status);
        error
    }

    /// 500: events that this version cannot read.
    pub(super) fn damaged(error: impl std::fmt::Display) -> Self {
        let title = "The run's events cannot be read";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "damaged-run", title, error.to_string())
    }
}

fn store_error(title: &str, why: String, hint_if_unknown: Option<&str>) -> ApiError {
    let hint = hint_if_unknown.unwrap_or("nothing was done: try again");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "store", title, why).hint(hint)
}

fn first_answer(by: String, said: CheckpointAnswer, seq: u64) -> FirstAnswer {
    let CheckpointAnswer { approve, values, approved, struck, note } = said;
    let values = values.map_or(Value::Null, |values| (*values).clone());
    FirstAnswer { by, at: None, seq, approve, values, approved, struck, note }
}
