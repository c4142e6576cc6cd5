//! A real Prometheus with the rules scrapes a running demo, which takes its routes through all states. In each of them
//! every query is valid; every query whose series exist returns data, and every rule works.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use futures_util::StreamExt;
use pointsman::telemetry;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::promql::{Selector, scan};
use super::server::{Server, child, line_with};
use super::{dashboards, read};
use crate::support::process::BINARY;

/// The longest time until all queries have data: the whole demo, and a margin for a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(150);
/// How often the demo is started: on a very busy machine it gives up when one of its gates stays shut for too long.
const ATTEMPTS: usize = 3;
/// Queries that are asked at the same time.
const AT_ONCE: usize = 16;
const ROUTE: &str = "orders.create";
/// Metrics that the demo does not export: what they count does not happen, or is not set up there. A metric that is
/// neither exported by the demo nor here fails the test.
const MAY_BE_ABSENT: &[&str] = &[
    "pointsman_accept_failures_total",
    "pointsman_access_log_dropped_total",
    "pointsman_api_connections_full_total",
    "pointsman_auto_held",
    "pointsman_candidate_changes_total",
    "pointsman_candidate_comparisons_total",
    "pointsman_candidate_coverage",
    "pointsman_candidate_guard_actions_total",
    "pointsman_candidate_mismatch_upper_bound",
    "pointsman_candidate_pairs",
    "pointsman_captures_dropped_total",
    "pointsman_certificate_expires_seconds",
    "pointsman_client_connections_per_address",
    "pointsman_client_connections_per_address_max",
    "pointsman_client_connections_refused_total",
    "pointsman_client_goaways_total",
    "pointsman_client_stream_resets_total",
    "pointsman_client_streams",
    "pointsman_client_streams_total",
    "pointsman_cohort_errors_total",
    "pointsman_effects_dropped_total",
    "pointsman_effects_not_judged_total",
    "pointsman_egress_connections_refused_total",
    "pointsman_egress_unseen_total",
    "pointsman_exchanges_cut_total",
    "pointsman_followups_total",
    "pointsman_interim_replies_total",
    "pointsman_legacy_heads_refused_total",
    "pointsman_legacy_instances_without_id_total",
    "pointsman_noise_places",
    "pointsman_noise_repeats_total",
    "pointsman_notice_failures_total",
    "pointsman_notices_total",
    "pointsman_notices_waiting",
    "pointsman_proxy_headers_total",
    "pointsman_refusals_total",
    "pointsman_requests_in_flight",
    "pointsman_requests_in_flight_max",
    "pointsman_respond_condition_errors_total",
    "pointsman_reverse_comparisons_total",
    "pointsman_route_requests_in_flight",
    "pointsman_second_runs_total",
    "pointsman_route_requests_max",
    "pointsman_route_requests_waiting",
    "pointsman_run_snapshots_total",
    "pointsman_runs_stuck",
    "pointsman_samples_cut_total",
    "pointsman_service_ejections_total",
    "pointsman_service_handshake_failures_total",
    "pointsman_service_not_processed_total",
    "pointsman_spans_dropped_total",
    "pointsman_spans_exported_total",
    "pointsman_step_retries_total",
    "pointsman_stratum_errors_total",
    "pointsman_succession_store_wait_seconds",
    "pointsman_successions_total",
    "pointsman_summaries_unreadable_total",
    "pointsman_tls_handshake_failures_total",
    "pointsman_tls_handshakes_total",
    "pointsman_twins_incomplete_total",
    "pointsman_unkeyed_total",
    "pointsman_unverified_callers_total",
];

/// A query with the variables filled in.
fn filled(query: &str) -> String {
    let query = query.replace("\"$route\"", &format!("\"{ROUTE}\"")).replace("$__rate_interval", "30s");
    ["$job", "$instance", "$service", "$workflow"].iter().fold(query, |query, variable| query.replace(variable, ".*"))
}

/// Whether a query returns nothing where nothing is wrong: it compares, or takes series away.
fn may_be_empty(query: &str) -> bool {
    [" > ", " == ", " unless ", " and "].iter().any(|operator| query.contains(operator))
}

/// Whether there is a series with these labels in the last minutes.
async fn exists(prometheus: &Server, selector: &Selector) -> bool {
    let matchers: Vec<String> =
        selector.matchers.iter().map(|(label, operator, value)| format!("{label}{operator}\"{value}\"")).collect();
    let query = format!("count_over_time({}{{{}}}[10m])", selector.name, matchers.join(","));
    prometheus.query(&query).await.is_some_and(|found| !found.is_empty())
}

