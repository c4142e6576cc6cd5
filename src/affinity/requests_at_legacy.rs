//! Which requests legacy has of instances that may be moved to the engine, and which instances are being moved.
//!
//! Always true: a request is counted before its arm is decided, or told that its instance moves; while an instance is
//! marked as moving no new request of it is counted. So once the requests that were counted before the mark have ended,
//! legacy has none. An instance is known under each id of its family's creator: files that give the creator another
//! oldest id, or join it with another one, leave it one id at least, by which requests from before are found.
//!
//! The table has entries only for instances with a request under way, with one whose end was not seen, or that move.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::writes_under_files::WritesUnderFiles;
use crate::exchange::{
    Adopter, AdoptionAnswer, AdoptionRequest, InFlightAtLegacyCounter, InstanceAccess, LegacyAdmission,
    LegacyAdmissionRequest, OpenWriteGuard, RequestAtLegacy,
};
use crate::flag::{InstanceKey, PinKey};
use crate::names::RouteId;

/// While the table has fewer instances than this, an unseen end of a request is remembered for its instance; from then
/// on for the whole family.
const UNSETTLED_MAX: usize = 65_536;

/// Counts the requests at legacy by instance, and has the instances that are moving.
#[derive(Default)]
pub struct RequestsAtLegacyByInstance {
    table: Mutex<Table>,
    /// The requests that may change something, of whatever route, that began under the files in force.
    writes: ArcSwap<WritesUnderFiles>,
    /// Notified when a request has ended.
    ended: Notify,
    adopter: OnceLock<Weak<dyn Adopter>>,
    /// Whether this process knows what others have moved; `None`: there are no others.
    is_current: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
    this: OnceLock<Weak<RequestsAtLegacyByInstance>>,
}

#[derive(Default)]
struct Table {
    next: u64,
    requests: BTreeMap<u64, CountedRequest>,
    instances: HashMap<PinKey, InstanceEntry>,
    /// By each id of a family: until when legacy may go on with creates, and with follow-ups whose instances had no
    /// room in the table.
    unsettled: HashMap<RouteId, Instant>,
}

struct CountedRequest {
    access: InstanceAccess<Vec<RouteId>, Vec<PinKey>>,
    is_write: bool,
    settles: Duration,
}

#[derive(Default)]
struct InstanceEntry {
    /// How many requests legacy has.
    at_legacy: usize,
    /// Until when legacy may go on with requests whose end was not seen.
    unsettled: Option<Instant>,
    /// `Some` while it is being adopted; the receiver resolves when that has ended.
    moving: Option<watch::Receiver<()>>,
}

impl InstanceEntry {
    fn is_empty(&self, now: Instant) -> bool {
        self.at_legacy == 0 && self.moving.is_none() && self.unsettled.is_none_or(|until| until <= now)
    }
}

/// Whether the requests that legacy had of an instance have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestsEnded {
    /// They have.
    Yes,
    /// Legacy still has one.
    UnderWay,
    /// The end of one was not seen, and legacy may go on with it until this time.
    Unsettled(Instant),
}

/// Marks an instance as moving until it is dropped.
pub struct InstanceMoveMark {
    requests: Arc<RequestsAtLegacyByInstance>,
    /// The instance, under each id of its family.
    keys: Vec<PinKey>,
    /// Requests with a lower number were counted before the mark.
    before: u64,
    _moving: watch::Sender<()>,
}

impl RequestsAtLegacyByInstance {
    fn table(&self) -> MutexGuard<'_, Table> {
        // A poisoned lock is usable: no change can panic halfway.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets who moves instances, and the check whether this process has read what other processes have moved (`None`:
    /// there are no others). Called once.
    pub fn connect(
        self: &Arc<Self>,
        adopter: Weak<dyn Adopter>,
        is_current: Option<Box<dyn Fn() -> bool + Send + Sync>>,
    ) {
        let _set_before = self.this.set(Arc::downgrade(self));
        let _set_before = self.adopter.set(adopter);
        if let Some(is_current) = is_current {
            let _set_before = self.is_current.set(is_current);
        }
    }

    pub(super) fn adopt(&self, request: AdoptionRequest) -> BoxFuture<'static, AdoptionAnswer> {
        match self.adopter.get().and_then(Weak::upgrade) {
            None => ready(AdoptionAnswer::AtLegacy).boxed(),
            Some(adopter) => async move { adopter.adopt(request).await }.boxed(),
        }
    }

    /// Counts a request that may change something, before the files in force are looked at.
    pub(super) fn begin_write(&self) -> OpenWriteGuard {
        self.writes.load_full().begin()
    }

    /// Records that other files are in force. Returns the requests that began under the earlier ones.
    pub fn files_replaced(&self) -> Arc<WritesUnderFiles> {
        let earlier = self.writes.swap(Arc::default());
        earlier.replaced();
        earlier
    }

    /// Counts a request that legacy may get, unless its instance moves.
    pub(super) fn admit(&self, request: &LegacyAdmissionRequest<'_>) -> LegacyAdmission {
        let Some(this) = self.this.get().and_then(Weak::upgrade) else { return LegacyAdmission::AtLegacy(None) };
        if self.is_current.get().is_some_and(|is_current| !is_current()) {
            return LegacyAdmission::Unknown;
        }
        let LegacyAdmissionRequest { access, is_write, settles } = *request;
        let access: InstanceAccess<Vec<RouteId>, Vec<PinKey>> = match access {
            InstanceAccess::Creates(family) => InstanceAccess::Creates(family.ids().cloned().collect()),
            InstanceAccess::FollowsUp(key) => InstanceAccess::FollowsUp(key.stored_keys().collect()),
        };
        let mut table = self.table();
        if let InstanceAccess::FollowsUp(keys) = &access {
            if let Some(moving) = table.moving(keys) {
                return LegacyAdmission::Moving(moved(moving));
            }
            for key in keys {
                table.instances.entry(key.clone()).or_default().at_legacy += 1;
            }
        }
        let number = table.next;
        table.next += 1;
        table.requests.insert(number, CountedRequest { access, is_write, settles });
        LegacyAdmission::AtLegacy(Some(RequestAtLegacy::new(this, number)))
    }

    /// Marks an instance as moving: from now on no request of it is counted.
    ///
    /// # Errors
    /// It moves already; the future resolves when that move has ended.
    pub fn begin(self: &Arc<Self>, key: &InstanceKey) -> Result<InstanceMoveMark, BoxFuture<'static, ()>> {
        let keys: Vec<PinKey> = key.stored_keys().collect();
        let mut table = self.table();
        let before = table.next;
        if let Some(moving) = table.moving(&keys) {
            return Err(moved(moving));
        }
        let (sender, receiver) = watch::channel(());
        for key in &keys {
            table.instances.entry(key.clone()).or_default().moving = Some(receiver.clone());
        }
        Ok(InstanceMoveMark { requests: self.clone(), keys, before, _moving: sender })
    }
}

