//! Tests of moves, with a store in memory.

mod acceptance;
mod announce;
mod auto;
mod captured_log;
mod changed_in_live;
mod cohorts_by_evidence;
mod ended_tasks;
pub(crate) mod failing_store;
mod families;
mod files;
mod first_set;
mod first_tries;
mod flips;
mod flips_down;
mod followed;
mod followed_limits;
mod forced_files;
mod freezes;
mod guard;
mod guard_superseded;
mod held;
mod held_cohorts;
mod instances;
mod joined;
mod joined_families;
mod judged_gates;
mod late_records;
mod outcomes;
mod outdated_moves;
mod overtaken;
mod pairs_in_flight;
mod plans;
mod races;
mod re_added;
mod removed_share_key;
mod renamed_back;
mod renames;
mod scopes;
mod separated;
mod shares;
mod spellings;
mod stopped_candidates;
mod unfollowed_instances;
mod unknown_keys;
mod unknown_moves;
mod unlisted_ids;
mod unrecorded_because;
mod unrecorded_flips;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Method;

use self::failing_store::FailingStore;
use super::*;
use crate::compare::{Body, Comparison, Observation, Verdict};
use crate::evidence::Evidence;
use crate::exchange::{ComparisonOutcome, OfferedRequest, Served, ServedObserver, TicketCounter as _};
use crate::expression::Template;
use crate::flag::{
    Effective, EffectiveReason, Freeze, Instance, Percent, Promote, Route, RouteMatch, Service, Shares, State,
};
use crate::store::StoreHandle;

/// A family, a list, and two other routes, each declared in the state that `states` gives it, otherwise `off`. The
/// route `plain` has a key.
pub(crate) fn files(states: &[(&str, State)]) -> DeclaredFiles {
    let shop = Arc::new(Service::at("shop", [http::Uri::from_static("http://127.0.0.1:9000")]));
    let route = |id: &str, method: Method, path: &str| Route {
        workflow: Some("work".into()),
        declared: states.iter().find(|(name, _)| *name == id).map_or(State::Off, |(_, state)| *state),
        promote: promote(),
        ..Route::without_workflow(id.into(), RouteMatch { method, path: path.into(), host: None }, Arc::clone(&shop))
    };
    let mut create = route("create", Method::POST, "/orders");
    create.instance = Some(Instance::Creates { id: serde_json_path::JsonPath::parse("$.id").unwrap().into() });
    let mut follow = route("follow", Method::GET, "/orders/{id}");
    follow.instance =
        Some(Instance::Follows { creator: "create".into(), key: crate::flag::InstanceKeySource::Path("id".into()) });
    let mut list = route("list", Method::GET, "/orders");
    list.workflow = None;
    let mut plain = route("plain", Method::POST, "/plain");
    plain.key = Some(Template::parse_str("${request.headers[\"x-tenant\"]}").unwrap());
    let bare = route("bare", Method::POST, "/bare");
    let routes = [create, follow, list, plain, bare].into_iter().map(Arc::new).collect();
    DeclaredFiles {
        files_version: 0,
        routes,
        default_legacy: Arc::clone(&shop),
        services: BTreeMap::from([("shop".into(), shop)]),
        exposes_arm: false,
        bases: BTreeMap::new(),
        read_only: Default::default(),
        shared_steps: Default::default(),
        private_steps: Default::default(),
        sent_reads: Default::default(),
        pairs_within: Duration::ZERO,
        candidate_pairs_within: Duration::ZERO,
        plans: Default::default(),
    }
}

/// What [`Fixture::record_pairs`] and [`Fixture::record_engine_answers`] can meet.
fn promote() -> Promote {
    Promote {
        pairs: 20,
        mismatch_below: 1.0,
        coverage_at_least: 0.0,
        strata_at_least: 0,
        errors_not_worse_by: 0.1,
        answers: 50,
        window: Duration::ZERO,
        ..Promote::default()
    }
}

/// A request of a route in `dark`.
fn in_dark(route: &str) -> OfferedRequest {
    OfferedRequest { rung: State::Dark, ..OfferedRequest::new(route, 0) }
}

/// The same files with one route changed.
pub(crate) fn edited(mut files: DeclaredFiles, id: &str, edit: impl FnOnce(&mut Route)) -> DeclaredFiles {
    let route = files.routes.iter_mut().find(|route| route.id.as_str() == id).unwrap();
    edit(Arc::make_mut(route));
    files
}

pub(crate) async fn open_ladder(
    files: DeclaredFiles,
    store: &Arc<FailingStore>,
    evidence: &Arc<Evidence>,
) -> Result<Arc<Ladder>, FilesError> {
    open_with(files, store, evidence, Vec::new()).await
}

fn ladder_parts(
    store: &Arc<FailingStore>,
    evidence: &Arc<Evidence>,
    conditions: Vec<Arc<dyn GateCondition>>,
) -> LadderParts {
    LadderParts {
        store: store.clone(),
        evidence: evidence.clone(),
        conditions,
        conditions_of_moves: Vec::new(),
        retry_window: Duration::from_secs(86_400),
        copy_started: None,
        answer_within: Duration::from_secs(5),
        others: None,
    }
}

/// Opens a ladder whose gates have other conditions than evidence.
async fn open_with(
    files: DeclaredFiles,
    store: &Arc<FailingStore>,
    evidence: &Arc<Evidence>,
    conditions: Vec<Arc<dyn GateCondition>>,
) -> Result<Arc<Ladder>, FilesError> {
    Ladder::open(files, ladder_parts(store, evidence, conditions)).await
}

