//! Answers of the engine at the edge: HEAD, conditions, dates and compression, over HTTP/1.1 and HTTP/2.

use std::io::Read;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, Method, StatusCode};

use super::http2_client::{Http2Client, request};
use super::rig::{OK, Origin, Rig, Setup, engine_says};
use super::wire::bounded;
use crate::exchange::{ArmAnswer, ArmReply, RunReport, Served};
use crate::flag::{Compress, State};
use crate::limits::Limits;

const LAST_MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn page() -> String {
    "{\"line\":\"the same words again and again\"}".repeat(50)
}

/// The engine answers each request with [`page`] and these fields.
async fn rig(compress: bool, fields: &[(&'static str, &str)]) -> Rig {
    let origin = Origin::always_answers(OK).await;
    let edit_route = match compress {
        true => |route: &mut crate::flag::Route| route.relay.compress = Some(Compress::Gzip),
        false => |_: &mut crate::flag::Route| {},
    };
    let rig = Rig::new(&origin, Setup { state: State::Live, edit_route, ..Setup::default() }).await;
    let mut headers: HeaderMap =
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
    headers.insert("content-type", "application/json".parse().unwrap());
    for _ in 0..8 {
        let (headers, report) = (headers.clone(), RunReport::default());
        let answer = ArmAnswer { status: StatusCode::OK, headers, body: page().into(), report };
        rig.fakes.answers.lock().unwrap().push_back(ArmReply::Answer(answer));
    }
    rig
}

fn ask(method: &str, fields: &str) -> String {
    format!("{method} /plain HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n")
}

fn unzipped(bytes: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

/// Whether this date is the present time, within a minute.
fn is_now(date: Option<&str>) -> bool {
    let date = httpdate::parse_http_date(date.expect("a date")).expect("an HTTP date");
    let now = SystemTime::now();
    now.duration_since(date).or(date.duration_since(now)).unwrap() < Duration::from_secs(60)
}

#[tokio::test]
async fn head_has_the_fields_of_get_and_no_body() {
    let rig = rig(false, &[("etag", "\"a\"")]).await;
    let length = page().len().to_string();
    let mut client = rig.connect().await;
    for _ in 0..2 {
        client.send(ask("HEAD", "")).await;
        let reply = client.message(false).await.unwrap();
        assert_eq!((reply.status(), reply.field("content-length")), (200, Some(length.as_str())));
        assert_eq!((reply.field("etag"), reply.field("content-type")), (Some("\"a\""), Some("application/json")));
        assert!(is_now(reply.field("date")));
    }
    let reply = client.ask(&ask("GET", "")).await;
    assert_eq!(reply.text(), page(), "the connection is still in step");
    assert!(is_now(reply.field("date")));

    let mut client = Http2Client::new(&rig).await;
    let reply = client.begin_get_with(Method::HEAD, "/plain").await.0.reply().await;
    assert_eq!((reply.status, reply.field("content-length"), reply.body.len()), (200, Some(length.as_str()), 0));
    assert!(is_now(reply.field("date")));
}

#[tokio::test]
async fn a_client_that_has_the_answer_gets_304() {
    let rig = rig(false, &[("etag", "\"a\""), ("last-modified", LAST_MODIFIED), ("cache-control", "max-age=1")]).await;
    let mut client = rig.connect().await;
    for (method, condition) in
        [("GET", "If-None-Match: \"b\", \"a\""), ("HEAD", "If-None-Match: *"), ("GET", "If-Modified-Since: ")]
    {
        let value = if condition.ends_with(' ') { LAST_MODIFIED } else { "" };
        client.send(ask(method, &format!("{condition}{value}\r\n"))).await;
        let reply = client.message(false).await.unwrap();
        assert_eq!(reply.status(), 304, "{condition}");
        assert_eq!((reply.field("etag"), reply.field("cache-control")), (Some("\"a\""), Some("max-age=1")));
        assert_eq!((reply.field("content-type"), reply.field("content-length")), (None, None), "{}", reply.head);
        assert!(is_now(reply.field("date")));
    }
    let reply = client.ask(&ask("GET", "If-None-Match: \"b\"\r\n")).await;
    assert_eq!((reply.status(), reply.text()), (200, page()));
    let mut client = Http2Client::new(&rig).await;
    let mut conditional = request(Method::GET, "/plain");
    conditional.headers_mut().insert("if-none-match", "W/\"a\"".parse().unwrap());
    let reply = client.ask(conditional, "").await;
    assert_eq!((reply.status, reply.body.len(), reply.field("content-length")), (304, 0, None));
    assert_eq!(*rig.fakes.served.lock().unwrap(), [Served::Answered; 5]);
}

#[tokio::test]
async fn a_condition_that_fails_is_a_412() {
    let rig = rig(false, &[("etag", "\"a\""), ("last-modified", LAST_MODIFIED)]).await;
    for condition in ["If-Match: \"b\"", "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT"] {
        let reply = rig.ask(&ask("GET", &format!("{condition}\r\n"))).await;
        assert_eq!((reply.status(), reply.field("x-pointsman-source")), (412, Some("proxy")), "{condition}");
        assert!(reply.text().contains("urn:pointsman:problem:precondition-failed"), "{}", reply.text());
    }
    assert_eq!(rig.ask(&ask("GET", "If-Match: \"a\"\r\n")).await.status(), 200);
}

#[tokio::test]
async fn answers_are_compressed_where_legacy_compresses_and_the_client_accepts_it() {
    let rig = rig(true, &[("etag", "\"a\"")]).await;
    let mut client = rig.connect().await;
    let reply = client.ask(&ask("GET", "Accept-Encoding: br, gzip\r\n")).await;
    assert_eq!((reply.field("content-encoding"), reply.field("vary")), (Some("gzip"), Some("accept-encoding")));
    assert_eq!((reply.field("etag"), reply.field("transfer-encoding")), (Some("W/\"a\""), Some("chunked")));
    assert!(reply.body.len() < page().len() / 4 && unzipped(&reply.body) == page());
    client.send(ask("HEAD", "Accept-Encoding: gzip\r\n")).await;
    let reply = client.message(false).await.unwrap();
    assert_eq!((reply.field("content-encoding"), reply.field("content-length")), (Some("gzip"), None));
    let reply = client.ask(&ask("GET", "")).await;
    assert_eq!((reply.field("content-encoding"), reply.field("vary")), (None, Some("accept-encoding")));
    assert_eq!(reply.text(), page(), "the connection is still in step");
    client.send(ask("GET", "Accept-Encoding: gzip\r\nIf-None-Match: W/\"a\"\r\n")).await;
    assert_eq!(client.message(false).await.unwrap().status(), 304, "the tag that the client got");
    let old = "GET /plain HTTP/1.0\r\nHost: shop.test\r\nAccept-Encoding: gzip\r\n\r\n";
    assert_eq!(rig.ask(old).await.text(), page());

    let mut client = Http2Client::new(&rig).await;
    let mut gzip = request(Method::GET, "/plain");
    gzip.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
    let reply = client.ask(gzip, "").await;
    assert_eq!((reply.field("content-encoding"), unzipped(&reply.body)), (Some("gzip"), page()));
}

#[tokio::test]
async fn answers_are_not_compressed_where_legacy_does_not_or_somebody_forbids_it() {
    let gzip = ask("GET", "Accept-Encoding: gzip\r\n");
    let reply = rig(false, &[]).await.ask(&gzip).await;
    assert_eq!((reply.field("content-encoding"), reply.field("vary")), (None, None));
    let reply = rig(true, &[("cache-control", "no-transform")]).await.ask(&gzip).await;
    assert_eq!((reply.field("content-encoding"), reply.text()), (None, page()));
}

#[tokio::test]
async fn a_large_answer_arrives_whole_over_both_protocols() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup { state: State::Live, ..Setup::default() }).await;
    let whole: String = (0..200_000).map(|number| format!("{number:06}\n")).collect();
    for _ in 0..3 {
        let (headers, report) = (HeaderMap::new(), RunReport::default());
        let answer = ArmAnswer { status: StatusCode::OK, headers, body: whole.clone().into(), report };
        rig.fakes.answers.lock().unwrap().push_back(ArmReply::Answer(answer));
    }
    let mut client = rig.connect().await;
    for _ in 0..2 {
        let reply = client.ask(&ask("GET", "")).await;
        assert_eq!(reply.field("content-length"), Some(whole.len().to_string().as_str()));
        assert!(reply.text() == whole, "{} bytes", reply.text().len());
    }
    let reply = Http2Client::new(&rig).await.get("/plain").await;
    assert!(reply.text() == whole, "{} bytes", reply.text().len());
}

/// Otherwise an engine that hangs for longer than its clients wait would show no errors.
#[tokio::test]
async fn a_client_that_leaves_without_an_answer_counts_if_it_has_waited_long() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { client_half_close_ms: 50, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { state: State::Live, limits, ..Setup::default() }).await;
    let asked = |number: usize| {
        rig.fakes
            .until("the engine to be asked", move |fakes| (fakes.asked.lock().unwrap().len() == number).then_some(()))
    };
    let left = |number: u64| {
        rig.fakes.until("the client to have left", move |fakes| (fakes.left.load(SeqCst) == number).then_some(()))
    };
    let mut short = rig.connect().await;
    short.send(ask("GET", "")).await;
    asked(1).await;
    drop(short);
    left(1).await;
    rig.fakes.waits_are_long.store(true, SeqCst);
    let mut long = rig.connect().await;
    long.send(ask("GET", "")).await;
    asked(2).await;
    drop(long);
    left(2).await;
    assert_eq!(
        rig.fakes.until("it to count", |fakes| fakes.served.lock().unwrap().first().copied()).await,
        Served::Unknown
    );
    // An answer that comes counts once.
    rig.fakes.answers.lock().unwrap().push_back(engine_says("{}"));
    assert_eq!(rig.ask(&ask("GET", "")).await.status(), 201);
    assert_eq!(*rig.fakes.served.lock().unwrap(), [Served::Unknown, Served::Answered]);
    assert_eq!(rig.fakes.left.load(SeqCst), 2);
}

