//! Noise through the real binary: a legacy that differs from itself is asked a second time, what differs by itself does
//! not count, what differs otherwise does, and a legacy that writes is never asked twice.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};

use http::{Method, StatusCode};
use pointsman::demo::http::{Call, Client, Server, empty, json};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::process::{Start, output_line, output_text};
use crate::support::{FlagsDir, LOCAL, Pointsman, WAIT_MAX, until};

/// What legacy saw.
#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    repeated: AtomicU64,
    /// Requests that it was sent with another client's headers, or with a trace, a second time.
    odd: AtomicU64,
    charges: AtomicU64,
    egress: OnceLock<SocketAddr>,
    /// Whether legacy's calls do not carry the trace of their request.
    drops_trace: AtomicBool,
}

/// Whose price has a time that always differs, and a stock that differs in three of ten requests.
async fn legacy(seen: Arc<Seen>) -> Server {
    let (client, random) = (Arc::new(Client::new(WAIT_MAX)), seeded(1));
    let handler = move |call: Call| {
        let (seen, client, random) = (seen.clone(), client.clone(), random.clone());
        async move {
            if call.method != Method::GET {
                return Ok(empty(StatusCode::NOT_FOUND));
            }
            match call.header("pointsman-repeat") {
                "" => drop(seen.requests.fetch_add(1, SeqCst)),
                mark => {
                    seen.repeated.fetch_add(1, SeqCst);
                    let is_same = call.header("x-tenant") == "acme" && call.header("traceparent").is_empty();
                    seen.odd.fetch_add(u64::from(mark != "noise" || !is_same), SeqCst);
                }
            }
            if let Some(egress) = seen.egress.get() {
                let headers = [("traceparent", call.header("traceparent"))];
                let headers = if seen.drops_trace.load(SeqCst) { &[][..] } else { &headers };
                let url = format!("http://{egress}/bank/audits");
                client.json(Method::POST, &url, headers, &json!({})).await.expect("the bank's reply");
            }
            Ok(json(StatusCode::OK, &product(7, &random)))
        }
    };
    Server::start(LOCAL, handler).await.expect("a port")
}

fn seeded(seed: u64) -> Arc<Mutex<fastrand::Rng>> {
    Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)))
}

fn product(price: u64, random: &Mutex<fastrand::Rng>) -> Value {
    let mut random = random.lock().expect("not poisoned");
    let stock = if random.f64() < 0.3 { random.u32(1_000..) } else { 5 };
    json!({ "price": price, "stock": stock, "generated_at": random.u64(..).to_string() })
}

/// What the engine reads: the same, or with a defect.
async fn catalogue(defect: Arc<AtomicU64>) -> Server {
    let random = seeded(2);
    let handler = move |_: Call| {
        let (defect, random) = (defect.load(SeqCst), random.clone());
        async move {
            let mut product = product(if defect == 1 { 8 } else { 7 }, &random);
            if defect == 2 {
                product["stock"] = json!(99);
            }
            Ok(json(StatusCode::OK, &product))
        }
    };
    Server::start(LOCAL, handler).await.expect("a port")
}

struct Shop {
    pointsman: Pointsman,
    client: Client,
    seen: Arc<Seen>,
    defect: Arc<AtomicU64>,
    flags: FlagsDir,
    start: Start,
    _servers: [Server; 3],
    _dir: TempDir,
}

impl Shop {
    /// `settings` are added to pointsman.yaml.
    async fn start(settings: &str) -> Self {
        let (seen, defect) = (Arc::new(Seen::default()), Arc::new(AtomicU64::new(0)));
        let charges = seen.clone();
        let bank = move |_: Call| {
            charges.charges.fetch_add(1, SeqCst);
            async { Ok(json(StatusCode::CREATED, &json!({}))) }
        };
        let bank = Server::start(LOCAL, bank).await.expect("a port");
        let servers = [legacy(seen.clone()).await, catalogue(defect.clone()).await, bank];
        let flags = FlagsDir::empty();
        let [shop, catalogue, bank] = [0, 1, 2].map(|n: usize| servers[n].url());
        flags.write(
            "pointsman.yaml",
            &format!(
                "services: {{ shop: '{shop}', catalogue: '{catalogue}', bank: '{bank}' }}\ndefault_legacy: shop\n{settings}"
            ),
        );
        flags.write(
            "workflows/show.yaml",
            "workflow: show\nsteps: { read: { call: \"GET ${services.catalogue}/products/${request.params.id}\" } }\n\
             respond: { status: 200, body: \"${steps.read.output}\" }\n",
        );
        route(&flags, "replay_safe: true, noise: 100%");
        let dir = tempfile::tempdir().expect("a directory");
        let store = format!("sqlite:{}", dir.path().join("db").display());
        let start = Start { flags: flags.path().to_owned(), store, log: dir.path().join("log"), env: Vec::new() };
        let pointsman = Pointsman::start(&start).await;
        if let Some(egress) = pointsman.egress {
            seen.egress.set(egress).expect("set once");
        }
        let client = Client::new(WAIT_MAX);
        Self { pointsman, client, seen, defect, flags, start, _servers: servers, _dir: dir }
    }

