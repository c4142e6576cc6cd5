//! PURE. What a call says of its service.
//!
//! Always true: an answer below 500 is a success, also 429 and what a step does not accept: the service is well enough
//! to say so. What did not come back is a failure, unless it was our own queue that took the time.

use std::time::Duration;

use crate::engine::ports::breaker::CallOutcome;
use crate::workflow::AttemptResult;

/// When a call did what, since some fixed instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// It asked for its turn.
    pub came: Duration,
    /// It had its turn.
    pub began: Duration,
    /// Its time is over.
    pub ends: Duration,
    /// It was over.
    pub heard: Duration,
}

/// What became of it; `too_slow` judges an answer by how long it took.
pub(super) fn of(heard: &AttemptResult, times: Times, too_slow: impl Fn(Duration) -> bool) -> CallOutcome {
    let Times { came, began, ends, heard: over } = times;
    // It ran out of time, of which it spent more in our queue than at the service.
    let crowded = over >= ends && began.saturating_sub(came) > ends.saturating_sub(began);
    match heard {
        AttemptResult::Reply { status: 500.., .. } | AttemptResult::Unreadable { status: 500.., .. } => {
            CallOutcome::Failed
        }
        AttemptResult::Reply { .. } | AttemptResult::Unreadable { .. } if too_slow(over.saturating_sub(began)) => {
            CallOutcome::Failed
        }
        AttemptResult::Reply { .. } | AttemptResult::Unreadable { .. } => CallOutcome::Succeeded,
        AttemptResult::NotSent(_) | AttemptResult::TimedOut(_) | AttemptResult::CutOff(_) if crowded => {
            CallOutcome::Inconclusive
        }
        AttemptResult::NotSent(_) | AttemptResult::TimedOut(_) | AttemptResult::CutOff(_) => CallOutcome::Failed,
        AttemptResult::Interrupted
        | AttemptResult::BreakerOpen { .. }
        | AttemptResult::Withheld(_)
        | AttemptResult::Missing(_) => CallOutcome::Inconclusive,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }
    fn times(began: u64, heard: u64) -> Times {
        Times { came: ms(0), began: ms(began), ends: ms(100), heard: ms(heard) }
    }
    fn reply(status: u16) -> AttemptResult {
        AttemptResult::Reply { status, headers: Default::default(), output: Arc::default(), retry_after_ms: None }
    }

    #[test]
    fn an_answer_below_500_is_a_success() {
        for status in [200, 302, 404, 409, 422, 423, 429] {
            assert_eq!(of(&reply(status), times(0, 1), |_| false), CallOutcome::Succeeded, "{status}");
        }
        for status in [500, 502, 503, 504, 599] {
            assert_eq!(of(&reply(status), times(0, 1), |_| false), CallOutcome::Failed, "{status}");
        }
        let unreadable = |status| AttemptResult::Unreadable { status, why: "x".into(), begins: "[[[".into() };
        assert_eq!(of(&unreadable(200), times(0, 1), |_| false), CallOutcome::Succeeded);
        assert_eq!(of(&unreadable(500), times(0, 1), |_| false), CallOutcome::Failed);
    }

    #[test]
    fn slow_is_from_its_turn_on() {
        let slow = |took| took > ms(20);
        assert_eq!(of(&reply(200), times(50, 70), slow), CallOutcome::Succeeded);
        assert_eq!(of(&reply(200), times(50, 71), slow), CallOutcome::Failed);
    }

    #[test]
    fn our_own_queue_is_not_the_services_fault() {
        let silent = [
            AttemptResult::NotSent("x".into()),
            AttemptResult::TimedOut("x".into()),
            AttemptResult::CutOff("x".into()),
        ];
        for heard in silent {
            assert_eq!(of(&heard, times(0, 100), |_| false), CallOutcome::Failed, "{heard:?}");
            assert_eq!(of(&heard, times(49, 100), |_| false), CallOutcome::Failed, "{heard:?}");
            assert_eq!(of(&heard, times(51, 100), |_| false), CallOutcome::Inconclusive, "{heard:?}");
            assert_eq!(of(&heard, times(51, 60), |_| false), CallOutcome::Failed, "refused at once: {heard:?}");
        }
    }
}
