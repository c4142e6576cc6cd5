//! The parts that live as long as the process: builds them, puts new files in force, drains them at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::basis::bases_in_store;
use super::cohort_entries::CohortEntries;
use super::declared::declared;
use super::family_gate::FamilyGate;
use super::guard_webhooks::GuardWebhooks;
use super::key_claims::KeyClaims;
use super::membership::Membership;
use super::opened_store::{OpenedStore, routes_in_store, set_declared, set_renames};
use super::plans::PlansInForce;
use super::refused_files::RefusedFiles;
use super::service_callers::CallerNotes;
use super::shared_moves::SharedMoves;
use super::twins::EngineTwins;
use super::uncompared_calls::UncomparedCallsGate;
use super::{file_entries, repeats, retention, zero_counters};
use crate::adoption::{AdoptionParts, Adoptions};
use crate::affinity::StoreAffinity;
use crate::clock;
use crate::config::{Retention, Setup};
use crate::egress::Attribution;
use crate::engine::{Engine, EngineParts};
use crate::evidence::{Captures, Evidence};
use crate::flag::{FlagSet, Freeze, RouteMatch};
use crate::ladder::{
    CandidateMove, FilesError, FollowedMoves, GateCondition, KillSwitchListener, Ladder, LadderParts, OtherProcesses,
};
use crate::limits::Limits;
use crate::names::WorkflowName;
use crate::record::RecordWriter;
use crate::secret::{RedactionKey, TextHash, set_secret_names};
use crate::shadow::{Shadow, ShadowParts};
use crate::store::{FlipRecord, StoreHandle};
use crate::transport::AddressRegistry;

/// The most tries to put files in force, if routes are flipped meanwhile.
const APPLY_TRIES_MAX: u32 = 5;

/// The parts that live as long as the process.
#[derive(Clone)]
pub(super) struct Parts {
    pub store: StoreHandle,
    pub evidence: Arc<Evidence>,
    pub ladder: Arc<Ladder>,
    pub engine: Arc<Engine>,
    pub affinity: Arc<StoreAffinity>,
    pub family_gate: Arc<FamilyGate>,
    pub membership: Arc<Membership>,
    /// `None` if legacy's calls are not seen.
    pub uncompared_calls: Option<Arc<UncomparedCallsGate>>,
    pub adoptions: Arc<Adoptions>,
    pub shadow: Arc<Shadow>,
    pub captures: Arc<Captures>,
    pub rules: crate::shadow::RulesInForce,
    pub recorder: Arc<RecordWriter>,
    pub caller_notes: Arc<CallerNotes>,
    pub retention: Arc<ArcSwap<Retention>>,
    /// The hash for the texts of rules in all files that come into force.
    pub text_hash: TextHash,
    /// The files in force; locked while files are put in force.
    in_force: Arc<tokio::sync::Mutex<Setup>>,
    /// The names of the workflows in force.
    pub workflows: Arc<ArcSwap<Vec<WorkflowName>>>,
}

/// Why files are put in force.
enum ApplyCause {
    /// The files are new; they were read at this time.
    New(Instant),
    /// The files are in force already, and are applied once more; this candidate is moved, if there is one.
    Again(Option<CandidateMove>),
    /// The files are in force already, and are applied once more, because other processes have recorded these moves.
    Followed(FollowedMoves),
}

impl ApplyCause {
    fn candidate_move(&self) -> Option<&CandidateMove> {
        match self {
            ApplyCause::Again(candidate_move) => candidate_move.as_ref(),
            ApplyCause::New(_) | ApplyCause::Followed(_) => None,
        }
    }
}