    async fn evidence(&self) -> Value {
        self.pointsman.get("/api/v2/routes/products.show/evidence").await
    }

    /// Sends requests, and waits until they are compared and what is to be repeated was repeated.
    async fn send(&self, requests: u64) -> Value {
        let before = self.evidence().await["evidence"]["shadow_pairs"].as_u64().expect("a count");
        for n in 0..requests {
            let url = format!("{}/products/{n}", self.pointsman.url());
            let reply = self.client.json(Method::GET, &url, &[("x-tenant", "acme")], &Value::Null).await;
            let reply = reply.expect("a reply");
            assert_eq!((reply.status, &reply.json()["price"]), (StatusCode::OK, &json!(7)));
            // One after the other, so that the replies are the same in each run of the test.
            self.repeated().await;
        }
        until("the pairs", || async {
            let evidence = self.evidence().await;
            (evidence["evidence"]["shadow_pairs"].as_u64()? >= before + requests).then_some(())
        })
        .await;
        self.repeated().await;
        self.evidence().await
    }

    /// How many requests had this outcome as repeated ones.
    async fn outcomes(&self, outcome: &str) -> f64 {
        let labels = [("route", "products.show"), ("outcome", outcome)];
        self.pointsman.metrics().await.sum("pointsman_noise_repeats_total", &labels)
    }

    /// Waits until each request that was sent has an outcome as a repeated one.
    async fn repeated(&self) {
        let wanted = self.seen.requests.load(SeqCst) as f64;
        self.pointsman
            .until_metric("the repeated requests", |metrics| {
                metrics.sum("pointsman_noise_repeats_total", &[("route", "products.show")]) >= wanted
            })
            .await;
    }
}

fn route(flags: &FlagsDir, keys: &str) {
    flags.write(
        "routes/products.yaml",
        &format!(
            "routes:\n  - {{ id: products.show, match: {{ method: GET, path: '/products/{{id}}' }}, legacy: shop, \
             workflow: show, state: shadow, {keys} }}\n"
        ),
    );
}

