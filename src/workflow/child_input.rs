//! Builds the input of a child run.

use serde_json::Value;

use super::rules::SubRun;
use super::{Run, Step};
use crate::expression::{ExpressionError, ReadPath, Scope};

/// The body of the child run's request.
pub(super) fn child_input(
    run: &Run,
    step: &Step,
    child: &SubRun,
    item: Option<u32>,
    scope: &Scope,
) -> Result<Value, (Vec<ReadPath>, ExpressionError)> {
    match (run.inputs.get(&(step.id.clone(), item)), &child.input) {
        (Some(given), _) => Ok((**given).clone()),
        (None, Some(template)) => template.evaluate(scope).map_err(|error| (template.reads().to_vec(), error)),
        (None, None) => Ok(Value::Null),
    }
}
