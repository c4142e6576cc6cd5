//! The description of each metric, in a line: the `# HELP` of the exposition.
//!
//! Always true: every metric that is recorded anywhere is listed here with its kind; a test searches the sources for
//! names.

use metrics::{describe_counter, describe_gauge};

/// Registers the descriptions of counters and gauges with the recorder.
pub(super) fn describe() {
    for (name, help) in COUNTERS {
        describe_counter!(*name, *help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(*name, *help);
    }
}

/// The description of a histogram.
pub(super) fn of_histogram(name: &str) -> Option<&'static str> {
    HISTOGRAMS.iter().find(|(known, _)| *known == name).map(|(_, help)| *help)
}

/// Every metric, by kind: its name and its description.
pub fn metrics() -> [(&'static str, MetricDescriptions); 3] {
    [("counter", COUNTERS), ("gauge", GAUGES), ("histogram", HISTOGRAMS)]
}

/// Names and descriptions.
pub type MetricDescriptions = &'static [(&'static str, &'static str)];

const COUNTERS: MetricDescriptions = &[
    (
        "pointsman_requests_total",
        "Requests answered, by the state at which each was handled (after cohorts and shares), who answered, and the \
         class of the status.",
    ),
    (
        "pointsman_successions_total",
        "Hand-overs between processes (`serve --succeed`), by outcome: `taken_over`, `handed_over`; the successor was lost \
         and this process has `gone_on` or `started_again`.",
    ),
    (
        "pointsman_succession_requests_total",
        "Requests of routes with a workflow that waited until this process had taken over the store of its \
         predecessor, by outcome: `served`, `refused` (`succession_wait_ms`, `succession_waiting_max`).",
    ),
    (
        "pointsman_idle_connections_closed_total",
        "Idle connections of clients, or of legacy, that were closed to make room for new ones (`client_connections_max`, \
         `egress_connections_max`).",
    ),
    (
        "pointsman_egress_connections_refused_total",
        "Connections to the egress listener that were closed: no network under `egress.allow` has the caller's address.",
    ),
    (
        "pointsman_egress_unseen_total",
        "Calls made by legacy whose content no comparison sees, by target and kind: `tunnel` (CONNECT), `upgrade`.",
    ),
    (
        "pointsman_client_connections_total",
        "Client connections that began to speak HTTP, by listener and protocol: `http`, `tls1.2`, `tls1.3`.",
    ),
    (
        "pointsman_client_http_connections_total",
        "Client connections by listener and version of HTTP: `1.1` (1.0 among them), `2`.",
    ),
    (
        "pointsman_request_buffers_full_total",
        "Request bodies that were not buffered for lack of room (`request_buffers_bytes_max`).",
    ),
    (
        "pointsman_effects_total",
        "Calls that legacy made through the egress listener while requests were watched, by service, outcome (`attributed` \
         to a compared request, `not_compared`, `ambiguous`, `unattributed`), and what attributed them: `traceparent`, \
         `header`, `value`, `none`.",
    ),
    (
        "pointsman_effects_dropped_total",
        "Attributed calls that were not kept for the comparison, by reason: `memory` (`egress_bytes_max`), `request` (too \
         many of one request); and calls that were not attributed, because too many waited for that (`queue`). The effects \
         of their requests are not judged.",
    ),
    (
        "pointsman_effects_not_judged_total",
        "Pairs of which legacy's calls were not compared, or not all, although they are watched, by route and reason: `gap` \
         (a call that may be the request's is ambiguous or was not kept), `open` (one was under way when `egress.window` was \
         over), `unattributed` (one of no known request may be a missing one); and calls that came after that window \
         (`late`).",
    ),
    ("pointsman_captures_total", "Pairs that were captured for `pointsman rehearse`, by route."),
    (
        "pointsman_captures_dropped_total",
        "Pairs that were to be captured and were not, by route and reason: `queue_full` (too many wait to be written), \
         `too_large` (256 KiB, or more than 256 secrets), `unreadable` (a body that cannot be read within the bounds of \
         comparisons), `over_budget` (`compare_ms` was over before everything secret in it was replaced).",
    ),
    (
        "pointsman_samples_cut_total",
        "Samples of pairs that differ of which a part is missing, such as the bodies, because `compare_ms` was over before \
         everything secret in it was replaced, by route.",
    ),
    (
        "pointsman_effects_rehearsed_total",
        "Rehearsed calls whose step is to take the reply that legacy got (`rehearse: legacy`), by route and outcome: \
         `taken`; `none` (no call by legacy corresponds), `ambiguous` (several fit equally), `incomplete` (a call that may \
         be the request's was ambiguous or not kept) and `over_budget` (`compare_ms` and other bounds): the step has no \
         output then.",
    ),
    (
        "pointsman_followups_total",
        "Requests of instances that had to wait for the twin, or for an earlier request of the instance, by route and \
         outcome: `settled_match`, `settled_diff`, `never_settled` (longer than `followup_window_ms`), `not_compared` \
         (`pointsman_comparisons_total` says why). `pointsman_followups_pending` still wait.",
    ),
    (
        "pointsman_twins_incomplete_total",
        "Twins that lack something that legacy did, so that later requests of their instances are not compared (`no_twin`), \
         by the route that creates the instances and reason: `create` (it was not run, or failed), `write` (a later request \
         was not run, or failed), `overlapped` (legacy had two writes at the same time).",
    ),
    (
        "pointsman_egress_requests_total",
        "Requests for which legacy may make calls, by kind (`compared`, `not_compared`) and outcome: `watched`, \
         `evicted` before their window was over, `refused` at their start (both `egress_requests_max`, \
         `egress_uncompared_requests_max`).",
    ),
    ("pointsman_client_streams_total", "Requests that clients began over HTTP/2."),
    (
        "pointsman_client_stream_resets_total",
        "Streams of HTTP/2 clients that were reset before their end, by who did it (`client`, `pointsman`) and the \
         reason of the protocol, such as `cancel`.",
    ),
    (
        "pointsman_client_goaways_total",
        "GOAWAY frames sent to HTTP/2 clients, by reason: `no_error` closes an idle connection, or drains it; others \
         mean that the client violated the protocol (`protocol_error` and so on) or a limit (`enhance_your_calm`).",
    ),
    (
        "pointsman_tls_handshakes_total",
        "TLS handshakes with clients that were completed, by listener and kind: `full`, `resumed`.",
    ),
    (
        "pointsman_tls_handshake_failures_total",
        "TLS handshakes with clients that failed, by listener and reason: `pointsman help listeners` lists them.",
    ),
    (
        "pointsman_proxy_headers_total",
        "PROXY headers, by listener and outcome: `proxied`, `local`, or why the connection was closed \
         (`pointsman help listeners`).",
    ),
    (
        "pointsman_refusals_total",
        "Requests answered with a problem of Pointsman's own, by its reason: `pointsman help failures` lists them.",
    ),
    ("pointsman_spans_exported_total", "Spans that the OpenTelemetry collector has accepted (`traces:`)."),
    (
        "pointsman_spans_dropped_total",
        "Spans that are lost: the queue was full (`queue`, `spans_waiting_max`), or the collector did not accept them \
         (`export`).",
    ),
    (
        "pointsman_access_log_dropped_total",
        "Lines of the access log that are lost: the queue was full (`queue`), or the file could not be written (`write`).",
    ),
    (
        "pointsman_unkeyed_total",
        "Requests for which the route's `key:` had no value: a share of `dark` or `live` left them out.",
    ),
    ("pointsman_cohort_errors_total", "Conditions (`when:`) of cohorts that had no value and counted as false."),
    (
        "pointsman_stratum_errors_total",
        "Requests for which the route's `promote.strata_by` could not be evaluated: they count without a value.",
    ),
    ("pointsman_fallbacks_total", "Requests for the engine that legacy answered instead."),
    ("pointsman_flag_flips_total", "Recorded flips of routes and of the kill switch (route `*`), by who flipped."),
    (
        "pointsman_guard_actions_total",
        "How many times the guard of a route lowered it, or raised an alarm in `only`, by condition (mismatch, errors, p99_ratio).",
    ),
    (
        "pointsman_flags_reload_failures_total",
        "Changed flag files that were not put in force: they were refused, or the store did not record their flips \
         or has not answered yet.",
    ),
    ("pointsman_offered_total", "Requests offered for comparison."),
    (
        "pointsman_invariants_total",
        "The engine's answers to callers, by invariant of the route, plan (`in_force` or `candidate`) and result: it `held`, \
         was `broken` (or could not be evaluated), or was `not_judged`.",
    ),
    (
        "pointsman_reverse_comparisons_total",
        "Requests that the engine answered and that were chosen for a reverse comparison, by outcome: `compared`, \
         `not_compared`, or why legacy was not asked or gave no reply.",
    ),
    (
        "pointsman_noise_repeats_total",
        "Requests chosen to be sent to legacy a second time (`replay_safe`), by outcome: legacy's replies are `equal`, or \
         `differs`; or why nothing was compared (`pointsman help noise`).",
    ),
    (
        "pointsman_second_runs_total",
        "Rehearsals chosen to be run a second time (`rehearse_twice`), by outcome: the runs are `equal`, or `differs`; or \
         why nothing was compared (`pointsman help noise`).",
    ),
    (
        "pointsman_noise_ignored_total",
        "Compared pairs that differed only where legacy differs from itself when they were compared, and counted as equal.",
    ),
    ("pointsman_comparisons_total", "Offered requests, by outcome of the comparison and reason."),
    (
        "pointsman_candidate_comparisons_total",
        "Requests that were to be compared with the candidate of a route, by outcome of the comparison and reason.",
    ),
    (
        "pointsman_candidate_changes_total",
        "What became of candidates (changed workflows of routes in `live` or `only`): `appeared`, `moved`, `dropped`, `promoted`.",
    ),
    ("pointsman_candidate_guard_actions_total", "How many times the guard of a route set its candidate's share to 0."),
    ("pointsman_differences_total", "Differences found between answers, by kind."),
    ("pointsman_pin_collisions_total", "Ids that were given out for two instances, by route."),
    (
        "pointsman_instances_adopted_total",
        "Instances of legacy that were moved to the engine, by the route that creates them and outcome: `adopted`; \
         `given_back` (they stayed legacy's); `unknown` (a person decides).",
    ),
    (
        "pointsman_retry_keys_unnoted_total",
        "Requests that legacy served below `live` though their retry key could not be noted: the gate to `live` stays shut.",
    ),
    (
        "pointsman_retry_keys_held_total",
        "Requests refused with 409: the engine took the same request and retry key under another credential or under \
         other flag files, or each arm took a request with one of its keys.",
    ),
    (
        "pointsman_retry_key_marks_forgotten_total",
        "Marks of requests that came after `caller` or `retry_key` changed (`retry_key_marks_max`), dropped because \
         there were too many.",
    ),
    ("pointsman_retry_keys_skipped_total", "Incomplete records of the retry-key file that were skipped."),
    ("pointsman_runs_total", "Runs that ended, were paused or were discarded, by outcome."),
    (
        "pointsman_summaries_unreadable_total",
        "Times that a run was left out of a list or not resumed, because its summary in the store cannot be read.",
    ),
    (
        "pointsman_respond_condition_errors_total",
        "Conditions (`when:`) of `respond` that had no value and counted as false.",
    ),
    (
        "pointsman_instances_without_id_total",
        "Answers of the engine without the id of the instance that the run created: later requests for it go to legacy.",
    ),
    (
        "pointsman_legacy_instances_without_id_total",
        "Replies of legacy with a 2xx or 3xx status on a route that creates instances in which no id was found: what \
         they created has no twin, and nothing is known of it.",
    ),
    ("pointsman_step_retries_total", "Attempts of steps after their first one."),
    (
        "pointsman_notices_total",
        "Messages to the webhooks of `notify` of workflows and guards, by service and outcome (sent, given_up, dropped).",
    ),
    ("pointsman_notice_failures_total", "Failed attempts to deliver a message to a webhook, by the service."),
    (
        "pointsman_run_snapshots_total",
        "Snapshots of long runs, by outcome (written, too_large, not_written, left_out, read, broken, and other_fold: \
         written by a version that computes runs from their events in another way).",
    ),
    ("pointsman_purged_runs_total", "Ended runs that retention removed."),
    ("pointsman_clock_jumps_total", "Times that the machine's clock was set by more than a minute."),
    ("pointsman_breaker_transitions_total", "Changes of a service's breaker, by the state it came into."),
    (
        "pointsman_api_connections_full_total",
        "New connections to the API that found as many open as `api_connections_max` allows, by outcome: an idle or slow \
         one was closed, or the new one waited because requests were in progress on all.",
    ),
    ("pointsman_service_refused_total", "Calls that were not sent to a service, by reason."),
    (
        "pointsman_service_not_processed_total",
        "Requests and calls over HTTP/2 that a service has not processed, by reason (refused: REFUSED_STREAM; going_away: \
         GOAWAY; unsent: its connection ended before they were sent). They are sent again, a bounded number of times.",
    ),
    (
        "pointsman_service_handshake_failures_total",
        "TLS handshakes with a service that failed, by reason (certificate: not trusted, expired or missing; name; \
         protocol: no version of TLS or HTTP in common, or not TLS; refused: the service refused ours; closed; unfinished: \
         not within `connect`, or nobody waited any longer).",
    ),
    (
        "pointsman_service_connect_failures_total",
        "Connections to an address of a service that could not be made, for forwarded requests, calls of real runs and \
         messages to webhooks.",
    ),
    (
        "pointsman_service_ejections_total",
        "Times that an address of a service was ejected, by reason (no_connection, no_answer).",
    ),
    ("pointsman_service_lookup_failures_total", "Lookups of a service's name that found no address."),
    (
        "pointsman_legacy_retries_total",
        "Requests that were sent to a second address because their connection ended without an answer.",
    ),
    (
        "pointsman_client_connections_refused_total",
        "Connections that were closed at once because their client has `client_connections_per_address_max`.",
    ),
    (
        "pointsman_interim_replies_total",
        "Interim replies (1xx, without 100 and 101) of legacy over HTTP/1.1, by outcome (passed: to a client of HTTP/2; \
         dropped: too many at once for it; consumed: a client of HTTP/1.1 gets only the final reply).",
    ),
    (
        "pointsman_unverified_callers_total",
        "Requests with a retry key, of routes with `caller: { jwt: ... }`, whose token could not be verified or is missing.",
    ),
    (
        "pointsman_exchanges_cut_total",
        "Exchanges whose client did not get the whole answer, by reason (those of `pointsman help access_log`).",
    ),
    (
        "pointsman_legacy_heads_refused_total",
        "Requests that a service refused with 431: their head is too large for it, with what Pointsman adds.",
    ),
    ("pointsman_accept_failures_total", "Times that a listener could not accept connections, and waited for a moment."),
];

const GAUGES: MetricDescriptions = &[
    ("pointsman_record_entries", "The number of the newest entry of the record of moves."),
    (
        "pointsman_succession_requests_waiting",
        "Requests of routes with a workflow that wait until this process has taken over the store of its predecessor.",
    ),
    (
        "pointsman_succession_store_wait_seconds",
        "How long this process waited until it had taken over the store of its predecessor and had started.",
    ),
    ("pointsman_client_connections", "Open client connections."),
    (
        "pointsman_client_connections_parked",
        "Idle client connections of which only the sockets are kept (`client_park_ms`).",
    ),
    ("pointsman_client_streams", "Requests of clients over HTTP/2 that have not ended."),
    ("pointsman_service_addresses", "Addresses of a service; 0 once the files in force have it no longer."),
    ("pointsman_service_addresses_ejected", "Addresses of a service that get no requests for a while (`eject`)."),
    ("pointsman_service_addresses_unhealthy", "Addresses of a service that fail their health checks (`health`)."),
    (
        "pointsman_certificate_expires_seconds",
        "Seconds until the first of a listener's certificates expires; negative once it has.",
    ),
    (
        "pointsman_client_connections_per_address",
        "Connections of the client address that has the most now, where they are limited.",
    ),
    (
        "pointsman_client_connections_per_address_max",
        "The most connections of one client address (`client_connections_per_address_max`).",
    ),
    ("pointsman_requests_in_flight", "Requests that the process is answering now, where they are limited."),
    (
        "pointsman_requests_in_flight_max",
        "The most requests that the process answers at the same time (`requests_in_flight_max`).",
    ),
    ("pointsman_route_requests_max", "The most requests that a route may have at the same time (`requests_max`)."),
    ("pointsman_route_requests_in_flight", "Requests that a route with `requests_max` has now."),
    ("pointsman_route_requests_waiting", "Requests that wait for their turn at a route with `requests_max`."),
    ("pointsman_legacy_requests_max", "The most requests that a service gets at the same time (`requests_max`)."),
    ("pointsman_legacy_requests_in_flight", "Requests that a service with `requests_max` has now."),
    ("pointsman_legacy_requests_waiting", "Requests that wait for their turn at a service with `requests_max`."),
    ("pointsman_request_buffers_bytes", "Bytes of request bodies that are buffered now (`buffer_request`)."),
    (
        "pointsman_request_buffers_bytes_max",
        "The most bytes of request bodies that may be buffered (`request_buffers_bytes_max`).",
    ),
    ("pointsman_egress_connections", "Open connections of legacy to the egress listener."),
    ("pointsman_egress_connections_max", "The most such connections that may be open (`egress_connections_max`)."),
    ("pointsman_client_connections_max", "The most client connections that may be open (`client_connections_max`)."),
    (
        "pointsman_freeze_unrecorded",
        "1 while a freeze is in force that the store has not recorded: a restart would not find it.",
    ),
    (
        "pointsman_flips_unrecorded",
        "Flips down that are in force and that the store has not recorded: a restart would not find them.",
    ),
    ("pointsman_build_info", "The version that runs; always 1."),
    (
        "pointsman_flag_state",
        "The state of a route: 0 off, 1 shadow, 2 dark, 3 live, 4 only; as requested, and in effect.",
    ),
    (
        "pointsman_guard_latched",
        "1 while what the guard of a route did (lowered it, or raised an alarm in `only`) is not released, else 0.",
    ),
    (
        "pointsman_flag_reason",
        "1 for the reason why a route is in its state in effect (requested, unproven, gate, guard, health, freeze), \
         else 0.",
    ),
    (
        "pointsman_flag_share",
        "The share of keys, or of requests without `key:`, that are at the state in effect, 0 to 1; the others are at a \
         lower one.",
    ),
    ("pointsman_freeze", "The kill switch: 0 off, 1 no new engine instances, 2 also no private and shared steps."),
    (
        "pointsman_gate_verdict",
        "1 for the verdict of the gate to the next state of a route with a workflow (pass, inconclusive, stale, fail), \
         else 0; all 0 in `only`.",
    ),
    ("pointsman_engine_healthy", "1 while the store takes writes and the last process's runs are resumed, else 0."),
    ("pointsman_store_commit_age_seconds", "How long the store's present commit has been under way; 0 without one."),
    ("pointsman_flags_age_seconds", "The time since the flag files in force were loaded."),
    ("pointsman_flags_need_restart", "Changed settings of the files in force that wait for a restart of the process."),
    (
        "pointsman_flags_last_reload_successful",
        "1 while the flag files as they were last read are in force, 0 while older ones are.",
    ),
    ("pointsman_processes", "Processes that share the store, by whether their flag files are those of this one."),
    ("pointsman_processes_behind", "Processes that share the store and do not have the newest flip in force."),
    ("pointsman_routes_claimed", "Routes whose requests wait for the shared store to take their retry keys."),
    ("pointsman_keys_of_others_known", "Whether the retry keys that other processes' engines took are known here."),
    ("pointsman_clock_offset_seconds", "How far the machine's clock is ahead of the process's time."),
    (
        "pointsman_evidence_pairs",
        "Compared pairs since the route's evidence last started from zero; the gates read them.",
    ),
    (
        "pointsman_plan_unrunnable",
        "1 where the plan in force of a route cannot be run with the files in force: the engine begins nothing for it.",
    ),
    (
        "pointsman_auto_held",
        "1 while the next share of a route with `auto:` is held back by something other than the time and the requests \
         for which it has to wait.",
    ),
    ("pointsman_candidate_share", "The share of a route's new requests that its candidate answers, from 0 to 1."),
    ("pointsman_candidate_pairs", "Pairs of the candidate of a route and its plan in force; its gate reads them."),
    (
        "pointsman_candidate_mismatch_upper_bound",
        "The share of requests in which the candidate differs from the plan in force is at most this, at 95%.",
    ),
    (
        "pointsman_candidate_coverage",
        "The share of requests that were compared with the candidate, of those that count for coverage.",
    ),
    (
        "pointsman_evidence_mismatch_upper_bound",
        "The share of requests that differ, of those that legacy answers without an error, is at most this, at 95%.",
    ),
    (
        "pointsman_evidence_combined_upper_bound",
        "The share of requests that differ is at most this, at 95%, with each kind of request weighted as legacy serves it.",
    ),
    (
        "pointsman_evidence_error_excess",
        "The share of requests that fail at the engine minus that at legacy: both ends of its 95% interval.",
    ),
    (
        "pointsman_evidence_latency_ratio",
        "The engine's latency divided by legacy's, for the median pair: both ends of its 95% interval.",
    ),
    (
        "pointsman_noise_places",
        "Places at which legacy differs from itself, by verdict: `noise`, or why differences count there: \
         `engine_differs_more`, `legacy_differs_more`, `several_values`.",
    ),
    ("pointsman_evidence_coverage", "The share of requests that were compared, of those that count for coverage."),
    ("pointsman_shadow_queue_depth", "Requests that wait in the shadow queue."),
    ("pointsman_answer_checks", "Answers of the engine whose invariants are judged, or that legacy is asked about."),
    ("pointsman_shadow_in_flight", "Runs for comparison under way (`shadow`, `dark`)."),
    (
        "pointsman_effects_waiting_pairs",
        "Pairs that were run and wait until all calls by legacy for them are known (`egress.window`).",
    ),
    ("pointsman_effects_waiting_bytes", "Bytes of these pairs (at most `egress_waiting_bytes_max`)."),
    (
        "pointsman_followups_pending",
        "Requests of instances that wait for the twin, or for an earlier request of the instance (at most \
         `followups_held_max`).",
    ),
    ("pointsman_followups_pending_bytes", "Bytes of these requests (at most `followups_held_bytes_max`)."),
    (
        "pointsman_affinity_set_bytes",
        "Memory of the sets of retry keys and pins, which save look-ups in the store, by set.",
    ),
    (
        "pointsman_affinity_set_bytes_max",
        "The most memory that each set of retry keys and pins may take; when one is full, its look-ups all go to the store.",
    ),
    (
        "pointsman_affinity_set_entries",
        "Entries of the sets of retry keys and pins: keys that the engine took, instances that it owns, twins.",
    ),
    ("pointsman_retry_keys_waiting", "Retry keys that legacy took and that the store does not have yet."),
    ("pointsman_retry_keys_room", "The most retry keys that may wait for the store; a further key cannot be noted."),
    (
        "pointsman_pin_collision_open",
        "1 while both arms have created an instance with one id and nobody has accepted that: the engine creates no \
         instances of the family.",
    ),
    ("pointsman_pins", "Instances that an arm owns, by arm."),
    (
        "pointsman_instances",
        "Instances that have not ended (`ends:`, `ends_after:`), by the route that creates them and arm: the engine's, and \
         legacy's as far as requests have shown them, or legacy lists them (`alive:`).",
    ),
    (
        "pointsman_instances_adoption",
        "Instances of legacy that are not adopted although it was tried, by the route that creates them and state: `moving`, \
         `unknown`, `given_back`.",
    ),
    (
        "pointsman_instances_twin_incomplete",
        "Instances of legacy that have not ended and whose twin lacks something (`no_twin`), by the route that creates \
         them.",
    ),
    ("pointsman_runs_active", "Runs that have not ended, by status."),
    ("pointsman_notices_waiting", "Messages that wait for the webhooks of a service."),
    (
        "pointsman_recovery_pending",
        "1 while the runs that the last process left are not resumed, because the store takes no writes.",
    ),
    (
        "pointsman_runs_stuck",
        "Runs that this process cannot resume: their plan or events cannot be read, or nothing wakes them (a bug).",
    ),
    (
        "pointsman_pending_runs_overdue",
        "Child runs and reruns that were decided on and are not created yet, and ended runs whose children were not all \
         told to end; both are retried.",
    ),
    ("pointsman_checkpoints_open", "Checkpoints that wait for a person's answer, by risk."),
    ("pointsman_breaker_state", "A service's breaker: 0 closed, 1 half-open, 2 open."),
    ("pointsman_service_calls_in_flight", "Calls of steps in flight, by service."),
];

const HISTOGRAMS: MetricDescriptions = &[
    ("pointsman_request_duration_seconds", "From a request's head to the end of its answer, by who answered."),
    ("pointsman_proxy_overhead_seconds", "The time that the proxy itself adds to a request."),
    (
        "pointsman_paired_latency_seconds",
        "By how much the slower arm of a compared pair was slower; the label `slower` names that arm.",
    ),
    ("pointsman_shadow_lag_seconds", "From the offer of a request to the start of its run (`shadow`, `dark`)."),
    (
        "pointsman_step_duration_seconds",
        "How long steps took, by outcome: `done`, `not_done`, `failed`, `rehearsed`; `unfit`: the call was done, but its \
         output does not fit the declared schema; `unknown`: nobody knows whether the call was done; `conflict`: the run \
         paused over something else.",
    ),
    ("pointsman_append_duration_seconds", "How long events took to reach the disk."),
    ("pointsman_append_batch_events", "Events in one commit."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Adds the metric names that stand in quotes in the sources under this directory.
    fn metric_names(dir: &Path, names: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                metric_names(&path, names);
            } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("telemetry/help.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let quoted = text.split("\"pointsman_").skip(1).filter_map(|rest| rest.split_once('"'));
                names.extend(
                    quoted
                        .filter(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
                        .map(|(name, _)| format!("pointsman_{name}")),
                );
            }
        }
    }

    #[test]
    fn every_metric_has_a_description() {
        let mut names = BTreeSet::new();
        metric_names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut names);
        let described: BTreeSet<String> =
            [COUNTERS, GAUGES, HISTOGRAMS].concat().iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(described, names);
        assert!(COUNTERS.iter().all(|(name, _)| name.ends_with("_total")));
    }

    #[test]
    fn a_scrape_has_help_lines() {
        let Some(handle) = crate::telemetry::recorder() else { return };
        metrics::gauge!("pointsman_shadow_queue_depth").set(0.0);
        let text = handle.render();
        assert!(text.contains("# HELP pointsman_shadow_queue_depth Requests that wait in the shadow queue."), "{text}");
    }
}
