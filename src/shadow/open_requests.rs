//! The open requests about instances of legacy, and how the times during which legacy had them overlap.
//!
//! The question it answers: "which requests of this instance came before this one, and which came at the same time?"
//! A request is announced before legacy gets it. When it is offered, it gets a turn (`instance_order`) behind those
//! that legacy had answered before this one began.
//!
//! Always true: if legacy had two requests of one instance at the same time and one of them may change it, it is not
//! known which of them legacy performed first. Then a read beside a write is not compared, and of two writes neither
//! is. Reads do not wait for reads. The shadow's threads never lock a shard here; a thread that serves a client waits
//! for them only through the lock of `instance_order`, which is held for a few map operations.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::instance_order::{InstanceOrder, NewTurn, TwinTurn};
use crate::exchange::{AnnouncedRequestObserver, InstanceAccess, OpenRequest, RequestNumber, TimeAtLegacy};
use crate::flag::{InstanceKey, PinKey, SkipReason};
use crate::names::{RouteId, RunId};
use crate::workflow::Mode;

/// How many shards there are. All requests of a family are in one shard, under one lock; families are spread over the
/// shards.
const SHARDS: u64 = 32;

/// Requests that were announced and are not closed.
pub(super) struct OpenRequests {
    shards: [Mutex<Shard>; SHARDS as usize],
    announced: AtomicU64,
    order: Arc<InstanceOrder>,
}

#[derive(Default)]
struct Shard {
    requests: HashMap<RequestNumber, AnnouncedRequest>,
    instances: HashMap<PinKey, RequestsOfInstance>,
    /// The open requests that may create an instance, by family.
    creators: HashMap<RouteId, BTreeSet<RequestNumber>>,
}

struct AnnouncedRequest {
    kind: OpenRequestKind,
    began: u64,
    /// When the reply was complete.
    ended: Option<u64>,
    is_offered: bool,
    /// A write that legacy answered later has got its turn before this request.
    is_overtaken: bool,
}

enum OpenRequestKind {
    Create { family: RouteId, created: Option<InstanceKey> },
    FollowUp { key: InstanceKey, pin: PinKey, is_write: bool },
}

/// The most changes of an instance that are kept as separate intervals while one of its requests is open.
const CHANGES_MAX: usize = 64;

/// The requests of one instance. Exists while one of them is open.
#[derive(Default)]
struct RequestsOfInstance {
    open: Vec<RequestNumber>,
    /// When legacy had requests that may have changed the instance and are closed. Those that ended before all open
    /// requests began are removed.
    changes: Vec<(u64, u64)>,
}

/// What an offered request gets.
pub(super) enum Placement {
    /// It is in no order with others.
    Unordered,
    /// It runs when its turn comes.
    Turn(Box<TwinTurn>),
    /// It is not run.
    Skip(SkipReason),
}

impl OpenRequests {
    pub(super) fn new(order: Arc<InstanceOrder>) -> Self {
        Self { shards: Default::default(), announced: AtomicU64::new(0), order }
    }

    fn shard(&self, number: RequestNumber) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(number % SHARDS).unwrap_or(0);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces a request before legacy gets it. `is_write`: its method is not a safe one.
    pub(super) fn announce(self: Arc<Self>, access: InstanceAccess, is_write: bool, now: u64) -> OpenRequest {
        let (family, kind) = match access {
            InstanceAccess::Creates(family) => {
                let family = family.first_id().clone();
                self.order.create_began();
                (family.clone(), OpenRequestKind::Create { family, created: None })
            }
            InstanceAccess::FollowsUp(key) => {
                let pin = key.stored_key();
                (pin.family.clone(), OpenRequestKind::FollowUp { key, pin, is_write })
            }
        };
        let number = self.announced.fetch_add(1, Ordering::AcqRel) * SHARDS + shard_of(&family);
        let mut shard = self.shard(number);
        match &kind {
            OpenRequestKind::Create { family, .. } => {
                shard.creators.entry(family.clone()).or_default().insert(number);
            }
            OpenRequestKind::FollowUp { pin, .. } => shard.instances.entry(pin.clone()).or_default().open.push(number),
        }
        let announced = AnnouncedRequest { kind, began: now, ended: None, is_offered: false, is_overtaken: false };
        shard.requests.insert(number, announced);
        drop(shard);
        OpenRequest::new(self, number, now)
    }

