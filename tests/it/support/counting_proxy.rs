//! A TCP proxy to PostgreSQL that counts round trips: messages after which the client waits for "ready for query".

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::LOCAL;

/// The label of a round trip that carries no statement.
pub const PING: &str = "(ping)";
/// The beginning of the label of a round trip that only prepares a statement, once per connection.
pub const PREPARE: &str = "(prepare) ";
/// Of a longer statement the label has the beginning.
const LABEL_CHARS: usize = 90;

/// Round trips by their statement.
pub type RoundTrips = BTreeMap<String, u64>;

/// Forwards to one address; dropping it ends all connections.
pub struct CountingProxy {
    address: SocketAddr,
    counted: Arc<Mutex<RoundTrips>>,
    task: tokio::task::AbortHandle,
}

impl CountingProxy {
    /// A proxy to an address.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(LOCAL).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let counted: Arc<Mutex<RoundTrips>> = Arc::default();
        let of_task = counted.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let counted = of_task.clone();
                connections.spawn(async move { forward(near, server, &counted).await });
                while connections.try_join_next().is_some() {}
            }
        })
        .abort_handle();
        Self { address, counted, task }
    }
    /// The address to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// The round trips since the start.
    pub fn counted(&self) -> RoundTrips {
        self.counted.lock().expect("unpoisoned").clone()
    }
    /// The round trips since an earlier reading.
    pub fn since(&self, earlier: &RoundTrips) -> RoundTrips {
        let of = |(label, count): (String, u64)| {
            let more = count - earlier.get(&label).copied().unwrap_or(0);
            (more > 0).then_some((label, more))
        };
        self.counted().into_iter().filter_map(of).collect()
    }
}

impl Drop for CountingProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut near: TcpStream, server: SocketAddr, counted: &Mutex<RoundTrips>) {
    let Ok(mut far) = TcpStream::connect(server).await else { return };
    let _set = (near.set_nodelay(true), far.set_nodelay(true));
    let (mut ours, mut theirs) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut requests = Requests::default();
    loop {
        tokio::select! {
            read = near.read(&mut ours) => match read {
                Ok(n @ 1..) => {
                    requests.read(&ours[..n], |label| {
                        *counted.lock().expect("unpoisoned").entry(label).or_default() += 1;
                    });
                    if far.write_all(&ours[..n]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            read = far.read(&mut theirs) => match read {
                Ok(n @ 1..) if near.write_all(&theirs[..n]).await.is_ok() => {}
                _ => return,
            },
        }
    }
}

/// What a client has sent on one connection.
#[derive(Default)]
struct Requests {
    unread: Vec<u8>,
    /// Whether the first message, which has no type, has been read.
    has_started: bool,
    prepared: HashMap<Vec<u8>, String>,
    /// The statement that was prepared or bound since the last round trip.
    current: Option<String>,
}

impl Requests {
    fn read(&mut self, bytes: &[u8], mut count: impl FnMut(String)) {
        self.unread.extend_from_slice(bytes);
        loop {
            let type_bytes = usize::from(self.has_started);
            let Some(length) = self.unread.get(type_bytes..type_bytes + 4) else { return };
            let length = u32::from_be_bytes(length.try_into().expect("4 bytes")) as usize;
            if self.unread.len() < type_bytes + length {
                return;
            }
            let message: Vec<u8> = self.unread.drain(..type_bytes + length).collect();
            match std::mem::replace(&mut self.has_started, true) {
                true => self.message(message[0], &message[5..], &mut count),
                // Anything but version 3: a request to use TLS or to cancel, after which the protocol starts anew.
                false => self.has_started = message[4..8] == [0, 3, 0, 0],
            }
        }
    }

    fn message(&mut self, kind: u8, body: &[u8], count: &mut impl FnMut(String)) {
        let mut parts = body.splitn(3, |byte| *byte == 0);
        let mut part = || parts.next().unwrap_or_default();
        match kind {
            b'Q' => count(label(part())),
            b'P' => {
                let (name, text) = (part().to_vec(), label(part()));
                self.current = Some(format!("{PREPARE}{text}"));
                self.prepared.insert(name, text);
            }
            b'B' => {
                let (_portal, name) = (part(), part());
                self.current = Some(self.prepared.get(name).cloned().unwrap_or_default());
            }
            b'S' => count(self.current.take().unwrap_or_else(|| PING.to_owned())),
            _ => {}
        }
    }
}

fn label(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(LABEL_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    #[test]
    fn round_trips_are_counted_by_statement_however_the_bytes_are_cut() {
        let startup = [&12_u32.to_be_bytes()[..], &[0, 3, 0, 0], b"a\0b\0"].concat();
        let sent = [
            startup,
            message(b'Q', b"BEGIN\0"),
            [message(b'P', b"s1\0SELECT  $1\0\0\0"), message(b'D', b"Ss1\0"), message(b'S', b"")].concat(),
            [message(b'B', b"\0s1\0\0\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat(),
            // A statement that is prepared and executed in one round trip, and a ping.
            [message(b'P', b"\0SELECT 2\0\0\0"), message(b'B', b"\0\0\0\0"), message(b'S', b"")].concat(),
            message(b'S', b""),
        ]
        .concat();
        for size in [1, 3, sent.len()] {
            let (mut requests, mut counted) = (Requests::default(), Vec::new());
            sent.chunks(size).for_each(|bytes| requests.read(bytes, |label| counted.push(label)));
            assert_eq!(counted, ["BEGIN", "(prepare) SELECT $1", "SELECT $1", "SELECT 2", PING], "chunks of {size}");
        }
    }
}
