//! The state of each route, and its moves: the only module that swaps the flag set.
//!
//! The question it answers: "may this route move to that rung, and what is in force now?"
//!
//! Always true:
//!
//! - A flip up is in the store before it is in force, and so are new files, the end of a freeze and the release of a
//!   guard. A freeze (`kill_switch`), a flip down (`unrecorded_flips`) and what a guard does to a route
//!   (`guard_actions`) are in force at once, whatever the store does, and are recorded afterwards
//!   (`record_unrecorded`). When a guard takes away the share of a candidate, that is recorded first.
//! - The set in force was checked as a whole. Moves other than flips down happen one after the other.
//! - No route goes to `only` during a freeze; a flip to `only` that a freeze overtakes is reverted (`overtaken`).
//! - Health and kill switch have a version, and an outdated update changes nothing (`in_force`).
//! - A move that another process on the same store has recorded comes into force here without being judged again
//!   (`followed`). A move of this process that was judged before the other one was known is not recorded, but judged
//!   again (`record`). A move that lets the engine answer is announced to the other processes first (`announce`).
//!
//! Deciding a request by the set is left to `flag`, judging whether evidence suffices to `evidence`.
//!
//! When the store is slow, moves wait for each other, except flips down and freezes; requests wait for none of them,
//! since they read the set that is in force. When the store refuses, a flip up or a reload of the files fails and
//! nothing changes. A restart before a flip down or a freeze is recorded loses it. When the store's reply was lost, the
//! outcome is looked up until it is known (`record`); the caller is told within a bound that it is not known yet. A
//! caller that goes away in the middle of a move does not stop it.
//!
//! The words of this module, each in one sense:
//!
//! - *unrecorded*: in force, and not in the store yet (a flip down, a freeze); *pending*: asked for, and not in force
//!   yet (it waits for other moves or for the store); *outstanding*: a write to the store that has not been answered.
//! - *held*: kept at `dark` without a flip, while retries of requests may come that legacy served and whose keys are
//!   not known (`holds`, `unknown_retries`); *released*: the hold is over; *returns*: a route goes back up to the state
//!   of its last recorded flip without another flip, by a release or by a restart that lost an unrecorded flip down.
//! - *stored declaration*: what a route's file said when files were last put in force; only a difference from it moves
//!   the route; *absent*: a route that has a stored declaration and is not in the files now; *re-added*: an absent
//!   route is in the files again.
//! - *renamed back*: the files give a route an earlier id again; *unlisted*: its id in between, which they do not list.
//! - *overtaken*: a flip to `only` was waiting for the store when a freeze came into force; *reverted*: it is undone by
//!   a second flip; *superseded*: not recorded, because of what another process has recorded first.
//! - *announced*: told to the other processes, and not recorded yet; *followed*: recorded by another process, and in
//!   force here.
//! - *unmet*: a condition of a gate that does not hold.
//! - *follow-up*: a request about an instance, such as `GET /orders/17`; *follower*: a route that gets follow-ups
//!   (`instance: { follows: … }`); *unfollowed*: an instance of the engine whose follow-ups would go to legacy, because
//!   no follower in the files gets them.
//! - *joined*: several routes have become one, whose file lists their ids (`was`); *separated*: they are several again.

