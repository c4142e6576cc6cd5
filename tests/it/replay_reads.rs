//! `replay_reads: true` through the real binary: a workflow that looks before it acts sees what legacy saw, and not what
//! legacy has made of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};
use pointsman::demo::http::{Call, Client, Server, empty, json};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Barrier, Notify};

use crate::support::process::{Start, cli, output_line, output_text};
use crate::support::{FlagsDir, LOCAL, Pointsman, WAIT_MAX, until};

/// An account with a balance, how often it was read, and how often the rates were.
#[derive(Default)]
struct Account {
    balance: AtomicU64,
    reads: AtomicU64,
    rates: AtomicU64,
}

async fn bank(account: Arc<Account>) -> Server {
    let handler = move |call: Call| {
        let account = account.clone();
        async move {
            match (call.method.as_str(), call.path.as_str()) {
                ("GET", "/account") => {
                    account.reads.fetch_add(1, SeqCst);
                    Ok(json(StatusCode::OK, &json!({ "balance": account.balance.load(SeqCst) })))
                }
                ("GET", "/rates") => {
                    account.rates.fetch_add(1, SeqCst);
                    Ok(json(StatusCode::OK, &json!({ "rate": 2 })))
                }
                ("POST", "/credits") => {
                    account.balance.fetch_add(5, SeqCst);
                    Ok(json(StatusCode::CREATED, &json!({})))
                }
                _ => Ok(empty(StatusCode::NOT_FOUND)),
            }
        }
    };
    Server::start(LOCAL, handler).await.expect("a port")
}

/// A legacy that reads the balance, adds to it, and answers what it was before.
async fn legacy(egress: Arc<OnceLock<SocketAddr>>) -> Server {
    let client = Arc::new(Client::new(WAIT_MAX));
    let handler = move |call: Call| {
        let (egress, client) = (egress.clone(), client.clone());
        async move {
            let bank = format!("http://{}/bank", egress.get().expect("it is listening"));
            let trace = [("traceparent", call.header("traceparent"))];
            let send = async |method: Method, path: &str, body: Value| {
                client.json(method, &format!("{bank}{path}"), &trace, &body).await.expect("the bank's reply").json()
            };
            let before = send(Method::GET, "/account", Value::Null).await["balance"].clone();
            send(Method::POST, "/credits", json!({ "amount": 5 })).await;
            Ok(json(StatusCode::CREATED, &json!({ "before": before, "rate": 2 })))
        }
    };
    Server::start(LOCAL, handler).await.expect("a port")
}

const WORKFLOW: &str = "workflow: pay
steps:
  look: { call: 'GET ${services.bank}/account', volatile: true }
  rates: { call: 'GET ${services.bank}/rates' }
  pay: { call: 'POST ${services.bank}/credits', body: { amount: 5 }, rehearse: legacy }
respond: { status: 201, body: { before: '${steps.look.output.balance}', rate: '${steps.rates.output.rate}' } }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_read_gets_what_legacy_read_before_it_acted() {
    let (egress, account) = (Arc::new(OnceLock::new()), Arc::new(Account::default()));
    let (legacy, bank) = (legacy(egress.clone()).await, bank(account.clone()).await);
    let flags = FlagsDir::empty();
    let services = format!("services:\n  shop: {}\n  bank: {}\ndefault_legacy: shop\n", legacy.url(), bank.url());
    flags.write("pointsman.yaml", &format!("{services}egress: {{ listen: 127.0.0.1:0, window: 300ms }}\n"));
    flags.write("workflows/pay.yaml", WORKFLOW);
    let route = |more: &str| {
        format!(
            "routes:\n  - {{ id: pay, match: {{ method: POST, path: /pay }}, legacy: shop, workflow: pay, \
             state: shadow{more} }}\n"
        )
    };
    flags.write("routes/pay.yaml", &route(""));
    let dir = tempfile::tempdir().expect("a directory");
    let store = format!("sqlite:{}", dir.path().join("db").display());
    let start = Start { flags: flags.path().to_owned(), store, log: dir.path().join("log"), env: Vec::new() };
    let mut pointsman = Pointsman::start(&start).await;
    egress.set(pointsman.egress.expect("an egress listener")).expect("set once");
    let client = Client::new(WAIT_MAX);
    let pairs = async |count: u64| {
        let url = format!("{}/pay", pointsman.url());
        let reply = client.json(Method::POST, &url, &[], &json!({})).await.expect("a reply");
        assert_eq!(reply.status, StatusCode::CREATED);
        until("the pair", || async {
            let evidence = pointsman.get("/api/v2/routes/pay/evidence").await["evidence"].clone();
            (evidence["shadow_pairs"].as_u64()? >= count).then_some(evidence)
        })
        .await
    };

    let evidence = pairs(1).await;
    assert_eq!(evidence["mismatched"], 1, "the engine reads after legacy has acted: {evidence}");
    assert_eq!(account.reads.load(SeqCst), 2, "legacy and the engine");

    let generation = async || pointsman.get("/api/v2/status").await["flags"]["generation"].as_u64();
    let before = generation().await;
    flags.write("routes/pay.yaml", &route(", replay_reads: true"));
    until("the files to be in force", || async { (generation().await > before).then_some(()) }).await;
    for count in 1..=3 {
        let evidence = pairs(count).await;
        assert_eq!((&evidence["matched"], &evidence["mismatched"]), (&json!(count), &json!(0)), "{evidence}");
    }
    assert_eq!(account.reads.load(SeqCst), 2 + 3, "by legacy alone");
    assert_eq!(account.rates.load(SeqCst), 1 + 3, "legacy does not read them: the engine does");
    assert_eq!(account.balance.load(SeqCst), 4 * 5, "by legacy alone");
    assert_eq!(pointsman.stop().await, Some(0), "{}", pointsman.log());

    // Without the listener nothing sees what legacy reads.
    flags.write("pointsman.yaml", &services);
    let refused = cli(&["check", flags.path().to_str().expect("a path")], &[]).await;
    assert!(!refused.status.success() && output_text(&refused).contains("nothing sees legacy's own reads"));
}

