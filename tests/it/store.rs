//! Operations on a store while a process uses it (check, backup, retention); stores on which a process does not start;
//! and a store that is removed.

use http::Method;
use pointsman::demo::Latency;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::support::Pointsman;
use crate::support::postgres_server::Cluster;
use crate::support::process::{Start, cli, output_text};
use crate::support::test_system::{TestSystem, id};

fn url(path: &std::path::Path) -> String {
    format!("sqlite:{}", path.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_checked_and_backed_up_under_load() {
    let mut system = TestSystem::start().await;
    let log = system.pointsman.log();
    assert!(log.contains("ended runs are kept for 30 days, the default of this store"), "{log}");
    system.climb_to("live").await;
    let copy = system.flags.file("copy.db");
    let name = copy.to_str().expect("a path");
    let source = url(&system.store());
    let load = async {
        loop {
            system.create_read_cancel().await;
        }
    };
    let operations = async {
        let checked = cli(&["store", "check", "--store", &source], &[]).await;
        assert!(checked.status.success(), "{}", output_text(&checked));
        assert!(output_text(&checked).contains("no faults"), "{}", output_text(&checked));
        let backup = cli(&["store", "backup", name, "--store", &source, "--json"], &[]).await;
        assert!(backup.status.success(), "{}", output_text(&backup));
        let report: Value = serde_json::from_slice(&backup.stdout).expect("JSON");
        assert_eq!((&report["check"]["fine"], report["bytes"].as_u64().is_some_and(|b| b > 0)), (&json!(true), true));
        let again = cli(&["store", "backup", name, "--store", &source], &[]).await;
        assert!(!again.status.success() && output_text(&again).contains("exists already"), "{}", output_text(&again));
    };
    tokio::select! {
        () = load => {}
        () = operations => {}
    }
    system.allowed.unacknowledged = true;
    system.wait_for_runs_to_end().await;
    // Damage is found in the copy, with an exit code for scripts.
    std::fs::rename(&copy, system.flags.file("damaged.db")).expect("renamed");
    let damaged = system.flags.file("damaged.db");
    let mut bytes = std::fs::read(&damaged).expect("readable");
    let (middle, end) = (bytes.len() / 2, bytes.len());
    bytes[middle..end].fill(0);
    std::fs::write(&damaged, bytes).expect("written");
    let checked = cli(&["store", "check", "--store", &url(&damaged), "--json"], &[]).await;
    assert_eq!(checked.status.code(), Some(1), "{}", output_text(&checked));
    let report: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    assert!(report["findings"].as_array().is_some_and(|findings| !findings.is_empty()), "{report}");
    let nowhere = cli(&["store", "check", "--store", "sqlite:/nowhere/at/all.db"], &[]).await;
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(output_text(&nowhere).contains("there is no database"), "{}", output_text(&nowhere));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_checked_under_load_and_pg_dump_copies_it() {
    let Some(cluster) = block_in_place(Cluster::start) else {
        eprintln!("not tried: PostgreSQL is not installed");
        return;
    };
    let url = cluster.url();
    let mut system = TestSystem::on(Some(url.clone()), Latency::instant(), |_| {}).await;
    system.climb_to("live").await;
    system.allowed.unacknowledged = true;
    let check = async || cli(&["store", "check", "--store", &url, "--json"], &[]).await;
    let operations = async {
        let sound = check().await;
        assert!(sound.status.success(), "{}", output_text(&sound));
        let report: Value = serde_json::from_slice(&sound.stdout).expect("JSON");
        assert_eq!((&report["fine"], report["runs"].as_u64().is_some_and(|runs| runs > 0)), (&Value::Bool(true), true));
    };
    let load = async {
        loop {
            system.create_read_cancel().await;
        }
    };
    tokio::select! {
        () = load => {}
        () = operations => {}
    }
    system.wait_for_runs_to_end().await;
    let copy = cli(&["store", "backup", "copy.db", "--store", &url], &[]).await;
    assert_eq!(copy.status.code(), Some(1), "{}", output_text(&copy));
    assert!(output_text(&copy).contains("pg_dump --schema=pointsman --file=copy.db"), "{}", output_text(&copy));

    let several = "(SELECT count(*) > 1 FROM pointsman.appends a WHERE a.run_id = r.run_id)";
    let one =
        format!("run_id = (SELECT run_id FROM pointsman.runs r WHERE ended AND mode = 'real' AND {several} LIMIT 1)");
    let (kept, lost) =
        ("CREATE TABLE kept AS SELECT * FROM pointsman.appends WHERE", "DELETE FROM pointsman.appends WHERE");
    block_in_place(|| cluster.query(&format!("{kept} {one} AND first = 1; {lost} {one} AND first = 1"))).expect("done");
    let damaged = check().await;
    assert_eq!(damaged.status.code(), Some(1), "{}", output_text(&damaged));
    assert!(output_text(&damaged).contains("is stored where event 1 should be"), "{}", output_text(&damaged));
    block_in_place(|| cluster.query("INSERT INTO pointsman.appends TABLE kept; DROP TABLE kept")).expect("restored");

    block_in_place(|| cluster.query("CREATE DATABASE empty")).expect("made");
    let empty = url.replace("/postgres", "/empty").replace("//empty", "//postgres");
    let nothing = cli(&["store", "check", "--store", &empty], &[]).await;
    assert_eq!(nothing.status.code(), Some(1));
    assert!(output_text(&nothing).contains("there is no store of pointsman"), "{}", output_text(&nothing));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_runs_are_purged_and_their_orders_still_followed_up() {
    let mut system = TestSystem::with(|flags| {
        flags.edit("pointsman.yaml", |text| text + "\nretention: 1s\nlimits: { retry_window_s: 1 }\n");
    })
    .await;
    system.allowed.purged = true;
    system.climb_to("live").await;
    let order = system.order().await;
    let run = id(&order);
    let show = "/api/v2/orchestrate/runs?route=orders.create&mode=real&limit=100";
    system.pointsman.until_metric("old runs to be purged", |m| m.sum("pointsman_purged_runs_total", &[]) > 0.0).await;
    let events = || async {
        let reply =
            system.pointsman.api(Method::GET, &format!("/api/v2/orchestrate/run/{run}/events"), Value::Null).await;
        reply.json().as_array().map_or(0, Vec::len)
    };
    crate::support::until("the order's run to be purged", || async { (events().await == 0).then_some(()) }).await;
    let output = format!("/api/v2/orchestrate/run/{run}/steps/charge/output");
    let purged = system.pointsman.api(Method::GET, &output, Value::Null).await;
    assert_eq!((purged.status.as_u16(), &purged.json()["run_status"]), (410, &json!("completed")), "{}", purged.json());
    assert!(purged.json()["detail"].as_str().is_some_and(|text| text.contains("were purged")), "{}", purged.json());
    // The engine still owns the instance, and the follower reads the input and output that were kept of the run.
    assert_eq!(system.read(&order).await["total"], order["total"]);
    assert_eq!(system.cancel(&order).await["status"], "cancelled");
    let listed = system.pointsman.get(show).await;
    assert!(listed["runs"].as_array().is_some_and(|runs| !runs.is_empty()), "a pinned run keeps its summary: {listed}");
    let source = url(&system.store());
    let checked = cli(&["store", "check", "--store", &source], &[]).await;
    assert!(checked.status.success(), "{}", output_text(&checked));
    system.finish().await;
}

/// SQLite keeps a separate log for each name of the file, so two processes on two names would damage it.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_a_hard_link_of_the_store_does_not_start() {
    let system = TestSystem::start().await;
    let neighbour = |name| system.store().with_file_name(name);
    std::fs::hard_link(system.store(), neighbour("link.db")).expect("linked");
    let second = Start { store: url(&neighbour("link.db")), log: neighbour("second"), ..system.arguments() };
    let refused = Pointsman::try_start(&second).await.map(|_| ()).expect_err("it does not start");
    assert!(refused.contains("link.db is in use by another process"), "{refused}");
    assert!(refused.contains("stop that one first") && refused.contains("--store"), "{refused}");
    system.create_read_cancel().await;
    system.finish().await;
}

/// The process refuses to start on events or tables of a newer version, and names them.
#[tokio::test(flavor = "multi_thread")]
async fn events_and_tables_of_a_newer_version_are_refused_at_the_start() {
    let Some(cluster) = block_in_place(Cluster::start) else {
        eprintln!("not tried: PostgreSQL is not installed");
        return;
    };
    let mut system = TestSystem::on(Some(cluster.url()), Latency::instant(), |_| {}).await;
    system.climb_to("live").await;
    system.create_read_cancel().await;
    system.allowed.unacknowledged = true;
    system.wait_for_runs_to_end().await;
    assert_eq!(system.pointsman.stop().await, Some(0));
    let query = |text: &str| block_in_place(|| cluster.query(text)).expect("done").trim().to_owned();
    let some = "(run_id, first) = (SELECT run_id, first FROM pointsman.appends ORDER BY run_id DESC, first LIMIT 1)";
    let version = query(&format!("SELECT version FROM pointsman.appends WHERE {some}"));
    query(&format!("UPDATE pointsman.appends SET version = 99 WHERE {some}"));
    let refused = system.restart_refused().await;
    assert!(refused.contains("events of version 99 (such as event 1 of run_"), "{refused}");
    assert!(refused.contains("start that one"), "{refused}");
    query(&format!("UPDATE pointsman.appends SET version = {version} WHERE version = 99"));
    query(
        "INSERT INTO pointsman._sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (77, 'later', true, '', 1)",
    );
    let refused = system.restart_refused().await;
    assert!(refused.contains("tables of version 77"), "{refused}");
    query("DELETE FROM pointsman._sqlx_migrations WHERE version = 77");
    system.restart().await;
    system.create_read_cancel().await;
    system.finish().await;
}

/// A limit on file sizes acts like a full disk: the process survives, reports it, and leaves no partial copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_file_sizes_does_not_end_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let within = |blocks: u32, arguments: String| {
        let script = format!("ulimit -f {blocks}; exec \"$0\" {arguments}");
        let mut command = std::process::Command::new("sh");
        command.current_dir(folder.path()).args(["-c", &script, crate::support::process::BINARY]);
        block_in_place(|| command.output()).expect("a shell")
    };
    let store =
        pointsman::store::SqliteStore::open(folder.path().join("a.db"), &Default::default()).await.expect("opens");
    // This test keeps the store open, so that the command below finds SQLite's shared-memory file and need not create
    // it within the limit.
    let refused = within(8, "store backup copy.db --store sqlite:a.db".into());
    assert_eq!(refused.status.code(), Some(1), "{:?}: {}", refused.status, output_text(&refused));
    assert!(output_text(&refused).contains("cannot write"), "{}", output_text(&refused));
    let left = |part: &str| {
        let files = std::fs::read_dir(folder.path()).expect("a folder").map(|file| file.expect("a file").file_name());
        files.filter(|name| name.to_string_lossy().contains(part)).collect::<Vec<_>>()
    };
    assert_eq!(left("copy"), Vec::<std::ffi::OsString>::new());
    let taken = within(100_000, "store backup copy.db --store sqlite:a.db".into());
    assert!(taken.status.success(), "{}", output_text(&taken));
    assert_eq!(left("copy"), ["copy.db"]);
    pointsman::store::Store::close(&store).await;
}

/// While the file is gone nothing is acknowledged, because a restart would not find it.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_removed_is_reported_and_takes_no_runs() {
    let mut system = TestSystem::start().await;
    system.climb_to("live").await;
    system.create_read_cancel().await;
    system.wait_for_runs_to_end().await;
    system.allowed.unacknowledged = true;
    let away = system.store().with_file_name("away.db");
    std::fs::rename(system.store(), &away).expect("moved");
    let ready = || async { Some(system.pointsman.try_api("/readyz").await?.status.as_u16()) };
    crate::support::until("the process to be not ready", || async { (ready().await? == 503).then_some(()) }).await;
    let trouble = system.pointsman.get("/api/v2/status").await["store_trouble"].clone();
    assert!(trouble.as_str().is_some_and(|why| why.contains("was removed or replaced")), "{trouble}");
    assert!(system.pointsman.log().contains("the store accepts no writes"));
    // The engine begins nothing: legacy takes the order.
    assert!(!system.order().await["id"].is_string());
    let start = json!({ "workflow": "launch-campaign", "input": { "product": "tea", "channels": [{ "channel": "radio", "amount": 70 }] } });
    let refused = system.pointsman.api(Method::POST, "/api/v2/orchestrate/run", start).await;
    assert_eq!(refused.status.as_u16(), 503, "{}", refused.json());
    std::fs::rename(&away, system.store()).expect("moved back");
    crate::support::until("the process to be ready", || async { (ready().await? == 200).then_some(()) }).await;
    system.finish().await;
}
