//! The state of the process, for `status` and `readyz`.

use super::egress_proxy::EgressProxy;
use super::parts::Parts;
use super::succession::status::SuccessionStatus;
use super::{background, time};
use crate::admin::ProcessStatus;
use crate::admin::types::{EgressStatus, ShadowLoad, StuckRun};
use crate::affinity::RequestsWithUnknownKeys;
use crate::config::ReloadStatus;
use crate::store::Restored;
use crate::transport::AddressRegistry;

/// How many stuck runs `status` lists at most.
const STUCK_SHOWN: usize = 20;

/// The state of the process now.
pub(super) fn of(
    parts: &Parts,
    addresses: &AddressRegistry,
    reload_status: &ReloadStatus,
    succession: &SuccessionStatus,
    stopping: bool,
    egress: Option<&EgressProxy>,
) -> ProcessStatus {
    let load = parts.shadow.load();
    let stuck = parts.engine.stuck(STUCK_SHOWN).into_iter();
    let stuck: Vec<_> = stuck.map(|(run, why)| StuckRun { run_id: run.to_string(), why: why.to_string() }).collect();
    ProcessStatus {
        flags_age: reload_status.age(),
        flags_error: reload_status.last_error(),
        warnings: reload_status.warnings(),
        needs_restart: reload_status.needs_restart(),
        engine_healthy: background::is_engine_healthy(parts),
        store_trouble: parts.store.write_failure(),
        recovery_trouble: parts.engine.why_unresumed(),
        clock_trouble: time::clock_disagreement(),
        services_trouble: without_address(addresses),
        retry_keys_trouble: missing_retry_keys(parts),
        adoption_trouble: parts.adoptions.trouble(),
        instances_trouble: parts.ladder.unanswered_instances(),
        processes_trouble: parts.membership.trouble(),
        stopping,
        runs_in_flight: parts.engine.runs_in_flight() as u64,
        stuck_more: parts.engine.stuck_count().saturating_sub(stuck.len()) as u64,
        stuck,
        shadow: ShadowLoad { queue_depth: load.queue_depth, in_flight: load.in_flight },
        succession: succession.text(),
        egress: egress
            .map(|egress| EgressStatus { listen: egress.address.to_string(), calls: egress.proxy.egress_calls() }),
        // A load balancer must not remove the address while this process hands over: the successor accepts on it.
        not_ready: not_ready(parts, stopping).filter(|_| !succession.hands_over()),
    }
}

/// The names of services without an address, as text; `None` if there is none.
fn without_address(addresses: &AddressRegistry) -> Option<String> {
    let names = addresses.names_without_address();
    let names: Vec<_> = names.iter().map(|(service, name)| format!("`{name}` of service `{service}`")).collect();
    let requests = "requests and calls to it fail, and the name is looked up again every `service_resolve_ms`";
    (!names.is_empty()).then(|| format!("no address is known for {}: {requests}", names.join(", ")))
}

/// Why retry keys of requests that legacy served may be unknown, as text; `None` if all are known.
fn missing_retry_keys(parts: &Parts) -> Option<String> {
    let unread = parts.affinity.unread_key_files().into_iter().chain(parts.affinity.lost_keys_of_unknown_routes());
    let files = unread.map(|(file, RequestsWithUnknownKeys { until, .. })| {
        format!(
            "{file}: until {until:.0} retries with the missing keys are treated as first tries. So no route goes up to \
             `live` unless forced, and routes and cohorts in `live` are held at `dark`"
        )
    });
    let copy = parts.ladder.copy_held_until().map(|until| {
        let restored = |Restored { backed_up, open_runs, .. }| {
            format!("restored from a backup of {backed_up:.0} ({open_runs} runs were open in it and are paused)")
        };
        let which = parts.store.restored().map(restored);
        let which = which.unwrap_or_else(|| "a copy of another one, or of an earlier state of this one".to_owned());
        format!(
            "the store is {which}, and what was done after the copy was made is not in it: routes in `live` were \
             lowered to `dark` (except those that only read or have `force:` in their file), until {until:.0} none \
             goes up to `live` unless forced, and retries in `only` are performed again"
        )
    });
    let sentences: Vec<String> = copy.into_iter().chain(files).collect();
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

/// Why a start of a run would be refused now. Does not consider `runs_in_flight_max`: a load balancer that removed an
/// overloaded process would also remove its routes in `off`.
fn not_ready(parts: &Parts, stopping: bool) -> Option<String> {
    if stopping || parts.engine.is_draining() {
        return Some("stopping".to_owned());
    }
    let why = || parts.store.write_failure().unwrap_or_else(|| "the last write failed".to_owned());
    if !parts.store.healthy() {
        return Some(format!("the store accepts no writes: {}", why()));
    }
    let unresumed = parts.engine.why_unresumed()?;
    Some(format!("the runs that the last process left are not resumed yet: {unresumed}"))
}
