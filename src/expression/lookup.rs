//! Looks up a constant path within a value.

use serde_json::Value;

use super::error::ExpressionError;
use super::node::{self, PathPart};
use super::scope::Scope;
use super::step_results::{OUTPUT, StepResults};
use super::value::{OPAQUE, kind};

/// The member or element that a part names.
pub(super) fn get<'v>(value: &'v Value, part: &PathPart) -> Option<&'v Value> {
    match (value, part) {
        (Value::Object(map), PathPart::Key(key)) => map.get(&**key),
        (Value::Array(list), PathPart::Index(index)) => list.get(*index),
        _ => None,
    }
}

/// Returns the value at the end of a path of constant parts below `value`; nothing is found within an opaque value. The
/// error names the whole absent path; `from` gives the text of the path to `value`.
pub(super) fn lookup<'v>(
    value: &'v Value,
    parts: &[PathPart],
    scope: &Scope,
    from: impl Fn() -> String,
) -> Result<&'v Value, ExpressionError> {
    let mut value = value;
    for (at, part) in parts.iter().enumerate() {
        let is_opaque = scope.is_opaque(value);
        value = get(value, part).filter(|_| !is_opaque).ok_or_else(|| {
            let mut error = ExpressionError::absent(node::path_text(&from(), &parts[..=at]));
            let holder = || node::path_text(&from(), &parts[..at]);
            if is_opaque {
                error.message = format!("{}: `{}` is {OPAQUE}", error.message, holder());
            } else if !matches!(value, Value::Object(_) | Value::Array(_))
                || matches!((value, part), (Value::Array(_), PathPart::Key(_)))
            {
                error.message = format!("{}: `{}` is {}", error.message, holder(), kind(value));
            }
            error
        })?;
    }
    Ok(value)
}

/// Like [`lookup`] in the object of the results of all steps, which has a member for each step. The object itself is
/// made only if `parts` is empty.
pub(super) fn lookup_in_results<'v>(
    results: &'v StepResults,
    parts: &[PathPart],
    scope: &Scope,
    root: impl Fn() -> String,
) -> Result<&'v Value, ExpressionError> {
    let Some((first, rest)) = parts.split_first() else { return Ok(results.whole()) };
    let fields = match first {
        PathPart::Key(step) => results.get(step),
        PathPart::Index(_) => None,
    };
    let fields = fields.ok_or_else(|| ExpressionError::absent(node::path_text(&root(), &parts[..1])))?;
    match (rest, fields.separate_output()) {
        ([], _) => Ok(fields.whole()),
        ([PathPart::Key(name), rest @ ..], Some(output)) if **name == *OUTPUT => {
            lookup(output, rest, scope, || node::path_text(&root(), &parts[..2]))
        }
        (rest, _) => lookup(fields.others(), rest, scope, || node::path_text(&root(), &parts[..1])),
    }
}
