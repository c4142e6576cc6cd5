//! Whether a query of a lock, a child or the run's commands is in flight, and whether it has to be repeated.
//!
//! Always true: at most one query of the same lock, child or list of commands is in flight. A change that is notified
//! meanwhile makes the result stale, and the query is repeated once it completes, so no change is missed.

/// The state of the query of one lock, one child or the run's commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum QueryState {
    #[default]
    Idle,
    /// A query is in flight; its result is stale if something has changed since it was sent.
    InFlight { stale: bool },
}

impl QueryState {
    /// Notes that something may have changed. Returns whether a query has to be sent now.
    pub fn request(&mut self) -> bool {
        let is_idle = self.is_idle();
        *self = QueryState::InFlight { stale: !is_idle };
        is_idle
    }
    /// Notes that the query has completed. Returns whether it has to be repeated.
    pub fn complete(&mut self) -> bool {
        std::mem::take(self) == QueryState::InFlight { stale: true }
    }
    pub fn is_idle(self) -> bool {
        self == QueryState::Idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_during_a_query_cause_exactly_one_more_query() {
        let mut query = QueryState::default();
        assert!(query.request() && !query.request() && !query.request());
        assert!(query.complete() && query.is_idle());
        assert!(query.request() && !query.complete(), "one more, however many changes there were");
        assert!(!query.complete(), "completing without a query changes nothing");
    }
}
