//! The number of series does not depend on what clients and legacy send.

use std::net::SocketAddr;

use http::Method;
use serde_json::Value;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::Start;
use crate::support::raw_connection::RawConnection;
use crate::support::{FlagsDir, PROMOTE, Pointsman};

/// How many different values of each kind are sent.
const VALUES: usize = 10_000;
/// Connections that send at the same time.
const CONNECTIONS: usize = 16;
/// Is in every value that is sent, and may be in no series.
const MARK: &str = "zq7";
/// The most label sets that may come to those that one request of each kind leaves: outcomes that are rarer than that,
/// such as a full shadow queue.
const NEW_SETS_MAX: usize = 20;
/// The most series of the process, buckets of histograms included.
const SERIES_MAX: usize = 1_500;

const ROUTES: &str = r#"
routes:
  - id: items.create
    match: { method: POST, path: /items }
    legacy: shop
    workflow: create
    state: shadow
    key: '${request.headers["x-tenant"]}'
    retry_key: '${request.headers["idempotency-key"]}'
    instance: { creates: $.id }
  - id: items.get
    match: { method: GET, path: "/items/{id}" }
    legacy: shop
    workflow: get
    state: shadow
    instance: { follows: items.create, key: path.id }
"#;
const CREATE: &str = "workflow: create\nsteps: { rate: { call: \"GET ${services.bank}/rate\" } }\n\
                      respond: { status: 200, body: { id: \"${run.id}\" } }\n";
const GET: &str = "workflow: get\nsteps: { rate: { call: \"GET ${services.bank}/rate\" } }\n\
                   respond: { status: 200, body: { id: \"${instance.id}\" } }\n";

/// One request with values of its own: a method, path, host, key, caller and user agent.
fn request(line: &str, number: usize) -> String {
    format!(
        "{line} HTTP/1.1\r\nhost: {MARK}-{number}.test\r\nuser-agent: {MARK}/{number}\r\nx-tenant: {MARK}-{number}\r\n\
         idempotency-key: {MARK}-{number}\r\ntraceparent: 00-{number:032x}-{number:016x}-01\r\ncontent-type: \
         application/json\r\ncontent-length: 2\r\n\r\n{{}}"
    )
}

/// The kinds of requests: to the proxy, or to the egress listener.
fn lines(number: usize) -> [(bool, String); 4] {
    [
        (false, format!("{}{number} /{MARK}-{number}/x?{MARK}={number}", MARK.to_ascii_uppercase())),
        (false, "POST /items".to_owned()),
        (false, format!("GET /items/{MARK}-{number}")),
        (true, format!("GET /bank/{MARK}-{number}")),
    ]
}

/// Sends all kinds of requests with these numbers, one after the other.
async fn send(proxy: SocketAddr, egress: SocketAddr, numbers: impl Iterator<Item = usize>) {
    let (mut to_proxy, mut to_egress) = (RawConnection::connect(proxy).await, RawConnection::connect(egress).await);
    for number in numbers {
        for (is_egress, line) in lines(number) {
            let connection = if is_egress { &mut to_egress } else { &mut to_proxy };
            let reply = connection.send(request(&line, number)).await.reply().await;
            assert_eq!(reply.status, 200, "{line}: {reply:?}");
        }
    }
}

/// The series of one scrape.
async fn series(pointsman: &Pointsman) -> Vec<String> {
    let reply = pointsman.api(Method::GET, "/metrics", Value::Null).await;
    let text = String::from_utf8(reply.body.to_vec()).expect("text");
    let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    samples.map(|line| line.rsplit_once(' ').expect("a value").0.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_paths_hosts_methods_ids_keys_and_agents_make_no_series() {
    let legacy = Origin::start(OriginReply::Json(r#"{"id":"7"}"#)).await;
    let bank = Origin::start(OriginReply::Json(r#"{"rate":1}"#)).await;
    let flags = FlagsDir::empty();
    let services = format!("services:\n  shop: {}\n  bank: {}\ndefault_legacy: shop\n", legacy.url(), bank.url());
    flags.write("pointsman.yaml", &format!("{services}{PROMOTE}egress: {{ listen: 127.0.0.1:0 }}\n"));
    flags.write("routes/items.yaml", ROUTES);
    flags.write("workflows/create.yaml", CREATE);
    flags.write("workflows/get.yaml", GET);
    let dir = tempfile::tempdir().expect("a directory");
    let (store, log) = (format!("sqlite:{}", dir.path().join("db").display()), dir.path().join("log"));
    let start = Start { flags: flags.path().to_owned(), store, log, env: vec![] };
    let mut pointsman = Pointsman::start(&start).await;
    let (proxy, egress) = (pointsman.listen, pointsman.egress.expect("an egress listener"));

    send(proxy, egress, std::iter::once(VALUES)).await;
    let before = series(&pointsman).await;
    let mut senders = tokio::task::JoinSet::new();
    for first in 0..CONNECTIONS {
        senders.spawn(send(proxy, egress, (first..VALUES).step_by(CONNECTIONS)));
    }
    while let Some(sent) = senders.join_next().await {
        sent.expect("a sender succeeds");
    }
    for number in 0..100 {
        pointsman.api(Method::GET, &format!("/api/v2/routes/{MARK}-{number}"), Value::Null).await;
    }
    assert!(legacy.count() > 3 * VALUES && bank.count() > VALUES, "everything arrived");

    let after = series(&pointsman).await;
    // A histogram is one label set: its count stands for the buckets and the sum.
    let is_set = |series: &&String| !["_bucket{", "_sum{"].iter().any(|part| series.contains(part));
    let new: Vec<&String> = after.iter().filter(is_set).filter(|series| !before.contains(series)).collect();
    eprintln!("{} series before, {} after; new: {new:#?}", before.len(), after.len());
    let marked: Vec<&String> = after.iter().filter(|s| s.to_ascii_lowercase().contains(MARK)).collect();
    assert!(marked.is_empty(), "values off the wire are labels: {marked:?}");
    assert!(new.len() <= NEW_SETS_MAX, "{new:#?}");
    assert!(after.len() <= SERIES_MAX, "{} series", after.len());
    assert_eq!(pointsman.stop().await, Some(0));
}
