//! Tests of the module as a whole.

mod conventions;
mod creators;
mod decisions;
mod fuzzed_paths;
mod matching;
mod paths;
mod properties;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;

use super::*;
use crate::names::RouteId;

pub fn service(name: &str) -> Arc<Service> {
    Arc::new(Service::at(name, [http::Uri::from_static("http://127.0.0.1:9000")]))
}

pub fn route(id: &str, method: Method, path: &str) -> Route {
    Route {
        workflow: Some("work".into()),
        caller: vec![http::header::AUTHORIZATION].into(),
        ..Route::without_workflow(id.into(), RouteMatch { method, path: path.into(), host: None }, service("shop"))
    }
}

pub fn state_inputs(state: State) -> StateInputs {
    StateInputs {
        requested: state,
        shares: Shares::default(),
        has_no_flip: false,
        gate: None,
        is_held: false,
        returns_at_restart: false,
        guard: None,
        healthy: true,
        proven: state,
        proven_cohorts: BTreeMap::new(),
        held_cohorts: Vec::new(),
        is_changed: false,
    }
}

pub fn set(routes: Vec<Route>, inputs: BTreeMap<RouteId, StateInputs>, freeze: Freeze) -> FlagSet {
    let routes = routes.into_iter().map(Arc::new).collect();
    FlagSet::new(1, routes, &inputs, service("shop"), BTreeMap::new(), freeze, [7; 32])
}
