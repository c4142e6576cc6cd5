//! Starts a process from its files, and stops it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::listener_tls::{ListenersInForce, TlsInForce};
use super::parts::{OpenedStore, Parts};
use super::reload_requests::ReloadRequests;
use super::{background, memory, process_status, retention, services, time};
use crate::access_log::{AccessLog, AccessLogSettings, LogFile};
use crate::admin::{self, AdminParts, RouteTraffic};
use crate::clock;
use crate::config::{self, FlagFileWatcher, Loaded, Overrides, ReloadStatus, WatchTiming};
use crate::limits::Limits;
use crate::proxy::{Proxy, ProxyListener, ProxyParts};
use crate::telemetry;

/// How often evidence is written to the store.
const EVIDENCE_EVERY: Duration = Duration::from_millis(500);

/// The signals that a running process obeys, apart from those that end it. Without a handler each of them would end it.
pub struct Signals {
    /// SIGHUP: read the files again.
    pub hangups: Signal,
    /// SIGUSR1: open the access log again.
    pub reopens: Signal,
}

impl Signals {
    /// Handles the signals from now on.
    ///
    /// # Errors
    /// A handler cannot be installed.
    pub fn handle() -> std::io::Result<Self> {
        Ok(Self { hangups: signal(SignalKind::hangup())?, reopens: signal(SignalKind::user_defined1())? })
    }
}

/// A running process: its addresses, and how to stop it.
pub struct App {
    /// The addresses of the proxy, in the order of the files.
    pub listen: Vec<SocketAddr>,
    /// The address of the API and the metrics.
    pub admin: SocketAddr,
    /// The address of the listener for applications, if there is one.
    pub api: Option<SocketAddr>,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

impl App {
    /// Reads the files, starts all parts, and listens. Resumes the runs that the last process left, in the background:
    /// until the store accepts the writes that this needs, the process serves as it does with an unhealthy store.
    ///
    /// The engine and its store run on the runtime `engine`, the listeners of the API on `admin`, the proxy on the
    /// caller's. The files are read again after a SIGHUP, the access log is opened again after a SIGUSR1 that `signals`
    /// receives, now or during the start.
    ///
    /// # Errors
    /// The files are refused ([`config::CheckFailed`] lists everything that is wrong), the store cannot be opened, or
    /// an address is in use.
    pub async fn start(
        flags: PathBuf,
        overrides: Overrides,
        signals: Signals,
        engine: &Handle,
        admin: &Handle,
    ) -> anyhow::Result<Self> {
        let Loaded { setup, warnings, hash, other_files, read_at: _ } = config::read(&flags, &overrides)?;
        for warning in &warnings.0 {
            tracing::warn!(problem = %warning.one_line(), "the flag files are valid, with a warning");
        }
        let limits = setup.limits.clone();
        let recorder = telemetry::recorder();
        let opened = {
            let setup = setup.clone();
            engine.spawn(async move { OpenedStore::open(&setup).await }).await??
        };

        // After the store: a predecessor that is ending still has the addresses until it releases the store. Before the
        // files are recorded: a start that fails must leave no flips behind.
        let access_log = access_log(setup.settings.access_log.as_ref(), &limits)?;
        let mut listeners = Vec::new();
        for declared in &setup.settings.listen {
            listeners.push(ProxyListener::new(bind(declared.address, "listen").await?, declared));
        }
        let tls = TlsInForce::new(&setup.settings.listen, &listeners);
        let listen = listeners.iter().map(ProxyListener::address).collect::<std::io::Result<Vec<_>>>()?;
        let admin_listener = admin.spawn(bind(setup.settings.admin, "admin.listen")).await??;
        let api_listener = match setup.settings.api {
            Some(address) => Some(admin.spawn(bind(address, "api.listen")).await??),
            None => None,
        };
        let admin_listen = admin_listener.local_addr()?;
        let api = api_listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let parts = {
            let setup = setup.clone();
            engine.spawn(async move { Parts::start(opened, &setup).await }).await??
        };

        let reload_status = Arc::new(ReloadStatus::new(warnings));
        let (watch, readings) = FlagFileWatcher::start(&flags, overrides, hash, other_files, WatchTiming::default())
            .context("watching the flag files")?;
        watch.reload_on_hangup(signals.hangups);
        let reload_requests = Arc::new(ReloadRequests::new(watch.trigger()));

        {
            let parts = parts.clone();
            engine.spawn(async move { parts.engine.recover_in_background().await }).await?;
        }
        background::report_health(&parts);

        let stop = CancellationToken::new();
        let admin_stop = CancellationToken::new();
        let render = {
            let (parts, reload_status, recorder) = (parts.clone(), reload_status.clone(), recorder.clone());
            let tls = tls.clone();
            move || {
                parts.evidence.scrape(|| {
                    parts.shadow.publish();
                    parts.affinity.publish(parts.ladder.flags().load().routes.iter().map(|flag| &flag.family));
                    reload_status.publish_age();
                    tls.publish();
                    recorder.as_ref().map(telemetry::render).unwrap_or_default()
                })
            }
        };
        let forwarding = Arc::new(ArcSwap::from_pointee(setup.settings.forwarding.clone()));
        let proxy = Proxy::new(ProxyParts {
            flags: parts.ladder.flags().clone(),
            limits: limits.clone(),
            forwarding: forwarding.clone(),
            identity_headers: setup.settings.identity_headers.clone(),
            engine: parts.engine.arm(),
            affinity: parts.affinity.clone(),
            offer: parts.shadow.clone(),
            served_observer: parts.evidence.clone(),
            access_log: access_log.clone(),
        });
        let admin_parts = AdminParts {
            engine: parts.engine.clone(),
            deprecated_start: setup.settings.deprecated_start,
            workflows: {
                let names = parts.workflows.clone();
                Arc::new(move || names.load().to_vec())
            },
            stopping: admin_stop.clone(),
            ladder: parts.ladder.clone(),
            evidence: parts.evidence.clone(),
            store: parts.store.clone(),
            render_metrics: Arc::new(render),
            tokens: setup.settings.tokens.clone(),
            listen: admin_listen,
            proxy_listen: listen.clone(),
            started: clock::now(),
            limits: limits.clone(),
            process_status: {
                let (parts, reload_status, stop) = (parts.clone(), reload_status.clone(), stop.clone());
                Arc::new(move || process_status::of(&parts, &reload_status, stop.is_cancelled()))
            },
            reload: {
                let requests = reload_requests.clone();
                Arc::new(move || requests.ask())
            },
            services: {
                let engine = parts.engine.clone();
                Arc::new(move || services::rows(&engine))
            },
            traffic: {
                let proxy = proxy.clone();
                Arc::new(move |route| {
                    let (requests, overhead_p50_us) = proxy.traffic_counts(route);
                    RouteTraffic { requests, overhead_p50_us }
                })
            },
        };
        let mut admin_listeners = vec![(admin_listener, admin::router(admin_parts.clone()))];
        if let (Some(listener), Some(listen)) = (api_listener, api) {
            admin_listeners.push((listener, admin::applications(AdminParts { listen, ..admin_parts })));
        }
        let admin_listeners: JoinHandle<()> = {
            let (stop, max) = (admin_stop.clone(), limits.api_connections_max);
            admin.spawn(async move { admin::serve(admin_listeners, max, stop.cancelled()).await })
        };

        let mut tasks = vec![admin.spawn(parts.evidence.clone().write_behind(EVIDENCE_EVERY))];
        tasks.push(engine.spawn(background::reload(
            parts.clone(),
            setup.clone(),
            hash,
            ListenersInForce { tls, forwarding },
            reload_status,
            reload_requests,
            readings,
        )));
        tasks.push(engine.spawn(reopen_on_signal(signals.reopens, access_log)));
        tasks.push(engine.spawn(background::health(parts.clone())));
        tasks.push(engine.spawn(background::release_held_routes(parts.clone())));
        tasks.push(engine.spawn(time::track_machine_clock()));
        tasks.push(engine.spawn(time::note_running(parts.store.clone(), parts.affinity.clone())));
        let retry_window = Duration::from_secs(limits.retry_window_s);
        tasks.push(engine.spawn(retention::purge_periodically(
            parts.store.clone(),
            parts.retention.clone(),
            retry_window,
        )));
        tasks.push(engine.spawn(retention::prune_periodically(parts.store.clone())));
        tasks.extend([&engine, &admin].map(|runtime| runtime.spawn(memory::return_freed_pages())));
        tasks.push(tokio::spawn(memory::return_freed_pages()));

        let ended = tokio::spawn({
            let stop = stop.clone();
            async move {
                let drained = proxy.serve(listeners, stop).await;
                drop(watch);
                tracing::info!(cut_off = drained.cut, took = ?drained.took, "the proxy is drained");
                let recorded_until = parts.drain(&limits).await;
                for task in tasks {
                    task.abort();
                }
                admin_stop.cancel();
                let _ = admin_listeners.await; // a panic in there was logged by its own task
                parts.ladder.end_freezes(recorded_until).await;
                if tokio::time::timeout(Limits::ms(limits.drain_ms), parts.store.close()).await.is_err() {
                    tracing::error!("the store did not close in time; everything that it acknowledged is durable");
                }
                tracing::info!("stopped");
            }
        });
        tracing::info!(?listen, admin = %admin_listen, "listening");
        Ok(Self { listen, admin: admin_listen, api, stop, ended })
    }

