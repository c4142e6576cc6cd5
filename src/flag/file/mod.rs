//! PURE. From what a file asks to what is checked: routes and services.
//!
//! The question it answers: "may these routes be in force, and if not, what must be mended?" Drafts are the shape of
//! the files and may be wrong in sense; a [`Route`](super::Route) or [`Service`](super::Service) comes only out of a
//! check that found no error. Every problem is reported, not only the first. Unknown keys and wrong types are found
//! before, by the JSON Schema of the drafts; `compare:` is handed on unread.

mod breaker;
mod draft;
mod family;
mod matching;
mod parts;
mod routes;
mod services;
mod words;

#[cfg(test)]
mod tests;

pub use breaker::{BreakerDraft, BreakerMapDraft};
pub use draft::{
    CallerDraft, CohortDraft, ForceDraft, GuardDraft, InstanceDraft, InvariantsDraft, JwtDraft, MatchDraft, OneOrMore,
    PathsDraft, PercentDraft, RouteDraft, RouteFileDraft, ServiceDraft, ServiceMapDraft, TokenDraft,
};
pub use routes::check_routes;
pub use services::check_service;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Service;
use crate::names::{ServiceName, WorkflowName};
use crate::problem::nearest;

/// What the files name beside the routes. `None` is a name whose own check failed: it is known, and is not reported a
/// second time.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The services.
    pub services: &'a BTreeMap<ServiceName, Option<Arc<Service>>>,
    /// The workflows.
    pub workflows: &'a BTreeMap<WorkflowName, Option<WorkflowFacts>>,
    /// Reads a file beside them: public keys. `None` where it may be absent here, and is.
    pub read: &'a dyn Fn(&str) -> Result<Option<String>, String>,
}

/// What a route's check wants to know of a workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkflowFacts {
    /// A step of it has a shared effect.
    pub shared_steps: bool,
}

/// What to do about a name that nobody knows.
fn meant<'a>(word: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(word, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => match known.collect::<Vec<_>>() {
            names if names.is_empty() => "there is none yet".to_owned(),
            names => format!("known: {}", names.join(", ")),
        },
    }
}
