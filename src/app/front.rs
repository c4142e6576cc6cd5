//! What serves clients: the sockets, and the proxy behind them. It is built before the parts that need the store, and
//! when a process takes over from another one, it serves before they exist.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::late_parts::{LateParts, ProxiedParts};
use super::listener_tls::TlsInForce;
use super::parts::{Parts, flags_without_store};
use super::runtimes::proxy_workers;
use super::sockets::{GivenSockets, Sockets};
use crate::access_log::{AccessLog, AccessLogSettings, LogFile};
use crate::config::Setup;
use crate::egress::Attribution;
use crate::exchange::EffectRegistry;
use crate::flag::{FlagSet, RouteMatch};
use crate::limits::Limits;
use crate::listener::Forwarding;
use crate::proxy::{Drained, Proxy, ProxyListener, ProxyParts};
use crate::transport::AddressRegistry;

/// The proxy and its sockets.
pub(super) struct Front {
    pub proxy: Proxy,
    /// Kept for a successor.
    pub sockets: Sockets,
    pub flags: Arc<ArcSwap<FlagSet>>,
    pub forwarding: Arc<ArcSwap<Forwarding>>,
    /// The addresses of services, which proxy and engine share.
    pub addresses: Arc<AddressRegistry>,
    pub tls: TlsInForce,
    /// Attributes the calls of legacy; `None` without `egress:`.
    pub attribution: Option<Attribution>,
    pub access_log: Option<Arc<AccessLog>>,
    /// Held while new files are put in force, and while a successor takes over: the successor knows only the files that
    /// were in force when the hand-over began, and would serve requests of newer routes without their states.
    pub reload_lock: Arc<tokio::sync::Mutex<()>>,
    /// The addresses of the proxy.
    pub listen: Vec<SocketAddr>,
    /// Closes the proxy's listeners.
    pub close: CancellationToken,
    /// The runtimes that serve the connections of clients.
    pub worker_runtimes: Vec<Handle>,
    late_parts: LateParts,
    listeners: Vec<ProxyListener>,
    serving: Option<JoinHandle<Drained>>,
}

impl Front {
    /// Opens the sockets; nothing is accepted yet. `predecessor` has the requests that may concern a workflow in the
    /// process before this one, if it takes over from one: these, and those of its own routes with a workflow, wait
    /// until [`Front::connect`].
    ///
    /// # Errors
    /// An address or the access log cannot be opened.
    pub(super) async fn open(
        setup: &Setup,
        given: GivenSockets,
        predecessor: Option<Vec<RouteMatch>>,
    ) -> anyhow::Result<Self> {
        let limits = setup.limits.clone();
        let access_log = access_log(setup.settings.access_log.as_ref(), &limits)?;
        let sockets = Sockets::open(&setup.settings, given).await?;
        let mut listeners = Vec::new();
        for (declared, socket) in setup.settings.listen.iter().zip(sockets.proxy()?) {
            listeners.push(ProxyListener::new(TcpListener::from_std(socket)?, declared));
        }
        let tls = TlsInForce::new(&setup.settings.listen, &listeners);
        let listen = listeners.iter().map(ProxyListener::address).collect::<std::io::Result<Vec<_>>>()?;
        let takes_over = predecessor.is_some();
        let flags = Arc::new(ArcSwap::from_pointee(flags_without_store(setup, predecessor.unwrap_or_default())));
        let forwarding = Arc::new(ArcSwap::from_pointee(setup.settings.forwarding.clone()));
        let late_parts = LateParts::default();
        let late = Arc::new(late_parts.clone());
        let attribution = setup.settings.attribution.clone().map(|settings| Attribution::new(settings, &limits));
        let workers = proxy_workers().context("starting the threads that serve clients")?;
        let worker_runtimes = workers.runtimes();
        let addresses = AddressRegistry::new();
        let proxy = Proxy::new(ProxyParts {
            flags: flags.clone(),
            limits,
            addresses: addresses.clone(),
            forwarding: forwarding.clone(),
            identity_headers: setup.settings.identity_headers.clone(),
            engine: late_parts.engine(),
            affinity: late.clone(),
            offer: late.clone(),
            served_observer: late,
            effect_registry: attribution.clone().map(|attribution| Arc::new(attribution) as Arc<dyn EffectRegistry>),
            access_log: access_log.clone(),
            takes_over,
            workers,
        });
        let close = CancellationToken::new();
        Ok(Self {
            proxy,
            sockets,
            flags,
            forwarding,
            addresses,
            tls,
            attribution,
            access_log,
            reload_lock: Arc::default(),
            listen,
            close,
            worker_runtimes,
            late_parts,
            listeners,
            serving: None,
        })
    }

    /// The API's listener, and that of applications, for the runtime `admin`.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn admin_listeners(&self, admin: &Handle) -> std::io::Result<(TcpListener, Option<TcpListener>)> {
        let _in_runtime = admin.enter();
        let api = self.sockets.api()?.map(TcpListener::from_std).transpose()?;
        Ok((TcpListener::from_std(self.sockets.admin()?)?, api))
    }

    /// Accepts from now on.
    pub(super) fn accept(&mut self) {
        let (proxy, close, listeners) = (self.proxy.clone(), self.close.clone(), std::mem::take(&mut self.listeners));
        self.serving.get_or_insert_with(|| tokio::spawn(async move { proxy.serve(listeners, close).await }));
    }

    /// The parts exist: all requests are served from now on.
    pub(super) fn connect(&self, parts: &Parts) {
        self.late_parts.set(ProxiedParts {
            engine: parts.engine.arm(),
            affinity: parts.affinity.clone(),
            offer: parts.shadow.clone(),
            served_observer: parts.evidence.clone(),
        });
        self.proxy.open_workflows();
    }

    /// Takes the task that serves, which ends with the proxy.
    pub(super) fn serving(&mut self) -> Option<JoinHandle<Drained>> {
        self.serving.take()
    }

    /// The start has failed: what was accepted is served to its end, apart from what waits for the store.
    pub(super) async fn abandon(mut self) {
        self.proxy.close_workflows();
        self.close.cancel();
        if let Some(serving) = self.serving() {
            let _ = serving.await; // a panic in there is logged by the runtime
        }
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
