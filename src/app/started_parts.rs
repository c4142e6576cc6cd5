//! Starts the parts that need the store, the background tasks, and the API.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::Signal;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::adoptions::AdoptionsForApi;
use super::client_proxy::ClientProxy;
use super::listener_tls::ListenersInForce;
use super::opened_store::OpenedStore;
use super::parts::Parts;
use super::reload_requests::ReloadRequests;
use super::signals::Signals;
use super::succession::status::SuccessionStatus;
use super::{
    background, file_entries, instances, kept_plan_callers, memory, process_status, rejudging, retention,
    service_callers, service_manager, services, time,
};
use crate::access_log::AccessLog;
use crate::admin::{self, AdminParts, CallersOfService, RouteTraffic, RulesOfRoute};
use crate::clock;
use crate::config::{FlagFileWatcher, Loaded, Overrides, ReloadStatus, RouteRules, WatchTiming};
use crate::names::ServiceName;
use crate::page;
use crate::telemetry;

/// How often captures are written to the store.
const CAPTURES_EVERY: Duration = Duration::from_secs(1);
/// How long the start waits for the store to say which instances were being moved.
const MOVING_INSTANCES_WAIT: Duration = Duration::from_secs(2);
/// How often evidence is written to the store.
const EVIDENCE_EVERY: Duration = Duration::from_millis(500);

/// What the parts need in order to start, in addition to the files and the store.
pub(super) struct StartingParts<'a> {
    pub flags: PathBuf,
    pub overrides: Overrides,
    pub signals: Signals,
    pub engine: &'a Handle,
    pub admin: &'a Handle,
    pub stop: &'a CancellationToken,
    pub succession: &'a Arc<SuccessionStatus>,
}

/// What was started.
pub(super) struct StartedParts {
    pub parts: Parts,
    pub watch: FlagFileWatcher,
    pub tasks: Vec<JoinHandle<()>>,
    pub admin_stop: CancellationToken,
    pub admin_listeners: JoinHandle<()>,
    /// The address of the API.
    pub admin: SocketAddr,
    /// The address of the listener for applications, if there is one.
    pub api: Option<SocketAddr>,
}

