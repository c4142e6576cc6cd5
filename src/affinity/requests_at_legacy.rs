//! Which requests legacy has of instances that may be moved to the engine, and which instances are being moved.
//!
//! Always true: a request is counted before its arm is decided, or told that its instance moves; while an instance is
//! marked as moving no new request of it is counted. So once the requests that were counted before the mark have ended,
//! legacy has none.
//!
//! The table has entries only for instances with a request under way, with one whose end was not seen, or that move.

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
    /// By the oldest id of a family: until when legacy may go on with creates, or with requests of unknown ids.
    unsettled: HashMap<RouteId, Instant>,
}

struct CountedRequest {
    access: InstanceAccess<RouteId, PinKey>,
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
    key: PinKey,
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

    /// Other files are in force. Returns the requests that began under those before.
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
        let access = match access {
            InstanceAccess::Creates(family) => InstanceAccess::Creates(family.first_id().clone()),
            InstanceAccess::FollowsUp(key) => InstanceAccess::FollowsUp(key.stored_key()),
        };
        let mut table = self.table();
        if let InstanceAccess::FollowsUp(key) = &access {
            let instance = table.instances.entry(key.clone()).or_default();
            if let Some(moving) = &instance.moving {
                return LegacyAdmission::Moving(moved(moving.clone()));
            }
            instance.at_legacy += 1;
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
        let key = key.stored_key();
        let mut table = self.table();
        let before = table.next;
        let instance = table.instances.entry(key.clone()).or_default();
        if let Some(moving) = &instance.moving {
            return Err(moved(moving.clone()));
        }
        let (sender, receiver) = watch::channel(());
        instance.moving = Some(receiver);
        Ok(InstanceMoveMark { requests: self.clone(), key, before, _moving: sender })
    }

    /// How many instances move.
    pub fn moving_count(&self) -> usize {
        self.table().instances.values().filter(|instance| instance.moving.is_some()).count()
    }
}

/// Resolves when the sender is dropped.
fn moved(mut moving: watch::Receiver<()>) -> BoxFuture<'static, ()> {
    async move { while moving.changed().await.is_ok() {} }.boxed()
}

impl InstanceMoveMark {
    /// The instance, as the store knows it.
    pub fn key(&self) -> &PinKey {
        &self.key
    }

    /// Waits until the requests that legacy had of the instance when it was marked have ended, and those that might
    /// have created it, at the latest until `until`.
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
        let creates = InstanceAccess::Creates(self.key.family.clone());
        let may_create = table.requests.range(..self.before).any(|(_, counted)| counted.access == creates);
        let Some(instance) = table.instances.get(&self.key) else { return RequestsEnded::Yes };
        if instance.at_legacy > 0 || may_create {
            return RequestsEnded::UnderWay;
        }
        let unsettled = instance.unsettled.into_iter().chain(table.unsettled.get(&self.key.family).copied()).max();
        unsettled.filter(|until| *until > now).map_or(RequestsEnded::Yes, RequestsEnded::Unsettled)
    }
}