    /// How an offered request is ordered among those of its instance. `twin`: the run that is the instance's twin, if
    /// it is known.
    pub(super) fn offered(&self, time: TimeAtLegacy, mode: Mode, twin: Option<RunId>) -> Placement {
        let TimeAtLegacy { number, began, ended } = time;
        let mut shard = self.shard(number);
        let shard = &mut *shard;
        let Some(request) = shard.requests.get_mut(&number) else { return Placement::Unordered };
        request.ended = Some(ended);
        let turn = |key: InstanceKey, is_write| NewTurn {
            key,
            number,
            began,
            ended,
            is_write,
            creates: false,
            mode,
            blockers: BTreeSet::new(),
            may_precede_create: false,
        };
        let (key, pin, is_write) = match &request.kind {
            OpenRequestKind::Create { created: None, .. } => return Placement::Unordered,
            OpenRequestKind::Create { created: Some(key), .. } => {
                let turn = NewTurn { creates: true, ..turn(key.clone(), true) };
                request.is_offered = true;
                // Entered while the shard is locked, so that the request is not closed between this and its turn.
                return Placement::Turn(Box::new(self.order.enter(turn)));
            }
            OpenRequestKind::FollowUp { key, pin, is_write } => (key.clone(), pin.clone(), *is_write),
        };
        request.is_offered = true;
        let was_overtaken = request.is_overtaken;
        let overlaps = |other: (u64, u64)| other.0 < ended && began < other.1;
        let of_instance = shard.instances.get(&pin);
        let mut is_overlapped =
            was_overtaken || of_instance.is_some_and(|found| found.changes.iter().any(|change| overlaps(*change)));
        let others = of_instance.map(|found| found.open.clone()).unwrap_or_default();
        let mut turn = turn(key.clone(), is_write);
        for other in others.into_iter().filter(|other| *other != number) {
            let Some(found) = shard.requests.get_mut(&other) else { continue };
            let is_before = found.ended.is_some_and(|ended| ended <= began);
            match found.kind.is_write() {
                true if is_before && !found.is_offered => {
                    turn.blockers.insert(other);
                }
                true if !is_before && found.began < ended => is_overlapped = true,
                // The write must not wait for the read, whose client may be slow to take the reply.
                false if is_before && is_write && !found.is_offered => found.is_overtaken = true,
                true | false => {}
            }
        }
        if twin.is_none() {
            let creators = shard.creators.get(&pin.family).into_iter().flatten();
            for number in creators {
                let Some(create) = shard.requests.get(number).filter(|create| !create.is_offered) else { continue };
                match create.ended {
                    // Its reply may be where the client has the id from.
                    Some(ended) if ended <= began => {
                        turn.blockers.insert(*number);
                    }
                    // A request whose client has the id from elsewhere must not wait for all creates of the family.
                    Some(_) | None => turn.may_precede_create |= create.began < ended,
                }
            }
        }
        if !is_overlapped {
            return Placement::Turn(Box::new(self.order.enter(turn)));
        }
        if is_write {
            self.order.mark(&key, "overlapped");
        }
        Placement::Skip(SkipReason::Overlapped)
    }
}

impl AnnouncedRequestObserver for OpenRequests {
    fn answered(&self, number: RequestNumber, at: u64) {
        if let Some(request) = self.shard(number).requests.get_mut(&number) {
            request.ended = Some(at);
        }
    }

    fn created(&self, number: RequestNumber, key: InstanceKey) {
        if let Some(AnnouncedRequest { kind: OpenRequestKind::Create { created, .. }, .. }) =
            self.shard(number).requests.get_mut(&number)
        {
            *created = Some(key);
        }
    }

