//! A response does not arrive, or not whole, after the request was sent: the error says that the request may have taken
//! effect.

use super::*;

/// Reads the head of one request, responds with `response` and closes the connection.
fn serve_cut_off(response: &'static str) -> (Server, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let admin = format!("http://{}", listener.local_addr().expect("an address"));
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let (mut request, mut chunk) = (Vec::new(), [0; 4_096]);
        while !request.windows(4).any(|four| four == b"\r\n\r\n") {
            let n = stream.read(&mut chunk).expect("readable");
            request.extend_from_slice(&chunk[..n]);
        }
        stream.write_all(response.as_bytes()).expect("writable");
    });
    (Server { admin, by: None, token_file: None }, served)
}

#[test]
fn the_error_says_that_the_request_may_have_taken_effect() {
    let cut_off = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    for (response, what) in [("", "failed before an answer came"), (cut_off, "could not be read whole")] {
        let (server, served) = serve_cut_off(response);
        let client = Client::new(&server).expect("a client");
        match client.get::<Status>("/api/v2/status") {
            Err(CallError::Failed(message, hint)) => {
                assert!(message.contains(what), "{message}");
                assert!(hint.contains("taken effect: look with `pointsman status`"), "{hint}");
            }
            other => panic!("{other:?}"),
        }
        served.join().expect("served");
    }
}
