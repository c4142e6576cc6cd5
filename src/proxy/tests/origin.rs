//! A scripted origin.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::wire::{Message, Wire};

/// For both buffers of a connection: with them the kernel holds less than [`PIECES`] of [`PIECE_BYTES`].
pub const SMALL_BUFFER_BYTES: u32 = 4 << 10;
const PIECE_BYTES: usize = 16 << 10;
/// hyper reads at least 8 KiB at once where they have arrived, so that these are at most 12 frames. It holds back the
/// service once it has 16 frames that the client's socket did not take.
const PIECES: usize = 4;

/// An origin that records its requests.
#[derive(Clone)]
pub struct Origin {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Message>>>,
    pub connections: Arc<Mutex<usize>>,
}

impl Origin {
    /// Runs the script on each connection.
    pub async fn script<F, Fut>(script: F) -> Self
    where
        F: Fn(Wire, Arc<Mutex<Vec<Message>>>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::script_at("127.0.0.1:0".parse().unwrap(), script).await
    }
    /// Runs the script on each connection to this address.
    pub async fn script_at<F, Fut>(address: SocketAddr, script: F) -> Self
    where
        F: Fn(Wire, Arc<Mutex<Vec<Message>>>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let origin = Self { address, seen: seen.clone(), connections: connections.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *connections.lock().unwrap() += 1;
                tokio::spawn(script(Wire::new(stream), seen.clone()));
            }
        });
        origin
    }
    /// Answers each request with the same bytes, and keeps its connections open.
    pub async fn always_answers(reply: &'static str) -> Self {
        Self::always_answers_at("127.0.0.1:0".parse().unwrap(), reply).await
    }
    pub async fn always_answers_at(address: SocketAddr, reply: &'static str) -> Self {
        Self::script_at(address, move |mut wire, seen| async move {
            while let Some(request) = wire.message(true).await {
                seen.lock().unwrap().push(request);
                wire.send(reply).await;
            }
        })
        .await
    }
    /// Answers once, in pieces, and notifies when the proxy has read the last byte.
    pub async fn that_knows_when_its_reply_was_taken() -> (Self, Arc<Notify>) {
        let all_taken = Arc::new(Notify::new());
        let taken = all_taken.clone();
        let script = move |mut wire: Wire, _| {
            let taken = taken.clone();
            async move {
                wire.message(true).await;
                let length = PIECES * PIECE_BYTES;
                wire.send(format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")).await;
                for _ in 0..PIECES {
                    wire.send(vec![b'x'; PIECE_BYTES]).await;
                }
                // The proxy closes this connection once it has the last byte.
                wire.rest().await;
                taken.notify_one();
            }
        };
        (Self::script(script).await, all_taken)
    }
    pub fn requests(&self) -> Vec<Message> {
        self.seen.lock().unwrap().clone()
    }
    pub fn only_request(&self) -> Message {
        let seen = self.requests();
        assert_eq!(seen.len(), 1, "one request");
        seen[0].clone()
    }
}
