//! A gibibyte up and a gibibyte down are streamed in constant memory in `off`; so are a gibibyte up and a quarter of
//! one down where a copy is captured.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::bulk_server::{BulkServer, CHUNK, discard, read_head, send_bytes};
use crate::support::process::{Start, output_text};
use crate::support::{FlagsDir, Pointsman, checker};

const GIB: u64 = 1 << 30;

/// The memory that a body may cost, whatever its size.
const GROWTH_KIB_MAX: u64 = 32 << 10;

async fn upload(to: SocketAddr, bytes: u64) {
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    let request = format!("POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: {bytes}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a head is taken");
    send_bytes(&mut stream, bytes).await.expect("the body is taken");
    let mut buffer = vec![0; CHUNK];
    let reply = read_head(&mut stream, &mut buffer).await.expect("an answer");
    assert!(reply.line.starts_with("http/1.1 200"), "{}", reply.line);
    let text = String::from_utf8_lossy(&buffer);
    assert!(text.contains(&bytes.to_string()), "legacy counted all of them");
}

async fn download(from: SocketAddr, bytes: u64) {
    let mut stream = TcpStream::connect(from).await.expect("a connection");
    let request = format!("GET /down/{bytes} HTTP/1.1\r\nhost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a head is taken");
    let mut buffer = vec![0; CHUNK];
    let reply = read_head(&mut stream, &mut buffer).await.expect("an answer");
    assert_eq!(reply.length, bytes);
    discard(&mut stream, &mut buffer, reply.length - reply.body_bytes_read)
        .await
        .expect("the whole body, not a byte more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_each_way_takes_constant_memory() {
    let bulk_server = BulkServer::start().await;
    let flags = FlagsDir::passthrough(&bulk_server.url());
    flags
        .write("workflows/make.yaml", "workflow: make\nsteps: { n: { set: 1 } }\nrespond: { status: 200, body: {} }\n");
    flags.write(
        "routes/things.yaml",
        "routes:\n\
         - { id: up, match: { method: POST, path: /up }, legacy: shop, workflow: make, state: off }\n\
         - { id: down, match: { method: GET, path: \"/down/{n}\" }, legacy: shop, workflow: make, state: off }\n",
    );
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    upload(pointsman.listen, 1 << 20).await;
    download(pointsman.listen, 1 << 20).await;
    for state in ["off", "shadow"] {
        for route in ["up", "down"] {
            let flipped = pointsman.cli(&["flip", route, state, "--reason", "bodies of all sizes"]).await;
            assert!(flipped.status.success(), "{}", output_text(&flipped));
        }
        // In `shadow` a smaller reply is enough: it exceeds the capture cap while it is streamed.
        let (up, down) = if state == "off" { (GIB, GIB) } else { (GIB, GIB / 4) };
        let base = pointsman.reset_peak();
        let begun = Instant::now();
        tokio::join!(upload(pointsman.listen, up), download(pointsman.listen, down));
        let grown = pointsman.peak_kib().saturating_sub(base);
        eprintln!("{up} bytes up and {down} down in {state}: {:?}, memory grew by {grown} KiB", begun.elapsed());
        assert!(grown < GROWTH_KIB_MAX, "in {state} memory grew by {grown} KiB");
    }
    let large = [("outcome", "skipped"), ("reason", "body_too_large")];
    let metrics =
        pointsman.until_metric("both to be skipped", |m| m.sum("pointsman_comparisons_total", &large) == 2.0).await;
    checker::check_balance(&metrics);
    assert_eq!(pointsman.stop().await, Some(0));
}
