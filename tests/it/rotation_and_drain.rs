//! Certificates change and the process drains under load: HTTP/1.1 with and without TLS, with and without keep-alive,
//! HTTP/2 over TLS, and a tunnel. No request that was begun fails.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use http::Method;
use pointsman::listener::crypto;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::support::certificates::{Authority, Issued};
use crate::support::process::Start;
use crate::support::test_system::short_pause;
use crate::support::{FlagsDir, LOCAL, Pointsman, WAIT_MAX, until, until_true};

const ROTATIONS: usize = 12;
/// Clients of each kind.
const CLIENTS: usize = 2;
const NAME: &str = "shop.test";

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Answers requests, and echoes what comes through a tunnel.
struct Service {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    task: tokio::task::AbortHandle,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    async fn start() -> Self {
        let listener = TcpListener::bind(LOCAL).await.expect("a port");
        let (address, requests) = (listener.local_addr().expect("an address"), Arc::<AtomicUsize>::default());
        let counted = requests.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, counted.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, requests, task: task.abort_handle() }
    }
}

async fn answer(mut stream: TcpStream, requests: Arc<AtomicUsize>) -> io::Result<()> {
    let mut seen = Vec::new();
    loop {
        while !seen.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut seen).await? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&seen).to_ascii_lowercase();
        seen.clear();
        if head.contains("\r\nupgrade: echo\r\n") {
            stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
                .await?;
            let (mut reading, mut writing) = stream.split();
            tokio::io::copy(&mut reading, &mut writing).await?;
            return Ok(());
        }
        requests.fetch_add(1, Ordering::SeqCst);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await?;
    }
}

/// What the clients share: where they connect to, and what they found.
struct Load {
    plain: SocketAddr,
    secure: SocketAddr,
    tls: Arc<ClientConfig>,
    tls_http2: Arc<ClientConfig>,
    is_draining: AtomicBool,
    answered: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    fn fail(&self, what: String) {
        self.failures.lock().expect("unpoisoned").push(what);
    }
    /// Records a request that ended before a byte of the answer came. That is a failure unless the process drains: then
    /// the request was not begun (the service counts the requests that were).
    fn unanswered(&self, what: &str, error: &io::Error) {
        if !self.is_draining.load(Ordering::SeqCst) {
            self.fail(format!("{what}: {error}"));
        }
    }
    async fn connect(&self, config: Option<&Arc<ClientConfig>>) -> io::Result<Box<dyn Io>> {
        let Some(config) = config else { return Ok(Box::new(TcpStream::connect(self.plain).await?)) };
        let stream = TcpStream::connect(self.secure).await?;
        let name = ServerName::try_from(NAME).expect("a name");
        Ok(Box::new(TlsConnector::from(config.clone()).connect(name, stream).await?))
    }
    /// Requests one after the other, until the process has drained.
    async fn http1(&self, is_secure: bool, keeps_alive: bool) {
        let what = format!("HTTP/1.1, TLS {is_secure}, keep-alive {keeps_alive}");
        loop {
            let mut stream = match self.connect(is_secure.then_some(&self.tls)).await {
                Ok(stream) => stream,
                Err(error) => return self.unanswered(&what, &error),
            };
            loop {
                match ask(&mut stream).await {
                    Ok(closes) => {
                        self.answered.fetch_add(1, Ordering::SeqCst);
                        short_pause().await;
                        if closes || !keeps_alive {
                            break;
                        }
                    }
                    Err((0, error)) => return self.unanswered(&what, &error),
                    Err((count, error)) => return self.fail(format!("{what}: {error} after {count} bytes")),
                }
            }
        }
    }
    /// Streams of one connection, until it is closed.
    async fn http2(&self) {
        let what = "HTTP/2";
        let stream = match self.connect(Some(&self.tls_http2)).await {
            Ok(stream) => stream,
            Err(error) => return self.unanswered(what, &error),
        };
        let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let one = || async {
            let mut requests = requests.clone().ready().await?;
            let request = http::Request::get(format!("https://{NAME}/h2")).body(()).expect("a request");
            let (reply, _) = requests.send_request(request, true)?;
            let (head, mut body) = reply.await?.into_parts();
            let mut all = Vec::new();
            while let Some(piece) = body.data().await {
                all.extend_from_slice(&piece?);
            }
            Ok::<_, h2::Error>((head.status.as_u16(), all))
        };
        loop {
            for outcome in join_all([one(), one(), one()]).await {
                match outcome {
                    Ok((200, body)) if body == b"{}" => drop(self.answered.fetch_add(1, Ordering::SeqCst)),
                    Ok(other) => self.fail(format!("{what}: {other:?}")),
                    Err(error) => self.unanswered(what, &io::Error::other(error)),
                }
            }
            if connection.is_finished() {
                return;
            }
            short_pause().await;
        }
    }
    /// A tunnel through which messages go and come back, also while the process drains.
    async fn tunnel(&self) {
        let mut stream = self.connect(Some(&self.tls)).await.expect("a connection");
        let request = "GET /ws HTTP/1.1\r\nhost: shop.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("a head is taken");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut head).await.expect("a head") > 0, "{}", String::from_utf8_lossy(&head));
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        let (mut messages, mut while_draining) = (0_u32, 0);
        // The client ends the tunnel 20 messages after the drain has begun.
        while while_draining < 20 {
            let (sent, mut got) = (messages.to_be_bytes(), [0; 4]);
            let round = async {
                stream.write_all(&sent).await?;
                stream.read_exact(&mut got).await
            };
            let round = tokio::time::timeout(WAIT_MAX, round).await.expect("in time");
            if round.is_err() || got != sent {
                return self
                    .fail(format!("a tunnel: {round:?} {got:?} after {messages}, {while_draining} in the drain"));
            }
            messages += 1;
            while_draining += u32::from(self.is_draining.load(Ordering::SeqCst));
            short_pause().await;
        }
        eprintln!("{messages} messages through the tunnel, {while_draining} of them while the process drained");
    }
}

