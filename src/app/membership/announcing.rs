//! Announces moves of this process to the others, which acknowledge them.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::moves::{BEYOND_LEASE, FLUSH_WAIT};
use super::{Announcing, Membership, display_name};
use crate::clock::Moment;
use crate::ladder::OtherProcesses;
use crate::names::{RouteId, WorkerId};
use crate::store::{Announcement, LivingProcess, ProcessRecord, StandingAnnouncement};

/// Why a move cannot be announced.
const NOT_TOLD: &str = "the store does not answer, so that the other processes do not know of this move";

impl Membership {
    fn announcing(&self) -> MutexGuard<'_, Announcing> {
        // A poisoned lock is usable: each announcement is added and removed in one step.
        self.announcing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims what this process announces, and tells the others of it.
    fn tell(&self, announcing: &Announcing) {
        let routes: Vec<Vec<RouteId>> = announcing.routes.values().flatten().cloned().collect();
        let standing = announcing.routes.keys().copied().collect();
        let announced =
            (!routes.is_empty()).then(|| Announcement { standing, ..Announcement::new(announcing.newest, routes) });
        if let (Some(worker), Some(claims)) = (self.worker.get(), self.claims.get()) {
            match &announced {
                Some(announced) => claims.announce(*worker, announced.clone()),
                None => claims.end_announcements(|announcer, _| announcer != *worker),
            }
        }
        self.own.rcu(|own| ProcessRecord { announced: announced.clone(), ..(**own).clone() });
        self.changed.notify_one();
    }

    /// The names of the others that have not answered an announcement of this process, and of those that answered that
    /// they cannot acknowledge it; `None` while the others were not seen since the store has the announcement.
    fn names_of_not_acknowledging(&self, own: WorkerId, number: u64) -> Option<(Vec<String>, Vec<String>)> {
        let seen = self.seen();
        let has_answered = |newest: &BTreeMap<WorkerId, u64>| newest.get(&own).is_some_and(|newest| *newest >= number);
        let acknowledges =
            |other: &LivingProcess| other.record.as_ref().is_some_and(|record| has_answered(&record.acknowledged));
        let refuses = |other: &LivingProcess| other.record.as_ref().is_some_and(|record| has_answered(&record.refused));
        let open: Vec<&LivingProcess> = seen.others.iter().filter(|other| !acknowledges(other)).collect();
        let (refusing, silent): (Vec<_>, Vec<_>) = open.into_iter().partition(|other| refuses(other));
        let names = |of: Vec<&LivingProcess>| of.into_iter().map(display_name).collect::<Vec<_>>();
        (seen.told >= Some(number) && seen.told_before >= Some(number)).then(|| (names(silent), names(refusing)))
    }
}

impl OtherProcesses for Membership {
    fn announce(&self, routes: Vec<Vec<RouteId>>) -> u64 {
        let mut announcing = self.announcing();
        announcing.newest += 1;
        let number = announcing.newest;
        announcing.routes.insert(number, routes);
        self.tell(&announcing);
        number
    }

    fn wait_until_acknowledged(&self, number: u64) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let Some(worker) = self.worker.get() else {
                return Err("this process has not joined the others that share the store yet: try again".to_owned());
            };
            let mut exchanges = self.exchanges.subscribe();
            let all = exchanges.wait_for(|_| self.names_of_not_acknowledging(*worker, number).is_some_and(|(silent, _)| silent.is_empty()));
            let _in_time = tokio::time::timeout(self.announce_within(), all).await.is_ok();
            let Some((silent, refusing)) = self.names_of_not_acknowledging(*worker, number) else {
                return Err(NOT_TOLD.to_owned());
            };
            let own_keys = match self.claims.get() {
                Some(claims) => tokio::time::timeout(FLUSH_WAIT, claims.flush()).await == Ok(true),
                None => true,
            };
            let sentence = |names: &[String], what: &str| (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")));
            let sentences: Vec<String> = [
                sentence(
                    &silent,
                    "these processes share the store and have not acknowledged that the engine is to answer (stop them, or \
                     bring them back, and try again; `pointsman processes`)",
                ),
                sentence(
                    &refusing,
                    "these processes share the store and cannot claim the retry keys of the route, because their files do \
                     not have it, or no workflow for it (bring the same files to all)",
                ),
            ]
            .into_iter()
            .flatten()
            .chain((!own_keys).then(|| {
                "the store does not take the retry keys of requests that legacy has served here: the engine of another \
                 process would perform their retries (try again)"
                    .to_owned()
            }))
            .collect();
            if sentences.is_empty() { Ok(()) } else { Err(sentences.join("; ")) }
        }
        .boxed()
    }

    fn standing(&self, number: u64) -> Result<Option<StandingAnnouncement>, String> {
        let seen = self.seen();
        let term = seen.term.filter(|_| seen.told >= Some(number));
        match self.worker.get().zip(term) {
            Some((worker, term)) => Ok(Some(StandingAnnouncement { worker: *worker, term, number })),
            None => Err(NOT_TOLD.to_owned()),
        }
    }

    fn check_lost_keys(&self) -> BoxFuture<'_, Result<(), String>> {
        self.find_lost_keys().boxed()
    }

    fn end_announcement(&self, number: u64) {
        // By now the announced move is in force here, or it was not made.
        let mut announcing = self.announcing();
        announcing.routes.remove(&number);
        self.tell(&announcing);
    }

    fn leases_ended(&self) -> u64 {
        let seen = self.seen();
        seen.leases_ended + u64::from(seen.lease_ends.is_some_and(|ends| ends <= Moment::now()))
    }

    fn announce_within(&self) -> Duration {
        self.lease + BEYOND_LEASE
    }
}
