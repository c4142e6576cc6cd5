//! A request's body is still being sent when the client sends its retry, and flags, files or credentials change in
//! between: one arm performs the request, once.

use http::Method;
use pointsman::demo::Latency;
use pointsman::demo::http::Reply;
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection};
use tokio::task::block_in_place;

use crate::support::postgres_server::Cluster;
use crate::support::process::output_text;
use crate::support::raw_connection::RawReply;
use crate::support::seed::report_violations;
use crate::support::slow_order::SlowOrder;
use crate::support::test_system::{FAMILY, TestSystem, some_order};
use crate::support::{until, until_true};

/// Moves the family up to `live` by hand.
async fn force_live(system: &TestSystem) {
    for rung in ["shadow", "dark", "live"] {
        for route in FAMILY {
            system.flip(route, rung, &["--force", "--reason", "the test climbs"]).await.expect("it is forced");
        }
    }
}

fn charges(system: &TestSystem) -> u64 {
    system.world.ledger().balance().total("charge")
}

fn json(reply: &RawReply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_default()
}

async fn order(system: &TestSystem, headers: &[(&str, &str)], order: &Value) -> Reply {
    let reply = system.send_with(Method::POST, "/orders", headers, order).await;
    reply.unwrap_or_else(|why| panic!("{why}\n{}", system.pointsman.log()))
}

/// The client's credential is refreshed and the route flipped to `off` while its first try uploads: legacy performs the
/// retry, and the first try goes to legacy, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_under_a_refreshed_credential_goes_to_legacy() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    force_live(&system).await;
    let (before, body) = (charges(&system), some_order(1));
    let first =
        SlowOrder::begin(system.pointsman.listen, &[("idempotency-key", "k"), ("authorization", "Bearer old")], &body)
            .await;
    system.lower("off").await;
    let retry = order(&system, &[("idempotency-key", "k"), ("authorization", "Bearer new")], &body).await.json();
    assert!(retry["id"].is_number(), "legacy answers in `off`: {retry}");
    let first = first.end().await;
    assert_eq!((first.status, &json(&first)["id"]), (201, &retry["id"]), "{}", json(&first));
    assert_eq!(charges(&system), before + 1, "once");
    system.finish().await;
    let test = "slow_uploads::a_retry_under_a_refreshed_credential_goes_to_legacy";
    report_violations(test, None, "1 order, 2 tokens", &[]);
}

/// The share of `live` is chosen by a hash of the credential, so that a refreshed credential may be outside it without
/// any flip.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_on_the_other_side_of_a_share_goes_to_the_same_arm() {
    let mut system = TestSystem::with(|flags| {
        flags.edit("routes/orders.yaml", |text| text.replacen("x-tenant", "authorization", 1));
    })
    .await;
    system.allowed.unacknowledged = true;
    force_live(&system).await;
    system.flip("orders.create", "live", &["--percent", "50", "--reason", "a share"]).await.expect("it moves");
    // One token inside the share and one outside.
    let (mut inside, mut outside) = (None, None);
    for n in 0..64 {
        let token = format!("Bearer {n}");
        let key = format!("which side {n}");
        let placed = order(&system, &[("idempotency-key", &key), ("authorization", &token)], &some_order(n)).await;
        let placed = placed.json();
        let side = if placed["id"].is_string() { &mut inside } else { &mut outside };
        side.get_or_insert(token);
        system.record_order(placed);
        if inside.is_some() && outside.is_some() {
            break;
        }
    }
    let (inside, outside) = (inside.expect("one is inside"), outside.expect("one is outside"));
    let (before, body) = (charges(&system), some_order(100));
    let first =
        SlowOrder::begin(system.pointsman.listen, &[("idempotency-key", "k"), ("authorization", &inside)], &body).await;
    let retry = order(&system, &[("idempotency-key", "k"), ("authorization", &outside)], &body).await.json();
    assert!(retry["id"].is_number(), "outside the share legacy answers: {retry}");
    let first = first.end().await;
    assert_eq!((first.status, &json(&first)["id"]), (201, &retry["id"]), "{}", json(&first));
    assert_eq!(charges(&system), before + 1, "once");
    system.finish().await;
    let test = "slow_uploads::a_retry_on_the_other_side_of_a_share_goes_to_the_same_arm";
    report_violations(test, None, "1 order, 2 tokens, a share of 50 %", &[]);
}

