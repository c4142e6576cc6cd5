//! HTTP/2 towards clients: what legacy gets, what the client gets, and that arms are chosen as for HTTP/1.1.

use std::io::{Read, Write};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};

use super::http2_client::{Http2Client, PREFACE, fields_for, frame, request, send_all, whole};
use super::rig::{Fakes, OK, Origin, Rig, Setup, engine_says, get, post};
use super::wire::bounded;
use crate::exchange::ComparisonOutcome;
use crate::flag::State;
use crate::limits::Limits;

#[tokio::test]
async fn requests_are_answered_and_legacy_gets_http1() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = Http2Client::new(&rig).await;
    let reply = client.get("/a/../b?x=%2F").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "{\"id\":\"o-17\"}"));
    assert_eq!(reply.field("content-length"), Some("13"));
    assert!(reply.field("date").is_some() && reply.field("connection").is_none());
    let reply = client.post("/things", "{}").await;
    assert_eq!(reply.status, 200);
    let requests = origin.requests();
    assert_eq!(requests[0].line(), "GET /a/../b?x=%2F HTTP/1.1");
    assert_eq!(requests[0].fields("host"), ["shop.test"]);
    assert_eq!(requests[0].field("x-forwarded-proto"), Some("http"));
    assert_eq!((requests[1].line(), requests[1].text().as_str()), ("POST /things HTTP/1.1", "{}"));
    assert_eq!(requests[1].field("transfer-encoding"), Some("chunked"));
}

#[tokio::test]
async fn a_declared_length_is_kept() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut post = request(Method::POST, "/things");
    post.headers_mut().insert("content-length", HeaderValue::from_static("5"));
    assert_eq!(Http2Client::new(&rig).await.ask(post, "hello").await.status, 200);
    let request = origin.only_request();
    assert_eq!((request.fields("content-length"), request.field("transfer-encoding")), (vec!["5"], None));
}

/// `ask` sends END_STREAM in a frame of its own. Here that frame never comes.
#[tokio::test]
async fn a_body_of_the_declared_length_is_whole_before_the_stream_ends() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { body_idle_ms: 200, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { limits, ..Setup::default() }).await;
    let mut client = Http2Client::new(&rig).await;
    for length in ["5", "0"] {
        let mut post = request(Method::POST, "/things");
        post.headers_mut().insert("content-length", HeaderValue::from_static(length));
        let (pending, mut send) = client.begin(post).await;
        send_all(&mut send, Bytes::from_static(&b"hello"[..length.parse().unwrap()])).await.unwrap();
        assert_eq!(pending.reply().await.status, 200, "{length}");
    }
    assert_eq!(*origin.connections.lock().unwrap(), 1, "legacy's connection is used again");
}

#[tokio::test]
async fn large_bodies_pass_both_ways_as_the_windows_allow() {
    const LARGE: usize = 5 << 20;
    let origin = Origin::script(|mut wire, _| async move {
        while let Some(request) = wire.message(true).await {
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len())).await;
            wire.send(&request.body).await;
        }
    })
    .await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let body: Bytes = (0..LARGE).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
    let reply = Http2Client::new(&rig).await.ask(request(Method::PUT, "/echo"), body.clone()).await;
    assert_eq!((reply.status, reply.body.len()), (200, LARGE));
    assert!(reply.body == body, "the same bytes");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    const REPLY: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\
                         Trailer: grpc-status\r\n\r\n2\r\nok\r\n0\r\nGrpc-Status: 0\r\nContent-Length: 99\r\n\
                         Set-Cookie: a=b\r\n\r\n";
    let origin = Origin::always_answers(REPLY).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = Http2Client::new(&rig).await;
    let mut post = request(Method::POST, "/Greeter/SayHello");
    post.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    post.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
    let (pending, mut send) = client.begin(post).await;
    send_all(&mut send, "abc".into()).await.unwrap();
    let trailers: HeaderMap = [("x-sum".parse().unwrap(), HeaderValue::from_static("17"))].into_iter().collect();
    send.send_trailers(trailers).unwrap();
    let reply = pending.reply().await;
    assert_eq!((reply.text().as_str(), reply.trailers["grpc-status"].to_str().unwrap()), ("ok", "0"));
    assert_eq!(reply.trailers.len(), 1, "no framing and no cookie: {:?}", reply.trailers);
    assert!(reply.field("transfer-encoding").is_none(), "{:?}", reply.headers);
    let seen = origin.only_request();
    assert_eq!((seen.text().as_str(), seen.field("te")), ("abc", Some("trailers")));
    assert_eq!(seen.trailers.to_ascii_lowercase(), "x-sum: 17\r\n");
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    for (method, reply, length) in [
        (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n", Some("13")),
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n", None),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 13\r\n\r\n", Some("13")),
        (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Some("0")),
    ] {
        let origin = Origin::script(move |mut wire, _| async move {
            while wire.message(false).await.is_some() {
                wire.send(reply).await;
            }
        })
        .await;
        let rig = Rig::new(&origin, Setup::default()).await;
        let mut client = Http2Client::new(&rig).await;
        for _ in 0..2 {
            let (pending, _) = client.begin_get_with(method.clone(), "/x").await;
            let response = pending.head().await.unwrap();
            assert!(response.body().is_end_stream(), "{reply}");
            assert_eq!(response.headers().get("content-length").map(|value| value.to_str().unwrap()), length);
        }
        assert_eq!(*origin.connections.lock().unwrap(), 1, "legacy's connection is used again: {reply}");
    }
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_when_the_body_is_wanted() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = Http2Client::new(&rig).await;
    let mut post = request(Method::POST, "/things");
    post.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
    let (mut pending, mut send) = client.begin(post).await;
    assert_eq!(pending.interim().await, 100);
    send.send_data("late".into(), true).unwrap();
    assert_eq!(pending.reply().await.status, 200);
    let seen = origin.only_request();
    assert_eq!((seen.text().as_str(), seen.field("expect")), ("late", None));
}

