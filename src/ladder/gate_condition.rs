//! The conditions of the gates other than evidence. The parts of the process that know instances and retry keys
//! implement them; the ladder also asks them a few other questions.

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::flag::{Family, Route, State};
use crate::names::RouteId;
use crate::store::StoreError;

/// A condition of a gate that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// A sentence.
    pub why: String,
    /// Since when the condition does not hold; `None` if that is not known. A flip by force from before that time does
    /// not override it.
    pub since: Option<Timestamp>,
}

impl From<String> for Unmet {
    fn from(why: String) -> Self {
        Self { why, since: None }
    }
}

/// A condition of the gates other than evidence.
pub trait GateCondition: Send + Sync {
    /// Why this move up is not allowed; empty if it is. `--force` with a reason overrides it.
    fn unmet(&self, _route: &Route, _from: State, _to: State) -> Vec<Unmet> {
        Vec::new()
    }
    /// Whether other processes that share the store have, or may have, other flag files.
    fn files_differ(&self) -> bool {
        false
    }
    /// The instances of a family that legacy has and that have not ended, as they were at the last
    /// [`GateCondition::ask_about_instances`]; `None` if this condition does not count instances.
    fn instances_at_legacy(&self, _family: &Family, _creator: &Route) -> Option<InstancesAtLegacy> {
        None
    }
    /// Brings [`GateCondition::instances_at_legacy`] up to date. Ends within a bounded time, whatever fails.
    fn ask_about_instances<'a>(&'a self, _family: &'a Family, _creator: &'a Route) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
    /// Notes that legacy may have created instances whose ids are not known. `creator`: the oldest id of their creator.
    /// When this returns, the note is in the store.
    ///
    /// # Errors
    /// The store does not take it.
    fn note_unknown_instances<'a>(&'a self, _creator: &'a RouteId) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    /// Describes the requests of any of these routes that legacy served and whose retry keys are not known. They keep
    /// the gate to `live` shut, and a route in `live` is held below it, unless a flip by force came after the last of
    /// these requests or the route's file has `force`.
    fn unknown_retries(&self, _routes: &[&RouteId]) -> Vec<UnknownRetries> {
        Vec::new()
    }
    /// Whether this condition does not hold for the route until a person accepts that ([`GateCondition::accept`]). If
    /// so, a flip by force to the state that the route has counts as a change. Must not wait.
    fn awaits_acceptance(&self, _route: &Route) -> bool {
        false
    }
    /// Accepts what came up for this route until the time `at`. Called once a person's flip by force to `live`, to
    /// `only` or to the state that the route had is in force. Must not wait. Does nothing for a condition that waits
    /// for no person.
    fn accept(&self, _route: &Route, _at: Timestamp) {}
}

/// The instances of a family that legacy has and that have not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstancesAtLegacy {
    /// How many are known.
    pub alive: u64,
    /// Whether there are others, whose ids are not known.
    pub has_unknown: bool,
    /// When a request first showed the oldest one.
    pub oldest: Option<Timestamp>,
    /// Why the number is not known now, as the end of a sentence.
    pub inconclusive: Option<String>,
}

/// Requests that legacy served and whose retry keys are not known: the engine would perform a retry of one of them a
/// second time.
#[derive(Clone, Debug)]
pub struct UnknownRetries {
    /// When the newest cause came up. A cause is what makes it possible that the engine performs such a retry, such as
    /// a change of the files.
    pub cause_at: Timestamp,
    /// From this time on no such retry can come.
    pub until: Timestamp,
    /// Which requests these are, and until when their retries may come, as the end of a sentence.
    pub why: String,
}
