//! The set of `compose.yaml`: read by Docker Compose itself, and started from the binaries that are here (not Grafana).

use std::path::Path;
use std::process::Stdio;

use http::Method;
use pointsman::demo::http::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{path, program, read, run};
use crate::dashboard::Server;
use crate::support::process::{BINARY, Start};
use crate::support::{FlagsDir, Pointsman, WAIT_MAX, postgres_server, until};

const TOKEN: &str = "a token of an operator";

/// What Docker Compose makes of the file: it refuses unknown keys, and names that are not declared.
fn parsed(file: &Path) -> (bool, String) {
    let mut compose = program("POINTSMAN_COMPOSE");
    compose.env("ADMIN_TOKEN", TOKEN).env("STORE_PASSWORD", "a password");
    run(compose.arg("--file").arg(file).args(["config", "--format", "json"]))
}

#[test]
fn docker_compose_reads_the_set_and_finds_every_file() {
    let (is_valid, text) = parsed(&path("compose.yaml"));
    assert!(is_valid, "{text}");
    let set: Value = serde_json::from_str(&text).expect("JSON");
    let services = set["services"].as_object().expect("services");
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(names, ["grafana", "pointsman", "postgres", "prometheus", "sample", "second"]);
    for service in ["pointsman", "sample", "second"] {
        assert_eq!(services[service]["image"], format!("pointsman:{}", env!("CARGO_PKG_VERSION")));
    }
    let binds = services.values().flat_map(|service| service["volumes"].as_array().into_iter().flatten());
    let sources = binds.filter(|volume| volume["type"] == "bind").map(|volume| &volume["source"]);
    let files = set["configs"].as_object().expect("configs").values().map(|config| &config["file"]);
    let all: Vec<&str> = sources.chain(files).map(|file| file.as_str().expect("a path")).collect();
    assert!(all.len() >= 8 && all.iter().all(|file| Path::new(file).exists()), "{all:?}");
    // Nothing is reached from other machines.
    let ports = services.values().flat_map(|service| service["ports"].as_array().into_iter().flatten());
    assert!(ports.clone().count() >= 4 && ports.clone().all(|port| port["host_ip"] == "127.0.0.1"), "{text}");

    let dir = tempfile::tempdir().expect("a directory");
    for (from, to) in [("restart: unless-stopped", "restarts: unless-stopped"), ("source: state", "source: stat")] {
        let slip = dir.path().join("compose.yaml");
        std::fs::write(&slip, read("compose.yaml").replacen(from, to, 1)).expect("written");
        assert!(!parsed(&slip).0, "`{to}` is found");
    }
}

#[test]
fn the_container_gets_more_time_than_a_stop_takes() {
    let text = read("compose.yaml");
    let seconds = text.lines().find_map(|line| line.trim().strip_prefix("stop_grace_period: ")?.strip_suffix('s'));
    assert!(seconds.and_then(|seconds| seconds.parse::<u64>().ok()).expect("seconds") > super::stop_s_max());
}

