//! One process of a simulation. It is made of the same parts as a real one, in the same order; it has no sockets, and
//! no shadow executor gets the requests that were answered.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::services::Services;
use crate::affinity::{KeyFileLocation, StoreAffinity, open_key_log};
use crate::app::basis::bases_in_store;
use crate::app::opened_store::{OpenedStore, routes_in_store, set_declared, set_renames};
use crate::app::parts::{Parts, flags_without_store};
use crate::app::plans::PlansInForce;
use crate::app::{background, text_hashes};
use crate::config::Setup;
use crate::evidence::Evidence;
use crate::exchange::{
    Answered, ComparisonOutcome, ComparisonTicket, EngineAnswered, Offer, OfferedRequest, TicketCounter,
};
use crate::flag::State;
use crate::ladder::{self, tests::record_pairs};
use crate::limits::Limits;
use crate::names::{RouteId, WorkerId};
use crate::proxy::{Proxy, ProxyParts};
use crate::store::StoreHandle;
use crate::store::tests::simulated::{Link, LinkState, Shared, SimStore};
use crate::transport::AddressRegistry;
use crate::transport::simulated::{self, Network};

/// How often evidence is written to the store.
const EVIDENCE_EVERY: Duration = Duration::from_millis(500);

/// What the processes share.
pub(super) struct World {
    pub store: Arc<SimStore>,
    pub services: Arc<Services>,
    pub setup: Setup,
    /// The directory of the files of retry keys.
    pub keys: PathBuf,
}

/// A process that serves.
pub(super) struct Process {
    pub name: String,
    pub parts: Parts,
    pub worker: WorkerId,
    pub link: Arc<Link>,
    proxy: Proxy,
    killed: CancellationToken,
    /// How many requests it answers.
    in_progress: watch::Sender<usize>,
    tasks: Vec<AbortHandle>,
}

impl Process {
    /// Starts a process and returns once it serves.
    ///
    /// # Errors
    /// The store did not answer: the process has ended.
    pub(super) async fn start(world: &World, name: String, link: Arc<Link>) -> anyhow::Result<Self> {
        let store: StoreHandle = Arc::new(Shared::over(world.store.clone(), link.clone()));
        let network = world.services.network(link.clone());
        with_network(network, Self::start_with(world, name, link, store)).await
    }

    async fn start_with(world: &World, name: String, link: Arc<Link>, store: StoreHandle) -> anyhow::Result<Self> {
        let setup = &world.setup;
        let opened = open(setup, store, world.keys.clone()).await?;
        let affinity = opened.affinity.clone();
        let flags = Arc::new(ArcSwap::from_pointee(flags_without_store(setup, Vec::new())));
        let addresses = AddressRegistry::new();
        let started = Parts::start(opened, setup, flags.clone(), addresses.clone(), None).await;
        let parts = started.inspect_err(|_| affinity.kill_key_log())?;
        parts.resume_runs().await;
        background::report_health(&parts);
        let proxy = Proxy::new(ProxyParts {
            flags,
            limits: setup.limits.clone(),
            addresses,
            forwarding: Arc::new(ArcSwap::from_pointee(setup.settings.forwarding.clone())),
            identity_headers: Vec::new(),
            engine: parts.engine.arm(),
            affinity: parts.affinity.clone(),
            offer: Arc::new(NotCompared),
            served_observer: parts.evidence.clone(),
            effect_registry: None,
            access_log: None,
            waits_for_predecessor: false,
            workers: Arc::default(),
            egress: None,
        });
        let worker = parts.engine.worker();
        parts.evidence.set_process(worker, parts.membership.name());
        let before_write = {
            let (evidence, membership) = (parts.evidence.clone(), parts.membership.clone());
            move || membership.living().iter().for_each(|living| evidence.set_living(living))
        };
        let writing = tokio::spawn(parts.evidence.clone().write_behind(EVIDENCE_EVERY, before_write));
        let mut tasks = vec![writing.abort_handle()];
        parts.membership.join(worker, (vec![name.clone()], name.clone()), &parts.shared_moves()).await;
        let following = parts.membership.clone().run(parts.shared_moves());
        tasks.push(tokio::spawn(following).abort_handle());
        let reload_lock = Arc::default();
        tasks.push(tokio::spawn(background::apply_files_again(parts.clone(), reload_lock)).abort_handle());
        tasks.push(tokio::spawn(background::health(parts.clone())).abort_handle());
        tasks.push(tokio::spawn(background::release_held_routes(parts.clone())).abort_handle());
        parts.membership.set_oldest_set_in_use(proxy.oldest_set_in_use());
        for route in &setup.routes {
            record_pairs(&parts.evidence, &route.id);
        }
        let (killed, in_progress) = (CancellationToken::new(), watch::Sender::new(0));
        Ok(Self { name, parts, worker, link, proxy, killed, in_progress, tasks })
    }

    /// Ends the process as by SIGKILL.
    pub(super) fn kill(&self) {
        self.link.set(LinkState::Ended);
        self.killed.cancel();
        self.tasks.iter().for_each(AbortHandle::abort);
        self.parts.affinity.kill_key_log();
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed.is_cancelled()
    }

