//! Checks the input in a run's history against the schema of another plan.
//!
//! Always true: an input is refused only for what the history shows. It does not show sealed values, nor parts of the
//! request that the run's plan did not read.

use serde_json::Value;

use super::schema::SchemaError;
use super::{Plan, RunStarted};
use crate::secret::SEALED;

/// Checks the recorded body of the request.
///
/// # Errors
/// What is wrong with it, at most a few sentences.
pub(super) fn check_recorded_input(started: &RunStarted, plan: &Plan) -> Result<(), Vec<String>> {
    let (Some(schema), Some(body)) = (&plan.input, started.request.get("body")) else { return Ok(()) };
    let mut sealed = Vec::new();
    if started.sensitive {
        add_sealed(body, &mut Vec::new(), &mut sealed);
    }
    schema.check_where(body, |error| {
        let at = names(error.at());
        let missing = error.missing_property().map(str::to_owned);
        let is_unread = missing.is_some_and(|missing| !is_kept(plan, at.iter().chain(std::iter::once(&missing))));
        !is_unread && !may_follow_from(&sealed, error, &at)
    })
}

/// Whether the error may follow from the form of sealed values, instead of from the values themselves.
fn may_follow_from(sealed: &[Vec<String>], error: &SchemaError<'_>, at: &[String]) -> bool {
    let shares_path = |sealed: &Vec<String>| sealed.iter().zip(at).all(|(sealed, at)| sealed == at);
    let error_is_above = |sealed: &Vec<String>| sealed.len() > at.len();
    let follows = |sealed: &Vec<String>| shares_path(sealed) && !(error_is_above(sealed) && error.is_about_members());
    // An `if` may read any part of the value.
    (error.is_conditional() && !sealed.is_empty()) || sealed.iter().any(follows)
}

/// Whether a run of this plan stores this part of the request's body. Lists are stored whole.
fn is_kept<'a>(plan: &Plan, at: impl Iterator<Item = &'a String> + Clone) -> bool {
    let of_body = plan.reads.iter().filter(|path| path.root() == "request");
    of_body.map(|path| &path.0[1..]).any(|read| {
        let Some((part, read)) = read.split_first() else { return true };
        let mut names = at.clone().zip(read);
        let is_index = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        let other = names.find(|(name, read)| name.as_str() != &***read);
        &**part == "body" && other.is_none_or(|(name, _)| is_index(name))
    })
}

/// The names in a JSON pointer.
fn names(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~")).collect()
}

/// Adds the paths to texts that are or contain a sealed value.
fn add_sealed(value: &Value, at: &mut Vec<String>, sealed: &mut Vec<Vec<String>>) {
    match value {
        Value::String(text) if text.contains(SEALED[0]) => sealed.push(at.clone()),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                at.push(index.to_string());
                add_sealed(item, at, sealed);
                at.pop();
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                at.push(name.clone());
                add_sealed(member, at, sealed);
                at.pop();
            }
        }
        Value::String(_) | Value::Number(_) | Value::Null | Value::Bool(_) => {}
    }
}
