//! Routes can be lowered while the store does not answer.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use pointsman::demo::Latency;
use serde_json::json;
use tokio::task::block_in_place;

use crate::legacy_keys::force;
use crate::support::FlagsDir;
use crate::support::postgres_server::Cluster;
use crate::support::strace::Strace;
use crate::support::test_system::{TestSystem, some_order};

const ROUTES: [&str; 2] = ["orders.create", "orders.get"];

/// One route in `only`, one in `live`.
async fn raise(system: &mut TestSystem) {
    system.allowed.unacknowledged = true;
    force(system, "only").await;
    system.flip("orders.get", "live", &["--yes", "--reason", "a test"]).await.expect("it is lowered");
    assert!(system.order().await["id"].is_string(), "the engine answers");
    system.wait_for_runs_to_end().await;
}

/// Lowers both routes while the store is silent: each flip takes effect at once, and legacy answers. Keyed requests get
/// 503 if the store is shared, because only the store knows the keys that the engines of other processes took.
async fn lower(system: &TestSystem, is_shared: bool) {
    for route in ROUTES {
        let (began, path) = (Instant::now(), format!("/api/v2/routes/{route}/flip"));
        let lowered = system.pointsman.api(Method::POST, &path, json!({ "to": "off", "acknowledge": true })).await;
        assert!(began.elapsed() < Duration::from_secs(5), "at once: {:?}", began.elapsed());
        let (code, lowered) = (lowered.status.as_u16(), lowered.json());
        assert_eq!((code, &lowered["recorded"], &lowered["effective"]["state"]), (202, &json!(false), &json!("off")));
        assert!(lowered["note"].as_str().is_some_and(|note| note.contains("has not recorded the flip")), "{lowered}");
    }
    let status = system.pointsman.get("/api/v2/status").await;
    assert_eq!(status["flips_unrecorded"], 2);
    let rows = status["routes"].as_array().expect("rows");
    let waiting = rows.iter().filter(|row| row["flip_unrecorded"] == true).map(|row| &row["id"]);
    assert_eq!(waiting.collect::<Vec<_>>(), ROUTES);
    assert!(system.order().await["id"].is_number(), "legacy answers");
    let keyed = [("idempotency-key", "k")];
    let keyed = system.send_with(Method::POST, "/orders", &keyed, &some_order(2)).await.expect("a reply");
    if is_shared {
        assert_eq!(keyed.status, StatusCode::SERVICE_UNAVAILABLE, "{}", keyed.json());
        return;
    }
    assert_eq!(keyed.status, StatusCode::CREATED, "{}", keyed.json());
    assert!(keyed.json()["id"].is_number(), "legacy answers a keyed request too: {}", keyed.json());
    system.record_order(keyed.json());
}

/// Checks that the store gets each flip once when it answers again, and that a restart keeps the states of the routes.
async fn expect_recorded(mut system: TestSystem) {
    let is_recorded = |metrics: &crate::support::Metrics| metrics.sum("pointsman_flips_unrecorded", &[]) == 0.0;
    system.pointsman.until_metric("the flips to be recorded", is_recorded).await;
    system.kill().await;
    system.restart().await;
    for route in ROUTES {
        let row = system.pointsman.get(&format!("/api/v2/routes/{route}")).await["row"].clone();
        assert_eq!((&row["requested"], &row["effective"]["state"]), (&json!("off"), &json!("off")), "{row}");
        let flips = system.pointsman.get(&format!("/api/v2/flips?route={route}")).await;
        let flips = flips.as_array().expect("rows");
        assert_eq!(flips.iter().filter(|flip| flip["to"] == "off").count(), 1, "{flips:?}");
        assert_eq!(flips[0]["from"], if route == "orders.create" { "only" } else { "live" });
    }
    assert!(system.order().await["id"].is_number(), "legacy answers");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_go_down_while_a_sync_does_not_end() {
    let mut system = TestSystem::start().await;
    raise(&mut system).await;
    let wal = PathBuf::from(format!("{}-wal", system.store().display()));
    let (pid, files) = (system.pointsman.pid(), [system.store(), wal]);
    let hangs = Strace::inject_on(pid, "fsync,fdatasync", "delay_enter=600000000", &files).await;
    lower(&system, false).await;
    hangs.end().await;
    expect_recorded(system).await;
}

/// When the server continues, it performs the writes that had timed out.
#[tokio::test(flavor = "multi_thread")]
async fn routes_go_down_while_postgresql_is_silent() {
    let Some(mut cluster) = block_in_place(Cluster::start) else {
        eprintln!("not tried: PostgreSQL is not installed");
        return;
    };
    let limits = "limits: { store_statement_ms: 500, store_lock_ms: 400 }\n";
    let change = |flags: &FlagsDir| flags.edit("pointsman.yaml", |text| text + limits);
    let mut system = TestSystem::on(Some(cluster.url() + "?sslmode=disable"), Latency::instant(), change).await;
    raise(&mut system).await;
    block_in_place(|| cluster.freeze());
    lower(&system, true).await;
    block_in_place(|| cluster.thaw());
    expect_recorded(system).await;
}
