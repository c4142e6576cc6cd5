//! `replay_reads: true` through the real binary: a workflow that looks before it acts sees what legacy saw, and not what
//! legacy has made of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use http::{Method, StatusCode};
use pointsman::demo::http::{Call, Client, Server, empty, json};
use serde_json::{Value, json};

use crate::support::process::{Start, cli, output_text};
use crate::support::{FlagsDir, LOCAL, PATIENCE, Pointsman, until};

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
    let client = Arc::new(Client::new(PATIENCE));
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
    let client = Client::new(PATIENCE);
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
