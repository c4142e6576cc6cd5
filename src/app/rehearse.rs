//! Rehearses captures with the workflows and rules of a directory, for `pointsman rehearse`.
//!
//! Always true: nothing is sent. The very engine and shadow executor of a process run the captures, over a store in
//! memory; the reads of a run are answered from its capture, and a run with a read that the capture does not answer is
//! skipped, whatever came of it. The values of secrets are stars, as they are in captures.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, ready};
use http::Method;
use http::header::HOST;

use super::basis::bases;
use super::rehearsal_report::{RehearsalReport, RehearsedGroup, RehearsedRoute};
use crate::affinity::StoreAffinity;
use crate::clock;
pub use crate::compare::Capture;
use crate::compare::{Body, CapturedReads, HarError, NOT_KNOWN, UnreadableCapture, pairs_of_har};
use crate::config::{self, CheckFailed, Overrides, Setup};
use crate::engine::{Engine, EngineParts};
use crate::evidence::{Captures, Evidence, RouteEvidence};
use crate::exchange::{
    Answered, KeysOfLegacy, Offer, OfferedRequest, ReplayedReads, RequestCopy, RequestEffects, Twins,
    decoded_body_value,
};
use crate::flag::{FlagSet, Freeze, InstanceId, InstanceKey, RouteFlag};
use crate::limits::Limits;
use crate::names::{RouteId, RunId};
use crate::secret::{RedactionKey, STARS, Secret, set_secret_names};
use crate::shadow::{Shadow, ShadowParts};
use crate::store::{MemoryStore, StoreHandle};
use crate::transport::AddressRegistry;
use crate::workflow::{Mode, RunStatus};

/// How many captures are rehearsed between two writes of their samples to the store in memory.
const SAMPLES_EVERY: u64 = 100;
/// The pause between two checks of how many requests wait, or are settled.
const PAUSE: Duration = Duration::from_millis(1);
/// The most memory of the requests that wait for a thread. Few wait, so that only large requests reach this bound.
const QUEUE_BYTES_MAX: u64 = 1 << 30;

/// The parameters of a path, by name.
type PathParams = Vec<(Arc<str>, String)>;

/// Checked flag files with which captures are rehearsed.
pub struct RehearsalFiles {
    setup: Setup,
    flags: Arc<FlagSet>,
}

impl RehearsalFiles {
    /// Reads and checks a directory. The values of secrets may be absent.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn read(dir: &Path) -> Result<Self, CheckFailed> {
        let overrides =
            Overrides { secrets_may_be_absent: true, store: Some("memory:".into()), ..Overrides::default() };
        let setup = config::read(dir, &overrides)?.setup;
        let flags = FlagSet::new(
            0,
            setup.routes.clone(),
            &BTreeMap::new(),
            setup.default_legacy.clone(),
            setup.services.clone(),
            Freeze::No,
            [0; 32],
        );
        Ok(Self { setup, flags: Arc::new(flags) })
    }

    /// The ids of the routes that have a workflow.
    pub fn routes(&self) -> impl Iterator<Item = &RouteId> {
        self.setup.routes.iter().filter(|route| route.workflow.is_some()).map(|route| &route.id)
    }

    /// The pairs of a HAR file whose requests belong to a route.
    ///
    /// # Errors
    /// The text is no HAR.
    pub fn pairs_of_har(&self, text: &str) -> Result<Vec<Capture>, HarError> {
        pairs_of_har(text, &|method, host, path| {
            let method: Method = method.parse().ok()?;
            self.find_route(&method, host, path).map(|(flag, _)| flag.route.id.clone())
        })
    }

    fn find_route(&self, method: &Method, host: Option<&str>, path: &str) -> Option<(Arc<RouteFlag>, PathParams)> {
        let host = host.map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase());
        let found = self.flags.find(method, host.as_deref(), path)?;
        Some((Arc::clone(found.flag), found.params))
    }

    /// Rehearses captures, in parallel. `progress` is called with the number of captures that have been read.
    ///
    /// # Errors
    /// A capture is refused by `captures`, or threads cannot be started: nothing is reported then.
    pub fn rehearse<E: From<std::io::Error>>(
        &self,
        captures: impl Iterator<Item = Result<Capture, E>>,
        route_filter: Option<&RouteId>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<RehearsalReport, E> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let rehearsing = Rehearsing::start(self).await?;
            let report = rehearsing.run(captures, route_filter, progress).await;
            rehearsing.shadow.drain(Duration::from_secs(1)).await;
            report
        })
    }
}

/// A rehearsal under way.
struct Rehearsing<'a> {
    files: &'a RehearsalFiles,
    evidence: Arc<Evidence>,
    shadow: Arc<Shadow>,
    store: StoreHandle,
    limits: Arc<Limits>,
    /// How many captures may wait for a thread.
    waiting_max: u64,
    /// Holds the tasks of runs.
    _engine: Arc<Engine>,
}

