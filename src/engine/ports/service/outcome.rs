//! PURE. Classifies the result of a call by what it shows about the health of its service.
//!
//! Always true: an answer below 500 is a success unless it was too slow, even a 429 or a status that the step does not
//! accept, because the service is able to answer. A call that got no connection or no complete answer is a failure,
//! unless it ran out of time after our own queue had taken most of it. A call that this process held back, or that the
//! end of a process interrupted, says nothing about the service.

use std::time::Duration;

use crate::engine::ports::breaker::CallOutcome;
use crate::workflow::AttemptResult;

/// The times of a call, since some fixed instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// When it requested its permit.
    pub requested_at: Duration,
    /// When it got the permit.
    pub granted_at: Duration,
    /// When it times out.
    pub deadline: Duration,
    /// When it ended.
    pub ended_at: Duration,
}

/// The outcome of a call; `is_too_slow` judges an answer by how long it took.
pub(super) fn of(result: &AttemptResult, times: Times, is_too_slow: impl Fn(Duration) -> bool) -> CallOutcome {
    let Times { requested_at, granted_at, deadline, ended_at } = times;
    // It timed out after it had spent more time in our queue than was left for the service.
    let was_queued_too_long =
        ended_at >= deadline && granted_at.saturating_sub(requested_at) > deadline.saturating_sub(granted_at);
    match result {
        AttemptResult::Reply { status: 500.., .. } | AttemptResult::Unreadable { status: 500.., .. } => {
            CallOutcome::Failed
        }
        AttemptResult::Reply { .. } | AttemptResult::Unreadable { .. }
            if is_too_slow(ended_at.saturating_sub(granted_at)) =>
        {
            CallOutcome::Failed
        }
        AttemptResult::Reply { .. } | AttemptResult::Unreadable { .. } => CallOutcome::Succeeded,
        AttemptResult::NotSent(_) | AttemptResult::TimedOut(_) | AttemptResult::CutOff(_) if was_queued_too_long => {
            CallOutcome::Inconclusive
        }
        AttemptResult::NotSent(_) | AttemptResult::TimedOut(_) | AttemptResult::CutOff(_) => CallOutcome::Failed,
        AttemptResult::Interrupted
        | AttemptResult::BreakerOpen { .. }
        | AttemptResult::OverRate { .. }
        | AttemptResult::Withheld(_)
        | AttemptResult::Withdrawn
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
    fn times(granted_at: u64, ended_at: u64) -> Times {
        Times { requested_at: ms(0), granted_at: ms(granted_at), deadline: ms(100), ended_at: ms(ended_at) }
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
        let unreadable = |status| AttemptResult::Unreadable { status, why: "x".into(), body_start: "[[[".into() };
        assert_eq!(of(&unreadable(200), times(0, 1), |_| false), CallOutcome::Succeeded);
        assert_eq!(of(&unreadable(500), times(0, 1), |_| false), CallOutcome::Failed);
    }

    #[test]
    fn slowness_counts_from_the_permit_on() {
        let slow = |took| took > ms(20);
        assert_eq!(of(&reply(200), times(50, 70), slow), CallOutcome::Succeeded);
        assert_eq!(of(&reply(200), times(50, 71), slow), CallOutcome::Failed);
    }

    #[test]
    fn time_in_our_own_queue_is_not_held_against_the_service() {
        let without_answer = [
            AttemptResult::NotSent("x".into()),
            AttemptResult::TimedOut("x".into()),
            AttemptResult::CutOff("x".into()),
        ];
        for result in without_answer {
            assert_eq!(of(&result, times(0, 100), |_| false), CallOutcome::Failed, "{result:?}");
            assert_eq!(of(&result, times(49, 100), |_| false), CallOutcome::Failed, "{result:?}");
            assert_eq!(of(&result, times(51, 100), |_| false), CallOutcome::Inconclusive, "{result:?}");
            assert_eq!(of(&result, times(51, 60), |_| false), CallOutcome::Failed, "refused at once: {result:?}");
        }
    }
}
