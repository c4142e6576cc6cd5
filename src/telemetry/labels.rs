//! The labels of each metric that has any.
//!
//! Always true: each metric has the same labels wherever it is recorded, and they are listed here; a test searches the
//! sources for them. The values of each label come from the files or from a fixed list (`pointsman help metrics`).

/// The names of labels, in alphabetical order, and the metrics that have just these.
const LABELS: &[(&[&str], &[&str])] = &[
    (&["action", "route"], &["pointsman_candidate_changes_total"]),
    (&["answered_by", "code_class", "route", "state"], &["pointsman_requests_total"]),
    (&["arm", "route"], &["pointsman_instances", "pointsman_pins", "pointsman_request_duration_seconds"]),
    (&["by", "from", "route", "to"], &["pointsman_flag_flips_total"]),
    (&["by", "outcome", "service"], &["pointsman_effects_total"]),
    (&["by", "reason"], &["pointsman_client_stream_resets_total"]),
    (&["by", "service"], &["pointsman_service_refused_total"]),
    (&["condition", "route"], &["pointsman_guard_actions_total"]),
    (&["end", "route"], &["pointsman_evidence_error_excess", "pointsman_evidence_latency_ratio"]),
    (&["files"], &["pointsman_processes"]),
    (&["invariant", "plan", "result", "route"], &["pointsman_invariants_total"]),
    (&["kind", "listener"], &["pointsman_tls_handshakes_total"]),
    (&["kind", "outcome"], &["pointsman_egress_requests_total"]),
    (&["kind", "route"], &["pointsman_differences_total", "pointsman_flag_state"]),
    (&["kind", "target"], &["pointsman_egress_unseen_total"]),
    (
        &["listener"],
        &[
            "pointsman_accept_failures_total",
            "pointsman_certificate_expires_seconds",
            "pointsman_client_connections_refused_total",
        ],
    ),
    (&["listener", "outcome"], &["pointsman_proxy_headers_total"]),
    (&["listener", "protocol"], &["pointsman_client_connections_total"]),
    (&["listener", "reason"], &["pointsman_tls_handshake_failures_total"]),
    (&["listener", "version"], &["pointsman_client_http_connections_total"]),
    (&["mode", "outcome", "workflow"], &["pointsman_runs_total"]),
    (
        &["outcome"],
        &[
            "pointsman_api_connections_full_total",
            "pointsman_interim_replies_total",
            "pointsman_run_snapshots_total",
            "pointsman_succession_requests_total",
            "pointsman_successions_total",
        ],
    ),
    (&["outcome", "reason", "route"], &["pointsman_candidate_comparisons_total", "pointsman_comparisons_total"]),
    (
        &["outcome", "route"],
        &[
            "pointsman_effects_rehearsed_total",
            "pointsman_followups_total",
            "pointsman_instances_adopted_total",
            "pointsman_noise_repeats_total",
            "pointsman_reverse_comparisons_total",
            "pointsman_second_runs_total",
        ],
    ),
    (&["outcome", "service"], &["pointsman_notices_total"]),
    (&["outcome", "step", "workflow"], &["pointsman_step_duration_seconds"]),
    (
        &["reason"],
        &[
            "pointsman_access_log_dropped_total",
            "pointsman_client_goaways_total",
            "pointsman_effects_dropped_total",
            "pointsman_exchanges_cut_total",
            "pointsman_spans_dropped_total",
        ],
    ),
    (
        &["reason", "route"],
        &[
            "pointsman_captures_dropped_total",
            "pointsman_effects_not_judged_total",
            "pointsman_refusals_total",
            "pointsman_twins_incomplete_total",
        ],
    ),
    (
        &["reason", "service"],
        &[
            "pointsman_service_ejections_total",
            "pointsman_service_handshake_failures_total",
            "pointsman_service_not_processed_total",
        ],
    ),
    (&["risk"], &["pointsman_checkpoints_open"]),
    (
        &["route"],
        &[
            "pointsman_auto_held",
            "pointsman_candidate_coverage",
            "pointsman_candidate_guard_actions_total",
            "pointsman_candidate_mismatch_upper_bound",
            "pointsman_candidate_pairs",
            "pointsman_candidate_share",
            "pointsman_captures_total",
            "pointsman_cohort_errors_total",
            "pointsman_evidence_combined_upper_bound",
            "pointsman_evidence_coverage",
            "pointsman_evidence_mismatch_upper_bound",
            "pointsman_evidence_pairs",
            "pointsman_fallbacks_total",
            "pointsman_flag_share",
            "pointsman_guard_latched",
            "pointsman_instances_twin_incomplete",
            "pointsman_legacy_instances_without_id_total",
            "pointsman_noise_ignored_total",
            "pointsman_offered_total",
            "pointsman_pin_collision_open",
            "pointsman_pin_collisions_total",
            "pointsman_plan_unrunnable",
            "pointsman_retry_keys_held_total",
            "pointsman_retry_keys_unnoted_total",
            "pointsman_route_requests_in_flight",
            "pointsman_route_requests_max",
            "pointsman_route_requests_waiting",
            "pointsman_samples_cut_total",
            "pointsman_stratum_errors_total",
            "pointsman_unkeyed_total",
            "pointsman_unverified_callers_total",
        ],
    ),
    (&["route", "slower"], &["pointsman_paired_latency_seconds"]),
    (&["route", "state"], &["pointsman_instances_adoption"]),
    (&["route", "verdict"], &["pointsman_gate_verdict", "pointsman_noise_places"]),
    (&["route", "why"], &["pointsman_flag_reason"]),
    (&["route", "workflow"], &["pointsman_instances_without_id_total"]),
    (
        &["service"],
        &[
            "pointsman_breaker_state",
            "pointsman_legacy_heads_refused_total",
            "pointsman_legacy_requests_in_flight",
            "pointsman_legacy_requests_max",
            "pointsman_legacy_requests_waiting",
            "pointsman_legacy_retries_total",
            "pointsman_notice_failures_total",
            "pointsman_notices_waiting",
            "pointsman_service_addresses",
            "pointsman_service_addresses_ejected",
            "pointsman_service_addresses_unhealthy",
            "pointsman_service_calls_in_flight",
            "pointsman_service_connect_failures_total",
            "pointsman_service_lookup_failures_total",
        ],
    ),
    (&["service", "to"], &["pointsman_breaker_transitions_total"]),
    (&["set"], &["pointsman_affinity_set_bytes", "pointsman_affinity_set_bytes_max", "pointsman_affinity_set_entries"]),
    (&["status", "workflow"], &["pointsman_runs_active"]),
    (&["step", "workflow"], &["pointsman_step_retries_total"]),
    (&["version"], &["pointsman_build_info"]),
    (&["workflow"], &["pointsman_respond_condition_errors_total", "pointsman_runs_stuck"]),
];