impl<'a> Rehearsing<'a> {
    async fn start(files: &'a RehearsalFiles) -> Result<Self, std::io::Error> {
        let failed = |error: crate::store::StoreError| std::io::Error::other(error.to_string());
        let setup = &files.setup;
        set_secret_names(setup.settings.redact.names());
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let limits = Arc::new(Limits {
            shadow_threads: cores,
            shadow_in_flight_max: 2 * cores,
            shadow_queue_entries_max: 4 * cores,
            shadow_queue_bytes_max: QUEUE_BYTES_MAX,
            egress_rehearse_wait_ms: 0,
            ..(*setup.limits).clone()
        });
        let store: StoreHandle = Arc::new(MemoryStore::new());
        let affinity = StoreAffinity::load(store.clone(), &limits).await.map_err(failed)?;
        let evidence = Evidence::load_with(store.clone(), &limits).await.map_err(failed)?;
        evidence.set_basis(0, &bases(setup, &Default::default()));
        let engine = Arc::new(Engine::new(EngineParts {
            store: store.clone(),
            plans: setup.workflows.clone(),
            services: setup.services.clone(),
            secrets: starred_secrets(setup),
            store_key: None,
            key_secret: [0; 32],
            limits: limits.clone(),
            addresses: AddressRegistry::new(),
            affinity,
            clock: clock::process().clone(),
            late_failures: evidence.clone(),
        }));
        let shadow = Shadow::start(ShadowParts {
            engine: engine.arm(),
            legacy: None,
            twins: Arc::new(NoTwins),
            evidence: evidence.clone(),
            captures: Captures::new(store.clone(), RedactionKey::derived_from(&[0; 32])),
            rules: Arc::new(arc_swap::ArcSwap::from_pointee(setup.rules.clone())),
            limits: limits.clone(),
        })?;
        Ok(Self { files, evidence, shadow, store, limits, waiting_max: cores, _engine: engine })
    }

    async fn run<E: From<std::io::Error>>(
        &self,
        captures: impl Iterator<Item = Result<Capture, E>>,
        route_filter: Option<&RouteId>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<RehearsalReport, E> {
        let mut report = RehearsalReport::default();
        let mut offered: BTreeMap<RouteId, u64> = BTreeMap::new();
        let mut left_out: BTreeMap<RouteId, BTreeMap<&'static str, u64>> = BTreeMap::new();
        for capture in captures {
            let capture = capture?;
            report.captures += 1;
            let route = match self.answered_request(&capture, route_filter) {
                Ok(Some(answered)) => self.offer(answered).await,
                Ok(None) => {
                    *report.left_out.entry("other_route").or_default() += 1;
                    continue;
                }
                Err(why) => {
                    *report.left_out.entry(why).or_default() += 1;
                    *left_out.entry(self.route_of(&capture)).or_default().entry(why).or_default() += 1;
                    continue;
                }
            };
            *offered.entry(route).or_default() += 1;
            progress(report.captures);
            if report.captures.is_multiple_of(SAMPLES_EVERY) {
                self.write_samples().await?;
            }
        }
        for (route, number) in &offered {
            self.wait_until_settled(route, *number).await;
        }
        self.write_samples().await?;
        for route in offered.into_keys() {
            let found = self.result_of(&route).await.map_err(|error| std::io::Error::other(error.to_string()))?;
            report.routes.insert(route, found);
        }
        // A route may have only left-out captures: it is listed, so that its absence is not read as equality.
        for (route, reasons) in left_out {
            report.routes.entry(route).or_default().left_out = reasons;
        }
        Ok(report)
    }

    /// The id that the route of a capture has in these files; that of the capture if they have no such route.
    fn route_of(&self, capture: &Capture) -> RouteId {
        let is_of = |flag: &&Arc<RouteFlag>| flag.route.ids().any(|id| *id == capture.route);
        let flag = self.files.flags.routes.iter().find(is_of);
        flag.map_or_else(|| capture.route.clone(), |flag| flag.route.id.clone())
    }

    /// The capture as an answered request; `None` if it is of another route than the one that is asked for.
    ///
    /// # Errors
    /// Why it cannot be rehearsed.
    fn answered_request(
        &self,
        capture: &Capture,
        route_filter: Option<&RouteId>,
    ) -> Result<Option<Answered>, &'static str> {
        let flags = &self.files.flags;
        let is_of = |flag: &&Arc<RouteFlag>| flag.route.ids().any(|id| *id == capture.route);
        let found = flags.routes.iter().find(is_of);
        if found.is_none() && route_filter.is_some_and(|wanted| *wanted != capture.route) {
            return Ok(None);
        }
        let flag = found.ok_or("no_route")?;
        if route_filter.is_some_and(|wanted| *wanted != flag.route.id && *wanted != capture.route) {
            return Ok(None);
        }
        if flag.route.workflow.is_none() {
            return Err("no_workflow");
        }
        let unreadable = |_: UnreadableCapture| "unreadable";
        let (method, headers) = capture.request.head().map_err(unreadable)?;
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let found = self.files.find_route(&method, host, &capture.request.path);
        let (_, params) = found.filter(|(found, _)| found.route.id == flag.route.id).ok_or("other_match")?;
        let Body::Whole(body) = capture.request.body.body() else { return Err("body_too_large") };
        let effects = capture.effects().map_err(unreadable)?.map(|calls| {
            let effects = RequestEffects::new(Duration::ZERO);
            calls.into_iter().for_each(|effect| effects.add(effect, Box::new(())));
            effects
        });
        let reads = ReplayedReads::new(CapturedReads::of(capture).map_err(unreadable)?);
        Ok(Some(Answered {
            flags: Arc::clone(flags),
            flag: Arc::clone(flag),
            mode: Mode::Rehearse,
            instance: flag
                .follows(&params, capture.request.query.as_deref(), &headers, || {
                    decoded_body_value(&headers, &body, &self.limits)
                })
                .map(|key| InstanceId { key, run: None }),
            request: Arc::new(RequestCopy {
                method,
                path: capture.request.path.clone(),
                query: capture.request.query.clone(),
                params,
                headers,
                traceparent: None,
                body,
                peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            }),
            legacy: Arc::new(capture.legacy().map_err(unreadable)?),
            legacy_keys: KeysOfLegacy { keys: Vec::new(), decided_at: clock::now() },
            effects,
            reads: Some(Arc::new(reads.begun_at(capture.started.unwrap_or(capture.at), capture.instance.clone()))),
            repeat: None,
            candidate: None,
            at_legacy: None,
        }))
    }

