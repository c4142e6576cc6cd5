//! Moves that all processes on the same store have to have in force.
//!
//! Always true: the engine of no process answers a route's requests before all others have acknowledged that the route
//! is going to be raised there ([`OtherProcesses::announce`]): from then on each claims the retry keys of the route
//! (`key_claims`). A recorded move is in force in each process a moment after it is recorded, and each says up to which
//! flip that is so. A process serves only after it has joined the others.
//!
//! When a process hangs or loses the store, the others wait for it until its lease is over, by the store's clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::super::key_claims::KeyClaims;
use super::super::shared_moves::SharedMoves;
use super::{EXCHANGE_EVERY, Membership};
use crate::clock::Moment;
use crate::ladder::{Ladder, OtherProcesses};
use crate::names::{RouteId, WorkerId};
use crate::store::{Announcement, ProcessRecord, RepeatedFailures, StoreError, StoreNotification};

/// How much longer than a lease an announcement waits for the other processes, and a start for its own lease.
pub(super) const BEYOND_LEASE: Duration = Duration::from_secs(1);
/// How long the keys that legacy has taken are waited for before an announcement is acknowledged. It is tried again.
pub(super) const FLUSH_WAIT: Duration = Duration::from_secs(2);
/// The pause before a failed exchange is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

impl Membership {
    /// Joins the other processes, before this one serves: tells them about it, puts in force what they have recorded,
    /// and waits, for a bounded time, until they have acknowledged which routes the engine answers here.
    pub(in crate::app) async fn join(
        &self,
        worker: WorkerId,
        (listen, admin): (Vec<String>, String),
        shared: &SharedMoves,
    ) {
        let _ = self.worker.set(worker);
        let flips = self.store.is_shared().then(|| *shared.ladder.newest_in_force().borrow());
        self.own.rcu(|own| ProcessRecord { listen: listen.clone(), admin: admin.clone(), flips, ..(**own).clone() });
        let Some(claims) = self.claims.get() else { return };
        claims.set_lease_end(Moment::now(), None);
        self.store.begin_runs_under(worker, None, 0);
        let joined = async {
            // The lease may not be acquired yet: then the others do not see this process.
            loop {
                let exchanged = self.exchange_and_act(&shared.ladder).await;
                let is_current = exchanged.is_ok() && !self.is_behind(&shared.ladder);
                if is_current && self.seen().lease_ends.is_some() {
                    return;
                }
                if let Err(error) = (shared.follow)().await {
                    tracing::warn!(error = format!("{error:#}"), "what other processes recorded is not in force yet");
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        };
        if tokio::time::timeout(self.lease + BEYOND_LEASE, joined).await.is_err() {
            tracing::error!("this process serves without a lease: the store did not give it one in time");
            self.has_joined.store(true, Ordering::Release);
            return;
        }
        // The open runs are enough: a run that begins later belongs to a route that its process lists in `answers`.
        claims.expect_engine_pins_of_open_runs().await;
        // The keys of legacy that the file of an earlier process has are written to the store first: a run may have one
        // of them there.
        let _in_time = tokio::time::timeout(FLUSH_WAIT, claims.flush()).await;
        // Nothing has to be announced to processes that have the same files, because they claim the same routes. A
        // process that was killed counts as one with other files, if it had them, until its lease ends.
        let answering = if self.seen().differing.is_empty() { Vec::new() } else { claims.answering() };
        if !answering.is_empty()
            && let Err(why) = self.announce_and_exchange(answering, &shared.ladder).await
        {
            tracing::error!(why, "this process serves nevertheless");
        }
        self.has_joined.store(true, Ordering::Release);
        self.may_open_gates.store(true, Ordering::Release);
    }

    /// Tells the others about this process and follows them. Returns at once where the store has one process.
    pub(in crate::app) async fn run(self: Arc<Self>, shared: SharedMoves) {
        self.publish();
        if !self.store.is_shared() {
            return;
        }
        // Concurrently, because following may wait for a move of this process, which waits for exchanges.
        tokio::join!(self.exchange_repeatedly(&shared.ladder), self.follow_repeatedly(&shared));
    }

    async fn exchange_repeatedly(&self, ladder: &Ladder) {
        let (mut notifications, failures) = (self.store.notifications(), RepeatedFailures::default());
        let mut followed = ladder.newest_in_force();
        loop {
            if let Err(error) = self.exchange_and_act(ladder).await {
                if let Some(unlogged) = failures.count(&error.to_string()) {
                    tracing::warn!(%error, unlogged, "the store did not say which other processes use it; tried again");
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            self.publish();
            // Without a lease this process begins no run, so it asks for one more often.
            let pause = if self.seen().lease_ends.is_some() { EXCHANGE_EVERY } else { RETRY_PAUSE };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.changed.notified() => {}
                _ = followed.changed() => {}
                () = changed_process(&mut notifications) => {}
            }
        }
    }

    /// Puts in force what other processes have recorded, whenever they have.
    async fn follow_repeatedly(&self, SharedMoves { ladder, follow }: &SharedMoves) {
        let (mut exchanges, failures) = (self.exchanges.subscribe(), RepeatedFailures::default());
        loop {
            tokio::select! {
                _ = exchanges.wait_for(|_| self.is_behind(ladder)) => {}
                () = ladder.wait_until_behind() => {}
            }
            if let Err(error) = self.follow_with_freezes(ladder, follow()).await {
                let error = format!("{error:#}");
                if let Some(unlogged) = failures.count(&error) {
                    tracing::warn!(error, unlogged, "what other processes recorded is not in force here; tried again");
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Follows the recorded moves. Meanwhile freezes and what guards did are put in force on their own, because one of
    /// the moves may have to wait for a move of this process that waits for other processes.
    async fn follow_with_freezes(
        &self,
        ladder: &Ladder,
        following: BoxFuture<'static, anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let (mut following, mut exchanges) = (following, self.exchanges.subscribe());
        loop {
            tokio::select! {
                outcome = &mut following => return outcome,
                _ = exchanges.changed() => {
                    if self.is_behind(ladder) {
                        drop(ladder.newer_moves().await);
                    }
                }
            }
        }
    }

    /// Whether the store had flips, when the others were last seen, that are not in force here.
    fn is_behind(&self, ladder: &Ladder) -> bool {
        *ladder.newest_in_force().borrow() < self.seen().newest_flip
    }

    /// Exchanges records with the other processes and acts on theirs, and repeats both as long as that changes this
    /// process's own record, and once more after an announcement, which counts only then.
    async fn exchange_and_act(&self, ladder: &Ladder) -> Result<(), StoreError> {
        let Some(claims) = self.claims.get() else { return Ok(()) };
        loop {
            let flips = Some(*ladder.newest_in_force().borrow());
            self.own.rcu(|own| ProcessRecord { flips, ..(**own).clone() });
            let told = self.own.load_full();
            self.exchange().await?;
            // Right after the exchange: a route is claimed as soon as another process says that it answers the route.
            claims.set_answered_elsewhere(self.seen().answers());
            self.look_for_lost_keys().await;
            claims.set_other_engines_need_lease(self.other_engines_need_lease());
            self.follow_collisions(claims).await?;
            let is_current = !self.is_behind(ladder);
            self.acknowledge(claims, is_current).await;
            // Only if it is in force here what the others recorded while the lease of this process may have been over.
            let (lease_ends, term) = {
                let seen = self.seen();
                (seen.lease_ends, seen.term)
            };
            if let (Some(worker), Some(ends), true) = (self.worker.get(), lease_ends, is_current) {
                self.store.begin_runs_under(*worker, term, ladder.flags().load().set_number);
                claims.set_lease_end(ends, term);
            }
            if self.own.load_full() == told && !self.has_just_announced() {
                return Ok(());
            }
        }
    }

    /// Whether the others were not seen since the store has the newest announcement of this process.
    fn has_just_announced(&self) -> bool {
        let seen = self.seen();
        seen.told > seen.told_before
    }

    /// Reads the pin collisions from the store, if another process has found or accepted one, or if another process has
    /// gone, which may have stored one without telling.
    async fn follow_collisions(&self, claims: &KeyClaims) -> Result<(), StoreError> {
        let (told, knows_all) = {
            let seen = self.seen();
            let told = seen.told_collision_changes();
            let knows_all = seen.knows_collisions && told == seen.collision_changes;
            (told, knows_all)
        };
        if !knows_all {
            let exchanges = *self.exchanges.borrow();
            claims.follow_collisions().await?;
            let mut seen = self.seen();
            seen.collision_changes = told;
            seen.knows_collisions = exchanges == *self.exchanges.borrow();
        }
        Ok(())
    }

    /// Acknowledges what others have announced, once no key of these routes is on its way to the store. `is_current`:
    /// all that had been recorded when the others were seen is in force here.
    async fn acknowledge(&self, claims: &KeyClaims, is_current: bool) {
        let (others, agreed) = {
            let seen = self.seen();
            (seen.others.clone(), seen.differing.is_empty())
        };
        let record_of = |worker: WorkerId| others.iter().find(|other| other.worker == worker)?.record.as_ref();
        let acknowledged = &self.own.load().acknowledged;
        let is_new = |worker: WorkerId, number: u64| acknowledged.get(&worker).is_none_or(|known| *known < number);
        let new: BTreeMap<WorkerId, Announcement> = others
            .iter()
            .filter_map(|other| Some((other.worker, other.record.as_ref()?.announced.clone()?)))
            .filter(|(worker, announced)| is_new(*worker, announced.number))
            .collect();
        for (worker, announcement) in &new {
            claims.announce(*worker, announcement.clone());
        }
        let numbers = |of: BTreeMap<WorkerId, Announcement>| -> BTreeMap<WorkerId, u64> {
            of.into_iter().map(|(worker, announcement)| (worker, announcement.number)).collect()
        };
        let (claimed, unclaimed) = new.into_iter().partition(|(_, announcement)| claims.can_claim(announcement));
        let (mut claimed, unclaimed) = (numbers(claimed), numbers(unclaimed));
        if !claimed.is_empty() && tokio::time::timeout(FLUSH_WAIT, claims.flush()).await != Ok(true) {
            claimed.clear();
        }
        self.own.rcu(|own| {
            let mut own = (**own).clone();
            own.acknowledged.extend(&claimed);
            own.refused.clone_from(&unclaimed);
            own
        });
        let own = self.worker.get().copied();
        if is_current {
            // What was announced before is recorded, and in force here, or it was not done.
            let still = |worker, of_claim: &Announcement| {
                let announced = record_of(worker).and_then(|record| record.announced.as_ref());
                Some(worker) == own || announced.is_some_and(|announced| announced.number >= of_claim.number)
            };
            claims.end_announcements(still);
        }
        if self.own.load().acknowledged.keys().any(|worker| record_of(*worker).is_none()) {
            self.own.rcu(|own| {
                let mut own = (**own).clone();
                own.acknowledged.retain(|worker, _| record_of(*worker).is_some());
                own
            });
        }
        // Not while files differ: by the files of another process the engine may still answer for a route or a cohort.
        if agreed {
            let flips = others.iter().map(|other| other.record.as_ref().and_then(|record| record.flips).unwrap_or(0));
            claims.release_lowered_up_to(flips.min().unwrap_or(u64::MAX));
        }
    }

    /// As [`OtherProcesses::announce`], for a process that exchanges nothing by itself yet.
    async fn announce_and_exchange(&self, routes: Vec<Vec<RouteId>>, ladder: &Ladder) -> Result<(), String> {
        let number = self.announce(routes);
        let mut waiting = std::pin::pin!(self.wait_until_acknowledged(number));
        let acknowledged = loop {
            tokio::select! {
                acknowledged = &mut waiting => break acknowledged,
                () = tokio::time::sleep(RETRY_PAUSE) => drop(self.exchange_and_act(ladder).await),
            }
        };
        self.end_announcement(number);
        acknowledged
    }
}

/// Waits until another process has changed what it says about itself, or may have.
async fn changed_process(notifications: &mut tokio::sync::broadcast::Receiver<StoreNotification>) {
    use tokio::sync::broadcast::error::RecvError;
    loop {
        match notifications.recv().await {
            Ok(StoreNotification::Process) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            // The store is closed.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