impl Parts {
    /// Builds all parts, in the order of their dependencies, and records what the files declare. The flags in force are
    /// put into `flags`.
    ///
    /// # Errors
    /// The files are refused, the store does not answer, or threads cannot be started.
    pub async fn start(
        opened: OpenedStore,
        setup: &Setup,
        flags: Arc<ArcSwap<FlagSet>>,
        addresses: Arc<AddressRegistry>,
        attribution: Option<Attribution>,
    ) -> anyhow::Result<Self> {
        let OpenedStore { store, evidence, basis_changes, affinity, secret, text_hash, plans } = opened;
        let limits = setup.limits.clone();
        let caller_notes = Arc::new(CallerNotes::new(addresses.clone(), store.clone()));
        caller_notes.set_services(&setup.services);
        let family_gate = FamilyGate::new(affinity.clone(), store.clone(), addresses.clone(), limits.clone());
        let routes = routes_in_store(&store, setup).await.context("reading what the files declared")?;
        family_gate.set_files(setup, &routes);
        let rules = Arc::new(ArcSwap::from_pointee(plans.rules(setup)));
        let membership = Membership::new(store.clone(), evidence.clone(), affinity.key_file(), setup).await;
        let mut conditions: Vec<Arc<dyn GateCondition>> = vec![affinity.clone(), family_gate.clone()];
        let uncompared_calls = attribution.map(|attribution| {
            let (rules, evidence, taking) = (rules.clone(), evidence.clone(), Default::default());
            Arc::new(UncomparedCallsGate { rules, evidence, attribution, taking })
        });
        conditions.extend(uncompared_calls.clone().map(|gate| gate as Arc<dyn GateCondition>));
        let ladder = LadderParts {
            store: store.clone(),
            evidence: evidence.clone(),
            conditions,
            // For moves only, and not for states in force: otherwise a rolling deployment would lower what is in `dark`
            // or `live`.
            conditions_of_moves: vec![membership.clone()],
            retry_window: Duration::from_secs(limits.retry_window_s),
            copy_started: affinity.copy_started(),
            answer_within: Limits::ms(limits.move_answer_ms),
            others: store.is_shared().then(|| membership.clone() as Arc<dyn OtherProcesses>),
        };
        let declared = declared(setup, 0, (&plans, &bases_in_store(setup, &routes, &plans)), None);
        let ladder = Ladder::open_into(declared, ladder, Some(flags)).await.map_err(|error| match error {
            FilesError::Store(error) => anyhow::Error::new(error).context("recording what the files declare"),
            FilesError::Refused(sentences) => RefusedFiles(sentences).into(),
            FilesError::FlippedMeanwhile | FilesError::TaskEnded => error.into(),
        })?;
        if store.is_shared() {
            membership.set_claims(KeyClaims::new(affinity.clone(), &ladder));
        }
        let engine = Arc::new(Engine::new(EngineParts {
            store: store.clone(),
            plans: setup.workflows.clone(),
            services: setup.services.clone(),
            secrets: setup.settings.secrets.clone(),
            store_key: setup.settings.store_key.clone(),
            key_secret: secret,
            limits: limits.clone(),
            addresses,
            affinity: affinity.clone(),
            clock: clock::process().clone(),
            late_failures: evidence.clone(),
        }));
        let other_plans = plans.plans_not_in_files(setup);
        if !other_plans.is_empty() {
            let (services, secrets) = (&setup.services, &setup.settings.secrets);
            engine.reload_with(0, (&setup.workflows, &other_plans), services, secrets);
        }
        ladder.connect_to_kill_switch(engine.clone()).await;
        ladder.connect_to_guard(Arc::new(GuardWebhooks(engine.clone())));
        let adoptions = Adoptions::new(AdoptionParts {
            store: store.clone(),
            affinity: affinity.clone(),
            engine: engine.clone(),
            flags: ladder.flags().clone(),
        });
        set_secret_names(setup.settings.redact.names());
        let captures = Captures::new(store.clone(), redaction_key(setup, &secret));
        let shadow = Shadow::start(ShadowParts {
            engine: engine.arm(),
            legacy: Some(repeats::legacy(&engine, ladder.flags().clone(), setup)),
            twins: Arc::new(EngineTwins { engine: engine.clone(), affinity: affinity.clone() }),
            evidence: evidence.clone(),
            captures: captures.clone(),
            rules: rules.clone(),
            limits,
        })
        .context("starting the shadow executor")?;
        retention::log_default(setup.settings.retention, &store);
        let retention = Arc::new(ArcSwap::from_pointee(retention::in_force(setup.settings.retention, &store)));
        let workflows = Arc::new(ArcSwap::from_pointee(setup.workflows.keys().cloned().collect()));
        zero_counters::publish(&setup.routes);
        let recorder = Arc::new(RecordWriter::new(store.clone()));
        ladder.connect_to_cohorts(Arc::new(CohortEntries(recorder.clone())));
        basis_changes.iter().for_each(|(route, change)| recorder.basis_changed(route, change));
        Ok(Self {
            recorder,
            caller_notes,
            store,
            evidence,
            ladder,
            engine,
            affinity,
            family_gate,
            membership,
            uncompared_calls,
            adoptions,
            shadow,
            captures,
            rules,
            retention,
            text_hash,
            in_force: Arc::new(tokio::sync::Mutex::new(setup.clone())),
            workflows,
        })
    }

