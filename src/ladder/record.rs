//! Records flips and declarations in the store, and finds out whether they were recorded.
//!
//! Always true:
//!
//! - Flips that are recorded together are stored all or not at all (one transaction).
//! - If the store's reply was lost, the outcome is looked up until it is known, because what is in force must be what a
//!   restart finds.
//! - A declaration that another process on the same store has changed stays, unless this process has changed the same
//!   field (`declared_rows`).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::declared_rows::merged;
use super::types::Move;
use crate::flag::Shares;
use crate::names::RouteId;
use crate::store::{DeclaredState, FlipRecord, PutFlips, StandingAnnouncement, StoreError, StoreHandle};

/// Flips and declarations that are recorded in one transaction.
pub(super) struct RecordBatch {
    pub flips: Vec<FlipRecord>,
    /// The new declarations of all files; `None` keeps the stored ones.
    pub declared: Option<Vec<DeclaredState>>,
    /// The number of the newest flip that was known when this batch was judged: in a store that several processes
    /// share, it is not recorded after a newer flip. `None`: the batch is in force already, and is recorded in any
    /// case.
    pub judged_by: Option<u64>,
}

/// Why a judged move is not recorded.
const OUTDATED_JUDGEMENT: &str =
    "another process has recorded a move since this one was judged; it comes into force here in a moment: try again";

/// Why an announced move is not recorded.
const ANNOUNCEMENT_OVER: &str = "the other processes may not know any more that the engine is to answer, \
                                            because the lease of this process was over: try again";

pub(super) fn outdated_judgement() -> StoreError {
    StoreError(OUTDATED_JUDGEMENT.to_owned())
}

/// Whether a move was not recorded because another process recorded one first.
pub(super) fn is_outdated_judgement(error: &StoreError) -> bool {
    error.0 == OUTDATED_JUDGEMENT
}

/// The pauses between look-ups of an unknown outcome: the first and the longest.
const LOOK_UP_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Records flips and declarations in the store. Only the holder of the lock of moves calls it: one write is under way
/// at a time.
pub(super) struct FlipRecorder {
    store: StoreHandle,
    /// The number of the newest flip in the store that this process knows of. The store may have a newer one: of
    /// another process, or by an earlier write of this process that counted as not recorded.
    newest: watch::Sender<u64>,
    /// The number up to which all flips in the store are in force here, also those of other processes.
    newest_in_force: watch::Sender<u64>,
    /// Notified when a flip of another process is found that is not in force here.
    pub behind: Notify,
    /// The declarations that this process last recorded, or read at its start.
    known: Mutex<Vec<DeclaredState>>,
}

/// What the store has of the flips or declarations of a write.
struct ReadBack {
    /// The numbers of those of the flips that the store has: of none, of the first ones, or of all. Flips are found
    /// only if no other flip in the store is newer.
    numbers: Vec<u64>,
    /// Whether all flips are in the store, or all declarations if there are no flips.
    is_complete: bool,
    /// The number of the newest flip in the store.
    newest: u64,
}

impl FlipRecorder {
    /// `last` are the last flips of all routes and of the kill switch.
    pub fn new(store: StoreHandle, last: &[FlipRecord]) -> Self {
        let newest = last.iter().map(|flip| flip.number).max().unwrap_or(0);
        let (newest, newest_in_force) = (watch::Sender::new(newest), watch::Sender::new(newest));
        Self { store, newest, newest_in_force, behind: Notify::new(), known: Mutex::default() }
    }

    /// The number up to which all flips in the store are in force here.
    pub fn newest_in_force(&self) -> u64 {
        *self.newest_in_force.borrow()
    }

    /// That number, and its changes.
    pub fn subscribe_newest_in_force(&self) -> watch::Receiver<u64> {
        self.newest_in_force.subscribe()
    }

    /// Notes that the store has a flip with this number.
    pub fn note_newest(&self, number: u64) {
        self.newest.send_if_modified(|newest| std::mem::replace(newest, number.max(*newest)) < number);
    }

