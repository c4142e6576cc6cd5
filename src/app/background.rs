//! The background tasks: reloading changed files, releasing routes that are held below `live` because the engine would
//! perform retries of earlier requests a second time, and reporting the engine's health.
//!
//! Always true: an invalid set of files changes nothing, and the log, the status and a metric show why; a valid set is
//! put in force as a whole. While the store is not healthy, or the runs of the last process are not resumed yet, the
//! ladder keeps every route below `only` at `shadow` or lower, so that a request goes to legacy at once instead of
//! failing in the engine first.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::listener_tls::ListenersInForce;
use super::parts::Parts;
use super::refused_files::RefusedFiles;
use super::reload_requests::ReloadRequests;
use super::stall_report::StallReport;
use crate::admin::{CandidateMoveError, Reloaded};
use crate::config::{FilesChange, Loaded, Reading, ReloadStatus, Setup};
use crate::flag::Percent;
use crate::ladder::CandidateMove;
use crate::names::{PlanSet, RouteId};
use crate::store::{FlipRecord, RepeatedFailures};

/// How often the store's health is read.
const HEALTH_EVERY: Duration = Duration::from_millis(200);

/// How often the routes that are held below `live` are checked for release, and cohorts are judged by their own
/// evidence.
const RELEASE_EVERY: Duration = Duration::from_millis(500);

/// The pause before a valid set that the store did not record is tried again. Without this retry, the set would not be
/// tried again until a file changes.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How long the store may take to record a set before the delay is logged and shown in the status.
const REPORT_DELAY_AFTER: Duration = Duration::from_secs(2);

/// How long new files and the move of a candidate wait for each other at most.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(3);

/// Why the lock is not free after [`LOCK_WAIT_MAX`]: whoever holds it waits for the store, or for a successor.
const LOCK_IS_HELD: &str = "flag files or a candidate are being put in force (perhaps the store does not answer), or \
                            another process takes over from this one (`serve --succeed`)";

/// How often it is checked whether a guard has found too many errors, slow answers or differences of a candidate.
const GUARD_CANDIDATES_EVERY: Duration = Duration::from_millis(200);

/// How often [`apply_files_again`] checks whether there is something to apply. A flip up of a route waits until the
/// plan that was in force in `live` is replaced.
const APPLY_AGAIN_EVERY: Duration = Duration::from_millis(100);

/// What tasks that reload files share.
pub(super) struct Reloads {
    /// What is known of the last reading.
    pub status: Arc<ReloadStatus>,
    /// The requests to read the files now.
    pub requests: Arc<ReloadRequests>,
    /// Held while new files or a candidate are put in force, and while a successor takes over.
    pub lock: Arc<tokio::sync::Mutex<()>>,
}

