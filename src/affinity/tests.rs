mod claims;
mod collisions;
mod given_back;
mod key_files;
mod older_copies;
mod unnoted;
mod verified;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use self::collisions::created;
use super::*;
use crate::flag::PinKey;
use crate::store::tests::{append, pin, run_id};
use crate::store::{Append, MemoryStore, NewPin, PinRecord, Store, StoreIdentity};

/// The route of the requests.
static ROUTE: LazyLock<RouteId> = LazyLock::new(|| "r".into());

/// A memory store that counts look-ups and can be made to fail them.
struct CountingStore {
    inner: Arc<MemoryStore>,
    identity: StoreIdentity,
    look_ups: AtomicU64,
    is_gone: AtomicBool,
    /// Look-ups of retry keys wait for a permit of `may_answer`.
    is_slow: AtomicBool,
    may_answer: tokio::sync::Semaphore,
}

/// Legacy takes a request with this key.
async fn legacy_takes(affinity: &StoreAffinity, key: RetryKey) -> LegacyTake {
    affinity.take_for_legacy(&ROUTE, key.into(), &EarlierKeys::none(), KnownBody::Unread).await
}

macro_rules! forward_to_inner {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {
        $(fn $name(&self, $($arg: $kind),*) -> BoxFuture<'_, $out> { self.inner.$name($($arg),*) })*
    };
}

type Stored<T> = Result<T, StoreError>;

crate::store::tests::forward_work::forward_work!(CountingStore, inner);

impl crate::store::InstanceStore for CountingStore {}
impl crate::store::RecordLog for CountingStore {}
impl crate::store::CaptureStore for CountingStore {}

impl crate::store::AdoptionStore for CountingStore {}
impl crate::store::ServiceCallerStore for CountingStore {}

impl Store for CountingStore {
    forward_to_inner! {
        append(a: Arc<Append>) -> Result<(), crate::store::AppendError>;
        events(run: RunId, from: crate::names::Seq) -> Stored<Vec<crate::store::StoredEvent>>;
        run(run: RunId) -> Stored<Option<crate::workflow::RunSummary>>;
        runs(filter: crate::store::RunFilter) -> Stored<Vec<crate::workflow::RunSummary>>;
        open_runs() -> Stored<Vec<(crate::workflow::RunStatus, u64)>>;
        put_plan(id: crate::names::PlanId, source: serde_json::Value) -> Stored<()>;
        plan(id: crate::names::PlanId) -> Stored<Option<serde_json::Value>>;
        put_run_key(run: RunId, key: Option<Vec<u8>>) -> Stored<()>;
        detach_twin(key: PinKey) -> Stored<()>;
        run_key(run: RunId) -> Stored<Option<Vec<u8>>>;
        engine_tries(after: Option<RetryKey>, limit: usize) -> Stored<Vec<(RetryKey, Timestamp)>>;
        pinned(after: u64, limit: usize) -> Stored<Vec<(u64, PinKey, Arm)>>;
        pin_counts() -> Stored<Vec<crate::store::PinCount>>;
        pins(family: RouteId, arm: Arm, limit: usize) -> Stored<Vec<PinRecord>>;
        put_flips(put: crate::store::PutFlips) -> Stored<Option<Vec<u64>>>;
        flips(route: Option<RouteId>, limit: usize) -> Stored<Vec<crate::store::FlipRecord>>;
        last_flips() -> Stored<Vec<crate::store::FlipRecord>>;
        declared() -> Stored<Vec<crate::store::DeclaredState>>;
        put_samples(s: Vec<crate::store::SampleRecord>, per: usize, fingerprints: usize) -> Stored<()>;
        samples(route: RouteId, limit: usize) -> Stored<Vec<crate::store::SampleRecord>>;
        sample_of_run(run: RunId) -> Stored<Option<crate::store::SampleRecord>>;
        clear_samples(route: RouteId) -> Stored<()>;
        remove_samples_before(at: Timestamp) -> Stored<()>;
        put_evidence(evidence: Vec<crate::store::EvidenceRecord>) -> Stored<()>;
        evidence() -> Stored<Vec<crate::store::EvidenceRecord>>;
        secret() -> Stored<[u8; 32]>;
        key_files() -> Stored<Vec<crate::store::KeyFileRecord>>;
        put_key_files(put: Vec<crate::store::KeyFileRecord>, remove: Vec<uuid::Uuid>) -> Stored<()>;
        close() -> ();
    }
    fn engine_took_any(&self, range: std::ops::RangeInclusive<RetryKey>) -> BoxFuture<'_, Stored<bool>> {
        self.unless_gone(self.inner.engine_took_any(range))
    }
    fn engine_took_any_after(
        &self,
        legacy_key: RetryKey,
        range: std::ops::RangeInclusive<RetryKey>,
    ) -> BoxFuture<'_, Stored<bool>> {
        self.unless_gone(self.inner.engine_took_any_after(legacy_key, range))
    }
    fn pin(&self, key: PinKey) -> BoxFuture<'_, Stored<Option<PinRecord>>> {
        self.look_ups.fetch_add(1, Ordering::Relaxed);
        self.unless_gone(self.inner.pin(key))
    }
    fn first_try(&self, key: RetryKey) -> BoxFuture<'_, Stored<Option<crate::store::StoredFirstTry>>> {
        self.look_ups.fetch_add(1, Ordering::Relaxed);
        let answer = self.unless_gone(self.inner.first_try(key));
        match self.is_slow.load(Ordering::Relaxed) {
            true => async move {
                let _permit = self.may_answer.acquire().await;
                answer.await
            }
            .boxed(),
            false => answer,
        }
    }
    fn note_legacy_tries(&self, tries: Vec<(RetryKey, Timestamp)>) -> BoxFuture<'_, Stored<Vec<RetryKey>>> {
        if self.is_gone.load(Ordering::Relaxed) {
            return ready(Err(StoreError("gone".into()))).boxed();
        }
        self.inner.note_legacy_tries(tries)
    }
    fn healthy(&self) -> bool {
        true
    }
    fn identity(&self) -> StoreIdentity {
        self.identity.clone()
    }
}

