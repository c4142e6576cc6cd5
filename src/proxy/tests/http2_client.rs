//! A client that speaks HTTP/2, with or without TLS, and a client that sends arbitrary frames.

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::rig::Rig;
use super::wire::{Wire, bounded};

/// A client's HTTP/2 connection.
pub struct Http2Client {
    pub requests: SendRequest<Bytes>,
    /// The task that drives the connection; it ends with the connection.
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Http2Client {
    pub async fn new(rig: &Rig) -> Self {
        Self::over(TcpStream::connect(rig.address).await.unwrap(), &Builder::new()).await
    }
    pub async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, builder: &Builder) -> Self {
        let (requests, connection) = bounded("the preface", builder.handshake(io)).await.unwrap();
        Self { requests, connection: tokio::spawn(connection) }
    }
    /// Begins a request; the returned stream sends its body.
    pub async fn begin(&mut self, request: Request<()>) -> (Pending, SendStream<Bytes>) {
        self.send(request, false).await
    }
    async fn send(&mut self, request: Request<()>, is_whole: bool) -> (Pending, SendStream<Bytes>) {
        let ready = bounded("room for a stream", self.requests.clone().ready()).await;
        self.requests = ready.expect("the connection is open");
        let (response, body) = self.requests.send_request(request, is_whole).unwrap();
        (Pending(response), body)
    }
    /// Begins a request without a body.
    pub async fn begin_get(&mut self, path: &str) -> (Pending, SendStream<Bytes>) {
        self.send(request(Method::GET, path), true).await
    }
    /// Begins a request without a body.
    pub async fn begin_get_with(&mut self, method: Method, path: &str) -> (Pending, SendStream<Bytes>) {
        self.send(request(method, path), true).await
    }
    pub async fn get(&mut self, path: &str) -> Reply {
        self.begin_get(path).await.0.reply().await
    }
    pub async fn post(&mut self, path: &str, body: &'static str) -> Reply {
        self.ask(request(Method::POST, path), body).await
    }
    pub async fn ask(&mut self, request: Request<()>, body: impl Into<Bytes>) -> Reply {
        let (pending, mut send) = self.begin(request).await;
        send_all(&mut send, body.into()).await.unwrap();
        send.send_data(Bytes::new(), true).unwrap();
        pending.reply().await
    }
}

/// A reply that is awaited.
pub struct Pending(h2::client::ResponseFuture);

impl Pending {
    pub async fn head(self) -> Result<Response<RecvStream>, h2::Error> {
        bounded("the reply's head", self.0).await
    }
    /// The status of the next interim answer.
    pub async fn interim(&mut self) -> u16 {
        let interim = bounded("an interim answer", std::future::poll_fn(|cx| self.0.poll_informational(cx))).await;
        interim.expect("an interim answer").unwrap().status().as_u16()
    }
    pub async fn reply(self) -> Reply {
        whole(self.head().await.expect("a reply")).await.expect("a whole reply")
    }
}

/// Reads a reply to its end.
pub async fn whole(response: Response<RecvStream>) -> Result<Reply, h2::Error> {
    let (head, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(data) = bounded("the reply's body", stream.data()).await {
        let data = data?;
        stream.flow_control().release_capacity(data.len()).unwrap();
        body.extend_from_slice(&data);
    }
    let trailers = bounded("the end of the reply", stream.trailers()).await?.unwrap_or_default();
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body, trailers })
}

/// Sends a body as the windows allow.
pub async fn send_all(send: &mut SendStream<Bytes>, mut body: Bytes) -> Result<(), h2::Error> {
    while !body.is_empty() {
        send.reserve_capacity(body.len());
        let capacity = bounded("a window", std::future::poll_fn(|cx| send.poll_capacity(cx))).await;
        let Some(capacity) = capacity.transpose()? else { break };
        send.send_data(body.split_to(capacity.min(body.len())), false)?;
    }
    Ok(())
}

/// A request for `shop.test`.
pub fn request(method: Method, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://shop.test{path}")).body(()).unwrap()
}

/// The preface of a client and its SETTINGS.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A client that sends arbitrary frames.
pub struct RawHttp2 {
    pub wire: Wire,
}

/// A frame on the wire.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The fields of a request for `/`, without compression.
pub fn fields(method: &str) -> Vec<u8> {
    fields_for(method, "/")
}

/// The fields of a request for this path, without compression.
pub fn fields_for(method: &str, path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", method), (":scheme", "http"), (":path", path), (":authority", "shop.test")] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

impl RawHttp2 {
    pub async fn new(rig: &Rig) -> Self {
        let mut wire = rig.connect().await;
        wire.send(PREFACE).await;
        Self { wire }
    }
    /// Sends until the other side closes the connection, or everything is sent.
    pub async fn flood(&mut self, bytes: &[u8]) {
        use tokio::io::AsyncWriteExt;
        let _ = bounded("sending", self.wire.stream.write_all(bytes)).await; // fails if the other side has closed
    }
    /// The next frame: its kind, its flags, its stream, its payload.
    pub async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let head = self.wire.exactly(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.wire.exactly(length as usize).await?;
        Some((head[3], head[4], stream, payload))
    }
    /// The code of the GOAWAY with which the connection is closed.
    pub async fn goaway(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some((kind, _, _, payload)) = self.next().await {
            if kind == 7 {
                code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        code
    }
}
