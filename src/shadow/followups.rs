//! Requests of instances in the shadow executor: they wait for their turn, and keep it until their run has ended.
//!
//! Always true: a request that waits holds no slot, so that it delays no request of another instance; those that wait
//! are bounded in number, bytes and time (`followups_held_max`, `followups_held_bytes_max`, `followup_window_ms`); each
//! that had to wait is counted with its outcome (`pointsman_followups_total`).
//!
//! A dark run that does not end within the window keeps its turn until it ends; the requests behind it are skipped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::instance_order::{InstanceOrder, TurnDecision, TwinChange, TwinTurn};
use super::queue::QueuedRequest;
use super::run::Runner;
use super::run_end::RunEnd;
use super::stop::Stop;
use crate::exchange::{ComparisonOutcome, Twins};
use crate::flag::SkipReason;
use crate::limits::Limits;
use crate::names::RunId;
use crate::workflow::RunStatus;

/// The pause after the store did not take a mark.
const MARK_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Whether a request may run now.
pub(super) enum TurnState {
    Run,
    Wait,
}

impl Runner {
    /// Takes the turn of a request if it has come, or if the request needs none. `None`: the ticket is settled.
    pub(super) fn take_turn(&self, mut entry: QueuedRequest) -> Option<(QueuedRequest, TurnState)> {
        let Some(turn) = &mut entry.turn else { return Some((entry, TurnState::Run)) };
        match turn.next() {
            TurnDecision::Run(twin) => {
                set_twin(&mut entry, twin);
                Some((entry, TurnState::Run))
            }
            TurnDecision::Wait => Some((entry, TurnState::Wait)),
            TurnDecision::Skip(reason) => {
                entry.ticket.skip(reason);
                None
            }
        }
    }

    /// Waits until the turn of a request has come, but no longer than `followup_window_ms` from its offer. `None`: the
    /// ticket is settled.
    pub(super) async fn wait_for_turn(
        &self,
        mut entry: QueuedRequest,
        mut stop: watch::Receiver<Stop>,
    ) -> Option<QueuedRequest> {
        let Some(turn) = &mut entry.turn else { return Some(entry) };
        let route = entry.ticket.route().to_string();
        entry.ticket.observe(move |outcome| {
            let outcome = settlement(outcome);
            metrics::counter!("pointsman_followups_total", "route" => route, "outcome" => outcome).increment(1);
        });
        let has_room = self.turn_memory.entries() < self.limits.followups_held_max;
        let Some(reserved) = self.turn_memory.reserve(entry.answered.bytes()).filter(|_| has_room) else {
            entry.ticket.skip(SkipReason::QueueFull);
            return None;
        };
        entry.memory = reserved.into();
        let end = tokio::time::Instant::from_std(entry.offered) + Limits::ms(self.limits.followup_window_ms);
        let twin = tokio::select! {
            biased;
            twin = turn.wait() => twin,
            _ = stop.wait_for(|stop| *stop != Stop::No) => Err(SkipReason::ShuttingDown),
            () = tokio::time::sleep_until(end) => Err(SkipReason::NeverSettled),
        };
        match twin {
            Ok(twin) => {
                set_twin(&mut entry, twin);
                Some(entry)
            }
            Err(reason) => {
                entry.ticket.skip(reason);
                None
            }
        }
    }

    /// Gives the turn of a run back when the run has ended.
    pub(super) async fn end_turn(&self, turn: TwinTurn, end: RunEnd, mut stop: watch::Receiver<Stop>) {
        let (run, twin) = match end {
            // A create without a pin has no twin: its follow-ups would not find it.
            RunEnd::Ended { twin: None, .. } if turn.creates() => return turn.end(None, TwinChange::Missed),
            RunEnd::Ended { twin, change } => return turn.end(twin, change),
            RunEnd::GoesOn { run, twin } => (run, twin),
        };
        let mut ended = self.twins.wait_until_ended(run);
        let mut window = std::pin::pin!(tokio::time::sleep(Limits::ms(self.limits.followup_window_ms)));
        let mut is_overdue = false;
        let status = loop {
            tokio::select! {
                biased;
                status = &mut ended => break status,
                _ = stop.wait_for(|stop| *stop != Stop::No) => {
                    // The next process resumes the run, and does not know that other requests have to wait for it.
                    let change = if turn.is_write() { TwinChange::Missed } else { TwinChange::Applied };
                    return turn.end(twin, change);
                }
                () = &mut window, if !is_overdue => {
                    is_overdue = true;
                    turn.set_overdue();
                }
            }
        };
        let is_made = status == Some(RunStatus::Completed);
        turn.end(twin, if is_made { TwinChange::Applied } else { TwinChange::Missed });
    }
}

fn set_twin(entry: &mut QueuedRequest, twin: Option<RunId>) {
    if let (Some(instance), Some(_)) = (&mut entry.answered.instance, twin) {
        instance.run = twin;
    }
}

/// The outcome of a request that had to wait.
fn settlement(outcome: ComparisonOutcome) -> &'static str {
    match outcome {
        ComparisonOutcome::Matched | ComparisonOutcome::Ignored => "settled_match",
        ComparisonOutcome::Mismatched => "settled_diff",
        ComparisonOutcome::Skipped(SkipReason::NeverSettled) => "never_settled",
        ComparisonOutcome::Skipped(_) | ComparisonOutcome::Failed(_) => "not_compared",
    }
}

/// Stores the marks of incomplete twins until `stop`, and then tries once more to store the marks that wait.
pub(super) async fn store_marks(order: Arc<InstanceOrder>, twins: Arc<dyn Twins>, mut stop: watch::Receiver<bool>) {
    loop {
        // Read before the marks are, so that what was marked before the stop is tried once more.
        let mut is_last = *stop.borrow();
        let mut refused = Vec::new();
        while let Some(key) = order.next_unstored_mark() {
            // While the store takes none, this loop does not end by itself.
            is_last |= *stop.borrow();
            if !twins.mark_incomplete(&key).await {
                if is_last {
                    refused.push(key);
                    continue;
                }
                order.put_back_mark(key);
                tokio::select! {
                    () = tokio::time::sleep(MARK_RETRY_PAUSE) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            }
        }
        if is_last {
            refused.into_iter().for_each(|key| order.put_back_mark(key));
            return;
        }
        tokio::select! {
            () = order.mark_waits() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}
