//! The number of memory allocations for a request, from its first byte to the last byte of its reply.
//!
//! Client and origin have threads of their own, and only what the proxy's thread allocates is counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use allocation_counter::{AllocationInfo, measure};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::rig::{OK, Rig, Setup, get};
use super::wire::bounded;

/// The most allocations for a request of a route in `off`. hyper makes four of them: the channels of the reply's head
/// and of its body, and the buffer of the reply with its reference count. The rest is memory that several requests
/// share: the client's buffer, and the block from which `traceparent`s are cut.
const PER_REQUEST_MAX: f64 = 4.2;

/// How often the allocations are counted until the count is small enough.
const COUNTS_MAX: usize = 12;

const REQUESTS: usize = 1_000;

/// Reads a message that ends with these bytes.
fn read_to(stream: &mut TcpStream, end: &[u8], buffer: &mut Vec<u8>) -> bool {
    buffer.clear();
    let mut part = [0; 4096];
    while !buffer.ends_with(end) {
        match stream.read(&mut part) {
            Ok(read) if read > 0 => buffer.extend_from_slice(&part[..read]),
            _ => return false,
        }
    }
    true
}

/// An origin that answers each request with `OK`. Its threads end with its connections.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut buffer = Vec::new();
                while read_to(&mut stream, b"\r\n\r\n", &mut buffer) && stream.write_all(OK.as_bytes()).is_ok() {}
            });
        }
    });
    address
}

/// Sends a request `times` times over one connection, each after the reply to the previous one has come.
fn ask(stream: &mut TcpStream, request: &str, times: usize) {
    let end = &OK[OK.len() - 13..];
    let mut buffer = Vec::new();
    for _ in 0..times {
        stream.write_all(request.as_bytes()).unwrap();
        assert!(read_to(stream, end.as_bytes(), &mut buffer), "a reply");
        assert!(buffer.starts_with(b"HTTP/1.1 200 "));
    }
}

fn per_request(path: &str) -> f64 {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let edit_route = |route: &mut crate::flag::Route| (route.workflow, route.instance) = (None, None);
    let rig = runtime.block_on(Rig::at(origin(), Setup { edit_route, ..Setup::default() }));
    let request = get(path);
    let (warm, is_warm) = oneshot::channel();
    let (go, may_go) = std::sync::mpsc::channel::<()>();
    let (done, is_done) = oneshot::channel();
    let address = rig.address;
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        ask(&mut stream, &request, 100);
        warm.send(()).unwrap();
        may_go.recv().unwrap();
        ask(&mut stream, &request, REQUESTS);
        done.send(()).unwrap();
    });
    runtime.block_on(bounded("the first requests", is_warm)).unwrap();
    go.send(()).unwrap();
    let AllocationInfo { count_total, .. } =
        measure(|| runtime.block_on(bounded("the requests that are measured", is_done)).unwrap());
    client.join().unwrap();
    count_total as f64 / REQUESTS as f64
}

#[test]
fn a_request_in_off_allocates_little() {
    for path in ["/any", "/orders/17"] {
        // What the runtime does by the clock only adds, the more the slower the machine is: the least is the request's.
        let mut counts = (0..COUNTS_MAX).map(|_| per_request(path));
        let mut allocations = f64::INFINITY;
        while allocations > PER_REQUEST_MAX
            && let Some(count) = counts.next()
        {
            allocations = allocations.min(count);
        }
        println!("{path}: {allocations:.2} allocations for a request");
        assert!(allocations <= PER_REQUEST_MAX, "{path}: {allocations:.2}");
    }
}
