//! The condition of the gate to `only` on instances that legacy still has: in `only` nobody answers for them.
//!
//! Each route of a family with followers has to meet it. For a follower, because legacy will not get its requests any
//! more. For the creator, which goes to `only` last, because until then a fallback may have created new instances at
//! legacy.

use std::sync::Arc;

use super::family::{creator, family};
use super::gate::Gate;
use super::gate_condition::{InstancesAtLegacy, Unmet};
use super::mover::Mover;
use super::positions::{Positions, RoutePosition};
use super::unanswered::creates_at_legacy;
use crate::flag::{Instance, Route, State};
use crate::names::RouteId;

impl Gate {
    /// Why legacy's instances of a route's family prevent its move from `live` to `only`; empty if they do not.
    pub(super) fn unmet_of_instances(&self, positions: &Positions, position: &RoutePosition) -> Vec<Unmet> {
        let route = &position.route;
        let creator = creator(route).and_then(|id| positions.routes.get(id));
        let Some(creator) = creator.filter(|creator| positions.followers(&creator.route.id).next().is_some()) else {
            return Vec::new();
        };
        let mut unmet = Vec::new();
        if matches!(route.instance, Some(Instance::Follows { .. })) {
            unmet.extend(creates_at_legacy(creator).map(Unmet::from));
        }
        let Some(family) = family(route, &positions.declared.routes) else { return unmet };
        let found =
            self.conditions.iter().filter_map(|condition| condition.instances_at_legacy(&family, &creator.route));
        for instances in found {
            unmet.extend(sentence(positions, &creator.route, &instances).map(Unmet::from));
        }
        unmet
    }

    /// Brings up to date what the gate to `only` of a route asks about the instances of its family. Ends within a
    /// bounded time, whatever fails.
    pub(super) async fn ask_about_instances(&self, route: &Route, routes: &[Arc<Route>]) {
        let of_route = creator(route).and_then(|id| routes.iter().find(|other| other.id == *id));
        let (Some(creator), Some(family)) = (of_route, family(route, routes)) else { return };
        for condition in &self.conditions {
            condition.ask_about_instances(&family, creator).await;
        }
    }

    /// As [`Gate::ask_about_instances`], for the families of which new files ask to move a route to `only`.
    pub(super) async fn ask_for_files(&self, before: &Positions, routes: &[Arc<Route>]) {
        let is_new = |route: &&Arc<Route>| {
            let rung = route.ids().filter_map(|id| before.routes.get(id)).map(RoutePosition::rung).max();
            route.declared == State::Only && rung < Some(State::Only) && route.force.is_none()
        };
        let mut asked: Vec<&RouteId> = Vec::new();
        for route in routes.iter().filter(is_new) {
            let Some(creator) = creator(route).filter(|creator| !asked.contains(creator)) else { continue };
            asked.push(creator);
            self.ask_about_instances(route, routes).await;
        }
    }
}

/// Why a family may not go to `only` because of these instances of legacy; `None` if there are none.
fn sentence(positions: &Positions, creator: &Route, instances: &InstancesAtLegacy) -> Option<String> {
    let InstancesAtLegacy { alive, has_unknown, oldest, inconclusive } = instances;
    let id = &creator.id;
    if let Some(why) = inconclusive {
        return Some(format!("whether legacy still has instances of `{id}` is not known: {why}"));
    }
    if *alive == 0 && !has_unknown {
        return None;
    }
    let number = match (alive, has_unknown) {
        (0, true) => "instances whose ids were not recorded (these count until `alive:` has listed all)".to_owned(),
        (1, false) => "1 instance".to_owned(),
        (alive, false) => format!("{alive} instances"),
        (alive, true) => {
            format!(
                "{alive} instances, and others whose ids were not recorded (these count until `alive:` has listed all),"
            )
        }
    };
    let since = oldest.map_or_else(String::new, |oldest| format!(" (the oldest was first seen {oldest:.0})"));
    let ends = |route: &Route| route.lifetime.ends.is_some() || route.lifetime.ends_after.is_some();
    let followers = positions.followers(id).map(|follower| &*follower.route);
    let knows_ends = creator.lifetime.alive.is_some() || followers.chain([creator]).any(ends);
    let todo = match (&creator.lifetime.adopt, knows_ends) {
        (Some(_), _) => {
            format!("have the engine adopt them (`pointsman adopt {id} --all`), or wait until they have ended")
        }
        (None, true) => {
            "wait until they have ended, or have the engine adopt them (`pointsman help adoption`)".to_owned()
        }
        (None, false) => "no route of the family says when an instance ends, so they never do: declare `ends:`, \
                          `ends_after:` or `alive:` in `instance:`, or have the engine adopt them (`pointsman help \
                          adoption`)"
            .to_owned(),
    };
    Some(format!(
        "legacy still has {number} of `{id}` that have not ended{since}; in `only` nobody answers for them: {todo}, or pass \
         the gate with `--force --reason …` if nobody needs them"
    ))
}

impl Mover {
    /// Before a flip up to `only`: brings up to date what its gate asks about instances. Without the lock of moves,
    /// because it may take long and a flip down must not wait for it.
    pub(super) async fn ask_about_instances(&self, route: &RouteId, to: State) {
        let positions = self.in_force().inputs().positions;
        let position = positions.routes.get(route).filter(|position| to == State::Only && position.rung() < to);
        if let Some(position) = position {
            self.gate().ask_about_instances(&position.route, &positions.declared.routes).await;
        }
    }
}