impl CountingStore {
    fn new() -> Arc<Self> {
        Self::with_content(Arc::default(), "here")
    }
    /// A store with the same content at another location.
    fn with_content(inner: Arc<MemoryStore>, location: &str) -> Arc<Self> {
        let identity = StoreIdentity { location: location.into(), incarnation: location.into() };
        Arc::new(Self {
            inner,
            identity,
            look_ups: AtomicU64::new(0),
            is_gone: AtomicBool::new(false),
            is_slow: AtomicBool::new(false),
            may_answer: tokio::sync::Semaphore::new(0),
        })
    }
    fn unless_gone<'a, T: Send + 'a>(&'a self, found: BoxFuture<'a, Stored<T>>) -> BoxFuture<'a, Stored<T>> {
        match self.is_gone.load(Ordering::Relaxed) {
            true => ready(Err(StoreError("gone".into()))).boxed(),
            false => found,
        }
    }
    fn look_ups(&self) -> u64 {
        self.look_ups.load(Ordering::Relaxed)
    }
}

async fn owner(affinity: &StoreAffinity, id: &str) -> Result<(Owner, Option<RunId>), ArmUnknown> {
    affinity.owner(&pin(id, Arm::Engine).key.into()).await
}

async fn create(store: &CountingStore, affinity: &StoreAffinity, n: u64, pin: NewPin) {
    store.append(Arc::new(Append { pins: vec![pin.clone()], ..append(run_id(n), 1, 1) })).await.unwrap();
    affinity.record_pin(&pin, run_id(n), affinity.pins_version());
}

#[tokio::test]
async fn a_family_without_pins_does_not_ask_the_store() {
    let store = CountingStore::new();
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    store.is_gone.store(true, Ordering::Relaxed);
    assert_eq!(owner(&affinity, "17").await, Ok((Owner::NoPin, None)));
    assert_eq!(store.look_ups(), 0);
}

