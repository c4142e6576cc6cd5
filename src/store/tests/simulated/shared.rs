//! The store as the engines of a simulation use it: operations with faults, and operations without.

use super::*;
use crate::flag::RetryKey;
use crate::names::RouteId;
use crate::store::{
    AppendConflict, Claim, EvidenceReplacement, EvidenceVersion, GoneProcess, KeyFileRecord, LivingProcesses,
    ProcessRecord, PutFlips, SharedEvidence, StoreTime,
};

/// The simulated store as a [`Store`] of one process.
pub(crate) struct Shared {
    store: Arc<SimStore>,
    link: Arc<Link>,
}

impl Shared {
    /// The store of a process that nothing cuts off.
    pub(crate) fn new(store: Arc<SimStore>) -> Self {
        Self::over(store, Link::up())
    }
    /// The store of a process with this link.
    pub(crate) fn over(store: Arc<SimStore>, link: Arc<Link>) -> Self {
        Self { store, link }
    }

    /// Performs an operation in a task of its own, so that it continues when its caller is gone. Its reply is lost if
    /// the link is cut meanwhile.
    fn detached<T: Send + 'static, E: From<StoreError> + Send + 'static, F>(
        &self,
        work: impl FnOnce(Arc<SimStore>) -> F,
    ) -> BoxFuture<'_, Result<T, E>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let (link, work) = (self.link.clone(), work(self.store.clone()));
        Box::pin(async move {
            link.passes().await?;
            let done = match tokio::spawn(work).await {
                Ok(done) => done,
                Err(_) => std::future::pending().await, // the simulation has ended
            };
            link.passes().await?;
            done
        })
    }
}

impl SimStore {
    /// Appends. If the append claims a key, some milliseconds pass between the look-up of [`Claim::legacy_keys`] and
    /// the write: as in PostgreSQL, a key that legacy writes meanwhile is not found.
    async fn append_claim(&self, append: Arc<Append>) -> Result<(), AppendError> {
        let Some(claim) = append.claim.filter(|_| self.shared) else {
            return self.append_unless_claimed(append).await;
        };
        let is_checked = self.omission != Omission::ClaimsOfRuns;
        for key in claim.legacy_keys.into_iter().flatten().filter(|_| is_checked) {
            let first = self.inner.first_try(key).await.ok().flatten();
            if first.is_some_and(|first| first.run.is_none()) {
                return Err(AppendError::Conflict(AppendConflict::LegacyClaim));
            }
        }
        let _under_way = AppendUnderWay::begin(self, claim);
        let pause = Duration::from_millis(self.state.lock().unwrap().random.u64(0..15));
        tokio::time::sleep(pause).await;
        let claim = Some(Claim { legacy_keys: [None; 2], ..claim });
        self.append_unless_claimed(Arc::new(Append { claim, ..Append::clone(&append) })).await
    }

    /// Whether an append has looked for this key of legacy and is not committed.
    fn is_append_under_way(&self, legacy_key: RetryKey) -> bool {
        self.state.lock().unwrap().looked_for.contains(&legacy_key)
    }

    /// Appends. With [`Omission::ClaimsOfRuns`] also if legacy has keys that the append claims: only the others are
    /// claimed then.
    async fn append_unless_claimed(&self, append: Arc<Append>) -> Result<(), AppendError> {
        let claim = append.claim.filter(|_| self.omission == Omission::ClaimsOfRuns);
        let Some(claim) = claim else { return self.append_in_term(append).await };
        let claim = self.without_keys_of_legacy(claim).await;
        self.append_in_term(Arc::new(Append { claim, ..Append::clone(&append) })).await
    }

    /// The claim of those keys that legacy does not have, if there are any.
    async fn without_keys_of_legacy(&self, claim: Claim) -> Option<Claim> {
        let mut keys = Vec::new();
        for key in claim.keys() {
            let first = self.inner.first_try(key).await.ok().flatten();
            if first.is_none_or(|first| first.run.is_some()) {
                keys.push(key);
            }
        }
        let mut keys = keys.into_iter();
        Some(Claim { key: keys.next()?, of_request: keys.next(), legacy_keys: [None; 2], ..claim })
    }
}

