//! An origin that speaks HTTP/2.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// An origin that records its requests.
#[derive(Clone)]
pub struct Http2Origin {
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<Mutex<usize>>,
    /// Each request for `/wait` takes one of these before it is answered.
    pub answers: Arc<Semaphore>,
}

impl Default for Http2Origin {
    fn default() -> Self {
        Self { seen: Arc::default(), connections: Arc::default(), answers: Arc::new(Semaphore::new(0)) }
    }
}

impl Http2Origin {
    /// Starts an origin that accepts `streams` requests at the same time on each connection.
    pub async fn start(streams: u32, tls: Option<Arc<ServerConfig>>) -> (Self, SocketAddr) {
        let (origin, listener) = (Self::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let served = origin.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (origin, tls) = (served.clone(), tls.clone());
                *origin.connections.lock().unwrap() += 1;
                tokio::spawn(async move {
                    match tls {
                        None => origin.serve(stream, streams).await,
                        Some(tls) => {
                            let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
                            origin.serve(stream, streams).await;
                        }
                    }
                });
            }
        });
        (origin, address)
    }
    /// Serves one connection.
    pub async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, streams: u32) {
        let service = service_fn(move |request| self.clone().answer(request));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let _ = builder.max_concurrent_streams(streams).serve_connection(TokioIo::new(stream), service).await;
    }
    async fn answer(self, request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
        let (head, body) = request.into_parts();
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned();
        let seen = Seen {
            line: format!("{} {}", head.method, head.uri),
            headers: head.headers,
            body: collected.to_bytes(),
            trailers,
        };
        let (waits, has_trailers) = (seen.line.ends_with("/wait"), seen.line.ends_with("/trailers"));
        self.seen.lock().unwrap().push(seen);
        if waits {
            self.answers.acquire().await.unwrap().forget();
        }
        if has_trailers {
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
            let frames = [Frame::data(Bytes::from_static(b"ok")), Frame::trailers(trailers)].map(Ok);
            let body = StreamBody::new(futures_util::stream::iter(frames));
            return Ok(Response::builder().header("trailer", "grpc-status").body(BodyExt::boxed(body)).unwrap());
        }
        Ok(Response::new(BodyExt::boxed(Full::new(Bytes::from_static(b"ok")))))
    }
    pub fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|seen| seen.line.clone()).collect()
    }
}

/// One frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Reads frames from a client until one of this kind has come, and before them the preface if `preface` is set. Returns
/// the frame's stream.
pub async fn read_until(stream: &mut TcpStream, kind: u8, preface: bool) -> Option<u32> {
    use tokio::io::AsyncReadExt;
    if preface {
        stream.read_exact(&mut [0; 24]).await.ok()?;
    }
    loop {
        let mut head = [0_u8; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).await.ok()?;
        if head[3] == kind {
            return Some(u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
        }
    }
}
