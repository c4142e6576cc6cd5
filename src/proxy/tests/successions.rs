//! A process that takes over serves routes without a workflow at once; a process that hands over lets its requests end,
//! and serves again if its successor is lost.

use std::time::Duration;

use super::drains::origin_that_waits;
use super::parking::parked;
use super::rig::{OK, Origin, Rig, Setup, get, post};
use super::wire::{Wire, bounded};
use crate::limits::Limits;

fn limits(limits: Limits) -> Setup {
    Setup { limits, ..Setup::default() }
}

/// Whether no byte comes for some time.
async fn says_nothing(wire: &Wire) -> bool {
    tokio::time::timeout(Duration::from_millis(50), wire.stream.peek(&mut [0])).await.is_err()
}

#[tokio::test]
async fn requests_of_routes_with_a_workflow_wait_until_the_store_is_there() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup { waits_for_predecessor: true, ..Setup::default() }).await;
    assert_eq!(rig.ask(&get("/elsewhere")).await.status(), 200, "no route");
    let mut waiting = rig.connect().await;
    waiting.send(post("/orders", "{}")).await;
    let mut unusual = rig.connect().await;
    // Some servers read this path as that of the route.
    unusual.send(post("/x/../orders", "{}")).await;
    assert_eq!(rig.ask(&get("/elsewhere")).await.status(), 200);
    assert!(says_nothing(&waiting).await && says_nothing(&unusual).await);
    rig.proxy.open_workflows();
    assert_eq!(waiting.reply().await.status(), 200);
    assert_eq!(unusual.reply().await.status(), 200);
    assert_eq!(rig.ask(&post("/orders", "{}")).await.status(), 200);
}

#[tokio::test]
async fn requests_that_wait_for_too_long_are_refused_and_may_be_sent_again() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { succession_wait_ms: 30, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { waits_for_predecessor: true, limits, ..Setup::default() }).await;
    let refused = rig.ask(&post("/orders", "{}")).await;
    assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")));
    assert!(refused.text().contains("urn:pointsman:problem:taking-over"), "{}", refused.text());
}

#[tokio::test]
async fn an_idle_client_may_send_one_more_request_and_is_told_to_close() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, limits(Limits { succession_idle_ms: 5_000, ..Limits::default() })).await;
    let mut idle = rig.connect().await;
    assert_eq!(idle.ask(&get("/")).await.field("connection"), None);
    rig.proxy.begin_hand_over();
    let reply = idle.ask(&post("/orders", "{}")).await;
    assert_eq!((reply.status(), reply.field("connection")), (200, Some("close")));
    idle.ends().await;
}

/// Clients' connection pools hold connections that were opened and never used.
#[tokio::test]
async fn a_client_that_has_sent_nothing_so_far_is_closed_like_an_idle_one() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, limits(Limits { succession_idle_ms: 50, ..Limits::default() })).await;
    let mut silent = rig.connect().await;
    assert_eq!(rig.ask(&get("/")).await.status(), 200, "the one before was accepted");
    rig.proxy.begin_hand_over();
    let began = std::time::Instant::now();
    silent.ends().await;
    assert!(began.elapsed() < Duration::from_millis(Limits::default().head_read_ms / 2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn parked_clients_are_told_to_close_like_the_others() {
    let origin = Origin::always_answers(OK).await;
    let short = Limits { succession_idle_ms: 500, client_park_ms: 20, ..Limits::default() };
    let rig = Rig::new(&origin, limits(short)).await;
    let (mut asks, mut silent) = (rig.connect().await, rig.connect().await);
    for wire in [&mut asks, &mut silent] {
        assert_eq!(wire.ask(&get("/")).await.status(), 200);
    }
    parked(&rig, 2).await;
    rig.proxy.begin_hand_over();
    let reply = asks.ask(&post("/orders", "{}")).await;
    assert_eq!((reply.status(), reply.field("connection")), (200, Some("close")));
    asks.ends().await;
    silent.ends().await;
    assert_eq!(rig.proxy.shared.parking.count(), 0);
    rig.proxy.end_hand_over();
    let mut later = rig.connect().await;
    assert_eq!(later.ask(&get("/")).await.status(), 200, "the successor was lost");
    parked(&rig, 1).await;
}

#[tokio::test]
async fn an_idle_client_that_sends_nothing_is_closed_and_nothing_is_accepted() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, limits(Limits { succession_idle_ms: 50, ..Limits::default() })).await;
    let mut idle = rig.connect().await;
    assert_eq!(idle.ask(&get("/")).await.status(), 200);
    rig.proxy.begin_hand_over();
    idle.ends().await;
    assert_eq!(bounded("no workflow is in progress", rig.proxy.finish_workflows(Duration::from_secs(5))).await, 0);
    // The socket still queues connections, now for the successor.
    let mut queued = rig.connect().await;
    queued.send(get("/")).await;
    assert!(says_nothing(&queued).await);
    rig.proxy.end_hand_over();
    assert_eq!(queued.reply().await.status(), 200, "the successor was lost");
    assert_eq!(rig.ask(&post("/orders", "{}")).await.status(), 200);
}

#[tokio::test]
async fn requests_of_routes_with_a_workflow_end_first_and_are_cut_at_the_time_limit() {
    let (origin, may_answer, mut asked) = origin_that_waits().await;
    let rig = Rig::new(&origin, limits(Limits { succession_idle_ms: 0, ..Limits::default() })).await;
    let (mut order, mut plain) = (rig.connect().await, rig.connect().await);
    order.send(post("/orders", "{}")).await;
    plain.send(get("/elsewhere")).await;
    bounded("legacy works", asked.wait_for(|n| *n == 2)).await.unwrap();
    rig.proxy.begin_hand_over();
    let cut = bounded("the order is cut", rig.proxy.finish_workflows(Duration::from_millis(50))).await;
    assert_eq!(cut, 1);
    order.ends().await;
    may_answer.send_replace(true);
    let reply = plain.reply().await;
    assert_eq!((reply.status(), reply.field("connection")), (200, Some("close")), "it uses no store");
    rig.proxy.leave_listeners();
    assert_eq!(bounded("the end", rig.serving).await.unwrap().cut, 0);
}
