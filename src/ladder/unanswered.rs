//! Instances that legacy creates and for which nobody answers, because followers of their creator are in `only`.

use super::positions::{Positions, RoutePosition};
use crate::flag::{Cohort, Percent, State};
use crate::names::RouteId;

/// The followers of a creator that are in `only`, with the verb: "`a`, `b` are". `None` if there are none.
fn followers_in_only(positions: &Positions, creator: &RouteId) -> Option<String> {
    let in_only = positions.followers(creator).filter(|follower| follower.rung() == State::Only);
    let names: Vec<String> = in_only.map(|follower| format!("`{}`", follower.route.id)).collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    (!names.is_empty()).then(|| format!("{} {verb}", names.join(", ")))
}

/// A sentence about the instances that legacy would create if this route went below `live` while followers of it stay
/// in `only`; `None` if none of them is in `only`.
pub(super) fn left_in_only(positions: &Positions, position: &RoutePosition) -> Option<String> {
    let id = &position.route.id;
    followers_in_only(positions, id).map(|followers_are| {
        format!(
            "{followers_are} in `only`, where nobody answers for the instances that legacy creates once `{id}` is below \
             `live`: lower the followers first"
        )
    })
}

/// A text about the instances that legacy creates now and for which nobody answers; `None` if there are none.
pub(super) fn unanswered(positions: &Positions) -> Option<String> {
    let at_legacy = positions.routes.values().filter(|position| creates_at_legacy(position).is_some());
    let of_creator = |position: &RoutePosition| {
        let id = &position.route.id;
        followers_in_only(positions, id).map(|followers_are| {
            format!(
                "legacy creates instances of `{id}`, for which nobody answers: {followers_are} in `only`; lower these, or \
                 raise the creator"
            )
        })
    };
    let all: Vec<String> = at_legacy.filter_map(of_creator).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// Why legacy goes on to create instances, which followers in `only` could not follow up; `None` if it does not.
pub(super) fn creates_at_legacy(creator: &RoutePosition) -> Option<String> {
    let id = &creator.route.id;
    let consequence = "legacy would go on to create instances, and in `only` nobody answers for them";
    let rung = creator.rung();
    if rung < State::Live {
        return Some(format!(
            "`{id}`, which creates the instances, is in `{rung}`: {consequence}. Flip `{id}` to `live` first"
        ));
    }
    let share = creator.inputs.shares.live;
    if rung == State::Live && share < Percent::ALL {
        return Some(format!(
            "`{id}`, which creates the instances, is in `live` for {share} of the callers: {consequence}. Flip `{id}` to \
             `live` for all first (`--percent 100`)"
        ));
    }
    let below = creator.route.cohorts.iter().find(|cohort| rung == State::Live && cohort.state < State::Live);
    below.map(|Cohort { name, state, .. }| {
        format!("the cohort `{name}` of `{id}`, which creates the instances, is in `{state}`: {consequence}")
    })
}
