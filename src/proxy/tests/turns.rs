//! A legacy for which the number of simultaneous requests is limited.

use std::time::Duration;

use tokio::time::timeout;

use super::drains::origin_that_waits;
use super::rig::{OK, Origin, Rig, Setup, get, post};
use super::wire::bounded;
use crate::exchange::ComparisonOutcome;
use crate::flag::{SkipReason, State};
use crate::limits::Limits;

fn one_at_a_time(limits: Limits) -> Setup {
    Setup { requests_max: Some(1), limits, ..Setup::default() }
}

#[tokio::test]
async fn requests_wait_for_their_turn() {
    let (origin, may_answer, mut asked) = origin_that_waits().await;
    let rig = Rig::new(&origin, one_at_a_time(Limits::default())).await;
    let mut first = rig.connect().await;
    first.send(get("/first")).await;
    bounded("legacy works", asked.wait_for(|n| *n == 1)).await.unwrap();
    let mut second = rig.connect().await;
    second.send(get("/second")).await;
    assert!(timeout(Duration::from_millis(50), second.stream.readable()).await.is_err(), "it waits");
    assert_eq!(*asked.borrow(), 1);
    may_answer.send_replace(true);
    for wire in [&mut first, &mut second] {
        assert_eq!(wire.reply().await.status(), 200);
    }
    // The turns are free again.
    for _ in 0..3 {
        assert_eq!(first.ask(&get("/again")).await.status(), 200);
        assert_eq!(second.ask(&get("/again")).await.status(), 200);
    }
}

#[tokio::test]
async fn a_request_without_a_turn_in_time_is_refused_and_not_sent() {
    let (origin, may_answer, mut asked) = origin_that_waits().await;
    let limits = Limits { legacy_turn_ms: 60, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { state: State::Shadow, ..one_at_a_time(limits) }).await;
    let mut first = rig.connect().await;
    first.send(get("/first")).await;
    bounded("legacy works", asked.wait_for(|n| *n == 1)).await.unwrap();
    let refused = rig.ask(&post("/orders", "{}")).await;
    assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")));
    assert!(
        refused.text().contains("legacy-busy") && refused.text().contains("Nothing was sent"),
        "{}",
        refused.text()
    );
    assert_eq!(rig.fakes.outcome().await, ComparisonOutcome::Skipped(SkipReason::LegacyRefused));
    may_answer.send_replace(true);
    assert_eq!(first.reply().await.status(), 200);
    assert_eq!(rig.ask(&get("/next")).await.status(), 200);
    assert_eq!(*asked.borrow(), 2, "the refused request was not sent");
}

#[tokio::test]
async fn a_bounded_number_of_requests_waits_and_one_whose_client_is_gone_does_not() {
    let (origin, may_answer, mut asked) = origin_that_waits().await;
    let limits = Limits { legacy_waiting_max: 1, ..Limits::default() };
    let rig = Rig::new(&origin, one_at_a_time(limits)).await;
    let mut first = rig.connect().await;
    first.send(get("/first")).await;
    bounded("legacy works", asked.wait_for(|n| *n == 1)).await.unwrap();
    let (mut second, mut third) = (rig.connect().await, rig.connect().await);
    second.send(get("/second")).await;
    third.send(get("/third")).await;
    // One of the two requests waits, and the other is refused.
    let refused = bounded("no room", async {
        tokio::select! {
            _ = second.stream.readable() => &mut second,
            _ = third.stream.readable() => &mut third,
        }
    });
    assert_eq!(refused.await.reply().await.status(), 503);
    drop((second, third));
    // The place in the queue is free again.
    let mut fourth = rig.connect().await;
    let waits = async {
        loop {
            fourth.send(get("/fourth")).await;
            if timeout(Duration::from_millis(50), fourth.stream.readable()).await.is_err() {
                return;
            }
            assert_eq!(fourth.reply().await.status(), 503);
        }
    };
    bounded("a place", waits).await;
    may_answer.send_replace(true);
    for wire in [&mut first, &mut fourth] {
        assert_eq!(wire.reply().await.status(), 200);
    }
    assert_eq!(*asked.borrow(), 2, "first and fourth");
}

/// The body of a request that waits is not read.
#[tokio::test]
async fn a_client_that_leaves_before_its_body_was_read_gives_up_its_place_and_is_not_forwarded() {
    let (origin, may_answer, mut asked) = origin_that_waits().await;
    let limits = Limits { legacy_waiting_max: 1, client_half_close_ms: 50, ..Limits::default() };
    let rig = Rig::new(&origin, one_at_a_time(limits)).await;
    let mut first = rig.connect().await;
    first.send(get("/first")).await;
    bounded("legacy works", asked.wait_for(|n| *n == 1)).await.unwrap();
    let mut gone = rig.connect().await;
    gone.send(post("/gone", "{}")).await;
    // Until this request waits, there is a place in the queue for another one.
    let waits = async { while timeout(Duration::from_millis(50), rig.ask(&get("/probe"))).await.is_err() {} };
    bounded("it waits", waits).await;
    drop(gone);
    let mut fourth = rig.connect().await;
    let waits = async {
        loop {
            fourth.send(get("/fourth")).await;
            if timeout(Duration::from_millis(50), fourth.stream.readable()).await.is_err() {
                return;
            }
            assert_eq!(fourth.reply().await.status(), 503);
        }
    };
    bounded("a place", waits).await;
    may_answer.send_replace(true);
    for wire in [&mut first, &mut fourth] {
        assert_eq!(wire.reply().await.status(), 200);
    }
    assert_eq!(*asked.borrow(), 2, "first and fourth");
}

/// A tunnel occupies a worker of legacy for as long as it lasts.
#[tokio::test]
async fn a_tunnel_keeps_its_turn_until_it_ends() {
    let origin = Origin::script(|mut wire, _| async move {
        while let Some(request) = wire.message(true).await {
            if request.field("upgrade").is_none() {
                wire.send(OK).await;
                continue;
            }
            wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n").await;
            wire.rest().await;
        }
    })
    .await;
    let limits = Limits { legacy_turn_ms: 60, ..Limits::default() };
    let rig = Rig::new(&origin, one_at_a_time(limits)).await;
    let mut tunnel = rig.connect().await;
    tunnel.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n").await;
    let head = tunnel.head().await.expect("the switch");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(rig.ask(&get("/any")).await.status(), 503);
    drop(tunnel);
    bounded("the turn", async { while rig.ask(&get("/any")).await.status() != 200 {} }).await;
}

/// A tunnel holds the only turn for as long as it lasts.
#[tokio::test]
async fn a_request_whose_time_ends_before_its_turn_was_not_sent() {
    let origin = Origin::script(|mut wire, _| async move {
        wire.message(true).await;
        wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n").await;
        wire.rest().await;
    })
    .await;
    let rig = Rig::new(&origin, one_at_a_time(Limits { total_ms: 100, ..Limits::default() })).await;
    let mut tunnel = rig.connect().await;
    tunnel.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n").await;
    assert!(tunnel.head().await.expect("the switch").starts_with("HTTP/1.1 101"));
    let refused = rig.ask(&post("/charges", "{}")).await;
    assert_eq!(refused.status(), 504, "{}", refused.text());
    assert!(refused.text().contains("timeout-not-sent"), "{}", refused.text());
    assert!(refused.text().contains("Nothing was sent"), "{}", refused.text());
}
