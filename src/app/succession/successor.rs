//! The side of the process that takes over.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::time::timeout;

use super::channel::{Channel, Messages};
use super::control_socket::connect;
use super::message::{Message, OfferedMatch, OfferedSocket, ProcessIdentity};
use super::{ANSWER_MAX, PROTOCOL};
use crate::config::StoreUrl;
use crate::flag::RouteMatch;
use crate::store::SqliteStore;

/// The process that this one takes over from.
pub(in crate::app) struct Predecessor {
    /// The other process.
    pub party: ProcessIdentity,
    /// The requests that may concern a workflow according to the other process's files.
    pub workflow_requests: Vec<RouteMatch>,
    channel: Channel,
}

/// The process that this one takes over from, while it releases its store.
pub(in crate::app) struct ReleasingPredecessor {
    /// The other process.
    pub party: ProcessIdentity,
    messages: Messages,
}

/// How many times the other process is asked if its connection ends without an answer.
const TRIES_MAX: u32 = 3;
/// The pause before the other process is asked again: if it has died, its sockets are closed by then.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const NOTHING_CHANGED: &str = "the running process goes on, nothing was changed";

/// Asks the process that has the store for its sockets. `None` if no process has it.
///
/// # Errors
/// The store is not one that is handed over; it cannot be opened by this version; the running process refuses.
pub(in crate::app) async fn ask(
    store: &StoreUrl,
) -> anyhow::Result<Option<(Predecessor, Vec<(OfferedSocket, TcpListener)>)>> {
    let path = match store {
        StoreUrl::Sqlite(path) => path,
        StoreUrl::Postgres { .. } => bail!(
            "`--succeed` is for a SQLite store, which belongs to one process at a time. Processes share a PostgreSQL \
             store: start this one without `--succeed` beside the other, at an address of its own or on sockets of the \
             service manager, and stop that one then (`pointsman help production`)"
        ),
        StoreUrl::Memory => bail!("`--succeed` needs a store that outlives its process: a store in memory does not"),
    };
    let using = || format!("asking the process that uses {} to hand over: {NOTHING_CHANGED}", path.display());
    let mut tries = 1;
    let (channel, answer) = loop {
        let Some(stream) = connect(path).await.with_context(using)? else {
            tracing::info!("no process has the store: there is none to succeed, and this one starts as usual");
            return Ok(None);
        };
        // Checked now, and not after the running process has released the store.
        SqliteStore::refuse_newer(path).await.context(NOTHING_CHANGED)?;
        let mut channel = Channel::new(stream);
        let answered = async {
            channel.send(&Message::Hello(ProcessIdentity::this())).await?;
            channel.receive().await
        };
        match timeout(ANSWER_MAX, answered).await.with_context(using)? {
            Ok(answer) => break (channel, answer),
            // That process may have just died, and then the next try finds none.
            Err(error) if tries < TRIES_MAX => {
                tracing::warn!(%error, "the process that has the store did not answer; asking again");
                tries += 1;
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(error).with_context(using),
        }
    };
    let (party, offered, workflow_requests) = match answer {
        Message::Offer { from, sockets, workflow_requests } => (from, sockets, workflow_requests),
        Message::Refused { why } => bail!("the running process refuses to hand over: {why}. It goes on"),
        _ => bail!("the running process gave an unexpected answer: {NOTHING_CHANGED}"),
    };
    ensure!(
        party.protocol == PROTOCOL,
        "{party} hands over by version {} of the protocol, and this process speaks version {PROTOCOL}: {NOTHING_CHANGED}",
        party.protocol
    );
    let received = timeout(ANSWER_MAX, channel.receive_sockets(offered.len()));
    let listeners = received.await.with_context(using)?.with_context(using)?;
    let workflow_requests: Option<Vec<_>> = workflow_requests.into_iter().map(OfferedMatch::into_match).collect();
    let workflow_requests = workflow_requests.context("a route of the running process has no valid method")?;
    let sockets = offered.into_iter().zip(listeners).collect();
    Ok(Some((Predecessor { party, workflow_requests, channel }, sockets)))
}

impl Predecessor {
    /// Tells the other process that this one accepts.
    pub(in crate::app) async fn accept(self) -> ReleasingPredecessor {
        let Self { party, mut channel, .. } = self;
        let _ = channel.send(&Message::Accepting).await; // if it is gone, nothing is received from it either
        ReleasingPredecessor { party, messages: channel.into_messages() }
    }
}

impl ReleasingPredecessor {
    /// Waits until the other process has released the store, or is gone. Returns whether it has released it.
    pub(in crate::app) async fn wait_until_released(&mut self) -> bool {
        let is_released = matches!(self.messages.receive().await, Some(Message::Released));
        if !is_released {
            let predecessor = &self.party;
            tracing::warn!(%predecessor, "the other process is gone, or has broken off: its store is taken when it is free");
        }
        is_released
    }

    /// Tells the other process that this one has started with the store.
    pub(in crate::app) async fn report_started(&mut self) {
        let _ = self.messages.send(&Message::Started).await; // the other process may be gone
    }
}