    fn close(&self, number: RequestNumber, may_have_changed: bool) {
        let mut shard = self.shard(number);
        let Some(request) = shard.requests.remove(&number) else { return };
        let changed = match &request.kind {
            OpenRequestKind::Create { family, created } => {
                if let Some(creators) = shard.creators.get_mut(family) {
                    creators.remove(&number);
                    if creators.is_empty() {
                        shard.creators.remove(family);
                    }
                }
                created.as_ref().map(InstanceKey::stored_key)
            }
            OpenRequestKind::FollowUp { pin, is_write, .. } => {
                shard.remove_open(pin, number);
                (*is_write && may_have_changed).then(|| pin.clone())
            }
        };
        if let (Some(pin), Some(ended)) = (changed, request.ended) {
            shard.note_change(&pin, (request.began, ended));
        }
        drop(shard);
        let is_lost = !request.is_offered && may_have_changed;
        match &request.kind {
            OpenRequestKind::Create { created, .. } if !request.is_offered => {
                self.order.create_ended();
                if let Some(key) = created {
                    self.order.mark_without_twin(key);
                }
            }
            OpenRequestKind::FollowUp { key, is_write: true, .. } if is_lost => self.order.mark(key, "write"),
            OpenRequestKind::Create { .. } | OpenRequestKind::FollowUp { .. } => {}
        }
        // After the mark, so that a request that waited for this one finds it.
        self.order.closed(number);
    }
}

impl Shard {
    fn remove_open(&mut self, pin: &PinKey, number: RequestNumber) {
        let Some(instance) = self.instances.get_mut(pin) else { return };
        instance.open.retain(|open| *open != number);
        if instance.open.is_empty() {
            self.instances.remove(pin);
        }
    }

    /// Notes when legacy had a request that may have changed an instance, so that requests of the instance that legacy
    /// has at the same time count as overlapped.
    fn note_change(&mut self, pin: &PinKey, change: (u64, u64)) {
        let Some(instance) = self.instances.get_mut(pin) else { return };
        let oldest = instance.open.iter().filter_map(|open| self.requests.get(open)).map(|open| open.began).min();
        instance.changes.push(change);
        instance.changes.retain(|(_, ended)| oldest.is_some_and(|oldest| *ended > oldest));
        if instance.changes.len() > CHANGES_MAX {
            // Joined with the next one, so that the list stays bounded: more requests count as overlapped, never fewer.
            let (began, ended) = instance.changes.remove(0);
            let next = &mut instance.changes[0];
            *next = (began.min(next.0), ended.max(next.1));
        }
    }
}

impl OpenRequestKind {
    fn is_write(&self) -> bool {
        match self {
            OpenRequestKind::Create { .. } => true,
            OpenRequestKind::FollowUp { is_write, .. } => *is_write,
        }
    }
}

fn shard_of(family: &RouteId) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in family.as_str().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash ^ (hash >> 32)) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// While one request is open, all that change its instance meanwhile are noted.
    #[test]
    fn changes_of_an_instance_are_bounded_and_none_is_forgotten() {
        let key = InstanceKey { family: RouteId::new("orders").into(), id: "17".into() };
        let pin = key.stored_key();
        let mut shard = Shard::default();
        let kind = OpenRequestKind::FollowUp { key, pin: pin.clone(), is_write: false };
        let open = AnnouncedRequest { kind, began: 5, ended: None, is_offered: false, is_overtaken: false };
        shard.requests.insert(1, open);
        shard.instances.insert(pin.clone(), RequestsOfInstance { open: vec![1], changes: Vec::new() });
        let changes: Vec<(u64, u64)> = (0..1_000).map(|n| (10 * n, 10 * n + 4)).collect();
        for change in &changes {
            shard.note_change(&pin, *change);
        }
        let kept = &shard.instances[&pin].changes;
        assert_eq!(kept.len(), CHANGES_MAX);
        let covers = |of: &(u64, u64), change: &(u64, u64)| of.0 <= change.0 && change.1 <= of.1;
        // The first one ended before the open request began.
        for change in &changes[1..] {
            assert!(kept.iter().any(|of| covers(of, change)), "{change:?}: {kept:?}");
        }
        assert_eq!(kept.last(), changes.last(), "the latest are kept apart");
    }
}
