//! Services over HTTP/2 whose connections end often, or do not take a request in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use tokio::net::TcpListener;

use super::rig::{OK, Origin, Rig, Setup, get, post};
use super::wire::bounded;
use crate::exchange::ComparisonOutcome;
use crate::flag::{HttpVersion, Service, SkipReason, State};
use crate::limits::Limits;
use crate::transport::ending_origin::{EndingOrigin, early_origin};

async fn rig(address: std::net::SocketAddr, setup: Setup) -> Rig {
    let unused = Origin::always_answers(OK).await;
    let service = Service::at("shop", [format!("http://{address}").parse().unwrap()]);
    let service = Service { http: HttpVersion::Http2, ..service };
    Rig::new(&unused, Setup { service: Some(service), ..setup }).await
}

const CLIENTS: usize = 48;
const POSTS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_is_done_once_where_connections_end_after_a_few() {
    for (requests, streams) in [(7, 100), (7, 4), (3, 1), (1, 100)] {
        let origin = EndingOrigin::start(requests, streams).await;
        let rig = Arc::new(rig(origin.address, Setup::default()).await);
        let client = |number: usize| {
            let rig = rig.clone();
            async move {
                let (mut client, mut failed) = (rig.connect().await, Vec::new());
                for post_number in 0..POSTS {
                    let reply = client.ask(&post("/charges", &format!("{}", number * POSTS + post_number))).await;
                    if reply.status() != 200 {
                        failed.push(reply.text());
                        client = rig.connect().await;
                    }
                }
                failed
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|number| tokio::spawn(client(number))).collect();
        let mut failed = Vec::new();
        for client in clients {
            failed.extend(bounded("the answers", client).await.unwrap());
        }
        assert_eq!(failed, Vec::<String>::new(), "{requests} on each connection, {streams} at the same time");
        let mut done = BTreeMap::<Vec<u8>, usize>::new();
        origin.done.lock().unwrap().iter().for_each(|body| *done.entry(body.clone()).or_default() += 1);
        assert_eq!(done.len(), CLIENTS * POSTS, "all were done");
        assert!(done.values().all(|times| *times == 1), "none was done twice");
        let connections = origin.connections.load(SeqCst);
        eprintln!("{requests} requests, {streams} streams: {connections} connections");
        // Not many more connections than needed, because the client side knows how many requests each connection takes.
        assert!(connections < 2 * (CLIENTS * POSTS).div_ceil(requests), "{connections} connections");
    }
}

/// The service counts the first request's stream until that request's body has ended.
#[tokio::test]
async fn a_request_that_was_answered_early_keeps_its_place_until_its_body_has_ended() {
    let (address, connections) = early_origin().await;
    let rig = rig(address, Setup::default()).await;
    let mut first = rig.connect().await;
    first.send("POST /upload HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 10\r\n\r\nhalf-").await;
    assert_eq!(first.reply().await.status(), 200);
    assert_eq!(rig.ask(&get("/next")).await.status(), 200);
    assert_eq!(connections.load(SeqCst), 2, "the first one has no room");
}

/// The service accepts connections but sends no SETTINGS, so no HTTP/2 connection is established.
#[tokio::test]
async fn a_request_whose_time_ends_before_there_is_a_connection_was_not_sent() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = Limits { total_ms: 100, ..Limits::default() };
    let setup = Setup { state: State::Shadow, limits, ..Setup::default() };
    let rig = rig(silent.local_addr().unwrap(), setup).await;
    let refused = rig.ask(&post("/orders", "{}")).await;
    assert_eq!(refused.status(), 504, "{}", refused.text());
    assert!(
        refused.text().contains("timeout-not-sent") && refused.text().contains("Nothing was sent"),
        "{}",
        refused.text()
    );
    assert_eq!(rig.fakes.outcome().await, ComparisonOutcome::Skipped(SkipReason::LegacyRefused));
}
