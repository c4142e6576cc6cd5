//! Connections to servers that close them, send incomplete replies, or do not answer.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::harness::TIMEOUT;
use crate::engine::ports::connections::{ConnectionPool, ReusePolicy};
use crate::engine::ports::destination::Destination;
use crate::engine::ports::pooled_connection::{ExchangeError, Exchanged, PooledConnection, to_origin_form};
use crate::engine::ports::protocol::Protocol;
use crate::flag::Service;
use crate::limits::Limits;
use crate::transport::{AddressRegistry, ConnectError, ServiceAddresses, TrafficClass};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Reads a request's head and body; `None` where the client has closed the connection.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"ping") {
        let mut byte = [0; 1];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            return None;
        }
        text.push(byte[0]);
    }
    Some(String::from_utf8(text).unwrap())
}

struct TestClient {
    uri: Uri,
    addresses: std::sync::Arc<ServiceAddresses>,
    pool: std::sync::Arc<ConnectionPool>,
}

impl TestClient {
    async fn of(listener: &TcpListener, idle_max: usize, idle_for: Duration) -> Self {
        let ms = idle_for.as_millis() as u64;
        let limits = Limits {
            service_idle_connections_max: idle_max as u64,
            service_idle_ms: ms,
            service_unrepeatable_idle_ms: ms,
            ..Limits::default()
        };
        Self::with_limits(listener, &limits)
    }
    fn with_limits(listener: &TcpListener, limits: &Limits) -> Self {
        let uri: Uri = format!("http://{}/a/b?c=d", listener.local_addr().unwrap()).parse().unwrap();
        let addresses = AddressRegistry::new().of(&Service::at("bank", [uri.clone()]), limits);
        Self { uri, addresses, pool: ConnectionPool::new(limits) }
    }
    async fn take(&self) -> PooledConnection {
        self.take_for(ReusePolicy::Any).await.unwrap()
    }
    async fn take_for(&self, reuse: ReusePolicy) -> Result<PooledConnection, ConnectError> {
        let in_flight = self.addresses.choose(&[], true, TrafficClass::Real).unwrap();
        let protocol = &Protocol::default();
        let destination = Destination { protocol, in_flight: &in_flight, uri: &self.uri };
        self.pool.take(&destination, reuse).await
    }
    async fn exchange(
        &self,
        connection: &mut PooledConnection,
        bytes_max: usize,
        within: Duration,
    ) -> Result<Exchanged, ExchangeError> {
        let mut request = Request::post(self.uri.clone()).body(Full::new(Bytes::from("ping"))).unwrap();
        to_origin_form(&mut request, &Protocol::default());
        let deadline = Instant::now() + within;
        let reply = connection.exchange(request, bytes_max, deadline, deadline, |_, _| false);
        timeout(TIMEOUT, reply).await.unwrap().map_err(|(error, _)| error)
    }
    /// One successful exchange; returns whether its connection was reused.
    async fn succeed(&self) -> bool {
        let mut connection = self.take().await;
        let reused = connection.reused;
        let Ok(Exchanged::Whole((head, body))) = self.exchange(&mut connection, 99, TIMEOUT).await else {
            panic!("no whole reply")
        };
        assert_eq!((head.status.as_u16(), body.unwrap()), (200, Bytes::from("ok")));
        self.pool.give_back(connection).await;
        reused
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn a_reply_whose_head_is_larger_than_the_bound_fails() {
    for (field_bytes, is_whole) in [(8_000, true), (9_000, false)] {
        let listener = listener().await;
        let client = TestClient::with_limits(&listener, &Limits { head_bytes_max: 8_192, ..Limits::default() });
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await.unwrap();
            let reply = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 2\r\n\r\nok", "a".repeat(field_bytes));
            let _ = stream.write_all(reply.as_bytes()).await; // fails if the client has closed
        });
        let mut connection = client.take().await;
        let exchanged = client.exchange(&mut connection, 99, TIMEOUT).await;
        assert_eq!(matches!(exchanged, Ok(Exchanged::Whole(_))), is_whole, "{field_bytes} bytes");
        assert!(is_whole || matches!(exchanged, Err(ExchangeError::CutOff(_))));
        server.await.unwrap();
    }
}

/// The host name is resolved again for the new connection.
#[tokio::test]
async fn a_connection_that_has_reached_its_maximum_age_is_replaced() {
    let listener = listener().await;
    let client = TestClient::with_limits(&listener, &Limits { service_connection_age_ms: 200, ..Limits::default() });
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            while read_request(&mut stream).await.is_some() {
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        }
    });
    let opened = Instant::now();
    assert!(!client.succeed().await);
    let replaced = async { while client.succeed().await {} };
    timeout(TIMEOUT, replaced).await.expect("a new connection");
    assert!(opened.elapsed() >= Duration::from_millis(180), "it is kept for nine tenths of its maximum age");
    server.abort();
}

