//! What the engine's desk refuses, as problems.

use http::StatusCode;

use crate::admin::problem::Refusal;
use crate::admin::types::{FirstAnswer, ValueError};
use crate::engine::{NotDone, NotStarted};
use crate::workflow::{self, RunSummary, Said};
use serde_json::Value;

impl Refusal {
    /// Values that a schema refuses: each with its JSON pointer, below a place of the body.
    pub(super) fn values(title: &str, wrong: Vec<String>, below: &str) -> Self {
        let errors: Vec<ValueError> = wrong
            .iter()
            .map(|text| match text.split_once(": ").filter(|(pointer, _)| pointer.starts_with('/')) {
                Some((pointer, detail)) => {
                    ValueError { pointer: format!("{below}{pointer}"), detail: detail.to_owned() }
                }
                None => ValueError { pointer: below.to_owned(), detail: text.clone() },
            })
            .collect();
        let mut refusal = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "values", title, wrong.join("; ")).reasons(wrong);
        refusal.0.errors = errors;
        refusal
    }

    /// A start, or a rerun, that was not made.
    pub(super) fn not_started(error: NotStarted) -> Self {
        const TITLE: &str = "Nothing was started";
        let text = error.to_string();
        match error {
            NotStarted::NoWorkflow { workflow, known } => {
                Self::unknown("workflow", &workflow, known.iter().map(String::as_str))
            }
            NotStarted::BadInput(wrong) => Self::values("The input is not what the workflow takes", wrong, "/input"),
            NotStarted::KeyOfOther(run) => {
                let mut refusal = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "key-of-other", TITLE, text)
                    .hint("repeat a start with the same body, or give it a key of its own");
                refusal.0.run_id = Some(run.to_string());
                refusal
            }
            NotStarted::NotNow(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-now", TITLE, text).hint("nothing was done: try again")
            }
            NotStarted::NoSense(_) => Self::new(StatusCode::CONFLICT, "no-sense", TITLE, text),
            NotStarted::NoStep => Self::no_step(text),
            NotStarted::NoRun => Self::no_run("it"),
            NotStarted::Store { why, unknown } => store(TITLE, why, unknown.then_some(
                "whether it was started is unknown: ask again with the same idempotency key, or look with `runs list`",
            )),
        }
    }

    /// An order that was not carried out.
    pub(super) fn not_done(error: NotDone, run: &str) -> Self {
        const TITLE: &str = "The run does not take this";
        let text = error.to_string();
        match error {
            NotDone::NoRun => Self::no_run(run),
            NotDone::Refused { run, refusal } => Self::refused(&run, refusal),
            NotDone::Unreadable(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "damaged-run", TITLE, text),
            NotDone::Store { why, unknown } => {
                store(TITLE, why, unknown.then_some("whether it was done is unknown: look at the run"))
            }
        }
    }

    fn refused(run: &RunSummary, refusal: workflow::Refusal) -> Self {
        use workflow::Refusal as Why;
        let text = refusal.to_string();
        let conflict = |kind: &str, title: &str| Self::new(StatusCode::CONFLICT, kind, title, text.clone());
        let mut problem = match refusal {
            Why::Ended => conflict("run-ended", "The run has ended"),
            Why::NotDue(_) | Why::EffectsBegun | Why::Answered | Why::NoSense(_) => {
                conflict("no-sense", "It makes no sense where the run stands")
            }
            Why::NoSuchStep => Self::no_step(text),
            Why::NoSuchCheckpoint => {
                Self::new(StatusCode::NOT_FOUND, "unknown-checkpoint", "There is no such checkpoint", text)
            }
            Why::AnsweredBefore { by, said, seq } => {
                let mut refusal = conflict("answered-before", "The checkpoint has an answer");
                refusal.0.first = Some(Box::new(first(by, *said, seq.0)));
                refusal
            }
            Why::NotYours(_) => Self::new(StatusCode::FORBIDDEN, "not-yours", "Somebody else has to say this", text),
            Why::BadValues(wrong) => Self::values("The answer is not what was asked for", wrong, "/values"),
        };
        problem.0.run_id = Some(run.run_id.to_string());
        problem.0.run_status = Some(run.status);
        problem
    }

    fn no_step(text: String) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown-step", "There is no such step", text)
    }

    /// A run whose events were purged.
    pub(super) fn purged(run: &RunSummary) -> Self {
        let detail = format!("the events of {} were purged; it ended as {}", run.run_id, run.status.as_str());
        let mut refusal = Self::new(StatusCode::GONE, "purged", "The run's events are gone", detail);
        refusal.0.run_id = Some(run.run_id.to_string());
        refusal.0.run_status = Some(run.status);
        refusal
    }

    /// Events that this binary cannot fold.
    pub(super) fn damaged(error: impl std::fmt::Display) -> Self {
        let title = "The run's events cannot be read";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "damaged-run", title, error.to_string())
    }
}

fn store(title: &str, why: String, unknown: Option<&str>) -> Refusal {
    let hint = unknown.unwrap_or("nothing was done: try again");
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "store", title, why).hint(hint)
}

fn first(by: String, said: Said, seq: u64) -> FirstAnswer {
    let Said { approve, values, approved, struck, note } = said;
    let values = values.map_or(Value::Null, |values| (*values).clone());
    FirstAnswer { by, at: None, seq, approve, values, approved, struck, note }
}
