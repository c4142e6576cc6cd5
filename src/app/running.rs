//! A process from the end of its start to its own end: it stops, or hands over to a successor.
//!
//! Always true: the listeners are closed only when the process is to stop or a successor has started; the store is
//! released only when nothing of this process can use it any more. The order at the end: requests, the shadow queue,
//! runs, buffered evidence and retry keys, the API, the store.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::client_proxy::ClientProxy;
use super::parts::Parts;
use super::sockets::{GivenSocket, GivenSockets};
use super::succession::control_socket::ControlSocket;
use super::succession::predecessor::{self, HandOverOffer, Successor};
use super::succession::status::{HandOverEnd, SuccessionStatus};
use crate::config::{FlagFileWatcher, Settings, StoreUrl};
use crate::limits::Limits;
use crate::proxy::Drained;

/// How a process ended.
#[derive(Debug)]
pub enum Ended {
    /// The process has stopped, or a successor has taken over.
    Stopped,
    /// A successor was lost after this process had released its store: this process has to start again, on these
    /// sockets. Its open connections continue meanwhile, within their bound.
    SuccessorLost(GivenSockets, RemainingConnections),
}

/// The connections of proxies that have left their listeners: long replies and tunnels, which end within their bound.
#[derive(Debug, Default)]
pub struct RemainingConnections(Vec<(CancellationToken, JoinHandle<Drained>)>);

impl RemainingConnections {
    /// Waits until the connections have ended: within their bound, and within `drain_ms` once `stop` is cancelled.
    async fn end(self, stop: &CancellationToken) {
        let (closes, serving): (Vec<_>, Vec<_>) = self.0.into_iter().unzip();
        let all = join_all(serving.into_iter().map(|serving| served(Some(serving))));
        tokio::pin!(all);
        tokio::select! {
            _ = &mut all => return,
            () = stop.cancelled() => closes.iter().for_each(CancellationToken::cancel),
        }
        all.await;
    }
}

/// A process that serves.
pub(super) struct Running {
    pub client_proxy: ClientProxy,
    /// The connections of this process from before it started again.
    pub earlier: RemainingConnections,
    pub parts: Parts,
    pub limits: Arc<Limits>,
    pub watch: FlagFileWatcher,
    /// Tasks that are ended once the parts are drained.
    pub tasks: Vec<JoinHandle<()>>,
    pub admin_stop: CancellationToken,
    pub admin_listeners: JoinHandle<()>,
    /// Cancelled when the process is to stop.
    pub stop: CancellationToken,
    pub successors: Option<Successors>,
    pub succession: Arc<SuccessionStatus>,
}

/// The socket at which successors ask.
pub(super) struct Successors {
    answering: JoinHandle<()>,
    accepting: mpsc::Receiver<Successor>,
}

impl Successors {
    /// Listens for successors, if the store can be handed over.
    pub(super) fn listen(settings: &Settings, client_proxy: &ClientProxy) -> Option<Self> {
        let StoreUrl::Sqlite(path) = &settings.store else { return None };
        let socket = match ControlSocket::bind(path) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "the control socket next to the store could not be opened: `serve --succeed` cannot take over \
                     from this process; it runs on normally"
                );
                return None;
            }
        };
        let (found, accepting) = mpsc::channel(1);
        let (flags, sockets) = (client_proxy.flags.clone(), client_proxy.sockets.offer());
        let offer = move || {
            let sockets = sockets.as_ref().map_err(|error| std::io::Error::new(error.kind(), error.to_string()))?;
            let copies = sockets.iter().map(|(offered, socket)| Ok((offered.clone(), socket.try_clone()?)));
            Ok(HandOverOffer {
                sockets: copies.collect::<std::io::Result<_>>()?,
                workflow_requests: flags.load().workflow_requests(),
            })
        };
        let answering = predecessor::answer(socket, offer, client_proxy.reload_lock.clone(), found);
        Some(Self { answering: tokio::spawn(answering), accepting })
    }

    /// Stops answering. The socket is removed when this returns.
    async fn end(self) {
        self.answering.abort();
        let _ = self.answering.await; // the task was aborted
    }
}

