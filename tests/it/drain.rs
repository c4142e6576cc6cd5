//! SIGTERM under load: no request fails, no step is half recorded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use pointsman::demo::world::Fault;

use crate::support::town::{Town, some_order};
use crate::support::until_true;

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_are_answered_and_new_ones_are_not_taken() {
    let town = Town::start().await;
    town.climb("live").await;
    let before = town.world.arrived("charge");
    town.world.fault("charge", Fault::Delay(Duration::from_millis(800)), 6);
    let told = AtomicBool::new(false);
    let bodies: Vec<_> = (0..6).map(some_order).collect();
    let asked = futures_util::future::join_all(bodies.iter().map(|body| town.send(Method::POST, "/orders", body)));
    let telling = async {
        until_true("all to be under way", || town.world.arrived("charge") >= before + 6).await;
        town.pointsman.terminate();
        told.store(true, Ordering::SeqCst);
    };
    let (replies, ()) = tokio::join!(asked, telling);
    assert!(told.load(Ordering::SeqCst));
    for reply in replies {
        let reply = reply.expect("an answer in spite of SIGTERM");
        assert_eq!(reply.status, StatusCode::CREATED);
        town.note(reply.json());
    }
    let mut town = town;
    assert_eq!(town.pointsman.ended().await, Some(0));
    town.restart().await;
    town.finish().await;
}