#[tokio::test]
async fn the_owner_of_a_pin_is_known_at_once_and_after_a_restart() {
    let store = CountingStore::new();
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    create(&store, &affinity, 1, pin("17", Arm::Engine)).await;
    create(&store, &affinity, 2, pin("18", Arm::Legacy)).await;
    assert_eq!(owner(&affinity, "17").await, Ok((Owner::Engine, Some(run_id(1)))));
    assert_eq!(owner(&affinity, "18").await, Ok((Owner::LegacyWithTwin, Some(run_id(2)))));
    assert_eq!(store.look_ups(), 0);

    let affinity = affinity_with_built_sets(&store).await;
    for _ in 0..3 {
        assert_eq!(owner(&affinity, "17").await, Ok((Owner::Engine, Some(run_id(1)))));
        assert_eq!(owner(&affinity, "99").await, Ok((Owner::NoPin, None)));
        assert_eq!(owner(&affinity, "18").await, Ok((Owner::LegacyWithTwin, None)), "the twin's run is not looked up");
    }
    assert_eq!(store.look_ups(), 1, "only the order that the engine owns is looked up, and only once");
    create(&store, &affinity, 3, pin("99", Arm::Engine)).await;
    assert_eq!(
        owner(&affinity, "99").await,
        Ok((Owner::Engine, Some(run_id(3)))),
        "a new pin replaces the cached result that nobody owns the instance"
    );
}

/// Pins and retry keys over this store, with the sets built.
async fn affinity_with_built_sets(store: &Arc<CountingStore>) -> Arc<StoreAffinity> {
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    while !affinity.sets.are_built() {
        tokio::task::yield_now().await;
    }
    affinity
}

#[tokio::test]
async fn without_the_store_an_answer_is_unknown_only_where_the_engine_may_own_or_have_taken() {
    let store = CountingStore::new();
    let affinity = affinity_with_built_sets(&store).await;
    create(&store, &affinity, 1, pin("1", Arm::Legacy)).await;
    create(&store, &affinity, 3, pin("3", Arm::Engine)).await;
    let claim = Some(crate::store::Claim::new(RetryKey([1; 32]), [0; 32]));
    store.append(Arc::new(Append { claim, ..append(run_id(9), 1, 1) })).await.unwrap();

    let affinity = affinity_with_built_sets(&store).await;
    store.is_gone.store(true, Ordering::Relaxed);
    assert_eq!(owner(&affinity, "1").await, Ok((Owner::LegacyWithTwin, None)));
    assert_eq!(owner(&affinity, "2").await, Ok((Owner::NoPin, None)), "an order of legacy's");
    assert_eq!(affinity.remembered(&RetryKey([2; 32])), Remembered::NotEngine);
    affinity.record_legacy_instance(created("2"));
    affinity.finish_collision_checks().await;
    assert_eq!(store.look_ups(), 0, "the store was not asked");
    assert_eq!(owner(&affinity, "3").await, Err(ArmUnknown));
    assert_eq!(affinity.remembered(&RetryKey([1; 32])), Remembered::Unknown);
    assert_eq!(affinity.first_try(&RetryKey([1; 32])).await, Err(ArmUnknown));
}

#[tokio::test]
async fn the_store_is_asked_while_the_sets_are_not_built() {
    let store = CountingStore::new();
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    assert_eq!(affinity.remembered(&RetryKey([1; 32])), Remembered::Unknown);
    assert_eq!(affinity.first_try(&RetryKey([1; 32])).await, Ok(None));
    let affinity = affinity_with_built_sets(&store).await;
    assert_eq!(affinity.remembered(&RetryKey([1; 32])), Remembered::NotEngine);
}

/// There are more keys than `tries` keeps: the sets still answer "perhaps" for each.
#[tokio::test]
async fn keys_of_the_engine_beyond_those_in_memory_are_found() {
    let store = CountingStore::new();
    let affinity = affinity_with_built_sets(&store).await;
    for n in 0..150_000 {
        assert_eq!(affinity.take_for_engine(numbered(n)), KeyTakeResult::First);
        affinity.allow_eviction(numbered(n));
    }
    let missed = (0..150_000).filter(|n| affinity.remembered(&numbered(*n)) == Remembered::NotEngine).count();
    let others = (200_000..210_000).filter(|n| affinity.remembered(&numbered(*n)) == Remembered::Unknown).count();
    assert_eq!(missed, 0);
    assert!(others < 50, "{others} of 10,000 others would wait for the store");
}

