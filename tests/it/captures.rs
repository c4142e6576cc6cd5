//! Captures from outside: they survive kill -9, are exported, and rehearsed without any service; a defect that was
//! planted in a workflow is found, and the mended workflow passes; nothing secret is in them or anywhere else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use pointsman::demo::http::{Call, Client, Server, empty, json};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::process::{Start, cli, output_text};
use crate::support::{FlagsDir, LOCAL, Pointsman, WAIT_MAX, until};

/// The address of the egress listener; set once the process has started.
type EgressAddress = Arc<OnceLock<SocketAddr>>;

/// A bank that answers with what it was told, among it a secret.
async fn bank() -> Server {
    let handler = |call: Call| async move {
        let body = call.json();
        let echo = json!({ "id": "pay-1", "token": body["token"], "note": format!("card {}", body["card"]) });
        Ok(json(StatusCode::CREATED, &echo))
    };
    Server::start(LOCAL, handler).await.expect("a port")
}

/// Prices, for legacy and for the engine.
async fn prices() -> Server {
    let handler = |call: Call| async move {
        match call.path.as_str() {
            "/prices/tea" => {
                let supplier = json!({ "name": "name-of-the-supplier" });
                let reply = json!({ "price": 7, "password": "of the price list", "customer": supplier });
                Ok(json(StatusCode::OK, &reply))
            }
            "/prices/mug" => Ok(json(StatusCode::OK, &json!({ "price": 12 }))),
            _ => Ok(empty(StatusCode::NOT_FOUND)),
        }
    };
    Server::start(LOCAL, handler).await.expect("a port")
}

/// A legacy that charges through the egress listener and answers with what it was told.
async fn legacy(egress: EgressAddress) -> Server {
    let client = Arc::new(Client::new(WAIT_MAX));
    let handler = move |call: Call| {
        let (egress, client) = (egress.clone(), client.clone());
        async move {
            if call.method != Method::POST {
                return Ok(empty(StatusCode::NOT_FOUND));
            }
            let order = call.json();
            let total = if order["sku"] == "mug" { 12 } else { 7 };
            let bank = format!("http://{}/bank/charges", egress.get().expect("it is listening"));
            let charge = json!({ "amount": total, "card": order["card"], "token": order["token"] });
            let headers = [("traceparent", call.header("traceparent")), ("x-api-key", call.header("x-api-key"))];
            let paid = client.json(Method::POST, &bank, &headers, &charge).await.expect("the bank's reply").json();
            let body = json!({
                "ref": order["ref"], "total": total, "payment": paid["id"], "echo": order["echo"],
                "card": order["card"], "items": order["items"], "customer": order["customer"],
            });
            let mut reply = json(StatusCode::CREATED, &body);
            if let Ok(cookie) = format!("session={}", call.header("x-session")).parse() {
                reply.headers_mut().insert("set-cookie", cookie);
            }
            Ok(reply)
        }
    };
    Server::start(LOCAL, handler).await.expect("a port")
}

struct Shop {
    pointsman: Pointsman,
    client: Client,
    flags: FlagsDir,
    start: Start,
    servers: Vec<Server>,
    dir: TempDir,
}

const ROUTES: &str = "routes:\n  - id: orders\n    match: { method: POST, path: '/orders/{card}' }\n    legacy: shop\n    \
                      workflow: create\n    state: shadow\n    capture: 100%\n";

/// The workflow, which charges `amount`.
fn workflow(amount: &str) -> String {
    format!(
        "workflow: create\nsteps:\n  price: {{ call: \"GET ${{services.prices}}/prices/${{request.body.sku}}\" }}\n  \
         charge:\n    call: POST ${{services.bank}}/charges\n    headers: {{ authorization: \"Bearer ${{secrets.bank}}\" }}\n    \
         body: {{ amount: \"${{{amount}}}\", card: \"${{request.body.card}}\", token: \"${{request.body.token}}\" }}\n    \
         rehearse: legacy\nrespond:\n  status: 201\n  body:\n    ref: ${{request.body.ref}}\n    \
         total: ${{steps.price.output.price}}\n    payment: ${{steps.charge.output.id}}\n    echo: ${{request.body.echo}}\n    \
         card: ${{request.body.card}}\n    items: ${{request.body.items}}\n    customer: ${{request.body.customer}}\n"
    )
}

