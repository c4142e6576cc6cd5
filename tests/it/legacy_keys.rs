//! Retry keys that legacy took before a crash, on a full disk, or without a way to record them, and keys that come
//! again under another credential: in every later state a retry stays on its arm or is refused.

use std::path::PathBuf;
use std::time::Duration;

use http::{Method, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use pointsman::demo::http::Reply;
use serde_json::{Value, json};

use crate::support::seed::report_violations;
use crate::support::strace::Strace;
use crate::support::test_system::{FAMILY, TestSystem, some_order};
use crate::support::{FlagsDir, until};

const RUNGS: [&str; 5] = ["off", "shadow", "dark", "live", "only"];

/// Moves the family up to a state by hand.
pub async fn force(system: &TestSystem, to: &str) {
    let row = system.pointsman.get("/api/v2/routes/orders.create").await;
    let at = RUNGS.iter().position(|rung| row["row"]["requested"] == *rung).expect("a state");
    let top = RUNGS.iter().position(|rung| *rung == to).expect("a state");
    for rung in &RUNGS[(at + 1).min(top + 1)..=top] {
        for route in FAMILY {
            system.flip(route, rung, &["--force", "--reason", "the test climbs"]).await.expect("it is forced");
        }
    }
}

/// From now on the disk is full: the store cannot write, but allocated blocks can be overwritten.
pub async fn fill_disk(system: &TestSystem) -> Strace {
    let store = system.store();
    let with_suffix = |end: &str| PathBuf::from(format!("{}{end}", store.display()));
    let files = [store.clone(), with_suffix("-wal"), with_suffix("-journal")];
    Strace::inject_on(system.pointsman.pid(), "pwrite64,pwritev", "error=ENOSPC", &files).await
}

pub async fn send_keyed(system: &TestSystem, key: &str, number: u64) -> Reply {
    let headers = [("idempotency-key", key)];
    let reply = system.send_with(Method::POST, "/orders", &headers, &some_order(number)).await;
    reply.unwrap_or_else(|why| panic!("{why}\n{}", system.pointsman.log()))
}

/// Waits until the file of retry keys has the ids of this many routes of which a key could not be noted. The process
/// writes them as soon as it can, into the first slots for such routes.
pub async fn wait_until_unnoted_ids_are_written(system: &TestSystem, ids: usize) {
    let file = PathBuf::from(format!("{}.keys", system.store().display()));
    until("the ids to be written down", || async {
        let last = std::fs::read(&file).ok()?.get((1 + ids) * 64..(2 + ids) * 64)?.to_vec();
        last.iter().any(|byte| *byte != 0).then_some(())
    })
    .await;
}

pub fn charges(system: &TestSystem) -> u64 {
    system.world.ledger().balance().total("charge")
}

/// In each round legacy answers some keyed orders, the process is killed some milliseconds after the last answer and
/// restarted, the route goes to `live`, and the clients try again.
async fn kill_after_legacy(test: &str, is_full: bool) {
    const ORDERS: u64 = 12;
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    let (mut wrong, mut number) = (Vec::new(), 0);
    for (state, killed_after_ms) in [("off", 0), ("shadow", 7), ("dark", 13), ("live", 20), ("off", 3), ("live", 0)] {
        force(&system, state).await;
        if state == "live" && !is_full {
            // Most callers are outside the share, so legacy answers them.
            system
                .flip("orders.create", "live", &["--percent", "1", "--reason", "a small share"])
                .await
                .expect("it moves");
        }
        let full = if is_full { Some(fill_disk(&system).await) } else { None };
        let (mut taken, before) = (Vec::new(), charges(&system));
        for _ in 0..ORDERS {
            number += 1;
            let key = format!("key-{number}");
            let reply = send_keyed(&system, &key, number).await;
            if reply.status != StatusCode::CREATED {
                wrong.push(format!("{state}: {} {}", reply.status, reply.json()));
            } else if reply.json()["id"].is_number() {
                taken.push((key, number, reply.json()["id"].clone()));
            }
        }
        // Moves the kill to another moment of the work in the background in each round.
        tokio::time::sleep(Duration::from_millis(killed_after_ms)).await;
        system.kill().await;
        if let Some(full) = full {
            full.end().await;
        }
        system.restart().await;
        force(&system, "live").await;
        system
            .flip("orders.create", "live", &["--percent", "100", "--force", "--reason", "all"])
            .await
            .expect("it moves");
        if taken.len() < 6 {
            wrong.push(format!("{state}: legacy took only {} of {ORDERS}", taken.len()));
        }
        for (key, number, id) in &taken {
            let again = send_keyed(&system, key, *number).await;
            if (again.status, &again.json()["id"]) != (StatusCode::CREATED, id) {
                wrong.push(format!(
                    "{state}, {key}: legacy made {id}, the retry got {} {}",
                    again.status,
                    again.json()
                ));
            }
        }
        let charged = charges(&system) - before;
        if charged != ORDERS {
            wrong.push(format!("{state}: {charged} charges for {ORDERS} orders"));
        }
        system.wait_for_runs_to_end().await;
        system.lower("off").await;
    }
    system.finish().await;
    report_violations(test, None, &format!("{number} keyed orders, 6 kills, full disk: {is_full}"), &wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_legacy_answered() {
    kill_after_legacy("legacy_keys::killed_after_legacy_answered", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_legacy_answered_on_a_full_disk() {
    kill_after_legacy("legacy_keys::killed_after_legacy_answered_on_a_full_disk", true).await;
}

/// Nothing can be written: below `live` legacy serves and the gate to `live` stays shut, also after a restart; in
/// `live` nothing is started.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_recorded_shuts_the_gate_and_starts_nothing_in_live() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    let nothing_written =
        async |system: &TestSystem| Strace::inject(system.pointsman.pid(), "pwrite64,pwritev", "error=ENOSPC").await;
    force(&system, "live").await;
    let refused_writes = nothing_written(&system).await;
    let before = charges(&system);
    let refused = send_keyed(&system, "in-live", 1).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.json());
    let problem = refused.json();
    assert!(problem["type"].as_str().is_some_and(|kind| kind.ends_with("retry-key-not-noted")), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|why| why.contains("Nothing was begun")), "{problem}");
    assert_eq!(charges(&system), before, "neither arm has begun");
    refused_writes.end().await;
    until("the refused order to be taken", || async {
        (send_keyed(&system, "in-live", 1).await.status == StatusCode::CREATED).then_some(())
    })
    .await;
    assert_eq!(charges(&system), before + 1, "once");
    system.wait_for_runs_to_end().await;

    system.lower("dark").await;
    let refused_writes = nothing_written(&system).await;
    let served = send_keyed(&system, "in-dark", 2).await;
    assert_eq!(served.status, StatusCode::CREATED, "below `live` legacy serves: {}", served.json());
    system
        .pointsman
        .until_metric("the key to be counted", |metrics| {
            metrics.sum("pointsman_retry_keys_unnoted_total", &[("route", "orders.create")]) == 1.0
        })
        .await;
    refused_writes.end().await;
    for follower in ["orders.get", "orders.cancel"] {
        system.flip(follower, "live", &["--force", "--reason", "followers go first"]).await.expect("it is forced");
    }
    let shut = async |system: &TestSystem| {
        let reply =
            system.pointsman.api(Method::POST, "/api/v2/routes/orders.create/flip", json!({ "to": "live" })).await;
        (reply.status, reply.json().to_string())
    };
    let (status, why) = shut(&system).await;
    assert!(status == StatusCode::CONFLICT && why.contains("could not be noted"), "{status} {why}");
    // A forced flip now is made by a person who knows of the request, so it passes the gate.
    let until_live = async |system: &TestSystem| {
        // The next check of the engine's health finds that the disk accepts writes again.
        until("the route to be live", || async {
            let shown = system.pointsman.get("/api/v2/routes/orders.create").await;
            (shown["row"]["effective"]["state"] == "live").then_some(())
        })
        .await;
    };
    system.flip("orders.create", "live", &["--force", "--reason", "its client does not retry"]).await.expect("forced");
    until_live(&system).await;
    system.flip("orders.create", "dark", &["--reason", "a step back"]).await.expect("it goes down");
    wait_until_unnoted_ids_are_written(&system, 1).await;
    system.kill().await;
    system.restart().await;
    let (status, why) = shut(&system).await;
    assert!(status == StatusCode::CONFLICT && why.contains("could not be noted"), "after a restart: {status} {why}");
    let status: Value = system.pointsman.get("/api/v2/routes/orders.create").await;
    assert!(status.to_string().contains("could not be noted"), "{status}");
    force(&system, "live").await;
    until_live(&system).await;
    system.finish().await;
    report_violations(
        "legacy_keys::a_key_that_cannot_be_recorded_shuts_the_gate_and_starts_nothing_in_live",
        None,
        "2 keyed orders without a writable disk",
        &[],
    );
}

/// The person who forced the flip knew of the request whose key was not recorded: nobody has to force it again after
/// the next deployment.
#[tokio::test(flavor = "multi_thread")]
async fn a_forced_flip_after_a_key_that_was_not_recorded_outlasts_a_restart() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    force(&system, "dark").await;
    let refused_writes = Strace::inject(system.pointsman.pid(), "pwrite64,pwritev", "error=ENOSPC").await;
    assert_eq!(send_keyed(&system, "in-dark", 1).await.status, StatusCode::CREATED);
    refused_writes.end().await;
    wait_until_unnoted_ids_are_written(&system, 1).await;
    for route in FAMILY {
        system.flip(route, "live", &["--force", "--reason", "its client does not retry"]).await.expect("it is forced");
    }
    for when in ["before", "after a restart", "after another restart"] {
        let shown = system.pointsman.get("/api/v2/routes/orders.create").await;
        assert_eq!(shown["row"]["effective"]["state"], "live", "{when}: {shown}");
        assert!(shown["row"]["forced"].is_string(), "{when}: {shown}");
        assert_eq!(system.pointsman.stop().await, Some(0), "{when}");
        system.restart().await;
    }
    system.finish().await;
    report_violations(
        "legacy_keys::a_forced_flip_after_a_key_that_was_not_recorded_outlasts_a_restart",
        None,
        "1 keyed order without a writable disk, 3 restarts",
        &[],
    );
}

/// Legacy served keyed requests of a route before it had a workflow: nothing recorded them, so the gate to `live` stays
/// shut for as long as they may be retried, also after a restart, and `force` passes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_gets_its_workflow_later() {
    const WORKFLOW: &str = "    workflow: create-campaign\n";
    let (campaigns, route) = ("routes/campaigns.yaml", "campaigns.create");
    // Rules for the calls of steps need a workflow.
    let is_of_steps = |line: &&str| line.contains("effects:") || line.contains("made_by_both:");
    let without_steps =
        |text: &str| text.lines().filter(|line| !is_of_steps(line)).map(|line| format!("{line}\n")).collect::<String>();
    let edit = |flags: &FlagsDir| flags.edit(campaigns, |text| without_steps(&text.replace(WORKFLOW, "")));
    let mut system = TestSystem::with(edit).await;
    system.allowed.unacknowledged = true;
    let brief = json!({ "product": "tea", "audience": "everybody" });
    let order = [("idempotency-key", "before")];
    let reply = system.send_with(Method::POST, "/campaigns", &order, &brief).await.expect("a reply");
    assert!(reply.status.is_success(), "{}", reply.json());
    let why = async |system: &TestSystem, route: &str| {
        let row = system.pointsman.get(&format!("/api/v2/routes/{route}")).await;
        let path = format!("/api/v2/routes/{route}/flip");
        let reply = system.pointsman.api(Method::POST, &path, json!({ "to": "live" })).await;
        assert_eq!(reply.status, StatusCode::CONFLICT, "{}", reply.json());
        [row["next"].to_string(), reply.json().to_string()]
    };
    let says = "the route's retry keys are recorded since";
    let generation = || async { system.pointsman.get("/api/v2/status").await["flags"]["generation"].as_u64() };
    let before = generation().await;
    let legacy = "    legacy: shop\n";
    system.flags.edit(campaigns, |text| text.replace(legacy, &format!("{legacy}{WORKFLOW}")));
    until("the workflow to be in force", || async { (generation().await > before).then_some(()) }).await;
    let forced = ["--force", "--reason", "the test climbs"];
    for rung in ["shadow", "dark"] {
        for route in [route, "orders.get"] {
            system.flip(route, rung, &forced).await.expect("it is forced");
        }
    }
    for said in why(&system, route).await {
        assert!(said.contains(says) && said.contains("until 20"), "{said}");
    }
    for said in why(&system, "orders.get").await {
        assert!(!said.contains(says), "the route had its workflow from the first start on: {said}");
    }
    system.kill().await;
    system.restart().await;
    for said in why(&system, route).await {
        assert!(said.contains(says), "after a restart: {said}");
    }
    system.flip(route, "live", &forced).await.expect("force passes");
    system.finish().await;
}

