//! A flip that a person asks for: down at once (`down`), up after it is judged and recorded (`up`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{Instant as TokioInstant, timeout_at};

use super::Ladder;
use super::down::{FlipDownOutcome, KnownMoves};
use super::record::is_outdated_judgement;
use super::types::{FlipError, Flipped, MoveRequest, Unconfirmed};
use crate::flag::State;
use crate::names::RouteId;

/// How often a flip is tried at most if each time another process records a move between its judgement and its record.
const OUTDATED_TRIES_MAX: u32 = 5;

impl Ladder {
    /// Moves a route.
    ///
    /// - A move to its present state changes nothing; the result says so.
    /// - A move down is in force at once, also while the store does not answer or another move waits for the store; the
    ///   result says whether the move is recorded.
    /// - A move up is refused if the route was lowered after the move was asked for.
    /// - A larger share that is asked for together with a move down comes into force once both are recorded, also if
    ///   the caller goes away meanwhile. If it does not come into force, or if that is not known yet, the result's
    ///   `horizon` says so.
    ///
    /// # Errors
    /// See [`FlipError`]; nothing changed, unless it is [`Unconfirmed::Pending`] or [`Unconfirmed::TaskEnded`].
    pub async fn flip(&self, route: &RouteId, request: MoveRequest) -> Result<Flipped, FlipError> {
        let asked = Instant::now();
        let (mover, route) = (Arc::clone(&self.mover), route.clone());
        let request = mover.with_first_step(&route, request);
        let within = self.answer_within + mover.announce_within(request.to);
        // Set by the first try that is no flip down, after it has asked about instances and waited for pairs: the bound
        // does not include these waits.
        let (mut answers_until, mut tries) = (None, 0);
        loop {
            tries += 1;
            match self.try_flip(asked, (within, &mut answers_until), &route, &request).await {
                // Another process has recorded a move meanwhile: the flip is judged once more, after that move.
                Err(FlipError::Store(error)) if is_outdated_judgement(&error) && tries < OUTDATED_TRIES_MAX => {}
                outcome => return outcome,
            }
        }
    }

    async fn try_flip(
        &self,
        asked: Instant,
        (within, answers_until): (Duration, &mut Option<TokioInstant>),
        route: &RouteId,
        request: &MoveRequest,
    ) -> Result<Flipped, FlipError> {
        let (mover, route, request) = (Arc::clone(&self.mover), route.clone(), request.clone());
        let mut known = KnownMoves::NotAsked;
        let (moves_lock, announced) = loop {
            match mover.clone().flip_down((asked, known), &route, &request).await? {
                // An earlier flip down of the route waits for the store. It is recorded after the moves of other
                // processes, so the route stays where it is, whatever they have recorded.
                Some(FlipDownOutcome::Unchanged(flipped)) if !flipped.recorded => return Ok(flipped),
                // Another process may have recorded a move of the route that is not in force here yet.
                Some(FlipDownOutcome::Unchanged(flipped)) => match mover.catch_up_briefly().await {
                    Ok(false) => return Ok(flipped),
                    Ok(true) => continue,
                    // Nothing is above `only`: there another process can only have lowered the route.
                    Err(error) if request.to == State::Only => return Err(error),
                    Err(error) => {
                        tracing::warn!(
                            %error, %route, to = %request.to,
                            "it is not known whether another process has raised the route: the flip is recorded once the \
                             store answers"
                        );
                        known = KnownMoves::Unknown;
                        continue;
                    }
                },
                Some(FlipDownOutcome::InForce(down, None)) => return Ok(mover.wait_recorded(down).await),
                Some(FlipDownOutcome::InForce(down, Some(share))) => {
                    let work = tokio::spawn(mover.set_larger_share(asked, within, request, down, share));
                    return work.await.map_err(|error| Unconfirmed::task_ended(&error).into());
                }
                None => {}
            }
            let until = match *answers_until {
                Some(until) => until,
                None => {
                    mover.ask_about_instances(&route, request.to).await;
                    mover.wait_for_pairs(&route, &request).await;
                    *answers_until.insert(TokioInstant::now() + within)
                }
            };
            mover.catch_up::<FlipError>(until).await?;
            mover.wait_for_dropped_plans(&route, request.to, until).await?;
            let announced = mover.announce_before(&route, &request).await;
            let moves_lock = timeout_at(until, mover.lock_moves()).await.map_err(|_| Unconfirmed::Busy)?;
            // The move before this one may have put the route above the requested state, or below `live`.
            if !mover.is_flip_down(&route, &request) && !mover.has_plans_to_drop(&route, request.to) {
                break (moves_lock, announced);
            }
        };
        let work = tokio::spawn(async move {
            let outcome = mover.flip(moves_lock, asked, &route, request, announced).await;
            mover.start_recording();
            outcome
        });
        let until = answers_until.unwrap_or_else(|| TokioInstant::now() + within);
        let joined = timeout_at(until, work).await.map_err(|_| Unconfirmed::Pending)?;
        joined.unwrap_or_else(|error| Err(Unconfirmed::task_ended(&error).into()))
    }
}
