//! Shuts gates because of pin collisions, and of retries whose first try is not known.

use jiff::Timestamp;

use crate::affinity::{RequestsWithUnknownKeys, StoreAffinity};
use crate::flag::{Family, Instance, Route, State};
use crate::ladder::{GateCondition, UnknownRetries, Unmet};
use crate::names::RouteId;

/// `unmet`: after a pin collision, shuts the gates to `live` and `only` of the route that creates the instances, until
/// a person accepts it.
/// `unknown_retries`: shuts the gate to `live`, and holds routes below `live`, while clients may still retry requests
/// that legacy served and whose retry keys could not be noted or are in a file that cannot be read: the engine would
/// perform these requests a second time.
impl GateCondition for StoreAffinity {
    fn unmet(&self, route: &Route, _from: State, to: State) -> Vec<Unmet> {
        let since = created_family(route).filter(|_| to >= State::Live).and_then(|family| self.collided_since(&family));
        let unmet = since.map(|since| {
            let why = format!(
                "both arms have given out the same id of an instance (the log of {since:.0} names it): the engine \
                 creates no instances of this family below `only`. Let the arms give out different ids, then accept \
                 this by a flip by force to the state that the route has: \
                 `pointsman flip {} STATE --force --reason WHY`",
                route.id
            );
            Unmet { why, since: Some(since) }
        });
        unmet.into_iter().collect()
    }

    fn awaits_acceptance(&self, route: &Route) -> bool {
        created_family(route).is_some_and(|family| self.collided(&family))
    }

    fn accept(&self, route: &Route, at: Timestamp) {
        if let Some(family) = created_family(route) {
            self.accept_collisions(&family, at);
        }
    }

    fn unknown_retries(&self, routes: &[&RouteId]) -> Vec<UnknownRetries> {
        let consequence = "the engine would perform retries of them a second time";
        let unknown_retries_of = |RequestsWithUnknownKeys { served, until }, why: &str| UnknownRetries {
            cause_at: served,
            until,
            why: format!("{why}: until {until:.0} {consequence}"),
        };
        let unnoted = self.unnoted_requests(routes.iter().copied());
        let unnoted = unnoted
            .map(|requests| unknown_retries_of(requests, "legacy served requests whose retry keys could not be noted"));
        let unread = self.unread_key_files().into_iter().map(|(file, unknown)| {
            unknown_retries_of(unknown, &format!("{file}, and it may have retry keys of requests that legacy served"))
        });
        unnoted.into_iter().chain(unread).collect()
    }
}

/// The family whose instances this route creates.
fn created_family(route: &Route) -> Option<Family> {
    matches!(route.instance, Some(Instance::Creates { .. })).then(|| Family::of(route))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Method;

    use super::*;
    use crate::clock;
    use crate::flag::{Arm, PinKey, RouteMatch, Service};
    use crate::limits::Limits;
    use crate::names::RunId;
    use crate::store::{MemoryStore, NewPin};

    /// In `only` the engine would go on to create instances, with ids that legacy may have assigned.
    #[tokio::test]
    async fn a_pin_collision_shuts_the_gates_to_live_and_only() {
        let affinity = StoreAffinity::load(Arc::new(MemoryStore::default()), &Limits::default()).await.unwrap();
        let service = Service::at("shop", [http::Uri::from_static("http://127.0.0.1:9000")]);
        let matches = RouteMatch { method: Method::POST, path: "/orders".into(), host: None };
        let follower = Route::without_workflow("orders.get".into(), matches.clone(), Arc::new(service));
        let id = serde_json_path::JsonPath::parse("$.id").unwrap().into();
        let (instance, was) = (Some(Instance::Creates { id }), vec!["orders.create".into()]);
        let creator = Route { id: "orders.make".into(), was, instance, ..follower.clone() };
        let key = PinKey { family: "orders.create".into(), id: "17".into() };
        affinity.record_pin(
            &NewPin { key: key.clone(), arm: Arm::Engine },
            RunId(uuid::Uuid::from_u128(1)),
            affinity.pins_version(),
        );
        let is_shut = |route, to| !affinity.unmet(route, State::Shadow, to).is_empty();
        assert!(!is_shut(&creator, State::Only));
        affinity.record_collision(&key, RunId(uuid::Uuid::from_u128(2)));
        assert!(is_shut(&creator, State::Live) && is_shut(&creator, State::Only));
        assert!(
            affinity.unmet(&creator, State::Shadow, State::Live)[0].since.is_some_and(|since| since <= clock::now())
        );
        assert!(!is_shut(&creator, State::Dark) && !is_shut(&follower, State::Only));
    }
}
