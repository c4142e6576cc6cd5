//! Several listeners serve the same routes, share the limit on connections, and drain together.

use tokio::net::TcpStream;

use super::drains::origin_that_waits;
use super::rig::{OK, Origin, Rig, Setup, get};
use super::wire::{Wire, bounded};
use crate::limits::Limits;
use crate::listener::Listener;

fn two() -> Vec<Listener> {
    let plain = || Listener::plain("127.0.0.1:0".parse().unwrap());
    vec![plain(), plain()]
}

async fn connect(rig: &Rig, listener: usize) -> Wire {
    Wire::new(bounded("connecting", TcpStream::connect(rig.addresses[listener])).await.unwrap())
}

#[tokio::test]
async fn requests_in_flight_on_all_listeners_finish_in_one_drain() {
    let (origin, may_answer, mut asked) = origin_that_waits().await;
    let rig = Rig::new(&origin, Setup { listeners: two(), ..Setup::default() }).await;
    let mut wires = [connect(&rig, 0).await, connect(&rig, 1).await];
    for wire in &mut wires {
        wire.send(get("/busy")).await;
    }
    bounded("legacy works", asked.wait_for(|n| *n == 2)).await.unwrap();
    rig.shutdown.cancel();
    for address in &rig.addresses {
        bounded("nothing more is accepted", async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert!(!rig.serving.is_finished(), "requests are in flight");
    may_answer.send_replace(true);
    for wire in &mut wires {
        let reply = wire.reply().await;
        assert_eq!((reply.status(), reply.field("connection")), (200, Some("close")));
        wire.ends().await;
    }
    assert_eq!(bounded("the drain", rig.serving).await.unwrap().cut, 0);
}

#[tokio::test]
async fn listeners_share_the_room_for_connections() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { client_connections_max: 1, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { listeners: two(), limits, ..Setup::default() }).await;
    let mut first = connect(&rig, 0).await;
    assert_eq!(first.ask(&get("/")).await.status(), 200);
    let mut second = connect(&rig, 1).await;
    assert_eq!(second.ask(&get("/")).await.status(), 200);
    first.ends().await;
}