/// Puts valid sets in force and reports invalid ones, for as long as the files are watched. `files` holds the set in
/// force.
pub(super) async fn reload(
    parts: Parts,
    started_with: Setup,
    files: Arc<ArcSwap<Loaded>>,
    listeners: ListenersInForce,
    Reloads { status: reload_status, requests, lock: reload_lock }: Reloads,
    mut readings: mpsc::Receiver<Reading>,
) {
    let (mut to_retry, mut since) = (None, Instant::now());
    loop {
        let (reading, is_retry) = tokio::select! {
            reading = readings.recv() => (reading, false),
            () = tokio::time::sleep(RETRY_AFTER), if to_retry.is_some() => (to_retry.take(), true),
        };
        let Some(Reading { change, asked }) = reading else { return requests.close() };
        to_retry = None;
        let change = match change {
            FilesChange::Loaded(loaded) => FilesChange::Loaded(Box::new(loaded.with_text_hash(&parts.text_hash))),
            refused @ FilesChange::Refused(_) => refused,
        };
        // A move of a candidate holds the lock until the store has recorded it; a hand-over, unless it fails, for good.
        let lock = tokio::time::timeout(LOCK_WAIT_MAX, reload_lock.lock()).await;
        let outcome = match change {
            FilesChange::Loaded(loaded) if lock.is_err() => {
                // Logged once for the whole wait, not at each try.
                if !is_retry {
                    tracing::warn!("new flag files are not put in force yet, which is tried again: {LOCK_IS_HELD}");
                    reload_status.record_failure(LOCK_IS_HELD.to_owned());
                }
                to_retry = Some(Reading { change: FilesChange::Loaded(loaded), asked });
                Reloaded::Waits(LOCK_IS_HELD.to_owned())
            }
            FilesChange::Loaded(loaded) => match put_in_force(&parts, &loaded, &reload_status).await {
                Ok(flips) => {
                    listeners.replace(&loaded.setup.settings);
                    let before = files.swap(Arc::new((*loaded).clone()));
                    let Loaded { setup, warnings, hash, .. } = *loaded;
                    let mut needs_restart = started_with.settings.settings_needing_restart(&setup.settings);
                    needs_restart.extend((started_with.limits != setup.limits).then_some("limits"));
                    reload_status.record_accepted(warnings.clone(), needs_restart.clone());
                    tracing::info!("a new set of flag files is in force");
                    if !needs_restart.is_empty() {
                        let keys = needs_restart.join(", ");
                        tracing::warn!(keys, "changed settings take effect only after a restart");
                    }
                    let changed = before.hash != hash;
                    if changed {
                        since = Instant::now();
                    }
                    Reloaded::InForce { changed, since, flips, warnings, needs_restart }
                }
                Err(error) => {
                    let text = format!("{error:#}");
                    tracing::error!(
                        error = text,
                        "the new flag files are valid but could not be put in force: the last good set stays in force"
                    );
                    reload_status.record_failure(text.clone());
                    match error.downcast::<RefusedFiles>() {
                        // Refused files would be refused again.
                        Ok(RefusedFiles(sentences)) => Reloaded::RefusedByLadder(sentences),
                        // A store error may be transient, so the set is tried again.
                        Err(_) => {
                            to_retry = Some(Reading { change: FilesChange::Loaded(loaded), asked });
                            Reloaded::NotRecorded(text)
                        }
                    }
                }
            },
            FilesChange::Refused(failed) => {
                tracing::error!(
                    "the changed flag files are refused: the last good set stays in force:\n{}",
                    failed.render(false)
                );
                reload_status.record_refused(&failed);
                Reloaded::Refused(failed)
            }
        };
        requests.answer(asked, &outcome);
    }
}

/// Puts the candidate of a route in force, or gives it another share.
///
/// # Errors
/// It may not be moved, the store did not record it, or files are being put in force.
pub(super) async fn move_candidate(
    parts: Parts,
    reload_lock: Arc<tokio::sync::Mutex<()>>,
    candidate_move: CandidateMove,
) -> Result<(), CandidateMoveError> {
    parts.ladder.wait_for_pairs_of_candidate(&candidate_move).await;
    // Files that are put in force hold the lock until the store has recorded them; a hand-over, unless it fails, for
    // good.
    let Ok(_guard) = tokio::time::timeout(LOCK_WAIT_MAX, reload_lock.lock()).await else {
        return Err(CandidateMoveError::Waits(format!("{LOCK_IS_HELD}: nothing was changed, try again")));
    };
    parts.apply_again(Some(candidate_move)).await.map_err(|error| match error.downcast::<RefusedFiles>() {
        Ok(RefusedFiles(sentences)) => CandidateMoveError::Refused(sentences),
        Err(error) => CandidateMoveError::Failed(format!("{error:#}")),
    })
}

/// Sets the share of a candidate to 0 once the guard of its route no longer accepts it. Tried again until the store has
/// recorded it.
pub(super) async fn guard_candidates(parts: Parts, reload_lock: Arc<tokio::sync::Mutex<()>>) {
    let failures = RepeatedFailures::default();
    let mut crossed = BTreeMap::new();
    loop {
        tokio::time::sleep(GUARD_CANDIDATES_EVERY).await;
        let found = parts.ladder.take_candidate_crossings();
        crossed.extend(found.into_iter().map(|crossing| (crossing.route, crossing.detail)));
        // A candidate that is only rehearsed has no share to lose.
        crossed.retain(|route, _| candidate_with_share(&parts, route).is_some());
        // All are tried, even if one cannot be recorded.
        for (route, detail) in &crossed {
            let Some(candidate) = candidate_with_share(&parts, route) else { continue };
            let Ok(_no_hand_over) = reload_lock.try_lock() else { break };
            let (route, reason) = (route.clone(), Some(detail.clone()));
            let share = Some(Percent::NONE);
            let asked = CandidateMove { route, candidate, share, force: false, reason, by: "guard".to_owned() };
            let asked_route = asked.route.clone();
            match parts.apply_again(Some(asked)).await {
                Ok(_) => {
                    tracing::error!(route = %asked_route, why = detail, "the guard has set the candidate's share to 0")
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    if let Some(unlogged) = failures.count(&error) {
                        tracing::error!(
                            route = %asked_route,
                            error,
                            unlogged,
                            "the guard could not set the candidate's share to 0: it keeps its share; tried again"
                        );
                    }
                }
            }
        }
    }
}

