//! The store and the files beside it: opens them at the start, closes them at the end or when the start fails.
//!
//! Always true: if one of them cannot be opened, those that were opened before are closed again, so that this process
//! can start again and another process can open them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::basis::bases_in_store;
use super::plans::PlansInForce;
use super::{stores, text_hashes, time};
use crate::affinity::StoreAffinity;
use crate::config::{Setup, StoreUrl};
use crate::evidence::{BasisChange, Evidence};
use crate::flag::{Route, StratumKey};
use crate::ladder;
use crate::limits::Limits;
use crate::names::RouteId;
use crate::secret::TextHash;
use crate::store::{MemoryStore, PostgresStore, SqliteStore, StoreError, StoreHandle, candidate_key};

/// The store, and what was read from it. A store that is not shared is used only by this process from now on; nothing
/// that the process's files declare is recorded yet.
pub(super) struct OpenedStore {
    pub store: StoreHandle,
    pub evidence: Arc<Evidence>,
    /// The routes whose basis of evidence has changed since the last process ended, each with the change.
    pub basis_changes: Vec<(RouteId, BasisChange)>,
    pub affinity: Arc<StoreAffinity>,
    pub secret: [u8; 32],
    /// The hash for the texts of rules. The evidence is counted by texts that have such hashes in place of literals.
    pub text_hash: TextHash,
    /// The plans in force of the routes that the last process left in `live` or above.
    pub plans: PlansInForce,
}

impl OpenedStore {
    /// Opens the store and the files beside it. Waits for a predecessor that is ending.
    ///
    /// # Errors
    /// The store or a file beside it cannot be opened or read. What was opened is closed again.
    pub async fn open(setup: &Setup) -> anyhow::Result<Self> {
        let limits = setup.limits.clone();
        let store: StoreHandle = match &setup.settings.store {
            StoreUrl::Sqlite(path) => Arc::new(
                SqliteStore::open(path, &limits)
                    .await
                    .with_context(|| format!("opening the store sqlite:{}", path.display()))?,
            ),
            StoreUrl::Postgres { url, direct, password } => {
                let password = password.as_ref();
                let opened = match direct {
                    None => PostgresStore::open(url, password, &limits).await,
                    Some(direct) => PostgresStore::open_behind_pooler(url, direct, password, &limits).await,
                };
                Arc::new(opened.context("opening the store")?)
            }
            StoreUrl::Memory => {
                tracing::warn!("the store is in memory: flips, runs and pins are lost when the process ends");
                Arc::new(MemoryStore::new())
            }
        };
        let opened = Self::open_files(setup, store.clone()).await;
        if opened.is_err() {
            close(&store, &limits).await;
        }
        opened
    }

    /// Opens the files beside the store. On an error they are closed again.
    async fn open_files(setup: &Setup, store: StoreHandle) -> anyhow::Result<Self> {
        let limits = &setup.limits;
        time::set(&store, Duration::from_secs(limits.retry_window_s)).await?;
        let routes = routes_in_store(&store, setup).await.context("reading what the files declared")?;
        let secret = store.secret().await.context("reading the store's secret")?;
        let text_hash = text_hashes::of_store(setup, &secret);
        let setup = &setup.with_text_hash(&text_hash);
        let (flips, rows) = (store.last_flips().await, store.declared().await);
        let (flips, rows) =
            (flips.context("reading the last flips")?, rows.context("reading what the files declared")?);
        let plans = PlansInForce::load(&store, setup, ladder::stored_plans_in_force(flips, &rows, &routes)).await?;
        plans.log_unrunnable();
        let marks = stores::evidence_marks(setup, &store).await?;
        let affinity = stores::affinity(setup, &store).await?;
        let evidence = match Evidence::open(store.clone(), marks, limits, affinity.copy_started()).await {
            Ok(evidence) => evidence,
            Err(error) => {
                close_key_file(&affinity, limits).await;
                return Err(anyhow::Error::new(error).context("reading the evidence"));
            }
        };
        set_renames(&evidence, &routes);
        for (route, renamed) in text_hashes::renamed(setup, &text_hash) {
            [&route, &candidate_key(&route)].into_iter().for_each(|id| evidence.rename_texts(id, &renamed));
        }
        let basis_changes = evidence.set_basis(0, &bases_in_store(setup, &routes, &plans));
        set_declared(&evidence, setup);
        Ok(Self { store, evidence, basis_changes, affinity, secret, text_hash, plans })
    }
}

