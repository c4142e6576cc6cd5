//! Stores who calls which service, and says what may still call one.
//!
//! Always true: a call is stored within [`FLUSH_EVERY`] of its note, while the store takes writes; until when a process
//! has stored its notes is stored too, so that after kill -9 nobody takes what was lost for silence.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use crate::clock;
use crate::config::Setup;
use crate::flag::{FlagSet, State};
use crate::names::ServiceName;
use crate::store::{RepeatedFailures, ServiceCaller, StoreError, StoreHandle, WatchedTime};
use crate::transport::{CallerLog, NotedCalls};
use crate::workflow::{Plan, StepPart};

/// How long notes wait before they are stored together.
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// How often the store is told that the process still notes all calls, while there are none.
const WATCH_EVERY: Duration = Duration::from_secs(60);

/// Stores the notes of this process.
pub(super) struct CallerNotes {
    log: Arc<CallerLog>,
    store: StoreHandle,
    /// The id of this process and since when it notes calls; locked while notes are stored.
    watched: Mutex<WatchedTime>,
}

impl CallerNotes {
    pub(super) fn new(log: Arc<CallerLog>, store: StoreHandle) -> Self {
        let (process, now) = (Uuid::now_v7(), clock::now());
        let watched = WatchedTime { process, since: now, until: now, has_ended: false };
        Self { log, store, watched: Mutex::new(watched) }
    }

    /// Stores the notes at intervals, until the task is aborted.
    pub(super) async fn store_periodically(&self) {
        let mut ticks = interval(FLUSH_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (failures, mut stored_at) = (RepeatedFailures::default(), None::<Instant>);
        loop {
            ticks.tick().await;
            let is_due = stored_at.is_none_or(|at| at.elapsed() >= WATCH_EVERY);
            match self.flush_if(is_due, false).await {
                Ok(true) => stored_at = Some(Instant::now()),
                Ok(false) => {}
                Err(error) => {
                    if let Some(unlogged) = failures.count(&error.0) {
                        tracing::warn!(%error, unlogged, "the callers of services are not stored; this is tried again");
                    }
                }
            }
        }
    }

    /// Stores what is noted up to now.
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        self.flush_if(true, false).await.map(drop)
    }

    /// Stores what is noted, and that this process notes nothing any more.
    pub(super) async fn finish(&self) -> Result<(), StoreError> {
        self.flush_if(true, true).await.map(drop)
    }

    /// Returns whether something was stored.
    async fn flush_if(&self, even_without_notes: bool, has_ended: bool) -> Result<bool, StoreError> {
        let mut watched = self.watched.lock().await;
        // Read before the notes are taken: a later call is not among them.
        let until = clock::now();
        let mut taken = TakenNotes { log: &self.log, noted: self.log.take() };
        if taken.noted.is_empty() && !even_without_notes {
            return Ok(false);
        }
        let now = WatchedTime { until, has_ended, ..*watched };
        self.store.put_service_callers(taken.noted.iter().map(stored_form).collect(), now).await?;
        taken.noted.clear();
        *watched = now;
        Ok(true)
    }
}

/// Notes that are being stored. Unless they were, they are kept for the next time when this is dropped: the store
/// refused them, or whoever waited for it does so no longer. To store a note twice changes nothing.
struct TakenNotes<'a> {
    log: &'a CallerLog,
    noted: Vec<NotedCalls>,
}

impl Drop for TakenNotes<'_> {
    fn drop(&mut self) {
        self.log.put_back(std::mem::take(&mut self.noted));
    }
}

fn stored_form(noted: &NotedCalls) -> ServiceCaller {
    let NotedCalls { service, caller, first, last } = noted;
    ServiceCaller {
        service: service.clone(),
        source: caller.source.clone(),
        client: caller.client.clone(),
        path: caller.path.clone(),
        first: *first,
        last: *last,
    }
}

/// What may call a service, by the files and the states in force; `None` if the files do not have the service.
pub(super) fn may_call(setup: &Setup, flags: &FlagSet, service: &ServiceName) -> Option<Vec<String>> {
    setup.services.get(service)?;
    let mut found = Vec::new();
    if setup.default_legacy.name == *service {
        found.push("requests that match no route (default_legacy)".to_owned());
    }
    for flag in flags.routes.iter().filter(|flag| flag.route.legacy.name == *service) {
        let (id, state) = (&flag.route.id, flag.effective.state);
        match state {
            State::Only => {}
            State::Live => found.push(format!("route {id} (live: fallbacks, and what legacy owns)")),
            State::Off | State::Shadow | State::Dark => found.push(format!("route {id} ({state})")),
        }
    }
    for (workflow, plan) in &setup.workflows {
        found.extend(steps_that_call(plan, service).map(|step| format!("step {workflow}.{step}")));
    }
    if setup.settings.egress.is_some() {
        found.push("calls by legacy through the egress listener".to_owned());
    }
    Some(found)
}

fn steps_that_call<'a>(plan: &'a Plan, service: &'a ServiceName) -> impl Iterator<Item = &'a str> {
    let parts = [StepPart::Do, StepPart::Probe, StepPart::Undo];
    let calls = move |part| move |step: &&crate::workflow::Step| step.call(part).is_some_and(|c| c.service == *service);
    plan.steps.iter().filter(move |step| parts.into_iter().any(|part| calls(part)(step))).map(|step| step.id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, ServiceCallerStore as _, Store as _};
    use crate::transport::Caller;

    #[tokio::test]
    async fn notes_that_were_not_stored_are_stored_later() {
        let (log, store) = (Arc::new(CallerLog::default()), Arc::new(MemoryStore::new()));
        let caller = || Caller { source: "route a".into(), client: String::new(), path: "GET /".into() };
        log.of(&"shop".into()).note(caller(), clock::now());
        // A flush that nobody waits for any longer.
        drop(TakenNotes { log: &log, noted: log.take() });
        let notes = CallerNotes::new(log.clone(), store.clone());
        notes.flush().await.unwrap();
        assert_eq!(store.service_callers("shop".into()).await.unwrap().len(), 1);
        store.close().await;
        log.of(&"shop".into()).note(caller(), clock::now());
        let stored_until = notes.watched.lock().await.until;
        assert!(notes.flush().await.is_err());
        assert_eq!(notes.watched.lock().await.until, stored_until, "what is not stored is not vouched for");
        assert_eq!(log.take().len(), 1);
    }
}
