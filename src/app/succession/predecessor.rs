//! The side of the process that hands over.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UnixStream;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tokio::time::timeout;

use super::channel::{Channel, Messages};
use super::control_socket::{ControlSocket, check_user};
use super::message::{Message, OfferedMatch, OfferedSocket, ProcessIdentity};
use super::{ANSWER_MAX, PREPARATION_MAX, PROTOCOL};
use crate::flag::RouteMatch;

/// What a process offers to its successor.
pub(in crate::app) struct HandOverOffer {
    /// The process's sockets.
    pub sockets: Vec<(OfferedSocket, TcpListener)>,
    /// The requests that may concern a workflow according to the process's files, or did according to earlier ones.
    pub workflow_requests: Vec<RouteMatch>,
}

/// A successor that accepts connections.
pub(in crate::app) struct Successor {
    /// Which process the successor is.
    pub party: ProcessIdentity,
    messages: Messages,
    /// While this exists, another successor is refused.
    _permit: SuccessorPermit,
}

/// Permits one successor at a time. While it exists, no new files come into force.
struct SuccessorPermit {
    has_successor: Arc<AtomicBool>,
    files: Option<OwnedMutexGuard<()>>,
}

impl Drop for SuccessorPermit {
    fn drop(&mut self) {
        // The lock first: otherwise the next successor could be permitted while the lock is still held.
        drop(self.files.take());
        self.has_successor.store(false, Ordering::Release);
    }
}

impl Successor {
    /// Waits until the successor is lost. It sends nothing before it gets the store; a message counts as its loss too.
    pub(in crate::app) async fn wait_until_lost(&mut self) {
        let _ = self.messages.receive().await; // any message is unexpected here
    }

    /// Tells the successor that the store is free, and waits until it has started with the store. Returns whether it
    /// has.
    pub(in crate::app) async fn start_with_store(&mut self) -> bool {
        self.messages.send(&Message::Released).await.is_ok()
            && matches!(self.messages.receive().await, Some(Message::Started))
    }
}

/// Answers processes that want to succeed this one; sends each of them that has begun to accept connections to
/// `accepting`. `reload_lock` is held by whoever puts new files in force. It is also held while there is a successor,
/// which knows only the files in force at the time of the offer. Runs until its task is aborted.
pub(in crate::app) async fn answer(
    socket: ControlSocket,
    offer: impl Fn() -> io::Result<HandOverOffer> + Send + Sync + 'static,
    reload_lock: Arc<Mutex<()>>,
    accepting: mpsc::Sender<Successor>,
) {
    let (offer, has_successor) = (Arc::new(offer), Arc::new(AtomicBool::new(false)));
    loop {
        let stream = match socket.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a successor could not be accepted");
                tokio::time::sleep(ANSWER_MAX / 100).await;
                continue;
            }
        };
        let (offer, has_successor, accepting) = (offer.clone(), has_successor.clone(), accepting.clone());
        let reload_lock = reload_lock.clone();
        tokio::spawn(async move {
            match prepare(stream, &*offer, has_successor, reload_lock).await {
                Ok(successor) => drop(accepting.send(successor).await),
                Err(error) => tracing::warn!(%error, "no successor: this process goes on"),
            }
        });
    }
}

/// Gives a successor the sockets, and waits until it accepts.
async fn prepare(
    stream: UnixStream,
    offer: &(impl Fn() -> io::Result<HandOverOffer> + Send + Sync),
    has_successor: Arc<AtomicBool>,
    reload_lock: Arc<Mutex<()>>,
) -> io::Result<Successor> {
    check_user(&stream)?;
    let mut channel = Channel::new(stream);
    let this = ProcessIdentity::this();
    let party = match timeout(ANSWER_MAX, channel.receive()).await? {
        Ok(Message::Hello(party)) => party,
        Ok(_) => return refuse(channel, format!("{this} was not told which process asks")).await,
        // The successor speaks a protocol that this version does not know.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return refuse(channel, format!("{this} does not understand the first message: {error}")).await;
        }
        Err(error) => return Err(error),
    };
    let refused = match party.protocol {
        PROTOCOL if !has_successor.swap(true, Ordering::AcqRel) => None,
        PROTOCOL => Some(format!("{this} hands over to another process already")),
        other => Some(format!(
            "{this} hands over by version {PROTOCOL} of the protocol, and {party} speaks version {other}: stop the one, \
             then start the other"
        )),
    };
    if let Some(why) = refused {
        return refuse(channel, why).await;
    }
    let mut permit = SuccessorPermit { has_successor, files: None };
    let reloading = || io::Error::new(io::ErrorKind::TimedOut, "new files were being put in force");
    permit.files = Some(timeout(ANSWER_MAX, reload_lock.lock_owned()).await.map_err(|_| reloading())?);
    let HandOverOffer { sockets, workflow_requests } = offer()?;
    let (sockets, listeners): (Vec<_>, Vec<_>) = sockets.into_iter().unzip();
    let workflow_requests = workflow_requests.iter().map(OfferedMatch::from).collect();
    let offered = async {
        channel.send(&Message::Offer { from: this, sockets, workflow_requests }).await?;
        channel.send_sockets(&listeners).await
    };
    timeout(ANSWER_MAX, offered).await??;
    tracing::info!(successor = %party, "a successor has the sockets; this process goes on until the successor accepts");
    match timeout(PREPARATION_MAX, channel.receive()).await?? {
        Message::Accepting => Ok(Successor { party, messages: channel.into_messages(), _permit: permit }),
        _ => Err(io::Error::other("the successor did not say that it accepts")),
    }
}

/// Tells a process why it gets no sockets.
async fn refuse(mut channel: Channel, why: String) -> io::Result<Successor> {
    timeout(ANSWER_MAX, channel.send(&Message::Refused { why: why.clone() })).await??;
    Err(io::Error::other(why))
}