/// The candidate of a route, if it answers a share of its requests.
fn candidate_with_share(parts: &Parts, route: &RouteId) -> Option<Arc<PlanSet>> {
    let flags = parts.ladder.flags().load();
    let candidate = flags.route(route)?.plans.as_ref()?.candidate.as_ref()?;
    (candidate.share > Percent::NONE).then(|| Arc::clone(&candidate.plans))
}

/// Puts the files in force once more, when one of these is the case:
/// - a route that went below `live` still has the plan that was in force there: that of the files replaces it;
/// - a move by a file has waited for pairs that were under way: it is judged again;
/// - another process has come to have the same files, or has written what it compared: moves by files may pass the
///   gates that were shut because of that process.
pub(super) async fn apply_files_again(parts: Parts, reload_lock: Arc<tokio::sync::Mutex<()>>) {
    let (failures, mut gates_may_open) = (RepeatedFailures::default(), false);
    loop {
        tokio::time::sleep(APPLY_AGAIN_EVERY).await;
        gates_may_open |= parts.membership.take_may_open_gates();
        if !gates_may_open && !parts.ladder.has_plans_to_drop() && !parts.ladder.has_moves_to_judge_again() {
            continue;
        }
        let Ok(_no_hand_over) = reload_lock.try_lock() else { continue };
        let applied = parts.apply_again(None).await;
        gates_may_open &= applied.is_err();
        if let Err(error) = applied
            && let Some(unlogged) = failures.count(&format!("{error:#}"))
        {
            let error = format!("{error:#}");
            tracing::warn!(
                error,
                unlogged,
                "a route below `live` keeps the plan that was in force there, or a move by its file waits; tried again"
            );
        }
    }
}

/// Puts a set in force. Reports a delay if the store does not answer within `REPORT_DELAY_AFTER`, and continues to
/// wait.
async fn put_in_force(parts: &Parts, loaded: &Loaded, reload_status: &ReloadStatus) -> anyhow::Result<Vec<FlipRecord>> {
    let mut applying = pin!(parts.apply(loaded.read_at, &loaded.setup));
    if let Ok(outcome) = tokio::time::timeout(REPORT_DELAY_AFTER, &mut applying).await {
        return outcome;
    }
    let waiting = "the new flag files are valid and not in force: the store has not answered, so it is not known yet \
                   whether the flips that they make are recorded. Once the store confirms them, the files take effect as \
                   a whole; if it refuses them, the last good set stays in force";
    tracing::warn!("{waiting}");
    reload_status.record_failure(waiting.to_owned());
    applying.await
}

/// Reports the health of the engine and its store to the ladder, periodically, and logs when a commit stalls.
pub(super) async fn health(parts: Parts) {
    let mut ticks = tokio::time::interval(HEALTH_EVERY);
    let mut stalls = StallReport::new();
    loop {
        ticks.tick().await;
        report_health(&parts);
        stalls.update(&parts);
    }
}

/// Moves routes that are held below `live` back to `live` when their time is over, and judges those
/// cohorts again that go by their own evidence.
pub(super) async fn release_held_routes(parts: Parts) {
    let mut ticks = tokio::time::interval(RELEASE_EVERY);
    loop {
        ticks.tick().await;
        parts.ladder.judge_cohorts_again();
        if let Err(error) = parts.ladder.release_held().await {
            tracing::warn!(%error, "held routes may stay below `live`: the store did not confirm their return, which is tried again");
        }
    }
}

/// Reports to the ladder whether the engine takes new instances now.
pub(super) fn report_health(parts: &Parts) {
    let number = parts.ladder.begin_check();
    let is_healthy = is_engine_healthy(parts);
    metrics::gauge!("pointsman_engine_healthy").set(f64::from(is_healthy));
    parts.ladder.set_health(number, is_healthy);
}

/// Whether the store accepts writes and the runs that the last process left are resumed.
pub(super) fn is_engine_healthy(parts: &Parts) -> bool {
    parts.store.healthy() && parts.engine.why_unresumed().is_none()
}