    /// Does what a client or a person asks of this process. It waits while the process does not run; `None` if the
    /// process is killed before it is done.
    pub(super) async fn serve<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let served = async {
            self.link.wait_until_running().await;
            let done = work.await;
            self.link.wait_until_running().await;
            done
        };
        self.killed.run_until_cancelled(served).await
    }

    pub(super) async fn answer(&self, request: Request<()>) -> Option<Response<Bytes>> {
        let _in_progress = InProgress::begin(&self.in_progress);
        self.serve(self.proxy.answer(request)).await.flatten()
    }

    /// Begins to end the process as by SIGTERM. It answers requests for a moment longer.
    pub(super) fn begin_to_stop(&self) {
        if self.parts.membership.living().is_some_and(|living| living.len() > 1) {
            self.parts.engine.leave_runs();
        }
    }

    /// Ends the process once nobody sends it requests any more. Those in progress are finished, within bounds, and what
    /// is only in memory is written.
    pub(super) async fn stop(&self, limits: &Limits) {
        let stopping = async {
            let mut in_progress = self.in_progress.subscribe();
            let answered = in_progress.wait_for(|requests| *requests == 0);
            let _cut_off = timeout(Limits::ms(limits.drain_ms), answered).await.is_err();
            tracing::debug!("{} has no request in progress", self.name);
            let recorded_until = self.parts.drain(limits).await;
            tracing::debug!("{} is drained", self.name);
            self.tasks.iter().for_each(AbortHandle::abort);
            self.parts.ladder.end_freezes(recorded_until).await;
        };
        // The file of retry keys is unlocked by the kill: a thread does that, which knows no simulated time.
        self.serve(stopping).await;
        self.kill();
    }

    /// The state that was requested for a route last, as it is in force here.
    pub(super) fn requested(&self, route: &RouteId) -> State {
        self.parts.ladder.flags().load().route(route).map_or(State::Off, |flag| flag.requested)
    }

    /// Whether the engine answers the route here.
    pub(super) fn engine_answers(&self, route: &RouteId) -> bool {
        self.parts.ladder.flags().load().route(route).is_some_and(|flag| flag.effective.state >= State::Live)
    }

    /// The number of the newest flip that is in force here, with all before it.
    pub(super) fn followed(&self) -> u64 {
        *self.parts.ladder.newest_in_force().borrow()
    }
}

/// Counts a request until it is dropped.
struct InProgress<'a>(&'a watch::Sender<usize>);

impl<'a> InProgress<'a> {
    fn begin(requests: &'a watch::Sender<usize>) -> Self {
        requests.send_modify(|requests| *requests += 1);
        Self(requests)
    }
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

/// Opens what is beside the store, as the program does.
async fn open(setup: &Setup, store: StoreHandle, keys: PathBuf) -> anyhow::Result<OpenedStore> {
    let limits = &setup.limits;
    let routes = routes_in_store(&store, setup).await?;
    let secret = store.secret().await?;
    let text_hash = text_hashes::of_store(setup, &secret);
    let (flips, rows) = (store.last_flips().await?, store.declared().await?);
    let plans = PlansInForce::load(&store, setup, ladder::stored_plans_in_force(flips, &rows, &routes)).await?;
    let keys = open_key_log(&store, &KeyFileLocation::Dir(keys), limits).await?;
    let affinity = StoreAffinity::open(store.clone(), limits, keys).await?;
    let evidence = Evidence::load_with(store.clone(), limits).await;
    let evidence = evidence.inspect_err(|_| affinity.kill_key_log())?;
    set_renames(&evidence, &routes);
    let basis_changes = evidence.set_basis(0, &bases_in_store(setup, &routes, &plans));
    set_declared(&evidence, setup);
    Ok(OpenedStore { store, evidence, basis_changes, affinity, secret, text_hash, plans })
}

/// Polls `work` with this network in force, so that all connections that `work` opens go through it.
async fn with_network<T>(network: Network, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    std::future::poll_fn(|cx| -> Poll<T> {
        simulated::set(Some(network.clone()));
        let polled = work.as_mut().poll(cx);
        simulated::set(None);
        polled
    })
    .await
}

/// Takes requests that were answered, and compares nothing.
struct NotCompared;

impl Offer for NotCompared {
    fn open(&self, request: OfferedRequest) -> ComparisonTicket {
        ComparisonTicket::new(request, Arc::new(NotCompared))
    }
    fn offer(&self, ticket: ComparisonTicket, _answered: Answered) {
        ticket.settle(ComparisonOutcome::Matched);
    }
    fn check(&self, _answered: EngineAnswered) {}
    fn has_room(&self, _route: &RouteId) -> bool {
        true
    }
}

impl TicketCounter for NotCompared {
    fn settle(&self, _request: &OfferedRequest, _outcome: ComparisonOutcome) {}
    fn count_without_twin(&self, _request: &OfferedRequest) {}
}