const RIGHT: &str = "steps.price.output.price";

impl Shop {
    /// `more` is added to pointsman.yaml.
    async fn start(more: &str) -> Self {
        Self::start_with(ROUTES, more).await
    }

    async fn start_with(routes: &str, more: &str) -> Self {
        let egress = EgressAddress::default();
        let servers = vec![legacy(egress.clone()).await, bank().await, prices().await];
        let flags = FlagsDir::empty();
        flags.write(
            "pointsman.yaml",
            &format!(
                "services:\n  shop: {}\n  bank: {}\n  prices: {}\ndefault_legacy: shop\n\
                 egress: {{ listen: 127.0.0.1:0, window: 200ms }}\nsecrets: {{ bank: {{ env: BANK_TOKEN }} }}\n\
                 limits: {{ egress_rehearse_wait_ms: 10000 }}\n{more}",
                servers[0].url(),
                servers[1].url(),
                servers[2].url()
            ),
        );
        flags.write("workflows/create.yaml", &workflow(RIGHT));
        flags.write("routes/orders.yaml", routes);
        let dir = tempfile::tempdir().expect("a directory");
        let store = format!("sqlite:{}", dir.path().join("db").display());
        let env = vec![("BANK_TOKEN".to_owned(), "the-bank-token-0123456789".to_owned())];
        let start = Start { flags: flags.path().to_owned(), store, log: dir.path().join("log"), env };
        let pointsman = Pointsman::start(&start).await;
        egress.set(pointsman.egress.expect("an egress listener")).expect("set once");
        Self { pointsman, client: Client::new(WAIT_MAX), flags, start, servers, dir }
    }

    async fn order(&self, path: &str, headers: &[(&str, &str)], body: &Value) {
        let url = format!("{}{path}", self.pointsman.url());
        let reply = self.client.json(Method::POST, &url, headers, body).await.expect("a reply");
        assert_eq!(reply.status, StatusCode::CREATED, "{:?}", reply.body);
    }

    /// Waits until so many pairs are compared.
    async fn compared(&self, pairs: f64) {
        until("the pairs", || async {
            let evidence = self.pointsman.get("/api/v2/routes/orders/evidence").await;
            // Counted by kind of request once a pair is captured, unlike `matched`, which counts before that.
            let kinds = evidence["evidence"]["strata"].as_object().into_iter().flat_map(|kinds| kinds.values());
            let found: f64 = kinds.filter_map(|kind| kind["compared"].as_f64()).sum();
            (found >= pairs).then_some(())
        })
        .await;
    }

    /// The captures of the route, written to a file.
    async fn export(&self) -> (PathBuf, String) {
        let exported = self.pointsman.cli(&["captures", "export", "orders"]).await;
        assert!(exported.status.success(), "{}", output_text(&exported));
        let text = String::from_utf8(exported.stdout).expect("text");
        let file = self.dir.path().join("captures.ndjson");
        std::fs::write(&file, &text).expect("a written file");
        (file, text)
    }

    /// Ends everything that could answer.
    async fn end_services(&mut self) {
        assert_eq!(self.pointsman.stop().await, Some(0), "{}", self.pointsman.log());
        self.servers.clear();
    }
}

/// An order with everything that the workflow reads.
fn order(n: usize, sku: &str) -> Value {
    json!({
        "ref": n, "sku": sku, "card": card(n), "token": format!("token-of-{n}"), "echo": "hello", "items": [{ "n": n }],
        "customer": { "n": n },
    })
}

async fn rehearse(flags: &FlagsDir, file: &Path, more: &[&str]) -> Output {
    let (flags, file) = (flags.path().to_str().expect("a path"), file.to_str().expect("a path"));
    cli(&[&["rehearse", "--flags", flags, "--from", file], more].concat(), &[]).await
}

