//! Puts the rooms together: the only file that knows every module.
//!
//! The question it answers: "in which order do the parts come up, who is handed what, and in which order do they go
//! down?" Up: files, store, evidence, ladder, engine (which takes up the runs that the last process left), shadow, then
//! the listeners. Down, on SIGTERM: the proxy's listener and its requests, the shadow queue, the engine's runs, what is
//! written behind, the admin listener, the store; each within a bound of `limits`.

mod against;
mod behind;
mod commands;
mod process_status;
mod retention;
mod services;
mod stored;
mod stores;
mod time;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminParts, LadderControl, RouteTraffic};
use crate::affinity::StoreAffinity;
use crate::clock;
use crate::config::{self, FlagFileWatcher, Loaded, Overrides, ReloadStatus, Retention, Setup, StoreUrl, WatchTiming};
use crate::engine::{Engine, EngineParts};
use crate::evidence::Evidence;
use crate::flag::{FlagSet, Freeze};
use crate::ladder::{Ask, Declared, FlipError, Flipped, Ladder, RouteStatus};
use crate::limits::Limits;
use crate::names::{RouteId, WorkflowName};
use crate::proxy::{Proxy, ProxyParts};
use crate::shadow::{Shadow, ShadowParts};
use crate::store::{FlipRecord, MemoryStore, PostgresStore, SharedStore, SqliteStore, StoreError};
use crate::telemetry;

pub use against::{Against, Compared};
pub use commands::{demo, serve};
pub use stored::{OpenRun, StoredRuns};
pub use stores::{store_backup, store_check};

/// Evidence is written behind this often.
const EVIDENCE_EVERY: Duration = Duration::from_millis(500);

/// A running process: its addresses, and the way to end it.
pub struct App {
    /// Where the proxy listens.
    pub listen: SocketAddr,
    /// Where API and metrics listen.
    pub admin: SocketAddr,
    /// Where applications reach runs, if they have a listener of their own.
    pub api: Option<SocketAddr>,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

impl App {
    /// Reads the files, brings everything up, and listens. Runs that the last process left are continued.
    ///
    /// # Errors
    /// The files are refused ([`config::CheckFailed`], with all that is wrong), the store cannot be opened, or an address is
    /// taken. Nothing was changed then.
    ///
    /// What belongs to the engine, its store and the admin listener lives in the runtime given; the proxy in the
    /// caller's.
    pub async fn start(flags: PathBuf, over: Overrides, engine: &Handle) -> anyhow::Result<Self> {
        let Loaded { setup, warnings, hash } = config::read(&flags, &over)?;
        for warning in &warnings.0 {
            tracing::warn!(problem = %warning.one_line(), "the files are taken with a warning");
        }
        let limits = setup.limits.clone();
        let recorder = telemetry::recorder();
        let parts = {
            let setup = setup.clone();
            engine.spawn(async move { Parts::open(&setup).await }).await??
        };

        let listener = bind(setup.settings.listen, "listen").await?;
        let admin_listener = engine.spawn(bind(setup.settings.admin, "admin.listen")).await??;
        let api_listener = match setup.settings.api {
            Some(address) => Some(engine.spawn(bind(address, "api.listen")).await??),
            None => None,
        };
        let (listen, admin) = (listener.local_addr()?, admin_listener.local_addr()?);
        let api = api_listener.as_ref().map(TcpListener::local_addr).transpose()?;

        let reload_status = Arc::new(ReloadStatus::new(warnings));
        let (watch, changes) =
            FlagFileWatcher::start(&flags, over, hash, WatchTiming::default()).context("watching the flag files")?;
        watch.force_on_hangup().context("listening for SIGHUP")?;

        {
            let parts = parts.clone();
            engine.spawn(async move { parts.engine.recover().await }).await?
        }
        .context("continuing the runs that the last process left")?;

        let stop = CancellationToken::new();
        let admin_stop = CancellationToken::new();
        let render = {
            let (parts, reload_status, recorder) = (parts.clone(), reload_status.clone(), recorder.clone());
            move || {
                parts.evidence.scrape(|| {
                    parts.shadow.publish();
                    reload_status.observe();
                    recorder.as_ref().map(telemetry::render).unwrap_or_default()
                })
            }
        };
        let proxy = Proxy::new(ProxyParts {
            flags: parts.ladder.flags().clone(),
            limits: limits.clone(),
            trust_forwarded: setup.settings.trust_forwarded,
            engine: parts.engine.arm(),
            pins: parts.pins.clone(),
            offer: parts.shadow.clone(),
            watch: parts.evidence.clone(),
        });
        let admin_parts = AdminParts {
            engine: parts.engine.clone(),
            deprecated_start: setup.settings.maestro,
            workflows: {
                let names = parts.workflows.clone();
                Arc::new(move || names.load().to_vec())
            },
            stopping: admin_stop.clone(),
            ladder: Arc::new(Moving { ladder: parts.ladder.clone(), engine: parts.engine.clone() }),
            evidence: parts.evidence.clone(),
            store: parts.store.clone(),
            render_metrics: Arc::new(render),
            tokens: setup.settings.tokens.clone(),
            listen: admin,
            proxy_listen: listen,
            started: clock::now(),
            limits: limits.clone(),
            process_status: {
                let (parts, reload_status, stop) = (parts.clone(), reload_status.clone(), stop.clone());
                Arc::new(move || process_status::of(&parts, &reload_status, stop.is_cancelled()))
            },
            services: {
                let engine = parts.engine.clone();
                Arc::new(move || services::rows(&engine))
            },
            traffic: {
                let proxy = proxy.clone();
                Arc::new(move |route| {
                    let (requests, overhead_p50_us) = proxy.seen(route);
                    RouteTraffic { requests, overhead_p50_us }
                })
            },
        };
        let mut listeners = vec![(admin_listener, admin::router(admin_parts.clone()))];
        if let (Some(listener), Some(listen)) = (api_listener, api) {
            listeners.push((listener, admin::applications(AdminParts { listen, ..admin_parts })));
        }
        let listeners: Vec<JoinHandle<()>> = listeners
            .into_iter()
            .map(|(listener, router)| {
                let stop = admin_stop.clone();
                engine.spawn(async move { admin::serve(listener, router, stop.cancelled()).await })
            })
            .collect();

        let mut tasks = vec![engine.spawn(parts.evidence.clone().write_behind(EVIDENCE_EVERY))];
        tasks.push(engine.spawn(behind::reload(parts.clone(), setup.clone(), reload_status, changes)));
        tasks.push(engine.spawn(behind::health(parts.clone())));
        tasks.push(engine.spawn(time::watch()));
        tasks.push(engine.spawn(retention::keep(parts.store.clone(), parts.retention.clone())));
        tasks.extend(recorder.map(|handle| engine.spawn(telemetry::upkeep(handle))));

        let ended = tokio::spawn({
            let stop = stop.clone();
            async move {
                let drained = proxy.serve(listener, stop).await;
                drop(watch);
                tracing::info!(cut_off = drained.cut, took = ?drained.took, "no more requests");
                parts.drain(&limits).await;
                for task in tasks {
                    task.abort();
                }
                admin_stop.cancel();
                for listener in listeners {
                    let _ = listener.await; // a panic in there was logged by its own task
                }
                if tokio::time::timeout(Limits::ms(limits.drain_ms), parts.store.close()).await.is_err() {
                    tracing::error!("the store does not close; what it acknowledged is there");
                }
                tracing::info!("ended");
            }
        });
        tracing::info!(%listen, %admin, "listening");
        Ok(Self { listen, admin, api, stop, ended })
    }