mod acceptance;
mod announce;
mod auto;
mod auto_shares;
mod awaited_pairs;
mod cohort_gate;
mod cohort_listener;
mod cohort_moves;
mod cohort_reasons;
mod cohort_rules;
mod cohorts_again;
mod command;
mod declared_plans;
mod declared_rows;
mod down;
mod dropped_plans;
mod export;
mod family;
mod file_edits;
mod files;
mod files_check;
mod flips;
mod followed;
mod followed_declarations;
mod followed_moves;
mod follower_requests;
mod forced_files;
mod forced_states;
mod freezes;
mod gate;
mod gate_condition;
mod gate_judgement;
mod guard;
mod guard_actions;
mod guard_latches;
mod guard_release;
mod guard_status;
mod guard_types;
mod health;
mod holds;
mod horizon;
mod in_force;
mod inputs;
mod instances;
mod joined;
mod joined_families;
mod joined_ids;
mod judge;
mod judged_gates;
mod kill_switch;
mod larger_share;
mod leaving_only;
mod live_basis;
mod lowered_routes;
mod mover;
mod opening_gates;
mod other_processes;
mod outdated_moves;
mod overtaken;
mod pairs_in_flight;
mod passing_commands;
mod pending_shares;
mod plans;
mod positions;
mod process_end;
mod promote_changes;
mod re_added;
mod reassigned_follow_ups;
mod reassigned_requests;
mod record;
mod record_unrecorded;
mod renamed_back;
mod revert_overtaken;
mod scope_matches;
mod scopes;
mod separated;
mod shares;
mod shown;
mod status;
mod stopped_candidates;
mod taken_ids;
mod tell_cohorts;
mod types;
mod unanswered;
mod unfollowed_instances;
mod unknown_retries;
mod unlisted_ids;
mod unrecorded_flips;
mod up;
mod versioned;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::time::timeout;

pub use cohort_gate::CohortBelow;
pub use cohort_listener::{CohortAhead, CohortListener, CohortMove};
pub use command::FlipCommand;
pub use declared_plans::{CandidateMove, DeclaredPlans};
pub use followed::AnsweringRoutes;
pub use followed_moves::FollowedMoves;
pub use forced_files::ForcedFileState;
pub use gate_condition::{GateCondition, InstancesAtLegacy, UnknownRetries, Unmet};
pub use guard_types::{GuardActed, GuardListener, GuardRelease, GuardReleased, GuardStatus};
pub use other_processes::OtherProcesses;
pub use plans::{CandidateStatus, KeptPlans, stored_plans_in_force};
pub use promote_changes::ChangedPromote;
pub use status::RouteStatus;
pub use types::{
    AutoStatus, CheckNumber, DeclaredFiles, FilesError, FlipError, Flipped, FreezeError, Frozen, KillSwitchListener,
    LadderParts, MoveRequest, NextRung, Unconfirmed,
};
pub use unlisted_ids::with_unlisted_ids;

use self::gate::Gate;
use self::mover::Mover;
use self::record_unrecorded::UnrecordedMoves;
use self::types::ReadKind;
use crate::clock;
use crate::evidence::GuardCrossing;
use crate::flag::{FlagSet, Route};
use crate::names::RouteId;
use crate::store::{FlipRecord, StoreError};

/// Holds the flag set in force and moves routes.
pub struct Ladder {
    mover: Arc<Mover>,
    /// Held for a whole reload.
    reload_lock: Arc<tokio::sync::Mutex<()>>,
    /// The number of the last check that began.
    checks: AtomicU64,
    /// The lost moves that are in the log already.
    logged_lost: Mutex<UnrecordedMoves>,
    /// Held while releases by evidence are judged.
    releasing: Arc<tokio::sync::Mutex<()>>,
    /// The crossings that guards found on candidates and that nobody has acted on yet.
    candidate_crossings: Mutex<Vec<GuardCrossing>>,
    answer_within: Duration,
}