    /// Puts a checked set in force as a whole: records the flips that the set makes, then replaces workflows, rules and
    /// the basis of evidence, and the flags last, so that no request finds a route without its workflow and rules. A
    /// request that is decided by the flags of one version is run with the workflows of the same version, even during
    /// the replacement. Returns the flips once the outcome is known.
    ///
    /// # Errors
    /// The store did not record the flips, or the set must not be put in force. Nothing was changed, unless the error
    /// is [`FilesError::TaskEnded`].
    pub async fn apply(&self, read: Instant, setup: &Setup) -> anyhow::Result<Vec<FlipRecord>> {
        let mut in_force = self.in_force.lock().await;
        let flips = self.apply_with(&ApplyCause::New(read), setup, &in_force).await?;
        *in_force = setup.clone();
        Ok(flips)
    }

    /// Puts the files in force once more, with this candidate moved. `None`: because a route below `live` is to be run
    /// with the plans of its files, or because a move by a file may pass its gate now.
    ///
    /// # Errors
    /// As [`Parts::apply`].
    pub async fn apply_again(&self, candidate_move: Option<CandidateMove>) -> anyhow::Result<()> {
        let in_force = self.in_force.lock().await;
        self.apply_with(&ApplyCause::Again(candidate_move), &in_force, &in_force).await.map(drop)
    }

    /// The parts that follow the moves of other processes.
    pub fn shared_moves(&self) -> SharedMoves {
        let parts = self.clone();
        let follow = move || {
            let parts = parts.clone();
            async move { parts.follow().await }.boxed()
        };
        SharedMoves { ladder: self.ladder.clone(), follow: Box::new(follow) }
    }

