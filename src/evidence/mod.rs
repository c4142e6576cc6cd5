//! Counts what comparisons found for each route, and says whether a route may move.
//!
//! The question it answers: "how sure are we that the engine does what legacy does?"
//!
//! Always true: for every route `offered = matched + ignored + mismatched + Σ skipped + Σ failed` whenever the counters
//! are read, because they all change under one lock, and a scrape reads one copy of them.
//!
//! Evidence has a basis (the workflows, the rules, the addresses of services). When the basis changes:
//! - if only the rules changed, and they only allow more than before, the evidence goes on (`rejudged`);
//! - if the new basis was in force before, the evidence of that time goes on;
//! - otherwise the evidence starts from zero.
//!
//! In the last two cases, requests that were decided before the change do not count.
//!
//! `shadow` compares; `ladder` moves routes.
//!
//! Evidence is written to the store in the background: a slow store delays no request, an unreachable one loses at most
//! the evidence since the last write (counting goes on in memory), and a repeated write replaces the same row. Lost
//! evidence never opens a gate: a file marks the routes whose differences or failures are not all in the store
//! (`marks`). At the next start a marked route keeps its stored mismatches, failures and errors; its equal pairs and
//! consecutive answers are counted from zero. The same is true of every route at the first start of a copy of the
//! store, such as a restored backup, because the copy lacks what was seen after it was made.
//!
//! Processes that share a store add what they count to one row per route, and each has the sum (`shared_counters`).

mod add_change;
mod answers;
mod bases;
mod basis;
mod basis_change;
mod bound;
mod branches;
mod captures;
mod combined_bound;
mod combining_mutex;
mod conditions;
mod counters;
mod declared;
mod export;
mod fingerprints;
mod flushes;
mod gate;
mod gate_effects;
mod gate_errors;
mod gate_invariants;
mod gate_latency;
mod gate_noise;
mod gate_of_answers;
mod gate_of_candidate;
mod gate_of_cohort;
mod gate_text;
mod generation;
mod guard;
#[cfg(test)]
mod guard_latency_tests;
mod guard_stop;
mod guard_window;
mod guards;
mod in_flight;
mod invariants;
mod kept_on_restart;
mod latency;
mod latency_quantile;
mod latency_ratio;
mod left_requests;
mod legacy_calls;
mod legacy_rates;
mod legacy_replies;
mod legacy_share;
mod lost;
mod mark_file;
mod mark_writer;
mod marks;
mod marks_state;
mod matched_requests;
mod noise;
mod noise_counts;
mod noise_places;
mod noise_view;
mod observers;
mod paired;
mod pairs;
mod part_names;
mod process_share;
mod rejudged;
mod rejudging;
mod renamed_texts;
mod renames;
mod route;
mod route_counters;
mod route_lookup;
mod route_sums;
mod rule_changes;
mod rung;
mod samples;
mod second_runs;
mod settled_shares;
mod shared_counters;
mod shared_rows;
mod shared_state;
mod sharing;
mod statistics;
mod stored;
mod strata;
mod strata_by;
mod stratum_names;
mod uncompared_calls;
mod uncompared_headers;
mod undecided_places;

#[cfg(test)]
mod gate_of_candidate_tests;
#[cfg(test)]
mod gate_strata_tests;
#[cfg(test)]
mod gate_tests;
#[cfg(test)]
mod gate_text_tests;
#[cfg(test)]
mod noise_list_tests;
#[cfg(test)]
mod noise_tests;
#[cfg(test)]
mod noise_view_tests;
#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod planted_rate_tests;
#[cfg(test)]
mod rejudging_tests;
#[cfg(test)]
mod shared_model_tests;
#[cfg(test)]
mod shared_rig;
#[cfg(test)]
mod shared_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;
use tokio::sync::Notify;