    /// What ends it, from anywhere.
    pub fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits until it has ended by [`App::stopper`].
    pub async fn ended(self) {
        if let Err(error) = self.ended.await {
            tracing::error!(%error, "the process ended badly");
        }
    }

    /// Stops accepting, lets requests, the shadow queue and runs finish within their bounds, and ends.
    pub async fn stop(self) {
        self.stop.cancel();
        self.ended().await;
    }
}

/// A set of files under which nobody would follow up what the engine owns.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Orphans(String);

/// What lives as long as the process.
#[derive(Clone)]
struct Parts {
    store: SharedStore,
    evidence: Arc<Evidence>,
    ladder: Arc<Ladder>,
    engine: Arc<Engine>,
    pins: Arc<StoreAffinity>,
    shadow: Arc<Shadow>,
    rules: crate::shadow::RulesInForce,
    retention: Arc<ArcSwap<Retention>>,
    /// The names of the workflows in force.
    workflows: Arc<ArcSwap<Vec<WorkflowName>>>,
}

impl Parts {
    async fn open(setup: &Setup) -> anyhow::Result<Self> {
        let limits = setup.limits.clone();
        let store: SharedStore = match &setup.settings.store {
            StoreUrl::Sqlite(path) => Arc::new(
                SqliteStore::open(path, &limits)
                    .await
                    .with_context(|| format!("opening the store sqlite:{}", path.display()))?,
            ),
            StoreUrl::Postgres { url, password } => {
                Arc::new(PostgresStore::open(url, password.as_ref(), &limits).await.context("opening the store")?)
            }
            StoreUrl::Memory => {
                tracing::warn!("the store is memory: flips, runs and pins are gone with the process");
                Arc::new(MemoryStore::new())
            }
        };
        time::set(&store).await?;
        let evidence = Evidence::load_with(store.clone(), &limits).await.context("reading the evidence")?;
        evidence.rest_on(&bases(setup));
        let secret = store.secret().await.context("reading the store's secret")?;
        let pins = stores::affinity(setup, &store, &secret).await?;
        let unnoted = pins.clone();
        evidence.ask_unnoted(move |route| unnoted.unnoted_until(route));
        let ladder =
            Ladder::open(declared(setup, 0), store.clone(), evidence.clone()).await.context("reading the flips")?;
        for orphan in ladder.orphans(&declared(setup, 0)).await.context("looking up what the engine owns")? {
            tracing::error!("{orphan}");
        }
        let engine = Arc::new(Engine::new(EngineParts {
            store: store.clone(),
            plans: setup.workflows.clone(),
            services: setup.services.clone(),
            secrets: setup.settings.secrets.clone(),
            store_key: setup.settings.store_key.clone(),
            key_secret: secret,
            limits: limits.clone(),
            pins: pins.clone(),
            clock: clock::process().clone(),
        }));
        engine.freeze(ladder.flags().load().freeze);
        let rules = Arc::new(ArcSwap::from_pointee(setup.rules.clone()));
        let shadow = Shadow::start(ShadowParts {
            engine: engine.arm(),
            evidence: evidence.clone(),
            rules: rules.clone(),
            limits,
        })
        .context("starting the shadow executor")?;
        retention::say(setup.settings.retention, &store);
        let retention = Arc::new(ArcSwap::from_pointee(retention::in_force(setup.settings.retention, &store)));
        let workflows = Arc::new(ArcSwap::from_pointee(setup.workflows.keys().cloned().collect()));
        Ok(Self { store, evidence, ladder, engine, pins, shadow, rules, retention, workflows })
    }