/// Sends one request. Returns whether the connection closes after the answer; an error has the number of bytes of the
/// answer that came before it.
async fn ask(stream: &mut Box<dyn Io>) -> Result<bool, (usize, io::Error)> {
    let request = b"GET /h1 HTTP/1.1\r\nhost: shop.test\r\n\r\n";
    stream.write_all(request).await.map_err(|error| (0, error))?;
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n{}") {
        let read = tokio::time::timeout(WAIT_MAX, stream.read_buf(&mut seen)).await.expect("in time");
        match read {
            Ok(0) => return Err((seen.len(), io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err((seen.len(), error)),
        }
    }
    let text = String::from_utf8_lossy(&seen).to_ascii_lowercase();
    match text.starts_with("http/1.1 200 ") {
        true => Ok(text.contains("\r\nconnection: close\r\n")),
        false => Err((seen.len(), io::Error::other(text))),
    }
}

fn config(authority: &Authority, protocol: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("a certificate")).expect("an issuer");
    let builder = ClientConfig::builder_with_provider(crypto()).with_safe_default_protocol_versions();
    let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

fn put(flags: &FlagsDir, issued: &Issued) {
    flags.write("shop.key", &issued.key);
    flags.write("shop.pem", &issued.cert);
}

/// The certificate that a new connection gets.
async fn served(load: &Load) -> CertificateDer<'static> {
    let stream = TcpStream::connect(load.secure).await.expect("a connection");
    let name = ServerName::try_from(NAME).expect("a name");
    let stream = TlsConnector::from(load.tls.clone()).connect(name, stream).await.expect("a handshake");
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_certificates_change_and_the_process_drains() {
    let (service, authority) = (Service::start().await, Authority::new("Test"));
    let flags = FlagsDir::passthrough(&format!("http://{}", service.address));
    flags.edit("pointsman.yaml", |text| {
        let tls = "tls: { certificates: [{ cert: shop.pem, key: shop.key }] }";
        format!("listen:\n  - 127.0.0.1:0\n  - address: 127.0.0.1:0\n    {tls}\n{text}")
    });
    put(&flags, &authority.issue_for(NAME));
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let started = Pointsman::try_start_with_own_listeners(&start).await;
    let mut pointsman = started.unwrap_or_else(|log| panic!("it did not start:\n{log}"));
    let load = Load {
        plain: pointsman.listeners[0],
        secure: pointsman.listeners[1],
        tls: config(&authority, b"http/1.1"),
        tls_http2: config(&authority, b"h2"),
        is_draining: AtomicBool::new(false),
        answered: AtomicUsize::new(0),
        failures: Mutex::default(),
    };
    let clients = async {
        let kinds = [(false, false), (false, true), (true, false), (true, true)];
        let http1 = join_all(kinds.repeat(CLIENTS).into_iter().map(|(tls, alive)| load.http1(tls, alive)));
        tokio::join!(http1, join_all((0..CLIENTS).map(|_| load.http2())), load.tunnel());
    };
    let rotating = async {
        let mut refused = 0;
        for _ in 0..ROTATIONS {
            let before = load.answered.load(Ordering::SeqCst);
            let next = authority.issue_for(NAME);
            flags.write("shop.pem", &next.cert);
            // A certificate that does not belong to the key: the old pair stays in use.
            let reply = pointsman.api(Method::POST, "/api/v2/reload", json!({})).await;
            refused += u32::from(reply.status == 422);
            put(&flags, &next);
            until("the files to be read", || async {
                let reply = pointsman.api(Method::POST, "/api/v2/reload", json!({})).await;
                (reply.status == 200).then_some(())
            })
            .await;
            let expected = CertificateDer::from_pem_slice(next.cert.as_bytes()).expect("a certificate");
            assert!(served(&load).await == expected, "a new connection gets the new certificate");
            until_true("requests", || load.answered.load(Ordering::SeqCst) >= before + 30).await;
        }
        let answered = load.answered.load(Ordering::SeqCst);
        load.is_draining.store(true, Ordering::SeqCst);
        pointsman.terminate();
        (answered, refused)
    };
    let ((), (before_drain, refused)) = tokio::join!(clients, rotating);
    assert_eq!(pointsman.wait_for_exit().await, Some(0), "{}", pointsman.log());
    let (answered, failures) = (load.answered.into_inner(), load.failures.into_inner().expect("unpoisoned"));
    let reached = service.requests.load(Ordering::SeqCst);
    eprintln!(
        "{ROTATIONS} certificates, {refused} pairs that do not match refused, {before_drain} answers, {} more while it \
         drained, {} failures",
        answered - before_drain,
        failures.len()
    );
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(reached, answered, "what reached the service was answered");
}
