//! What belongs to a route besides its flag?
//!
//! A flag set, and for each of its routes the metric handles and the way to its service; made once per set, so that a
//! request looks nothing up by name. Always true: a request holds one [`Table`], and so one flag set, from its head to
//! its last byte; services that a reload did not change keep their connections.

use std::collections::HashMap;
use std::sync::Arc;

use super::meter::Meter;
use super::pool::Upstream;
use crate::flag::{FlagSet, RouteFlag, Service};
use crate::limits::Limits;
use crate::names::{RouteId, ServiceName};

/// The label of requests that no route matches.
const DEFAULT: &str = "default";

/// One route's handles.
pub(super) struct Entry {
    pub meter: Arc<Meter>,
    pub upstream: Arc<Upstream>,
}

/// A flag set, ready to serve.
pub(super) struct Table {
    pub set: Arc<FlagSet>,
    /// By the flag's address, which the set keeps in place.
    entries: HashMap<usize, Arc<Entry>>,
    default: Arc<Entry>,
    meters: HashMap<RouteId, Arc<Meter>>,
    upstreams: HashMap<ServiceName, Arc<Upstream>>,
}

impl Table {
    /// Prepares a set; takes over what the one before has already.
    pub(super) fn new(set: Arc<FlagSet>, limits: &Limits, before: Option<&Table>) -> Self {
        let mut meters = HashMap::new();
        let mut upstreams = HashMap::new();
        let mut upstream = |service: &Arc<Service>| {
            let known = before.and_then(|b| b.upstreams.get(&service.name)).filter(|u| *u.service == **service);
            let made = || known.cloned().unwrap_or_else(|| Arc::new(Upstream::new(service.clone(), limits)));
            upstreams.entry(service.name.clone()).or_insert_with(made).clone()
        };
        let meter = |route: &RouteId| {
            let known = before.and_then(|b| b.meters.get(route));
            known.cloned().unwrap_or_else(|| Arc::new(Meter::new(route.as_str())))
        };
        let mut entries = HashMap::with_capacity(set.routes.len());
        for flag in &set.routes {
            let id = &flag.route.id;
            let meter = meters.entry(id.clone()).or_insert_with(|| meter(id)).clone();
            entries.insert(address(flag), Arc::new(Entry { meter, upstream: upstream(&flag.route.legacy) }));
        }
        let meter = match before {
            Some(before) => before.default.meter.clone(),
            None => Arc::new(Meter::new(DEFAULT)),
        };
        let default = Arc::new(Entry { meter, upstream: upstream(&set.default_legacy) });
        Self { set, entries, default, meters, upstreams }
    }

    /// A route's handles; the default's where there is no route.
    pub(super) fn entry(&self, flag: Option<&Arc<RouteFlag>>) -> &Arc<Entry> {
        flag.and_then(|flag| self.entries.get(&address(flag))).unwrap_or(&self.default)
    }

    /// What was counted of a route.
    pub(super) fn meter(&self, route: &RouteId) -> Option<&Arc<Meter>> {
        self.meters.get(route)
    }

    /// Closes connections to services that have been idle for too long.
    pub(super) fn sweep(&self) {
        self.upstreams.values().for_each(|upstream| upstream.sweep());
    }
}

fn address(flag: &Arc<RouteFlag>) -> usize {
    Arc::as_ptr(flag) as usize
}
