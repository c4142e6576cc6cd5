//! Streams of one HTTP/2 connection are separate exchanges: what ends, stalls or delays one does not affect the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use h2::Reason;
use h2::client::Builder;
use http::Method;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::drains::origin_that_waits;
use super::http2_client::{Http2Client, RawHttp2, fields, frame, request, send_all, whole};
use super::rig::{OK, Origin, Rig, Setup, get};
use super::wire::bounded;
use crate::exchange::ComparisonOutcome;
use crate::flag::{SkipReason, State};
use crate::limits::Limits;

fn setup(limits: Limits) -> Setup {
    Setup { limits, ..Setup::default() }
}

/// An origin that answers `/fast` only; notifies when another request came, and when its connection ended.
async fn origin_that_is_silent_or_fast() -> (Origin, Arc<Notify>, Arc<Notify>) {
    let (asked, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell_asked, tell_ended) = (asked.clone(), ended.clone());
    let origin = Origin::script(move |mut wire, _| {
        let (asked, ended) = (tell_asked.clone(), tell_ended.clone());
        async move {
            while let Some(head) = wire.head().await {
                if head.contains("/fast") {
                    wire.send(OK).await;
                    continue;
                }
                asked.notify_one();
                wire.rest().await;
                return ended.notify_one();
            }
        }
    })
    .await;
    (origin, asked, ended)
}

#[tokio::test]
async fn many_streams_at_once_are_answered() {
    let (origin, may_answer, mut asked) = origin_that_waits().await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = Http2Client::new(&rig).await;
    let mut pending = Vec::new();
    for index in 0..60 {
        pending.push(client.begin_get(&format!("/{index}")).await.0);
    }
    bounded("all are in flight together", asked.wait_for(|n| *n == 60)).await.unwrap();
    may_answer.send_replace(true);
    for pending in pending {
        assert_eq!(pending.reply().await.status, 200);
    }
}

#[tokio::test]
async fn a_stream_beyond_the_limit_waits_for_another_one_to_end() {
    let (origin, may_answer, mut asked) = origin_that_waits().await;
    let rig = Rig::new(&origin, setup(Limits { client_http2_streams_max: 2, ..Limits::default() })).await;
    let mut client = Http2Client::new(&rig).await;
    let first = client.begin_get("/1").await.0;
    bounded("the first request", asked.wait_for(|n| *n == 1)).await.unwrap();
    let second = client.begin_get("/2").await.0;
    // By now the client knows the limit, and begins the third request when the first has ended.
    let third = client.begin_get("/3");
    bounded("the second request", asked.wait_for(|n| *n == 2)).await.unwrap();
    may_answer.send_replace(true);
    let third = bounded("the third request", third).await.0;
    for pending in [first, second, third] {
        assert_eq!(pending.reply().await.status, 200);
    }
}

#[tokio::test]
async fn a_reset_while_legacy_works_closes_legacys_connection_and_is_not_compared() {
    let (origin, asked, ended) = origin_that_is_silent_or_fast().await;
    let rig = Rig::new(&origin, Setup { state: State::Shadow, ..Setup::default() }).await;
    let mut client = Http2Client::new(&rig).await;
    let (pending, mut send) = client.begin(request(Method::POST, "/orders")).await;
    send.send_data("{}".into(), true).unwrap();
    bounded("legacy works", asked.notified()).await;
    send.send_reset(Reason::CANCEL);
    drop(pending);
    bounded("legacy's connection ends", ended.notified()).await;
    assert_eq!(rig.fakes.outcome().await, ComparisonOutcome::Skipped(SkipReason::ClientWentAway));
    assert_eq!(client.get("/fast").await.status, 200, "the connection goes on");
}

#[tokio::test]
async fn a_reset_during_an_upload_closes_legacys_connection() {
    let (origin, asked, ended) = origin_that_is_silent_or_fast().await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = Http2Client::new(&rig).await;
    let (_pending, mut send) = client.begin(request(Method::POST, "/upload")).await;
    send_all(&mut send, "the first part".into()).await.unwrap();
    bounded("legacy reads", asked.notified()).await;
    send.send_reset(Reason::CANCEL);
    bounded("legacy's connection ends", ended.notified()).await;
    assert_eq!(client.get("/fast").await.status, 200);
}