/// A first try in `live` waits for the store when the route is flipped to `off`. Its client disconnects while the retry
/// waits for the first try: the retry is then a new request in `off`, and legacy answers it.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_whose_first_try_began_no_run_begins_none_below_live() {
    let Some(cluster) = block_in_place(Cluster::start) else {
        eprintln!("not tried: PostgreSQL is not installed");
        return;
    };
    let url = cluster.url() + "?sslmode=disable";
    let mut system = TestSystem::on(Some(url.clone()), Latency::instant(), |flags| {
        const LIMITS: &str = "limits: { store_statement_ms: 60000, store_lock_ms: 60000, client_half_close_ms: 50 }\n";
        flags.edit("pointsman.yaml", |text| text + LIMITS);
    })
    .await;
    system.allowed.unacknowledged = true;
    force_live(&system).await;
    let (before, body) = (charges(&system), some_order(1));
    let headers = [("idempotency-key", "k")];
    let mut first = SlowOrder::begin(system.pointsman.listen, &headers, &body).await;
    let mut store = PgConnection::connect(&url).await.expect("a session");
    store.execute("BEGIN").await.expect("it begins");
    store.execute("LOCK TABLE pointsman.retry_keys IN ACCESS EXCLUSIVE MODE").await.expect("it is locked");
    let waiting = || {
        let count = block_in_place(|| cluster.query("SELECT count(*) FROM pg_locks WHERE NOT granted"));
        count.expect("a count").trim().parse::<u64>().expect("a number")
    };
    first.send_rest().await;
    // The keys of one request are read by one statement.
    until_true("the first try to wait for the store", || waiting() >= 1).await;
    system.lower("off").await;
    // `100 Continue` comes once the retry is decided: by then it is known as a retry of what the engine has.
    let mut retry = SlowOrder::begin(system.pointsman.listen, &headers, &body).await;
    drop(first);
    retry.send_rest().await;
    until_true("the retry to wait for the store in its place", || waiting() >= 2).await;
    store.execute("ROLLBACK").await.expect("it is unlocked");
    let reply = retry.end().await;
    assert_eq!(reply.status, 201, "{}", json(&reply));
    assert!(json(&reply)["id"].is_number(), "legacy answers in `off`: {}", json(&reply));
    assert_eq!(charges(&system), before + 1, "once");
    drop(store);
    system.finish().await;
    let test = "slow_uploads::a_retry_whose_first_try_began_no_run_begins_none_below_live";
    report_violations(test, None, "1 order, its client went away", &[]);
}

const ORDERS: &str = "routes/orders.yaml";