    /// Puts in force what other processes have recorded.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn follow(&self) -> anyhow::Result<()> {
        let in_force = self.in_force.lock().await;
        self.follow_with(&in_force).await
    }

    async fn follow_with(&self, in_force: &Setup) -> anyhow::Result<()> {
        let mut tries = 0;
        while let Some(moves) = self.ladder.newer_moves().await? {
            tries += 1;
            match self.try_apply(&ApplyCause::Followed(moves), in_force).await? {
                Err(flipped) if tries >= APPLY_TRIES_MAX => return Err(flipped.into()),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Puts files in force, judged by what other processes have recorded. Tries again if a route is flipped meanwhile.
    async fn apply_with(&self, cause: &ApplyCause, setup: &Setup, in_force: &Setup) -> anyhow::Result<Vec<FlipRecord>> {
        let mut tries = 0;
        self.evidence.refresh().await;
        loop {
            tries += 1;
            self.follow_with(in_force).await?;
            match self.try_apply(cause, setup).await? {
                Ok(flips) => return Ok(flips),
                Err(flipped) if tries >= APPLY_TRIES_MAX => return Err(flipped.into()),
                Err(_) => {}
            }
        }
    }

    /// The inner error says that a route was flipped meanwhile: nothing changed, and the caller tries again.
    async fn try_apply(
        &self,
        cause: &ApplyCause,
        setup: &Setup,
    ) -> anyhow::Result<Result<Vec<FlipRecord>, FilesError>> {
        let files_version = self.ladder.flags().load().files_version + 1;
        let candidate_move = cause.candidate_move();
        let kept = match cause {
            ApplyCause::Followed(moves) => self.ladder.plans_after(moves, &setup.routes),
            ApplyCause::New(_) | ApplyCause::Again(_) => self.ladder.plans_in_force(&setup.routes, candidate_move),
        };
        let plans = PlansInForce::load(&self.store, setup, kept).await?;
        let plans = match cause {
            // A plan that cannot be run here is not refused, because another process has put it in force. The other
            // routes are served.
            ApplyCause::Followed(_) => plans,
            ApplyCause::New(_) | ApplyCause::Again(_) => {
                plans.refusing_new(&self.ladder.unrunnable_plans(), &setup.routes)?
            }
        };
        let routes =
            routes_in_store(&self.store, setup).await.context("reading what the files declared, nothing changed")?;
        let bases = bases_in_store(setup, &routes, &plans);
        let declared = declared(setup, files_version, (&plans, &bases), candidate_move.cloned());
        let put_in_force = {
            let (parts, setup) = (self.clone(), setup.clone());
            move || {
                let workflows = (&setup.workflows, &*plans.plans_not_in_files(&setup));
                parts.engine.reload_with(files_version, workflows, &setup.services, &setup.settings.secrets);
                parts.rules.store(Arc::new(plans.rules(&setup)));
                set_secret_names(setup.settings.redact.names());
                parts.retention.store(Arc::new(retention::in_force(setup.settings.retention, &parts.store)));
                parts.workflows.store(Arc::new(setup.workflows.keys().cloned().collect()));
                parts.family_gate.set_files(&setup, &routes);
                parts.caller_notes.set_services(&setup.services);
                parts.membership.set_files(&setup.edition, &routes);
                set_renames(&parts.evidence, &routes);
                parts.evidence.set_basis_and_tell(files_version, &bases, &mut |route, change| {
                    parts.recorder.basis_changed(route, change);
                });
                set_declared(&parts.evidence, &setup);
                zero_counters::publish(&setup.routes);
            }
        };
        let reloaded = match cause {
            ApplyCause::New(read) => self.ladder.reload_files(*read, declared, put_in_force).await,
            ApplyCause::Again(_) => self.ladder.apply_files_again(declared, put_in_force).await,
            ApplyCause::Followed(moves) => {
                self.ladder.follow(moves.clone(), declared, put_in_force).await.map(|()| Vec::new())
            }
        };
        self.adoptions.flags_changed();
        // The process that recorded a move makes the entries about it.
        if reloaded.is_ok() && !matches!(cause, ApplyCause::Followed(_)) {
            file_entries::record(&self.ladder, &self.recorder);
        }
        match reloaded {
            Ok(flips) => Ok(Ok(flips)),
            Err(FilesError::Store(error)) => {
                let why = "the store did not record what the files declare, nothing changed";
                Err(anyhow::Error::new(error).context(why))
            }
            Err(FilesError::Refused(sentences)) => Err(RefusedFiles(sentences).into()),
            Err(error @ FilesError::FlippedMeanwhile) => Ok(Err(error)),
            Err(error @ FilesError::TaskEnded) => Err(error.into()),
        }
    }

    /// Resumes the runs that the last process left. In a store that several processes share, a run goes on only once a
    /// freeze that another process has set meanwhile is in force here, and no real run begins before this process has
    /// joined the others.
    pub async fn resume_runs(&self) {
        self.store.begin_runs_under(self.engine.worker(), None, 0);
        let ladder = self.ladder.clone();
        let follow = move || {
            let ladder = ladder.clone();
            async move { ladder.newer_moves().await.map(drop) }.boxed()
        };
        self.engine.recover_in_background(Arc::new(follow)).await;
    }
}

/// The flags before the store is open: they only tell which requests may concern a workflow, according to these files
/// or in the process that this one takes over from.
pub(super) fn flags_without_store(setup: &Setup, workflow_requests: Vec<RouteMatch>) -> FlagSet {
    let (routes, services) = (setup.routes.clone(), setup.services.clone());
    let states = Default::default();
    FlagSet::new(0, routes, &states, setup.default_legacy.clone(), services, Freeze::No, [0; 32])
        .with_exposed_arms(setup.settings.exposes_arm)
        .with_workflow_requests(workflow_requests)
}

/// The key of the hashes that stand in place of redacted values.
fn redaction_key(setup: &Setup, secret: &[u8; 32]) -> RedactionKey {
    match &setup.settings.store_key {
        Some(key) => RedactionKey::derived_from(key.reveal().as_bytes()),
        None => RedactionKey::derived_from(secret),
    }
}

impl KillSwitchListener for Engine {
    fn apply_freeze(&self, version: u64, freeze: Freeze) -> BoxFuture<'_, ()> {
        Box::pin(self.freeze(version, freeze))
    }
}