/// A workflow that answers with the number of a ticket.
const TICKET: &str = "workflow: ticket
steps: { look: { call: 'GET ${services.bank}/tickets', volatile: true } }
respond: { status: 200, body: { number: '${steps.look.output.number}' } }
";

/// How many requests legacy reads for at the same time where their calls are to be ambiguous.
const TOGETHER: usize = 2;

/// How many tickets were drawn, and whether one is being drawn.
#[derive(Default)]
struct Tickets {
    drawn: AtomicU64,
    is_asked: Notify,
}

/// Each read draws the next ticket, which takes as long as this.
async fn ticket_office(tickets: Arc<Tickets>, takes: Duration) -> Server {
    let handler = move |call: Call| {
        let tickets = tickets.clone();
        async move {
            if call.path != "/tickets" {
                return Ok(empty(StatusCode::NOT_FOUND));
            }
            let number = tickets.drawn.fetch_add(1, SeqCst);
            tickets.is_asked.notify_one();
            tokio::time::sleep(takes).await;
            Ok(json(StatusCode::OK, &json!({ "number": number })))
        }
    };
    Server::start(LOCAL, handler).await.expect("a port")
}

/// A legacy that draws a ticket for each request. On `/together` it draws the tickets of several requests at once; on
/// `/early` it knows the number, and answers while the ticket is still being drawn; on `/lost` it hands on no trace.
async fn ticket_legacy(egress: Arc<OnceLock<SocketAddr>>, tickets: Arc<Tickets>) -> Server {
    let (client, all_there) = (Arc::new(Client::new(WAIT_MAX)), Arc::new(Barrier::new(TOGETHER)));
    let answered = Arc::new(AtomicU64::new(0));
    let handler = move |call: Call| {
        let (egress, client, all_there) = (egress.clone(), client.clone(), all_there.clone());
        let (answered, tickets) = (answered.clone(), tickets.clone());
        async move {
            let url = format!("http://{}/bank/tickets", egress.get().expect("it is listening"));
            let trace = if call.path == "/lost" { String::new() } else { call.header("traceparent").to_owned() };
            let draw = async move {
                let drawn = client.json(Method::GET, &url, &[("traceparent", trace.as_str())], &Value::Null).await;
                drawn.expect("the office's reply").json()
            };
            if call.path == "/together" {
                all_there.wait().await;
                return Ok(json(StatusCode::OK, &draw.await));
            }
            if call.path == "/lost" {
                return Ok(json(StatusCode::OK, &draw.await));
            }
            tokio::spawn(draw);
            tickets.is_asked.notified().await;
            Ok(json(StatusCode::OK, &json!({ "number": answered.fetch_add(1, SeqCst) })))
        }
    };
    Server::start(LOCAL, handler).await.expect("a port")
}

struct TicketShop {
    pointsman: Pointsman,
    tickets: Arc<Tickets>,
    _servers: [Server; 2],
    _files: (FlagsDir, TempDir),
}

