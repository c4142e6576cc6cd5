use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::store::tests::{append, pin, run_id};
use crate::store::{Append, MemoryStore, PinRecord, Store};

/// A memory store whose looks are counted and may fail.
struct Counting {
    inner: MemoryStore,
    looks: AtomicU64,
    gone: AtomicBool,
}

macro_rules! pass_on {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {
        $(fn $name(&self, $($arg: $kind),*) -> BoxFuture<'_, $out> { self.inner.$name($($arg),*) })*
    };
}

type Stored<T> = Result<T, StoreError>;

crate::store::tests::through::work_through!(Counting, inner);

impl Store for Counting {
    pass_on! {
        append(a: Arc<Append>) -> Result<(), crate::store::AppendError>;
        events(run: RunId, from: crate::names::Seq) -> Stored<Vec<crate::store::StoredEvent>>;
        run(run: RunId) -> Stored<Option<crate::workflow::RunSummary>>;
        runs(filter: crate::store::RunFilter) -> Stored<Vec<crate::workflow::RunSummary>>;
        open_runs() -> Stored<Vec<(crate::workflow::RunStatus, u64)>>;
        put_plan(id: crate::names::PlanId, source: serde_json::Value) -> Stored<()>;
        plan(id: crate::names::PlanId) -> Stored<Option<serde_json::Value>>;
        put_run_key(run: RunId, key: Option<Vec<u8>>) -> Stored<()>;
        run_key(run: RunId) -> Stored<Option<Vec<u8>>>;
        engine_tries(limit: usize) -> Stored<EngineTries>;
        pin_counts() -> Stored<Vec<crate::store::PinCount>>;
        pins(family: RouteId, arm: Arm, limit: usize) -> Stored<Vec<PinRecord>>;
        put_flips(flips: Vec<crate::store::FlipRecord>, declared: Option<Vec<crate::store::DeclaredState>>) -> Stored<Vec<u64>>;
        flips(route: Option<RouteId>, limit: usize) -> Stored<Vec<crate::store::FlipRecord>>;
        last_flips() -> Stored<Vec<crate::store::FlipRecord>>;
        declared() -> Stored<Vec<crate::store::DeclaredState>>;
        put_samples(s: Vec<crate::store::SampleRecord>, per: usize, fingerprints: usize) -> Stored<()>;
        samples(route: RouteId, limit: usize) -> Stored<Vec<crate::store::SampleRecord>>;
        clear_samples(route: RouteId) -> Stored<()>;
        put_evidence(evidence: Vec<crate::store::EvidenceRecord>) -> Stored<()>;
        evidence() -> Stored<Vec<crate::store::EvidenceRecord>>;
        secret() -> Stored<[u8; 32]>;
        close() -> ();
    }
    fn pin(&self, key: PinKey) -> BoxFuture<'_, Stored<Option<PinRecord>>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.unless_gone(self.inner.pin(key))
    }
    fn first_try(&self, key: RetryKey) -> BoxFuture<'_, Stored<Option<crate::store::FirstTry>>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.unless_gone(self.inner.first_try(key))
    }
    fn note_legacy_tries(&self, keys: Vec<RetryKey>) -> BoxFuture<'_, Stored<()>> {
        if self.gone.load(Ordering::Relaxed) {
            return ready(Err(StoreError("gone".into()))).boxed();
        }
        self.inner.note_legacy_tries(keys)
    }
    fn healthy(&self) -> bool {
        true
    }
}

impl Counting {
    fn new() -> Arc<Self> {
        Arc::new(Self { inner: MemoryStore::new(), looks: AtomicU64::new(0), gone: AtomicBool::new(false) })
    }
    fn unless_gone<'a, T: Send + 'a>(&'a self, found: BoxFuture<'a, Stored<T>>) -> BoxFuture<'a, Stored<T>> {
        match self.gone.load(Ordering::Relaxed) {
            true => ready(Err(StoreError("gone".into()))).boxed(),
            false => found,
        }
    }
    fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }
}

async fn owner(pins: &StoreAffinity, id: &str) -> Result<(Owner, Option<RunId>), OwnerUnknown> {
    pins.owner(&pin(id, Arm::Engine).key).await
}

async fn create(store: &Counting, pins: &StoreAffinity, n: u64, pin: NewPin) {
    store.append(Arc::new(Append { pins: vec![pin.clone()], ..append(run_id(n), 1, 1) })).await.unwrap();
    pins.pinned(&pin, run_id(n));
}

