//! A key that legacy took, and then a crash, a full disk, or no way to write it down: a retry stays on its arm, whatever
//! the flag says by then.

use std::path::PathBuf;
use std::time::Duration;

use http::{Method, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use pointsman::demo::http::Reply;
use serde_json::{Value, json};

use crate::support::seed::{said, seed};
use crate::support::strace::Strace;
use crate::support::town::{FAMILY, Town, some_order};
use crate::support::until;

const RUNGS: [&str; 5] = ["off", "shadow", "dark", "live", "only"];

/// Moves the family up to a state by hand.
async fn force(town: &Town, to: &str) {
    let row = town.pointsman.get("/api/v2/routes/orders.create").await;
    let at = RUNGS.iter().position(|rung| row["row"]["requested"] == *rung).expect("a state");
    let top = RUNGS.iter().position(|rung| *rung == to).expect("a state");
    for rung in &RUNGS[(at + 1).min(top + 1)..=top] {
        for route in FAMILY {
            town.flip(route, rung, &["--force", "--reason", "the test climbs"]).await.expect("it is forced");
        }
    }
}

/// From now on the store cannot write: the disk is full, and what is allocated already may be written over.
async fn full_disk(town: &Town) -> Strace {
    let store = town.store();
    let beside = |end: &str| PathBuf::from(format!("{}{end}", store.display()));
    let files = [store.clone(), beside("-wal"), beside("-journal")];
    Strace::inject_on(town.pointsman.pid(), "pwrite64,pwritev", "error=ENOSPC", &files).await
}

async fn keyed(town: &Town, key: &str, number: u64) -> Reply {
    let headers = [("idempotency-key", key)];
    let reply = town.send_with(Method::POST, "/orders", &headers, &some_order(number)).await;
    reply.unwrap_or_else(|why| panic!("{why}\n{}", town.pointsman.log()))
}

fn charges(town: &Town) -> u64 {
    town.world.ledger().balance().total("charge")
}

/// In each round legacy takes some keyed orders, the process is killed some milliseconds after the last answer, comes
/// back, the route goes to `live`, and the clients try again.
async fn killed_after_legacy(test: &str, is_full: bool) {
    const ORDERS: u64 = 12;
    let mut town = Town::start().await;
    town.allowed.unacknowledged = true;
    let (mut wrong, mut number) = (Vec::new(), 0);
    for (state, wait) in [("off", 0), ("shadow", 7), ("dark", 13), ("live", 20), ("off", 3), ("live", 0)] {
        force(&town, state).await;
        if state == "live" && !is_full {
            // Most callers are outside the share, so legacy answers them.
            town.flip("orders.create", "live", &["--percent", "1", "--reason", "a small share"])
                .await
                .expect("it moves");
        }
        let full = if is_full { Some(full_disk(&town).await) } else { None };
        let (mut taken, before) = (Vec::new(), charges(&town));
        for _ in 0..ORDERS {
            number += 1;
            let key = format!("key-{number}");
            let reply = keyed(&town, &key, number).await;
            if reply.status != StatusCode::CREATED {
                wrong.push(format!("{state}: {} {}", reply.status, reply.json()));
            } else if reply.json()["id"].is_number() {
                taken.push((key, number, reply.json()["id"].clone()));
            }
        }
        tokio::time::sleep(Duration::from_millis(wait)).await;
        town.kill().await;
        if let Some(full) = full {
            full.end().await;
        }
        town.restart().await;
        force(&town, "live").await;
        town.flip("orders.create", "live", &["--percent", "100", "--reason", "all"]).await.expect("it moves");
        if taken.len() < 6 {
            wrong.push(format!("{state}: legacy took only {} of {ORDERS}", taken.len()));
        }
        for (key, number, id) in &taken {
            let again = keyed(&town, key, *number).await;
            if (again.status, &again.json()["id"]) != (StatusCode::CREATED, id) {
                wrong.push(format!(
                    "{state}, {key}: legacy made {id}, the retry got {} {}",
                    again.status,
                    again.json()
                ));
            }
        }
        let charged = charges(&town) - before;
        if charged != ORDERS {
            wrong.push(format!("{state}: {charged} charges for {ORDERS} orders"));
        }
        town.quiet().await;
        town.lower("off").await;
    }
    town.finish().await;
    said(test, seed(), &format!("{number} keyed orders, 6 kills, full disk: {is_full}"), &wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_legacy_answered() {
    killed_after_legacy("legacy_keys::killed_after_legacy_answered", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_legacy_answered_on_a_full_disk() {
    killed_after_legacy("legacy_keys::killed_after_legacy_answered_on_a_full_disk", true).await;
}

/// Nothing at all can be written: below `live` legacy serves and the gate to `live` stays shut, also after a restart; in
/// `live` nothing is started.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_noted() {
    let mut town = Town::start().await;
    town.allowed.unacknowledged = true;
    let nothing_written =
        async |town: &Town| Strace::inject(town.pointsman.pid(), "pwrite64,pwritev", "error=ENOSPC").await;
    force(&town, "live").await;
    let sick = nothing_written(&town).await;
    let before = charges(&town);
    let refused = keyed(&town, "in-live", 1).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.json());
    let said_so = refused.json();
    assert!(said_so["type"].as_str().is_some_and(|kind| kind.ends_with("retry-key-not-noted")), "{said_so}");
    assert!(said_so["detail"].as_str().is_some_and(|why| why.contains("Nothing was begun")), "{said_so}");
    assert_eq!(charges(&town), before, "neither arm has begun");
    sick.end().await;
    until("the refused order to be taken", || async {
        (keyed(&town, "in-live", 1).await.status == StatusCode::CREATED).then_some(())
    })
    .await;
    assert_eq!(charges(&town), before + 1, "once");
    town.quiet().await;

    town.lower("dark").await;
    let sick = nothing_written(&town).await;
    let served = keyed(&town, "in-dark", 2).await;
    assert_eq!(served.status, StatusCode::CREATED, "below `live` legacy serves: {}", served.json());
    town.pointsman
        .until_metric("it to be counted", |metrics| {
            metrics.sum("pointsman_retry_keys_unnoted_total", &[("route", "orders.create")]) == 1.0
        })
        .await;
    sick.end().await;
    for follower in ["orders.get", "orders.cancel"] {
        town.flip(follower, "live", &["--force", "--reason", "followers go first"]).await.expect("it is forced");
    }
    let shut = async |town: &Town| {
        let reply =
            town.pointsman.api(Method::POST, "/api/v2/routes/orders.create/flip", json!({ "to": "live" })).await;
        (reply.status, reply.json().to_string())
    };
    let (status, why) = shut(&town).await;
    assert!(status == StatusCode::CONFLICT && why.contains("could not be noted"), "{status} {why}");
    // Written down as soon as that is possible.
    tokio::time::sleep(Duration::from_secs(3)).await;
    town.kill().await;
    town.restart().await;
    let (status, why) = shut(&town).await;
    assert!(status == StatusCode::CONFLICT && why.contains("could not be noted"), "after a restart: {status} {why}");
    let status: Value = town.pointsman.get("/api/v2/routes/orders.create").await;
    assert!(status.to_string().contains("could not be noted"), "{status}");
    force(&town, "live").await;
    town.finish().await;
    said("legacy_keys::a_key_that_cannot_be_noted", seed(), "2 keyed orders without a writable disk", &[]);
}

/// Made for these tests.
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
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({ "iss": "issuer", "sub": subject, "aud": "shop", "exp": now + 600, "jti": n });
    let key = EncodingKey::from_ed_pem(ISSUER_PRIVATE.as_bytes()).expect("a key");
    encode(&Header::new(Algorithm::EdDSA), &claims, &key).expect("a token")
}

async fn with_token(town: &Town, key: &str, token: &str, number: u64) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers = [("idempotency-key", key), ("authorization", bearer.as_str())];
    let reply = town.send_with(Method::POST, "/orders", &headers, &some_order(number)).await;
    reply.unwrap_or_else(|why| panic!("{why}\n{}", town.pointsman.log()))
}

/// An order under one token, and its retry under the next one, on the other side of a flip, both ways.
#[tokio::test(flavor = "multi_thread")]
async fn a_refreshed_token_is_the_same_caller() {
    let town = Town::with(|flags| {
        flags.write("issuer.pem", ISSUER_PUBLIC);
        flags.edit("routes/orders.yaml", |text| {
            let creates = "    instance: { creates: $.id }";
            assert!(text.contains(creates), "the example's family");
            let caller = "    caller: { jwt: { keys: issuer.pem, audience: shop } }";
            text.replace(creates, &format!("{caller}\n{creates}"))
        });
    })
    .await;
    let mut town = town;
    town.allowed.unacknowledged = true;
    let by_legacy = with_token(&town, "one", &token("ada", 1), 1).await;
    assert!(by_legacy.json()["id"].is_number(), "{}", by_legacy.json());
    force(&town, "live").await;
    let before = charges(&town);
    let again = with_token(&town, "one", &token("ada", 2), 1).await;
    assert_eq!((again.status, &again.json()["id"]), (StatusCode::CREATED, &by_legacy.json()["id"]));
    let by_engine = with_token(&town, "two", &token("ada", 3), 2).await;
    assert!(by_engine.json()["id"].is_string(), "{}", by_engine.json());
    let others = with_token(&town, "two", &token("eve", 1), 2).await;
    assert!(others.json()["id"].is_string() && others.json()["id"] != by_engine.json()["id"], "another caller's own");
    for (state, n) in [("live", 4), ("off", 5)] {
        town.lower(state).await;
        let again = with_token(&town, "two", &token("ada", n), 2).await;
        assert_eq!(again.json()["id"], by_engine.json()["id"], "{state}: {}", again.json());
    }
    assert_eq!(charges(&town), before + 2, "each once");
    for order in [&by_engine, &others] {
        town.note(order.json());
    }
    town.finish().await;
    said("legacy_keys::a_refreshed_token_is_the_same_caller", seed(), "3 orders, 6 tokens", &[]);
}

/// Nobody verifies the token: what legacy took under one stays with legacy under the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_legacy_took_stays_there_under_another_credential() {
    let mut town = Town::start().await;
    town.allowed.unacknowledged = true;
    let first = with_token(&town, "one", "first", 1).await;
    assert!(first.json()["id"].is_number(), "{}", first.json());
    let before = charges(&town);
    town.kill().await;
    town.restart().await;
    force(&town, "live").await;
    let again = with_token(&town, "one", "second", 1).await;
    assert_eq!((again.status, &again.json()["id"]), (StatusCode::CREATED, &first.json()["id"]), "{}", again.json());
    assert_eq!(charges(&town), before);
    town.finish().await;
    said("legacy_keys::a_key_that_legacy_took_stays_there_under_another_credential", seed(), "1 order", &[]);
}