#[tokio::test]
async fn ambiguous_heads_are_refused_and_the_connection_goes_on() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { head_fields_max: 20, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { limits, ..Setup::default() }).await;
    let mut client = Http2Client::new(&rig).await;
    let with = |method: Method, path: &str, name: &'static str, value: &str| {
        let mut request = request(method, path);
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    let mut many = request(Method::GET, "/");
    for _ in 0..25 {
        many.headers_mut().append("x-many", HeaderValue::from_static("1"));
    }
    let connect = http::Request::builder().method(Method::CONNECT).uri("shop.test:443").body(()).unwrap();
    let other_scheme = http::Request::builder().uri("ftp://shop.test/").body(()).unwrap();
    for (request, status) in [
        (with(Method::GET, "/", "host", "other.test"), 400),
        (with(Method::GET, "/", "content_length", "3"), 400),
        (with(Method::GET, "/", "expect", "miracles"), 417),
        (other_scheme, 400),
        (many, 431),
        (connect, 501),
    ] {
        let said = format!("{request:?}");
        let (pending, _send) = client.begin(request).await;
        let reply = pending.reply().await;
        assert_eq!(reply.status, status, "{said}");
        assert_eq!(reply.field("x-pointsman-source"), Some("proxy"));
    }
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn a_head_that_is_too_large_gets_a_431() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { head_bytes_max: 8 << 10, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { limits, ..Setup::default() }).await;
    let mut client = Http2Client::new(&rig).await;
    let mut large = request(Method::GET, "/");
    large.headers_mut().insert("x-large", "x".repeat(9 << 10).parse().unwrap());
    let (pending, _) = client.begin(large).await;
    assert_eq!(pending.head().await.unwrap().status(), 431);
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn the_parts_of_a_cookie_are_one_field_for_legacy() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut get = request(Method::GET, "/");
    for crumb in ["a=1", "b=2"] {
        get.headers_mut().append("cookie", HeaderValue::from_static(crumb));
    }
    Http2Client::new(&rig).await.ask(get, "").await;
    assert_eq!(origin.only_request().fields("cookie"), ["a=1; b=2"]);
}

#[tokio::test]
async fn the_engine_answers_in_live_and_the_key_keeps_a_retry_on_its_arm() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup { state: State::Live, ..Setup::default() }).await;
    rig.fakes.answers.lock().unwrap().extend([engine_says("{\"id\":\"e-1\"}"), engine_says("{\"id\":\"e-1\"}")]);
    let mut keyed = request(Method::POST, "/orders");
    keyed.headers_mut().insert("idempotency-key", HeaderValue::from_static("k-1"));
    let reply = Http2Client::new(&rig).await.ask(keyed, "{}").await;
    assert_eq!((reply.status, reply.text().as_str()), (201, "{\"id\":\"e-1\"}"));
    let retry = "POST /orders HTTP/1.1\r\nHost: shop.test\r\nIdempotency-Key: k-1\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(rig.ask(retry).await.status(), 201);
    let asked = rig.fakes.asked.lock().unwrap();
    let keys = |index: usize| asked[index].retry_keys.expect("a key");
    assert_eq!(keys(0), keys(1), "the same key over both protocols");
    assert_eq!(asked[0].request.body, "{}");
    assert!(origin.requests().is_empty());
}