/// An append that has looked for legacy's keys and is not committed.
struct AppendUnderWay<'a> {
    store: &'a SimStore,
    looked_for: [Option<RetryKey>; 2],
}

impl<'a> AppendUnderWay<'a> {
    fn begin(store: &'a SimStore, claim: Claim) -> Self {
        store.state.lock().unwrap().looked_for.extend(claim.legacy_keys.into_iter().flatten());
        Self { store, looked_for: claim.legacy_keys }
    }
}

impl Drop for AppendUnderWay<'_> {
    fn drop(&mut self) {
        let all = &mut self.store.state.lock().unwrap().looked_for;
        for key in self.looked_for.into_iter().flatten() {
            let index = all.iter().position(|of_append| *of_append == key).expect("it is there until this is dropped");
            all.swap_remove(index);
        }
    }
}

macro_rules! with_faults {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> StoreReply<'_, $result> {
            self.detached(move |store| async move {
                let backend = store.clone();
                store.with_fault(async { backend.inner.$name($($arg),*).await }).await
            })
        })*
    };
}

impl RunCoordination for Shared {
    fn heartbeat(&self, worker: WorkerId, name: String, lease: Duration) -> StoreReply<'_, Option<Timestamp>> {
        self.detached(move |store| async move {
            if store.state.lock().unwrap().blocked.contains(&worker) {
                return Err(unknown_result());
            }
            let backend = store.clone();
            store
                .with_fault(async {
                    backend.state.lock().unwrap().processes.renew(worker, name, lease);
                    Ok(clock::simulated::time().filter(|_| backend.shared))
                })
                .await
        })
    }
    fn deregister(&self, worker: WorkerId) -> StoreReply<'_, ()> {
        self.store.state.lock().unwrap().processes.leave(worker);
        self.store.inner.deregister(worker)
    }
    fn release_runs(&self, worker: WorkerId) -> StoreReply<'_, ()> {
        self.store.inner.deregister(worker)
    }
    fn begin_runs_under(&self, worker: WorkerId, term: Option<i64>, newest_set: u64) {
        self.store.state.lock().unwrap().processes.begin_runs_under(worker, term, newest_set);
    }
    fn acquire(&self, worker: WorkerId, run: RunId) -> StoreReply<'_, AcquireResult> {
        self.detached(move |store| async move {
            let backend = store.clone();
            store.with_fault(async { backend.acquire_for(worker, run).await }).await
        })
    }
    fn acquire_due(&self, worker: WorkerId, limit: usize) -> StoreReply<'_, Vec<OwnedRun>> {
        self.detached(move |store| async move {
            let (backend, taken) = (store.clone(), Mutex::new(Vec::new()));
            let due = async {
                let due = backend.acquire_due_for(worker, limit).await?;
                taken.lock().unwrap().clone_from(&due);
                Ok(due)
            };
            let result = store.clone().with_fault(due).await;
            if result.is_err() {
                let taken = taken.into_inner().unwrap();
                store.state.lock().unwrap().unreported.entry(worker).or_default().extend(taken);
            }
            result
        })
    }
    with_faults! {
        due_times(limit: usize) -> Vec<(Timestamp, RunId)>;
        put_command(command: CommandRecord) -> ();
        commands(run: RunId) -> Vec<CommandRecord>;
        command(id: Uuid) -> Option<CommandRecord>;
        answer_command(id: Uuid, answer: Value) -> ();
        locks(names: Option<Vec<String>>, limit: usize) -> Vec<LockRow>;
        webhook_messages(after: u64, limit: usize) -> Vec<WebhookMessage>;
        remove_webhook_message(number: u64) -> ();
        pending_runs(limit: usize) -> Vec<crate::store::OutboxRow>;
        remove_pending_run(run: RunId) -> ();
        purge(status: RunStatus, ended_before: Timestamp, limit: usize) -> Purged;
        prune_retry_keys(
            after: Option<crate::store::RetryKeyPosition>,
            limit: usize
        ) -> crate::store::RetryKeyPage<u64>;
        long_bound_keys(
            ahead: std::time::Duration,
            after: Option<crate::store::RetryKeyPosition>,
            limit: usize
        ) -> crate::store::RetryKeyPage<Vec<crate::flag::RetryKey>>;
        engine_tries_since(
            since: Timestamp,
            after: Option<crate::store::RetryKeyPosition>,
            limit: usize
        ) -> crate::store::RetryKeyPage<Vec<crate::store::RetryKeyPosition>>;
        purged_run_bodies(run: RunId) -> Option<RunBodies>;
        put_run_snapshot(snapshot: RunSnapshot) -> ();
        run_snapshot(run: RunId) -> Option<RunSnapshot>;
        changed_runs(
            since: Option<crate::store::RunCursor>,
            limit: usize
        ) -> crate::store::ChangedRuns;
    }
    fn exchange_processes(&self, worker: WorkerId, record: ProcessRecord) -> StoreReply<'_, Option<LivingProcesses>> {
        self.detached(move |store| async move {
            let backend = store.clone();
            store.with_fault(async { backend.exchange(worker, record).await }).await
        })
    }
    fn gone_processes(&self) -> StoreReply<'_, Vec<GoneProcess>> {
        self.detached(move |store| async move {
            let backend = store.clone();
            store.with_fault(async { Ok(backend.state.lock().unwrap().processes.gone()) }).await
        })
    }
    fn notifications(&self) -> broadcast::Receiver<StoreNotification> {
        self.store.notifications.subscribe()
    }
    fn is_shared(&self) -> bool {
        self.store.shared
    }
}