/// The row of a place in the noise of a route.
fn place<'a>(evidence: &'a Value, place: &str) -> &'a Value {
    let places = evidence["noise"]["places"].as_array().unwrap_or_else(|| panic!("no noise: {evidence}"));
    places.iter().find(|row| row["place"] == place).unwrap_or_else(|| panic!("no {place}: {evidence}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_by_itself_does_not_count_and_a_defect_does() {
    let mut shop = Shop::start("").await;
    let evidence = shop.send(40).await;
    assert_eq!(shop.seen.repeated.load(SeqCst), 40, "each request, once");
    assert_eq!(shop.seen.odd.load(SeqCst), 0, "the same request, marked, without its trace");
    // Each pair differs, and none of them counts.
    let counts = |name: &str| evidence["evidence"][name].as_u64().expect("a count");
    assert_eq!((counts("mismatched"), counts("matched"), counts("ignored")), (0, 0, 40), "{evidence}");
    assert_eq!(evidence["evidence"]["rule_hits"]["noise"], 40);
    assert!(evidence["evidence"]["rule_last_hits"]["noise"].is_string(), "{evidence}");
    let at = place(&evidence, "value $.generated_at");
    assert_eq!(
        (&at["legacy_differs"], &at["engine_differs_more"], &at["ignored"]),
        (&json!(40), &json!(false), &json!(40))
    );
    let stock = place(&evidence, "value $.stock");
    assert!((1..40).contains(&stock["legacy_differs"].as_u64().expect("a count")), "{stock}");
    let seen = stock["legacy_differs"].as_f64().expect("a count") / 40.0;
    assert!(
        stock["rate"]["at_least"].as_f64() < Some(seen) && stock["rate"]["at_most"].as_f64() > Some(seen),
        "{stock}"
    );
    let shown = output_text(&shop.pointsman.cli(&["evidence", "products.show"]).await);
    assert!(shown.contains("LEGACY DIFFERS FROM ITSELF AT") && shown.contains("value $.generated_at"), "{shown}");
    let shown = output_text(&shop.pointsman.cli(&["diffs", "products.show"]).await);
    assert!(shown.contains("40 pairs, 0 differ") && shown.contains("noise: ignored"), "{shown}");
    let metrics = shop.pointsman.metrics().await;
    let of_route =
        |verdict: &str| metrics.sum("pointsman_noise_places", &[("route", "products.show"), ("verdict", verdict)]);
    assert_eq!((of_route("noise"), of_route("engine_differs_more")), (2.0, 0.0));

    // It is known after kill -9, too: no pair counts as a difference before a request was repeated again.
    shop.pointsman.kill().await;
    route(&shop.flags, "replay_safe: true, noise: 0%");
    shop.pointsman = Pointsman::start(&shop.start).await;
    let url = format!("{}/products/1", shop.pointsman.url());
    shop.client.json(Method::GET, &url, &[], &Value::Null).await.expect("a reply");
    until("the pair", || async {
        let evidence = shop.evidence().await;
        assert_eq!(evidence["evidence"]["mismatched"], 0, "{evidence}");
        (evidence["evidence"]["ignored"].as_u64()? >= 41).then_some(())
    })
    .await;
    assert_eq!(shop.seen.repeated.load(SeqCst), 40, "a share of 0 %");

    // A defect where legacy does not differ is found in the first pair.
    shop.defect.store(1, SeqCst);
    shop.client.json(Method::GET, &url, &[], &Value::Null).await.expect("a reply");
    until("the difference", || async { (shop.evidence().await["evidence"]["mismatched"] == 1).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_defect_at_a_noisy_place_is_found_and_all_its_pairs_count() {
    let shop = Shop::start("").await;
    let evidence = shop.send(30).await;
    assert_eq!(evidence["evidence"]["mismatched"], 0, "{evidence}");
    let noisy = place(&evidence, "value $.stock")["ignored"].as_u64().expect("a count");
    // The stock is wrong in each pair now, where legacy differs from itself in half of them.
    shop.defect.store(2, SeqCst);
    let mut sent = 0;
    let found = loop {
        assert!(sent < 150, "it is not found in {sent} pairs");
        let evidence = shop.send(10).await;
        sent += 10;
        if place(&evidence, "value $.stock")["engine_differs_more"] == true {
            break evidence;
        }
    };
    let mismatched = found["evidence"]["mismatched"].as_u64().expect("a count");
    // The engine's 99 is never what legacy has.
    assert_eq!(mismatched, noisy + sent, "the pairs of the past count too: {found}");
    assert_eq!(place(&found, "value $.generated_at")["engine_differs_more"], false);
    let shown = output_line(&shop.pointsman.cli(&["evidence", "products.show"]).await);
    assert!(shown.contains("the engine differs more often: counts"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_that_writes_is_never_asked_twice() {
    let shop = Shop::start("egress: { listen: 127.0.0.1:0, window: 100ms }\n").await;
    let evidence = shop.send(10).await;
    assert_eq!(shop.seen.repeated.load(SeqCst), 0, "no request was repeated, not even the first one");
    assert_eq!(shop.seen.charges.load(SeqCst), 10, "each audit once");
    assert_eq!(evidence["noise"]["legacy_write"]["call"], "POST to bank", "{evidence}");
    let shown = output_line(&shop.pointsman.cli(&["evidence", "products.show"]).await);
    assert!(shown.contains("legacy made a call that may change something (POST to bank)"), "{shown}");
    assert!(shop.pointsman.log().contains("Take `replay_safe` out"));
    // Of a call that ends late, less is known.
    assert_eq!(shop.outcomes("legacy_writes").await + shop.outcomes("effects_unknown").await, 10.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_that_writes_is_never_asked_twice_although_the_workflow_changes_before() {
    let shop = Shop::start("egress: { listen: 127.0.0.1:0, window: 3s }\n").await;
    let generation = || async { shop.pointsman.get("/api/v2/status").await["flags"]["generation"].as_u64() };
    let before = generation().await;
    for n in 0..5 {
        let url = format!("{}/products/{n}", shop.pointsman.url());
        shop.client.json(Method::GET, &url, &[], &Value::Null).await.expect("a reply");
    }
    // Within the window of these requests.
    shop.flags.write(
        "workflows/show.yaml",
        "workflow: show\nsteps: { read: { call: \"GET ${services.catalogue}/products/${request.params.id}\" } }\n\
         respond: { status: 201, body: \"${steps.read.output}\" }\n",
    );
    until("the files to be in force", || async { (generation().await > before).then_some(()) }).await;
    shop.repeated().await;
    assert_eq!((shop.seen.repeated.load(SeqCst), shop.seen.charges.load(SeqCst)), (0, 5), "each audit once");
    assert!(shop.outcomes("files_changed").await > 0.0, "the workflow changed within the window");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_not_repeated_while_legacy_writes_for_nobody_knows_whom() {
    let shop = Shop::start("egress: { listen: 127.0.0.1:0, window: 100ms }\n").await;
    shop.seen.drops_trace.store(true, SeqCst);
    shop.send(5).await;
    assert_eq!((shop.seen.repeated.load(SeqCst), shop.seen.charges.load(SeqCst)), (0, 5), "each audit once");
    assert_eq!(shop.outcomes("effects_unknown").await, 5.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_takes_it_back_is_not_repeated_any_more() {
    let shop = Shop::start("").await;
    shop.send(4).await;
    let generation = || async { shop.pointsman.get("/api/v2/status").await["flags"]["generation"].as_u64() };
    let before = generation().await;
    route(&shop.flags, "replay_safe: false");
    until("the files to be in force", || async { (generation().await > before).then_some(()) }).await;
    let evidence = shop.evidence().await;
    assert_eq!((&evidence["noise"], &evidence["evidence"]["mismatched"]), (&Value::Null, &json!(4)), "{evidence}");
    let url = format!("{}/products/1", shop.pointsman.url());
    shop.client.json(Method::GET, &url, &[], &Value::Null).await.expect("a reply");
    until("the pair", || async { (shop.evidence().await["evidence"]["mismatched"] == 5).then_some(()) }).await;
    assert_eq!(shop.seen.repeated.load(SeqCst), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_that_writes_is_not_asked_what_the_engine_answered() {
    for drops_trace in [false, true] {
        let shop = Shop::start("egress: { listen: 127.0.0.1:0, window: 100ms }\n").await;
        shop.seen.drops_trace.store(drops_trace, SeqCst);
        let generation = || async { shop.pointsman.get("/api/v2/status").await["flags"]["generation"].as_u64() };
        let before = generation().await;
        shop.flags.write(
            "routes/products.yaml",
            "routes:\n  - { id: products.show, match: { method: GET, path: '/products/{id}' }, legacy: shop, \
             workflow: show, state: live, force: { reason: a test }, replay_safe: true, reverse: 100% }\n",
        );
        until("the files to be in force", || async { (generation().await > before).then_some(()) }).await;
        let outcomes = |outcome: &'static str| {
            let labels = [("route", "products.show"), ("outcome", outcome)];
            let pointsman = &shop.pointsman;
            async move { pointsman.metrics().await.sum("pointsman_reverse_comparisons_total", &labels) }
        };
        for n in 0..12 {
            let url = format!("{}/products/{n}", shop.pointsman.url());
            let reply = shop.client.json(Method::GET, &url, &[], &Value::Null).await.expect("a reply");
            assert_eq!(reply.status, StatusCode::OK);
            // One after the other, each until its calls are known.
            let all = || async {
                let labels = [("route", "products.show")];
                shop.pointsman.metrics().await.sum("pointsman_reverse_comparisons_total", &labels)
            };
            until("its outcome", || async { (all().await >= f64::from(n + 1)).then_some(()) }).await;
        }
        // The first one shows it; of calls that name no request, the third.
        let asked = if drops_trace { 3 } else { 1 };
        assert_eq!((shop.seen.repeated.load(SeqCst), shop.seen.charges.load(SeqCst)), (asked, asked), "{drops_trace}");
        assert_eq!(outcomes("legacy_writes").await, 12.0 - asked as f64);
        let evidence = shop.evidence().await;
        assert!(!evidence["noise"]["legacy_write"]["call"].is_null(), "{evidence}");
    }
}
