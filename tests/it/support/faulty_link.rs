//! A TCP proxy that can close its connections, or silently forward nothing.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::LOCAL;

/// The state of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Forwards bytes.
    Forwarding,
    /// Closes connections, new ones too.
    Resetting,
    /// Forwards nothing; connections stay open.
    Silent,
}

/// Forwards to one address; dropping it ends all connections.
pub struct FaultyLink {
    address: SocketAddr,
    state: watch::Sender<State>,
    task: tokio::task::AbortHandle,
}

impl FaultyLink {
    /// A proxy to an address.
    pub async fn to(there: SocketAddr) -> Self {
        let listener = TcpListener::bind(LOCAL).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = watch::Sender::new(State::Forwarding);
        let seen = state.subscribe();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(forward(near, there, seen.clone()));
                while connections.try_join_next().is_some() {}
            }
        })
        .abort_handle();
        Self { address, state, task }
    }
    /// The address to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// Closes existing and new connections.
    pub fn reset(&self) {
        self.state.send_replace(State::Resetting);
    }
    /// Stops forwarding; connections stay open.
    pub fn drop_silently(&self) {
        self.state.send_replace(State::Silent);
    }
    /// Forwards again.
    pub fn restore(&self) {
        self.state.send_replace(State::Forwarding);
    }
}

impl Drop for FaultyLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut near: TcpStream, there: SocketAddr, mut state: watch::Receiver<State>) {
    let is_reset = |state: &State| *state == State::Resetting;
    if is_reset(&state.borrow()) {
        return;
    }
    let Ok(mut far) = TcpStream::connect(there).await else { return };
    let _set = (near.set_nodelay(true), far.set_nodelay(true));
    loop {
        let now = *state.borrow_and_update();
        // Stopping loses bytes that were read from one side and not written to the other, so a connection cannot
        // continue after a silence. Both ends see its end when the link forwards again.
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far), if now == State::Forwarding => return,
            changed = state.changed() => if changed.is_err() || is_reset(&state.borrow()) || now == State::Silent {
                return;
            },
        }
    }
}
