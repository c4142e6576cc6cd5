//! What a client and an origin see of each other through the proxy.

use super::rig::{OK, Origin, Rig, Setup, get, post};
use super::wire::bounded;
use crate::listener::{ForwardedTrust, Forwarding};

#[tokio::test]
async fn a_request_is_forwarded_unchanged() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let reply = rig.ask("POST /anything/%41?q=1&q=%20 HTTP/1.1\r\nHost: Shop.Test:81\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.text(), "{\"id\":\"o-17\"}");
    assert_eq!(reply.field("content-length"), Some("13"));
    let seen = origin.only_request();
    assert_eq!(seen.line(), "POST /anything/%41?q=1&q=%20 HTTP/1.1");
    assert_eq!(seen.fields("host"), ["Shop.Test:81"]);
    assert_eq!(seen.fields("x-a"), ["1", "2"]);
    assert_eq!(seen.fields("content-length"), ["3"]);
    assert_eq!(seen.text(), "abc");
}

#[tokio::test]
async fn hop_by_hop_fields_are_removed() {
    let origin = Origin::always_answers(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Secret\r\nX-Secret: s\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nX-Kept: k\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let reply = rig
        .ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: p\r\nTE: gzip\r\nX-End: 2\r\n\r\n")
        .await;
    let seen = origin.only_request();
    for gone in ["connection", "x-hop", "keep-alive", "proxy-connection", "proxy-authorization", "te"] {
        assert_eq!(seen.field(gone), None, "{gone}");
    }
    assert_eq!(seen.field("x-end"), Some("2"));
    for gone in ["connection", "x-secret", "keep-alive", "proxy-connection"] {
        assert_eq!(reply.field(gone), None, "{gone}");
    }
    assert_eq!(reply.field("x-kept"), Some("k"));
    assert_eq!(reply.fields("via"), ["1.1 pointsman"]);
    assert_eq!(seen.fields("via"), ["1.1 pointsman"]);
}

#[tokio::test]
async fn a_reply_whose_connection_field_names_its_framing_keeps_it() {
    let origin =
        Origin::always_answers("HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 2\r\n\r\nok").await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let reply = rig.ask(&get("/")).await;
    assert_eq!((reply.field("content-length"), reply.text().as_str()), (Some("2"), "ok"));
}

#[tokio::test]
async fn forwarded_fields_are_replaced_unless_trusted() {
    let origin = Origin::always_answers(OK).await;
    let forged = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\n\r\n";
    let rig = Rig::new(&origin, Setup::default()).await;
    rig.ask(forged).await;
    let forwarding = Forwarding { trust: ForwardedTrust::Everybody, ..Forwarding::default() };
    let trusting = Rig::new(&origin, Setup { forwarding, ..Setup::default() }).await;
    trusting.ask(forged).await;
    let [strict, trusted] = &origin.requests()[..] else { panic!("two requests") };
    assert_eq!(strict.fields("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(strict.fields("x-forwarded-proto"), ["http"]);
    assert_eq!(strict.fields("x-forwarded-host"), ["a.test"]);
    assert_eq!(strict.field("forwarded"), None);
    assert_eq!(trusted.fields("x-forwarded-for"), ["6.6.6.6, 7.7.7.7, 127.0.0.1"]);
    assert_eq!(trusted.fields("x-forwarded-proto"), ["https"]);
    assert_eq!(trusted.fields("x-forwarded-host"), ["evil"]);
}

#[tokio::test]
async fn a_traceparent_is_added_only_where_there_is_none() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    rig.ask(&get("/")).await;
    rig.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\ntraceparent: {given}\r\n\r\n")).await;
    rig.ask("GET / HTTP/1.1\r\nHost: a\r\ntraceparent: nonsense\r\n\r\n").await;
    let traces: Vec<String> =
        origin.requests().iter().map(|r| r.field("traceparent").unwrap_or_default().to_owned()).collect();
    assert_eq!(traces[0].len(), 55);
    assert_eq!(traces[1], given);
    assert_eq!(traces[2].len(), 55);
}

#[tokio::test]
async fn trailers_are_forwarded_both_ways() {
    let origin = Origin::always_answers(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
    )
    .await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let reply = rig
        .ask("POST /t HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Up\r\n\r\n3\r\nabc\r\n0\r\nX-Up: 9\r\n\r\n")
        .await;
    assert_eq!(reply.trailers.to_lowercase(), "x-sum: 7\r\n");
    let seen = origin.only_request();
    assert_eq!(seen.text(), "abc");
    assert_eq!(seen.trailers.to_lowercase(), "x-up: 9\r\n");
    assert_eq!(seen.field("te"), Some("trailers"));
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_and_legacy_gets_the_body() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = rig.connect().await;
    client.send("POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().lines().next(), Some("HTTP/1.1 100 Continue"));
    client.send("body").await;
    assert_eq!(client.reply().await.status(), 200);
    let seen = origin.only_request();
    assert_eq!((seen.text().as_str(), seen.field("expect")), ("body", None));
}

#[tokio::test]
async fn a_refused_client_is_not_asked_for_its_body() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = rig.connect().await;
    client.send("POST /e HTTP/1.1\r\nHost: a\r\nHost: b\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    let reply = client.message(true).await.unwrap();
    assert_eq!(reply.status(), 400);
    client.fin().await;
    client.ends().await;
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn replies_without_a_body_stay_without_one() {
    for (method, reply, length) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", Some("1234")),
        ("GET", "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", None),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", None),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n", Some("77")),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Some("0")),
    ] {
        let origin = Origin::always_answers(reply).await;
        let rig = Rig::new(&origin, Setup::default()).await;
        let mut client = rig.connect().await;
        for _ in 0..2 {
            client.send(format!("{method} /n HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let got = client.message(false).await.unwrap();
            assert_eq!(got.line(), reply.lines().next().unwrap());
            assert_eq!(got.field("content-length"), length, "{method} {reply}");
            assert_eq!(got.field("transfer-encoding"), None);
        }
        assert_eq!(origin.requests().len(), 2);
        assert_eq!(*origin.connections.lock().unwrap(), 1, "kept alive on both sides");
    }
}

#[tokio::test]
async fn framing_and_reason_phrases_are_kept() {
    let origin = Origin::script(|mut wire, _| async move {
        while let Some(request) = wire.message(true).await {
            let body = if request.line().contains("chunked") {
                "HTTP/1.1 299 Quite Fine\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
            } else {
                "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"
            };
            wire.send(body).await;
        }
    })
    .await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let chunked = rig.ask(&get("/chunked")).await;
    assert_eq!(chunked.line(), "HTTP/1.1 299 Quite Fine");
    assert_eq!((chunked.field("transfer-encoding"), chunked.field("content-length")), (Some("chunked"), None));
    let old = rig.ask(&get("/old")).await;
    assert_eq!(old.line(), "HTTP/1.1 200 OK", "the proxy's own HTTP version");
    assert_eq!(old.text(), "ok");
}

#[tokio::test]
async fn a_chunked_get_keeps_its_body() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    rig.ask("GET /g HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    assert_eq!(origin.only_request().text(), "abc");
}

#[tokio::test]
async fn each_event_of_a_stream_arrives_before_the_next_is_sent() {
    let origin = Origin::script(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        // Sends an event only after the client has confirmed the previous one.
        for _ in 0..3 {
            wire.send("7\r\ndata: x\r\n").await;
            wire.until("!").await.unwrap();
        }
        wire.send("0\r\n\r\n").await;
    })
    .await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = rig.connect().await;
    client.send("POST /sse HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.head().await.unwrap();
    for _ in 0..3 {
        client.until("data: x").await.unwrap();
        client.send("1\r\n!\r\n").await;
    }
    client.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await.unwrap();
}

#[tokio::test]
async fn another_protocol_is_passed_through() {
    let origin = Origin::script(|mut wire, seen| async move {
        let request = wire.message(false).await.unwrap();
        seen.lock().unwrap().push(request);
        wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nSec-X: 1\r\n\r\nhello ")
            .await;
        let ping = wire.until("\n").await.unwrap();
        wire.send(ping).await;
        let last = wire.rest().await;
        wire.send(last).await;
    })
    .await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = rig.connect().await;
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n").await;
    let switched = client.message(false).await.unwrap();
    assert_eq!(switched.status(), 101);
    assert_eq!((switched.field("upgrade"), switched.field("sec-x")), (Some("echo"), Some("1")));
    client.send("ping\n").await;
    assert_eq!(client.until("\n").await.unwrap(), "hello ping\n");
    client.send("bye").await;
    client.fin().await;
    assert_eq!(client.rest().await, b"bye", "one side closes, the other still speaks");
    assert_eq!(origin.only_request().field("upgrade"), Some("echo"));
}

#[tokio::test]
async fn an_upgrade_to_http2_is_not_forwarded() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let reply = rig
        .ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n")
        .await;
    assert_eq!(reply.status(), 200);
    let seen = origin.only_request();
    assert_eq!((seen.field("upgrade"), seen.field("connection"), seen.field("http2-settings")), (None, None, None));
}

#[tokio::test]
async fn half_closed_clients_get_their_answer() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = rig.connect().await;
    client.send(get("/half")).await;
    client.fin().await;
    assert_eq!(client.reply().await.status(), 200);
    client.ends().await;
}

#[tokio::test]
async fn a_stale_connection_is_replaced_without_the_client_seeing_it() {
    // Each connection answers once, and closes when the next request has come.
    let origin = Origin::script(|mut wire, seen| async move {
        if let Some(request) = wire.message(true).await {
            seen.lock().unwrap().push(request);
            wire.send(OK).await;
        }
        wire.message(false).await;
    })
    .await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = rig.connect().await;
    for _ in 0..5 {
        assert_eq!(client.ask(&get("/again")).await.status(), 200);
    }
    assert_eq!(origin.requests().len(), 5);
}

#[tokio::test]
async fn a_post_on_a_stale_connection_is_not_sent_twice() {
    let origin = Origin::script(|mut wire, seen| async move {
        for once in [true, false] {
            let Some(request) = wire.message(true).await else { return };
            seen.lock().unwrap().push(request);
            if once {
                wire.send(OK).await;
            }
        }
    })
    .await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = rig.connect().await;
    assert_eq!(client.ask(&post("/p", "1")).await.status(), 200);
    let reply = client.ask(&post("/p", "2")).await;
    assert_eq!(reply.status(), 502);
    assert!(reply.text().contains("could do the work twice"), "{}", reply.text());
    assert_eq!(origin.requests().len(), 2);
}

#[tokio::test]
async fn large_replies_are_not_buffered() {
    const CHUNK: usize = 64 << 10;
    const CHUNKS: usize = 2_048; // 128 MiB
    // The origin can send only as fast as the client reads: the bytes between them are bounded by buffers.
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = sent.clone();
    let origin = Origin::script(move |mut wire, _| {
        let sent = counted.clone();
        async move {
            wire.head().await;
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", CHUNK * CHUNKS)).await;
            let chunk = vec![b'x'; CHUNK];
            for _ in 0..CHUNKS {
                wire.send(&chunk).await;
                sent.fetch_add(CHUNK, std::sync::atomic::Ordering::SeqCst);
            }
        }
    })
    .await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = rig.connect().await;
    client.send(get("/big")).await;
    client.head().await.unwrap();
    let mut read = 0;
    let mut ahead_max = 0;
    while read < CHUNK * CHUNKS {
        read += bounded("a chunk", client.exactly(CHUNK.min(CHUNK * CHUNKS - read))).await.unwrap().len();
        ahead_max = ahead_max.max(sent.load(std::sync::atomic::Ordering::SeqCst).saturating_sub(read));
    }
    assert!(ahead_max < 24 << 20, "{ahead_max} bytes between origin and client");
}

#[tokio::test]
async fn large_uploads_are_not_buffered() {
    const CHUNK: usize = 64 << 10;
    const CHUNKS: usize = 1_024; // 64 MiB
    // The client can send only as fast as the origin reads: the bytes between them are bounded by buffers.
    let taken = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = taken.clone();
    let origin = Origin::script(move |mut wire, _| {
        let taken = counted.clone();
        async move {
            wire.head().await;
            for _ in 0..CHUNKS {
                wire.exactly(CHUNK).await.unwrap();
                taken.fetch_add(CHUNK, std::sync::atomic::Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
            wire.send(OK).await;
        }
    })
    .await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = rig.connect().await;
    client.send(format!("POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", CHUNK * CHUNKS)).await;
    let chunk = vec![b'x'; CHUNK];
    let mut ahead_max = 0;
    for sent in 1..=CHUNKS {
        client.send(&chunk).await;
        ahead_max = ahead_max.max((sent * CHUNK).saturating_sub(taken.load(std::sync::atomic::Ordering::SeqCst)));
    }
    assert_eq!(client.reply().await.status(), 200);
    assert!(ahead_max < 24 << 20, "{ahead_max} bytes between client and origin");
}
