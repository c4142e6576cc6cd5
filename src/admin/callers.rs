//! Who calls a service, and since when nothing does.

use std::time::Duration;

use axum::Json;
use axum::extract::Path;
use jiff::Timestamp;

use super::error::ApiError;
use super::parts::CallersOfService;
use super::state::{Admin, JsonResult};
use super::types::{ServiceCallerRow, ServiceCallers, UnknownTime};
use crate::names::ServiceName;
use crate::store::{ServiceCaller, WatchedTime};

/// A process that runs has stored within this time until when it noted calls (each minute), unless the store refuses.
const RUNNING_WITHIN: Duration = Duration::from_secs(150);

pub(super) async fn callers(admin: Admin, Path(name): Path<String>) -> JsonResult<ServiceCallers> {
    let service = ServiceName::from(name.as_str());
    let Some(CallersOfService { may_call, now, flush }) = (admin.parts.callers)(&service) else {
        let services = (admin.parts.services)();
        return Err(ApiError::unknown("service", &name, services.iter().map(|service| service.name.as_str())));
    };
    flush.await?;
    let store = &admin.parts.store;
    let (watched, found) = (store.watched_times().await?, store.service_callers(service).await?);
    let last_call = found.iter().map(|caller| caller.last).max();
    let mut unknown = unknown_times(&watched, now);
    let quiet_since = quiet_since(&watched, &unknown, last_call);
    // Before a call that is known, others change nothing.
    unknown.retain(|time| last_call.is_none_or(|last| time.to > last));
    let row = |caller: ServiceCaller| {
        let ServiceCaller { service: _, source, client, path, first, last } = caller;
        ServiceCallerRow { source, client, path, first, last }
    };
    let callers = found.into_iter().map(row).collect();
    Ok(Json(ServiceCallers { service: name, may_call, callers, last_call, quiet_since, now, unknown }))
}

/// The times in which a process may have noted calls that it never stored: from what it stored last until another one
/// started, or until it is certain that it was gone.
fn unknown_times(watched: &[WatchedTime], now: Timestamp) -> Vec<UnknownTime> {
    let is_gone = |time: &&WatchedTime| !time.has_ended && time.until + RUNNING_WITHIN < now;
    let unknown = |time: &WatchedTime| {
        let next = watched.iter().map(|other| other.since).filter(|since| *since > time.until).min();
        UnknownTime { from: time.until, to: next.unwrap_or(time.until + RUNNING_WITHIN) }
    };
    watched.iter().filter(is_gone).map(unknown).collect()
}

/// Since when nothing called: since the last call, the last unknown time, or the first process that noted calls,
/// whatever is latest.
fn quiet_since(watched: &[WatchedTime], unknown: &[UnknownTime], last_call: Option<Timestamp>) -> Option<Timestamp> {
    let first = watched.iter().map(|time| time.since).min()?;
    unknown.iter().map(|time| time.to).chain(last_call).chain([first]).max()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn watched(since: i64, until: i64, has_ended: bool) -> WatchedTime {
        WatchedTime { process: Uuid::nil(), since: at(since), until: at(until), has_ended }
    }

    fn quiet(watched: &[WatchedTime], last_call: Option<i64>) -> Option<Timestamp> {
        quiet_since(watched, &unknown_times(watched, at(100_000)), last_call.map(at))
    }

    #[test]
    fn silence_counts_from_the_last_call_and_over_restarts() {
        let restarted = [watched(1_000, 5_000, true), watched(5_010, 99_990, false)];
        assert_eq!(quiet(&restarted, None), Some(at(1_000)));
        assert_eq!(quiet(&restarted, Some(3_000)), Some(at(3_000)));
        assert_eq!(quiet(&[], None), None, "nothing was ever noted");
    }

    #[test]
    fn after_a_kill_silence_counts_from_the_next_start() {
        let killed = [watched(1_000, 5_000, false), watched(5_500, 99_990, false)];
        assert_eq!(quiet(&killed, Some(3_000)), Some(at(5_500)));
        assert_eq!(unknown_times(&killed, at(100_000)), [UnknownTime { from: at(5_000), to: at(5_500) }]);
    }

    #[test]
    fn of_two_processes_the_killed_one_leaves_an_unknown_time_of_its_own() {
        let killed = [watched(1_000, 99_990, false), watched(2_000, 5_000, false)];
        assert_eq!(quiet(&killed, Some(3_000)), Some(at(5_150)));
        let both_run = [watched(1_000, 99_990, false), watched(2_000, 99_950, false)];
        assert_eq!(quiet(&both_run, Some(3_000)), Some(at(3_000)));
    }
}
