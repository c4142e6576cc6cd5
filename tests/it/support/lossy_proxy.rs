//! A TCP proxy to PostgreSQL that loses replies to commits: the server has committed, and the client is not told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::LOCAL;

/// The smallest size of a request that writes; the store's queries are smaller.
const WRITE_BYTES_MIN: usize = 600;
/// The end of a reply after which the session has no open transaction.
const READY: &[u8] = b"Z\0\0\0\x05I";
/// Parts of the server's replies: to a statement that calls the store's function, and to COMMIT.
const CALLED: &[u8] = b"SELECT 1\0";
const COMMITTED: &[u8] = b"COMMIT\0";

/// Forwards to one address; dropping it ends all connections.
pub struct LossyProxy {
    address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::AbortHandle,
}

struct State {
    server: Mutex<SocketAddr>,
    random: Mutex<fastrand::Rng>,
    /// One of this many replies to commits is lost; none if this is 0.
    one_in: AtomicUsize,
    lost: AtomicU64,
}

impl LossyProxy {
    /// A proxy to an address; the seed determines which replies are lost.
    pub async fn to(server: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind(LOCAL).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        let state = Arc::new(State {
            server: Mutex::new(server),
            random,
            one_in: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
        });
        let of_task = state.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let state = of_task.clone();
                connections.spawn(async move { forward(near, &state).await });
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
    /// From now on loses one of this many replies to commits, and closes the connection.
    pub fn lose_one_in(&self, of: usize) {
        self.state.one_in.store(of, Ordering::Relaxed);
    }
    /// Forwards new connections to another address.
    pub fn redirect_to(&self, server: SocketAddr) {
        *self.state.server.lock().expect("unpoisoned") = server;
    }
    /// Loses no more replies.
    pub fn stop_losing(&self) {
        self.state.one_in.store(0, Ordering::Relaxed);
    }
    /// How many replies to commits were lost.
    pub fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::Relaxed)
    }
}

impl Drop for LossyProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn loses(&self, request_bytes: usize, reply: &[u8]) -> bool {
        let contains = |what: &[u8]| reply.windows(what.len()).any(|part| part == what);
        let commit =
            reply.ends_with(READY) && (contains(COMMITTED) || request_bytes >= WRITE_BYTES_MIN && contains(CALLED));
        let one_in = self.one_in.load(Ordering::Relaxed);
        let lost = commit && one_in > 0 && self.random.lock().expect("unpoisoned").usize(..one_in) == 0;
        self.lost.fetch_add(u64::from(lost), Ordering::Relaxed);
        lost
    }
}

async fn forward(mut near: TcpStream, state: &State) {
    let server = *state.server.lock().expect("unpoisoned");
    let Ok(mut far) = TcpStream::connect(server).await else { return };
    let _set = (near.set_nodelay(true), far.set_nodelay(true));
    let (mut ours, mut theirs) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let (mut request_bytes, mut answered) = (0, true);
    loop {
        tokio::select! {
            read = near.read(&mut ours) => match read {
                Ok(n @ 1..) if far.write_all(&ours[..n]).await.is_ok() => {
                    request_bytes = if answered { n } else { request_bytes + n };
                    answered = false;
                }
                _ => return,
            },
            read = far.read(&mut theirs) => match read {
                Ok(n @ 1..) => {
                    answered = true;
                    if state.loses(request_bytes, &theirs[..n]) || near.write_all(&theirs[..n]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}
