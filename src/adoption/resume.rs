//! Resumes the moves that the last process left, and records the outcome of unknown adoptions whose run goes on after
//! all.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Adoptions;
use super::one::pins;
use crate::affinity::RequestsEnded;
use crate::flag::ADOPT_SETTLES;
use crate::store::{Adoption, AdoptionState, StoreError};
use crate::workflow::AdoptionProgress;

/// The pause between two rounds of [`Adoptions::resume`].
const RECHECK_EVERY: Duration = Duration::from_secs(2);
/// How long a resumed move waits for the requests that legacy has of its instance before it looks whether this process
/// is draining.
const REQUESTS_WAIT: Duration = Duration::from_secs(5);
/// How many adoptions are read at a time.
const PAGE: usize = 500;

impl Adoptions {
    /// In rounds, for ever: sets the gauges, resumes the moves that a process left when it ended, and records the
    /// outcome of each unknown adoption whose outcome is known by now. A round is left out, and the store is not asked,
    /// if no route has `adopt:` and the round before found no move that was open or unknown.
    pub async fn resume(self: Arc<Self>) {
        let mut has_open = true;
        loop {
            if !has_open && !self.flags.load().routes.iter().any(|flag| flag.adopt.is_some()) {
                sleep(RECHECK_EVERY).await;
                continue;
            }
            has_open = self.publish().await;
            // In each round, not only in the first: another process may end in the middle of a move.
            if let Err(error) = self.resume_moving().await {
                tracing::debug!(%error, "the store does not say which instances are being moved");
            }
            if let Err(error) = self.recheck_unknown().await {
                tracing::debug!(%error, "the store does not say which adoptions are unknown");
            }
            sleep(RECHECK_EVERY).await;
        }
    }

    /// Begins to resume the moves that the last process left; waits for the store for at most this long.
    pub async fn begin_to_resume(self: Arc<Self>, within: Duration) {
        if !matches!(tokio::time::timeout(within, self.resume_moving()).await, Ok(Ok(()))) {
            tracing::warn!("the store does not say yet which instances were being moved: their requests get 503");
        }
    }

    async fn resume_moving(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.adoptions(None, vec![AdoptionState::Moving], after, PAGE).await?;
            after = page.last().map(|last| last.key.clone());
            let is_last = page.len() < PAGE;
            for adoption in page {
                let key = self.instance_key(&adoption);
                let Ok(mark) = self.affinity.requests_at_legacy().begin(&key) else { continue };
                // The move may have ended since the page was read, or another process may still make it.
                if !self.may_resume(&adoption).await? {
                    continue;
                }
                self.affinity.record_adoption(&pins(&adoption), None);
                if self.is_of_backup(&adoption) {
                    let why = "the store is a backup: what was done after it was made is not known".to_owned();
                    self.record_outcome(&adoption, AdoptionState::Unknown, Some(why), None).await;
                    continue;
                }
                let this = self.clone();
                tracing::info!(route = %adoption.key.family, run = %adoption.run, "the move of an instance is resumed");
                self.runtime.spawn(async move {
                    // A process that has just started has no requests at legacy. This one may have some if the claim is
                    // its own: the claim was stored, but the store's reply was lost.
                    while mark.requests_ended(Instant::now() + REQUESTS_WAIT).await != RequestsEnded::Yes {
                        if this.engine.is_draining() {
                            return;
                        }
                        sleep(RECHECK_EVERY).await;
                    }
                    this.finish(adoption).await;
                    drop(mark);
                });
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Whether this process may resume a move: the claim still holds, and no other process uses the store. If another
    /// one did, it might be about to begin the run of the claim.
    async fn may_resume(&self, adoption: &Adoption) -> Result<bool, StoreError> {
        if self.other_process(adoption).await?.is_some() {
            return Ok(false);
        }
        let newest = self.store.adoption(adoption.key.clone()).await?;
        Ok(newest.is_some_and(|newest| newest.run == adoption.run && newest.state == AdoptionState::Moving))
    }

    /// The name of another process that uses the store, or did so a moment ago.
    async fn other_process(&self, adoption: &Adoption) -> Result<Option<String>, StoreError> {
        if !self.store.is_shared() {
            return Ok(None);
        }
        let rule = self.flags.load().route(&self.creator(&adoption.key.family)).and_then(|flag| flag.adopt.clone());
        let settles = rule.map_or(ADOPT_SETTLES, |rule| rule.settles);
        self.store.used_by_another(self.engine.worker(), settles.as_secs()).await
    }

    /// Whether another process uses the store, or the store does not say.
    pub(super) async fn is_used_by_another(&self, adoption: &Adoption) -> bool {
        !matches!(self.other_process(adoption).await, Ok(None))
    }

    /// Whether the store is a backup that already had this claim: the original has gone on with it.
    fn is_of_backup(&self, adoption: &Adoption) -> bool {
        self.store.restored().is_some_and(|restored| adoption.claimed < restored.started)
    }

    /// The outcome of an unknown adoption, if the run has decided it by now: the state, and the reason for it.
    pub(super) async fn late_outcome(
        &self,
        adoption: &Adoption,
    ) -> Result<Option<(AdoptionState, Option<String>)>, StoreError> {
        Ok(match self.engine.adoption_progress(adoption.run).await? {
            Some(AdoptionProgress::Adopted(answer)) if self.why_other_instance(adoption, &answer).is_some() => None,
            Some(AdoptionProgress::Adopted(_)) => Some((AdoptionState::Adopted, None)),
            // The original may have told legacy to release the instance after the backup was made.
            Some(AdoptionProgress::NotReleased(_)) if self.is_of_backup(adoption) => None,
            Some(AdoptionProgress::NotReleased(why)) => Some((AdoptionState::GivenBack, Some(why))),
            Some(AdoptionProgress::Running | AdoptionProgress::Stopped | AdoptionProgress::Unknown(_)) | None => None,
        })
    }

    /// Records the outcome of each unknown adoption whose outcome is known by now: a person may have let its run go on,
    /// or cancelled it.
    async fn recheck_unknown(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.adoptions(None, vec![AdoptionState::Unknown], after, PAGE).await?;
            after = page.last().map(|last| last.key.clone());
            let is_last = page.len() < PAGE;
            for adoption in page {
                let Some((state, reason)) = self.late_outcome(&adoption).await? else { continue };
                let Ok(_mark) = self.affinity.requests_at_legacy().begin(&self.instance_key(&adoption)) else {
                    continue;
                };
                self.record_outcome(&adoption, state, reason, None).await;
            }
            if is_last {
                return Ok(());
            }
        }
    }
}
