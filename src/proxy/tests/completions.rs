//! What follows a reply: it happens only once the client's socket has taken the last byte, and on no client thread.

use std::sync::{Arc, mpsc};

use http::StatusCode;

use super::origin::SMALL_BUFFER_BYTES;
use super::rig::{Fakes, OK, Origin, Rig, Setup, engine_says, post};
use super::wire::{Wire, bounded, connect_with_buffer};
use crate::exchange::{ArmReply, ComparisonOutcome};
use crate::flag::{SkipReason, State};
use crate::proxy::Proxy;
use crate::proxy::settler::WAITING_MAX;

const ORDER: &str = "{\"items\":[1]}";
/// More bytes than the sockets between two processes hold, if the client's receive buffer does not grow.
const LARGE: usize = 32 << 20;

async fn connect_with_small_buffer(rig: &Rig) -> Wire {
    Wire::new(connect_with_buffer(rig.address, 64 << 10).await)
}

fn counted(proxy: &Proxy) -> u64 {
    proxy.traffic_counts(&"orders.create".into()).0
}

#[tokio::test]
async fn a_reply_is_counted_when_the_socket_has_taken_its_last_byte() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup { state: State::Only, ..Setup::default() }).await;
    let ArmReply::Answer(mut large) = engine_says("") else { unreachable!("an answer") };
    large.body = vec![b'x'; LARGE].into();
    rig.fakes.answers.lock().unwrap().extend([ArmReply::Answer(large), engine_says("{}")]);
    let mut client = connect_with_small_buffer(&rig).await;
    client.send(post("/orders", ORDER)).await;
    let head = client.head().await.expect("the head");
    assert!(head.starts_with("HTTP/1.1 201"), "{head}");
    assert_eq!(counted(&rig.proxy), 0, "hyper has the whole reply, and the socket does not");
    client.exactly(LARGE).await.expect("the whole body");
    // The earlier reply's last byte was flushed before this reply.
    assert_eq!(client.ask(&post("/orders", ORDER)).await.status(), StatusCode::CREATED);
    assert!(counted(&rig.proxy) >= 1);
    drop(client);
    rig.shutdown.cancel();
    bounded("the drain", rig.serving).await.unwrap();
    assert_eq!(counted(&rig.proxy), 2);
}

#[tokio::test]
async fn a_reply_that_the_client_never_reads_is_counted_once() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup { state: State::Only, ..Setup::default() }).await;
    let ArmReply::Answer(mut large) = engine_says("") else { unreachable!("an answer") };
    large.body = vec![b'x'; LARGE].into();
    rig.fakes.answers.lock().unwrap().push_back(ArmReply::Answer(large));
    let mut client = connect_with_small_buffer(&rig).await;
    client.send(post("/orders", ORDER)).await;
    client.head().await.expect("the head");
    drop(client);
    rig.shutdown.cancel();
    bounded("the drain", rig.serving).await.unwrap();
    assert_eq!(counted(&rig.proxy), 1);
}

/// hyper has taken the whole reply from legacy, and holds the part of it that the client's socket has not taken.
#[tokio::test]
async fn a_reply_that_hyper_has_and_the_client_has_not_is_not_compared() {
    let (origin, all_taken) = Origin::that_knows_when_its_reply_was_taken().await;
    let send_buffer_bytes = Some(SMALL_BUFFER_BYTES);
    let rig = Rig::new(&origin, Setup { state: State::Shadow, send_buffer_bytes, ..Setup::default() }).await;
    let mut client = Wire::new(connect_with_buffer(rig.address, SMALL_BUFFER_BYTES).await);
    client.send(post("/orders", ORDER)).await;
    client.head().await.expect("the head");
    bounded("the whole reply in the proxy", all_taken.notified()).await;
    drop(client);
    assert_eq!(rig.fakes.outcome().await, ComparisonOutcome::Skipped(SkipReason::ClientWentAway));
}

/// Blocks the shadow executor until the returned sender is dropped.
fn hang_shadow_executor(fakes: &Arc<Fakes>) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel();
    let (hangs, is_hanging) = mpsc::channel();
    let fakes = fakes.clone();
    std::thread::spawn(move || {
        let _offered = fakes.offered.lock().unwrap();
        hangs.send(()).unwrap();
        let _ = released.recv(); // the error says that the other end was dropped
    });
    is_hanging.recv().expect("the lock is taken");
    release
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_do_not_wait_for_a_shadow_executor_that_hangs() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup { state: State::Shadow, ..Setup::default() }).await;
    let release = hang_shadow_executor(&rig.fakes);
    let mut client = rig.connect().await;
    // One exchange is being settled, the most that may wait are waiting, and the others find no room.
    let requests = WAITING_MAX + 4;
    for _ in 0..requests {
        assert_eq!(client.ask(&post("/orders", ORDER)).await.status(), 200);
    }
    rig.fakes.until("a request that found no room", |fakes| fakes.outcomes.lock().unwrap().first().copied()).await;
    drop(release);
    drop(client);
    rig.shutdown.cancel();
    bounded("the drain", rig.serving).await.unwrap();
    let outcomes = rig.fakes.outcomes.lock().unwrap().clone();
    assert_eq!(outcomes.len(), requests, "each request has one outcome");
    let of = |wanted: ComparisonOutcome| outcomes.iter().filter(|outcome| **outcome == wanted).count();
    let (full, matched) = (of(ComparisonOutcome::Skipped(SkipReason::QueueFull)), of(ComparisonOutcome::Matched));
    assert!((1..=4).contains(&full), "{full} found no room");
    assert_eq!(full + matched, requests);
    assert_eq!(rig.fakes.created.lock().unwrap().len(), requests, "each reply is searched for an id");
}
