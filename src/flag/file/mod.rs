//! PURE. Checks routes and services as files declare them.
//!
//! The question it answers: "may these routes be in force, and if not, what must be corrected?" Drafts have the form of
//! the files and may be invalid; only a check without errors builds a [`Route`](super::Route) or
//! [`Service`](super::Service). Every problem is reported, not only the first. Unknown keys and wrong types have been
//! found before, by the JSON Schema of the drafts; `compare:` is passed on unread.

mod addresses;
mod adopt;
mod auto;
mod breaker;
mod creates;
mod draft;
mod family;
mod guard;
mod instance;
mod invariants;
mod keep;
mod matching;
mod next_page;
mod parts;
mod paths;
mod promote;
mod redact;
mod relay_settings;
mod repeats;
mod routes;
mod service_tls;
mod services;
mod strata_key;
mod values;

#[cfg(test)]
mod tests;

pub use addresses::{EjectDraft, EjectMapDraft, HealthDraft, UrlDraft};
pub use adopt::{AdoptDraft, AdoptMapDraft};
pub use auto::AutoDraft;
pub use breaker::{BreakerDraft, BreakerMapDraft};
pub use creates::CreatesDraft;
pub use draft::{
    AliveDraft, CallerDraft, CohortDraft, ForceDraft, InstanceDraft, JwtDraft, KeepDraft, MatchDraft, OneOrMore,
    PathsDraft, PercentDraft, RouteDraft, RouteFileDraft, TokenDraft, UnknownDraft,
};
pub use guard::{GuardDraft, SLOW_RATE, guard, guard_by_default};
pub use invariants::{ConditionalDraft, InvariantDraft, InvariantsDraft};
pub use next_page::{NextCursorDraft, NextPageDraft};
pub use paths::{ServicePathsDraft, ServicePathsMapDraft};
pub use promote::{PromoteDraft, promote};
pub use redact::{DetectorDraft, RedactDraft, redact_rules};
pub use relay_settings::{SizeDraft, TimeoutsDraft};
pub use routes::check_routes;
pub use service_tls::{BuildTls, ServiceTlsDraft, server_name};
pub use services::{ServiceDraft, ServiceMapDraft, check_service};
pub use strata_key::check_strata_key;
pub use values::duration;
use values::suggest;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Guard, Promote, Service};
use crate::names::{ServiceName, WorkflowName};
use crate::secret::RedactRules;

/// The names that routes may use. `None` marks a name whose own check failed: it exists, and its errors are not
/// reported again.
#[derive(Clone, Copy)]
pub struct KnownNames<'a> {
    /// The services.
    pub services: &'a BTreeMap<ServiceName, Option<Arc<Service>>>,
    /// The workflows.
    pub workflows: &'a BTreeMap<WorkflowName, Option<WorkflowFacts>>,
    /// What the gates require of the evidence of a route that does not say otherwise.
    pub promote: &'a Promote,
    /// The guard of a route with a workflow that does not say otherwise; `None`: it has none.
    pub guard: Option<&'a Guard>,
    /// What is redacted in all routes, in addition to what each declares.
    pub redact: &'a RedactRules,
    /// Reads another file of the directory, with public keys. `None` if the file cannot be read and may be absent.
    pub read_file: &'a dyn Fn(&str) -> Result<Option<String>, String>,
}

/// What the check of a route needs to know of a workflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowFacts {
    /// Whether at least one step has a shared effect.
    pub shared_steps: bool,
    /// Whether at least one step has a private effect.
    pub private_steps: bool,
    /// Why its runs have to be kept, as the object of "has": "the shared step `charge`". `None` if they only read.
    pub reason_to_keep: Option<String>,
    /// The step that streams its reply, of which nothing is kept. `None` if no step does.
    pub streaming_step: Option<String>,
    /// Whether it tells legacy to release an instance (`release: true`).
    pub tells_legacy: bool,
}

impl WorkflowFacts {
    /// The effect class of steps that write something; `None` if there are none.
    fn writing_steps(&self) -> Option<&'static str> {
        let private = self.private_steps.then_some("private");
        if self.shared_steps { Some("shared") } else { private }
    }
}