/// A key that was made for these tests.
const ISSUER_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJmIriGl/lFIMRvw/I51sMjzblw8Fu7lrUslE+C1xKTX
-----END PRIVATE KEY-----
";
const ISSUER_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA8hSg603dM3oK3k8Jx68RvCg1fYgeYhcPZ1J5nev4imo=
-----END PUBLIC KEY-----
";

/// The n-th token of a caller.
fn token(subject: &str, n: u64) -> String {
    token_until(subject, n, 600)
}

/// The n-th token of a caller, which expires in `seconds`.
fn token_until(subject: &str, n: u64, seconds: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({ "iss": "issuer", "sub": subject, "aud": "shop", "exp": now + seconds, "jti": n });
    let key = EncodingKey::from_ed_pem(ISSUER_PRIVATE.as_bytes()).expect("a key");
    encode(&Header::new(Algorithm::EdDSA), &claims, &key).expect("a token")
}

async fn send_with_token(system: &TestSystem, key: &str, token: &str, number: u64) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers = [("idempotency-key", key), ("authorization", bearer.as_str())];
    let reply = system.send_with(Method::POST, "/orders", &headers, &some_order(number)).await;
    reply.unwrap_or_else(|why| panic!("{why}\n{}", system.pointsman.log()))
}

/// An order under one token, and its retry under the next one after a flip: from legacy to the engine, and back.
#[tokio::test(flavor = "multi_thread")]
async fn a_refreshed_token_is_the_same_caller() {
    let system = TestSystem::with(|flags| {
        flags.write("issuer.pem", ISSUER_PUBLIC);
        flags.edit("routes/orders.yaml", |text| {
            let creates = "    instance: { creates: $.id }";
            assert!(text.contains(creates), "the example's family");
            let caller = "    caller: { jwt: { keys: issuer.pem, audience: shop } }";
            text.replace(creates, &format!("{caller}\n{creates}"))
        });
    })
    .await;
    let mut system = system;
    system.allowed.unacknowledged = true;
    let by_legacy = send_with_token(&system, "one", &token("ada", 1), 1).await;
    assert!(by_legacy.json()["id"].is_number(), "{}", by_legacy.json());
    force(&system, "live").await;
    let before = charges(&system);
    let again = send_with_token(&system, "one", &token("ada", 2), 1).await;
    assert_eq!((again.status, &again.json()["id"]), (StatusCode::CREATED, &by_legacy.json()["id"]));
    let by_engine = send_with_token(&system, "two", &token("ada", 3), 2).await;
    assert!(by_engine.json()["id"].is_string(), "{}", by_engine.json());
    let others = send_with_token(&system, "two", &token("eve", 1), 2).await;
    assert!(others.json()["id"].is_string() && others.json()["id"] != by_engine.json()["id"], "another caller's own");
    for (state, n) in [("live", 4), ("off", 5)] {
        system.lower(state).await;
        let again = send_with_token(&system, "two", &token("ada", n), 2).await;
        assert_eq!(again.json()["id"], by_engine.json()["id"], "{state}: {}", again.json());
    }
    // The token of the retry expired an hour ago; it still identifies the same caller on both arms.
    for state in ["off", "live"] {
        force(&system, state).await;
        for (key, number, first) in [("one", 1, &by_legacy), ("two", 2, &by_engine)] {
            let again = send_with_token(&system, key, &token_until("ada", 6, -3_600), number).await;
            assert_eq!(again.json()["id"], first.json()["id"], "{state}, {key}: {}", again.json());
        }
    }
    assert_eq!(charges(&system), before + 2, "each once");
    for order in [&by_engine, &others] {
        system.record_order(order.json());
    }
    system.finish().await;
    report_violations("legacy_keys::a_refreshed_token_is_the_same_caller", None, "3 orders, 7 tokens", &[]);
}