fn has_data(result: &[Value]) -> bool {
    result.iter().any(|series| series["value"][1].as_str().is_some_and(|value| value != "NaN"))
}

/// Asks all queries; returns those with data.
async fn with_data(prometheus: &Server, queries: &BTreeSet<String>) -> Vec<String> {
    let asked = queries.iter().map(async |query| (query.clone(), prometheus.query(query).await));
    let answered: Vec<(String, Option<Vec<Value>>)> =
        futures_util::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    let found = answered.into_iter().filter(|(_, result)| result.as_deref().is_some_and(has_data));
    found.map(|(query, _)| query).collect()
}

async fn state(prometheus: &Server) -> Option<String> {
    let query = format!("pointsman_flag_state{{route=\"{ROUTE}\",kind=\"effective\"}}");
    Some(prometheus.query(&query).await?.first()?["value"][1].as_str()?.to_owned())
}

/// Ends the demo with SIGTERM, so that it removes its directory.
async fn terminate(mut demo: Child) {
    let pid = demo.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    let Some(pid) = pid else { return };
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the signal is sent");
    tokio::time::timeout(WAIT_MAX, demo.wait()).await.expect("it ends").expect("it ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_is_valid_in_all_states_and_shows_data() {
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        match climb().await {
            None => return,
            Some(states) => seen.push(states),
        }
    }
    panic!("the demo did not go through all states: {seen:?}");
}

/// Asks while the demo climbs. Returns the states that were seen if these are not all.
async fn climb() -> Option<BTreeSet<String>> {
    let mut demo = child(Command::new(BINARY).args(["demo"]).stdout(Stdio::piped()).stderr(Stdio::null()));
    let admin = line_with(demo.stdout.take().expect("a pipe"), "API and metrics http://").await;
    let prometheus = Server::prometheus(&admin, &read("alerts.yaml"), "127.0.0.1:1").await;

    let all = dashboards().into_iter().flat_map(|dashboard| dashboard.queries());
    let all: BTreeSet<String> = all.map(|query| filled(&query.text)).collect();
    let mut missing: BTreeSet<String> = all.iter().filter(|query| !may_be_empty(query)).cloned().collect();
    let (required, mut states) = (missing.len(), BTreeSet::new());
    assert!(required > 150, "the queries were found: {required}");
    let every_state: BTreeSet<String> = (0..5).map(|rank: u8| rank.to_string()).collect();
    let deadline = Instant::now() + WAIT_MAX;
    let expected = loop {
        states.extend(state(&prometheus).await);
        for query in with_data(&prometheus, &all).await {
            missing.remove(&query);
        }
        if states == every_state {
            let mut expected = Vec::new();
            for query in &missing {
                let named = scan(query);
                let mut all_exist = true;
                for selector in &named.selectors {
                    all_exist = all_exist && exists(&prometheus, selector).await;
                }
                expected.extend(all_exist.then(|| query.clone()));
            }
            if expected.is_empty() || Instant::now() > deadline {
                break expected;
            }
        }
        if Instant::now() > deadline || demo.try_wait().expect("a process").is_some() {
            terminate(demo).await;
            return Some(states);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    assert!(expected.is_empty(), "the series exist, and the query has no data: {expected:#?}");

    let mut absent = Vec::new();
    for (kind, metrics) in telemetry::metrics() {
        let suffix = if kind == "histogram" { "_count" } else { "" };
        for (name, _) in metrics.iter().filter(|(name, _)| !MAY_BE_ABSENT.contains(name)) {
            let selector = Selector { name: format!("{name}{suffix}"), matchers: Vec::new() };
            absent.extend((!exists(&prometheus, &selector).await).then_some(*name));
        }
    }
    assert!(absent.is_empty(), "the demo does not export {absent:?}");

    let rules = prometheus.get("/api/v1/rules").await.expect("an answer");
    let groups = rules["data"]["groups"].as_array().expect("groups").clone();
    for rule in groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")) {
        assert_eq!(rule["health"], "ok", "{rule}");
        let is_critical = rule["state"] == "firing" && rule["labels"]["severity"] == "critical";
        // The demo shows a guard that acts.
        let is_expected = rule["name"] == "PointsmanGuardActed";
        assert!(!is_critical || is_expected, "nothing is wrong in the demo: {rule}");
    }
    eprintln!(
        "{} queries, {} with data, {} without series: {missing:#?}",
        all.len(),
        required - missing.len(),
        missing.len()
    );

    terminate(demo).await;
    prometheus.stop().await;
    None
}
