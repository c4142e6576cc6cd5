//! A store whose reads of runs never end.

use std::future::pending;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::flag::{Arm, PinKey, RetryKey};
use crate::names::{PlanId, RouteId, RunId, Seq};
use crate::store::*;
use crate::workflow::{RunStatus, RunSummary};

#[derive(Default)]
pub struct HangingStore {
    inner: MemoryStore,
}

type Stored<T> = Result<T, StoreError>;

macro_rules! pass_on {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {
        $(fn $name(&self, $($arg: $kind),*) -> BoxFuture<'_, $out> { self.inner.$name($($arg),*) })*
    };
}

crate::store::tests::forward_work::forward_work!(HangingStore, inner);

crate::store::tests::forward_work::forward_pin_collisions!(HangingStore, inner);
impl crate::store::InstanceStore for HangingStore {}
impl crate::store::RecordLog for HangingStore {}
impl crate::store::CaptureStore for HangingStore {}

impl crate::store::AdoptionStore for HangingStore {}
impl crate::store::ServiceCallerStore for HangingStore {}

impl Store for HangingStore {
    pass_on! {
        append(append: Arc<Append>) -> Result<(), AppendError>;
        events(run: RunId, from: Seq) -> Stored<Vec<StoredEvent>>;
        put_plan(id: PlanId, source: serde_json::Value) -> Stored<()>;
        plan(id: PlanId) -> Stored<Option<serde_json::Value>>;
        put_run_key(run: RunId, key: Option<Vec<u8>>) -> Stored<()>;
        run_key(run: RunId) -> Stored<Option<Vec<u8>>>;
        engine_took_any(range: std::ops::RangeInclusive<RetryKey>) -> Stored<bool>;
        engine_took_any_after(legacy_key: RetryKey, range: std::ops::RangeInclusive<RetryKey>) -> Stored<bool>;
        engine_tries(after: Option<RetryKey>, limit: usize) -> Stored<Vec<(RetryKey, Timestamp)>>;
        pin(key: PinKey) -> Stored<Option<PinRecord>>;
        detach_twin(key: PinKey) -> Stored<()>;
        first_try(key: RetryKey) -> Stored<Option<StoredFirstTry>>;
        note_legacy_tries(tries: Vec<(RetryKey, jiff::Timestamp)>) -> Stored<Vec<RetryKey>>;
        pinned(after: u64, limit: usize) -> Stored<Vec<(u64, PinKey, Arm)>>;
        pin_counts() -> Stored<Vec<PinCount>>;
        pins(family: RouteId, arm: Arm, limit: usize) -> Stored<Vec<PinRecord>>;
        put_flips(put: PutFlips) -> Stored<Option<Vec<u64>>>;
        flips(route: Option<RouteId>, limit: usize) -> Stored<Vec<FlipRecord>>;
        last_flips() -> Stored<Vec<FlipRecord>>;
        declared() -> Stored<Vec<DeclaredState>>;
        put_samples(samples: Vec<SampleRecord>, per: usize, fingerprints: usize) -> Stored<()>;
        samples(route: RouteId, limit: usize) -> Stored<Vec<SampleRecord>>;
        sample_of_run(run: RunId) -> Stored<Option<SampleRecord>>;
        clear_samples(route: RouteId) -> Stored<()>;
        remove_samples_before(at: Timestamp) -> Stored<()>;
        put_evidence(evidence: Vec<EvidenceRecord>) -> Stored<()>;
        evidence() -> Stored<Vec<EvidenceRecord>>;
        secret() -> Stored<[u8; 32]>;
        key_files() -> Stored<Vec<KeyFileRecord>>;
        put_key_files(put: Vec<KeyFileRecord>, remove: Vec<uuid::Uuid>) -> Stored<()>;
        close() -> ();
    }
    fn run(&self, _: RunId) -> BoxFuture<'_, Stored<Option<RunSummary>>> {
        pending().boxed()
    }
    fn runs(&self, _: RunFilter) -> BoxFuture<'_, Stored<Vec<RunSummary>>> {
        pending().boxed()
    }
    fn open_runs(&self) -> BoxFuture<'_, Stored<Vec<(RunStatus, u64)>>> {
        pending().boxed()
    }
    fn healthy(&self) -> bool {
        self.inner.healthy()
    }
    fn identity(&self) -> StoreIdentity {
        self.inner.identity()
    }
}