/// The labels of a metric, in alphabetical order; empty if it has none, or there is no such metric.
pub fn of(metric: &str) -> &'static [&'static str] {
    LABELS.iter().find(|(_, metrics)| metrics.contains(&metric)).map_or(&[], |(labels, _)| *labels)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;

    /// The arguments of a macro: the text up to the parenthesis that closes what was opened before `text`.
    fn arguments(text: &str) -> &str {
        let mut depth = 1;
        for (at, character) in text.char_indices() {
            match character {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return &text[..at];
            }
        }
        text
    }

    /// The labels with which the sources under this directory record each metric.
    fn recorded(dir: &Path, into: &mut BTreeMap<String, BTreeSet<Vec<String>>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let is_test = path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests"));
            if path.is_dir() {
                recorded(&path, into);
            }
            if is_test || path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for kind in ["counter!(", "gauge!(", "histogram!("] {
                for (at, _) in code.match_indices(kind) {
                    let arguments = arguments(&code[at + kind.len()..]);
                    let Some((name, rest)) = arguments.trim_start().strip_prefix('"').and_then(|a| a.split_once('"'))
                    else {
                        continue;
                    };
                    let quoted = rest.split('"').skip(1).step_by(2);
                    let followed = rest.split('"').skip(2).step_by(2);
                    let labels = quoted.zip(followed).filter(|(_, next)| next.trim_start().starts_with("=>"));
                    let mut labels: Vec<String> = labels.map(|(label, _)| label.to_owned()).collect();
                    labels.sort_unstable();
                    into.entry(name.to_owned()).or_default().insert(labels);
                }
            }
        }
    }

    #[test]
    fn every_metric_has_these_labels_wherever_it_is_recorded() {
        let mut found = BTreeMap::new();
        recorded(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        let metrics = crate::telemetry::metrics().into_iter().flat_map(|(_, metrics)| metrics.iter());
        for (name, _) in metrics {
            let listed: Vec<String> = of(name).iter().map(|label| (*label).to_owned()).collect();
            assert_eq!(found.get(*name), Some(&BTreeSet::from([listed])), "{name}");
        }
        let listed = LABELS.iter().flat_map(|(_, metrics)| metrics.iter());
        for name in listed {
            assert!(found.contains_key(*name), "{name} is recorded nowhere");
        }
    }
}