/// Nobody verifies the token: what the engine took under one is refused under the next, in `live` and in `off`,
/// and neither arm does it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_engine_took_is_refused_under_another_credential() {
    let mut town = Town::start().await;
    town.allowed.unacknowledged = true;
    force(&town, "live").await;
    let before = charges(&town);
    let first = with_token(&town, "one", "first", 1).await;
    assert!(first.json()["id"].is_string(), "{}", first.json());
    let refused = async |town: &Town, when: &str| {
        let again = with_token(town, "one", "second", 1).await;
        assert_eq!(again.status, StatusCode::CONFLICT, "{when}: {}", again.json());
        let problem = again.json();
        assert!(problem["type"].as_str().is_some_and(|kind| kind.ends_with("retry-key-held")), "{when}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|why| why.contains("Nothing was done")), "{when}: {problem}");
        let own = with_token(town, "one", "first", 1).await;
        assert_eq!((own.status, &own.json()["id"]), (StatusCode::CREATED, &first.json()["id"]), "{when}");
    };
    refused(&town, "live").await;
    let other_body = with_token(&town, "one", "third", 2).await;
    assert!(other_body.json()["id"].is_string(), "another caller's own: {}", other_body.json());
    town.lower("off").await;
    refused(&town, "off").await;
    let by_legacy = with_token(&town, "one", "fourth", 3).await;
    assert!(by_legacy.json()["id"].is_number(), "another caller's own: {}", by_legacy.json());
    assert_eq!(charges(&town), before + 3, "each once");
    for order in [&first, &other_body] {
        town.note(order.json());
    }
    town.finish().await;
    let test = "legacy_keys::a_key_that_the_engine_took_is_refused_under_another_credential";
    said(test, seed(), "3 orders, 4 tokens, 1 key", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_engine_took_before_a_kill_is_refused_under_another_credential() {
    let mut town = Town::start().await;
    town.allowed.unacknowledged = true;
    force(&town, "live").await;
    let before = charges(&town);
    let first = with_token(&town, "one", "first", 1).await;
    town.quiet().await;
    town.kill().await;
    town.restart().await;
    for state in ["live", "off"] {
        town.lower(state).await;
        let again = with_token(&town, "one", "second", 1).await;
        assert_eq!(again.status, StatusCode::CONFLICT, "{state}: {}", again.json());
    }
    town.pointsman
        .until_metric("both to be counted", |metrics| {
            metrics.sum("pointsman_retry_keys_held_total", &[("route", "orders.create")]) == 2.0
        })
        .await;
    assert_eq!(charges(&town), before + 1, "once");
    town.note(first.json());
    town.finish().await;
    let test = "legacy_keys::a_key_that_the_engine_took_before_a_kill_is_refused_under_another_credential";
    said(test, seed(), "1 order, 2 tokens", &[]);
}