pub use self::conditions::{Condition, ConditionName, GateVerdict, overall};
pub use self::gate::{JudgedRoute, conditions};
pub use self::gate_of_candidate::candidate_conditions;
pub use self::gate_of_cohort::cohort_conditions;
/// A comparison that is kept for people to read.
pub use crate::store::{RehearsedChild, RehearsedEvent, SampleRecord as Sample};
pub use answers::{AnswersByHour, HourOfAnswers};
pub use basis::{BasisParts, EvidenceBasis, WantedPairs};
pub use basis_change::{BasisChange, NextEvidence, PartChange};
pub use branches::{BranchCounts, BranchOutcome, BranchRunCounts};
pub use captures::{
    CAPTURE_AGE_MAX, CAPTURE_BYTES_MAX, CAPTURED_BYTES_PER_ROUTE_MAX, CAPTURES_PER_ROUTE_MAX, CaptureDropped, Captures,
    is_sampled,
};
pub use fingerprints::{FingerprintCount, PairsByKind};
pub use generation::{EngineGeneration, EvidenceGeneration};
pub use guard::{CleanPairs, GuardCrossing, GuardWindowView};
pub use guard_stop::GuardStop;
pub use invariants::{BrokenInvariant, GuardedAnswer, InvariantCounts, InvariantVerdict, JudgedAnswer};
pub use latency::{LatencyCounts, PairedLatencies};
pub use latency_quantile::{NarrowLatencyCounts, NarrowPairedLatencies};
pub use latency_ratio::{LatencyRatios, RatioInterval};
pub use legacy_calls::{LegacyCallCounts, LegacyCallsStatus};
pub use legacy_replies::{RecentReplies, RepliesOfLegacy};
pub use mark_file::MarkFileError;
pub use marks::{IncompleteEvidenceMarks, MarksLocation};
pub use noise::{LegacyWrite, NoiseGroup, NoisePairs, PlaceOutcomes};
pub use noise_places::DifferingPlaces;
pub use noise_view::{Interval, NoiseView, NoisyPlace};
pub use pairs::EvidenceCounts;
pub use part_names::{
    ATTRIBUTION, COMPARED_SIZES, LANGUAGE_VERSION, LEGACY_ADDRESS, MATCH, OTHER_ROUTES, OTHER_VERSIONS, PLAN_IN_FORCE,
    READ_PARAMETERS, REPLAY_READS, RULES, service_part, workflow_part,
};
pub use process_share::EvidenceGap;
pub use rejudging::{PairsToRejudge, RejudgedOutcome, RejudgedPairs};
pub use renamed_texts::RenamedTexts;
pub use route::{DroppedEvidence, EarlierEvidence, EvidenceRestart, RouteEvidence};
pub use rung::{RungCounts, StepIntents};
pub use second_runs::{EnginePlaces, SecondRuns};
pub use statistics::{ErrorTable, RouteStatistics, StratumBound};
pub use strata::{NotCompared, PairClass, StratumCounts};
pub use strata_by::StrataBy;
pub use uncompared_calls::{UncomparedCallCounts, UncomparedTarget, UncomparedTargets};
pub use uncompared_headers::{UncomparedHeaderCounts, UncomparedHeaders};

use counters::Counters;
use route_counters::RouteCounters;
use samples::PendingSamples;
use shared_state::SharedState;
use sharing::SharingProcesses;
use stored::StoredEvidence;

use crate::clock;
use crate::limits::Limits;
use crate::names::RouteId;
use crate::store::{EvidenceRecord, EvidenceVersion, StoreError, StoreHandle};

/// The evidence of all routes: in memory, written to the store in the background.
pub struct Evidence {
    store: StoreHandle,
    marks: IncompleteEvidenceMarks,
    limits: Limits,
    routes: RwLock<BTreeMap<RouteId, Arc<RouteCounters>>>,
    /// The current id for each earlier id of a route.
    renames: RwLock<BTreeMap<RouteId, RouteId>>,
    /// While this is locked, no row of the store is assigned to another route (by a rename).
    renaming: Mutex<()>,
    pending: Mutex<PendingSamples>,
    /// One flush at a time, so that older counts never overwrite newer ones.
    flushing: Arc<tokio::sync::Mutex<()>>,
    /// One scrape at a time.
    scraping: Mutex<()>,
    /// Notified when a guard has counted more than it accepts.
    guard_signal: Arc<Notify>,
    /// Notified when there are pairs to be judged again.
    rejudging_signal: Notify,
    /// Notified when a difference or a failure is counted: other processes should know of it soon.
    difference_signal: Notify,
    /// Which processes share the evidence.
    sharing: Mutex<SharingProcesses>,
    /// Set when the process is about to end: its next write removes its share (`process_share`) from the rows.
    is_leaving: AtomicBool,
}

