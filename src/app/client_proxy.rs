//! What serves clients: the sockets, and the proxy behind them. It is built before the parts that need the store; in a
//! process that takes over from another one, it serves before these parts exist.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::egress_proxy::EgressProxy;
use super::late_parts::{LateParts, PartsForProxy};
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
use crate::proxy::{Drained, EgressParts, OwnSockets, Proxy, ProxyListener, ProxyParts};
use crate::transport::AddressRegistry;

/// The proxy that serves clients, with its listening sockets.
pub(super) struct ClientProxy {
    pub proxy: Proxy,
    /// The proxy for legacy's own calls, if there is an egress listener.
    pub egress: Option<EgressProxy>,
    /// Kept to be handed to a successor.
    pub sockets: Sockets,
    pub flags: Arc<ArcSwap<FlagSet>>,
    pub forwarding: Arc<ArcSwap<Forwarding>>,
    /// The addresses of services, which proxy and engine share.
    pub addresses: Arc<AddressRegistry>,
    pub tls: TlsInForce,
    /// Attributes the calls by legacy; `None` without `egress:`.
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
    egress_listener: Option<ProxyListener>,
    drain: Duration,
    serving: Option<JoinHandle<Drained>>,
}

impl ClientProxy {
    /// Opens the sockets; accepts nothing yet. `predecessor`: if this process takes over from another one, the requests
    /// that may concern a workflow there. They, and the requests of this process's own routes with a workflow, wait
    /// until [`ClientProxy::connect`].
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
        let waits_for_predecessor = predecessor.is_some();
        let flags = Arc::new(ArcSwap::from_pointee(flags_without_store(setup, predecessor.unwrap_or_default())));
        let forwarding = Arc::new(ArcSwap::from_pointee(setup.settings.forwarding.clone()));
        let late_parts = LateParts::default();
        let late = Arc::new(late_parts.clone());
        let attribution = setup.settings.attribution.clone().map(|settings| Attribution::new(settings, &limits));
        let workers = Arc::new(proxy_workers().context("starting the threads that serve clients")?);
        let worker_runtimes = workers.runtimes();
        let addresses = AddressRegistry::new();
        let parts = |egress| ProxyParts {
            flags: flags.clone(),
            limits: limits.clone(),
            addresses: addresses.clone(),
            forwarding: forwarding.clone(),
            identity_headers: setup.settings.identity_headers.clone(),
            engine: late_parts.engine(),
            affinity: late.clone(),
            offer: late.clone(),
            served_observer: late.clone(),
            effect_registry: attribution.clone().map(|attribution| Arc::new(attribution) as Arc<dyn EffectRegistry>),
            access_log: access_log.clone(),
            waits_for_predecessor,
            workers: workers.clone(),
            egress,
        };
        let proxy = Proxy::new(parts(None));
        let (mut egress, mut egress_listener) = (None, None);
        if let (Some(declared), Some(socket), Some(attribution)) =
            (&setup.settings.egress, sockets.egress()?, &attribution)
        {
            let own = OwnSockets::new(sockets.addresses()?);
            let listener = ProxyListener::egress(TcpListener::from_std(socket)?, declared);
            let egress_parts = EgressParts { listener: declared.clone(), own, observer: Arc::new(attribution.clone()) };
            let proxy = Proxy::new(parts(Some(egress_parts)));
            egress = Some(EgressProxy { proxy, address: listener.address()? });
            egress_listener = Some(listener);
        }
        let drain = Limits::ms(limits.drain_ms);
        let close = CancellationToken::new();
        Ok(Self {
            proxy,
            egress,
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
            egress_listener,
            drain,
            serving: None,
        })
    }

    /// The API's listener and the applications' listener, for the runtime `admin`.
    ///
    /// # Errors
    /// The system refuses to set up a listener.
    pub(super) fn admin_listeners(&self, admin: &Handle) -> std::io::Result<(TcpListener, Option<TcpListener>)> {
        let _in_runtime = admin.enter();
        let api = self.sockets.api()?.map(TcpListener::from_std).transpose()?;
        Ok((TcpListener::from_std(self.sockets.admin()?)?, api))
    }

    /// Starts to accept connections.
    pub(super) fn accept(&mut self) {
        let (proxy, close, listeners) = (self.proxy.clone(), self.close.clone(), std::mem::take(&mut self.listeners));
        let (egress, drain) = (self.egress.as_ref().zip(self.egress_listener.take()), self.drain);
        self.serving.get_or_insert_with(|| {
            let egress = egress.map(|(egress, listener)| egress.serve(listener));
            tokio::spawn(async move {
                let drained = proxy.serve(listeners, close.clone()).await;
                let Some(egress) = egress else { return drained };
                let cut = egress.end(!close.is_cancelled(), drained, drain).await;
                Drained { cut: drained.cut + cut, ..drained }
            })
        });
    }

    /// Gives the proxies the parts; all requests are served from now on.
    pub(super) fn connect(&self, parts: &Parts) {
        self.late_parts.set(PartsForProxy {
            engine: parts.engine.arm(),
            affinity: parts.affinity.clone(),
            offer: parts.shadow.clone(),
            served_observer: parts.evidence.clone(),
        });
        parts.membership.set_oldest_set_in_use(self.proxy.oldest_set_in_use());
        self.proxy.open_workflows();
    }

    fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        [&self.proxy].into_iter().chain(self.egress.as_ref().map(|egress| &egress.proxy))
    }

    /// See [`Proxy::begin_hand_over`].
    pub(super) fn begin_hand_over(&self) {
        self.proxies().for_each(Proxy::begin_hand_over);
    }

    /// See [`Proxy::end_hand_over`].
    pub(super) fn end_hand_over(&self) {
        self.proxies().for_each(Proxy::end_hand_over);
    }

    /// See [`Proxy::leave_listeners`].
    pub(super) fn leave_listeners(&self) {
        self.proxies().for_each(Proxy::leave_listeners);
    }

    /// Takes the task that serves, which ends with the proxy.
    pub(super) fn serving(&mut self) -> Option<JoinHandle<Drained>> {
        self.serving.take()
    }

    /// Ends after a failed start: accepted requests are served to their end, except those that wait for the store.
    pub(super) async fn abandon(mut self) {
        self.proxy.close_workflows();
        self.close.cancel();
        if let Some(serving) = self.serving() {
            let _ = serving.await; // the runtime logs a panic of the task
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
