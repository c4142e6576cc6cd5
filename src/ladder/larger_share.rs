//! A larger share that is asked for together with a lower state: `live` with 10 % of the callers to `dark` with 50 %.
//!
//! Always true: the flip down is in force at once, with the share that the rung had. The larger share follows by a flip
//! of its own, after the flip down is recorded and pairs that were under way are compared, and like every flip up it is
//! in force only once it is recorded. It is not tried again: if it cannot be set, the answer and the log say so. The
//! end of the process waits for it, within its bound.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{Instant as TokioInstant, timeout_at};

use super::down::FlipDownInForce;
use super::mover::{Mover, MovesLock};
use super::pending_shares::{LargerShare, PendingShare};
use super::types::{FlipError, Flipped, MoveRequest, Unconfirmed};
use crate::store::FlipRecord;

impl Mover {
    /// Sets the larger share that was asked for together with a flip down, once the flip down is recorded. Returns the
    /// result of the whole request. To be run in a task of its own, so that a caller who goes away does not stop it.
    pub(super) async fn set_larger_share(
        self: Arc<Self>,
        asked: Instant,
        within: Duration,
        request: MoveRequest,
        down: FlipDownInForce,
        pending: PendingShare,
    ) -> Flipped {
        let share = pending.share.clone();
        share.log_pending();
        let mut down = self.wait_recorded(down).await;
        self.wait_for_pairs(&share.route, &request).await;
        let until = TokioInstant::now() + within;
        let raised = match self.lock_to_raise(until, &share, down.recorded).await {
            Ok(moves_lock) => self.raise(moves_lock, asked, until, pending, request).await,
            Err(error) => {
                share.log_not_raised(&error);
                Err(error)
            }
        };
        let LargerShare { to, percent, .. } = share;
        match raised {
            Ok(raised) if raised.changed => {
                let flip = FlipRecord { from: down.flip.from, ..raised.flip };
                return Flipped { flip, horizon: down.horizon, ..raised };
            }
            // Somebody else has set that share meanwhile.
            Ok(raised) => (down.recorded, down.effective) = (raised.recorded, raised.effective),
            Err(FlipError::Unconfirmed(pending @ Unconfirmed::Pending)) => {
                (down.recorded, down.share_is_pending) = (false, true);
                down.horizon.push(format!("its share of `{to}` may still be raised to {percent}: {pending}"));
            }
            Err(FlipError::Unconfirmed(ended @ Unconfirmed::TaskEnded)) => {
                (down.recorded, down.share_is_pending) = (false, true);
                down.horizon.push(format!("its share of `{to}` may have been raised to {percent}: {ended}"));
            }
            Err(error) => down.horizon.push(format!(
                "its share of `{to}` is not raised to {percent}: {}. Flip it again if it is to have that share",
                why(&error)
            )),
        }
        down
    }

    async fn lock_to_raise(
        &self,
        until: TokioInstant,
        LargerShare { route, to, .. }: &LargerShare,
        down_is_recorded: bool,
    ) -> Result<MovesLock, FlipError> {
        let refused = |why: String| FlipError::Refused { why, commands: Vec::new() };
        if !down_is_recorded {
            return Err(refused("the store has not recorded the flip down yet".to_owned()));
        }
        let moves_lock = timeout_at(until, self.lock_moves()).await.map_err(|_| Unconfirmed::Busy)?;
        if self.rung(route) != Some(*to) {
            return Err(refused(format!("the route is not in `{to}` any more")));
        }
        Ok(moves_lock)
    }

    async fn raise(
        self: Arc<Self>,
        moves_lock: MovesLock,
        asked: Instant,
        until: TokioInstant,
        pending: PendingShare,
        request: MoveRequest,
    ) -> Result<Flipped, FlipError> {
        // A flip down stops the flips up that were asked for before it or at the same time: this one must count as
        // later than its own flip down, and as earlier than any other that is asked for next.
        let asked = asked + Duration::from_nanos(1);
        // In a task of its own, which goes on if the wait below ends first.
        let work = tokio::spawn(async move {
            let outcome = self.flip(moves_lock, asked, &pending.share.route, request, None).await;
            self.start_recording();
            let outcome = outcome.inspect_err(|error| pending.share.log_not_raised(error));
            drop(pending); // not before: the end of the process waits for it
            outcome
        });
        let joined = timeout_at(until, work).await.map_err(|_| Unconfirmed::Pending)?;
        joined.unwrap_or_else(|error| Err(Unconfirmed::task_ended(&error).into()))
    }
}

impl LargerShare {
    fn log_pending(&self) {
        let Self { route, to, percent, by } = self;
        tracing::info!(
            %route, %to, %percent, %by,
            "the larger share that was asked for together with this flip down is set once the flip down is recorded"
        );
    }

    fn log_not_raised(&self, error: &FlipError) {
        let Self { route, to, percent, by } = self;
        tracing::warn!(
            %route, %to, %percent, %by, why = why(error),
            "the larger share that was asked for together with a flip down is not set: flip the route again if it is \
             to have that share"
        );
    }
}

/// Why the larger share is not set. The text of [`FlipError::Store`] says that nothing changed, which is wrong here:
/// the flip down is in force.
fn why(error: &FlipError) -> String {
    match error {
        FlipError::Store(error) => format!("the store did not record it: {error}"),
        error => error.to_string(),
    }
}