/// Answers requests for `/orders` and `/large` with 4 MiB, of which a client that does not read gets one window, and
/// others with 3 bytes.
async fn origin_with_large_answers() -> Origin {
    Origin::script(|mut wire, _| async move {
        while let Some(head) = wire.head().await {
            let size = if head.contains("/orders") || head.contains("/large") { 4 << 20 } else { 3 };
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")).await;
            wire.send(vec![b'x'; size]).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_reset_during_the_reply_is_not_compared_as_answered() {
    let origin = origin_with_large_answers().await;
    let limits = Limits { body_capture_bytes_max: 8 << 20, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { state: State::Shadow, limits, ..Setup::default() }).await;
    let mut client = Http2Client::new(&rig).await;
    let (pending, mut send) = client.begin(request(Method::POST, "/orders")).await;
    send.send_data("".into(), true).unwrap();
    let response = pending.head().await.unwrap();
    send.send_reset(Reason::CANCEL);
    drop(response);
    assert_eq!(rig.fakes.outcome().await, ComparisonOutcome::Skipped(SkipReason::ClientWentAway));
    assert_eq!(client.get("/small").await.text(), "xxx");
}

/// The proxy has the whole reply and the client's window is full: only the client's reset shows that it no longer wants
/// the reply.
#[tokio::test]
async fn a_reset_of_a_reply_that_waits_for_a_window_is_not_compared() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup { state: State::Shadow, ..Setup::default() }).await;
    let mut builder = Builder::new();
    builder.initial_window_size(5);
    let mut client = Http2Client::over(TcpStream::connect(rig.address).await.unwrap(), &builder).await;
    let (pending, mut send) = client.begin(request(Method::POST, "/orders")).await;
    send.send_data("{}".into(), true).unwrap();
    let mut response = pending.head().await.unwrap();
    assert_eq!(bounded("a window of it", response.body_mut().data()).await.unwrap().unwrap().len(), 5);
    assert!(rig.fakes.outcomes.lock().unwrap().is_empty());
    send.send_reset(Reason::CANCEL);
    assert_eq!(rig.fakes.outcome().await, ComparisonOutcome::Skipped(SkipReason::ClientWentAway));
}

#[tokio::test]
async fn the_end_of_the_connection_ends_all_of_its_exchanges() {
    let (origin, asked, ended) = origin_that_is_silent_or_fast().await;
    let rig = Rig::new(&origin, Setup { state: State::Shadow, ..Setup::default() }).await;
    let mut client = Http2Client::new(&rig).await;
    let (_pending, mut send) = client.begin(request(Method::POST, "/orders")).await;
    send.send_data("{}".into(), true).unwrap();
    bounded("legacy works", asked.notified()).await;
    client.connection.abort();
    bounded("legacy's connection ends", ended.notified()).await;
    assert_eq!(rig.fakes.outcome().await, ComparisonOutcome::Skipped(SkipReason::ClientWentAway));
}

#[tokio::test]
async fn a_client_that_does_not_read_one_answer_gets_the_others() {
    let origin = origin_with_large_answers().await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut builder = Builder::new();
    builder.initial_connection_window_size(8 << 20);
    let mut client = Http2Client::over(TcpStream::connect(rig.address).await.unwrap(), &builder).await;
    let unread = client.begin_get("/large/unread").await.0.head().await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.get("/small").await.text(), "xxx");
    }
    assert_eq!(client.get("/large/read").await.body.len(), 4 << 20);
    assert_eq!(whole(unread).await.unwrap().body.len(), 4 << 20);
}

#[tokio::test]
async fn an_answer_that_its_client_does_not_take_is_cut_and_others_are_not() {
    let origin = origin_with_large_answers().await;
    let rig = Rig::new(&origin, setup(Limits { body_idle_ms: 200, ..Limits::default() })).await;
    let mut builder = Builder::new();
    builder.initial_connection_window_size(8 << 20);
    let mut client = Http2Client::over(TcpStream::connect(rig.address).await.unwrap(), &builder).await;
    let unread = client.begin_get("/large").await.0.head().await.unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(600) {
        assert_eq!(client.get("/small").await.text(), "xxx");
    }
    let error = whole(unread).await.expect_err("it was cut");
    assert_eq!(error.reason(), Some(Reason::CANCEL), "{error}");
    assert_eq!(client.get("/small").await.text(), "xxx");
}

#[tokio::test]
async fn a_silent_legacy_times_out_on_its_stream_only() {
    let (origin, _, ended) = origin_that_is_silent_or_fast().await;
    let rig = Rig::new(&origin, setup(Limits { first_byte_ms: 100, ..Limits::default() })).await;
    let mut client = Http2Client::new(&rig).await;
    let began = Instant::now();
    let slow = client.begin_get("/slow").await.0;
    assert_eq!(client.get("/fast").await.status, 200);
    let reply = slow.reply().await;
    let took = began.elapsed();
    assert_eq!((reply.status, reply.field("x-pointsman-source")), (504, Some("proxy")));
    assert!(reply.text().contains("could do the work twice"), "{}", reply.text());
    assert!(took >= Duration::from_millis(100) && took < Duration::from_secs(2), "{took:?}");
    bounded("legacy's connection ends", ended.notified()).await;
    assert_eq!(client.get("/fast").await.status, 200);
}

