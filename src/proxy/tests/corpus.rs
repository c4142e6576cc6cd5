//! Raw requests that servers could interpret differently: each is refused and its connection closed, or is forwarded as
//! one request.

use super::rig::{OK, Origin, Rig, Setup, get};
use crate::flag::State;

/// The expected result.
enum Expected {
    /// Refused with one of these, the connection closed, nothing forwarded.
    Refused(&'static [u16]),
    /// Forwarded once, with this request line and this body.
    One(&'static str, &'static str),
}
use Expected::{One, Refused};

const BAD: Expected = Refused(&[400]);

const CORPUS: &[(&str, &str, Expected)] = &[
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", BAD),
    ("two equal hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", BAD),
    ("no host", "GET / HTTP/1.1\r\n\r\n", BAD),
    ("empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", BAD),
    ("host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", BAD),
    ("host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BAD),
    ("host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", BAD),
    ("host with a bad port", "GET / HTTP/1.1\r\nHost: a:8o\r\n\r\n", BAD),
    ("absolute form, other host", "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("absolute form, same host", "GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n", One("GET /x?y HTTP/1.1", "")),
    ("absolute form, user", "GET http://u@a/x HTTP/1.1\r\nHost: u@a\r\n\r\n", BAD),
    ("absolute form, other scheme", "GET ftp://a/x HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("authority form", "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", BAD),
    ("connect", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Refused(&[501])),
    ("asterisk", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("options asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", One("OPTIONS * HTTP/1.1", "")),
    ("identity, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", BAD),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BAD,
    ),
    ("gzip, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BAD),
    ("xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Refused(&[400, 0])),
    (
        "chunked, identity",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        Refused(&[400, 0]),
    ),
    (
        "chunked with a tab",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        One("POST / HTTP/1.1", "abc"),
    ),
    ("chunked on 1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(&[400, 0])),
    (
        "length and chunked",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        One("POST / HTTP/1.1", "abc"),
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        Refused(&[400, 0]),
    ),
    (
        "two equal lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        One("POST / HTTP/1.1", "abc"),
    ),
    ("length list", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", Refused(&[400, 0])),
    ("signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", Refused(&[400, 0])),
    ("hex length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", Refused(&[400, 0])),
    (
        "endless length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
        Refused(&[400, 0]),
    ),
    ("length with an underscore", "POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\n\r\n", BAD),
    ("coding with an underscore", "POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n", BAD),
    ("an innocent underscore", "GET / HTTP/1.1\r\nHost: a\r\nX_Y: 1\r\n\r\n", One("GET / HTTP/1.1", "")),
    (
        "connection names the length",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 3\r\n\r\nabc",
        BAD,
    ),
    (
        "connection names the coding",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close, Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BAD,
    ),
    ("connection names the host", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Host\r\n\r\n", BAD),
    (
        "connection names the retry key",
        "POST /orders HTTP/1.1\r\nHost: a\r\nConnection: close, Idempotency-Key\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n\r\n",
        BAD,
    ),
    (
        "connection names a credential",
        "POST /orders HTTP/1.1\r\nHost: a\r\nConnection: authorization\r\nAuthorization: a\r\nContent-Length: 0\r\n\r\n",
        BAD,
    ),
    (
        "connection names the retry key where no workflow is",
        "POST /other HTTP/1.1\r\nHost: a\r\nConnection: idempotency-key\r\nIdempotency-Key: k\r\nContent-Length: 1\r\n\r\nx",
        One("POST /other HTTP/1.1", "x"),
    ),
    (
        "connection names a field that decides nothing",
        "POST /orders HTTP/1.1\r\nHost: a\r\nConnection: x-hop\r\nX-Hop: 1\r\nContent-Length: 1\r\n\r\nx",
        One("POST /orders HTTP/1.1", "x"),
    ),
    // Frameworks that upcase methods would perform it, and no POST route would match it.
    ("a known method in lower case", "post /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", BAD),
    ("a known method in mixed case", "gEt /plain HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("a known method in lower case, slashes", "get //plain HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (
        "a known method in lower case where no workflow is",
        "post /other HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        One("post /other HTTP/1.1", "x"),
    ),
    (
        "the path of a workflow with another method in lower case",
        "delete /orders HTTP/1.1\r\nHost: a\r\n\r\n",
        One("delete /orders HTTP/1.1", ""),
    ),
    ("CONNECT in lower case", "connect /x HTTP/1.1\r\nHost: a\r\n\r\n", One("connect /x HTTP/1.1", "")),
    ("an unknown method in lower case", "purge /x HTTP/1.1\r\nHost: a\r\n\r\n", One("purge /x HTTP/1.1", "")),
    ("space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", BAD),
    ("folded field", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n 2\r\n\r\n", BAD),
    ("a NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\x002\r\n\r\n", BAD),
    ("a CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r2\r\n\r\n", BAD),
    ("HTTP/0.9", "GET /\r\n\r\n", BAD),
    ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused(&[400, 0])),
    ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", BAD),
    ("bare LF", "GET / HTTP/1.1\nHost: a\n\n", One("GET / HTTP/1.1", "")),
    ("an unknown Expect", "GET / HTTP/1.1\r\nHost: a\r\nExpect: the-moon\r\n\r\n", Refused(&[417])),
    ("dots", "GET /a/../b/./c HTTP/1.1\r\nHost: a\r\n\r\n", One("GET /b/c HTTP/1.1", "")),
    ("hidden dots", "GET /a/%2e%2E/b?q HTTP/1.1\r\nHost: a\r\n\r\n", One("GET /b?q HTTP/1.1", "")),
    ("above the root", "GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("broken percent", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("encoded NUL", "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("encoded newline", "GET /%0d%0aX:y HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("bypass of the flag, slashes", "GET //plain HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("bypass of the flag, %2F", "GET /%2Fplain HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("bypass of the flag, %5C", "GET /x%5C..%5Cplain HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("double slashes elsewhere", "GET //other//x HTTP/1.1\r\nHost: a\r\n\r\n", One("GET //other//x HTTP/1.1", "")),
    (
        "a loop",
        "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 pointsman, 1.1 pointsman, 1.1 pointsman, 1.1 pointsman\r\nVia: 1.1 pointsman, 1.1 pointsman, 1.1 pointsman, 1.1 pointsman\r\n\r\n",
        Refused(&[508]),
    ),
    ("through one pointsman", "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 pointsman\r\n\r\n", One("GET / HTTP/1.1", "")),
    ("1.0 without a host", "GET /old HTTP/1.0\r\n\r\n", One("GET /old HTTP/1.1", "")),
];

#[tokio::test]
async fn each_raw_request_is_refused_and_closed_or_forwarded_as_one_request() {
    for (name, raw, expected) in CORPUS {
        let origin = Origin::always_answers(OK).await;
        let rig = Rig::new(&origin, Setup { state: State::Shadow, ..Setup::default() }).await;
        let mut client = rig.connect().await;
        client.send(raw).await;
        match expected {
            Refused(statuses) => {
                // A second request behind it must never be answered.
                let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, get("/behind").as_bytes()).await;
                let status = client.message(true).await.map_or(0, |reply| reply.status());
                assert!(statuses.contains(&status), "{name}: {status}");
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await;
                client.ends().await;
                assert!(origin.requests().is_empty(), "{name}: {:?}", origin.requests());
            }
            One(line, body) => {
                let reply = client.reply().await;
                assert_eq!(reply.status(), 200, "{name}: {}", reply.text());
                let seen = origin.only_request();
                assert_eq!((seen.line(), seen.text().as_str()), (*line, *body), "{name}");
                assert_eq!(seen.fields("host").len(), 1, "{name}");
                let framed = seen.fields("content-length").len() + seen.fields("transfer-encoding").len();
                assert!(framed <= 1, "{name}: {}", seen.head);
            }
        }
    }
    println!("{} requests, 0 violations", CORPUS.len());
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let long = "x".repeat(70 << 10);
    let many: String = (0..101).map(|i| format!("X-{i}: 1\r\n")).collect();
    for head in [format!("X-A: {long}\r\n"), many] {
        let mut client = rig.connect().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{head}\r\n")).await;
        assert_eq!(client.message(true).await.unwrap().status(), 431);
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = rig.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 500000\r\n\r\n").await;
    client.send(vec![b'x'; 200_000]).await;
    assert_eq!(client.reply().await.status(), 400);
}