/// New files change the retry key or the caller while the first try is being uploaded; its retry comes under the new
/// files.
async fn retry_over_a_reload(test: &str, change: impl FnOnce(String) -> String, new: &[(&str, &str)]) {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    force_live(&system).await;
    let (before, body) = (charges(&system), some_order(1));
    let headers = [("idempotency-key", "k"), ("x-request-id", "r"), ("authorization", "Bearer t"), ("x-customer", "c")];
    let first = SlowOrder::begin(system.pointsman.listen, &headers, &body).await;
    let generation = || async { system.pointsman.get("/api/v2/status").await["flags"]["generation"].as_u64() };
    let old = generation().await;
    system.flags.edit(ORDERS, change);
    until("the files to be in force", || async { (generation().await > old).then_some(()) }).await;
    let retry = order(&system, &headers, &body).await;
    assert_eq!(retry.status, 201, "{}", retry.json());
    let retry = retry.json();
    let late = first.end().await;
    assert!(late.status == 409 || json(&late)["id"] == retry["id"], "{} {}", late.status, json(&late));
    assert_eq!(charges(&system), before + 1, "once");
    // The client sends the same order once more.
    let again = order(&system, &headers, &body).await.json();
    assert_eq!(again["id"], retry["id"], "{again}");
    // A request that has the same key only under the earlier files is a new request.
    let other = order(&system, new, &body).await.json();
    assert!(other["id"].is_string() && other["id"] != retry["id"], "{other}");
    assert_eq!(charges(&system), before + 2, "each once");
    system.record_order(retry);
    system.record_order(other);
    system.finish().await;
    report_violations(test, None, "2 orders, 1 change of the files", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_a_change_of_retry_key_is_found() {
    // Without `force` the route would be held below `live`.
    let change = |text: String| {
        let key = "    retry_key: ${request.headers[\"idempotency-key\"]}";
        assert!(text.contains(key), "the example's family file has no such line: {text}");
        let forced = "    force: { reason: every client sends both headers }";
        text.replacen(key, &format!("{forced}\n{}", key.replace("idempotency-key", "x-request-id")), 1)
    };
    let test = "slow_uploads::a_retry_after_a_change_of_retry_key_is_found";
    let new = [("idempotency-key", "k"), ("x-request-id", "other"), ("authorization", "Bearer t")];
    retry_over_a_reload(test, change, &new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_a_change_of_caller_is_found() {
    let change = |text: String| {
        let creates = "    instance: { creates: $.id }";
        assert!(text.contains(creates), "the example's family file has no such line: {text}");
        text.replace(creates, &format!("    caller: x-customer\n{creates}"))
    };
    let test = "slow_uploads::a_retry_after_a_change_of_caller_is_found";
    let new = [("idempotency-key", "k"), ("authorization", "Bearer t"), ("x-customer", "d")];
    retry_over_a_reload(test, change, &new).await;
}

/// The template is spelled in another way while the first try is being uploaded, and its retry has another token.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_with_another_token_after_a_change_of_spelling_is_found() {
    let mut system = TestSystem::with(|flags| {
        flags.edit("pointsman.yaml", |text| {
            assert!(text.contains("case: different"), "{text}");
            text.replacen("case: different", "case: same", 1)
        });
    })
    .await;
    system.allowed.unacknowledged = true;
    force_live(&system).await;
    let (before, body) = (charges(&system), some_order(1));
    let token = |token: &'static str| [("idempotency-key", "k"), ("authorization", token)];
    let first = SlowOrder::begin(system.pointsman.listen, &token("Bearer t"), &body).await;
    system.flags.edit(ORDERS, |text| {
        let (path, key) = ("path: /orders }", "    retry_key: ");
        assert!(text.contains(path) && text.contains(key), "the example's family file has no such line: {text}");
        let forced = text.replacen(path, "path: /Orders }", 1);
        forced.replacen(key, &format!("    force: {{ reason: only the spelling }}\n{key}"), 1)
    });
    let reload = system.pointsman.cli(&["reload"]).await;
    assert!(reload.status.success(), "{}", output_text(&reload));
    let retry = order(&system, &token("Bearer u"), &body).await;
    let late = first.end().await;
    let answers = [(retry.status.as_u16(), retry.json()), (late.status, json(&late))];
    let placed = answers.iter().filter(|(status, answer)| *status == 201 && answer["id"].is_string()).count();
    let held = answers.iter().filter(|(status, _)| *status == 409).count();
    assert_eq!((placed, held), (1, 1), "{answers:?}");
    assert_eq!(charges(&system), before + 1, "once");
    for (_, answer) in answers.into_iter().filter(|(status, _)| *status == 201) {
        system.record_order(answer);
    }
    system.finish().await;
    let test = "slow_uploads::a_retry_with_another_token_after_a_change_of_spelling_is_found";
    report_violations(test, None, "1 order, 2 tokens, 1 change of the files", &[]);
}