impl TicketShop {
    async fn start(takes: Duration) -> Self {
        let (egress, tickets) = (Arc::new(OnceLock::new()), Arc::new(Tickets::default()));
        let legacy = ticket_legacy(egress.clone(), tickets.clone()).await;
        let office = ticket_office(tickets.clone(), takes).await;
        let flags = FlagsDir::empty();
        flags.write(
            "pointsman.yaml",
            &format!(
                "services:\n  shop: {}\n  bank: {}\ndefault_legacy: shop\n\
                 egress: {{ listen: 127.0.0.1:0, window: 2s }}\nlimits: {{ egress_rehearse_wait_ms: 10000 }}\n",
                legacy.url(),
                office.url()
            ),
        );
        flags.write("workflows/ticket.yaml", TICKET);
        flags.write(
            "routes/tickets.yaml",
            "routes:\n  - { id: tickets, match: { method: POST, path: '/{kind}' }, legacy: shop, workflow: ticket, \
             state: shadow, replay_reads: true }\n",
        );
        let dir = tempfile::tempdir().expect("a directory");
        let store = format!("sqlite:{}", dir.path().join("db").display());
        let start = Start { flags: flags.path().to_owned(), store, log: dir.path().join("log"), env: Vec::new() };
        let pointsman = Pointsman::start(&start).await;
        egress.set(pointsman.egress.expect("an egress listener")).expect("set once");
        Self { pointsman, tickets, _servers: [legacy, office], _files: (flags, dir) }
    }

    /// Waits until this many requests are compared or skipped, and returns the evidence.
    async fn settled(&self, count: u64) -> Value {
        until("the outcomes", || async {
            let evidence = self.pointsman.get("/api/v2/routes/tickets/evidence").await["evidence"].clone();
            let skipped = evidence["skipped"].as_object()?.values().filter_map(Value::as_u64).sum::<u64>();
            (evidence["shadow_pairs"].as_u64()? + skipped >= count).then_some(evidence)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_of_legacy_that_is_under_way_when_it_answers_is_waited_for() {
    let shop = TicketShop::start(Duration::from_millis(400)).await;
    let client = Client::new(WAIT_MAX);
    for count in 1..=2 {
        let url = format!("{}/early", shop.pointsman.url());
        let reply = client.json(Method::POST, &url, &[], &json!({})).await.expect("a reply");
        assert_eq!(reply.status, StatusCode::OK);
        let evidence = shop.settled(count).await;
        assert_eq!((&evidence["matched"], &evidence["skipped"]), (&json!(count), &json!({})), "{evidence}");
    }
    assert_eq!(shop.tickets.drawn.load(SeqCst), 2, "by legacy alone");
}

/// It is not known which of the reads is whose: the next ticket is another one, and no difference of the workflow.
#[tokio::test(flavor = "multi_thread")]
async fn where_legacys_reads_are_not_known_the_pair_is_skipped() {
    let shop = TicketShop::start(Duration::ZERO).await;
    let client = Client::new(WAIT_MAX);
    // The client sends both in one trace, and legacy hands on the field that both have.
    let trace = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];
    let (url, body) = (format!("{}/together", shop.pointsman.url()), json!({}));
    let sent = (0..TOGETHER).map(|_| client.json(Method::POST, &url, &trace, &body));
    for reply in futures_util::future::join_all(sent).await {
        assert_eq!(reply.expect("a reply").status, StatusCode::OK);
    }
    let evidence = shop.settled(TOGETHER as u64).await;
    assert_eq!(evidence["skipped"], json!({ "unresolved_effect": TOGETHER }), "{evidence}");
    assert_eq!((&evidence["mismatched"], &evidence["matched"]), (&json!(0), &json!(0)), "{evidence}");
    assert_eq!(shop.tickets.drawn.load(SeqCst), 2 * TOGETHER as u64, "the engine reads too, but nothing is said of it");
    let shown = output_line(&shop.pointsman.cli(&["evidence", "tickets"]).await);
    assert!(shown.contains("what legacy read is not known (`replay_reads`)"), "{shown}");
}

/// The workflow's reads are sent, because none of legacy's is known to be one of its request.
#[tokio::test(flavor = "multi_thread")]
async fn where_no_read_of_legacy_is_attributed_the_evidence_says_so() {
    let shop = TicketShop::start(Duration::ZERO).await;
    let url = format!("{}/lost", shop.pointsman.url());
    let reply = Client::new(WAIT_MAX).json(Method::POST, &url, &[], &json!({})).await.expect("a reply");
    assert_eq!(reply.status, StatusCode::OK);
    let evidence = shop.settled(1).await;
    assert_eq!(shop.tickets.drawn.load(SeqCst), 2, "by both: {evidence}");
    let found = until("the window to be over", || async {
        let view = shop.pointsman.get("/api/v2/routes/tickets/evidence").await;
        view["reads_not_found"].as_str().map(str::to_owned)
    })
    .await;
    assert!(found.contains("is over: 1)") && found.contains("one of several: 1."), "{found}");
    let shown = output_line(&shop.pointsman.cli(&["evidence", "tickets"]).await);
    assert!(shown.contains("`replay_reads` finds no read of legacy"), "{shown}");
}