/// Returns whether the store was closed in time.
async fn close(store: &StoreHandle, limits: &Limits) -> bool {
    let closed = tokio::time::timeout(Limits::ms(limits.drain_ms), store.close()).await.is_ok();
    if !closed {
        tracing::error!("the store did not close in time; everything that it acknowledged is durable");
    }
    closed
}

/// Returns whether the file was closed in time.
async fn close_key_file(affinity: &StoreAffinity, limits: &Limits) -> bool {
    let released = affinity.release_key_file(Limits::ms(limits.drain_ms)).await;
    if !released {
        tracing::error!("the file of retry keys was not closed in time: the disk may hang");
    }
    released
}

/// The store and the files beside it, which this process has locked.
#[derive(Clone)]
pub(super) struct LockedFiles {
    pub store: StoreHandle,
    pub evidence: Arc<Evidence>,
    pub affinity: Arc<StoreAffinity>,
}

impl OpenedStore {
    /// The store and the files beside it, to release their locks if the start fails.
    pub fn locked_files(&self) -> LockedFiles {
        let Self { store, evidence, basis_changes: _, affinity, secret: _, text_hash: _, plans: _ } = self;
        LockedFiles { store: store.clone(), evidence: evidence.clone(), affinity: affinity.clone() }
    }
}

impl LockedFiles {
    /// Closes the store and the files, so that another process can open them. Returns whether they were closed in time.
    pub async fn release(&self, limits: &Limits) -> bool {
        self.evidence.release_marks().await;
        let released = close_key_file(&self.affinity, limits).await;
        let closed = close(&self.store, limits).await;
        released && closed
    }
}

/// The routes of the files, with all ids under which the store has records of them.
pub(super) async fn routes_in_store(store: &StoreHandle, setup: &Setup) -> Result<Vec<Arc<Route>>, StoreError> {
    Ok(ladder::with_unlisted_ids(&store.declared().await?, &setup.routes))
}

/// Tells the evidence the other ids of each route, and those of each candidate.
pub(super) fn set_renames(evidence: &Evidence, routes: &[Arc<Route>]) {
    let of_candidate =
        |route: &Arc<Route>| (candidate_key(&route.id), route.was.iter().map(candidate_key).collect::<Vec<_>>());
    let candidates: Vec<(RouteId, Vec<RouteId>)> = routes.iter().map(of_candidate).collect();
    let of_routes = routes.iter().map(|route| (&route.id, route.was.as_slice()));
    evidence.set_renames(of_routes.chain(candidates.iter().map(|(id, was)| (id, was.as_slice()))));
}

/// Sets the guard, the cohorts, the key of strata and the invariants of each route, for the plan in force and for the
/// candidate.
pub(super) fn set_declared(evidence: &Evidence, setup: &Setup) {
    let candidates: Vec<RouteId> = setup.routes.iter().map(|route| candidate_key(&route.id)).collect();
    let guards = || setup.routes.iter().map(|route| route.guard.as_ref());
    let of_routes = setup.routes.iter().map(|route| &route.id).zip(guards());
    evidence.set_guards(of_routes.chain(candidates.iter().zip(guards())));
    for route in &setup.routes {
        evidence.set_cohorts(&route.id, &route.cohort_rules());
    }
    for (route, candidate) in setup.routes.iter().zip(&candidates) {
        let key = route.promote.strata_by.as_ref().map_or("", StratumKey::text);
        [&route.id, candidate].into_iter().for_each(|id| evidence.set_strata_by(id, key));
    }
    let invariants = || setup.routes.iter().map(|route| &*route.invariants);
    let of_routes = setup.routes.iter().map(|route| &route.id).zip(invariants());
    evidence.set_invariants(of_routes.chain(candidates.iter().zip(invariants())));
}
