//! The flag set in force, with each route's metric handles and upstream.
//!
//! Built once per set, so that a request looks nothing up by name. Always true: a request holds one [`Table`], and so
//! one flag set, from its head to its last byte; services that a reload did not change keep their connections.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::egress::Egress;
use super::egress_targets::{EgressTarget, EgressTargets};
use super::route_entry::RouteEntry;
use super::route_metrics::RouteMetrics;
use super::turns::Turns;
use super::upstream::Upstream;
use super::wait_limits::ExchangeLimits;
use crate::flag::{Compress, FlagSet, RelaySettings, Route, RouteFlag, Service};
use crate::limits::Limits;
use crate::names::{RouteId, ServiceName};
use crate::transport::AddressRegistry;

/// The label of requests that match no route.
const DEFAULT: &str = "default";
/// The label of legacy's calls that were refused before their target was known; other calls have the label `egress:`
/// and the target's name.
const EGRESS: &str = "egress";

/// A flag set with the handles of its routes.
pub(super) struct Table {
    pub set: Arc<FlagSet>,
    /// Keyed by the address of the `RouteFlag`, which does not move while the set exists.
    entries: HashMap<usize, Arc<RouteEntry>, BuildHasherDefault<AddressHasher>>,
    default: Arc<RouteEntry>,
    route_metrics: HashMap<RouteId, Arc<RouteMetrics>>,
    turns: HashMap<RouteId, Arc<Turns>>,
    upstreams: HashMap<ServiceName, Arc<Upstream>>,
    /// Where the calls that legacy makes may go; set in the table of the egress listener.
    pub egress: Option<EgressTargets>,
    /// How many of the requests that have this table are passed on, so that no run begins for them.
    passed_on: AtomicUsize,
}

/// A request that is passed on until this is dropped.
pub(super) struct PassedOn<'a>(&'a AtomicUsize);

impl Drop for PassedOn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Table {
    /// Builds the table of a set; reuses the handles and connections of the previous table.
    /// `egress` is set for the table of the egress listener, whose calls belong to no route.
    pub(super) fn new(
        set: Arc<FlagSet>,
        limits: &Limits,
        registry: &AddressRegistry,
        before: Option<&Table>,
        egress: Option<&Egress>,
    ) -> Self {
        let mut all_metrics = HashMap::new();
        let mut upstreams = HashMap::new();
        let mut upstream = |service: &Arc<Service>| {
            let service = egress.map_or_else(|| service.clone(), |_| Egress::preserving_header_case(service));
            let known = before.and_then(|b| b.upstreams.get(&service.name));
            let made = || match known.filter(|known| *known.service == *service) {
                Some(same) => same.clone(),
                None => Arc::new(Upstream::new(service.clone(), limits, registry, egress.map(|e| e.own.clone()))),
            };
            upstreams.entry(service.name.clone()).or_insert_with(made).clone()
        };
        let metrics_of = |route: &RouteId| {
            let known = before.and_then(|b| b.route_metrics.get(route));
            known.cloned().unwrap_or_else(|| Arc::new(RouteMetrics::new(route.as_str())))
        };
        let mut all_turns = HashMap::new();
        let mut turns_of = |route: &Route| {
            let requests_max = route.requests_max?;
            let known =
                before.and_then(|b| b.turns.get(&route.id)).filter(|known| known.has_requests_max(requests_max));
            let made = || Arc::new(Turns::of_route(&route.id, requests_max, limits));
            let turns = known.cloned().unwrap_or_else(made);
            all_turns.insert(route.id.clone(), turns.clone());
            Some(turns)
        };
        let entry_of = |route_metrics, upstream, turns, relay: &RelaySettings, exposes_arm, template| {
            let buffer_request = relay.buffer_request.unwrap_or(0);
            let limits = ExchangeLimits::new(limits, relay);
            let compress = relay.compress == Some(Compress::Gzip);
            Arc::new(RouteEntry {
                route_metrics,
                upstream,
                limits,
                buffer_request,
                compress,
                turns,
                exposes_arm,
                template,
            })
        };
        let mut entries = HashMap::with_capacity_and_hasher(set.routes.len(), BuildHasherDefault::default());
        for flag in set.routes.iter().filter(|_| egress.is_none()) {
            let id = &flag.route.id;
            let route_metrics = all_metrics.entry(id.clone()).or_insert_with(|| metrics_of(id)).clone();
            let exposes_arm = flag.route.exposes_arm.unwrap_or(set.exposes_arm);
            let relay = flag.route.relay.or(&flag.route.legacy.relay);
            let (upstream, turns) = (upstream(&flag.route.legacy), turns_of(&flag.route));
            let template = Some(&flag.route.matches.path).filter(|path| path.contains('{'));
            let template = template.map(|path| Arc::from(path.as_str()));
            let entry = entry_of(route_metrics, upstream, turns, &relay, exposes_arm, template);
            entries.insert(address(flag), entry);
        }
        let route_metrics = match before {
            Some(before) => before.default.route_metrics.clone(),
            None => Arc::new(RouteMetrics::new(egress.map_or(DEFAULT, |_| EGRESS))),
        };
        let exposes_arm = set.exposes_arm && egress.is_none();
        let default =
            entry_of(route_metrics, upstream(&set.default_legacy), None, &set.default_legacy.relay, exposes_arm, None);
        let egress = egress.map(|egress| {
            let mut target = |service: &Arc<Service>, is_declared: bool| {
                let id = RouteId::new([EGRESS, ":", service.name.as_str()].concat());
                let route_metrics = all_metrics.entry(id.clone()).or_insert_with(|| metrics_of(&id)).clone();
                let entry = entry_of(route_metrics, upstream(service), None, &service.relay, false, None);
                let service = service.name.clone();
                Arc::new(EgressTarget {
                    entry,
                    route: id,
                    name: service.clone(),
                    service: is_declared.then_some(service),
                })
            };
            let services = set.services.values().map(|service| target(service, true)).collect();
            let listed = egress.listed.iter().map(|(listed, service)| (listed.clone(), target(service, false)));
            let listed = listed.collect();
            EgressTargets::new(services, listed)
        });
        for (name, old) in before.iter().flat_map(|before| &before.upstreams) {
            match upstreams.get(name) {
                Some(new) if Arc::ptr_eq(new, old) => {}
                _ => old.replaced(),
            }
        }
        let passed_on = AtomicUsize::new(0);
        Self { set, entries, default, route_metrics: all_metrics, turns: all_turns, upstreams, egress, passed_on }
    }