    /// Offers a request as soon as few others wait for a thread.
    async fn offer(&self, answered: Answered) -> RouteId {
        while self.shadow.load().queue_depth >= self.waiting_max {
            tokio::time::sleep(PAUSE).await;
        }
        let route = answered.flag.route.id.clone();
        let request = OfferedRequest {
            method: answered.request.method.clone(),
            legacy_status: Some(answered.legacy.status()),
            ..OfferedRequest::new(route.clone(), 0)
        };
        self.shadow.offer(self.shadow.open(request), answered);
        route
    }

    /// Waits until every request of a route is settled. Each run has a time within which it ends (`shadow_run_ms`).
    async fn wait_until_settled(&self, route: &RouteId, offered: u64) {
        while self.evidence.settled(route) < offered {
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn write_samples(&self) -> Result<(), std::io::Error> {
        self.evidence.flush().await.map_err(|error| std::io::Error::other(error.to_string()))
    }

    async fn result_of(&self, route: &RouteId) -> Result<RehearsedRoute, crate::store::StoreError> {
        let evidence = self.evidence.of(route);
        let samples = self.store.samples(route.clone(), self.limits.samples_per_route_max()).await?;
        let mut groups: BTreeMap<String, RehearsedGroup> = BTreeMap::new();
        for sample in samples {
            groups.entry(sample.fingerprint.clone()).or_insert_with(|| RehearsedGroup::of(sample, &evidence));
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by(|a, b| b.pairs.cmp(&a.pairs).then_with(|| a.fingerprint.cmp(&b.fingerprint)));
        let pairs = evidence.pairs();
        let undecided_places = evidence.undecided_places.clone();
        let RouteEvidence { matched, ignored, mismatched, skipped, failed, unresolved, rule_hits, .. } = evidence;
        let of_place = |(counted, pairs): (String, u64)| Some((counted.strip_prefix(NOT_KNOWN)?.to_owned(), pairs));
        let (left_out, not_known) = (BTreeMap::new(), rule_hits.into_iter().filter_map(of_place).collect());
        Ok(RehearsedRoute {
            pairs,
            left_out,
            matched,
            ignored,
            mismatched,
            skipped,
            failed,
            unresolved,
            not_known,
            contradicted: undecided_places.contradicted().clone(),
            groups,
        })
    }
}

/// Stars for every secret that a workflow reads, whether it has a value here or not.
fn starred_secrets(setup: &Setup) -> BTreeMap<String, Secret> {
    let read = setup.workflows.values().flat_map(|plan| &plan.reads).filter(|path| path.root() == "secrets");
    let names = read.filter_map(|path| path.part(0)).map(str::to_owned);
    names.chain(setup.settings.secrets.keys().cloned()).map(|name| (name, Secret::new(STARS))).collect()
}

/// A rehearsal of captures has no twins.
struct NoTwins;

impl Twins for NoTwins {
    fn wait_until_ended(&self, _run: RunId) -> BoxFuture<'static, Option<RunStatus>> {
        ready(None).boxed()
    }
    fn mark_incomplete<'a>(&'a self, _instance: &'a InstanceKey) -> BoxFuture<'a, bool> {
        ready(true).boxed()
    }
}
