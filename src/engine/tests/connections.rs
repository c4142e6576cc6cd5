//! Connections to services that close, lie or say nothing.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::kit::PATIENCE;
use crate::engine::ports::connections::{ConnectionPool, ExchangeError, Exchanged, PooledConnection, to_origin_form};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A request's head and body, as they came; `None` where the other side closed.
async fn heard(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"ping") {
        let mut byte = [0; 1];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            return None;
        }
        text.push(byte[0]);
    }
    Some(String::from_utf8(text).unwrap())
}

struct Way {
    uri: Uri,
    links: std::sync::Arc<ConnectionPool>,
}

impl Way {
    async fn to(listener: &TcpListener, idle_max: usize, idle_for: Duration) -> Self {
        let uri = format!("http://{}/a/b?c=d", listener.local_addr().unwrap()).parse().unwrap();
        Self { uri, links: ConnectionPool::new(idle_max, idle_for, idle_for) }
    }
    async fn take(&self) -> PooledConnection {
        self.links.take(&self.uri, true, PATIENCE).await.unwrap()
    }
    async fn ask(
        &self,
        link: &mut PooledConnection,
        bytes_max: usize,
        within: Duration,
    ) -> Result<Exchanged, ExchangeError> {
        let mut request = Request::post(self.uri.clone()).body(Full::new(Bytes::from("ping"))).unwrap();
        to_origin_form(&mut request);
        let ends = Instant::now() + within;
        let asked = link.exchange(request, bytes_max, ends, ends);
        timeout(PATIENCE, asked).await.unwrap().map_err(|(broken, _)| broken)
    }
    /// One exchange that ends well; whether its connection had been idle.
    async fn well(&self) -> bool {
        let mut link = self.take().await;
        let reused = link.reused;
        let Ok(Exchanged::Whole((head, body))) = self.ask(&mut link, 99, PATIENCE).await else {
            panic!("no whole reply")
        };
        assert_eq!((head.status.as_u16(), body.unwrap()), (200, Bytes::from("ok")));
        self.links.give_back(&self.uri, link).await;
        reused
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn a_connection_is_used_again_and_names_its_host() {
    let listener = listener().await;
    let way = Way::to(&listener, 9, PATIENCE).await;
    let other = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heads = Vec::new();
        while let Some(head) = heard(&mut stream).await {
            heads.push(head);
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
        (heads, listener)
    });
    assert!(!way.well().await);
    assert!(way.well().await);
    let host = way.uri.authority().unwrap().to_string();
    drop(way);
    let (heads, _) = timeout(PATIENCE, other).await.unwrap().unwrap();
    assert_eq!(heads.len(), 2, "and the connection closed with its last owner");
    assert!(heads.iter().all(|head| head.starts_with("POST /a/b?c=d HTTP/1.1\r\n")), "{heads:?}");
    assert!(heads.iter().all(|head| head.contains(&format!("host: {host}\r\n"))), "{heads:?}");
}

#[tokio::test]
async fn what_the_other_side_closed_is_not_used() {
    let listener = listener().await;
    let way = Way::to(&listener, 9, PATIENCE).await;
    let other = tokio::spawn(async move {
        for _ in 0..20 {
            let (mut stream, _) = listener.accept().await.unwrap();
            heard(&mut stream).await.unwrap();
            // Closed without a word.
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    });
    for _ in 0..20 {
        // It is seen as soon as the kernel has told.
        let fresh = async {
            loop {
                let link = way.take().await;
                if !link.reused {
                    break link;
                }
                way.links.give_back(&way.uri, link).await;
                tokio::task::yield_now().await;
            }
        };
        let mut link = timeout(PATIENCE, fresh).await.unwrap();
        let Ok(Exchanged::Whole(_)) = way.ask(&mut link, 99, PATIENCE).await else { panic!("no whole reply") };
        way.links.give_back(&way.uri, link).await;
    }
    timeout(PATIENCE, other).await.unwrap().unwrap();
}

/// Answers so many requests on each connection, then closes it without having announced that; how many there were.
async fn answers(listener: TcpListener, each: usize) -> usize {
    let mut connections = 0;
    while let Ok(Ok((mut stream, _))) = timeout(Duration::from_millis(500), listener.accept()).await {
        connections += 1;
        tokio::spawn(async move {
            for _ in 0..each {
                if heard(&mut stream).await.is_none() {
                    return;
                }
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        });
    }
    connections
}

/// A call that must not be repeated; whether its connection had been used before.
async fn once(way: &Way) -> bool {
    let mut link = way.links.take(&way.uri, false, PATIENCE).await.unwrap();
    let reused = link.reused;
    let Ok(Exchanged::Whole(_)) = way.ask(&mut link, 99, PATIENCE).await else { panic!("no whole reply") };
    way.links.give_back(&way.uri, link).await;
    reused
}

#[tokio::test]
async fn a_call_that_must_not_be_repeated_uses_a_connection_again_once_the_server_was_seen_to_keep_one_open() {
    let listener = listener().await;
    let way = Way::to(&listener, 9, PATIENCE).await;
    let other = tokio::spawn(answers(listener, usize::MAX));
    assert!(!once(&way).await, "nothing is known of the server");
    let trusted = async { while !once(&way).await {} };
    timeout(PATIENCE, trusted).await.unwrap();
    for _ in 0..20 {
        assert!(once(&way).await);
    }
    drop(way);
    other.await.unwrap();
}

#[tokio::test]
async fn a_server_that_closes_unannounced_gets_a_connection_for_each_call_that_must_not_be_repeated() {
    let listener = listener().await;
    let way = Way::to(&listener, 9, PATIENCE).await;
    let other = tokio::spawn(answers(listener, 1));
    for _ in 0..200 {
        assert!(!once(&way).await);
    }
    drop(way);
    assert_eq!(other.await.unwrap(), 200);
}

#[tokio::test]
async fn what_is_idle_for_too_long_is_closed() {
    let listener = listener().await;
    let way = Way::to(&listener, 9, Duration::from_millis(30)).await;
    let other = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        heard(&mut stream).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        assert_eq!(heard(&mut stream).await, None, "closed, though nobody asked again");
    });
    way.well().await;
    timeout(PATIENCE, other).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_cut_off_and_one_that_is_too_large_is_none() {
    let listener = listener().await;
    let way = Way::to(&listener, 9, PATIENCE).await;
    let other = tokio::spawn(async move {
        let replies = ["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "HTTP/1.1 2", "", OK];
        for reply in replies {
            let (mut stream, _) = listener.accept().await.unwrap();
            heard(&mut stream).await.unwrap();
            stream.write_all(reply.as_bytes()).await.unwrap();
            if reply == OK {
                assert_eq!(heard(&mut stream).await, None);
            }
        }
    });
    for _ in 0..3 {
        let mut link = way.take().await;
        let broken = way.ask(&mut link, 99, PATIENCE).await.err();
        assert!(matches!(broken, Some(ExchangeError::CutOff(_))), "{broken:?}");
    }
    let mut link = way.take().await;
    let Ok(Exchanged::Whole((_, body))) = way.ask(&mut link, 1, PATIENCE).await else { panic!("no reply") };
    assert_eq!(body.unwrap_err().len(), 1, "how it begins");
    way.links.give_back(&way.uri, link).await;
    drop(way);
    timeout(PATIENCE, other).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_silent_side_is_waited_for_no_longer_than_asked() {
    let listener = listener().await;
    let way = Way::to(&listener, 9, PATIENCE).await;
    let other = tokio::spawn(async move {
        let (mut silent, _) = listener.accept().await.unwrap();
        heard(&mut silent).await.unwrap();
        let (mut slow, _) = listener.accept().await.unwrap();
        heard(&mut slow).await.unwrap();
        slow.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
        assert_eq!((heard(&mut silent).await, heard(&mut slow).await), (None, None), "both are closed by who gave up");
    });
    let within = Duration::from_millis(40);
    let mut link = way.take().await;
    assert!(matches!(way.ask(&mut link, 99, within).await, Ok(Exchanged::HeadTimedOut)));
    drop(link);
    let mut link = way.take().await;
    assert!(!link.reused);
    assert!(matches!(way.ask(&mut link, 99, within).await, Ok(Exchanged::BodyTimedOut)));
    drop(link);
    timeout(PATIENCE, other).await.unwrap().unwrap();
}

#[tokio::test]
async fn where_nobody_listens_nothing_leaves() {
    let listener = listener().await;
    let way = Way::to(&listener, 9, PATIENCE).await;
    drop(listener);
    let refused = way.links.take(&way.uri, true, PATIENCE).await.err().unwrap();
    assert!(refused.contains("refused"), "{refused}");
}