crate::store::tests::forward_work::forward_pin_collisions!(Shared, store.inner);
impl crate::store::InstanceStore for Shared {}
impl crate::store::RecordLog for Shared {}
impl crate::store::CaptureStore for Shared {}

impl crate::store::AdoptionStore for Shared {}
impl crate::store::ServiceCallerStore for Shared {}

impl SharedEvidence for Shared {
    with_faults! {
        changed_evidence(known: Vec<(RouteId, EvidenceVersion)>) -> Vec<(EvidenceRecord, EvidenceVersion)>;
        replace_evidence(rows: Vec<EvidenceReplacement>) -> Vec<(RouteId, EvidenceVersion)>;
    }
}

impl Store for Shared {
    fn append(&self, append: Arc<Append>) -> BoxFuture<'_, Result<(), AppendError>> {
        let done = self.detached(move |store| async move {
            match store.draw() {
                Fault::Before => return Err(FaultyAppend::Inner(AppendError::Refused("no room".into()))),
                Fault::Twice => drop(store.append_claim(append.clone()).await),
                _ => {}
            }
            store.check_times(&append);
            let backend = store.clone();
            let (run, owner) = (append.run_id, (!append.release).then_some(append.worker));
            let fence = append.fence;
            let done = store.with_fault(async {
                backend.append_claim(append).await.map_err(FaultyAppend::Inner)?;
                backend.set_owner(owner, run, fence);
                Ok(())
            });
            done.await
        });
        Box::pin(async move {
            done.await.map_err(|error| match error {
                FaultyAppend::Fault => AppendError::Unavailable("the result is unknown".into()),
                FaultyAppend::Inner(error) => error,
            })
        })
    }
    with_faults! {
        events(run: RunId, from: crate::names::Seq) -> Vec<StoredEvent>;
        run(run: RunId) -> Option<RunSummary>;
        runs(filter: RunFilter) -> Vec<RunSummary>;
        open_runs() -> Vec<(RunStatus, u64)>;
        put_plan(id: crate::names::PlanId, source: Value) -> ();
        plan(id: crate::names::PlanId) -> Option<Value>;
        put_run_key(run: RunId, key: Option<Vec<u8>>) -> ();
        run_key(run: RunId) -> Option<Vec<u8>>;
        pin(key: crate::flag::PinKey) -> Option<PinRecord>;
        detach_twin(key: crate::flag::PinKey) -> ();
        pin_counts() -> Vec<(crate::names::RouteId, crate::flag::Arm, u64)>;
        pins(family: crate::names::RouteId, arm: crate::flag::Arm, limit: usize) -> Vec<PinRecord>;
        first_try(key: crate::flag::RetryKey) -> Option<StoredFirstTry>;
        engine_took_any(range: std::ops::RangeInclusive<crate::flag::RetryKey>) -> bool;
        engine_tries(after: Option<crate::flag::RetryKey>, limit: usize) -> Vec<(crate::flag::RetryKey, jiff::Timestamp)>;
        pinned(after: u64, limit: usize) -> Vec<(u64, crate::flag::PinKey, crate::flag::Arm)>;
        flips(route: Option<crate::names::RouteId>, limit: usize) -> Vec<FlipRecord>;
        last_flips() -> Vec<FlipRecord>;
        declared() -> Vec<DeclaredState>;
        put_samples(samples: Vec<SampleRecord>, per_fingerprint: usize, fingerprints: usize) -> ();
        samples(route: crate::names::RouteId, limit: usize) -> Vec<SampleRecord>;
        sample_of_run(run: RunId) -> Option<SampleRecord>;
        clear_samples(route: crate::names::RouteId) -> ();
        remove_samples_before(at: Timestamp) -> ();
        put_evidence(evidence: Vec<EvidenceRecord>) -> ();
        evidence() -> Vec<EvidenceRecord>;
        secret() -> [u8; 32];
    }
    fn put_flips(&self, put: PutFlips) -> StoreReply<'_, Option<Vec<u64>>> {
        self.detached(move |store| async move {
            let backend = store.clone();
            let putting = async {
                match put.announced.is_none_or(|announced| backend.stands(&announced)) {
                    true => backend.inner.put_flips(put).await,
                    false => Ok(None),
                }
            };
            store.with_fault(putting).await
        })
    }
    fn engine_took_any_after(
        &self,
        legacy_key: RetryKey,
        range: std::ops::RangeInclusive<RetryKey>,
    ) -> StoreReply<'_, bool> {
        self.detached(move |store| async move {
            let backend = store.clone();
            let looking = async {
                while backend.is_append_under_way(legacy_key) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                backend.inner.engine_took_any(range).await
            };
            store.with_fault(looking).await
        })
    }
    fn note_legacy_tries(&self, tries: Vec<(RetryKey, Timestamp)>) -> StoreReply<'_, Vec<RetryKey>> {
        self.detached(move |store| async move {
            let backend = store.clone();
            let noting = async {
                match backend.omission {
                    Omission::KeysOfLegacy => Ok(Vec::new()),
                    _ => backend.inner.note_legacy_tries(tries).await,
                }
            };
            store.with_fault(noting).await
        })
    }
    fn key_files(&self) -> StoreReply<'_, Vec<KeyFileRecord>> {
        self.detached(move |store| async move {
            let backend = store.clone();
            store.with_fault(async { Ok(backend.state.lock().unwrap().processes.key_files()) }).await
        })
    }
    fn put_key_files(&self, put: Vec<KeyFileRecord>, remove: Vec<Uuid>) -> StoreReply<'_, ()> {
        self.detached(move |store| async move {
            let backend = store.clone();
            let putting = async {
                backend.state.lock().unwrap().processes.put_key_files(put, &remove);
                Ok(())
            };
            store.with_fault(putting).await
        })
    }
    fn time(&self) -> StoreReply<'_, StoreTime> {
        let now = clock::simulated::time().filter(|_| self.store.shared);
        Box::pin(std::future::ready(Ok(now.map_or(StoreTime::NewestEvent(None), StoreTime::Now))))
    }
    fn shared_evidence(&self) -> Option<&dyn SharedEvidence> {
        self.store.shared.then_some(self)
    }
    fn healthy(&self) -> bool {
        true
    }
    /// Closes this process's connection, nothing more.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
