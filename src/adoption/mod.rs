//! Moves instances of legacy to the engine, one by one.
//!
//! The question it answers: "whose is this instance now, and how does it become the engine's?" An instance is moved at
//! its first write in `live` ([`Adoptions`] is asked by the proxy), or in bulk ([`Adoptions::start_bulk`]).
//!
//! The steps of one move ([`one`]):
//!
//! 1. The instance is marked in memory (`affinity::RequestsAtLegacyByInstance`): from now on its new requests wait. The
//!    move waits until those that legacy already has are answered.
//! 2. It is claimed in the store, with the id of the run that will move it. Its pins are the engine's from then on and
//!    say that it moves, so that no process takes it for legacy's, and no restart forgets it.
//! 3. The run begins. Only when it is known what it did is the outcome recorded ([`claimed_run`]): the instance is
//!    adopted; or it is given back, because legacy was certainly not told; or it is unknown, and a person decides.
//!
//! Always true: a process that ends at any moment leaves an instance that is legacy's whole, or a claim, which the next
//! process resumes; a claim is given back only if legacy was certainly not told to release it.
//!
//! When the store is slow or silent, a move waits, and requests of its instance get 503; no other request waits for it.
//! While another process uses the store, nothing is moved: it is not known what that process has sent to legacy.

mod bulk;
mod claimed_run;
mod decide;
mod gauges;
mod lease;
mod move_outcome;
mod one;
mod progress;
mod resume;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::time::Instant;

pub use self::bulk::{BulkRefusal, InstanceSelection};
pub use self::decide::DecideRefusal;
pub use self::progress::{Bulk, BulkProgress};
pub use self::view::{AdoptionCounts, AdoptionList};
use crate::affinity::{StoreAffinity, WritesUnderFiles};
use crate::engine::Engine;
use crate::exchange::{Adopter, AdoptionAnswer, AdoptionRequest};
use crate::flag::{Family, FlagSet, Instance, InstanceKeySource, PinKey, RouteFlag, RouteMatch};
use crate::names::RouteId;
use crate::store::StoreHandle;

/// How long a request waits for its instance to be moved.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long the move of an instance at its first write waits until legacy has answered the instance's other requests.
const REQUESTS_END_WITHIN: Duration = Duration::from_secs(5);
/// The pause after an instance was tried and stayed legacy's: its writes meanwhile go to legacy without another try.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// The most instances whose last try is remembered. If so many were tried within [`TRY_AGAIN_AFTER`], further ones are
/// not remembered, and each of their writes tries to move them.
const TRIED_MAX: usize = 16_384;

/// Moves instances of legacy to the engine.
pub struct Adoptions {
    store: StoreHandle,
    affinity: Arc<StoreAffinity>,
    engine: Arc<Engine>,
    flags: Arc<ArcSwap<FlagSet>>,
    runtime: Handle,
    /// When this value was created. From then on this process counts the requests that legacy has.
    created_at: Instant,
    /// It is not known which requests were sent to legacy before this time, because an earlier process may have sent
    /// them. Equals `created_at`; `None` if the store is new, because then there was no earlier process.
    legacy_requests_unknown_before: Option<Instant>,
    state: Mutex<State>,
    /// One more than the tenure of the lease in which the pins of other processes were last read; 0 if they were not.
    pins_read_in_tenure: AtomicU64,
    this: Weak<Adoptions>,
}

/// Which requests are the route's, where in them the id of their instance is, and which family the instance belongs to.
type RouteMatching = (RouteMatch, Option<InstanceKeySource>, Family);

#[derive(Default)]
struct State {
    /// When an instance was last tried and stayed legacy's.
    tried: HashMap<PinKey, Instant>,
    /// The requests that were decided by earlier files and have not ended, as of the last change of `counted_since`.
    earlier_writes: Vec<Arc<WritesUnderFiles>>,
    /// By the id of a route of a family with `adopt:`.
    counted_since: HashMap<RouteId, CountedSince>,
    /// How many instances a person has to decide about, by route, as of the last look into the store.
    unknown: BTreeMap<RouteId, u64>,
    /// By the present id of a family's creator: its bulk.
    bulks: HashMap<RouteId, Arc<Bulk>>,
}

/// From when on this process counts the requests of a route that legacy has not answered yet.
struct CountedSince {
    at: Instant,
    /// The settings of the files by which the instance of a request is found.
    found_by: RouteMatching,
    /// The requests that were decided by earlier files.
    earlier: Vec<Arc<WritesUnderFiles>>,
}

/// The settings of the files by which the instance of a request is found. If they change, earlier counts do not apply:
/// a request may have been counted for another instance.
fn found_by(flag: &RouteFlag) -> RouteMatching {
    let key = match &flag.route.instance {
        Some(Instance::Follows { key, .. }) => Some(key.clone()),
        Some(Instance::Creates { .. }) | None => None,
    };
    (flag.route.matches.clone(), key, flag.family.clone())
}

/// What [`Adoptions`] is made from.
pub struct AdoptionParts {
    /// The store.
    pub store: StoreHandle,
    /// Knows which requests legacy has, and the pins.
    pub affinity: Arc<StoreAffinity>,
    /// Runs the workflows.
    pub engine: Arc<Engine>,
    /// The flags in force.
    pub flags: Arc<ArcSwap<FlagSet>>,
}

