//! Stores who calls which service, and says what may still call one.
//!
//! Always true: a call is stored within [`FLUSH_EVERY`] of its note, while the store accepts writes. The time up to
//! which a process has stored its notes is stored too, so that the time after it counts as unknown after kill -9, and
//! not as time without calls.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use crate::clock;
use crate::config::Setup;
use crate::flag::{FlagSet, Service, State};
use crate::names::{ServiceName, WorkflowName};
use crate::store::{DECLARED, RepeatedFailures, ServiceCaller, StoreError, StoreHandle, UNDER_WAY, WatchedTime};
use crate::transport::{AddressRegistry, CallerLog, NotedCaller, NotedCalls};
use crate::workflow::{Plan, StepPart};

/// How long notes wait before they are stored together.
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// How often the store is told that the process still notes all calls, while there are none.
const WATCH_EVERY: Duration = Duration::from_secs(60);

/// Stores the notes of this process.
pub(super) struct CallerNotes {
    addresses: Arc<AddressRegistry>,
    store: StoreHandle,
    /// The services of the files in force, with their URLs as a text.
    declared: std::sync::Mutex<Vec<(ServiceName, String)>>,
    /// The id of this process, under which the store has the time in which it noted calls.
    pub(super) process: Uuid,
    /// Since when this process notes calls, and up to when they are stored; locked while notes are stored.
    watched: Mutex<WatchedTime>,
}

impl CallerNotes {
    pub(super) fn new(addresses: Arc<AddressRegistry>, store: StoreHandle) -> Self {
        let (process, now) = (Uuid::now_v7(), clock::now());
        let watched = WatchedTime { process, since: now, until: now, has_ended: false };
        Self { addresses, store, declared: std::sync::Mutex::default(), process, watched: Mutex::new(watched) }
    }

    /// Where the notes are stored.
    pub(super) fn store(&self) -> &StoreHandle {
        &self.store
    }

    /// Takes the services of new files.
    pub(super) fn set_services(&self, services: &BTreeMap<ServiceName, Arc<Service>>) {
        let urls = |service: &Service| {
            let mut urls: Vec<String> = service.urls.iter().map(|url| url.uri.to_string()).collect();
            urls.sort();
            urls.join(" ")
        };
        let declared = services.iter().map(|(name, service)| (name.clone(), urls(service))).collect();
        *self.declared.lock().unwrap_or_else(PoisonError::into_inner) = declared;
    }

    /// The rows that say which services the files in force have.
    fn declared_now(&self, now: Timestamp) -> Vec<ServiceCaller> {
        let declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        let row = |(service, urls): &(ServiceName, String)| ServiceCaller {
            service: service.clone(),
            source: DECLARED.to_owned(),
            client: String::new(),
            path: urls.clone(),
            first: now,
            last: now,
        };
        declared.iter().map(row).collect()
    }

    /// Notes the services with which an exchange is under way: it may take hours.
    fn note_exchanges_under_way(&self) {
        for service in self.addresses.services_in_use() {
            let caller = NotedCaller { source: UNDER_WAY.to_owned(), client: String::new(), path: String::new() };
            self.addresses.callers().of(&service).note(caller, clock::now());
        }
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

    /// Stores what is noted, and that this process notes nothing any more. The latter is not stored if the process's
    /// time disagrees with the machine's clock: the next process could not tell how long ago the stored times are.
    pub(super) async fn finish(&self) -> Result<(), StoreError> {
        self.flush_if(true, clock::process().disagreement().is_none()).await.map(drop)
    }

    /// Stores the notes and the time up to which they are complete; if there are none, only if `even_without_notes`.
    /// `has_ended`: this process notes nothing any more. Returns whether something was stored.
    async fn flush_if(&self, even_without_notes: bool, has_ended: bool) -> Result<bool, StoreError> {
        let mut watched = self.watched.lock().await;
        self.note_exchanges_under_way();
        // Read before the notes are taken: a later call is not among them.
        let until = clock::now();
        let log = self.addresses.callers();
        let mut taken = TakenNotes { log, noted: log.take() };
        if taken.noted.is_empty() && !even_without_notes {
            return Ok(false);
        }
        let now = WatchedTime { until, has_ended, ..*watched };
        let mut rows: Vec<_> = taken.noted.iter().map(stored_form).collect();
        if even_without_notes {
            rows.extend(self.declared_now(until));
        }
        self.store.put_service_callers(rows, now).await?;
        taken.noted.clear();
        *watched = now;
        Ok(true)
    }
}

/// Notes that are being stored. When this is dropped before they are stored, they are put back into the log: the store
/// refused them, or the task that stored them was aborted. Storing a note twice changes nothing.
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

/// What may call a service, by the files and the states in force, without the plans that only the store has; `None` if
/// the files do not have the service.
pub(super) fn may_call(setup: &Setup, flags: &FlagSet, service: &ServiceName) -> Option<Vec<String>> {
    let own = setup.services.get(service)?;
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
    for flag in flags.routes.iter() {
        let route = &flag.route;
        if route.lifetime.alive.as_ref().is_some_and(|call| call.service.name == *service) {
            found.push(format!("the gate of {} to `only` (`alive:`)", route.id));
        }
        let webhook = route.guard.as_ref().and_then(|guard| guard.notify.as_ref());
        if webhook.is_some_and(|webhook| webhook.service == *service) {
            found.push(format!("messages of the guard of {} (`notify:`)", route.id));
        }
    }
    for (workflow, plan) in &setup.workflows {
        found.extend(calls_of(workflow, plan, service));
    }
    for (name, other) in setup.services.iter().filter(|(name, _)| *name != service) {
        if other.urls.iter().any(|url| own.urls.iter().any(|own| own.uri == url.uri)) {
            found.push(format!("what calls the service {name}, which has the same URL (`pointsman legacy {name}`)"));
        }
    }
    if setup.settings.egress.is_some() {
        found.push("calls by legacy through the egress listener".to_owned());
    }
    Some(found)
}

/// The steps of a plan that call a service, and its messages to it.
pub(super) fn calls_of<'a>(
    workflow: &'a WorkflowName,
    plan: &'a Plan,
    service: &'a ServiceName,
) -> impl Iterator<Item = String> + 'a {
    let notifies = plan.notify.as_ref().and_then(|url| url.service()) == Some(service.as_str());
    let messages = notifies.then(|| format!("messages of the workflow {workflow} (`notify:`)"));
    steps_that_call(plan, service).map(move |step| format!("step {workflow}.{step}")).chain(messages)
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

    #[tokio::test]
    async fn notes_that_were_not_stored_are_stored_later() {
        let (addresses, store) = (AddressRegistry::new(), Arc::new(MemoryStore::new()));
        let log = addresses.callers().clone();
        let caller = || NotedCaller { source: "route a".into(), client: String::new(), path: "GET /".into() };
        log.of(&"shop".into()).note(caller(), clock::now());
        // A flush that nobody waits for any longer.
        drop(TakenNotes { log: &log, noted: log.take() });
        let notes = CallerNotes::new(addresses.clone(), store.clone());
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
