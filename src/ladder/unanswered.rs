//! Instances that legacy creates and for which nobody answers, because followers of their creator are in `only`.

use super::positions::{Positions, RoutePosition};
use crate::flag::{Cohort, Percent, State};

/// What becomes of new instances if this route is lowered below `live` while followers of it stay in `only`.
pub(super) fn left_in_only(positions: &Positions, position: &RoutePosition) -> Option<String> {
    let id = &position.route.id;
    let followers = positions.followers(id).filter(|follower| follower.rung() == State::Only);
    let names: Vec<String> = followers.map(|follower| format!("`{}`", follower.route.id)).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{} {} in `only`, where nobody answers for the instances that legacy creates once `{id}` is below `live`: lower \
             the followers first",
            names.join(", "),
            if names.len() == 1 { "is" } else { "are" }
        )
    })
}

/// The same of all routes that are there now, as text; `None` if no follower is in `only` while legacy creates
/// instances.
pub(super) fn unanswered(positions: &Positions) -> Option<String> {
    let is_at_legacy = |position: &&RoutePosition| creates_at_legacy(position).is_some();
    let of_creator = |position: &RoutePosition| {
        let followers = positions.followers(&position.route.id);
        let in_only: Vec<String> = followers
            .filter(|follower| follower.rung() == State::Only)
            .map(|follower| format!("`{}`", follower.route.id))
            .collect();
        (!in_only.is_empty()).then(|| {
            format!(
                "legacy creates instances of `{}`, and nobody answers {}, which {} in `only`, for them: lower these, or raise \
                 the creator",
                position.route.id,
                in_only.join(", "),
                if in_only.len() == 1 { "is" } else { "are" }
            )
        })
    };
    let all: Vec<String> = positions.routes.values().filter(is_at_legacy).filter_map(of_creator).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// Why legacy goes on to create instances, which the followers could not follow up in `only`.
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