/// The token is not verified: a request that legacy took under one token stays with legacy under the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_legacy_took_stays_there_under_another_credential() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    let first = send_with_token(&system, "one", "first", 1).await;
    assert!(first.json()["id"].is_number(), "{}", first.json());
    let before = charges(&system);
    system.kill().await;
    system.restart().await;
    force(&system, "live").await;
    let again = send_with_token(&system, "one", "second", 1).await;
    assert_eq!((again.status, &again.json()["id"]), (StatusCode::CREATED, &first.json()["id"]), "{}", again.json());
    assert_eq!(charges(&system), before);
    system.finish().await;
    report_violations("legacy_keys::a_key_that_legacy_took_stays_there_under_another_credential", None, "1 order", &[]);
}

/// The token is not verified: a request that the engine took under one token is refused under the next, in `live` and
/// in `off`, and neither arm does it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_engine_took_is_refused_under_another_credential() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    force(&system, "live").await;
    let before = charges(&system);
    let first = send_with_token(&system, "one", "first", 1).await;
    assert!(first.json()["id"].is_string(), "{}", first.json());
    let refused = async |system: &TestSystem, when: &str| {
        let again = send_with_token(system, "one", "second", 1).await;
        assert_eq!(again.status, StatusCode::CONFLICT, "{when}: {}", again.json());
        let problem = again.json();
        assert!(problem["type"].as_str().is_some_and(|kind| kind.ends_with("retry-key-held")), "{when}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|why| why.contains("Nothing was done")), "{when}: {problem}");
        let own = send_with_token(system, "one", "first", 1).await;
        assert_eq!((own.status, &own.json()["id"]), (StatusCode::CREATED, &first.json()["id"]), "{when}");
    };
    refused(&system, "live").await;
    let other_body = send_with_token(&system, "one", "third", 2).await;
    assert!(other_body.json()["id"].is_string(), "another caller's own: {}", other_body.json());
    system.lower("off").await;
    refused(&system, "off").await;
    let by_legacy = send_with_token(&system, "one", "fourth", 3).await;
    assert!(by_legacy.json()["id"].is_number(), "another caller's own: {}", by_legacy.json());
    assert_eq!(charges(&system), before + 3, "each once");
    for order in [&first, &other_body] {
        system.record_order(order.json());
    }
    system.finish().await;
    let test = "legacy_keys::a_key_that_the_engine_took_is_refused_under_another_credential";
    report_violations(test, None, "3 orders, 4 tokens, 1 key", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_engine_took_before_a_kill_is_refused_under_another_credential() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    force(&system, "live").await;
    let before = charges(&system);
    let first = send_with_token(&system, "one", "first", 1).await;
    system.wait_for_runs_to_end().await;
    system.kill().await;
    system.restart().await;
    for state in ["live", "off"] {
        system.lower(state).await;
        let again = send_with_token(&system, "one", "second", 1).await;
        assert_eq!(again.status, StatusCode::CONFLICT, "{state}: {}", again.json());
    }
    system
        .pointsman
        .until_metric("both to be counted", |metrics| {
            metrics.sum("pointsman_retry_keys_held_total", &[("route", "orders.create")]) == 2.0
        })
        .await;
    assert_eq!(charges(&system), before + 1, "once");
    system.record_order(first.json());
    system.finish().await;
    let test = "legacy_keys::a_key_that_the_engine_took_before_a_kill_is_refused_under_another_credential";
    report_violations(test, None, "1 order, 2 tokens", &[]);
}

/// The bodies are too large for the engine now, and the set of its keys in memory is so small that it answers "perhaps"
/// for every key: a request is refused only if the store has a request of the engine under its key.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_large_to_compare_is_refused_only_if_the_engine_took_its_key() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    force(&system, "live").await;
    let before = charges(&system);
    let first = send_with_token(&system, "one", "first", 1).await;
    system.record_order(first.json());
    system.wait_for_runs_to_end().await;
    system.kill().await;
    system.flags.edit("pointsman.yaml", |text| {
        format!("{text}limits: {{ body_engine_bytes_max: 64, engine_keys_set_bytes_max: 1 }}\n")
    });
    system.restart().await;
    for (state, key) in [("live", "two"), ("off", "three")] {
        system.lower(state).await;
        let again = send_with_token(&system, "one", "second", 1).await;
        assert!(again.status.is_client_error(), "{state}: {} {}", again.status, again.json());
        let other = send_with_token(&system, key, "second", 2).await;
        assert_eq!(other.status, StatusCode::CREATED, "{state}: {}", other.json());
        assert!(other.json()["id"].is_number(), "{state}: legacy answers what is too large for the engine");
    }
    assert_eq!(charges(&system), before + 3, "each once");
    system.finish().await;
    let test = "legacy_keys::a_request_that_is_too_large_to_compare_is_refused_only_if_the_engine_took_its_key";
    report_violations(test, None, "3 orders, 2 tokens", &[]);
}
