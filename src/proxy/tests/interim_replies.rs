//! Interim replies of a legacy that speaks HTTP/1.1 are passed on to HTTP/2 clients; other clients get only the final
//! reply. Those of a legacy that speaks HTTP/2 are not passed on.

use super::http2_client::Http2Client;
use super::rig::{OK, Origin, Rig, Setup, get};
use crate::flag::{HttpVersion, Service};
use crate::limits::INTERIM_REPLIES_MAX;

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n";

async fn hinting(count: usize) -> Origin {
    Origin::script(move |mut wire, _| async move {
        while wire.message(true).await.is_some() {
            wire.send(HINTS.repeat(count)).await;
            wire.send(OK).await;
        }
    })
    .await
}

#[tokio::test]
async fn early_hints_pass_to_a_client_of_http2() {
    let rig = Rig::new(&hinting(1).await, Setup::default()).await;
    let mut client = Http2Client::new(&rig).await;
    for _ in 0..2 {
        let (mut pending, _) = client.begin_get("/page").await;
        assert_eq!(pending.interim().await, 103);
        let reply = pending.reply().await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "{\"id\":\"o-17\"}"));
    }
    let mut http1 = rig.connect().await;
    for _ in 0..2 {
        assert_eq!(http1.ask(&get("/page")).await.status(), 200, "and nothing before");
    }
}

#[tokio::test]
async fn interim_replies_beyond_the_limit_are_dropped_and_the_final_reply_is_not() {
    let rig = Rig::new(&hinting(3 * INTERIM_REPLIES_MAX).await, Setup::default()).await;
    let mut client = Http2Client::new(&rig).await;
    assert_eq!(client.get("/page").await.status, 200);
    assert_eq!(client.get("/page").await.status, 200);
}

/// hyper's HTTP/2 client does not report interim replies, so they are not passed on.
#[tokio::test]
async fn interim_replies_of_a_legacy_that_speaks_http2_do_not_disturb_the_reply() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    for status in [102, 103, 103] {
                        let interim = http::Response::builder().status(status).body(()).unwrap();
                        respond.send_informational(interim).unwrap();
                    }
                    let reply = http::Response::builder().header("x-last", "yes").body(()).unwrap();
                    respond.send_response(reply, false).unwrap().send_data("whole".into(), true).unwrap();
                }
            });
        }
    });
    let service =
        Service { http: HttpVersion::Http2, ..Service::at("shop", [format!("http://{address}").parse().unwrap()]) };
    let unused = Origin::always_answers(OK).await;
    let rig = Rig::new(&unused, Setup { service: Some(service), ..Setup::default() }).await;
    let (mut http1, mut http2) = (rig.connect().await, Http2Client::new(&rig).await);
    for _ in 0..2 {
        let reply = http1.ask(&get("/page")).await;
        assert_eq!((reply.status(), reply.field("x-last"), reply.text().as_str()), (200, Some("yes"), "whole"));
        let reply = http2.get("/page").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "whole"));
    }
}