impl Adoptions {
    /// Must be called in the runtime in which moves are to run. Nothing is moved before [`Adoptions::resume`].
    pub fn new(parts: AdoptionParts) -> Arc<Self> {
        let AdoptionParts { store, affinity, engine, flags } = parts;
        let created_at = Instant::now();
        let legacy_requests_unknown_before = (!store.is_new()).then_some(created_at);
        let adoptions = Arc::new_cyclic(|this| Self {
            store,
            affinity,
            engine,
            flags,
            runtime: Handle::current(),
            created_at,
            legacy_requests_unknown_before,
            state: Mutex::default(),
            pins_read_in_tenure: AtomicU64::new(0),
            this: this.clone(),
        });
        let this: Weak<Self> = Arc::downgrade(&adoptions);
        let adopter: Weak<dyn Adopter> = this.clone();
        let is_current: Option<Box<dyn Fn() -> bool + Send + Sync>> = match adoptions.store.is_shared() {
            false => None,
            true => Some(Box::new(move || this.upgrade().is_some_and(|adoptions| adoptions.is_current()))),
        };
        adoptions.affinity.requests_at_legacy().connect(adopter, is_current);
        adoptions.count_since(created_at);
        adoptions
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock is usable: no change can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The instances about which a person has to decide, as a sentence; `None` if there are none.
    pub fn trouble(&self) -> Option<String> {
        let state = self.state();
        let of_route = |(route, count): (&RouteId, &u64)| {
            let noun = if *count == 1 { "instance" } else { "instances" };
            format!("{count} {noun} of `{route}` (`pointsman adopt {route}` lists them)")
        };
        let of_routes: Vec<_> = state.unknown.iter().map(of_route).collect();
        (!of_routes.is_empty()).then(|| {
            let of_routes = of_routes.join(", ");
            format!("it is not known which arm has {of_routes}: their requests get 503 until a person decides")
        })
    }

    fn arc(&self) -> Option<Arc<Self>> {
        self.this.upgrade()
    }

    /// Notes which families' requests are counted from now on: those of the flags in force that have `adopt:`.
    pub fn flags_changed(&self) {
        self.count_since(Instant::now());
    }

    /// Sets `counted_since` for the flags in force: a route whose settings are unchanged keeps its time, all others get
    /// `now`.
    fn count_since(&self, now: Instant) {
        let flags = self.flags.load();
        let mut state = self.state();
        let mut before = std::mem::take(&mut state.counted_since);
        // Before its first files this process has sent nothing.
        let is_first = now <= self.created_at;
        let is_changed =
            |flag: &RouteFlag| before.get(&flag.route.id).is_none_or(|before| before.found_by != found_by(flag));
        let adopting = || flags.routes.iter().filter(|flag| flag.adopt.is_some());
        if !is_first && adopting().any(|flag| is_changed(flag)) {
            state.earlier_writes.retain(|writes| writes.ended().is_none());
            state.earlier_writes.push(self.affinity.requests_at_legacy().files_replaced());
        }
        let earlier = state.earlier_writes.clone();
        let counted = adopting().map(|flag| {
            let found_by = found_by(flag);
            let since = match before.remove(&flag.route.id) {
                Some(before) if before.found_by == found_by => before,
                Some(_) | None => CountedSince { at: now, found_by, earlier: earlier.clone() },
            };
            (flag.route.id.clone(), since)
        });
        let counted = counted.collect();
        state.counted_since = counted;
    }

    /// Whether this process knows what other processes have moved: it has had its lease without interruption since it
    /// read their pins, and nobody moves anything while another process has a lease.
    fn is_current(&self) -> bool {
        let read_in = self.pins_read_in_tenure.load(Ordering::Acquire);
        self.engine.lease_tenure().is_some_and(|tenure| tenure + 1 == read_in)
    }

    /// Whether an instance was tried recently, and stayed legacy's.
    fn was_tried(&self, key: &PinKey) -> bool {
        self.state().tried.get(key).is_some_and(|at| at.elapsed() < TRY_AGAIN_AFTER)
    }

    fn mark_tried(&self, key: PinKey) {
        let mut state = self.state();
        if state.tried.len() >= TRIED_MAX {
            state.tried.retain(|_, at| at.elapsed() < TRY_AGAIN_AFTER);
        }
        if state.tried.len() < TRIED_MAX {
            state.tried.insert(key, Instant::now());
        }
    }
}

impl Adopter for Adoptions {
    fn adopt(&self, request: AdoptionRequest) -> BoxFuture<'_, AdoptionAnswer> {
        async move {
            let AdoptionRequest { key, rule } = request;
            let Some(this) = self.arc().filter(|_| !key.stored_keys().any(|key| self.was_tried(&key))) else {
                return AdoptionAnswer::AtLegacy;
            };
            let by = "the first write".to_owned();
            // A task of its own: the move goes on if the client goes away.
            let moved = self.runtime.spawn(async move { this.move_one(key, rule, by, REQUESTS_END_WITHIN).await });
            match tokio::time::timeout(REQUEST_WAIT_MAX, moved).await {
                Ok(Ok(moved)) => moved.answer(),
                Ok(Err(_)) | Err(_) => AdoptionAnswer::Moving,
            }
        }
        .boxed()
    }
}
