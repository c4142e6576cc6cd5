//! The scope of a route's retry keys changes, by a reload or over a restart: a retry of a request that came under the
//! earlier scope stays on the arm of its first try, and nothing is done twice.

use http::{Method, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use pointsman::demo::http::Reply;
use serde_json::{Value, json};

use crate::support::seed::report_violations;
use crate::support::test_system::{FAMILY, TestSystem, some_order};
use crate::support::until;

const ORDERS: &str = "routes/orders.yaml";

/// A key that was made for these tests.
const ISSUER_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJmIriGl/lFIMRvw/I51sMjzblw8Fu7lrUslE+C1xKTX
-----END PRIVATE KEY-----
";
const ISSUER_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA8hSg603dM3oK3k8Jx68RvCg1fYgeYhcPZ1J5nev4imo=
-----END PUBLIC KEY-----
";

/// The key with which the issuer signs later.
const NEXT_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEICs9qG075ktwo8z5MKEtPAq/O2SEMC1sfkIiVkiA/Tym
-----END PRIVATE KEY-----
";
const NEXT_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEADgbMocOwwEG3dqKdXzj86rlqwP+2hmWfvimHaAgW6qI=
-----END PUBLIC KEY-----
";

/// The n-th token of ada.
fn token(n: u64) -> String {
    token_signed(ISSUER_PRIVATE, n)
}

fn token_signed(private: &str, n: u64) -> String {
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({ "iss": "issuer", "sub": "ada", "aud": "shop", "exp": now + 600, "jti": n });
    let key = EncodingKey::from_ed_pem(private.as_bytes()).expect("a key");
    format!("Bearer {}", encode(&Header::new(Algorithm::EdDSA), &claims, &key).expect("a token"))
}

/// The example's family file, with more lines for the route that creates orders.
fn scoped(text: &str, more: &str) -> String {
    let creates = "    instance: { creates: $.id }";
    assert!(text.contains(creates), "the example's family file has no such line: {text}");
    text.replace(creates, &format!("{more}{creates}"))
}

const BY_CUSTOMER: &str = "    caller: x-customer\n";
const BY_TOKEN: &str = "    caller: { jwt: { keys: issuer.pem, audience: shop }, headers: x-customer }\n";
const BY_NOBODY: &str = "    caller: []\n";

async fn reload(system: &TestSystem, text: &str) {
    let generation = || async { system.pointsman.get("/api/v2/status").await["flags"]["generation"].as_u64() };
    let before = generation().await;
    system.flags.write(ORDERS, text);
    until("the files to be in force", || async { (generation().await > before).then_some(()) }).await;
}

/// One order, which the same client sends repeatedly.
struct Order {
    key: &'static str,
    number: u64,
    customer: &'static str,
    credential: String,
    /// The first answer.
    order: Value,
}

impl Order {
    async fn place(system: &TestSystem, key: &'static str, number: u64, credential: &str) -> Self {
        let mut order = Self { key, number, customer: "c-1", credential: credential.to_owned(), order: Value::Null };
        let reply = order.send(system).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{key}: {}", reply.json());
        order.order = reply.json();
        order
    }
    /// The same order, sent with another credential.
    fn with(&self, credential: &str) -> Self {
        Self { credential: credential.to_owned(), order: self.order.clone(), ..*self }
    }
    fn id(&self) -> &Value {
        &self.order["id"]
    }
    async fn send(&self, system: &TestSystem) -> Reply {
        let headers =
            [("idempotency-key", self.key), ("x-customer", self.customer), ("authorization", self.credential.as_str())];
        let reply = system.send_with(Method::POST, "/orders", &headers, &some_order(self.number)).await;
        reply.unwrap_or_else(|why| panic!("{why}\n{}", system.pointsman.log()))
    }
    /// Checks that a retry of the order gets the first answer.
    async fn check_found(&self, system: &TestSystem, when: &str) {
        let again = self.send(system).await;
        let (status, again) = (again.status, again.json());
        assert_eq!((status, &again["id"]), (StatusCode::CREATED, self.id()), "{when}, {}: {again}", self.key);
    }
}

async fn raise(system: &TestSystem, to: &str) {
    const RUNGS: [&str; 4] = ["off", "shadow", "dark", "live"];
    let row = system.pointsman.get("/api/v2/routes/orders.create").await;
    let rank = |state: &str| RUNGS.iter().position(|rung| *rung == state).expect("a state");
    for rung in &RUNGS[rank(row["row"]["requested"].as_str().expect("a state")) + 1..=rank(to)] {
        for route in FAMILY {
            system.flip(route, rung, &["--force", "--reason", "the test climbs"]).await.expect("it is forced");
        }
    }
}

fn charges(system: &TestSystem) -> u64 {
    system.world.ledger().balance().total("charge")
}

/// Checks that retries of these orders get their first answers in `live`, `dark` and `off`, and that nothing is
/// performed.
async fn check_all_found(system: &TestSystem, orders: &[&Order], when: &str) {
    let before = charges(system);
    for state in ["live", "dark", "off"] {
        system.lower(state).await;
        for order in orders {
            order.check_found(system, &format!("{when}, {state}")).await;
        }
    }
    system.wait_for_shadow_idle().await;
    raise(system, "live").await;
    assert_eq!(charges(system), before, "{when}: nothing is done again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_caller_loses_no_retry() {
    let mut system = TestSystem::with(|flags| flags.write("issuer.pem", ISSUER_PUBLIC)).await;
    system.allowed.unacknowledged = true;
    let good = std::fs::read_to_string(system.flags.file(ORDERS)).expect("readable");
    let by_legacy = Order::place(&system, "one", 1, "a").await;
    raise(&system, "live").await;
    let by_engine = Order::place(&system, "two", 2, "a").await;
    assert!(by_legacy.id().is_number() && by_engine.id().is_string(), "each arm took one");

    // Now scoped by the customer's header, not by the credential.
    reload(&system, &scoped(&good, BY_CUSTOMER)).await;
    check_all_found(&system, &[&by_legacy, &by_engine], "a reload").await;
    let third = Order::place(&system, "three", 3, "a").await;
    assert!(third.id().is_string(), "a key that was not used before is new: {}", third.id());
    // The first tries were scoped by the credential, and these retries have a refreshed one: a retry of what legacy
    // took is still found, and a retry of what the engine took is refused.
    by_legacy.with("b").check_found(&system, "a refreshed credential").await;
    for state in ["live", "off"] {
        system.lower(state).await;
        let held = by_engine.with("b").send(&system).await;
        assert_eq!(held.status, StatusCode::CONFLICT, "{state}: {}", held.json());
    }
    third.with("b").check_found(&system, "the credential is not in the scope").await;
    raise(&system, "live").await;

    // Now scoped by a verified token, after a kill; the earlier keys are in the store and the key file.
    system.wait_for_runs_to_end().await;
    system.kill().await;
    system.flags.write(ORDERS, &scoped(&good, BY_TOKEN));
    system.restart().await;
    check_all_found(&system, &[&by_legacy, &by_engine, &third], "a restart").await;
    let by_token = Order::place(&system, "four", 4, &token(1)).await;
    let next = by_token.with(&token(2));
    next.check_found(&system, "a refreshed token").await;
    system.lower("off").await;
    let with_token = Order::place(&system, "five", 5, &token(3)).await;
    assert!(with_token.id().is_number(), "legacy took it: {}", with_token.id());

    // Now without a scope, after a restart; then scoped by the customer's header again, after a reload. The file of the
    // keys that verify tokens is gone, but the store still has them.
    assert_eq!(system.pointsman.stop().await, Some(0), "it ends with exit code 0");
    system.flags.write(ORDERS, &scoped(&good, BY_NOBODY));
    std::fs::remove_file(system.flags.file("issuer.pem")).expect("it was there");
    system.restart().await;
    raise(&system, "live").await;
    let later = with_token.with(&token(4));
    let all = [&by_legacy, &by_engine, &third, &next, &later];
    check_all_found(&system, &all, "without any scope").await;
    reload(&system, &scoped(&good, BY_CUSTOMER)).await;
    check_all_found(&system, &all, "back to an earlier scope").await;
    system.kill().await;
    system.restart().await;
    check_all_found(&system, &all, "and once more").await;
    assert_eq!(charges(&system), 5, "each once");
    for order in [by_engine, third, by_token] {
        system.record_order(order.order);
    }
    system.finish().await;
    report_violations(
        "caller_changes::a_change_of_caller_loses_no_retry",
        None,
        "5 orders, 4 changes, 3 restarts",
        &[],
    );
}

/// The files are changed so that the keys of the first tries have another scope, and then the issuer changes the key
/// with which it signs: the keys that verified the first tries do not verify the retries.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_issuers_key_after_a_change_of_scope_loses_no_retry() {
    let mut system = TestSystem::with(|flags| {
        flags.write("issuer.pem", ISSUER_PUBLIC);
        let text = std::fs::read_to_string(flags.file(ORDERS)).expect("readable");
        flags.write(ORDERS, &scoped(&text, BY_TOKEN));
    })
    .await;
    system.allowed.unacknowledged = true;
    let good = std::fs::read_to_string(system.flags.file(ORDERS)).expect("readable");
    let by_legacy = Order::place(&system, "one", 1, &token(1)).await;
    raise(&system, "live").await;
    let by_engine = Order::place(&system, "two", 2, &token(2)).await;
    assert!(by_legacy.id().is_number() && by_engine.id().is_string(), "each arm took one");
    // From here on the oldest id of the route, which is part of the scope, is `orders.place`. Until now the files
    // listed no earlier id.
    let other_scope = good.replacen("    caller: ", "    was: [orders.place]\n    caller: ", 1);
    reload(&system, &other_scope).await;
    system.flags.write("issuer.pem", NEXT_PUBLIC);
    reload(&system, &format!("{other_scope}# the issuer's next key\n")).await;
    let tokens = [3, 4].map(|n| token_signed(NEXT_PRIVATE, n));
    let refreshed = [by_legacy.with(&tokens[0]), by_engine.with(&tokens[1])];
    check_all_found(&system, &[&by_legacy, &by_engine, &refreshed[0], &refreshed[1]], "after a reload").await;
    system.kill().await;
    system.restart().await;
    check_all_found(&system, &[&refreshed[0], &refreshed[1], &by_legacy, &by_engine], "after a restart").await;
    assert_eq!(charges(&system), 2, "each once");
    system.record_order(by_engine.order);
    system.finish().await;
    report_violations(
        "caller_changes::a_change_of_the_issuers_key_after_a_change_of_scope_loses_no_retry",
        None,
        "2 orders, 2 changes, 1 restart",
        &[],
    );
}

/// A change of `retry_key:`: another header has the key.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_retry_key_loses_no_retry() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    let good = std::fs::read_to_string(system.flags.file(ORDERS)).expect("readable");
    let by_legacy = Order::place(&system, "one", 1, "a").await;
    raise(&system, "live").await;
    let by_engine = Order::place(&system, "two", 2, "a").await;
    let other = good.replacen("request.headers[\"idempotency-key\"]", "request.headers[\"x-request-id\"]", 1);
    // Without `force` the route would be held below `live`.
    let other = scoped(&other, "    force: { reason: every client sends both headers }\n");
    reload(&system, &other).await;
    check_all_found(&system, &[&by_legacy, &by_engine], "a reload").await;
    system.kill().await;
    system.restart().await;
    check_all_found(&system, &[&by_legacy, &by_engine], "a restart").await;
    system.record_order(by_engine.order);
    system.finish().await;
    report_violations("caller_changes::a_change_of_retry_key_loses_no_retry", None, "2 orders, 1 change", &[]);
}
