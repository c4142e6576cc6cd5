//! What a person should know before the engine stops answering: in `live` and `only` nothing is written to legacy, so
//! legacy does not have what the engine made.

use std::time::Duration;

use super::family::{creator, family};
use super::mover::Mover;
use super::positions::{Positions, RoutePosition};
use super::types::FlipError;
use super::unanswered::left_in_only;
use crate::flag::{Arm, Instance, State};
use crate::names::RouteId;
use crate::store::{AdoptionCount, AdoptionState, StoreError};

/// How long a flip down waits at most for the store to count the engine's instances.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// The engine's instances of a family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OwnedInstances {
    /// Those that are pinned to the engine, except those in `moving` and `unknown`.
    pub owned: u64,
    /// Those in `owned` that the engine adopted from legacy.
    pub adopted: u64,
    /// Those that the engine is adopting.
    pub moving: u64,
    /// Those whose adoption has an unknown outcome: it is not known whether legacy has released them.
    pub unknown: u64,
}

impl OwnedInstances {
    /// Counts the instances of one family, from the number of those that are pinned to the engine and from its
    /// adoptions. An instance that is being adopted is pinned to the engine before it is the engine's.
    fn of(pinned: u64, adoptions: impl Iterator<Item = (AdoptionState, u64)>) -> Self {
        let mut found = Self::default();
        for (state, count) in adoptions {
            match state {
                AdoptionState::Adopted => found.adopted += count,
                AdoptionState::Moving => found.moving += count,
                AdoptionState::Unknown => found.unknown += count,
                AdoptionState::GivenBack => {}
            }
        }
        Self { owned: pinned.saturating_sub(found.moving).saturating_sub(found.unknown), ..found }
    }
}

/// The horizon of a flip down from `live` or `only`, as sentences; none if the engine has no instances of the family.
pub(super) fn sentences(positions: &Positions, position: &RoutePosition, instances: OwnedInstances) -> Vec<String> {
    let Some(family) = creator(&position.route) else { return Vec::new() };
    let OwnedInstances { owned, adopted, moving, unknown } = instances;
    let mut sentences = if owned > 0 { owned_sentences(positions, family, owned, adopted) } else { Vec::new() };
    let counted = |count: u64| format!("{count} more {}", if count == 1 { "instance" } else { "instances" });
    if unknown > 0 {
        sentences.push(format!(
            "whether legacy has released {} of `{family}` is not known: say whose they are (`pointsman adopt {family}` \
             lists them)",
            counted(unknown)
        ));
    }
    if moving > 0 {
        sentences.push(format!(
            "the engine is adopting {} of `{family}`: each will belong to the engine or to legacy",
            counted(moving)
        ));
    }
    sentences
}

fn owned_sentences(positions: &Positions, family: &RouteId, engine_owns: u64, adopted: u64) -> Vec<String> {
    let (noun, stays) = if engine_owns == 1 { ("instance", "it stays") } else { ("instances", "they stay") };
    let which = match adopted {
        0 => "that legacy does not know".to_owned(),
        adopted if adopted >= engine_owns => "that it adopted from legacy".to_owned(),
        adopted => format!("({adopted} adopted from legacy, the others unknown to legacy)"),
    };
    let mut sentences = vec![format!(
        "the engine owns {engine_owns} {noun} of `{family}` {which}; {stays} with the engine, whatever the flag says",
    )];
    let shown = match adopted {
        0 => "will not show them",
        adopted if adopted >= engine_owns => "shows them as they were when legacy released them",
        _ => "will not show those that the engine made, and shows adopted ones as they were when legacy released them",
    };
    let lists = lists(positions, family);
    if lists.is_empty() {
        sentences.push(format!("a list that legacy answers {shown}"));
    }
    sentences.extend(lists.iter().map(|list| {
        format!("`{}` (GET {}) is answered by legacy and {shown}", list.route.id, list.route.matches.path)
    }));
    sentences
}

/// GET routes on the paths above the family's instances, as far as legacy answers them.
fn lists<'a>(positions: &'a Positions, family: &RouteId) -> Vec<&'a RoutePosition> {
    let creator = positions.routes.get(family);
    let mut above: Vec<(&str, Option<&str>)> = Vec::new();
    if let Some(creator) = creator {
        above.push((&creator.route.matches.path, creator.route.matches.host.as_deref()));
    }
    for follower in positions.followers(family) {
        let matches = &follower.route.matches;
        let Some(Instance::Follows { key, .. }) = &follower.route.instance else { continue };
        let Some(param) = key.path_parameter() else { continue };
        if let Some((parent, _)) = matches.path.split_once(&format!("/{{{param}}}")) {
            above.push((parent, matches.host.as_deref()));
        }
    }
    let is_list = |other: &&RoutePosition| {
        let matches = &other.route.matches;
        matches.method == http::Method::GET
            && other.rung() < State::Live
            && above.contains(&(matches.path.as_str(), matches.host.as_deref()))
    };
    positions.routes.values().filter(is_list).collect()
}

impl Mover {
    pub async fn horizon(&self, route: &RouteId) -> Result<Vec<String>, FlipError> {
        let positions = self.in_force().inputs().positions;
        if !positions.routes.contains_key(route) {
            return Err(positions.unknown_route(route));
        }
        Ok(self.read_horizon(&positions, route).await?)
    }

    /// The horizon of a route for its way down. If the store does not answer in time, a sentence says so instead:
    /// nothing may stop a flip down.
    pub(super) async fn horizon_if_readable(&self, positions: &Positions, route: &RouteId) -> Vec<String> {
        let read = tokio::time::timeout(READ_WITHIN, self.read_horizon(positions, route)).await;
        read.unwrap_or_else(|_| Err(StoreError("it does not answer".into()))).unwrap_or_else(|error| {
            let unknown = "the number of instances that only the engine has is unknown now";
            let left = positions.routes.get(route).and_then(|position| left_in_only(positions, position));
            let unknown = format!("{unknown} ({error}); they stay with the engine, whatever the flag says");
            left.into_iter().chain([unknown]).collect()
        })
    }

    /// The horizon of a route, with the number of the engine's instances from the store. For a creator it also says
    /// which followers stay in `only`.
    async fn read_horizon(&self, positions: &Positions, route: &RouteId) -> Result<Vec<String>, StoreError> {
        let Some(position) = positions.routes.get(route) else { return Ok(Vec::new()) };
        let Some(family) = family(&position.route, &positions.declared.routes) else { return Ok(Vec::new()) };
        let counts = self.store.pin_counts().await?;
        let is_its_own = |id: &RouteId| family.ids().any(|own| own == id);
        let pinned =
            counts.iter().filter(|(id, arm, _)| is_its_own(id) && *arm == Arm::Engine).map(|(_, _, n)| n).sum();
        let adoptions = self.store.adoption_counts().await?;
        let of_family = |(id, state, count): &AdoptionCount| is_its_own(id).then_some((*state, *count));
        let instances = OwnedInstances::of(pinned, adoptions.iter().filter_map(of_family));
        let left = left_in_only(positions, position).into_iter();
        Ok(left.chain(sentences(positions, position, instances)).collect())
    }
}
