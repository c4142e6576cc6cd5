//! How the share of a route grows by itself within a state (`auto:`).

use std::time::Duration;

use super::state::{Percent, State};

/// How the share of a route grows by itself. It never takes the route to another state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auto {
    /// The shares, ascending; at least one.
    pub steps: Vec<Percent>,
    /// How long a share is in force at least before the next one.
    pub each: Duration,
    /// How many requests have to be answered by the engine with a share in `live`, or compared with it in `shadow` and
    /// `dark`, before the next one.
    pub at_least: u64,
}

impl Auto {
    /// The share after this one; `None` where no step is larger.
    pub fn next_after(&self, share: Percent) -> Option<Percent> {
        self.steps.iter().copied().find(|step| *step > share)
    }

    /// The share with which a move up to a state begins; `None` for states without shares.
    pub fn first(&self, state: State) -> Option<Percent> {
        self.steps.first().copied().filter(|_| Self::has_shares(state))
    }

    /// Whether shares grow in a state.
    pub fn has_shares(state: State) -> bool {
        matches!(state, State::Shadow | State::Dark | State::Live)
    }
}
