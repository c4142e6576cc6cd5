//! Interim replies of legacy: they pass to clients of HTTP/2, and others get the final reply only.

use super::http2_client::Http2Client;
use super::rig::{OK, Origin, Rig, Setup, get};
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
async fn many_of_them_at_once_are_dropped_and_the_reply_is_not() {
    let rig = Rig::new(&hinting(3 * INTERIM_REPLIES_MAX).await, Setup::default()).await;
    let mut client = Http2Client::new(&rig).await;
    assert_eq!(client.get("/page").await.status, 200);
    assert_eq!(client.get("/page").await.status, 200);
}