impl StartingParts<'_> {
    /// Starts the parts with an opened store.
    ///
    /// # Errors
    /// The files must not be put in force, the store does not answer, or a listener or the watch of the files cannot be
    /// set up. The store and the files beside it are closed: this process may start again, and another may open them.
    pub(super) async fn start(
        self,
        files: &Arc<ArcSwap<Loaded>>,
        client_proxy: &ClientProxy,
        opened: OpenedStore,
    ) -> anyhow::Result<StartedParts> {
        let (locked, limits) = (opened.locked_files(), files.load().setup.limits.clone());
        let started = self.start_all(files, client_proxy, opened).await;
        if started.is_err() {
            locked.release(&limits).await;
        }
        started
    }

    async fn start_all(
        self,
        files: &Arc<ArcSwap<Loaded>>,
        client_proxy: &ClientProxy,
        opened: OpenedStore,
    ) -> anyhow::Result<StartedParts> {
        let Self { flags, overrides, signals, engine, admin, stop, succession } = self;
        let loaded = Loaded::clone(&files.load()).with_text_hash(&opened.text_hash);
        files.store(Arc::new(loaded.clone()));
        let Loaded { setup, warnings, hash, referenced_files, read_at: _ } = loaded;
        let limits = setup.limits.clone();
        let recorder = telemetry::recorder();
        let (admin_listener, api_listener) = client_proxy.admin_listeners(admin)?;
        let admin_listen = admin_listener.local_addr()?;
        let api = api_listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let (watch, readings) =
            FlagFileWatcher::start(&flags, overrides, hash, referenced_files, WatchTiming::default())
                .context("watching the flag files")?;
        let parts = {
            let (setup, flags, addresses) = (setup.clone(), client_proxy.flags.clone(), client_proxy.addresses.clone());
            let attribution = client_proxy.attribution.clone();
            engine.spawn(async move { Parts::start(opened, &setup, flags, addresses, attribution).await }).await??
        };
        let reload_status = Arc::new(ReloadStatus::new(warnings));
        let reload_requests = Arc::new(ReloadRequests::new(watch.trigger()));

        {
            let parts = parts.clone();
            engine.spawn(async move { parts.resume_runs().await }).await?;
        }
        background::report_health(&parts);
        {
            // Before requests are served, so that the requests of an instance that is being moved wait.
            let adoptions = parts.adoptions.clone();
            engine.spawn(async move { adoptions.begin_to_resume(MOVING_INSTANCES_WAIT).await }).await?;
        }
        let adopting =
            [engine.spawn(parts.adoptions.clone().resume()), engine.spawn(parts.adoptions.clone().follow_lease())];

        let admin_stop = CancellationToken::new();
        let render = {
            let (parts, reload_status, recorder) = (parts.clone(), reload_status.clone(), recorder.clone());
            let tls = client_proxy.tls.clone();
            move || {
                parts.evidence.scrape(|| {
                    parts.ladder.publish();
                    parts.shadow.publish();
                    parts.affinity.publish(parts.ladder.flags().load().routes.iter().map(|flag| &flag.family));
                    parts.affinity.instances().publish();
                    reload_status.publish();
                    tls.publish();
                    recorder.as_ref().map(telemetry::render).unwrap_or_default()
                })
            }
        };
        let rules_of: RulesOfRoute = {
            let files = files.clone();
            Arc::new(move |route| RouteRules::of(&files.load().setup, route))
        };
        let admin_parts = AdminParts {
            engine: parts.engine.clone(),
            deprecated_start: setup.settings.deprecated_start,
            rules: rules_of.clone(),
            workflows: {
                let names = parts.workflows.clone();
                Arc::new(move || names.load().to_vec())
            },
            stopping: admin_stop.clone(),
            ladder: parts.ladder.clone(),
            evidence: parts.evidence.clone(),
            captures: parts.captures.clone(),
            recorder: parts.recorder.clone(),
            attribution: client_proxy.attribution.clone(),
            store: parts.store.clone(),
            render_metrics: Arc::new(render),
            tokens: setup.settings.tokens.clone(),
            listen: admin_listen,
            proxy_listen: client_proxy.listen.clone(),
            started: clock::now(),
            limits: limits.clone(),
            process_status: {
                let (parts, reload_status, stop) = (parts.clone(), reload_status.clone(), stop.clone());
                let (addresses, succession) = (client_proxy.addresses.clone(), succession.clone());
                let egress = client_proxy.egress.clone();
                Arc::new(move || {
                    let stopping = stop.is_cancelled();
                    process_status::of(&parts, &addresses, &reload_status, &succession, stopping, egress.as_ref())
                })
            },
            move_candidate: {
                let (parts, lock) = (parts.clone(), client_proxy.reload_lock.clone());
                Arc::new(move |asked| background::move_candidate(parts.clone(), lock.clone(), asked).boxed())
            },
            reload: {
                let requests = reload_requests.clone();
                Arc::new(move || requests.ask())
            },
            services: {
                let engine = parts.engine.clone();
                Arc::new(move || services::rows(&engine))
            },
            callers: {
                let (notes, files, ladder) = (parts.caller_notes.clone(), files.clone(), parts.ladder.clone());
                Arc::new(move |service: &ServiceName| {
                    let files = files.load_full();
                    let by_files = service_callers::may_call(&files.setup, &ladder.flags().load(), service)?;
                    let in_force = ladder.plans_in_force(&files.setup.routes, None).in_force;
                    let (store, service) = (notes.store().clone(), service.clone());
                    let may_call = async move {
                        let kept = kept_plan_callers::may_call(&store, &files.setup, &in_force, &service).await?;
                        Ok(by_files.into_iter().chain(kept).collect())
                    };
                    let may_call = may_call.boxed();
                    let (notes, process) = (notes.clone(), notes.process);
                    // Notes that are not stored yet are shown too.
                    let flush = async move { notes.flush().await }.boxed();
                    Some(CallersOfService { may_call, now: clock::now(), process, flush })
                })
            },
            processes: {
                let membership = parts.membership.clone();
                Arc::new(move || membership.rows())
            },
            wait_followed: {
                let membership = parts.membership.clone();
                Arc::new(move |number| {
                    let membership = membership.clone();
                    async move { membership.wait_followed(number).await }.boxed()
                })
            },
            instances: {
                let (affinity, ladder) = (parts.affinity.clone(), parts.ladder.clone());
                Arc::new(move |family| {
                    let creator = ladder.flags().load().route(family.id()).cloned();
                    let legacy_lists = creator.is_some_and(|creator| creator.route.lifetime.alive.is_some());
                    instances::rows(&affinity.instances().of(family), legacy_lists)
                })
            },
            adoptions: Arc::new(AdoptionsForApi::new(&parts)),
            traffic: {
                let proxy = client_proxy.proxy.clone();
                Arc::new(move |route| {
                    let (requests, overhead_p50_us) = proxy.traffic_counts(route);
                    RouteTraffic { requests, overhead_p50_us }
                })
            },
        };
        let mut admin_listeners = vec![(admin_listener, page::router(admin::api(admin_parts.clone())))];
        if let (Some(listener), Some(listen)) = (api_listener, api) {
            admin_listeners.push((listener, admin::applications(AdminParts { listen, ..admin_parts })));
        }
        let admin_listeners: JoinHandle<()> = {
            let (stop, max) = (admin_stop.clone(), limits.api_connections_max);
            admin.spawn(async move { admin::serve(admin_listeners, max, stop.cancelled()).await })
        };

        let uncompared_calls = parts.uncompared_calls.clone();
        parts.evidence.set_process(parts.engine.worker(), parts.membership.name());
        let before_write = {
            let (evidence, membership, runs) = (parts.evidence.clone(), parts.membership.clone(), parts.engine.clone());
            move || {
                uncompared_calls.iter().for_each(|calls| calls.update_evidence());
                if let Some(living) = membership.living() {
                    evidence.set_living(&living);
                    runs.divide_rates_among(u32::try_from(living.len()).unwrap_or(u32::MAX));
                }
                membership.tell_open_breakers(runs.open_breakers());
                runs.set_open_breakers_elsewhere(&membership.open_breakers_elsewhere());
            }
        };
        let mut tasks = vec![admin.spawn(parts.evidence.clone().write_behind(EVIDENCE_EVERY, before_write))];
        let listen = client_proxy.listen.iter().map(ToString::to_string).collect();
        {
            // Before requests are served.
            let (parts, admin) = (parts.clone(), admin_listen.to_string());
            let joining = async move {
                parts.membership.join(parts.engine.worker(), (listen, admin), &parts.shared_moves()).await;
            };
            engine.spawn(joining).await?;
        }
        tasks.push(engine.spawn(parts.membership.clone().run(parts.shared_moves())));
        tasks.push(admin.spawn(rejudging::run(parts.clone(), rules_of, limits.clone())));
        tasks.push(admin.spawn(parts.captures.clone().write_behind(CAPTURES_EVERY)));
        let caller_notes = parts.caller_notes.clone();
        tasks.push(admin.spawn(async move { caller_notes.store_periodically().await }));
        file_entries::record(&parts.ladder, &parts.recorder);
        let (recorder, newest_flip) = (parts.recorder.clone(), parts.ladder.newest_flip());
        tasks.push(admin.spawn(async move { recorder.run(newest_flip).await }));
        tasks.extend(adopting);
        let hangup_requests = reload_requests.clone();
        tasks.push(engine.spawn(background::reload(
            parts.clone(),
            setup.clone(),
            files.clone(),
            ListenersInForce {
                tls: client_proxy.tls.clone(),
                forwarding: client_proxy.forwarding.clone(),
                attribution: client_proxy.attribution.clone(),
            },
            background::Reloads {
                status: reload_status,
                requests: reload_requests,
                lock: client_proxy.reload_lock.clone(),
            },
            readings,
        )));
        tasks.push(engine.spawn(service_manager::reload_on_hangup(signals.hangups, hangup_requests)));
        tasks.push(engine.spawn(reopen_on_signal(signals.reopens, client_proxy.access_log.clone())));
        tasks.push(engine.spawn(background::apply_files_again(parts.clone(), client_proxy.reload_lock.clone())));
        tasks.push(engine.spawn(background::guard_candidates(parts.clone(), client_proxy.reload_lock.clone())));
        tasks.push(engine.spawn(background::health(parts.clone())));
        tasks.push(engine.spawn(background::release_held_routes(parts.clone())));
        tasks.push(engine.spawn(parts.ladder.clone().guard_routes()));
        tasks.push(engine.spawn(parts.ladder.clone().raise_shares()));
        tasks.push(engine.spawn(time::track_machine_clock()));
        tasks.push(engine.spawn(time::note_running(parts.store.clone(), parts.affinity.clone())));
        let retry_window = Duration::from_secs(limits.retry_window_s);
        tasks.push(engine.spawn(retention::purge_periodically(
            parts.store.clone(),
            parts.retention.clone(),
            retry_window,
        )));
        tasks.push(engine.spawn(retention::prune_periodically(parts.store.clone())));
        tasks.push(engine.spawn(retention::remove_old_samples(parts.store.clone())));
        let runtimes = client_proxy.worker_runtimes.iter().chain([engine, admin]);
        tasks.extend(runtimes.map(|runtime| runtime.spawn(memory::return_freed_pages())));
        tasks.push(engine.spawn(memory::ask_threads_of(Handle::current())));
        Ok(StartedParts { parts, watch, tasks, admin_stop, admin_listeners, admin: admin_listen, api })
    }
}

/// Opens the access log again whenever the process receives SIGUSR1. Without an access log the signal does nothing.
async fn reopen_on_signal(mut reopens: Signal, access_log: Option<Arc<AccessLog>>) {
    while reopens.recv().await.is_some() {
        if let Some(access_log) = &access_log {
            access_log.reopen();
        }
    }
}
