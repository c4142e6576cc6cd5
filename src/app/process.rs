//! Starts a process from its files.
//!
//! Always true: a start that fails leaves no flips behind and closes what it opened; if it was to take over from
//! another process, that process goes on, or starts again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::client_proxy::ClientProxy;
use super::opened_store::OpenedStore;
use super::running::{Ended, RemainingConnections, Running, Successors};
use super::signals::Signals;
use super::sockets::{GivenSocket, GivenSockets};
use super::started_parts::{StartedParts, StartingParts};
use super::succession::status::SuccessionStatus;
use super::succession::successor::{self, Predecessor, ReleasingPredecessor};
use crate::config::{self, Loaded, Overrides, Setup, StoreUrl};
use crate::limits::Limits;
use crate::store::SqliteStore;
use crate::telemetry;
use crate::traces;

/// How often a successor checks whether the store of a predecessor that has died is free.
const FREE_STORE_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long a successor that this process has lost contact with may keep the store beyond `drain_ms`.
const LOST_SUCCESSOR_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// The options of a start.
pub struct StartOptions {
    /// The directory of the flag files.
    pub flags: PathBuf,
    /// Settings that the command line overrides.
    pub overrides: Overrides,
    /// The sockets that were passed to the process.
    pub sockets: GivenSockets,
    /// Whether the process takes over from the one that has the store.
    pub takes_over: bool,
    /// Files to use in place of those in `flags`: a process that starts again begins with the files that it had.
    pub files: Option<Arc<Loaded>>,
    /// The connections of this process that are still open when it starts again.
    pub earlier: RemainingConnections,
    /// Stops the start when cancelled, even while it waits for the store of another process.
    pub stop: CancellationToken,
}

/// A running process: its addresses, and how to stop it.
pub struct App {
    /// The addresses of the proxy, in the order of the files.
    pub listen: Vec<SocketAddr>,
    /// The address of the API and the metrics.
    pub admin: SocketAddr,
    /// The address of the listener for applications, if there is one.
    pub api: Option<SocketAddr>,
    /// The address of the listener for legacy's own calls, if there is one.
    pub egress: Option<SocketAddr>,
    /// The files in force.
    files: Arc<ArcSwap<Loaded>>,
    /// The runtimes that serve the connections of clients.
    worker_runtimes: Vec<Handle>,
    stop: CancellationToken,
    ended: JoinHandle<Ended>,
}

impl App {
    /// Reads the files, starts all parts, and listens. Resumes the runs that the last process left, in the background:
    /// until the store accepts the writes that this needs, the process serves as with an unhealthy store.
    ///
    /// A process that takes over from another one serves routes without a workflow as soon as it has the sockets, and
    /// the other routes once the other process has released the store.
    ///
    /// The engine and its store run on the runtime `engine`, the listeners of the API on `admin`, those of the proxy on
    /// the caller's, and the connections of clients on runtimes of their own. A SIGHUP that `signals` receives, now or
    /// during the start, makes the process read the files again; a SIGUSR1 makes it open the access log again.
    ///
    /// # Errors
    /// The files are refused ([`config::CheckFailed`] lists everything that is wrong), the store cannot be opened, an
    /// address is in use, or the process that has the store does not hand over.
    pub async fn start(
        options: StartOptions,
        signals: Signals,
        engine: &Handle,
        admin: &Handle,
    ) -> anyhow::Result<Self> {
        let StartOptions { flags, overrides, sockets, takes_over, files, earlier, stop } = options;
        let loaded = match files {
            Some(files) => files,
            None => Arc::new(config::read(&flags, &overrides)?),
        };
        for warning in &loaded.warnings.0 {
            tracing::warn!(problem = %warning.one_line(), "the flag files are valid, with a warning");
        }
        let setup = &loaded.setup;
        telemetry::recorder(); // installed before the first metric is recorded
        let traces_settings = setup.settings.traces.clone();
        if let Some(exporter) = traces_settings.and_then(|settings| traces::install(settings, &setup.limits)) {
            admin.spawn(exporter.run());
        }
        let offer = match takes_over {
            true => successor::ask(&setup.settings.store).await?,
            false => None,
        };
        // No newer files come into force in the other process after its offer; its files may be newer than those read
        // above.
        let loaded = if offer.is_some() { read_again(loaded, &flags, &overrides)? } else { loaded };
        let setup = &loaded.setup;
        let (client_proxy, opened, predecessor) = match offer {
            None => {
                // The store first: a predecessor that is ending keeps its addresses until it releases the store. The
                // store may be in use a little longer: by the successor that this process lost before it started again,
                // or by the process that this one was to take over from and that has just died.
                if matches!(sockets, GivenSockets::HandedOver(_)) || takes_over {
                    let within = Limits::ms(setup.limits.drain_ms) + LOST_SUCCESSOR_ENDS_WITHIN;
                    let _in_time = tokio::time::timeout(within, wait_until_store_is_free(setup)).await;
                }
                let opened = open_store(setup, engine).await?;
                match ClientProxy::open(setup, sockets, None).await {
                    Ok(client_proxy) => (client_proxy, opened, None),
                    Err(error) => {
                        opened.locked_files().release(&setup.limits).await;
                        return Err(error);
                    }
                }
            }
            Some((predecessor, offered)) => {
                let offered = offered.into_iter().map(GivenSocket::handed_over).collect::<std::io::Result<_>>()?;
                let sockets = match sockets {
                    GivenSockets::None => GivenSockets::HandedOver(offered),
                    given => given,
                };
                take_over(setup, sockets, predecessor, engine, &stop).await?
            }
        };
        let succession = Arc::new(SuccessionStatus::default());
        let files = Arc::new(ArcSwap::new(loaded.clone()));
        let starting = StartingParts { flags, overrides, signals, engine, admin, stop: &stop, succession: &succession };
        let StartedParts { parts, watch, tasks, admin_stop, admin_listeners, admin, api } =
            match starting.start(&files, &client_proxy, opened).await {
                Ok(started) => started,
                Err(error) => {
                    drop(predecessor); // the predecessor starts again
                    client_proxy.abandon().await;
                    return Err(error);
                }
            };
        let (listen, egress) = (client_proxy.listen.clone(), client_proxy.egress.as_ref().map(|egress| egress.address));
        tracing::info!(?listen, %admin, "listening");
        let limits = setup.limits.clone();
        let worker_runtimes = client_proxy.worker_runtimes.clone();
        let (successors, mut client_proxy) = (Successors::listen(&setup.settings, &client_proxy), client_proxy);
        client_proxy.connect(&parts);
        client_proxy.accept();
        if let Some((mut releasing, began)) = predecessor {
            succession.note_succeeded(&releasing.party, began.elapsed());
            releasing.report_started().await;
        }
        let running = Running {
            client_proxy,
            earlier,
            parts,
            limits,
            watch,
            tasks,
            admin_stop,
            admin_listeners,
            stop: stop.clone(),
            successors,
            succession,
        };
        Ok(Self { listen, admin, api, egress, files, worker_runtimes, stop, ended: tokio::spawn(running.run()) })
    }