impl Table {
    /// A receiver that closes when the move of an instance has ended; `None` if the instance does not move.
    fn moving(&self, keys: &[PinKey]) -> Option<watch::Receiver<()>> {
        keys.iter().find_map(|key| self.instances.get(key)?.moving.clone())
    }
}

/// Resolves when the sender is dropped.
fn moved(mut moving: watch::Receiver<()>) -> BoxFuture<'static, ()> {
    async move { while moving.changed().await.is_ok() {} }.boxed()
}

impl InstanceMoveMark {
    /// Waits until two kinds of requests have ended, but no longer than `until`: those that legacy had of the instance
    /// when it was marked, and those that may have created the instance.
    pub async fn requests_ended(&self, until: Instant) -> RequestsEnded {
        loop {
            let notified = self.requests.ended.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            match self.state() {
                RequestsEnded::Yes => return RequestsEnded::Yes,
                RequestsEnded::UnderWay if Instant::now() >= until => return RequestsEnded::UnderWay,
                RequestsEnded::UnderWay => drop(timeout_at(until, notified).await),
                RequestsEnded::Unsettled(at) if at > until => return RequestsEnded::Unsettled(at),
                RequestsEnded::Unsettled(at) => sleep_until(at).await,
            }
        }
    }

    fn state(&self) -> RequestsEnded {
        let now = Instant::now();
        let table = self.requests.table();
        let is_of_family = |id: &RouteId| self.keys.iter().any(|key| key.family == *id);
        let may_create = |counted: &CountedRequest| match &counted.access {
            InstanceAccess::Creates(family) => family.iter().any(is_of_family),
            InstanceAccess::FollowsUp(_) => false,
        };
        let entries = || self.keys.iter().filter_map(|key| table.instances.get(key));
        if entries().any(|instance| instance.at_legacy > 0)
            || table.requests.range(..self.before).any(|(_, counted)| may_create(counted))
        {
            return RequestsEnded::UnderWay;
        }
        let of_family = self.keys.iter().filter_map(|key| table.unsettled.get(&key.family).copied());
        let unsettled = entries().filter_map(|instance| instance.unsettled).chain(of_family).max();
        unsettled.filter(|until| *until > now).map_or(RequestsEnded::Yes, RequestsEnded::Unsettled)
    }
}

impl Drop for InstanceMoveMark {
    fn drop(&mut self) {
        let mut table = self.requests.table();
        for key in &self.keys {
            if let Some(instance) = table.instances.get_mut(key) {
                instance.moving = None;
                if instance.is_empty(Instant::now()) {
                    table.instances.remove(key);
                }
            }
        }
    }
}

impl InFlightAtLegacyCounter for RequestsAtLegacyByInstance {
    fn leave(&self, number: u64, may_go_on: bool) {
        let now = Instant::now();
        let mut table = self.table();
        let Some(CountedRequest { access, is_write, settles }) = table.requests.remove(&number) else { return };
        let until = now.checked_add(settles).filter(|_| may_go_on && is_write && !settles.is_zero());
        match (access, until) {
            (InstanceAccess::Creates(family), Some(until)) => {
                family.into_iter().for_each(|id| note(&mut table.unsettled, id, until));
            }
            (InstanceAccess::Creates(_), None) => {}
            (InstanceAccess::FollowsUp(keys), until) => {
                let has_room = table.instances.len() < UNSETTLED_MAX;
                if let Some(until) = until.filter(|_| !has_room) {
                    table.instances.retain(|_, instance| !instance.is_empty(now));
                    keys.iter().for_each(|key| note(&mut table.unsettled, key.family.clone(), until));
                }
                for key in keys {
                    if let Some(instance) = table.instances.get_mut(&key) {
                        instance.at_legacy = instance.at_legacy.saturating_sub(1);
                        instance.unsettled = instance.unsettled.max(until.filter(|_| has_room));
                        if instance.is_empty(now) {
                            table.instances.remove(&key);
                        }
                    }
                }
            }
        }
        drop(table);
        self.ended.notify_waiters();
    }
}

fn note(unsettled: &mut HashMap<RouteId, Instant>, family: RouteId, until: Instant) {
    let noted = unsettled.entry(family).or_insert(until);
    *noted = (*noted).max(until);
}
