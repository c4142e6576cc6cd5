//! How an answered request reaches the arm that nobody waits for.

use std::fmt;
use std::sync::Arc;

use super::Answered;
use crate::flag::SkipReason;
use crate::names::RouteId;

/// Takes answered requests to the other arm. Neither method is async and neither waits: what cannot be taken is
/// settled as skipped.
pub trait Offer: Send + Sync {
    /// Opens the account of one request that should be compared. It must be settled; a dropped ticket settles itself.
    fn open(&self, route: &RouteId) -> Ticket;
    /// Hands over an answered request, or settles its ticket as skipped where the queue is full.
    fn offer(&self, ticket: Ticket, answered: Answered);
    /// Whether the shadow executor can take a copy at all now: a cheap look before bodies are captured.
    fn has_room(&self) -> bool;
}

/// How a request that should have been compared ended: exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Equal.
    Matched,
    /// Equal by rule.
    Ignored,
    /// Different.
    Mismatched,
    /// Not compared, and why.
    Skipped(SkipReason),
    /// The engine or the comparison failed, and how: a closed set of labels.
    Failed(&'static str),
}

impl Outcome {
    /// Whether an engine instance is missing where this is the end: not where legacy made none either.
    fn leaves_a_gap(self) -> bool {
        !matches!(
            self,
            Outcome::Skipped(
                SkipReason::LegacyRefused | SkipReason::LegacyFailed | SkipReason::Retried | SkipReason::NoTwin
            )
        )
    }
}

/// Who keeps the account: counts `offered` and the outcome together, so that the sum holds at every scrape.
pub trait Settle: Send + Sync {
    /// One request of `route` has ended as `outcome`. Called exactly once for each ticket.
    fn settle(&self, route: &RouteId, outcome: Outcome);
    /// One request of `route` on dark has ended without a durable run. Called at most once for each ticket, before it
    /// is settled.
    fn without_twin(&self, route: &RouteId) {
        let _ = route;
    }
}

/// The right and the duty to say once how a request ended.
pub struct Ticket {
    route: RouteId,
    account: Option<Arc<dyn Settle>>,
    on_drop: Outcome,
    twin_missing: bool,
}

impl Ticket {
    /// Opens an account. Until told otherwise, dropping it means that the client went away.
    pub fn new(route: RouteId, account: Arc<dyn Settle>) -> Self {
        Self {
            route,
            account: Some(account),
            on_drop: Outcome::Skipped(SkipReason::ClientWentAway),
            twin_missing: false,
        }
    }
    /// The route.
    pub fn route(&self) -> &RouteId {
        &self.route
    }
    /// What a drop without a word will mean from now on.
    pub fn on_drop(&mut self, outcome: Outcome) {
        self.on_drop = outcome;
    }
    /// The request is on dark: from now until [`Ticket::has_twin`], its end is an end without a durable run.
    pub fn wants_twin(&mut self) {
        self.twin_missing = true;
    }
    /// The engine has made a durable run of it.
    pub fn has_twin(&mut self) {
        self.twin_missing = false;
    }
    /// Ends it.
    pub fn settle(mut self, outcome: Outcome) {
        self.end(outcome);
    }
    fn end(&mut self, outcome: Outcome) {
        if let Some(account) = self.account.take() {
            if self.twin_missing && outcome.leaves_a_gap() {
                account.without_twin(&self.route);
            }
            account.settle(&self.route, outcome);
        }
    }
    /// Ends it as skipped.
    pub fn skip(self, reason: SkipReason) {
        self.settle(Outcome::Skipped(reason));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end(self.on_drop);
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", self.route)
    }
}

/// How the engine served a caller in `live` or `only`: what the gate to `only` and the guard look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Served {
    /// It answered (also with a declared 4xx).
    Answered,
    /// It gave the request back and legacy answered.
    FellBack,
    /// The caller got a problem.
    Error,
    /// The caller got a problem and it is unknown what was done.
    Unknown,
}

/// Hears of every answer of the engine.
pub trait Watch: Send + Sync {
    /// The engine served one request of a route.
    fn served(&self, route: &RouteId, served: Served);
}