#[tokio::test]
async fn a_family_without_pins_asks_nobody() {
    let store = Counting::new();
    let pins = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    store.gone.store(true, Ordering::Relaxed);
    assert_eq!(owner(&pins, "17").await, Ok((Owner::Nobody, None)));
    assert_eq!(store.looks(), 0);
}

#[tokio::test]
async fn what_a_run_pinned_is_its_own_at_once_and_after_a_restart() {
    let store = Counting::new();
    let pins = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    create(&store, &pins, 1, pin("17", Arm::Engine)).await;
    create(&store, &pins, 2, pin("18", Arm::Legacy)).await;
    assert_eq!(owner(&pins, "17").await, Ok((Owner::Engine, Some(run_id(1)))));
    assert_eq!(owner(&pins, "18").await, Ok((Owner::LegacyWithTwin, Some(run_id(2)))));
    assert_eq!(store.looks(), 0);

    let pins = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(owner(&pins, "17").await, Ok((Owner::Engine, Some(run_id(1)))));
        assert_eq!(owner(&pins, "99").await, Ok((Owner::Nobody, None)));
    }
    assert_eq!(store.looks(), 2, "each is looked up once");
    create(&store, &pins, 3, pin("99", Arm::Engine)).await;
    assert_eq!(owner(&pins, "99").await, Ok((Owner::Engine, Some(run_id(3)))), "a pin replaces nobody");
}

#[tokio::test]
async fn a_store_that_is_gone_is_unknown_only_where_the_engine_owns_something() {
    let store = Counting::new();
    let pins = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    create(&store, &pins, 1, pin("1", Arm::Legacy)).await;
    store.gone.store(true, Ordering::Relaxed);
    assert_eq!(owner(&pins, "2").await, Ok((Owner::Nobody, None)));
    create(&store, &pins, 3, pin("3", Arm::Engine)).await;
    assert_eq!(owner(&pins, "2").await, Err(OwnerUnknown));
    assert_eq!(owner(&pins, "3").await, Ok((Owner::Engine, Some(run_id(3)))), "known here");
    assert_eq!(pins.first_try(&RetryKey([1; 32])).await, Err(OwnerUnknown));
}

#[tokio::test]
async fn a_retry_stays_on_its_arm_across_a_restart() {
    let store = Counting::new();
    let pins = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    let (mine, legacys) = (RetryKey([1; 32]), RetryKey([2; 32]));
    let claim = Some(crate::store::Claim { key: mine, request: [0; 32] });
    store.append(Arc::new(Append { claim, ..append(run_id(1), 1, 1) })).await.unwrap();
    pins.note_legacy(legacys);
    assert_eq!(pins.first_try(&legacys).await, Ok(Some(Arm::Legacy)));
    assert_eq!(store.looks(), 0, "known in memory");
    assert_eq!(pins.first_try(&mine).await, Ok(Some(Arm::Engine)));
    assert_eq!(pins.first_try(&RetryKey([3; 32])).await, Ok(None));
    pins.flush().await;

    let pins = StoreAffinity::load(store, &Limits::default()).await.unwrap();
    assert_eq!(pins.first_try(&legacys).await, Ok(Some(Arm::Legacy)));
    assert_eq!(pins.first_try(&mine).await, Ok(Some(Arm::Engine)));
}

#[tokio::test]
async fn what_could_not_be_written_is_written_later() {
    let store = Counting::new();
    let pins = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    store.gone.store(true, Ordering::Relaxed);
    for n in 0..2_000_u16 {
        let mut key = [7; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        pins.note_legacy(RetryKey(key));
    }
    pins.flush().await;
    store.gone.store(false, Ordering::Relaxed);
    pins.flush().await;
    for n in 0..2_000_u16 {
        let mut key = [7; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        assert_eq!(store.first_try(RetryKey(key)).await.unwrap().unwrap().arm, Arm::Legacy);
    }
}

#[tokio::test]
async fn an_id_that_the_engine_owns_is_a_collision() {
    let store = Counting::new();
    let pins = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    let family = RouteId::new("orders.create");
    create(&store, &pins, 1, pin("17", Arm::Engine)).await;
    pins.note_legacy_instance(pin("18", Arm::Legacy).key);
    pins.flush().await;
    assert!(!pins.collided(&family));
    pins.note_legacy_instance(pin("17", Arm::Legacy).key);
    assert!(pins.collided(&family));

    let pins = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    pins.note_legacy_instance(pin("17", Arm::Legacy).key);
    pins.flush().await;
    assert!(pins.collided(&family), "found in the store");
    assert!(!pins.collided(&RouteId::new("other")));
}
