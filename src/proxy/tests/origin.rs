//! A scripted origin.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;

use super::wire::{Message, Wire};

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
    pub fn requests(&self) -> Vec<Message> {
        self.seen.lock().unwrap().clone()
    }
    pub fn only_request(&self) -> Message {
        let seen = self.requests();
        assert_eq!(seen.len(), 1, "one request");
        seen[0].clone()
    }
}
