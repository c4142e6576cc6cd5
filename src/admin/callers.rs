//! Who calls a service, and since when nothing does.

use std::time::Duration;

use axum::Json;
use axum::extract::Path;
use jiff::Timestamp;
use uuid::Uuid;

use super::error::ApiError;
use super::parts::CallersOfService;
use super::state::{Admin, JsonResult};
use super::types::{ServiceCallerRow, ServiceCallers, UnknownTime};
use crate::names::ServiceName;
use crate::store::{DECLARED, ServiceCaller, WatchedTime};

/// Each minute a process stores the time up to which it has noted calls. One that has not done so for this long counts
/// as gone.
const RUNNING_WITHIN: Duration = Duration::from_secs(150);

pub(super) async fn callers(admin: Admin, Path(name): Path<String>) -> JsonResult<ServiceCallers> {
    let service = ServiceName::from(name.as_str());
    let Some(CallersOfService { may_call, now, process, flush }) = (admin.parts.callers)(&service) else {
        let services = (admin.parts.services)();
        return Err(ApiError::unknown("service", &name, services.iter().map(|service| service.name.as_str())));
    };
    flush.await?;
    let may_call = may_call.await?;
    let store = &admin.parts.store;
    let (watched, found) = (store.watched_times().await?, store.service_callers(service).await?);
    let (declared, found): (Vec<_>, Vec<_>) = found.into_iter().partition(|caller| caller.source == DECLARED);
    let last_call = found.iter().map(|caller| caller.last).max();
    let query = CallersQuery { now, process, is_shared: store.is_shared() };
    let mut unknown = query.unknown_times(&watched);
    let restored = store.restored().map(|restored| restored.started);
    let known = declared_since(&declared).into_iter().chain(restored);
    let quiet_since = quiet_since(&watched, &unknown, known.chain(last_call));
    // A call that was missed before the last known one changes nothing.
    unknown.retain(|time| last_call.is_none_or(|last| time.to > last));
    let row = |caller: ServiceCaller| {
        let ServiceCaller { service: _, source, client, path, first, last } = caller;
        ServiceCallerRow { source, client, path, first, last }
    };
    let known_until = query.known_until(&watched);
    let callers = found.into_iter().map(row).collect();
    Ok(Json(ServiceCallers { service: name, may_call, callers, last_call, quiet_since, now, known_until, unknown }))
}

/// The time of the request, and the process that answers it.
struct CallersQuery {
    now: Timestamp,
    /// The process that answers: it has stored all its notes.
    process: Uuid,
    /// Whether other processes may use the store.
    is_shared: bool,
}

impl CallersQuery {
    /// Whether a process was killed: it has not ended, and does not run.
    fn was_killed(&self, time: &WatchedTime) -> bool {
        let may_run = self.is_shared && time.until + RUNNING_WITHIN >= self.now;
        time.process != self.process && !time.has_ended && !may_run
    }

    /// The times in which a process may have noted calls that it never stored: from what it stored last until another
    /// one started, or until it is certain that it was gone.
    fn unknown_times(&self, watched: &[WatchedTime]) -> Vec<UnknownTime> {
        let unknown = |time: &WatchedTime| {
            let next = watched.iter().map(|other| other.since).filter(|since| *since > time.until).min();
            UnknownTime { from: time.until, to: next.unwrap_or(time.until + RUNNING_WITHIN) }
        };
        watched.iter().filter(|time| self.was_killed(time)).map(unknown).collect()
    }

    /// Up to when the store has all calls, of other processes too that may run.
    fn known_until(&self, watched: &[WatchedTime]) -> Timestamp {
        let others = watched.iter().filter(|time| time.process != self.process && !time.has_ended);
        others.filter(|time| !self.was_killed(time)).map(|time| time.until).chain([self.now]).min().unwrap_or(self.now)
    }
}

/// Since when the files have had the service with its present URLs: earlier calls went elsewhere, or by another name.
fn declared_since(declared: &[ServiceCaller]) -> Option<Timestamp> {
    let present = declared.iter().max_by_key(|row| row.last)?;
    let earlier = declared.iter().filter(|row| row.path != present.path).map(|row| row.last);
    earlier.chain([present.first]).max()
}

