//! A service over HTTP/2 that ends each connection after a number of requests, as nginx does (`keepalive_requests`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200`, by its index in HPACK's table.
const STATUS_200: u8 = 0x88;

/// The service, and what it has done.
#[derive(Clone)]
pub(crate) struct EndingOrigin {
    pub(crate) address: SocketAddr,
    /// The bodies of the requests that it has answered.
    pub(crate) done: Arc<Mutex<Vec<Vec<u8>>>>,
    pub(crate) connections: Arc<AtomicUsize>,
    requests: usize,
    streams: u8,
}

impl EndingOrigin {
    /// Processes `requests` requests on each connection, at most `streams` of them at the same time.
    pub(crate) async fn start(requests: usize, streams: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (done, connections) = (Arc::default(), Arc::default());
        let origin = Self { address: listener.local_addr().unwrap(), done, connections, requests, streams };
        let served = origin.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                served.connections.fetch_add(1, SeqCst);
                tokio::spawn(served.clone().serve(stream));
            }
        });
        origin
    }

    async fn serve(self, mut stream: TcpStream) -> Option<()> {
        stream.read_exact(&mut [0; 24]).await.ok()?;
        // MAX_CONCURRENT_STREAMS.
        stream.write_all(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, self.streams])).await.ok()?;
        let (mut bodies, mut taken) = (BTreeMap::<u32, Vec<u8>>::new(), 0);
        while taken < self.requests || !bodies.is_empty() {
            let (kind, flags, id, payload) = read(&mut stream).await?;
            match kind {
                SETTINGS if flags == 0 => stream.write_all(&frame(SETTINGS, 1, 0, &[])).await.ok()?,
                HEADERS if taken < self.requests => {
                    taken += 1;
                    bodies.insert(id, Vec::new());
                    if taken == self.requests {
                        // Requests that are on their way now are not processed.
                        let last = [id.to_be_bytes(), [0; 4]].concat();
                        stream.write_all(&frame(GOAWAY, 0, 0, &last)).await.ok()?;
                    }
                }
                DATA if bodies.contains_key(&id) => bodies.get_mut(&id)?.extend(payload),
                _ => continue,
            }
            if flags & END_STREAM != 0
                && matches!(kind, HEADERS | DATA)
                && let Some(body) = bodies.remove(&id)
            {
                self.done.lock().unwrap().push(body);
                stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, id, &[STATUS_200])).await.ok()?;
            }
        }
        // Closed only after the client, so that no reset destroys an answer on its way.
        stream.shutdown().await.ok()?;
        let _ = stream.read_to_end(&mut Vec::new()).await;
        Some(())
    }
}

/// A service that answers each request before its body has come, and processes one at a time on each connection.
/// Returns its address, and how many connections it has had.
pub(crate) async fn early_origin() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, connections) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let count = connections.clone();
    let serve = async |mut stream: TcpStream| -> Option<()> {
        stream.read_exact(&mut [0; 24]).await.ok()?;
        stream.write_all(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1])).await.ok()?;
        stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &[0, 16, 0, 0])).await.ok()?;
        loop {
            let (kind, _, id, _) = read(&mut stream).await?;
            if kind == HEADERS {
                stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, id, &[STATUS_200])).await.ok()?;
            }
        }
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, SeqCst);
            tokio::spawn(serve(stream));
        }
    });
    (address, connections)
}

/// One frame: its kind, flags, stream and payload.
async fn read(stream: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