async fn report(flags: &FlagsDir, file: &Path) -> (Option<i32>, Value) {
    let output = rehearse(flags, file, &["--json"]).await;
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", output_text(&output)));
    (output.status.code(), json)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_defect_is_found_without_network_and_the_mended_workflow_passes() {
    let mut shop = Shop::start("").await;
    for n in 0..12 {
        let sku = if n % 3 == 0 { "mug" } else { "tea" };
        shop.order("/orders/x", &[], &order(n, sku)).await;
    }
    shop.compared(12.0).await;
    let (file, text) = shop.export().await;
    assert_eq!(text.lines().count(), 12, "{text}");
    let first: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["version"], &first["outcome"]), (&json!(1), &json!("matched")), "{first}");
    assert_eq!(
        (&first["reads"][0]["step"], &first["calls"][0]["service"]),
        (&json!("price"), &json!("bank")),
        "{first}"
    );
    assert_eq!(first["intents"][0]["step"], "charge");
    assert!(!text.contains("the-bank-token"), "{text}");
    let metrics = shop.pointsman.metrics().await;
    assert_eq!(metrics.sum("pointsman_captures_total", &[("route", "orders")]), 12.0);
    shop.end_services().await;

    let (code, unchanged) = report(&shop.flags, &file).await;
    assert_eq!((code, &unchanged["routes"]["orders"]["matched"]), (Some(0), &json!(12)), "{unchanged}");
    // Charges one too much, which only a comparison of the calls shows.
    shop.flags.write("workflows/create.yaml", &workflow("steps.price.output.price + 1"));
    let (code, changed) = report(&shop.flags, &file).await;
    let found = &changed["routes"]["orders"];
    assert_eq!((code, &found["mismatched"], &changed["passed"]), (Some(1), &json!(12), &json!(false)), "{changed}");
    let group = &found["groups"][0];
    assert_eq!((&group["pairs"], &group["differences"][0]["kind"]), (&json!(12), &json!("effect_differs")), "{group}");
    assert!(group["differences"][0]["path"].as_str().is_some_and(|path| path.contains("amount")), "{group}");
    let shown = rehearse(&shop.flags, &file, &[]).await;
    let shown_text = output_text(&shown);
    assert!(shown_text.contains("12 of 12 pairs differ") && shown_text.contains("effects.charge"), "{shown_text}");
    // A constant where the captured value is redacted: whether that one is equal cannot be said of one pair. It is not
    // equal to twelve different ones.
    let constant = workflow(RIGHT).replace("card: \"${request.body.card}\", token", "card: ok, token");
    shop.flags.write("workflows/create.yaml", &constant);
    let one = file.with_file_name("one.ndjson");
    std::fs::write(&one, text.lines().next().expect("a line")).expect("written");
    for (file, code, pairs, contradicted, last) in [
        (&one, 0, 1, json!({}), "nothing is known to differ in 1 pair; 1 place is not known"),
        (&file, 1, 12, json!({ "effects.charge.body.card": 11 }), "at least 11 of 12 pairs differ"),
    ] {
        let (exit, unknown) = report(&shop.flags, file).await;
        let found = &unknown["routes"]["orders"];
        let counts = (exit, &found["ignored"], &found["mismatched"], &found["contradicted"]);
        assert_eq!(counts, (Some(code), &json!(pairs), &json!(0), &contradicted), "{unknown}");
        assert_eq!(found["not_known"], json!({ "effects.charge.body.card": pairs }), "{unknown}");
        let shown = output_text(&rehearse(&shop.flags, file, &[]).await);
        assert!(shown.contains(" at effects.charge.body.card: not known whether equal"), "{shown}");
        let says_why = shown.contains("one side has the same value there as in an earlier pair");
        assert_eq!(says_why, contradicted != json!({}), "{shown}");
        assert!(shown.contains(last), "{shown}");
    }
    // A read that was never captured: nothing can be said.
    shop.flags.edit("workflows/create.yaml", |_| workflow(RIGHT).replace("/prices/$", "/offers/$"));
    let (code, unknown) = report(&shop.flags, &file).await;
    let found = &unknown["routes"]["orders"];
    assert_eq!((code, &found["pairs"], &found["skipped"]["unresolved_effect"]), (Some(1), &json!(0), &json!(12)));
    let why = found["unresolved"].as_object().expect("reasons").keys().next().expect("a reason").clone();
    assert!(why.contains("GET prices/offers/") && why.contains("the nearest is `GET prices/prices/"), "{why}");

    shop.flags.write("workflows/create.yaml", &workflow(RIGHT));
    let from_stdin = rehearse(&shop.flags, &file, &["--route", "orders"]).await;
    assert_eq!(from_stdin.status.code(), Some(0), "{}", output_text(&from_stdin));
    let other = rehearse(&shop.flags, &file, &["--route", "nobody"]).await;
    assert_eq!(other.status.code(), Some(1), "{}", output_text(&other));
    assert!(output_text(&other).contains("name one of: orders"), "{}", output_text(&other));
    let later = rehearse(&shop.flags, &file, &["--since", "2999-01-01T00:00:00Z"]).await;
    assert_eq!(later.status.code(), Some(1), "nothing was compared: {}", output_text(&later));
    let earlier = rehearse(&shop.flags, &file, &["--since", "2001-01-01T00:00:00Z"]).await;
    assert_eq!(earlier.status.code(), Some(0), "{}", output_text(&earlier));
    // Of two orders in three nothing can be said: without the captured read the price is unknown.
    let mut unread = String::new();
    for (n, line) in text.lines().enumerate() {
        let mut capture: Value = serde_json::from_str(line).expect("JSON");
        if n % 3 != 0 {
            capture["reads"] = json!([]);
        }
        unread.push_str(&format!("{capture}\n"));
    }
    std::fs::write(&file, unread).expect("a written file");
    let partly = rehearse(&shop.flags, &file, &[]).await;
    let shown = output_text(&partly);
    assert_eq!(partly.status.code(), Some(0), "{shown}");
    assert!(shown.contains("nothing differs in 4 pairs; 8 of 12 captures could not be compared"), "{shown}");
    let wanted = rehearse(&shop.flags, &file, &["--coverage-at-least", "95%"]).await;
    let shown = output_text(&wanted);
    assert_eq!(wanted.status.code(), Some(1), "{shown}");
    assert!(shown.contains("orders: 33.33% of its captures were compared, fewer than 95%"), "{shown}");
    assert!(shown.contains("but 8 of 12 captures could not be compared: too few were compared"), "{shown}");
    let in_json = rehearse(&shop.flags, &file, &["--json", "--coverage-at-least", "33"]).await;
    let parsed: Value = serde_json::from_slice(&in_json.stdout).expect("JSON");
    assert_eq!((in_json.status.code(), &parsed["passed"]), (Some(0), &json!(true)), "{parsed}");
    assert!(parsed["routes"]["orders"]["coverage_percent"].as_f64().is_some_and(|share| share < 34.0), "{parsed}");
    std::fs::write(&file, format!("{text}{{\"version\": 9}}\n")).expect("a written file");
    let newer = rehearse(&shop.flags, &file, &[]).await;
    assert_eq!(newer.status.code(), Some(1));
    assert!(output_text(&newer).contains("line 13: it has version 9"), "{}", output_text(&newer));
    std::fs::write(&file, "").expect("a written file");
    let nothing = rehearse(&shop.flags, &file, &[]).await;
    assert_eq!(nothing.status.code(), Some(1), "nothing was compared");
    assert_eq!(cli(&["rehearse"], &[]).await.status.code(), Some(2), "wrong usage");
}