    /// Notes that all flips of the store up to this number are in force here.
    pub fn set_newest_in_force(&self, number: u64) {
        self.note_newest(number);
        self.newest_in_force.send_if_modified(|newest| std::mem::replace(newest, number.max(*newest)) < number);
    }

    /// Takes over the plans in force and the bases of these routes from the store: they are in force here too, and do
    /// not count as changes of this process.
    pub fn set_known_of<'a>(&self, routes: impl Iterator<Item = &'a RouteId>, stored: &[DeclaredState]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for route in routes {
            let Some(known) = known.iter_mut().find(|row| row.route == *route) else { continue };
            let stored = stored.iter().find(|row| row.route == *route);
            known.live = stored.and_then(|row| row.live.clone());
            known.in_force = stored.and_then(|row| row.in_force.clone());
            known.evidence_from = stored.and_then(|row| row.evidence_from.clone());
        }
    }

    /// Sets the declarations that this process has read from the store.
    pub fn set_known_declarations(&mut self, declared: Vec<DeclaredState>) {
        self.known = Mutex::new(declared);
    }

    /// These declarations, with the fields of other processes where this one changed nothing (`declared_rows`).
    async fn merged_with_other_processes(&self, ours: &[DeclaredState]) -> Result<Vec<DeclaredState>, StoreError> {
        if !self.store.is_shared() {
            return Ok(ours.to_vec());
        }
        let theirs = self.store.declared().await?;
        Ok(merged(&self.known.lock().unwrap_or_else(PoisonError::into_inner), ours, &theirs))
    }

    /// The number of the newest flip that this process recorded or found in the store.
    pub fn newest_flip(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Records flips and declarations, and returns the flips with their numbers. Returns once the outcome is known,
    /// however long the store takes.
    ///
    /// Each write names the newest flip that it may follow. So a write that counts as not recorded, and that the
    /// network delivers to the database late, records nothing once a newer flip is recorded.
    ///
    /// # Errors
    /// Nothing was recorded, except that an earlier attempt to record the same flips may have recorded the first of
    /// them.
    pub async fn record(&self, batch: RecordBatch) -> Result<Vec<FlipRecord>, StoreError> {
        self.record_announced(batch, None).await
    }

    /// As [`FlipRecorder::record`], but records nothing if the store does not have this announcement any more.
    ///
    /// # Errors
    /// As there, or the store does not have the announcement any more.
    pub async fn record_announced(
        &self,
        batch: RecordBatch,
        announced: Option<StandingAnnouncement>,
    ) -> Result<Vec<FlipRecord>, StoreError> {
        let RecordBatch { mut flips, declared, judged_by } = batch;
        let judged_by = judged_by.filter(|_| self.store.is_shared());
        let mut numbers = Vec::new();
        // Kept only once all is recorded: after an error, the next attempt has to find again which flips are there.
        let mut after = judged_by.into_iter().fold(*self.newest.borrow(), u64::max);
        let mut follows_all = after == self.newest_in_force();
        let mut is_outdated = judged_by.is_some_and(|judged_by| judged_by < after);
        loop {
            if !follows_all {
                self.behind.notify_one();
            }
            if is_outdated {
                return Err(outdated_judgement());
            }
            let rest = flips[numbers.len()..].to_vec();
            // Read in each try: the store refuses a write if another process has recorded a flip since. If another
            // process records declarations without a flip between this and the write, they are overwritten.
            let merged = match &declared {
                Some(ours) => Some(self.merged_with_other_processes(ours).await?),
                None => None,
            };
            let put = PutFlips { flips: rest.clone(), declared: merged.clone(), after, announced };
            match self.store.put_flips(put).await {
                Ok(Some(given)) => {
                    numbers.extend(given);
                    break;
                }
                // The store has a newer flip than `after`: one of another process, or the first of these flips, if an
                // earlier attempt to record them reached the store late. Or it does not have the announcement any more.
                Ok(None) => {
                    let found = self.read_back(&rest, merged.as_deref()).await?;
                    if announced.is_some() && found.newest == after {
                        return Err(StoreError(ANNOUNCEMENT_OVER.to_owned()));
                    }
                    after = found.newest;
                    follows_all &= !found.numbers.is_empty();
                    is_outdated = judged_by.is_some() && found.numbers.is_empty();
                    numbers.extend(found.numbers);
                    if !flips.is_empty() && numbers.len() == flips.len() {
                        break;
                    }
                }
                Err(error) => {
                    numbers.extend(self.look_up(&rest, merged.as_deref(), error).await?);
                    break;
                }
            }
        }
        if let Some(ours) = declared {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = ours;
        }
        let newest = numbers.iter().copied().fold(after, u64::max);
        match follows_all {
            true => self.set_newest_in_force(newest),
            false => drop(self.newest.send_replace(newest)),
        }
        for (flip, number) in flips.iter_mut().zip(numbers) {
            flip.number = number;
        }
        Ok(flips)
    }

    /// Looks up whether flips were recorded after the store's reply was lost. Returns their numbers, or `error` if they
    /// were not recorded.
    async fn look_up(
        &self,
        flips: &[FlipRecord],
        declared: Option<&[DeclaredState]>,
        error: StoreError,
    ) -> Result<Vec<u64>, StoreError> {
        let mut pause = LOOK_UP_PAUSES.0;
        loop {
            match self.read_back(flips, declared).await {
                Ok(ReadBack { numbers, is_complete, newest: _ }) => return is_complete.then_some(numbers).ok_or(error),
                Err(look_up_error) => {
                    tracing::warn!(
                        %error, %look_up_error, flips = flips.len(),
                        "it is not known whether the store recorded a move; asking again until the store answers"
                    );
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_UP_PAUSES.1);
        }
    }

    /// Looks for these flips in the store, or for these declarations if there are no flips.
    async fn read_back(
        &self,
        flips: &[FlipRecord],
        declared: Option<&[DeclaredState]>,
    ) -> Result<ReadBack, StoreError> {
        let stored = self.store.flips(None, flips.len().max(1)).await?;
        let newest = stored.first().map_or(0, |flip| flip.number);
        if flips.is_empty() {
            let mut declared = declared.unwrap_or_default().to_vec();
            declared.sort_by(|a, b| a.route.cmp(&b.route));
            let is_complete = self.store.declared().await? == declared;
            return Ok(ReadBack { numbers: Vec::new(), is_complete, newest });
        }
        let are_newest =
            |count: &usize| stored[..*count].iter().rev().zip(flips).all(|(stored, flip)| is_same(stored, flip));
        let count = (1..=stored.len()).rev().find(are_newest).unwrap_or(0);
        let numbers = stored[..count].iter().rev().map(|flip| flip.number).collect();
        Ok(ReadBack { numbers, is_complete: count == flips.len(), newest })
    }
}

/// Whether a flip that was read from the store is this one.
pub(super) fn is_same(stored: &FlipRecord, flip: &FlipRecord) -> bool {
    stored.route == flip.route && stored.at == flip.at && stored.by == flip.by && stored.to == flip.to
}

/// The record of a move; the store assigns its number.
pub(super) fn flip_record(made: Move, by: String, at: jiff::Timestamp, evidence: serde_json::Value) -> FlipRecord {
    let Move { route, from, to, shares, reason, overridden, gates } = made;
    let (from, to) = (from.as_str().to_owned(), to.as_str().to_owned());
    let shares: Option<Shares> = Some(shares);
    FlipRecord {
        number: 0,
        route: Some(route),
        from,
        to,
        shares,
        by,
        at,
        reason,
        forced: overridden.is_some(),
        overridden,
        evidence,
        gates,
        guard: None,
        candidate: None,
    }
}