    /// Counts a request as passed on until the guard is dropped. The request has to hold this table for longer.
    pub(super) fn pass_on(&self) -> PassedOn<'_> {
        self.passed_on.fetch_add(1, Ordering::SeqCst);
        PassedOn(&self.passed_on)
    }

    /// Whether a request for which a run may begin holds the table. The caller's own reference does not count.
    pub(super) fn is_in_use(self: &Arc<Self>) -> bool {
        // References are counted first, so that each request that is then counted as passed on is among them. In the
        // other order, a passed-on request that ends in between would hide a request for which a run may begin.
        let others = Arc::strong_count(self) - 1;
        others > self.passed_on.load(Ordering::SeqCst)
    }

    /// Returns a route's entry; the default entry if there is no route.
    pub(super) fn entry(&self, flag: Option<&Arc<RouteFlag>>) -> &Arc<RouteEntry> {
        flag.and_then(|flag| self.entries.get(&address(flag))).unwrap_or(&self.default)
    }

    /// Returns the entry of requests that match no route.
    pub(super) fn no_route(&self) -> &Arc<RouteEntry> {
        &self.default
    }

    /// Returns the metrics of a route.
    pub(super) fn route_metrics(&self, route: &RouteId) -> Option<&Arc<RouteMetrics>> {
        self.route_metrics.get(route)
    }

    /// Closes connections to services that have been idle for too long. Starts the lookups and health checks of
    /// services that have had no request yet.
    pub(super) fn sweep(&self) {
        for upstream in self.upstreams.values() {
            upstream.start();
            upstream.sweep();
        }
    }
}

/// Hashes an address in memory, which no client can choose, by one multiplication.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }
    fn write_usize(&mut self, number: usize) {
        // Rotated, because the low bits choose the bucket, and the multiplication mixes the high bits best.
        self.0 = (self.0 ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

fn address(flag: &Arc<RouteFlag>) -> usize {
    Arc::as_ptr(flag) as usize
}
