//! Whether new files may be put in force. They are refused as a whole if:
//!
//! - instances of the engine would lose their followers;
//! - several families of instances would become one;
//! - a route in `only` would go down without an acknowledgement;
//! - a route in `only` would perform retries a second time;
//! - the move of a candidate that comes with them is refused;
//! - (only at a reload) a creator in `live` would get a follower without a workflow;
//! - (only at a reload) other callers would be in a share.
//!
//! Files in force that are read once more are refused only because of a candidate's move ([`ReadKind::AppliedAgain`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::gate::Gate;
use super::gate_condition::UnknownRetries;
use super::guard_latches::GuardLatches;
use super::joined_families::JoinedFamilies;
use super::positions::{Positions, RoutePosition};
use super::types::{DeclaredFiles, FilesError, Move, ReadKind};
use super::unfollowed_instances::UnfollowedInstances;
use super::unknown_retries::unaccepted_sentence;
use super::unlisted_ids::{self, UnlistedIds};
use super::{files, joined_families, leaving_only, plans, promote_changes, shares, unfollowed_instances};
use crate::flag::{Route, State};
use crate::names::RouteId;
use crate::store::{StoreError, StoreHandle};

/// New files that are ready to be checked, with the engine's instances that are unfollowed under them.
pub(super) struct PreparedFiles {
    declared: DeclaredFiles,
    unlisted_ids: UnlistedIds,
    unfollowed: UnfollowedInstances,
    /// The families that these files make one.
    joined: JoinedFamilies,
    /// The creators in `live` or above when the instances were looked up, as in `FamiliesBefore`.
    live_creators: BTreeSet<RouteId>,
}

impl PreparedFiles {
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.declared.routes
    }

    /// Whether the plans in force are those with which the files were read.
    pub fn plans_are_as_read(&self, before: &Positions) -> bool {
        plans::are_as_read(before, &self.declared.plans, &self.declared.routes)
    }

    /// Searches again if flips since the search have changed the set of families of which the engine may create
    /// instances.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn refreshed(self, store: &StoreHandle, before: &Positions) -> Result<Self, StoreError> {
        let families = before.families();
        if families.live_creators == self.live_creators {
            return Ok(self);
        }
        let unfollowed = unfollowed_instances::find(store, &families, &self.declared.routes).await?;
        let joined = joined_families::find(store, before, &self.declared.routes).await?;
        Ok(Self { unfollowed, joined, live_creators: families.live_creators, ..self })
    }
}

/// New files that may be put in force.
pub(super) struct CheckedFiles {
    pub after: Positions,
    /// The flips that these files make.
    pub moves: Vec<Move>,
    /// See [`UnfollowedInstances::removes_followers`].
    pub removes_followers: bool,
    /// The families that these files make one.
    pub joined: JoinedFamilies,
}

/// Reads from the store what the check of new files needs, and brings up to date what the gates ask about instances.
/// May take long where many runs are open.
///
/// # Errors
/// The store does not answer.
pub(super) async fn prepare(
    store: &StoreHandle,
    gate: &Gate,
    before: &Positions,
    mut declared: DeclaredFiles,
) -> Result<PreparedFiles, StoreError> {
    let unlisted_ids = before.unlisted_ids_of(&declared.routes);
    declared.routes = unlisted_ids::add(&unlisted_ids, &declared.routes);
    let families = before.families();
    let unfollowed = unfollowed_instances::find(store, &families, &declared.routes).await?;
    let joined = joined_families::find(store, before, &declared.routes).await?;
    gate.ask_for_files(before, &declared.routes).await;
    let live_creators = families.live_creators;
    Ok(PreparedFiles { declared, unlisted_ids, unfollowed, joined, live_creators })
}