/// In `dark` a child run is a run of its own in the store; its read is in the capture all the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_reads_of_a_dark_child_run_are_captured_and_answered_off_line() {
    let mut shop = Shop::start("").await;
    let generation = async || shop.pointsman.get("/api/v2/status").await["flags"]["generation"].as_u64();
    let write = async |name: &str, text: &str| {
        let before = generation().await;
        shop.flags.write(name, text);
        until("the files to be in force", || async { (generation().await > before).then_some(()) }).await;
    };
    let child = "workflow: price\nsteps:\n  list: { call: \"GET ${services.prices}/prices/${request.body.sku}\" }\n\
                 respond: { status: 200, body: \"${steps.list.output}\" }\n";
    write("workflows/price.yaml", child).await;
    let read = "call: \"GET ${services.prices}/prices/${request.body.sku}\"";
    let with_child = workflow(RIGHT).replace(read, "run: price, input: { sku: \"${request.body.sku}\" }");
    assert!(with_child.contains("run: price"), "{with_child}");
    write("workflows/create.yaml", &with_child).await;
    let to = json!({ "to": "dark", "reason": "a test", "force": true });
    let moved = shop.pointsman.api(Method::POST, "/api/v2/routes/orders/flip", to).await;
    assert_eq!(moved.status, StatusCode::OK, "{}", moved.json());
    for n in 0..4 {
        shop.order("/orders/x", &[], &order(n, "tea")).await;
    }
    shop.compared(4.0).await;
    let (file, text) = shop.export().await;
    assert_eq!(text.lines().count(), 4, "{text}");
    for line in text.lines() {
        let capture: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(capture["reads"][0]["step"], "list", "{capture}");
    }
    shop.end_services().await;
    let (code, found) = report(&shop.flags, &file).await;
    assert_eq!((code, &found["routes"]["orders"]["matched"]), (Some(0), &json!(4)), "{found}");
}

