//! The issuer of bearer tokens gets another key pair: its file is replaced, and read with the next reload.

use http::{Method, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use pointsman::demo::http::Reply;
use serde_json::{Value, json};

use crate::legacy_keys::{charges, force};
use crate::support::test_system::{TestSystem, some_order};
use crate::support::{FlagsDir, until};

/// A key pair, made for these tests.
struct Pair {
    private: &'static str,
    public: &'static str,
}

const OLD: Pair = Pair {
    private: "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJmIriGl/lFIMRvw/I51sMjzblw8Fu7lrUslE+C1xKTX
-----END PRIVATE KEY-----
",
    public: "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA8hSg603dM3oK3k8Jx68RvCg1fYgeYhcPZ1J5nev4imo=
-----END PUBLIC KEY-----
",
};
const NEW: Pair = Pair {
    private: "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIM2Gebk0PXNhr9n2qaMgRbupd31UQJq3OrAcjwXvjpF+
-----END PRIVATE KEY-----
",
    public: "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAmFMUajRYiPU7lxAyjuG3LlsOhT6PA2k42duDTWQBXUs=
-----END PUBLIC KEY-----
",
};

const FILE: &str = "issuer.pem";

impl Pair {
    /// The n-th token of one caller.
    fn token(&self, n: u64) -> String {
        self.token_of("ada", n)
    }
    fn token_of(&self, subject: &str, n: u64) -> String {
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({ "iss": "issuer", "sub": subject, "aud": "shop", "exp": now + 600, "jti": n });
        let key = EncodingKey::from_ed_pem(self.private.as_bytes()).expect("a key");
        encode(&Header::new(Algorithm::EdDSA), &claims, &key).expect("a token")
    }
}

/// Sends the order with this number, under its own retry key.
async fn send(system: &TestSystem, number: u64, token: &str) -> Reply {
    send_under_key(system, number, number, token).await
}

/// Sends the order `number` under the retry key of the order `key_of`.
async fn send_under_key(system: &TestSystem, number: u64, key_of: u64, token: &str) -> Reply {
    let (key, bearer) = (format!("order-{key_of}"), format!("Bearer {token}"));
    let headers = [("idempotency-key", key.as_str()), ("authorization", bearer.as_str())];
    let reply = system.send_with(Method::POST, "/orders", &headers, &some_order(number)).await;
    reply.unwrap_or_else(|why| panic!("{why}\n{}", system.pointsman.log()))
}

/// Sends an order, and returns its id.
async fn order_id(system: &TestSystem, number: u64, token: &str) -> Value {
    let reply = send(system, number, token).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{number}: {}", reply.json());
    reply.json()["id"].clone()
}

/// Sends one order under two tokens of a key pair that is in force: both are of one caller, so the second is a retry.
async fn check_accepted(system: &TestSystem, number: u64, pair: &Pair) -> Value {
    let id = order_id(system, number, &pair.token(1)).await;
    assert_eq!(order_id(system, number, &pair.token(2)).await, id, "a refreshed token");
    id
}

/// Sends an order that the engine has under another credential: it is refused, and nothing is done.
async fn check_held(system: &TestSystem, number: u64, token: &str, when: &str) {
    let held = send(system, number, token).await;
    let kind = held.json()["type"].as_str().unwrap_or_default().to_owned();
    assert!(held.status == StatusCode::CONFLICT && kind.ends_with("retry-key-held"), "{when}: {kind}");
}

async fn flags(system: &TestSystem) -> Value {
    system.pointsman.get("/api/v2/status").await["flags"].clone()
}

fn replace_key_file(system: &TestSystem, text: &str) {
    system.flags.write(FILE, text);
    system.pointsman.signal(rustix::process::Signal::HUP);
}

/// Scopes the keys of orders by the tokens of the old pair.
fn by_token(flags: &FlagsDir) {
    flags.write(FILE, OLD.public);
    flags.edit("routes/orders.yaml", |text| {
        let creates = "    instance: { creates: $.id }";
        text.replace(creates, &format!("    caller: {{ jwt: {{ keys: {FILE}, audience: shop }} }}\n{creates}"))
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_file_is_taken_over_by_a_reload_and_a_broken_one_changes_nothing() {
    let mut system = TestSystem::with(by_token).await;
    system.allowed.unacknowledged = true;
    force(&system, "live").await;
    let first = check_accepted(&system, 1, &OLD).await;
    assert!(first.is_string(), "the engine answers: {first}");

    // A broken file: refused, with file and place, and what is in force stays.
    let before = flags(&system).await;
    replace_key_file(&system, "-----BEGIN PUBLIC KEY-----\nno key\n-----END PUBLIC KEY-----\n");
    let why = until("the refusal", || async { flags(&system).await["last_error"].as_str().map(str::to_owned) }).await;
    for part in [FILE, "routes/orders.yaml:", "keys"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert_eq!(flags(&system).await["generation"], before["generation"]);
    check_accepted(&system, 2, &OLD).await;
    assert_eq!(order_id(&system, 1, &OLD.token(3)).await, first);

    // The new pair is in force: its tokens are verified; those of the old pair are compared like any other header.
    replace_key_file(&system, NEW.public);
    until("the new key", || async {
        let flags = flags(&system).await;
        (flags["generation"].as_u64() > before["generation"].as_u64() && flags["last_error"].is_null()).then_some(())
    })
    .await;
    let third = check_accepted(&system, 3, &NEW).await;
    // The old pair's tokens are compared byte for byte now. A newly made token would differ in its time of expiry, so
    // the same token is sent each time.
    let old_token = OLD.token(1);
    let check_old_token = async |system: &TestSystem, when: &str| {
        order_id(system, 4, &old_token).await;
        let unverified = system.pointsman.metrics().await.sum("pointsman_unverified_callers_total", &[]);
        assert!(unverified >= 1.0, "{when}: the metrics show that tokens cannot be verified");
        check_held(system, 4, &OLD.token(2), when).await;
        // A request that came while the old pair was in force is still found under the scope that it had then.
        assert_eq!(order_id(system, 1, &OLD.token(4)).await, first, "{when}");
    };
    check_old_token(&system, "after the reload").await;
    system.wait_for_runs_to_end().await;
    system.kill().await;
    system.restart().await;
    assert_eq!(order_id(&system, 3, &NEW.token(5)).await, third);
    check_old_token(&system, "after a restart").await;
    system.wait_for_runs_to_end().await;
    assert_eq!(charges(&system), 4, "each order once");
    system.finish().await;
}

/// The issuer signs with the new key before the files have it.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_whose_token_cannot_be_verified_stays_with_legacy() {
    let mut system = TestSystem::with(by_token).await;
    system.allowed.unacknowledged = true;
    force(&system, "dark").await;
    let first = order_id(&system, 1, &OLD.token(1)).await;
    assert!(first.is_number(), "legacy answers: {first}");
    force(&system, "live").await;
    for token in [OLD.token(2), NEW.token(3)] {
        assert_eq!(order_id(&system, 1, &token).await, first);
    }
    assert!(order_id(&system, 2, &NEW.token(6)).await.is_string(), "the engine answers a new request");
    system.wait_for_runs_to_end().await;
    assert_eq!(charges(&system), 2, "each order once");
    system.finish().await;
}

/// The issuer signs with the new key before the files have it.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_took_is_not_done_again_for_a_token_that_cannot_be_verified() {
    let mut system = TestSystem::with(by_token).await;
    system.allowed.unacknowledged = true;
    force(&system, "live").await;
    let first = order_id(&system, 1, &OLD.token(1)).await;
    assert!(first.is_string(), "the engine answers: {first}");
    check_held(&system, 1, &NEW.token(2), "live").await;
    // Another order with the same key is another request, and another verified caller is another caller.
    let other = send_under_key(&system, 2, 1, &NEW.token(3)).await;
    assert_eq!(other.status, StatusCode::CREATED, "{}", other.json());
    assert_ne!(order_id(&system, 1, &OLD.token_of("bob", 1)).await, first);
    // A request without a verified token reserves no key against a verified caller.
    let unverified = order_id(&system, 3, &NEW.token(4)).await;
    assert_ne!(order_id(&system, 3, &OLD.token(5)).await, unverified);
    system.wait_for_runs_to_end().await;
    assert_eq!(charges(&system), 5, "each request once");

    system.kill().await;
    system.restart().await;
    check_held(&system, 1, &NEW.token(6), "live, after a restart").await;
    system.lower("dark").await;
    check_held(&system, 1, &NEW.token(7), "dark").await;
    assert_eq!(order_id(&system, 1, &OLD.token(8)).await, first, "this token can be verified");
    system.wait_for_runs_to_end().await;
    assert_eq!(charges(&system), 5, "no retry was performed");
    system.finish().await;
}

/// After a rotation, each request is also looked up as the earlier files would identify it: with an unverified token.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_verified_callers_with_the_same_key_reserve_nothing_against_each_other() {
    let mut system = TestSystem::with(by_token).await;
    system.allowed.unacknowledged = true;
    force(&system, "dark").await;
    let of_ada = order_id(&system, 1, &OLD.token(1)).await;
    assert!(of_ada.is_number(), "legacy answers: {of_ada}");
    let before = flags(&system).await["generation"].as_u64();
    replace_key_file(&system, NEW.public);
    until("the new key", || async { (flags(&system).await["generation"].as_u64() > before).then_some(()) }).await;
    let other_of_ada = order_id(&system, 2, &NEW.token(2)).await;
    force(&system, "live").await;
    for restarted in [false, true] {
        if restarted {
            system.wait_for_runs_to_end().await;
            system.kill().await;
            system.restart().await;
        }
        for (key_of, first) in [(1, &of_ada), (2, &other_of_ada)] {
            let number = 10 + key_of;
            let bob = NEW.token_of("bob", number);
            let reply = send_under_key(&system, number, key_of, &bob).await.json();
            assert!(reply["id"].is_string(), "restarted: {restarted}; the engine answers another caller: {reply}");
            assert_eq!(order_id(&system, key_of, &NEW.token(3)).await, *first, "restarted: {restarted}");
            assert_eq!(order_id(&system, key_of, &OLD.token(4)).await, *first, "restarted: {restarted}");
        }
    }
    system.wait_for_runs_to_end().await;
    assert_eq!(charges(&system), 4, "each order once");
    system.finish().await;
}
