//! Services that calls of steps reach over TLS and HTTP/2.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::harness::TIMEOUT;
use crate::engine::ports::connections::{ConnectionPool, ReusePolicy};
use crate::engine::ports::destination::Destination;
use crate::engine::ports::pooled_connection::{ExchangeError, Exchanged, PooledConnection, to_origin_form};
use crate::engine::ports::protocol::Protocol;
use crate::flag::{HttpVersion, Service, ServiceTls};
use crate::limits::Limits;
use crate::listener::test_certificates::{Authority, Subject};
use crate::listener::{Certificate, ServerTls, TlsParts, crypto};
use crate::transport::{AddressRegistry, ClientTls, ServiceAddresses, TrafficClass};

fn trusting(issuer: &Authority) -> ServiceTls {
    let trusted = vec![CertificateDer::from_pem_slice(issuer.pem().as_bytes()).unwrap()];
    let (config, _) = ClientTls { trusted, own: None, only_tls13: false }.config(crypto()).unwrap();
    ServiceTls::new(config, None, [0; 32])
}

/// Starts a server that speaks HTTP/2 and has a certificate of this issuer. Returns its address, the requests that it
/// got, and the number of its connections.
async fn serve(issuer: &Authority) -> (SocketAddr, Arc<Mutex<Vec<String>>>, Arc<AtomicUsize>) {
    let issued = issuer.issue(&Subject { names: &["127.0.0.1"], ..Subject::default() });
    let certificates = vec![Certificate::read(issued.cert.as_bytes(), issued.key.as_bytes(), &crypto()).unwrap()];
    let parts = TlsParts { certificates, only_tls13: false, clients: None, http2: true, digest: [0; 32] };
    let mut config = rustls::ServerConfig::clone(&ServerTls::new(parts, crypto()).unwrap().config());
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    let (seen, connections) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicUsize>::default());
    let (requests, count) = (seen.clone(), connections.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, SeqCst);
            let (accepting, requests) = (acceptor.accept(stream), requests.clone());
            tokio::spawn(async move {
                let Ok(stream) = accepting.await else { return };
                let service = service_fn(move |request: Request<Incoming>| {
                    requests.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
                    async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("ok")))) }
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, seen, connections)
}

struct TestClient {
    protocol: Protocol,
    uri: Uri,
    addresses: Arc<ServiceAddresses>,
    pool: Arc<ConnectionPool>,
}

impl TestClient {
    fn new(url: String, http: HttpVersion, tls: Option<ServiceTls>) -> Self {
        let service = Service { tls, http, ..Service::at("bank", [url.parse().unwrap()]) };
        let uri = format!("{url}/pay?a=1").parse().unwrap();
        let limits = Limits { connect_ms: TIMEOUT.as_millis() as u64, ..Limits::default() };
        let addresses = AddressRegistry::new().of(&service, &limits);
        Self { protocol: Protocol::of(&service), uri, addresses, pool: ConnectionPool::new(&limits) }
    }
    /// A connection for a request that must not be repeated.
    async fn take(&self) -> Result<PooledConnection, String> {
        let in_flight = self.addresses.choose(&[], true, TrafficClass::Real).unwrap();
        let protocol = &self.protocol;
        let destination = Destination { protocol, in_flight: &in_flight, uri: &self.uri };
        let taken = timeout(TIMEOUT, self.pool.take(&destination, ReusePolicy::Recent)).await.unwrap();
        taken.map_err(|error| error.to_string())
    }
    async fn exchange(
        &self,
        connection: &mut PooledConnection,
    ) -> Result<Exchanged, (ExchangeError, Option<Request<Full<Bytes>>>)> {
        let mut request = Request::post(self.uri.clone()).body(Full::new(Bytes::from("ping"))).unwrap();
        to_origin_form(&mut request, &self.protocol);
        let deadline = Instant::now() + TIMEOUT;
        timeout(TIMEOUT, connection.exchange(request, 99, deadline, deadline, |_, _| false)).await.unwrap()
    }
}

#[tokio::test]
async fn calls_go_over_one_connection_of_tls_and_http2() {
    let issuer = Authority::new("Test");
    let (address, seen, connections) = serve(&issuer).await;
    for http in [HttpVersion::Http2, HttpVersion::Negotiated] {
        let client = TestClient::new(format!("https://{address}"), http, Some(trusting(&issuer)));
        for number in 0..3 {
            let mut connection = client.take().await.unwrap();
            assert_eq!(connection.reused, number > 0, "also by requests that must not be repeated");
            let Ok(Exchanged::Whole((head, body))) = client.exchange(&mut connection).await else { panic!("no reply") };
            assert_eq!((head.status.as_u16(), body.unwrap()), (200, Bytes::from("ok")));
            client.pool.give_back(connection).await;
        }
    }
    assert_eq!(*seen.lock().unwrap(), vec![format!("POST https://{address}/pay?a=1"); 6]);
    assert_eq!(connections.load(SeqCst), 2);
}

#[tokio::test]
async fn a_service_that_is_not_trusted_gets_nothing() {
    let (address, seen, _) = serve(&Authority::new("Other")).await;
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let client = TestClient::new(format!("https://{address}"), http, Some(trusting(&Authority::new("Test"))));
        let why = client.take().await.err().unwrap();
        assert!(why.contains("the TLS handshake failed"), "{why}");
    }
    assert!(seen.lock().unwrap().is_empty());
}

/// Answers each request on its connection with a reset for this reason.
async fn resetting(reason: Reason) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_reset(reason);
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_refused_stream_was_not_processed_and_any_other_reset_may_have_been() {
    for (reason, is_certain) in [(Reason::REFUSED_STREAM, true), (Reason::CANCEL, false)] {
        let address = resetting(reason).await;
        let client = TestClient::new(format!("http://{address}"), HttpVersion::Http2, None);
        let mut connection = client.take().await.unwrap();
        let (error, request) = client.exchange(&mut connection).await.err().unwrap();
        assert_eq!(matches!(error, ExchangeError::NotProcessed(..)), is_certain, "{error:?}");
        assert_eq!(request.is_some(), is_certain, "it can be sent again");
    }
}

/// A part of a reply, and then a reset of its stream with NO_ERROR (RFC 9113, section 8.1), which hyper takes for its
/// end.
#[tokio::test]
async fn a_reply_whose_stream_is_reset_before_its_end_is_cut_off() {
    // `:status: 200`, without and with `content-length: 9`, as HPACK writes them.
    for head in [&[0x88][..], &[0x88, 0x0f, 0x0d, 1, b'9']] {
        check_that_a_reset_reply_is_cut_off(head).await;
    }
}

async fn check_that_a_reset_reply_is_cut_off(head: &[u8]) {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream][..], payload].concat()
    };
    let [settings, head] = [frame(4, 0, 0, &[]), frame(1, 4, 1, head)];
    let [data, reset] = [frame(0, 0, 1, b"hello"), frame(3, 0, 1, &[0; 4])];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TestClient::new(format!("http://{}", listener.local_addr().unwrap()), HttpVersion::Http2, None);
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&settings).await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"ping") {
            seen.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(&[head, data, reset].concat()).await.unwrap();
        stream
    });
    let mut connection = client.take().await.unwrap();
    let (error, _) = client.exchange(&mut connection).await.err().expect("five bytes of a cut stream are no reply");
    assert!(matches!(&error, ExchangeError::CutOff(why) if why.contains("reset the stream")), "{error:?}");
    drop(server.await.unwrap());
}