/// The first wait was over when the captured run began, and the second one was not.
const WAITS: &str = "  inner: { run: clock }\n  past: { wait: { until: '2026-01-02T03:00:00Z' } }\n  \
                     early: { needs: [past], set: '${now}' }\n  \
                     late: { needs: [early], wait: { until: '2026-01-02T09:00:00Z' } }\n";

/// What a run makes of its clock is near legacy's when the pair is compared, and so it is when it is rehearsed.
#[tokio::test(flavor = "multi_thread")]
async fn the_clock_of_a_rehearsal_is_that_of_the_capture() {
    let mut shop = Shop::start("").await;
    for n in 0..3 {
        shop.order("/orders/x", &[], &order(n, "tea")).await;
    }
    shop.compared(3.0).await;
    let (file, text) = shop.export().await;
    shop.end_services().await;
    let an_hour_earlier = text.lines().map(|line| {
        let mut capture: Value = serde_json::from_str(line).expect("JSON");
        assert!(capture["started"].as_str() <= capture["at"].as_str(), "{capture}");
        capture["started"] = "2026-01-02T03:04:05Z".into();
        capture["legacy"]["body"] =
            json!({ "text": r#"{"now":"2026-01-02T03:04:06Z","begun":"2026-01-02T03:04:05Z","late":"2026-01-02T09:00:00Z"}"# });
        format!("{capture}\n")
    });
    std::fs::write(&file, an_hour_earlier.collect::<String>()).expect("a written file");
    let body = "  body: { now: \"${steps.early.output}\", begun: \"${steps.inner.output}\", late: \"${now}\" }\n";
    let clocks = workflow(RIGHT).split("  body:\n    ref:").next().expect("a part").to_owned() + body;
    let child = "workflow: clock\nsteps: { nothing: { set: 1 } }\nrespond: { status: 200, body: \"${run.started}\" }\n";
    shop.flags.write("workflows/clock.yaml", child);
    shop.flags.write("workflows/create.yaml", &clocks.replace("  charge:\n", &format!("{WAITS}  charge:\n")));
    let rule = "capture: 100%\n    compare: { tolerance: { $.now: 30s, $.late: 30s } }";
    let with_rule = ROUTES.replace("capture: 100%", rule);
    shop.flags.write("routes/orders.yaml", &with_rule);
    let (code, found) = report(&shop.flags, &file).await;
    let equal = found["routes"]["orders"]["matched"].as_u64().zip(found["routes"]["orders"]["ignored"].as_u64());
    assert_eq!((code, equal.map(|(matched, ignored)| matched + ignored)), (Some(0), Some(3)), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn captures_survive_kill_9_and_a_route_without_capture_has_none() {
    let mut shop = Shop::start("").await;
    for n in 0..5 {
        shop.order("/orders/x", &[], &order(n, "tea")).await;
    }
    // A pair is counted before its capture is handed over to be written.
    let before = until("five captures", async || {
        let (_, exported) = shop.export().await;
        (exported.lines().count() == 5).then_some(exported)
    });
    let before = before.await;
    shop.pointsman.kill().await;
    shop.flags.edit("routes/orders.yaml", |text| text.replace("    capture: 100%\n", ""));
    shop.pointsman = Pointsman::start(&shop.start).await;
    let (_, after) = shop.export().await;
    assert_eq!(after, before);
    assert_eq!(after.lines().count(), 5);
    let unknown = shop.pointsman.cli(&["captures", "export", "nobody"]).await;
    assert_eq!(unknown.status.code(), Some(1), "{}", output_text(&unknown));
    shop.pointsman.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_in_dark_is_captured_too() {
    let routes = ROUTES.replace("state: shadow", "state: dark\n    force: { reason: a test }");
    let mut shop = Shop::start_with(&routes, "").await;
    for n in 0..4 {
        shop.order("/orders/x", &[], &order(n, "mug")).await;
    }
    shop.compared(4.0).await;
    let (file, text) = shop.export().await;
    shop.end_services().await;
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines.iter().all(|line| line["reads"][0]["reply"]["status"] == 200), "{text}");
    let (code, found) = report(&shop.flags, &file).await;
    assert_eq!((code, &found["routes"]["orders"]["matched"]), (Some(0), &json!(4)), "{found}");
}

/// The number of a card with a valid check digit.
fn card(n: usize) -> String {
    let digits = format!("4{n:014}");
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit - b'0') * if place % 2 == 0 { 2 } else { 1 };
            if digit > 9 { digit - 9 } else { digit }
        })
        .sum();
    format!("{digits}{}", (10 - sum % 10) % 10)
}

/// Texts and lists that name secrets in nested and quoted formats.
fn quoting(plant: &dyn Fn(&str) -> String) -> Value {
    let in_json = |text: &str| json!({ "raw": text }).to_string();
    let escaped = |text: &str| text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    let element = |kind: &str| format!("<a><password>{}</password></a>", plant(kind));
    json!({
        "header": format!("x-api-key: {}\nfoo", plant("header")),
        "sentence": format!("they sent the password: {}", plant("sentence")),
        "line": format!("10:00 login user=7 password={}", plant("line")),
        "form": format!("a=1;password={}&b=2", plant("form")),
        "attribute": format!("<a n=\"1\" password=\"{}\"/>", plant("attribute")),
        "html": escaped(&json!({ "password": plant("html") }).to_string()),
        "json": in_json(&in_json(&json!({ "password": plant("three") }).to_string())),
        "xml": format!("<a><b>{}</b></a>", escaped(&in_json(&element("xjx")))),
        "url": format!("https://a/?to={}", encoded(&encoded(&format!("/b?token={}", plant("url"))))),
        "tokens": { (plant("first-key")): 1, (plant("second-key")): 2 },
    })
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Every file below a directory, and its bytes.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a readable directory").flatten() {
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push((entry.path(), std::fs::read(entry.path()).unwrap_or_default())),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_planted_secret_is_in_store_log_metrics_or_api() {
    let log = tempfile::tempdir().expect("a directory");
    let access_log = log.path().join("access.log");
    let more = format!(
        "redact: {{ names: [customer_ref], paths: [$.customer.name], detect: [email] }}\naccess_log: {{ file: '{}' }}\n",
        access_log.display()
    );
    let reset = "  - id: reset\n    match: { method: POST, path: '/reset/{token}' }\n    legacy: shop\n    \
                 workflow: create\n    state: shadow\n    capture: 100%\n";
    let mut shop = Shop::start_with(&format!("{ROUTES}{reset}"), &more).await;
    let all = std::cell::RefCell::new(Vec::new());
    let plant = |kind: &str, n: usize| {
        let secret =
            if kind == "card" { card(n + 1_000_003 * n) } else { format!("{kind}-s3cr3t-{n:03}-{}", n * 7_919) };
        all.borrow_mut().push(secret.clone());
        secret
    };
    for n in 0..18 {
        let (path_card, text_card) = (card(77_777 + n), plant("card", 100 + n));
        let body = json!({
            "ref": n, "sku": "tea", "card": plant("card", n), "token": plant("token", n),
            "echo": format!("{} wrote {}", text_card, plant("mail", n) + "@example.com"),
            "customer": { "name": plant("jane", n), "customer_ref": plant("cref", n), "n": n },
            "items": [{ "password": plant("pass", n), "deep": { "secrets": [plant("list", n)] } }],
            "quoting": quoting(&|kind| plant(kind, n)), "pins": [900_000_001 + n * 7_919],
        });
        let headers = [
            ("x-api-key", plant("key", n)),
            ("cookie", format!("session={}", plant("cookie", n))),
            ("authorization", format!("Bearer {}", plant("bearer", n))),
            ("x-session", plant("sess", n)),
            ("x-meta", json!({ "password": plant("meta", n) }).to_string()),
        ];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let filter = encoded(&json!({ "password": plant("filter", n) }).to_string());
        let (query, semicolon) = (plant("query", n), plant("semicolon", n));
        let path = format!("/orders/{path_card}?access_token={query}&f={filter}&a=1;password={semicolon}&page=1");
        shop.order(&path, &headers, &body).await;
        all.borrow_mut().extend([path_card, (900_000_001 + n * 7_919).to_string()]);
        // No number of a card, so that only the template's name tells that it is a secret.
        shop.order(&format!("/reset/{}?page=1", plant("reset", n)), &headers, &body).await;
    }
    let mut planted: Vec<String> = all.take();
    // A form and a text, which differ in legacy and engine: samples are kept too.
    let mut wrong = 0;
    for (content_type, body) in [
        ("application/x-www-form-urlencoded", format!("sku=tea&password={}&ref=1", "form-s3cr3t-1")),
        ("text/plain", "the password is text-s3cr3t-2".to_owned()),
    ] {
        let url = format!("{}/orders/y", shop.pointsman.url());
        let request = Request::post(url).header("content-type", content_type).body(Full::new(Bytes::from(body)));
        wrong += u32::from(shop.client.send(request.expect("a request")).await.expect("a reply").status.is_success());
    }
    planted.extend(["form-s3cr3t-1".to_owned(), "text-s3cr3t-2".to_owned(), "of the price list".to_owned()]);
    planted.push("name-of-the-supplier".to_owned());
    assert!(planted.len() > 200 && wrong == 2, "{}", planted.len());
    shop.compared(18.0).await;

    // From now on the workflow answers something else: what differs is kept as samples.
    let generation = || async { shop.pointsman.get("/api/v2/status").await["flags"]["generation"].as_u64() };
    let before = generation().await;
    shop.flags.edit("workflows/create.yaml", |text| text.replace("customer: ${request.body.customer}", "customer: {}"));
    until("the files to be in force", || async { (generation().await > before).then_some(()) }).await;
    let body = json!({
        "ref": 1, "sku": "tea", "card": card(1), "token": "late-s3cr3t-1", "customer": { "name": "late-s3cr3t-2",
        "customer_ref": "late-s3cr3t-3", "mail": "late-s3cr3t-4@example.com" }, "echo": format!("x {}", card(2)),
        "items": [{ "quoting": quoting(&|kind| format!("late-s3cr3t-{kind}")), "pins": [987_654_321] }],
    });
    let meta = json!({ "password": "late-s3cr3t-7" }).to_string();
    let headers = [("x-api-key", "late-s3cr3t-6"), ("x-meta", meta.as_str())];
    shop.order("/orders/z?otp=late-s3cr3t-5", &headers, &body).await;
    planted.push("late-s3cr3t".to_owned());
    planted.extend([card(1), card(2), "987654321".to_owned()]);
    until("a sample", || async {
        let diffs = shop.pointsman.get("/api/v2/routes/orders/diffs").await;
        (diffs["groups"].as_array().is_some_and(|groups| !groups.is_empty())).then_some(())
    })
    .await;

    let (file, exported) = shop.export().await;
    assert!(exported.lines().count() >= 19, "{}", exported.lines().count());
    let mut shown = vec![("exported", exported.into_bytes())];
    for path in ["captures", "diffs", "evidence", "egress", "diffs/suggestions"] {
        let reply = shop.pointsman.api(Method::GET, &format!("/api/v2/routes/orders/{path}"), Value::Null).await;
        assert!(reply.status.is_success(), "{path}");
        shown.push((path, reply.body.to_vec()));
    }
    for path in ["/metrics", "/api/v2/status", "/api/v2/runs", "/api/v2/services/shop/callers"] {
        shown.push((path, shop.pointsman.api(Method::GET, path, Value::Null).await.body.to_vec()));
    }
    for command in [["diffs", "orders"], ["diffs", "reset"], ["legacy", "shop"]] {
        shown.push(("cli", shop.pointsman.cli(&command).await.stdout));
    }
    let rehearsed = rehearse(&shop.flags, &file, &[]).await;
    shown.push(("rehearsed", output_text(&rehearsed).into_bytes()));
    let while_running = files(shop.dir.path());
    shop.end_services().await;
    let mut places: Vec<(String, Vec<u8>)> = shown.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    for (path, bytes) in while_running.into_iter().chain(files(shop.dir.path())).chain(files(log.path())) {
        places.push((path.display().to_string(), bytes));
    }
    assert!(places.iter().any(|(name, bytes)| name.ends_with("access.log") && bytes.len() > 1_000));
    for (name, bytes) in &places {
        let text = String::from_utf8_lossy(bytes);
        for secret in &planted {
            let at = text.find(secret.as_str());
            let around =
                at.map(|at| text[text.floor_char_boundary(at.saturating_sub(200))..].chars().take(300).collect());
            assert_eq!(around, None::<String>, "{secret} is in {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_entries_of_a_har_file_that_belong_to_a_route_are_rehearsed() {
    let flags = FlagsDir::empty();
    flags.write("pointsman.yaml", "services: { shop: 'http://127.0.0.1:9' }\ndefault_legacy: shop\n");
    flags.write(
        "routes/orders.yaml",
        "routes:\n  - { id: orders, match: { method: POST, path: '/orders/{id}' }, legacy: shop, workflow: create }\n",
    );
    let workflow = |total: &str| {
        format!(
            "workflow: create\nsteps:\n  sum: {{ set: '${{request.body.a + {total}}}' }}\nrespond:\n  status: 201\n  \
             body: {{ id: '${{request.params.id}}', total: '${{steps.sum.output}}' }}\n"
        )
    };
    flags.write("workflows/create.yaml", &workflow("1"));
    let entry = |path: &str, a: u64| {
        json!({
            "startedDateTime": "2026-11-26T05:00:00Z",
            "request": { "method": "POST", "url": format!("https://shop.example{path}"), "headers": [],
                "postData": { "mimeType": "application/json", "text": json!({ "a": a }).to_string() } },
            "response": { "status": 201, "headers": [],
                "content": { "mimeType": "application/json", "text": json!({ "id": "7", "total": a + 1 }).to_string() } },
        })
    };
    let har = json!({ "log": { "version": "1.2", "entries": [entry("/orders/7", 1), entry("/logo", 1), entry("/orders/7", 5)] } });
    let file = flags.file("browser.har");
    std::fs::write(&file, har.to_string()).expect("a written file");
    let (code, found) = report(&flags, &file).await;
    assert_eq!(
        (code, &found["captures"], &found["routes"]["orders"]["matched"]),
        (Some(0), &json!(2), &json!(2)),
        "{found}"
    );
    flags.write("workflows/create.yaml", &workflow("2"));
    let (code, found) = report(&flags, &file).await;
    assert_eq!((code, &found["routes"]["orders"]["mismatched"]), (Some(1), &json!(2)), "{found}");
    std::fs::write(&file, "{}").expect("a written file");
    let refused = rehearse(&flags, &file, &[]).await;
    assert!(refused.status.code() == Some(1) && output_text(&refused).contains("it is no HAR file"));
}