/// The age is also checked when a connection is taken from the pool: it may have been idle since it was returned.
#[tokio::test]
async fn an_idle_connection_that_has_become_too_old_carries_no_further_request() {
    // The first pause is shorter than the sweeper's interval of five seconds, and the second is longer.
    for (pause, is_swept) in [(Duration::from_secs(2), false), (Duration::from_secs(6), true)] {
        let listener = listener().await;
        let limits =
            Limits { service_connection_age_ms: 1_000, service_unrepeatable_idle_ms: 60_000, ..Limits::default() };
        let client = TestClient::with_limits(&listener, &limits);
        let (closed_sender, closed) = tokio::sync::oneshot::channel();
        let server = tokio::spawn(async move {
            let (mut first, _) = listener.accept().await.unwrap();
            read_request(&mut first).await.unwrap();
            first.write_all(OK.as_bytes()).await.unwrap();
            let further = read_request(&mut first).await;
            closed_sender.send(()).unwrap();
            assert_eq!(further, None, "closed without a further request");
            let (mut second, _) = listener.accept().await.unwrap();
            read_request(&mut second).await.unwrap();
            second.write_all(OK.as_bytes()).await.unwrap();
        });
        client.succeed().await;
        tokio::task::yield_now().await; // the sweeper begins to wait
        tokio::time::pause();
        tokio::time::advance(pause).await;
        tokio::time::resume();
        if is_swept {
            timeout(TIMEOUT, closed).await.expect("the sweeper closes it").unwrap();
        }
        assert!(!client.succeed().await, "a new connection");
        timeout(TIMEOUT, server).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_connection_is_reused_and_requests_name_the_host() {
    let listener = listener().await;
    let client = TestClient::of(&listener, 9, TIMEOUT).await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heads = Vec::new();
        while let Some(head) = read_request(&mut stream).await {
            heads.push(head);
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
        (heads, listener)
    });
    assert!(!client.succeed().await);
    assert!(client.succeed().await);
    let host = client.uri.authority().unwrap().to_string();
    drop(client);
    let (heads, _) = timeout(TIMEOUT, server).await.unwrap().unwrap();
    assert_eq!(heads.len(), 2, "both requests came over one connection, which the client then closed");
    assert!(heads.iter().all(|head| head.starts_with("POST /a/b?c=d HTTP/1.1\r\n")), "{heads:?}");
    assert!(heads.iter().all(|head| head.contains(&format!("host: {host}\r\n"))), "{heads:?}");
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_not_reused() {
    let listener = listener().await;
    let client = TestClient::of(&listener, 9, TIMEOUT).await;
    let server = tokio::spawn(async move {
        for _ in 0..20 {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await.unwrap();
            // Closes the connection without announcing it.
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    });
    for _ in 0..20 {
        // The close is detected as soon as the kernel reports it.
        let fresh = async {
            loop {
                let connection = client.take().await;
                if !connection.reused {
                    break connection;
                }
                client.pool.give_back(connection).await;
                tokio::task::yield_now().await;
            }
        };
        let mut connection = timeout(TIMEOUT, fresh).await.unwrap();
        let Ok(Exchanged::Whole(_)) = client.exchange(&mut connection, 99, TIMEOUT).await else {
            panic!("no whole reply")
        };
        client.pool.give_back(connection).await;
    }
    timeout(TIMEOUT, server).await.unwrap().unwrap();
}

/// Answers this many requests on each connection, then closes the connection without announcing it. Returns the number
/// of connections.
async fn serve(listener: TcpListener, each: usize) -> usize {
    let mut connections = 0;
    while let Ok(Ok((mut stream, _))) = timeout(Duration::from_millis(500), listener.accept()).await {
        connections += 1;
        tokio::spawn(async move {
            for _ in 0..each {
                if read_request(&mut stream).await.is_none() {
                    return;
                }
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        });
    }
    connections
}

/// Sends a call that must not be repeated; returns whether its connection was reused.
async fn unrepeatable_call(client: &TestClient) -> bool {
    let mut connection = client.take_for(ReusePolicy::Recent).await.unwrap();
    let reused = connection.reused;
    let Ok(Exchanged::Whole(_)) = client.exchange(&mut connection, 99, TIMEOUT).await else { panic!("no whole reply") };
    client.pool.give_back(connection).await;
    reused
}

#[tokio::test]
async fn unrepeatable_calls_reuse_connections_once_the_server_is_known_to_keep_them_open() {
    let listener = listener().await;
    let client = TestClient::of(&listener, 9, TIMEOUT).await;
    let server = tokio::spawn(serve(listener, usize::MAX));
    assert!(!unrepeatable_call(&client).await, "nothing is known of the server");
    let trusted = async { while !unrepeatable_call(&client).await {} };
    timeout(TIMEOUT, trusted).await.unwrap();
    for _ in 0..20 {
        assert!(unrepeatable_call(&client).await);
    }
    drop(client);
    server.await.unwrap();
}

#[tokio::test]
async fn a_server_that_closes_unannounced_gets_a_new_connection_for_each_unrepeatable_call() {
    let listener = listener().await;
    let client = TestClient::of(&listener, 9, TIMEOUT).await;
    let server = tokio::spawn(serve(listener, 1));
    for _ in 0..200 {
        assert!(!unrepeatable_call(&client).await);
    }
    drop(client);
    assert_eq!(server.await.unwrap(), 200);
}

#[tokio::test]
async fn a_connection_that_is_idle_for_too_long_is_closed() {
    let listener = listener().await;
    let client = TestClient::of(&listener, 9, Duration::from_millis(30)).await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        assert_eq!(read_request(&mut stream).await, None, "closed without a further request");
    });
    client.succeed().await;
    timeout(TIMEOUT, server).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_status_without_content_may_declare_the_length_of_another_reply() {
    let listener = listener().await;
    let client = TestClient::of(&listener, 9, TIMEOUT).await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n").await.unwrap();
        assert_eq!(read_request(&mut stream).await, None);
    });
    let mut connection = client.take().await;
    let Ok(Exchanged::Whole((head, body))) = client.exchange(&mut connection, 99, TIMEOUT).await else {
        panic!("no reply")
    };
    assert_eq!((head.status.as_u16(), body.unwrap().len()), (304, 0));
    drop((connection, client));
    timeout(TIMEOUT, server).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_incomplete_reply_is_cut_off_and_a_body_that_is_too_large_is_an_error() {
    let listener = listener().await;
    let client = TestClient::of(&listener, 9, TIMEOUT).await;
    let server = tokio::spawn(async move {
        let replies = ["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "HTTP/1.1 2", "", OK];
        for reply in replies {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await.unwrap();
            stream.write_all(reply.as_bytes()).await.unwrap();
            if reply == OK {
                assert_eq!(read_request(&mut stream).await, None);
            }
        }
    });
    for _ in 0..3 {
        let mut connection = client.take().await;
        let error = client.exchange(&mut connection, 99, TIMEOUT).await.err();
        assert!(matches!(error, Some(ExchangeError::CutOff(_))), "{error:?}");
    }
    let mut connection = client.take().await;
    let Ok(Exchanged::Whole((_, body))) = client.exchange(&mut connection, 1, TIMEOUT).await else {
        panic!("no reply")
    };
    assert_eq!(body.unwrap_err().len(), 1, "the first bytes");
    client.pool.give_back(connection).await;
    drop(client);
    timeout(TIMEOUT, server).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_exchange_with_a_silent_server_times_out() {
    let listener = listener().await;
    let client = TestClient::of(&listener, 9, TIMEOUT).await;
    let server = tokio::spawn(async move {
        let (mut silent, _) = listener.accept().await.unwrap();
        read_request(&mut silent).await.unwrap();
        let (mut slow, _) = listener.accept().await.unwrap();
        read_request(&mut slow).await.unwrap();
        slow.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
        assert_eq!(
            (read_request(&mut silent).await, read_request(&mut slow).await),
            (None, None),
            "the client closes both after its timeout"
        );
    });
    let within = Duration::from_millis(40);
    let mut connection = client.take().await;
    assert!(matches!(client.exchange(&mut connection, 99, within).await, Ok(Exchanged::HeadTimedOut)));
    drop(connection);
    let mut connection = client.take().await;
    assert!(!connection.reused);
    assert!(matches!(client.exchange(&mut connection, 99, within).await, Ok(Exchanged::BodyTimedOut)));
    drop(connection);
    timeout(TIMEOUT, server).await.unwrap().unwrap();
}

#[tokio::test]
async fn nothing_is_sent_where_no_server_listens() {
    let listener = listener().await;
    let client = TestClient::of(&listener, 9, TIMEOUT).await;
    drop(listener);
    let refused = client.take_for(ReusePolicy::Any).await.err().unwrap().to_string();
    assert!(refused.contains("refused"), "{refused}");
}
