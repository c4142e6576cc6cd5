//! Raw requests that servers could interpret differently: each is refused and its connection closed, or is forwarded as
//! one request.

use super::rig::{OK, Origin, Rig, Setup, get};
use crate::flag::State;

#[path = "../../../tests/it/support/raw_requests/mod.rs"]
mod raw_requests;

use raw_requests::Expected::{self, One, Refused};

/// Sends one raw request; panics if the outcome differs from `expected`.
async fn send(name: &'static str, raw: &'static str, expected: Expected) {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup { state: State::Shadow, ..Setup::default() }).await;
    let mut client = rig.connect().await;
    client.send(raw).await;
    match expected {
        Refused(statuses) => {
            // A second request behind the raw one must never be answered.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, get("/behind").as_bytes()).await;
            let status = client.message(!raw.starts_with("HEAD")).await.map_or(0, |reply| reply.status());
            assert!(statuses.contains(&status), "{name}: {status}");
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await;
            client.ends().await;
            assert!(origin.requests().is_empty(), "{name}: {:?}", origin.requests());
        }
        One(line, body) => {
            let reply = client.reply().await;
            assert_eq!(reply.status(), 200, "{name}: {}", reply.text());
            let seen = origin.only_request();
            assert_eq!((seen.line(), seen.text().as_str()), (line, body), "{name}");
            assert_eq!(seen.fields("host").len(), 1, "{name}");
            let framed = seen.fields("content-length").len() + seen.fields("transfer-encoding").len();
            assert!(framed <= 1, "{name}: {}", seen.head);
        }
    }
}

#[tokio::test]
async fn each_raw_request_is_refused_and_closed_or_forwarded_as_one_request() {
    let (mut count, mut violations) = (0, Vec::new());
    for (name, raw, expected) in raw_requests::raw_requests() {
        count += 1;
        if let Err(why) = tokio::spawn(send(name, raw, *expected)).await {
            violations.push(format!("{name}: {why}"));
        }
    }
    println!("{count} requests, {} violations", violations.len());
    assert!(count >= 160 && violations.is_empty(), "{count} requests, violations: {violations:#?}");
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let long = "x".repeat(70 << 10);
    let many: String = (0..101).map(|i| format!("X-{i}: 1\r\n")).collect();
    for head in [format!("X-A: {long}\r\n"), many] {
        let mut client = rig.connect().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{head}\r\n")).await;
        assert_eq!(client.message(true).await.unwrap().status(), 431);
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = rig.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 500000\r\n\r\n").await;
    client.send(vec![b'x'; 200_000]).await;
    assert_eq!(client.reply().await.status(), 400);
}