/// The part of a text between two marks.
fn value<'a>(text: &'a str, before: &str, after: char) -> &'a str {
    text.split_once(before).and_then(|(_, rest)| rest.split(after).next()).unwrap_or_else(|| panic!("{before}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_set_serves_from_the_binaries() {
    let database = postgres_server::shared().expect("PostgreSQL (tests/run installs it)").database();
    // The sample services, by the command of the set, on ports of their own.
    let (_, text) = parsed(&path("compose.yaml"));
    let set: Value = serde_json::from_str(&text).expect("JSON");
    let command = set["services"]["sample"]["command"].as_array().expect("a command");
    let arguments = command.iter().map(|word| match word.as_str().expect("a word") {
        "0.0.0.0:9000" | "0.0.0.0:9100" => "127.0.0.1:0",
        word => word,
    });
    let mut sample = tokio::process::Command::new(BINARY)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary");
    let mut lines = BufReader::new(sample.stdout.take().expect("a pipe")).lines();
    let line = tokio::time::timeout(WAIT_MAX, lines.next_line()).await.expect("in time").expect("readable");
    let sample_at: Value = serde_json::from_str(&line.expect("its addresses")).expect("JSON");
    let (legacy, world) = (sample_at["legacy"].as_str().expect("one"), sample_at["world"].as_str().expect("one"));

    // Ours, with the files of the set, on the addresses that there are here.
    let flags = FlagsDir::example("http://127.0.0.1:9", "http://127.0.0.1:9");
    let dir = tempfile::tempdir().expect("a directory");
    let own = read("compose/pointsman.yaml");
    let store = value(&own, "\nstore: ", ' ');
    assert!(own.contains("http://sample:9000") && own.contains("http://sample:9100/bank"), "{own}");
    let files = own
        .replace("http://sample:9000", &format!("http://{legacy}"))
        .replace("http://sample:9100", world)
        .replace("0.0.0.0:8081", "127.0.0.1:0")
        .replace("/var/lib/pointsman", &dir.path().display().to_string())
        .replace(store, &format!("\"{}\"", database.url()));
    flags.write("pointsman.yaml", &files);
    let mut start = Start::in_memory(flags.path(), dir.path());
    start.store = database.url();
    start.env = vec![("ADMIN_TOKEN".to_owned(), TOKEN.to_owned()), ("STORE_PASSWORD".to_owned(), "unused".to_owned())];
    let mut pointsman = Pointsman::start(&start).await;
    start.log = dir.path().join("second.log");
    let mut second = Pointsman::start(&start).await;
    for process in [&pointsman, &second] {
        let checked = process.cli(&["health", "--ready"]).await;
        assert_eq!(String::from_utf8_lossy(&checked.stdout), "ready\n");
    }

    let client = Client::new(WAIT_MAX);
    let order = json!({ "items": [{ "sku": "tea", "qty": 2 }] });
    let url = format!("{}/orders", pointsman.url());
    let reply = client.json(Method::POST, &url, &[("idempotency-key", "order-1")], &order).await.expect("an answer");
    assert_eq!(reply.status, http::StatusCode::CREATED, "{:?}", reply.body);
    let token = [("authorization", format!("Bearer {TOKEN}"))];
    let token = token.each_ref().map(|(name, value)| (*name, value.as_str()));
    let status = pointsman.api_with(Method::GET, "/api/v2/status", &token, Value::Null).await.json();
    assert!(status["routes"].as_array().is_some_and(|routes| routes.len() >= 4), "{status}");

    // Prometheus, with the files of the set: it scrapes ours, and has our rules.
    let config = read("compose/prometheus.yml");
    let config = config.replace("pointsman:8081", &pointsman.admin.to_string());
    let config = config.replace("second:8081", &second.admin.to_string()).replace("15s", "1s");
    let alerts = std::fs::read_to_string(path("../dashboards/alerts.yaml")).expect("the rules");
    let prometheus = Server::prometheus_with(&config, &alerts).await;
    until("scrapes of both", || async {
        let up = prometheus.query("up{job=\"pointsman\"} == 1").await?;
        (up.len() == 2).then_some(())
    })
    .await;
    let counted = r#"sum(pointsman_requests_total{route="orders.create",answered_by="legacy"}) >= 1"#;
    until("the order to be counted", || async { (!prometheus.query(counted).await?.is_empty()).then_some(()) }).await;
    let rules = prometheus.get("/api/v1/rules").await.expect("the rules");
    assert!(rules["data"]["groups"].as_array().is_some_and(|groups| groups.len() > 3), "{rules}");
    prometheus.stop().await;
    assert_eq!((pointsman.stop().await, second.stop().await), (Some(0), Some(0)));

    let pid = sample.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::TERM)
        .expect("the signal could be sent");
    let ended = tokio::time::timeout(WAIT_MAX, sample.wait()).await.expect("in time").expect("waited for");
    assert!(ended.success(), "{ended}");
}

#[test]
fn grafana_finds_prometheus_as_the_dashboards_expect() {
    let own: Value = serde_saphyr::from_str(&read("compose/datasource.yaml")).expect("YAML");
    let shown =
        std::fs::read_to_string(path("../dashboards/provisioning/datasources/prometheus.yaml")).expect("readable");
    let mut shown: Value = serde_saphyr::from_str(&shown).expect("YAML");
    shown["datasources"][0]["url"] = json!("http://prometheus:9090");
    assert_eq!(own, shown);
}