#[tokio::test]
async fn an_upload_that_stalls_is_answered_and_the_connection_goes_on() {
    let (origin, asked, ended) = origin_that_is_silent_or_fast().await;
    let rig = Rig::new(&origin, setup(Limits { body_idle_ms: 100, ..Limits::default() })).await;
    let mut client = Http2Client::new(&rig).await;
    let (pending, mut send) = client.begin(request(Method::POST, "/upload")).await;
    send_all(&mut send, "a part".into()).await.unwrap();
    bounded("legacy reads", asked.notified()).await;
    let reply = pending.reply().await;
    assert_eq!(reply.status, 408, "{}", reply.text());
    bounded("legacy's connection ends", ended.notified()).await;
    let reset = bounded("the rest is not wanted", std::future::poll_fn(|cx| send.poll_reset(cx))).await;
    assert_eq!(reset.unwrap(), Reason::NO_ERROR);
    assert_eq!(client.get("/fast").await.status, 200);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { client_idle_ms: 100, linger_ms: 100, ..Limits::default() };
    let rig = Rig::new(&origin, setup(limits)).await;
    let mut client = Http2Client::new(&rig).await;
    assert_eq!(client.get("/").await.status, 200);
    let ended = bounded("the connection closes", client.connection).await.unwrap();
    assert!(ended.is_ok(), "{ended:?}");
}

/// With one frame that names its last stream, as other servers do: some clients take the first GOAWAY for the end, and
/// fail at what follows.
#[tokio::test]
async fn a_quiet_connection_is_ended_by_one_goaway() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { client_idle_ms: 1_200, linger_ms: 100, ..Limits::default() };
    let rig = Rig::new(&origin, setup(limits)).await;
    let mut client = RawHttp2::new(&rig).await;
    client.wire.send(frame(1, 5, 1, &fields("GET"))).await;
    let mut since_goaway = Vec::new();
    while let Some((kind, _, _, payload)) = client.next().await {
        if kind == 7 || !since_goaway.is_empty() {
            since_goaway.push((kind, payload));
        }
    }
    assert_eq!(since_goaway, [(7, [1_u32.to_be_bytes(), [0; 4]].concat())], "the last stream, NO_ERROR, and the end");
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_a_new_one() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, setup(Limits { client_connections_max: 1, ..Limits::default() })).await;
    let mut client = Http2Client::new(&rig).await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(bounded("a new client", rig.ask(&get("/"))).await.status(), 200);
    assert!(bounded("the idle connection closes", client.connection).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_drain_lets_requests_in_flight_finish_and_begins_nothing() {
    let (origin, may_answer, mut asked) = origin_that_waits().await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = Http2Client::new(&rig).await;
    let mut idle = Http2Client::new(&rig).await;
    let in_flight = client.begin_get("/busy").await.0;
    bounded("legacy works", asked.wait_for(|n| *n == 1)).await.unwrap();
    rig.shutdown.cancel();
    bounded("nothing more is begun", async {
        while client.requests.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    bounded("the idle connection closes", &mut idle.connection).await.unwrap().unwrap();
    may_answer.send_replace(true);
    assert_eq!(in_flight.reply().await.status, 200);
    drop(client.requests);
    bounded("the connection closes", client.connection).await.unwrap().unwrap();
    assert_eq!(bounded("the drain", rig.serving).await.unwrap().cut, 0);
}

#[tokio::test]
async fn streams_that_do_not_finish_are_cut_at_the_end_of_a_drain() {
    let (origin, _go, mut asked) = origin_that_waits().await;
    let limits = Limits { drain_ms: 100, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { state: State::Shadow, limits, ..Setup::default() }).await;
    let mut client = Http2Client::new(&rig).await;
    let (pending, mut send) = client.begin(request(Method::POST, "/orders")).await;
    send.send_data("{}".into(), true).unwrap();
    bounded("legacy works", asked.wait_for(|n| *n == 1)).await.unwrap();
    rig.shutdown.cancel();
    assert!(pending.head().await.is_err());
    assert_eq!(bounded("the drain", rig.serving).await.unwrap().cut, 1);
    assert_eq!(rig.fakes.outcome().await, ComparisonOutcome::Skipped(SkipReason::ClientWentAway));
}