impl Ladder {
    /// Takes the files' declarations and the store's flips, and puts the first set in force. The last flip of a route
    /// wins over what its file declares, unless the file declares something else than when it was last read: that is a
    /// flip by `file`, through the gate. A route without any flip has the state of its file up to `shadow`; a higher
    /// state needs a flip by `file` through the gate, or `force` in the file, with which it is marked unproven.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub async fn open(declared: DeclaredFiles, parts: LadderParts) -> Result<Arc<Self>, FilesError> {
        Self::open_into(declared, parts, None).await
    }

    /// As [`Ladder::open`]. `flags`: where the set in force is put, in place of the one that is there.
    pub async fn open_into(
        declared: DeclaredFiles,
        parts: LadderParts,
        flags: Option<Arc<ArcSwap<FlagSet>>>,
    ) -> Result<Arc<Self>, FilesError> {
        let LadderParts {
            store,
            evidence,
            conditions,
            conditions_of_moves,
            retry_window,
            copy_started,
            answer_within,
            others,
        } = parts;
        let opening = Default::default();
        let gate = Gate { evidence, conditions, conditions_of_moves, retry_window, copy_started, opening };
        let mover = Arc::new(Mover::open(declared, store, (gate, others), flags).await?);
        let (reload_lock, checks, logged_lost, releasing, candidate_crossings) = Default::default();
        Ok(Arc::new(Self { mover, reload_lock, checks, logged_lost, releasing, candidate_crossings, answer_within }))
    }

    /// The set in force; readers load it once for each request.
    pub fn flags(&self) -> &Arc<ArcSwap<FlagSet>> {
        self.mover.flags()
    }

    /// Connects a part of the process that has to obey the kill switch from now on. When this returns, `other` has
    /// applied the freeze in force.
    pub async fn connect_to_kill_switch(&self, other: Arc<dyn KillSwitchListener>) {
        self.mover.connect_to_kill_switch(other).await;
    }

    /// Puts a newly checked set of files in force as one transaction: the set is judged as a whole, its moves and
    /// declarations are recorded together, `recorded` is called, and the flag set is swapped. `recorded` puts in force
    /// what the files have beside flags (workflows, rules); it is called once, or not at all if nothing was recorded.
    /// Returns the flips that the files made once the outcome is known, however long the store takes. The files do not
    /// raise a route that a person has lowered since they were `read`.
    ///
    /// # Errors
    /// See [`FilesError`]. Nothing was recorded and nothing changed, unless it is [`FilesError::TaskEnded`].
    pub async fn reload_files(
        &self,
        read: Instant,
        declared: DeclaredFiles,
        recorded: impl FnOnce() + Send + 'static,
    ) -> Result<Vec<FlipRecord>, FilesError> {
        self.read_files((read, ReadKind::Reload), declared, recorded).await
    }

    /// As [`Ladder::reload_files`], for the files in force. Only plans change: a candidate is moved, or a route below
    /// `live` gets the plans of its files. Only the move of the candidate may be refused.
    ///
    /// # Errors
    /// As [`Ladder::reload_files`].
    pub async fn apply_files_again(
        &self,
        declared: DeclaredFiles,
        recorded: impl FnOnce() + Send + 'static,
    ) -> Result<Vec<FlipRecord>, FilesError> {
        self.read_files((Instant::now(), ReadKind::AppliedAgain), declared, recorded).await
    }

    async fn read_files(
        &self,
        reading: (Instant, ReadKind),
        declared: DeclaredFiles,
        recorded: impl FnOnce() + Send + 'static,
    ) -> Result<Vec<FlipRecord>, FilesError> {
        let mover = Arc::clone(&self.mover);
        let reloading = Arc::clone(&self.reload_lock).lock_owned().await;
        let prepared = mover.prepare(declared).await?;
        let moves_lock = mover.lock_moves().await;
        let work = tokio::spawn(async move {
            let outcome = mover.reload(moves_lock, reading, prepared, recorded).await;
            mover.start_recording();
            drop(reloading);
            outcome
        });
        work.await.unwrap_or_else(|error| Err(FilesError::task_ended(&error)))
    }

    /// Releases routes that are held below `live`, once the retries for which they are held can no longer come: they
    /// return to `live`, or the reason against it is shown. Takes the mark `changed` from routes in `live` whose
    /// evidence opens the gate to `live` now. To be called periodically; cheap while no route is held or marked.
    ///
    /// # Errors
    /// The store does not answer, and nothing changed; or it is not known whether anything changed.
    pub async fn release_held(&self) -> Result<(), StoreError> {
        if !self.mover.in_force().may_release(clock::now()) {
            return Ok(());
        }
        let mover = Arc::clone(&self.mover);
        let moves_lock = mover.lock_moves().await;
        let work = tokio::spawn(async move {
            let outcome = mover.release_held(moves_lock).await;
            mover.start_recording();
            outcome
        });
        work.await.unwrap_or_else(|error| {
            let why = "its task ended without a result, so it is not known whether anything changed";
            Err(StoreError(format!("{why}: {error}")))
        })
    }

    /// The plans that stay in force under files with these routes. `candidate_move`: the candidate that is moved
    /// together with them.
    pub fn plans_in_force(&self, routes: &[Arc<Route>], candidate_move: Option<&CandidateMove>) -> KeptPlans {
        let before = self.mover.in_force().inputs().positions;
        let unlisted = before.unlisted_ids_of(routes);
        let promoted = candidate_move.filter(|candidate_move| candidate_move.share.is_none());
        plans::kept(&before, &unlisted_ids::add(&unlisted, routes), promoted)
    }

    /// Why the plans in force of routes cannot be run with the files in force, by route.
    pub fn unrunnable_plans(&self) -> BTreeMap<RouteId, String> {
        self.mover.in_force().inputs().positions.declared.plans.unrunnable.clone()
    }

    /// Whether a route below `live` still has the plans that were in force in `live`, instead of those of its files. If
    /// so, the files have to be put in force again ([`Ladder::apply_files_again`]).
    pub fn has_plans_to_drop(&self) -> bool {
        self.mover.in_force().has_plans_to_drop()
    }

    /// Whether the move of a route by its file has waited for pairs that were under way, and can be judged now. If so,
    /// the files have to be put in force again.
    pub fn has_moves_to_judge_again(&self) -> bool {
        self.mover.in_force().awaiting_pairs().iter().any(|position| self.mover.gate().is_to_be_judged_again(position))
    }

    /// Before a candidate is moved: waits for its pairs that are under way, if its gate would let it pass. Bounded.
    pub async fn wait_for_pairs_of_candidate(&self, asked: &CandidateMove) {
        self.mover.wait_for_pairs_of_candidate(asked).await;
    }

    /// Whether a freeze is in force that the store does not have yet, so that a restart would lose it.
    pub fn freeze_is_unrecorded(&self) -> bool {
        self.mover.kill_switch().is_unrecorded()
    }

    /// How many flips down are in force that the store does not have yet, so that a restart would lose them.
    pub fn unrecorded_flips(&self) -> usize {
        self.mover.in_force().unrecorded_flips()
    }

    /// The number of the newest flip that this process recorded or found in the store.
    pub fn newest_flip(&self) -> tokio::sync::watch::Receiver<u64> {
        self.mover.recorder.newest_flip()
    }

    /// If the store is a copy: until when retries may come of requests that are not in it. Until then, routes in `live`
    /// are held.
    pub fn copy_held_until(&self) -> Option<Timestamp> {
        self.mover.copy_held_until()
    }

    /// Writes the verdict of each route's next gate to its metric; called before each scrape.
    pub fn publish(&self) {
        self.mover.publish_verdicts();
    }

    /// The state of every route and the conditions of its next rung, in file order.
    pub fn status(&self) -> Vec<RouteStatus> {
        self.mover.status(None)
    }

    /// The status of one route; `None` if the files do not have it.
    pub fn status_of(&self, route: &RouteId) -> Option<RouteStatus> {
        self.mover.status(Some(route)).pop()
    }

    /// A text about the instances that legacy creates now and for which nobody answers, because their followers are in
    /// `only`; `None` if there are none.
    pub fn unanswered_instances(&self) -> Option<String> {
        unanswered::unanswered(&self.mover.in_force().inputs().positions)
    }

    /// What a person should know before the engine stops answering a route, as sentences; empty if the engine has no
    /// instances of its family.
    ///
    /// # Errors
    /// No such route, or the store does not answer.
    pub async fn horizon(&self, route: &RouteId) -> Result<Vec<String>, FlipError> {
        timeout(self.answer_within, self.mover.horizon(route))
            .await
            .unwrap_or_else(|_| Err(StoreError("it does not answer".into()).into()))
    }
}