/// The positions under new files, and the flips that they make.
///
/// # Errors
/// The files must not be put in force.
pub(super) fn check_and_apply(
    (gate, guards): (&Gate, &GuardLatches),
    before: &Positions,
    files: PreparedFiles,
    reading: ReadKind,
) -> Result<CheckedFiles, FilesError> {
    let PreparedFiles { declared, unlisted_ids, unfollowed, joined, live_creators: _ } = files;
    let mut joined = match reading {
        // The routes are those of the files before, so no family joins another one.
        ReadKind::AppliedAgain => JoinedFamilies::default(),
        ReadKind::Reload | ReadKind::Start { .. } => joined,
    };
    let UnfollowedInstances { newly_unfollowed: mut refused, already_unfollowed, removes_followers } = unfollowed;
    let asked = declared.plans.candidate_move.clone();
    let candidate_stays: Vec<String> = asked.into_iter().flat_map(|asked| gate.refused_move(before, &asked)).collect();
    let (mut after, moves) = files::apply(before, (declared, unlisted_ids), reading, gate, guards);
    plans::after_files(before, &mut after);
    promote_changes::update(before, &mut after);
    refused.extend(leaving_only::lowered_without_acknowledgement(before, &after));
    let unaccepted = after
        .routes
        .values()
        .filter_map(|position| Some((position, gate.unaccepted_retries_in_only(&after, position)?)));
    let mut accepted = Vec::new();
    for (position, UnknownRetries { cause_at, until, .. }) in unaccepted {
        match position.route.force {
            Some(_) => accepted.push((position.route.id.clone(), cause_at)),
            None => refused.push(unaccepted_sentence(&position.route.id, until)),
        }
    }
    // A follower that has lost its workflow is reported by `unfollowed_instances`, which says more about it.
    if matches!(reading, ReadKind::Reload) && refused.is_empty() {
        refused.extend(above_new_followers(before, &after));
    }
    let changed_share_sentences = shares::changed_share_sentences(before, &after);
    match reading {
        ReadKind::Reload => refused.extend(changed_share_sentences),
        ReadKind::AppliedAgain => refused.clear(),
        ReadKind::Start { .. } => {
            changed_share_sentences.into_iter().for_each(|sentence| tracing::error!("{sentence}"))
        }
    }
    refused.append(&mut joined.refusals);
    for (route, cause_at) in accepted {
        if let Some(scopes) = after.scopes.get_mut(&route) {
            scopes.accepted = Some(cause_at);
        }
    }
    refused.extend(candidate_stays);
    if !refused.is_empty() {
        return Err(FilesError::Refused(refused));
    }
    for sentence in already_unfollowed {
        tracing::error!("neither these files nor the ones before follow up all instances: {sentence}");
    }
    for position in after.routes.values().filter(|at| at.rung() == State::Only) {
        if let Some(sentence) = after.follower_without_workflow(&position.route) {
            tracing::error!(route = %position.route.id, "this route stays in `only`, although {sentence}");
        }
    }
    Ok(CheckedFiles { after, moves, removes_followers, joined })
}

/// A sentence for each creator that stays in `live` or above under new files and gets a follower without a workflow. A
/// start lowers such a creator to `dark` instead: a refused start would leave every other route without service.
fn above_new_followers(before: &Positions, after: &Positions) -> Vec<String> {
    let was_live = |route: &Route| {
        let own = route.ids().filter_map(|id| before.routes.get(id));
        own.map(|position| position.rung()).max() >= Some(State::Live)
    };
    let stays = after.routes.values().filter(|at| at.inputs.requested >= State::Live && was_live(&at.route));
    let sentence = |position: &RoutePosition| {
        // Files are not refused for a follower that had no workflow before: that would stop every later reload.
        let had_such_follower =
            position.route.ids().any(|id| before.followers(id).any(|follower| follower.route.workflow.is_none()));
        let sentence = after.follower_without_workflow(&position.route).filter(|_| !had_such_follower)?;
        Some(format!(
            "{sentence}. Give it a workflow (its state may be `off`), or flip `{}` down first",
            position.route.id
        ))
    };
    stays.filter_map(sentence).collect()
}
