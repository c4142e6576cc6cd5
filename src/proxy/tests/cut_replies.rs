//! Replies that a service ends before they are whole.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::http2_client::{Http2Client, RawHttp2, fields, frame};
use super::http2_origin::read_until;
use super::rig::{OK, Origin, Rig, Setup, get};
use super::wire::bounded;
use crate::flag::{HttpVersion, Service};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// A head with only the status 200, as HPACK has it in its static table.
const STATUS_200: &[u8] = &[0x88];

/// How often a race is run.
const RUNS: usize = 20;
const SENT: usize = 60_000;

/// Legacy sends a part of a body, and its end of the connection right behind it.
async fn cutting() -> Origin {
    Origin::script(|mut wire, _| async move {
        if wire.message(true).await.is_some() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 * SENT);
            wire.send([head.as_bytes(), &vec![b'x'; SENT]].concat()).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_gets_all_bytes_that_came_before_a_cut() {
    let origin = cutting().await;
    let rig = Rig::new(&origin, Setup::default()).await;
    for _ in 0..RUNS {
        let mut client = rig.connect().await;
        client.send(get("/any")).await;
        let all = bounded("the end", client.rest()).await;
        assert!(all.starts_with(b"HTTP/1.1 200 OK\r\n"), "{} bytes", all.len());
        assert_eq!(all.iter().filter(|byte| **byte == b'x').count(), SENT);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_http2_gets_all_bytes_that_came_before_a_cut() {
    let origin = cutting().await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = Http2Client::new(&rig).await;
    for _ in 0..RUNS {
        let head = client.begin_get("/any").await.0.head().await.expect("a head");
        let mut body = head.into_body();
        let mut bytes = 0;
        let error = loop {
            match bounded("a frame", body.data()).await.expect("the reply does not end") {
                Ok(data) => {
                    bytes += data.len();
                    body.flow_control().release_capacity(data.len()).unwrap();
                }
                Err(error) => break error,
            }
        };
        assert_eq!((bytes, error.reason()), (SENT, Some(h2::Reason::INTERNAL_ERROR)));
    }
}

/// Legacy speaks HTTP/2 and answers each connection's only request with these frames.
async fn http2_legacy(answer: impl Fn(u32) -> Vec<u8> + Send + Sync + Copy + 'static) -> Rig {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = Service::at("shop", [format!("http://{}", listener.local_addr().unwrap()).parse().unwrap()]);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answer));
        }
    });
    let unused = Origin::always_answers(OK).await;
    let service = Service { http: HttpVersion::Http2, ..service };
    Rig::new(&unused, Setup { service: Some(service), ..Setup::default() }).await
}

async fn serve(mut stream: TcpStream, answer: impl Fn(u32) -> Vec<u8>) {
    let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[])).await;
    let Some(number) = read_until(&mut stream, HEADERS, true).await else { return };
    let _ = stream.write_all(&answer(number)).await;
    // Reads until the client closes.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// If the stream of a reply is reset with one of these codes, hyper ends the body as if it were whole.
const NO_ERROR: [u8; 4] = [0, 0, 0, 0];
const CANCEL: [u8; 4] = [0, 0, 0, 8];

#[tokio::test]
async fn a_reset_without_an_error_cuts_a_reply() {
    for code in [NO_ERROR, CANCEL] {
        for part in [&b"part"[..], b""] {
            let rig = http2_legacy(move |stream| {
                let mut answer = frame(HEADERS, END_HEADERS, stream, STATUS_200);
                if !part.is_empty() {
                    answer.extend(frame(DATA, 0, stream, part));
                }
                answer.extend(frame(RST_STREAM, 0, stream, &code));
                answer
            })
            .await;
            let mut client = rig.connect().await;
            client.send(get("/any")).await;
            let all = String::from_utf8(bounded("the end", client.rest()).await).unwrap();
            assert!(all.starts_with("HTTP/1.1 200 OK\r\n"), "{all}");
            assert!(!all.ends_with("0\r\n\r\n"), "not ended like a whole one: {all}");
            let mut client = Http2Client::new(&rig).await;
            let head = client.begin_get("/any").await.0.head().await.expect("a head");
            let error = super::http2_client::whole(head).await.expect_err("a cut reply");
            assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
        }
    }
}

/// The h2 crate ends a connection after 100 such frames.
#[tokio::test]
async fn empty_data_frames_of_a_service_do_not_end_its_connection() {
    let rig = http2_legacy(|stream| {
        let mut answer = frame(HEADERS, END_HEADERS, stream, STATUS_200);
        (0..300).for_each(|_| answer.extend(frame(DATA, 0, stream, b"")));
        answer.extend(frame(DATA, END_STREAM, stream, b"whole"));
        answer
    })
    .await;
    let reply = rig.ask(&get("/any")).await;
    assert_eq!((reply.status(), reply.text().as_str()), (200, "whole"));
}

#[tokio::test]
async fn empty_data_frames_of_a_client_do_not_end_its_connection() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = RawHttp2::new(&rig).await;
    let mut request = frame(HEADERS, END_HEADERS, 1, &fields("POST"));
    (0..300).for_each(|_| request.extend(frame(DATA, 0, 1, b"")));
    request.extend(frame(DATA, END_STREAM, 1, b"{}"));
    client.wire.send(request).await;
    loop {
        let (kind, ..) = bounded("a frame", client.next()).await.expect("the connection goes on");
        match kind {
            HEADERS => break,
            GOAWAY | RST_STREAM => panic!("frame {kind}"),
            _ => {}
        }
    }
    assert_eq!(origin.only_request().text(), "{}");
}

/// A service that has answered and wants no more of the request resets the stream behind its answer (RFC 9113, 8.1).
#[tokio::test]
async fn a_reset_behind_a_whole_reply_does_not_cut_it() {
    for code in [NO_ERROR, CANCEL] {
        let rig = http2_legacy(move |stream| {
            let head = frame(HEADERS, END_HEADERS, stream, STATUS_200);
            [head, frame(DATA, END_STREAM, stream, b"whole"), frame(RST_STREAM, 0, stream, &code)].concat()
        })
        .await;
        let reply = rig.ask(&get("/any")).await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, "whole"));
    }
}