impl Evidence {
    /// Loads the evidence in the store; keeps no marks.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn load_with(store: StoreHandle, limits: &Limits) -> Result<Arc<Self>, StoreError> {
        Self::open(store, IncompleteEvidenceMarks::default(), limits, None).await
    }

    /// Loads the evidence in the store. The equal pairs and consecutive answers of a marked route are counted from
    /// zero; so are those of every route whose evidence was stored before `copy_started`, the time at which a process
    /// first started on this copy of a store (`None` if the store is not a copy).
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn open(
        store: StoreHandle,
        marks: IncompleteEvidenceMarks,
        limits: &Limits,
        copy_started: Option<Timestamp>,
    ) -> Result<Arc<Self>, StoreError> {
        let mut routes = BTreeMap::new();
        let rows: Vec<(EvidenceRecord, Option<EvidenceVersion>)> = match store.shared_evidence() {
            Some(shared) => {
                let rows = shared.changed_evidence(Vec::new()).await?;
                rows.into_iter().map(|(record, version)| (record, Some(version))).collect()
            }
            None => store.evidence().await?.into_iter().map(|record| (record, None)).collect(),
        };
        for (EvidenceRecord { route: row, at, value }, version) in rows {
            match serde_json::from_value::<StoredEvidence>(value) {
                // A rename left this row empty: the evidence is under the new id.
                Ok(stored) if stored.basis.is_none() && stored.evidence == RouteEvidence::default() => {}
                Ok(mut stored) => {
                    let route = stored.written_under.take().unwrap_or_else(|| row.clone());
                    let mut counters = Counters::restored(stored);
                    counters.shared = version.map(|version| {
                        let row_id = (route != row).then(|| row.clone());
                        Box::new(SharedState { row_id, ..SharedState::of_row(counters.clone(), version) })
                    });
                    if marks.is_marked(&route) || marks.is_marked(&row) {
                        tracing::warn!(
                            %route,
                            "the last process ended before one or more differences or failures of this route were \
                             stored: its pairs without a difference are counted from zero; stored differences and \
                             failures stay"
                        );
                        counters.edit(|counters| counters.restart_after_loss(clock::now()));
                    } else if copy_started >= Some(at) {
                        tracing::warn!(
                            %route,
                            "the store is a copy, and differences that were found after it was made are not in it: pairs \
                             without a difference are counted from zero; stored differences and failures stay"
                        );
                        counters.edit(|counters| counters.restart_after_loss(clock::now()));
                    }
                    // If two rows have evidence of one route, the row of the route's present id counts.
                    if route == row || !routes.contains_key(&route) {
                        routes.insert(route, Arc::new(RouteCounters::of(counters)));
                    }
                }
                // Not an error: evidence in the format of another version can be gathered again.
                Err(error) => {
                    tracing::warn!(route = %row, %error, "stored evidence cannot be read; the route's evidence starts from zero");
                }
            }
        }
        Ok(Arc::new(Self {
            store,
            marks,
            limits: limits.clone(),
            routes: RwLock::new(routes),
            renames: RwLock::default(),
            renaming: Mutex::default(),
            pending: Mutex::default(),
            flushing: Arc::default(),
            scraping: Mutex::default(),
            guard_signal: Arc::default(),
            rejudging_signal: Notify::new(),
            difference_signal: Notify::new(),
            sharing: Mutex::default(),
            is_leaving: AtomicBool::new(false),
        }))
    }

    /// Whether there is room for another sample with this fingerprint. Callers ask before they build the sample.
    pub fn wants_sample(&self, route: &RouteId, generation: EvidenceGeneration, fingerprint: &str) -> bool {
        // Looked up before `pending` is locked: `set_renames` locks the renames first, and then `pending`.
        let current = self.current_id(route);
        self.counters(route).lock().is_of(generation)
            && self.pending().wants_sample(&current, fingerprint, &self.limits)
    }

    /// Keeps a sample until the next flush writes it. The sample must already be redacted.
    pub fn keep_sample(&self, generation: EvidenceGeneration, sample: Sample) {
        let sample = Sample { route: self.current_id(&sample.route), ..sample };
        let shared = self.counters(&sample.route);
        // The counters stay locked, so that no sample of the old generation is added after `set_basis` cleared the
        // samples.
        let counters = shared.lock();
        let mut pending = self.pending();
        if counters.is_of(generation) && pending.wants_sample(&sample.route, &sample.fingerprint, &self.limits) {
            pending.push(sample);
        }
    }

    /// The evidence of a route.
    pub fn of(&self, route: &RouteId) -> RouteEvidence {
        self.counters(route).lock().evidence.clone()
    }

    /// The evidence of the route that has or had one of these ids, if it has this basis; otherwise empty evidence.
    pub fn of_basis<'a>(&self, ids: impl Iterator<Item = &'a RouteId>, basis: &str) -> RouteEvidence {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let counters = ids.filter_map(|id| routes.get(id)).map(|shared| shared.lock());
        let fitting = counters.filter(|counters| counters.basis.as_deref() == Some(basis)).map(|c| c.evidence.clone());
        fitting.reduce(|first, next| if next.rank() > first.rank() { next } else { first }).unwrap_or_default()
    }
}