/// The latest of: the last unknown time, the start of the first noting process, the last call, the last change of the
/// service's URLs.
fn quiet_since(
    watched: &[WatchedTime],
    unknown: &[UnknownTime],
    others: impl IntoIterator<Item = Timestamp>,
) -> Option<Timestamp> {
    let first = watched.iter().map(|time| time.since).min()?;
    unknown.iter().map(|time| time.to).chain(others).chain([first]).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A process, in a store that processes share, or not. The one that is asked has the number 0.
    fn watched(process: u128, since: i64, until: i64, has_ended: bool) -> WatchedTime {
        WatchedTime { process: Uuid::from_u128(process), since: at(since), until: at(until), has_ended }
    }

    fn query(is_shared: bool) -> CallersQuery {
        CallersQuery { now: at(100_000), process: Uuid::from_u128(0), is_shared }
    }

    fn quiet(is_shared: bool, watched: &[WatchedTime], last_call: Option<i64>) -> Option<Timestamp> {
        quiet_since(watched, &query(is_shared).unknown_times(watched), last_call.map(at))
    }

    #[test]
    fn time_without_calls_counts_from_when_the_service_got_its_present_urls() {
        let declared = |path: &str, first: i64, last: i64| ServiceCaller {
            service: "shop".into(),
            source: DECLARED.to_owned(),
            client: String::new(),
            path: path.to_owned(),
            first: at(first),
            last: at(last),
        };
        assert_eq!(declared_since(&[]), None);
        assert_eq!(declared_since(&[declared("a", 5, 90)]), Some(at(5)));
        assert_eq!(declared_since(&[declared("a", 5, 60), declared("b", 61, 90)]), Some(at(61)));
        // Back to the first.
        assert_eq!(declared_since(&[declared("a", 5, 90), declared("b", 61, 70)]), Some(at(70)));
    }

    #[test]
    fn time_without_calls_counts_from_the_last_call_and_over_restarts() {
        let restarted = [watched(1, 1_000, 5_000, true), watched(0, 5_010, 99_990, false)];
        for is_shared in [false, true] {
            assert_eq!(quiet(is_shared, &restarted, None), Some(at(1_000)));
            assert_eq!(quiet(is_shared, &restarted, Some(3_000)), Some(at(3_000)));
            assert_eq!(query(is_shared).known_until(&restarted), at(100_000));
        }
        assert_eq!(quiet(false, &[], None), None, "nothing was ever noted");
    }

    #[test]
    fn after_a_kill_time_without_calls_counts_from_the_next_start() {
        let killed = [watched(1, 1_000, 5_000, false), watched(0, 5_500, 99_990, false)];
        for is_shared in [false, true] {
            assert_eq!(quiet(is_shared, &killed, Some(3_000)), Some(at(5_500)));
            let unknown = UnknownTime { from: at(5_000), to: at(5_500) };
            assert_eq!(query(is_shared).unknown_times(&killed), [unknown]);
        }
    }

    #[test]
    fn a_moment_after_a_kill_a_store_of_one_process_knows_that_it_was_killed() {
        let killed = [watched(1, 1_000, 99_980, false), watched(0, 99_985, 100_000, false)];
        assert_eq!(quiet(false, &killed, Some(3_000)), Some(at(99_985)));
        // Of a shared one it is not known yet.
        assert_eq!(quiet(true, &killed, Some(3_000)), Some(at(3_000)));
        assert_eq!(query(true).known_until(&killed), at(99_980));
        assert_eq!(query(false).known_until(&killed), at(100_000));
    }

    #[test]
    fn of_two_processes_the_killed_one_leaves_an_unknown_time_of_its_own() {
        let killed = [watched(0, 1_000, 99_990, false), watched(1, 2_000, 5_000, false)];
        assert_eq!(quiet(true, &killed, Some(3_000)), Some(at(5_150)));
        let both_run = [watched(0, 1_000, 99_990, false), watched(1, 2_000, 99_950, false)];
        assert_eq!(quiet(true, &both_run, Some(3_000)), Some(at(3_000)));
        assert_eq!(query(true).known_until(&both_run), at(99_950));
    }
}