impl Running {
    /// Runs until the process is to stop, or has handed over.
    pub(super) async fn run(mut self) -> Ended {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return self.stop().await,
                successor = next(&mut self.successors) => match self.prepare_hand_over(successor).await {
                    Ok(successor) => return self.hand_over(successor).await,
                    Err(successor) => self.succession.note_end(&successor.party, HandOverEnd::ContinuesServing),
                },
            }
        }
    }

    async fn stop(self) -> Ended {
        let Self {
            mut client_proxy,
            earlier,
            parts,
            limits,
            watch,
            tasks,
            admin_stop,
            admin_listeners,
            stop,
            successors,
            ..
        } = self;
        if let Some(successors) = successors {
            successors.end().await;
        }
        if parts.membership.living().is_some_and(|living| living.len() > 1) {
            parts.engine.leave_runs();
        }
        tokio::time::sleep(Limits::ms(limits.stop_delay_ms)).await;
        let serving = client_proxy.serving();
        drop(client_proxy.sockets); // nobody listens now, unless the service manager does
        client_proxy.close.cancel();
        tokio::join!(served(serving), earlier.end(&stop));
        drop(watch);
        let ending = Ending { parts: &parts, limits: &limits, tasks, admin_stop, admin_listeners };
        ending.end().await;
        tracing::info!("stopped");
        Ended::Stopped
    }

    /// Lets only the successor accept, and waits until no request of this process needs the store. `Err`: the successor
    /// was lost, and this process accepts again.
    async fn prepare_hand_over(&self, mut successor: Successor) -> Result<Successor, Successor> {
        self.succession.note_hand_over(&successor.party);
        let client_proxy = &self.client_proxy;
        client_proxy.begin_hand_over();
        let cut = tokio::select! {
            biased;
            () = successor.wait_until_lost() => {
                client_proxy.end_hand_over();
                return Err(successor);
            }
            cut = client_proxy.proxy.finish_workflows(Limits::ms(self.limits.drain_ms)) => cut,
        };
        tracing::info!(cut, "no request of a route with a workflow is in progress: the store is released now");
        Ok(successor)
    }

    /// Releases the store, and ends once the successor has started and the open connections of this process have ended.
    async fn hand_over(self, mut successor: Successor) -> Ended {
        let Self {
            mut client_proxy,
            mut earlier,
            parts,
            limits,
            watch,
            tasks,
            admin_stop,
            admin_listeners,
            stop,
            successors,
            succession,
        } = self;
        drop(watch);
        // Ended before the store is released, since the next process that opens the store listens on the same socket.
        if let Some(successors) = successors {
            successors.end().await;
        }
        let ending = Ending { parts: &parts, limits: &limits, tasks, admin_stop, admin_listeners };
        if !ending.end().await {
            tracing::error!("the store was not released in time: this process ends at once, which releases its locks");
            return Ended::Stopped;
        }
        if successor.start_with_store().await {
            succession.note_end(&successor.party, HandOverEnd::Done);
            let serving = client_proxy.serving();
            client_proxy.leave_listeners();
            drop(client_proxy.sockets);
            earlier.0.extend(serving.map(|serving| (client_proxy.close, serving)));
            earlier.end(&stop).await;
            tracing::info!("stopped: the successor serves");
            return Ended::Stopped;
        }
        succession.note_end(&successor.party, HandOverEnd::StartsAgain);
        let kept = client_proxy.sockets.offer().and_then(|all| all.into_iter().map(GivenSocket::handed_over).collect());
        // Open connections continue during the new start, within their bound.
        client_proxy.leave_listeners();
        let serving = client_proxy.serving();
        earlier.0.extend(serving.map(|serving| (client_proxy.close, serving)));
        match kept {
            Ok(kept) if !stop.is_cancelled() => return Ended::SuccessorLost(GivenSockets::HandedOver(kept), earlier),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the sockets were lost: the process ends"),
        }
        earlier.end(&stop).await;
        Ended::Stopped
    }
}

/// Waits for the next successor that accepts; never returns if this process cannot be succeeded.
async fn next(successors: &mut Option<Successors>) -> Successor {
    if let Some(successors) = successors
        && let Some(successor) = successors.accepting.recv().await
    {
        return successor;
    }
    std::future::pending().await
}

/// Waits until the proxy has ended.
async fn served(serving: Option<JoinHandle<Drained>>) {
    let Some(serving) = serving else { return };
    match serving.await {
        Ok(Drained { cut, took }) => tracing::info!(cut_off = cut, ?took, "the proxy is drained"),
        Err(error) => tracing::error!(%error, "the task that serves clients panicked"),
    }
}

/// What ends once no request needs it any more: the parts and the API.
struct Ending<'a> {
    parts: &'a Parts,
    limits: &'a Limits,
    tasks: Vec<JoinHandle<()>>,
    admin_stop: CancellationToken,
    admin_listeners: JoinHandle<()>,
}

impl Ending<'_> {
    /// Drains the parts and releases the store. Returns whether the store was released in time.
    async fn end(self) -> bool {
        let Self { parts, limits, tasks, admin_stop, admin_listeners } = self;
        let recorded_until = parts.drain(limits).await;
        for task in tasks {
            task.abort();
        }
        admin_stop.cancel();
        let _ = admin_listeners.await; // the task has logged its own panic
        parts.ladder.end_freezes(recorded_until).await;
        // The process may start again, and its metrics go on.
        parts.evidence.scrape(|| ());
        parts.release(limits).await
    }
}