/// Otherwise a restart of a process would look like errors of the engine.
#[tokio::test]
async fn a_client_whose_request_the_end_of_the_process_cuts_does_not_count() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { drain_ms: 100, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { state: State::Live, limits, ..Setup::default() }).await;
    rig.fakes.waits_are_long.store(true, SeqCst);
    let mut waiting = rig.connect().await;
    waiting.send(ask("GET", "")).await;
    rig.fakes.until("the engine to be asked", |fakes| (fakes.asked.lock().unwrap().len() == 1).then_some(())).await;
    rig.shutdown.cancel();
    waiting.ends().await;
    let fakes = rig.fakes.clone();
    assert_eq!(bounded("the drain", rig.serving).await.unwrap().cut, 1);
    assert!(fakes.served.lock().unwrap().is_empty());
    assert_eq!(fakes.left.load(SeqCst), 0);
}

#[tokio::test]
async fn a_pending_answer_of_a_run_with_a_conflict_counts_as_an_unknown_outcome() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup { state: State::Live, ..Setup::default() }).await;
    for report in [
        RunReport { pending_in_conflict: true, ..RunReport::default() },
        RunReport { outlived_deadline: true, ..RunReport::default() },
    ] {
        let headers = HeaderMap::new();
        let answer = ArmAnswer { status: StatusCode::ACCEPTED, headers, body: "{}".into(), report };
        rig.fakes.answers.lock().unwrap().push_back(ArmReply::Answer(answer));
        assert_eq!(rig.ask(&ask("GET", "")).await.status(), 202);
    }
    assert_eq!(*rig.fakes.served.lock().unwrap(), [Served::Unknown]);
}