/// Sentences about instances of the engine that these files would leave without a route.
async fn unfollowed_in(
    ladder: &Ladder,
    store: &Arc<FailingStore>,
    files: &DeclaredFiles,
) -> Result<Vec<String>, StoreError> {
    let before = ladder.mover.in_force().inputs().positions;
    let store: StoreHandle = store.clone();
    Ok(super::unfollowed_instances::find(&store, &before.families(), &files.routes).await?.newly_unfollowed)
}

impl Ladder {
    /// Puts files in force that were read just now.
    async fn reload(
        &self,
        declared: DeclaredFiles,
        recorded: impl FnOnce() + Send + 'static,
    ) -> Result<(), FilesError> {
        self.reload_files(Instant::now(), declared, recorded).await.map(drop)
    }
}

struct Fixture {
    store: Arc<FailingStore>,
    evidence: Arc<Evidence>,
    ladder: Arc<Ladder>,
}

impl Fixture {
    async fn open(files: DeclaredFiles) -> Self {
        let store = Arc::new(FailingStore::default());
        let evidence = Evidence::load(store.clone()).await.unwrap();
        let ladder = open_ladder(files, &store, &evidence).await.unwrap();
        Self { store, evidence, ladder }
    }
    /// A new process on the same store.
    async fn restart(self, files: DeclaredFiles) -> Self {
        let Self { store, evidence, ladder: _ } = self;
        let ladder = open_ladder(files, &store, &evidence).await.unwrap();
        Self { store, evidence, ladder }
    }
    async fn unfollowed(&self, files: &DeclaredFiles) -> Result<Vec<String>, StoreError> {
        unfollowed_in(&self.ladder, &self.store, files).await
    }
    async fn flip(&self, route: &str, request: MoveRequest) -> Result<Flipped, FlipError> {
        self.ladder.flip(&route.into(), request).await
    }
    /// The error text of a refused flip.
    async fn refusal(&self, route: &str, request: MoveRequest) -> String {
        let before = self.flips().await;
        let error = self.flip(route, request).await.unwrap_err().to_string();
        assert_eq!(self.flips().await, before, "a refused flip is not recorded");
        error
    }
    fn state(&self, route: &str) -> Effective {
        self.ladder.flags().load().route(&route.into()).unwrap().effective
    }
    fn status(&self, route: &str) -> RouteStatus {
        self.ladder.status().into_iter().find(|status| status.route.as_str() == route).unwrap()
    }
    async fn flips(&self) -> usize {
        self.store.flips(None, 1_000).await.unwrap().len()
    }
    /// Begins a real run of a route, which will create an instance that is pinned under the id `family`.
    async fn begin_run(&self, route: &str, family: Option<&str>) -> RunId {
        let creates = |family: &str| Creates::Engine { family: family.into(), path: "$.id".into() };
        self.begin(|started| (started.route, started.creates) = (Some(route.into()), family.map(creates))).await
    }
    async fn begin(&self, edit: impl FnOnce(&mut RunStarted)) -> RunId {
        let run = RunId(uuid::Uuid::now_v7());
        let Event::RunStarted(mut started) = store_tests::run_started(run, store_tests::at(0)) else { unreachable!() };
        edit(Arc::make_mut(&mut started));
        let event = Event::RunStarted(started);
        let summary = workflow::fold([&event]).unwrap().summary(store_tests::at(0));
        let append = Append { events: vec![(store_tests::at(0), event)], summary, ..store_tests::append(run, 1, 1) };
        self.store.append(Arc::new(append)).await.unwrap();
        run
    }
    /// Pairs that open the gates to `dark` and `live`.
    fn record_pairs(&self, route: &str) {
        record_pairs(&self.evidence, &route.into());
    }
    /// Answers of the engine that open the gate to `only`.
    fn record_engine_answers(&self, route: &str) {
        for _ in 0..50 {
            self.evidence.served(&route.into(), 0, Served::Answered);
        }
    }
}

/// Pairs that open the gates to `dark` and `live`, under the first files.
pub(crate) fn record_pairs(evidence: &Evidence, route: &RouteId) {
    let (status, body) = (http::StatusCode::OK, Body::Whole(bytes::Bytes::new()));
    let reply = Observation::new(status, http::HeaderMap::new(), body, Duration::ZERO, Vec::new());
    let equal = Comparison {
        verdict: Verdict::Match,
        differences: Vec::new(),
        elements: Default::default(),
        truncated: false,
        ignored_by: Vec::new(),
        compares_replies: true,
        fingerprint: String::new(),
        effects: None,
        intents: Default::default(),
        calls: Vec::new(),
        orders_not_kept: Vec::new(),
        unparsable: Vec::new(),
        not_known: Vec::new(),
    };
    for _ in 0..20 {
        evidence.record_pair(route, evidence.generation(route, 0), State::Dark, &equal, &reply, &reply);
    }
}

use crate::names::RunId;
use crate::store::{Append, Store as _, tests as store_tests};
use crate::workflow::{self, Creates, Event, RunStarted};

fn to(state: State) -> MoveRequest {
    MoveRequest { to: state, percent: None, reason: None, force: false, acknowledge: false, by: "ann".into() }
}

fn forced(state: State) -> MoveRequest {
    MoveRequest { force: true, reason: Some("a drill".into()), ..to(state) }
}

fn percent(state: State, percent: f64) -> MoveRequest {
    MoveRequest { percent: Percent::new(percent), ..to(state) }
}

fn effective(state: State, why: EffectiveReason) -> Effective {
    Effective { state, why }
}