impl Drop for InstanceMoveMark {
    fn drop(&mut self) {
        let mut table = self.requests.table();
        if let Some(instance) = table.instances.get_mut(&self.key) {
            instance.moving = None;
            if instance.is_empty(Instant::now()) {
                table.instances.remove(&self.key);
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
            (InstanceAccess::Creates(family), Some(until)) => note(&mut table.unsettled, family, until),
            (InstanceAccess::Creates(_), None) => {}
            (InstanceAccess::FollowsUp(key), until) => {
                let has_room = table.instances.len() < UNSETTLED_MAX;
                if let Some(until) = until.filter(|_| !has_room) {
                    table.instances.retain(|_, instance| !instance.is_empty(now));
                    note(&mut table.unsettled, key.family.clone(), until);
                }
                if let Some(instance) = table.instances.get_mut(&key) {
                    instance.at_legacy = instance.at_legacy.saturating_sub(1);
                    instance.unsettled = instance.unsettled.max(until.filter(|_| has_room));
                    if instance.is_empty(now) {
                        table.instances.remove(&key);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::Family;

    struct Nobody;

    impl Adopter for Nobody {
        fn adopt(&self, _: AdoptionRequest) -> BoxFuture<'_, AdoptionAnswer> {
            ready(AdoptionAnswer::AtLegacy).boxed()
        }
    }

    const SETTLES: Duration = Duration::from_secs(30);

    fn key(id: &str) -> InstanceKey {
        InstanceKey { family: Family::from(RouteId::from("orders.create")), id: id.into() }
    }

    fn requests() -> Arc<RequestsAtLegacyByInstance> {
        let requests = Arc::new(RequestsAtLegacyByInstance::default());
        let nobody: Arc<dyn Adopter> = Arc::new(Nobody);
        requests.connect(Arc::downgrade(&nobody), None);
        requests
    }

    fn admit(
        requests: &RequestsAtLegacyByInstance,
        access: InstanceAccess<&Family, &InstanceKey>,
        is_write: bool,
    ) -> Option<RequestAtLegacy> {
        match requests.admit(&LegacyAdmissionRequest { access, is_write, settles: SETTLES }) {
            LegacyAdmission::AtLegacy(request) => Some(request.expect("it is counted")),
            LegacyAdmission::Moving(_) | LegacyAdmission::Unknown => None,
        }
    }

    fn now() -> Instant {
        Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_moves_once_the_requests_that_legacy_had_of_it_have_ended() {
        let requests = requests();
        let (one, other) = (key("17"), key("18"));
        let mut first = admit(&requests, InstanceAccess::FollowsUp(&one), true).unwrap();
        let _of_other = admit(&requests, InstanceAccess::FollowsUp(&other), true).unwrap();
        let mark = requests.begin(&one).unwrap_or_else(|_| panic!("it does not move yet"));
        assert!(admit(&requests, InstanceAccess::FollowsUp(&one), false).is_none(), "a new request waits");
        assert!(requests.begin(&one).is_err(), "one at a time");
        assert_eq!(mark.requests_ended(now()).await, RequestsEnded::UnderWay);
        first.sent();
        first.ended();
        let waiting = tokio::spawn(async move { (mark.requests_ended(now() + SETTLES).await, mark) });
        tokio::task::yield_now().await;
        drop(first);
        let (ended, mark) = waiting.await.unwrap();
        assert_eq!(ended, RequestsEnded::Yes);
        let LegacyAdmission::Moving(moved) = requests.admit(&LegacyAdmissionRequest {
            access: InstanceAccess::FollowsUp(&one),
            is_write: true,
            settles: SETTLES,
        }) else {
            panic!("it moves");
        };
        drop(mark);
        moved.await;
        assert!(admit(&requests, InstanceAccess::FollowsUp(&one), true).is_some(), "its move has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_whose_end_was_not_seen_holds_its_instance_for_a_time() {
        let requests = requests();
        let one = key("17");
        for (is_write, held) in [(false, false), (true, true)] {
            let mut request = admit(&requests, InstanceAccess::FollowsUp(&one), is_write).unwrap();
            request.sent();
            drop(request);
            let mark = requests.begin(&one).unwrap_or_else(|_| panic!("it does not move"));
            let ended = mark.requests_ended(now()).await;
            assert_eq!(matches!(ended, RequestsEnded::Unsettled(_)), held, "{is_write}");
        }
        let mark = requests.begin(&one).unwrap_or_else(|_| panic!("it does not move"));
        let began = now();
        assert_eq!(mark.requests_ended(began + 2 * SETTLES).await, RequestsEnded::Yes);
        assert!(now() >= began + SETTLES - Duration::from_secs(1));
        let unsent = admit(&requests, InstanceAccess::FollowsUp(&key("19")), true).unwrap();
        drop(unsent);
        drop(mark);
        assert!(requests.table().instances.is_empty(), "nothing is left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_create_under_way_may_be_about_the_instance() {
        let requests = requests();
        let one = key("17");
        let family = one.family.clone();
        let before = admit(&requests, InstanceAccess::Creates(&family), true).unwrap();
        let mark = requests.begin(&one).unwrap_or_else(|_| panic!("it does not move"));
        let _after = admit(&requests, InstanceAccess::Creates(&family), true).unwrap();
        assert_eq!(mark.requests_ended(now()).await, RequestsEnded::UnderWay);
        drop(before);
        assert_eq!(mark.requests_ended(now()).await, RequestsEnded::Yes, "a later create makes another one");
    }
}
