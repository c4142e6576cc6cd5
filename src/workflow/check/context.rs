//! The context of a check: what a definition may refer to, and the problems found so far.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::expression::{Bounds, ReadPath};
use crate::limits::Limits;
use crate::names::ServiceName;
use crate::problem::{Problems, Site};
use crate::workflow::definition::StepDraft;
use crate::workflow::schema::{InvalidSchema, Schema};

/// What a definition may refer to.
#[derive(Clone, Copy)]
pub struct DeclaredNames<'a> {
    /// The services, and whether each honours `Idempotency-Key`.
    pub services: &'a BTreeMap<ServiceName, bool>,
    /// The names of the secrets.
    pub secrets: &'a BTreeSet<String>,
    /// Whether credentials of callers can be sealed.
    pub has_store_key: bool,
    /// The bounds in force.
    pub limits: &'a Limits,
}

/// The state that all parts of a check share.
pub(super) struct Check<'a> {
    pub(super) known: &'a DeclaredNames<'a>,
    /// Whether the definition was stored with a run; then a reference to something that the files in force lack is no
    /// error.
    pub(super) is_stored_definition: bool,
    pub(super) bounds: Bounds,
    /// All steps, in the order of the file.
    pub(super) steps: Vec<(&'a str, Site, StepDraft)>,
    /// Fallbacks of single items of a `for_each`.
    pub(super) item_fallbacks: BTreeSet<String>,
    /// How many lines the workflow's `risks` has.
    pub(super) risk_rules: usize,
    pub(super) streams: Streams,
    pub(super) problems: &'a mut Problems,
    /// All paths that were read.
    pub(super) reads: BTreeSet<ReadPath>,
}

/// Parses a draft; errors are reported.
pub(super) fn draft<D: DeserializeOwned>(source: &Value, site: &Site, problems: &mut Problems) -> Option<D> {
    match serde_json::from_value(source.clone()) {
        Ok(draft) => Some(draft),
        Err(error) => {
            problems.error(site, error.to_string());
            None
        }
    }
}

/// Compiles a schema of a file; errors are reported at their place in the schema.
pub(super) fn compiled(schema: &Value, site: &Site, problems: &mut Problems) -> Option<Schema> {
    let InvalidSchema { pointer, message } = match Schema::compile(schema) {
        Ok(compiled) => return Some(compiled),
        Err(wrong) => wrong,
    };
    let (mut at, mut inner) = (site.clone(), schema);
    for part in pointer.split('/').skip(1) {
        let key = part.replace("~1", "/").replace("~0", "~");
        let next = match inner {
            Value::Array(items) => key.parse().ok().and_then(|index: usize| Some((at.index(index), items.get(index)?))),
            value => value.get(&key).map(|value| (at.key(key.as_str()), value)),
        };
        let Some((site, value)) = next else { break };
        (at, inner) = (site, value);
    }
    problems.error(&at, format!("not a JSON Schema: {message}"));
    None
}

/// The steps that stream, while a workflow is checked.
#[derive(Default)]
pub(super) struct Streams {
    /// The step, if the template that is being checked is the whole body of an answer and nothing but a step's output.
    pub(super) whole_body: Option<String>,
    /// The steps whose output is the whole body of an answer.
    pub(super) answered: Vec<String>,
}
