//! A drain: nothing new is accepted, requests in flight finish, the time limit is kept.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;

use super::rig::{OK, Origin, Rig, Setup, get};
use super::wire::bounded;
use crate::limits::Limits;

/// An origin that answers when it is told to.
pub(super) async fn origin_that_waits() -> (Origin, watch::Sender<bool>, watch::Receiver<usize>) {
    let (may_answer, receiver) = watch::channel(false);
    let (asked, count) = watch::channel(0);
    let asked = std::sync::Arc::new(asked);
    let origin = Origin::script(move |mut wire, _| {
        let (mut may_answer, asked) = (receiver.clone(), asked.clone());
        async move {
            while wire.message(true).await.is_some() {
                asked.send_modify(|n| *n += 1);
                if may_answer.wait_for(|may| *may).await.is_err() {
                    return;
                }
                wire.send(OK).await;
            }
        }
    })
    .await;
    (origin, may_answer, count)
}

#[tokio::test]
async fn requests_in_flight_finish_and_other_connections_close() {
    let (origin, may_answer, mut asked) = origin_that_waits().await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut busy = rig.connect().await;
    busy.send(get("/busy")).await;
    let mut fresh = rig.connect().await;
    bounded("legacy works", asked.wait_for(|n| *n == 1)).await.unwrap();
    rig.shutdown.cancel();
    // The proxy has accepted the connection, or it waits in the kernel's queue: its first request is answered.
    fresh.send(get("/fresh")).await;
    bounded("the late request", asked.wait_for(|n| *n == 2)).await.unwrap();
    bounded("nothing more is accepted", async {
        while TcpStream::connect(rig.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    may_answer.send_replace(true);
    for wire in [&mut busy, &mut fresh] {
        let reply = wire.reply().await;
        assert_eq!((reply.status(), reply.field("connection")), (200, Some("close")));
        wire.ends().await;
    }
    let drained = bounded("the drain", rig.serving).await.unwrap();
    assert_eq!(drained.cut, 0);
}

#[tokio::test]
async fn idle_connections_close_at_once() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut idle = rig.connect().await;
    assert_eq!(idle.ask(&get("/")).await.status(), 200);
    rig.shutdown.cancel();
    idle.ends().await;
    let drained = bounded("the drain", rig.serving).await.unwrap();
    assert!(drained.cut == 0 && drained.took < Duration::from_secs(5));
}

#[tokio::test]
async fn requests_that_do_not_finish_are_cut_at_the_time_limit() {
    let (origin, _go, mut asked) = origin_that_waits().await;
    let rig = Rig::new(&origin, Setup { limits: Limits { drain_ms: 100, ..Limits::default() }, ..Setup::default() });
    let rig = rig.await;
    let mut busy = rig.connect().await;
    busy.send(get("/busy")).await;
    bounded("legacy works", asked.wait_for(|n| *n == 1)).await.unwrap();
    rig.shutdown.cancel();
    busy.ends().await;
    assert_eq!(bounded("the drain", rig.serving).await.unwrap().cut, 1);
}
