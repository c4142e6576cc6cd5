//! Memory goes back after a burst of connections.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::bulk_server::BulkServer;
use crate::support::process::Start;
use crate::support::{FlagsDir, Pointsman, WAIT_MAX, until};

/// Fewer than the files that a process may usually open.
const CONNECTIONS: usize = 700;
/// The size of the partial head that each connection sends; the process keeps it until the head is complete.
const HEAD_BYTES: usize = 60_000;
/// The largest share of the memory taken by a burst that may stay allocated, in percent.
const KEPT_PERCENT_MAX: u64 = 25;

#[tokio::test(flavor = "multi_thread")]
async fn memory_goes_back_after_many_long_heads() {
    let bulk_server = BulkServer::start().await;
    let flags = FlagsDir::passthrough(&bulk_server.url());
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    let mut warm = TcpStream::connect(pointsman.listen).await.expect("a connection");
    for _ in 0..20 {
        warm.write_all(b"GET /down/10 HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("a request is taken");
        tokio::time::timeout(WAIT_MAX, warm.read(&mut [0; 4_096])).await.expect("in time").expect("an answer");
    }
    let before = pointsman.resident_kib();
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx-long: {}", "x".repeat(HEAD_BYTES));
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(pointsman.listen).await.expect("a connection");
        stream.write_all(head.as_bytes()).await.expect("a part of a head is taken");
        held.push(stream);
    }
    // All of it is read, and half of the bytes at least are in memory.
    let taken_min = (CONNECTIONS * HEAD_BYTES / 2 / 1_024) as u64;
    let during = until("the heads to be read", || async {
        Some(pointsman.resident_kib()).filter(|resident| *resident > before + taken_min)
    })
    .await;
    drop(held);
    let bound = before + (during - before) * KEPT_PERCENT_MAX / 100;
    let after = until("the memory to go back", || async {
        Some(pointsman.resident_kib()).filter(|resident| *resident <= bound)
    })
    .await;
    eprintln!(
        "{CONNECTIONS} heads of {HEAD_BYTES} bytes: {before} KiB before, {during} KiB with them, {after} KiB after"
    );
    assert_eq!(pointsman.stop().await, Some(0));
}