    /// Puts a checked set in force: flags last, so that no request finds a route without its workflow and rules. What
    /// is decided by the flags of an edition is run by the workflows of it, also in between.
    async fn take(&self, setup: &Setup) -> anyhow::Result<()> {
        let edition = self.ladder.flags().load().edition + 1;
        let orphans =
            self.ladder.orphans(&declared(setup, edition)).await.context("looking up what the engine owns")?;
        if !orphans.is_empty() {
            return Err(Orphans(orphans.join("\n")).into());
        }
        self.engine.reload(edition, &setup.workflows, &setup.services, &setup.settings.secrets);
        self.rules.store(Arc::new(setup.rules.clone()));
        self.retention.store(Arc::new(retention::in_force(setup.settings.retention, &self.store)));
        self.workflows.store(Arc::new(setup.workflows.keys().cloned().collect()));
        self.evidence.rest_on(&bases(setup));
        self.ladder.reload(declared(setup, edition)).await.context("recording what the files declare")?;
        Ok(())
    }

    async fn drain(&self, limits: &Limits) {
        self.shadow.drain(Limits::ms(limits.shadow_drain_ms)).await;
        self.engine.drain(Limits::ms(limits.drain_ms)).await;
        let within = Limits::ms(limits.drain_ms);
        if tokio::time::timeout(within, self.pins.flush()).await.is_err() {
            tracing::error!("the last retry keys of legacy were not written: the store does not answer");
        }
        match tokio::time::timeout(within, self.evidence.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the last evidence was not written"),
            Err(_) => tracing::error!("the last evidence was not written: the store does not answer"),
        }
    }
}

/// The ladder, with the engine told of the kill switch before whoever threw it is answered.
struct Moving {
    ladder: Arc<Ladder>,
    engine: Arc<Engine>,
}

impl LadderControl for Moving {
    fn flags(&self) -> Arc<FlagSet> {
        LadderControl::flags(&*self.ladder)
    }
    fn status(&self) -> Vec<RouteStatus> {
        LadderControl::status(&*self.ladder)
    }
    fn horizon(&self, route: RouteId) -> BoxFuture<'_, Result<Vec<String>, FlipError>> {
        LadderControl::horizon(&*self.ladder, route)
    }
    fn flip(&self, route: RouteId, ask: Ask) -> BoxFuture<'_, Result<Flipped, FlipError>> {
        LadderControl::flip(&*self.ladder, route, ask)
    }
    fn freeze(&self, to: Freeze, reason: Option<String>, by: String) -> BoxFuture<'_, Result<FlipRecord, StoreError>> {
        Box::pin(async move {
            let record = self.ladder.freeze(to, reason, by).await?;
            // What is in force now: of two at the same time, the last one recorded.
            self.engine.freeze(self.ladder.flags().load().freeze);
            Ok(record)
        })
    }
}

fn declared(setup: &Setup, edition: u64) -> Declared {
    Declared {
        edition,
        routes: setup.routes.clone(),
        default_legacy: setup.default_legacy.clone(),
        services: setup.services.clone(),
    }
}

/// What each route's evidence rests on: the plan and the rules. Where that changes, evidence starts anew.
fn bases(setup: &Setup) -> Vec<(RouteId, String)> {
    let hashes: BTreeMap<_, _> = setup.rules.iter().map(|(route, rules)| (route, rules.hash())).collect();
    setup
        .routes
        .iter()
        .map(|route| {
            let plan = route.workflow.as_ref().and_then(|name| setup.workflows.get(name));
            let plan = plan.map_or_else(String::new, |plan| plan.id.to_string());
            let rules = hashes.get(&route.id).map_or_else(String::new, ToString::to_string);
            (route.id.clone(), format!("{plan} {rules}"))
        })
        .collect()
}

async fn bind(address: SocketAddr, key: &'static str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listening on {address} (`{key}`)"))
}