#[tokio::test]
async fn a_retry_stays_on_its_arm_across_a_restart() {
    let store = CountingStore::new();
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    let (engine_key, legacy_key) = (RetryKey([1; 32]), RetryKey([2; 32]));
    let claim = Some(crate::store::Claim::new(engine_key, [0; 32]));
    store.append(Arc::new(Append { claim, ..append(run_id(1), 1, 1) })).await.unwrap();
    assert_eq!(legacy_takes(&affinity, legacy_key).await, LegacyTake::FIRST);
    assert_eq!(affinity.first_try(&legacy_key).await, Ok(Some(Arm::Legacy)));
    assert_eq!(store.look_ups(), 0, "known in memory");
    assert_eq!(affinity.first_try(&engine_key).await, Ok(Some(Arm::Engine)));
    assert_eq!(affinity.first_try(&RetryKey([3; 32])).await, Ok(None));
    affinity.flush().await;

    let affinity = StoreAffinity::load(store, &Limits::default()).await.unwrap();
    assert_eq!(affinity.first_try(&legacy_key).await, Ok(Some(Arm::Legacy)));
    assert_eq!(affinity.first_try(&engine_key).await, Ok(Some(Arm::Engine)));
}

#[tokio::test]
async fn keys_that_the_store_refused_are_written_later() {
    let store = CountingStore::new();
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    store.is_gone.store(true, Ordering::Relaxed);
    for n in 0..2_000_u16 {
        let mut key = [7; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        assert_eq!(legacy_takes(&affinity, RetryKey(key)).await, LegacyTake::FIRST);
    }
    affinity.flush().await;
    store.is_gone.store(false, Ordering::Relaxed);
    affinity.flush().await;
    for n in 0..2_000_u16 {
        let mut key = [7; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        assert_eq!(store.first_try(RetryKey(key)).await.unwrap().unwrap().arm, Arm::Legacy);
    }
}

/// Pins are stored under the id that the creator had when they were made; a request looks under all ids, also earlier
/// ones.
#[tokio::test]
async fn a_family_finds_its_pins_under_every_id_of_its_creator() {
    let store = CountingStore::new();
    let affinity = affinity_with_built_sets(&store).await;
    let under = |family: &str, id: &str, arm| NewPin { key: PinKey { family: family.into(), id: id.into() }, arm };
    create(&store, &affinity, 1, under("oldest", "1", Arm::Engine)).await;
    create(&store, &affinity, 2, under("old", "2", Arm::Engine)).await;
    create(&store, &affinity, 3, under("now", "3", Arm::Legacy)).await;
    create(&store, &affinity, 4, under("oldest", "3", Arm::Engine)).await;
    create(&store, &affinity, 5, under("others", "5", Arm::Engine)).await;
    let (family, other) = (renamed("now", &["old", "oldest"]), Family::from(RouteId::new("other")));
    let restarted = affinity_with_built_sets(&store).await;
    for affinity in [&affinity, &restarted] {
        let owner = async |id: &str| affinity.owner(&InstanceKey { family: family.clone(), id: id.into() }).await;
        assert_eq!(owner("1").await, Ok((Owner::Engine, Some(run_id(1)))));
        assert_eq!(owner("2").await, Ok((Owner::Engine, Some(run_id(2)))));
        assert_eq!(owner("3").await, Ok((Owner::Engine, Some(run_id(4)))), "legacy knows nothing of it");
        assert_eq!(owner("5").await, Ok((Owner::NoPin, None)), "another family's");
        assert!(affinity.engine_owns_any(&family) && !affinity.engine_owns_any(&other));
        assert!(!affinity.collided(&family));
        let key = InstanceKey { family: family.clone(), id: "2".into() };
        affinity.record_legacy_instance(CreatedByLegacy { key, ..created("2") });
        affinity.flush().await;
        assert!(affinity.collided(&family) && !affinity.collided(&other), "legacy gave out an id of the engine's");
    }
}

/// The metrics of a family have its creator's present id.
#[test]
fn pins_are_counted_under_the_present_id() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let shows = |line: &str| assert!(handle.render().lines().any(|l| l == line), "{line}\n{}", handle.render());
    metrics::with_local_recorder(&recorder, || {
        let counts = [("old", 2), ("now", 1), ("in no file", 4)];
        let counts = counts.map(|(id, count)| (RouteId::from(id), Arm::Engine, count));
        let families = PinCountsById::new(counts.to_vec(), Vec::new());
        families.publish([Family::from(RouteId::new("old"))].iter());
        shows(r#"pointsman_pins{route="old",arm="engine"} 2"#);
        families.publish([renamed("now", &["old"])].iter());
        shows(r#"pointsman_pins{route="now",arm="engine"} 3"#);
        shows(r#"pointsman_pins{route="old",arm="engine"} 0"#);
        shows(r#"pointsman_pins{route="in no file",arm="engine"} 4"#);
    });
}

/// The family of a creator with earlier ids.
fn renamed(id: &str, was: &[&str]) -> Family {
    Family::new(id.into(), was.iter().map(|id| RouteId::from(*id)).collect())
}

/// The result of a call that does not wait, because keys are kept in memory only.
fn now<T>(future: BoxFuture<'_, T>) -> T {
    future.now_or_never().expect("it does not wait")
}

fn numbered(n: u32) -> RetryKey {
    RetryKey(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

/// Ends a process as `kill -9` does: its memory is lost, its file stays.
fn kill(affinity: Arc<StoreAffinity>) {
    affinity.keys.kill();
    drop(affinity);
}

#[tokio::test]
async fn a_key_that_the_store_never_got_is_found_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, limits) = (dir.path().join("s.keys"), Limits { retry_keys_file_bytes_max: 65_536, ..Limits::default() });
    let store = CountingStore::new();
    store.is_gone.store(true, Ordering::Relaxed);
    let open = || KeyLog::open(&path, &limits);
    let affinity = StoreAffinity::open(store.clone(), &limits, open().unwrap()).await.unwrap();
    assert_eq!(legacy_takes(&affinity, numbered(1)).await, LegacyTake::FIRST);
    assert!(open().is_err(), "it is locked");
    kill(affinity);

    let keys = open_when_unlocked(open).await;
    let affinity = StoreAffinity::open(store.clone(), &limits, keys).await.unwrap();
    assert_eq!(affinity.remembered(&numbered(1)), Remembered::TakenBy(Arm::Legacy));
    assert_eq!(affinity.take_for_engine(numbered(1)), KeyTakeResult::OtherArmHasIt);
    store.is_gone.store(false, Ordering::Relaxed);
    affinity.flush().await;
    affinity.flush().await;
    assert_eq!(store.first_try(numbered(1)).await.unwrap().unwrap().arm, Arm::Legacy);
    affinity.keys.wait_until_written().await;
    kill(affinity);
    let keys = open_when_unlocked(open).await;
    assert!(keys.waiting().is_empty(), "the file says that the store has it");
}

/// Opens the file once it is free: the task that moves keys and the thread that syncs hold it a moment longer.
async fn open_when_unlocked(open: impl Fn() -> Result<Arc<KeyLog>, KeyFileError>) -> Arc<KeyLog> {
    loop {
        match open() {
            Ok(keys) => return keys,
            Err(KeyFileError::Locked(_)) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_full_ring_notes_no_key_and_routes_served_unnoted_are_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (path, limits) = (dir.path().join("s.keys"), Limits { retry_keys_file_bytes_max: 65_536, ..Limits::default() });
    let store = CountingStore::new();
    store.is_gone.store(true, Ordering::Relaxed);
    let open = || KeyLog::open(&path, &limits);
    let affinity = StoreAffinity::open(store.clone(), &limits, open().unwrap()).await.unwrap();
    let (route, other) = (RouteId::new("r"), RouteId::new("other"));
    for n in 0..960 {
        assert_eq!(legacy_takes(&affinity, numbered(n)).await, LegacyTake::FIRST);
    }
    assert_eq!(legacy_takes(&affinity, numbered(960)).await, LegacyTake::NOT_NOTED);
    assert_eq!(
        legacy_takes(&affinity, numbered(5)).await,
        LegacyTake::Taken { noted: true, is_retry: true },
        "it is noted already"
    );
    let soon = crate::clock::now() + jiff::SignedDuration::from_secs(1);
    assert!(
        affinity.legacy_noted_before(&numbered(5), soon)
            && !affinity.legacy_noted_before(&numbered(5), soon - jiff::SignedDuration::from_hours(1))
    );
    assert!(!affinity.legacy_noted_before(&numbered(960), soon), "it was not noted");
    assert_eq!(affinity.unnoted_requests(std::iter::once(&route)), None);
    affinity.record_served_unnoted(&numbered(960).into(), &route, &route).await;
    assert!(
        affinity.unnoted_requests(std::iter::once(&route)).is_some()
            && affinity.unnoted_requests(std::iter::once(&other)).is_none()
    );
    assert_eq!(affinity.remembered(&numbered(960)), Remembered::TakenBy(Arm::Legacy), "in memory at least");
    kill(affinity);

    let affinity = StoreAffinity::open(store.clone(), &limits, open_when_unlocked(open).await).await.unwrap();
    assert!(
        affinity.unnoted_requests(std::iter::once(&route)).is_some()
            && affinity.unnoted_requests(std::iter::once(&other)).is_none()
    );
    assert_eq!(legacy_takes(&affinity, numbered(961)).await, LegacyTake::NOT_NOTED);
    store.is_gone.store(false, Ordering::Relaxed);
    affinity.flush().await;
    affinity.flush().await;
    assert_eq!(
        legacy_takes(&affinity, numbered(961)).await,
        LegacyTake::Taken { noted: true, is_retry: true },
        "there is room again"
    );
}

/// In this process the key's window begins with the first try that this process sees. In the store it began in an
/// earlier process, and a try after its end is a new first try.
#[tokio::test]
async fn a_key_whose_window_ends_in_the_store_before_it_ends_here_is_noted_again() {
    let (store, key) = (CountingStore::new(), numbered(1));
    let window = jiff::SignedDuration::from_hours(24);
    let soon_over = clock::now() - window + jiff::SignedDuration::from_secs(2);
    store.inner.note_legacy_tries(vec![(key, soon_over)]).await.unwrap();
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    let take = || now(affinity.take_for_legacy(&ROUTE, key.into(), &EarlierKeys::none(), KnownBody::Unread));
    assert_eq!(take(), LegacyTake::FIRST);
    affinity.flush().await;
    let taken_at = async || store.inner.first_try(key).await.unwrap().map(|first| first.at);
    assert_eq!(taken_at().await, Some(soon_over), "a retry does not extend the window");
    while taken_at().await.is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(take(), LegacyTake::Taken { noted: true, is_retry: true });
    affinity.flush().await;
    assert!(taken_at().await.is_some(), "the next process finds it in the store");
}

/// 50,000 new keys, of which `tries` keeps 1,000, while the store is gone at times: at every moment each key is known
/// to be legacy's, and in the end all are in the store.
#[tokio::test]
async fn many_new_keys_stay_with_legacy() {
    const KEYS: u32 = 50_000;
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { retry_keys_max: 1_000, retry_keys_file_bytes_max: 8 << 20, ..Limits::default() };
    let store = CountingStore::new();
    let keys = KeyLog::open(&dir.path().join("s.keys"), &limits).unwrap();
    let affinity = StoreAffinity::open(store.clone(), &limits, keys).await.unwrap();
    for n in 0..KEYS {
        assert_eq!(legacy_takes(&affinity, numbered(n)).await, LegacyTake::FIRST);
        match n % 25_000 {
            5_000 => store.is_gone.store(true, Ordering::Relaxed),
            15_000 => store.is_gone.store(false, Ordering::Relaxed),
            _ => {}
        }
        if n % 1_000 == 0 {
            tokio::task::yield_now().await;
        }
        let old = numbered(n / 2);
        if store.inner.first_try(old).await.unwrap().is_none() {
            assert_eq!(affinity.take_for_engine(old), KeyTakeResult::OtherArmHasIt, "{n}");
            assert_eq!(affinity.first_try(&old).await, Ok(Some(Arm::Legacy)), "{n}");
        }
    }
    affinity.flush().await;
    affinity.flush().await;
    for n in 0..KEYS {
        assert_eq!(store.first_try(numbered(n)).await.unwrap().unwrap().arm, Arm::Legacy, "{n}");
    }
}

/// Two tries of a request share its key for any caller; legacy is to take one, the engine the other under another
/// credential. One of the two finds the other's key.
#[tokio::test]
async fn legacy_and_the_engine_never_take_one_request_under_two_credentials() {
    const ROUNDS: u32 = 2_000;
    let store = CountingStore::new();
    let affinity = affinity_with_built_sets(&store).await;
    let digest = [7; 32];
    let (mut taken_by_engine, mut taken_by_legacy) = (0, 0);
    for n in 0..ROUNDS {
        let any_caller = numbered(n);
        let keys = RetryKeys { any_caller: Some(any_caller), ..numbered(n + 1_000_000).into() };
        let together = std::sync::Barrier::new(2);
        let (engine, legacy) = std::thread::scope(|scope| {
            let engine = scope.spawn(|| {
                together.wait();
                affinity.take_for_engine_under_any_credential(&any_caller, None, &digest, 0)
            });
            together.wait();
            let take = |body| now(affinity.take_for_legacy(&ROUTE, keys, &EarlierKeys::none(), body));
            let legacy = match take(KnownBody::Unread) {
                LegacyTake::NeedsBody => take(KnownBody::Digest(digest)),
                took => took,
            };
            (engine.join().unwrap(), legacy)
        });
        match (engine, legacy) {
            (KeyTakeResult::First, LegacyTake::HeldUnderAnotherCredential) => taken_by_engine += 1,
            (KeyTakeResult::OtherArmHasIt, LegacyTake::FIRST) => taken_by_legacy += 1,
            both => panic!("{both:?}"),
        }
    }
    assert_eq!(taken_by_engine + taken_by_legacy, ROUNDS);
    // Another request with the same key is not the engine's.
    affinity.take_for_engine_under_any_credential(&numbered(ROUNDS), None, &digest, 0);
    let keys = RetryKeys { any_caller: Some(numbered(ROUNDS)), ..numbered(ROUNDS + 1_000_000).into() };
    assert_eq!(
        affinity.take_for_legacy(&ROUTE, keys, &EarlierKeys::none(), KnownBody::Unread).await,
        LegacyTake::NeedsBody
    );
    assert_eq!(
        affinity.take_for_legacy(&ROUTE, keys, &EarlierKeys::none(), KnownBody::Digest([8; 32])).await,
        LegacyTake::FIRST
    );
    let keys = RetryKeys { any_caller: Some(numbered(ROUNDS + 1)), ..numbered(ROUNDS + 1_000_001).into() };
    assert_eq!(
        affinity.take_for_legacy(&ROUTE, keys, &EarlierKeys::none(), KnownBody::TooLarge).await,
        LegacyTake::FIRST
    );
}

/// Only one of two simultaneous tries gets a dark run.
#[tokio::test]
async fn of_simultaneous_tries_legacy_takes_one_for_the_first_time() {
    const ROUNDS: u32 = 2_000;
    let affinity = StoreAffinity::load(CountingStore::new(), &Limits::default()).await.unwrap();
    for n in 0..ROUNDS {
        // The second half of the rounds: two credentials of one caller.
        let keys = |credential: u32| match n < ROUNDS / 2 {
            true => RetryKeys::from(numbered(n)),
            false => RetryKeys { any_caller: Some(numbered(n)), ..numbered(credential * 1_000_000 + n).into() },
        };
        let together = std::sync::Barrier::new(2);
        let take = |credential| {
            together.wait();
            now(affinity.take_for_legacy(&ROUTE, keys(credential), &EarlierKeys::none(), KnownBody::Digest([8; 32])))
        };
        let took = std::thread::scope(|scope| {
            let other = scope.spawn(|| take(1));
            [take(2), other.join().unwrap()]
        });
        assert_eq!(took.iter().filter(|took| **took == LegacyTake::FIRST).count(), 1, "{n}: {took:?}");
    }
}

/// A thousand tries of one key do not ask the store a thousand times: the last of them would wait past their timeout.
#[tokio::test]
async fn simultaneous_tries_of_one_key_share_a_look_up() {
    let store = CountingStore::new();
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    let key = RetryKey([9; 32]);
    store.is_slow.store(true, Ordering::Relaxed);
    let all = futures_util::future::try_join_all((0..1_000).map(|_| affinity.first_try(&key)));
    let (found, ()) = tokio::join!(all, async { store.may_answer.add_permits(1) });
    assert!(found.unwrap().iter().all(Option::is_none));
    assert_eq!(store.look_ups(), 2, "one that had begun before the second try came, and one for all others");
    assert!(affinity.look_ups.is_empty());
    // A call that comes after a look-up has begun gets a later one, which finds what was stored meanwhile.
    let claim = Some(crate::store::Claim::new(key, [0; 32]));
    let permit = store.may_answer.acquire().await.unwrap();
    let mut earlier = affinity.first_try(&key);
    assert!((&mut earlier).now_or_never().is_none());
    drop(permit);
    store.append(Arc::new(Append { claim, ..append(run_id(1), 1, 1) })).await.unwrap();
    assert_eq!(affinity.first_try(&key).await, Ok(Some(Arm::Engine)));
    drop(earlier);
    store.is_gone.store(true, Ordering::Relaxed);
    assert_eq!(affinity.first_try(&key).await, Err(ArmUnknown));
}