    /// A token that stops the process when it is cancelled.
    pub fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits until the process has stopped, or has to start again; [`App::stopper`] stops it.
    pub async fn wait_until_ended(self) -> Ended {
        self.ended.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the task that stops the process panicked");
            Ended::Stopped
        })
    }

    /// The files in force, with which a process that starts again begins.
    pub fn files(&self) -> Arc<ArcSwap<Loaded>> {
        self.files.clone()
    }

    /// The thread pools of the process: those that serve connections of clients, and these.
    pub(super) fn pools(&self, others: [&Handle; 2]) -> Vec<Handle> {
        self.worker_runtimes.iter().chain(others).cloned().collect()
    }

    /// Stops accepting, lets requests, the shadow queue and runs finish within their bounds, and ends.
    pub async fn stop(self) {
        self.stop.cancel();
        self.wait_until_ended().await;
    }
}

async fn open_store(setup: &Setup, engine: &Handle) -> anyhow::Result<OpenedStore> {
    let setup = setup.clone();
    engine.spawn(async move { OpenedStore::open(&setup).await }).await?
}

/// Reads the files again. Returns `loaded` if they have not changed since it was read.
fn read_again(loaded: Arc<Loaded>, flags: &Path, overrides: &Overrides) -> anyhow::Result<Arc<Loaded>> {
    let now = config::read(flags, overrides)?;
    if now.hash == loaded.hash {
        return Ok(loaded);
    }
    let (before, after) = (&loaded.setup.settings, &now.setup.settings);
    if after.store != before.store || !before.settings_needing_restart(after).is_empty() {
        anyhow::bail!("settings in the flag files have changed while this process started; start it again");
    }
    Ok(Arc::new(now))
}

/// Accepts on the sockets of the process that this one takes over from, and takes its store.
async fn take_over(
    setup: &Setup,
    sockets: GivenSockets,
    mut predecessor: Predecessor,
    engine: &Handle,
    stop: &CancellationToken,
) -> anyhow::Result<(ClientProxy, OpenedStore, Option<(ReleasingPredecessor, Instant)>)> {
    let requests = std::mem::take(&mut predecessor.workflow_requests);
    let mut client_proxy = ClientProxy::open(setup, sockets, Some(requests)).await?;
    client_proxy.accept();
    tracing::info!(predecessor = %predecessor.party, "accepting; requests of routes with a workflow wait for the store");
    let (mut releasing, began) = (predecessor.accept().await, Instant::now());
    let taken = tokio::select! {
        taken = take_store(setup, engine, &mut releasing) => taken,
        () = stop.cancelled() => Err(anyhow::anyhow!("stopped before it had the store: {} goes on", releasing.party)),
    };
    match taken {
        Ok(opened) => Ok((client_proxy, opened, Some((releasing, began)))),
        Err(error) => {
            drop(releasing); // the other process then accepts again
            client_proxy.abandon().await;
            Err(error)
        }
    }
}

/// Opens the store once the other process has released it, or is gone.
async fn take_store(
    setup: &Setup,
    engine: &Handle,
    releasing: &mut ReleasingPredecessor,
) -> anyhow::Result<OpenedStore> {
    if !releasing.wait_until_released().await {
        // A process that broke off because it was told to stop still has the store until it ends.
        wait_until_store_is_free(setup).await;
    }
    open_store(setup, engine).await
}

/// Waits until no process has the store.
async fn wait_until_store_is_free(setup: &Setup) {
    let StoreUrl::Sqlite(path) = &setup.settings.store else { return };
    while SqliteStore::is_in_use(path) {
        tokio::time::sleep(FREE_STORE_POLL_INTERVAL).await;
    }
}