    /// A token that stops the process when it is cancelled.
    pub fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits until the process has stopped; [`App::stopper`] stops it.
    pub async fn ended(self) {
        if let Err(error) = self.ended.await {
            tracing::error!(%error, "the task that stops the process panicked");
        }
    }

    /// Stops accepting, lets requests, the shadow queue and runs finish within their bounds, and ends.
    pub async fn stop(self) {
        self.stop.cancel();
        self.ended().await;
    }
}

/// Opens the access log, if there is to be one.
fn access_log(settings: Option<&AccessLogSettings>, limits: &Limits) -> anyhow::Result<Option<Arc<AccessLog>>> {
    let Some(settings) = settings else { return Ok(None) };
    let named = || match &settings.file {
        LogFile::Stdout => "opening the access log on stdout".to_owned(),
        LogFile::Path(path) => format!("opening the access log {} (`access_log.file`)", path.display()),
    };
    AccessLog::start(settings, limits).map(Some).with_context(named)
}

/// Opens the access log again whenever the process gets SIGUSR1. Without an access log the signal does nothing.
async fn reopen_on_signal(mut reopens: Signal, access_log: Option<Arc<AccessLog>>) {
    while reopens.recv().await.is_some() {
        if let Some(access_log) = &access_log {
            access_log.reopen();
        }
    }
}

async fn bind(address: SocketAddr, key: &'static str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listening on {address} (`{key}`)"))
}
