//! Raw requests through the proxy to origins of different make: each is refused, or is one request that the origin
//! reads as it was sent, and the next request on the connection to the origin is read as it was sent too.

use crate::support::echo_origins::{self, EchoOrigin};
use crate::support::process::Start;
use crate::support::raw_connection::RawConnection;
use crate::support::raw_requests::{Expected, raw_requests};
use crate::support::{FlagsDir, Pointsman};

const ROUTES: &str = r#"
routes:
  - id: orders.create
    match: { method: POST, path: /orders }
    legacy: shop
    workflow: answer
    state: shadow
    instance: { creates: $.id }
  - id: orders.show
    match: { method: GET, path: "/orders/{id}" }
    legacy: shop
    workflow: answer
    state: shadow
    instance: { follows: orders.create, key: path.id }
  - id: plain
    match: { method: GET, path: /plain }
    legacy: shop
    workflow: answer
    state: shadow
"#;
const WORKFLOW: &str = r#"
workflow: answer
steps:
  nothing: { set: "done" }
respond: { status: 200, body: { id: "${run.id}" } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn origins_of_different_make_read_each_raw_request_as_it_was_sent() {
    let (mut cases, mut refused_by_origins, mut violations) = (0, 0, Vec::new());
    for origin in echo_origins::all().await {
        let flags = FlagsDir::passthrough(&origin.url);
        flags.write("routes/all.yaml", ROUTES);
        flags.write("workflows/answer.yaml", WORKFLOW);
        let dir = tempfile::tempdir().expect("a directory");
        let start = Start::in_memory(flags.path(), dir.path());
        let mut pointsman = Pointsman::start(&start).await;
        for (number, (name, raw, expected)) in raw_requests().enumerate() {
            cases += 1;
            match outcome(&pointsman, &origin, raw, *expected).await {
                Ok(by_origin) => refused_by_origins += usize::from(by_origin),
                Err(why) => violations.push(format!("{}: {name}: {why}", origin.name)),
            }
            let marker = format!("GET /marker-{number} HTTP/1.1\r\nHost: a\r\n\r\n");
            let reply = RawConnection::connect(pointsman.listen).await.send(&marker).await.reply().await;
            let text = String::from_utf8_lossy(&reply.body);
            if text.trim_end() != format!("GET /marker-{number}") {
                violations.push(format!("{}: behind {name}: {} {text}", origin.name, reply.status));
            }
        }
        assert_eq!(pointsman.stop().await, Some(0));
    }
    println!("{cases} requests, {refused_by_origins} of them refused by an origin, {} violations", violations.len());
    assert!(violations.is_empty(), "{violations:#?}");
}

/// Sends a raw request. Returns whether the origin, and not the proxy, refused it; or what is wrong.
async fn outcome(
    pointsman: &Pointsman,
    origin: &EchoOrigin,
    raw: &'static str,
    expected: Expected,
) -> Result<bool, String> {
    let mut connection = RawConnection::connect(pointsman.listen).await;
    let reply = connection.send(raw).await.reply().await;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let is_ours = reply.header("x-pointsman-source").is_some() || reply.body.is_empty();
    let (line, body) = match expected {
        Expected::Refused(statuses) => {
            return match statuses.contains(&reply.status) && is_ours {
                true => Ok(false),
                false => Err(format!("{} {text}", reply.status)),
            };
        }
        Expected::One(line, body) => (line, body),
    };
    // An origin may refuse what the proxy accepts.
    if (400..=501).contains(&reply.status) && reply.header("x-pointsman-source").is_none() {
        return Ok(true);
    }
    let target = line.strip_suffix(" HTTP/1.1").unwrap_or(line);
    // uvicorn does not tell whether there was an empty query.
    let target = target.strip_suffix('?').filter(|_| origin.name == "uvicorn").unwrap_or(target);
    let expected = match origin.reads_body {
        true => format!("{target} {body}"),
        false => format!("{target} "),
    };
    match (reply.status, text == expected) {
        (200, true) => Ok(false),
        (status, _) => Err(format!("{status} `{text}` instead of `{expected}`")),
    }
}
