//! Many clients that disconnect at random, and an origin that closes at random: no client gets another's reply, and
//! every ticket is settled once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::rig::{Origin, Rig, Setup};
use super::wire::bounded;
use crate::flag::State;

const CLIENTS: u64 = 24;
const REQUESTS: u64 = 60;

/// Answers with the request's own id. At random sends the answer in pieces, cuts it, closes after it, or closes without
/// one.
async fn unreliable_origin() -> Origin {
    Origin::script(|mut wire, _| async move {
        let mut random = fastrand::Rng::new();
        while let Some(request) = wire.message(true).await {
            let id = request.field("x-id").unwrap_or("none").to_owned();
            let body = format!("{id}/{}", request.text());
            let reply = match random.u8(..10) {
                0 => return,
                1 => format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}"),
                2 | 3 => format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                    body.len()
                ),
                4 => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", body.len() + 1, body),
                _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
            };
            let cut = reply.contains("Connection: close") || random.u8(..20) == 0 || {
                reply.starts_with("HTTP/1.1 200 OK\r\nContent-Length")
                    && !reply.contains(&format!(": {}\r\n\r\n", body.len()))
            };
            for piece in reply.as_bytes().chunks(random.usize(1..200)) {
                if tokio::io::AsyncWriteExt::write_all(&mut wire.stream, piece).await.is_err() {
                    return;
                }
            }
            if cut {
                return;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_client_gets_the_reply_of_another() {
    let origin = unreliable_origin().await;
    let rig = Arc::new(Rig::new(&origin, Setup { state: State::Shadow, ..Setup::default() }).await);
    let (whole, cut, left, failed) = (counter(), counter(), counter(), counter());
    let mut tasks = Vec::new();
    for client in 0..CLIENTS {
        let (rig, whole, cut, left, failed) = (rig.clone(), whole.clone(), cut.clone(), left.clone(), failed.clone());
        tasks.push(tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(client);
            let mut wire = rig.connect().await;
            for n in 0..REQUESTS {
                let id = format!("{client}-{n}");
                let body = "b".repeat(random.usize(..300));
                let request = format!(
                    "POST /orders HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                let sent = tokio::io::AsyncWriteExt::write_all(&mut wire.stream, request.as_bytes()).await;
                if sent.is_ok() && random.u8(..8) == 0 {
                    // Leaves without waiting.
                    left.fetch_add(1, SeqCst);
                    wire = rig.connect().await;
                    continue;
                }
                match wire.message(true).await {
                    Some(reply) if reply.status() == 200 => {
                        let expected = format!("{id}/{body}");
                        if reply.field("content-length").is_none() && reply.field("transfer-encoding").is_none() {
                            panic!("a reply without an end: {}", reply.head);
                        }
                        assert_eq!(reply.text(), expected, "another's reply");
                        whole.fetch_add(1, SeqCst);
                        if reply.field("connection") == Some("close") {
                            wire = rig.connect().await;
                        }
                    }
                    Some(reply) => {
                        assert_eq!(reply.status(), 502, "{}", reply.text());
                        failed.fetch_add(1, SeqCst);
                        if reply.field("connection") == Some("close") {
                            wire = rig.connect().await;
                        }
                    }
                    None => {
                        cut.fetch_add(1, SeqCst);
                        wire = rig.connect().await;
                    }
                }
            }
        }));
    }
    for task in tasks {
        bounded("a client", task).await.expect("no client saw a wrong reply");
    }
    let asked = CLIENTS * REQUESTS;
    let [whole, cut, left, failed] = [whole, cut, left, failed].map(|counter| counter.load(SeqCst) as u64);
    assert_eq!(whole + cut + left + failed, asked);
    // After the drain no request is in flight: no further ticket is opened.
    let Ok(Rig { fakes, shutdown, serving, .. }) = Arc::try_unwrap(rig) else { panic!("a client still runs") };
    shutdown.cancel();
    bounded("the drain", serving).await.unwrap();
    let opened = fakes.opened.load(SeqCst);
    // A client that leaves may do so before its request was read.
    assert!((asked - left..=asked).contains(&opened), "{opened} tickets for {asked} requests, {left} abandoned");
    let settled = fakes.until("every ticket is settled", |f| {
        let settled = f.settled.lock().unwrap().clone();
        (settled.len() as u64 >= opened).then_some(settled)
    });
    let mut settled = settled.await;
    settled.sort_unstable();
    assert!(settled.iter().copied().eq(0..opened), "each ticket is settled once: {settled:?}");
    println!(
        "{asked} requests: {whole} whole, {cut} cut, {left} abandoned by the client, {failed} failed; {opened} tickets \
         opened, each settled once"
    );
}

fn counter() -> Arc<AtomicUsize> {
    Arc::new(AtomicUsize::new(0))
}
