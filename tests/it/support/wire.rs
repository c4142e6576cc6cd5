//! A TCP proxy whose connections can be reset, or which can drop everything silently.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::LOCAL;

/// The state of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It forwards.
    Whole,
    /// It resets connections, new ones too.
    Cut,
    /// Connections stay open, and nothing is forwarded.
    Silent,
}

/// Listens on a port of its own and passes on to one address; everything ends with the value.
pub struct Wire {
    address: SocketAddr,
    state: watch::Sender<State>,
    task: tokio::task::AbortHandle,
}

impl Wire {
    /// To an address.
    pub async fn to(there: SocketAddr) -> Self {
        let listener = TcpListener::bind(LOCAL).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = watch::Sender::new(State::Whole);
        let seen = state.subscribe();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(carry(near, there, seen.clone()));
                while connections.try_join_next().is_some() {}
            }
        })
        .abort_handle();
        Self { address, state, task }
    }
    /// The near end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// Resets what there is and what comes.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }
    /// Forwards nothing any more; connections stay open.
    pub fn hush(&self) {
        self.state.send_replace(State::Silent);
    }
    /// Carries again.
    pub fn mend(&self) {
        self.state.send_replace(State::Whole);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut near: TcpStream, there: SocketAddr, mut state: watch::Receiver<State>) {
    let is_cut = |state: &State| *state == State::Cut;
    if is_cut(&state.borrow()) {
        return;
    }
    let Ok(mut far) = TcpStream::connect(there).await else { return };
    let _set = (near.set_nodelay(true), far.set_nodelay(true));
    loop {
        let now = *state.borrow_and_update();
        // What is dropped midway was read from one side and not written to the other: bytes are lost, so the
        // connection cannot go on after a silence. Both ends see it when the wire carries again.
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far), if now == State::Whole => return,
            changed = state.changed() => if changed.is_err() || is_cut(&state.borrow()) || now == State::Silent {
                return;
            },
        }
    }
}