/// The client has sent GOAWAY, and closes as soon as it has the last byte of its answer, which may be in the same poll
/// of the connection that has written this byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_ends_its_connection_is_complete() {
    const RUNS: usize = 60;
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup { state: State::Shadow, ..Setup::default() }).await;
    let address = rig.address;
    let clients = tokio::task::spawn_blocking(move || {
        let (end_stream, end_headers) = (1, 4);
        let request = frame(1, end_stream | end_headers, 1, &fields_for("GET", "/plain"));
        let all = [PREFACE, &request, &frame(7, 0, 0, &[0; 8])].concat();
        for _ in 0..RUNS {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            client.set_nodelay(true).unwrap();
            client.write_all(&all).unwrap();
            loop {
                let mut head = [0; 9];
                client.read_exact(&mut head).unwrap();
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                client.read_exact(&mut vec![0; length]).unwrap();
                let (kind, flags, stream) = (head[3], head[4], head[8]);
                if kind <= 1 && flags & end_stream != 0 && stream == 1 {
                    break;
                }
            }
        }
    });
    bounded("the clients", clients).await.unwrap();
    let outcomes = |fakes: &Fakes| {
        let outcomes = fakes.outcomes.lock().unwrap();
        (outcomes.len() == RUNS).then(|| outcomes.clone())
    };
    let outcomes = rig.fakes.until("all outcomes", outcomes).await;
    let matched = outcomes.iter().filter(|outcome| **outcome == ComparisonOutcome::Matched).count();
    assert_eq!(matched, RUNS, "{outcomes:?}");
}

#[tokio::test]
async fn a_reply_of_legacy_is_compared_once() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup { state: State::Shadow, ..Setup::default() }).await;
    assert_eq!(Http2Client::new(&rig).await.post("/orders", "{\"items\":[1]}").await.status, 200);
    assert_eq!(rig.fakes.outcome().await, ComparisonOutcome::Matched);
    let offered = rig.fakes.offered.lock().unwrap();
    assert_eq!(offered[0].request.body, "{\"items\":[1]}");
}

#[tokio::test]
async fn both_protocols_share_a_listener_and_http1_is_not_delayed() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut http1 = rig.connect().await;
    // Each request begins with the same bytes as the preface of HTTP/2.
    for part in ["P", "RI", " * HT"] {
        http1.send(part).await;
        tokio::task::yield_now().await;
    }
    drop(http1);
    let mut http1 = rig.connect().await;
    http1.send("P").await;
    http1.send(&post("/x", "{}")[1..]).await;
    assert_eq!(http1.reply().await.status(), 200);
    assert_eq!(http1.ask(&get("/y")).await.status(), 200);
    assert_eq!(Http2Client::new(&rig).await.get("/z").await.status, 200);
}

#[tokio::test]
async fn a_listener_without_http2_does_not_speak_it() {
    let origin = Origin::always_answers(OK).await;
    let plain = crate::listener::Listener::plain("127.0.0.1:0".parse().unwrap());
    let listeners = vec![crate::listener::Listener { http2: false, ..plain }];
    let rig = Rig::new(&origin, Setup { listeners, ..Setup::default() }).await;
    let mut wire = rig.connect().await;
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let answer = String::from_utf8(wire.rest().await).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 "), "{answer}");
    assert_eq!(rig.ask(&get("/")).await.status(), 200);
}

#[tokio::test]
async fn a_reply_that_legacy_breaks_off_resets_its_stream_only() {
    let origin = Origin::script(|mut wire, _| async move {
        while let Some(request) = wire.message(true).await {
            match request.line().contains("/cut") {
                true => return wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await,
                false => wire.send(OK).await,
            }
        }
    })
    .await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = Http2Client::new(&rig).await;
    let response = client.begin_get("/cut").await.0.head().await.unwrap();
    let error = whole(response).await.expect_err("it is cut");
    assert!(error.is_reset() && error.reason() == Some(h2::Reason::INTERNAL_ERROR), "{error}");
    assert_eq!(client.get("/whole").await.status, 200);
}
