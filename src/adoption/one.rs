//! Moves one instance: waits until legacy has answered the instance's requests, then claims it in the store. The run
//! that follows is in `claimed_run`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::move_outcome::MoveOutcome;
use super::{Adoptions, CountedSince, found_by};
use crate::affinity::RequestsEnded;
use crate::clock;
use crate::flag::{AdoptRule, Freeze, InstanceKey, PinKey, RouteFlag, lower_case_uuid};
use crate::names::RunId;
use crate::store::{Adoption, AdoptionClaim, AdoptionState, NewAdoption};

/// The pause before the store is asked again after an error.
pub(super) const STORE_PAUSE: Duration = Duration::from_millis(500);

/// A request that may change something and was decided by earlier files has not ended.
struct EarlierWriteOpen;

impl Adoptions {
    /// Why no instance of this family may be moved now, as text; `None` if they may be moved.
    pub(super) fn why_no_move(&self, key: &InstanceKey) -> Option<String> {
        let flags = self.flags.load();
        if !flags.routes.iter().any(|flag| flag.family == key.family && flag.adopt.is_some()) {
            return Some("the files no longer say `adopt:` for its family".to_owned());
        }
        if flags.freeze != Freeze::No {
            return Some("new instances of the engine are frozen".to_owned());
        }
        if let Some(below) = flags.follower_below_live(&key.family) {
            return Some(format!(
                "`{}` follows the instances up and is not in `live`: all requests of an adopted instance go to the engine",
                below.route.id
            ));
        }
        if self.affinity.collided(&key.family) {
            return Some("both arms have given out one id: the engine gets no new instances of this family".to_owned());
        }
        if self.engine.is_draining() {
            return Some("this process is shutting down".to_owned());
        }
        self.engine.why_unresumed().map(|why| format!("the runs of the last process are not resumed yet: {why}"))
    }

    /// When the last request that this process has not counted can no longer take effect at legacy (`settles`). Such a
    /// request was sent by an earlier process, or by this one before it counted those of its route. `None`: there was
    /// none.
    ///
    /// # Errors
    /// A request that was decided by earlier files has not ended.
    fn uncounted_settled_at(&self, key: &InstanceKey, settles: Duration) -> Result<Option<Instant>, EarlierWriteOpen> {
        let state = self.state();
        let flags = self.flags.load();
        let of_family = flags.routes.iter().filter(|flag| flag.family == key.family && flag.adopt.is_some());
        // No entry for these settings: their files came into force a moment ago, and `count_since` has not been called
        // for them. Then the requests are counted from now on.
        let counted_since = |flag: &RouteFlag| match state.counted_since.get(&flag.route.id) {
            Some(CountedSince { at, found_by: by, earlier }) if *by == found_by(flag) => {
                earlier.iter().try_fold(*at, |at, writes| {
                    let ended = writes.ended().ok_or(EarlierWriteOpen)?;
                    Ok(Instant::from_std(ended).max(at))
                })
            }
            Some(_) | None => Ok(Instant::now()),
        };
        let mut all_counted_since = None;
        for flag in of_family {
            all_counted_since = all_counted_since.max(Some(counted_since(flag)?));
        }
        // If all routes are counted since this process started, only an earlier process has sent uncounted requests.
        let is_since_start = all_counted_since.is_none_or(|at| at <= self.created_at);
        let last_uncounted = all_counted_since.filter(|_| !is_since_start).max(self.legacy_requests_unknown_before);
        Ok(last_uncounted.map(|at| at + settles))
    }

    /// Moves an instance: waits at most `within` until legacy has answered the earlier requests of the instance, then
    /// for the run, however long it takes. An instance that stays legacy's is not tried again for a while.
    pub(super) async fn move_one(
        self: Arc<Self>,
        key: InstanceKey,
        rule: Arc<AdoptRule>,
        by: String,
        within: Duration,
    ) -> MoveOutcome {
        let moved = self.try_to_move(&key, &rule, by, within).await;
        match &moved {
            MoveOutcome::GivenBack(_) | MoveOutcome::NotTried(_) => self.mark_tried(key.stored_key()),
            MoveOutcome::Adopted | MoveOutcome::Unknown(_) | MoveOutcome::Moving | MoveOutcome::EngineOwns => {}
        }
        moved
    }

    async fn try_to_move(&self, key: &InstanceKey, rule: &AdoptRule, by: String, within: Duration) -> MoveOutcome {
        if let Some(why) = self.why_no_move(key) {
            return MoveOutcome::NotTried(why);
        }
        let until = Instant::now() + within;
        let Ok(uncounted_settled_at) = self.uncounted_settled_at(key, rule.settles) else {
            let why = "a request that may change something, and began under earlier files, has not ended, and it is not \
                       known which instance it is about";
            return MoveOutcome::NotTried(why.to_owned());
        };
        if let Some(at) = uncounted_settled_at.filter(|at| *at > Instant::now()) {
            if at > until {
                return MoveOutcome::NotTried(
                    "legacy may still be working on requests that began before this process counted them (`settles`)"
                        .to_owned(),
                );
            }
            tokio::time::sleep_until(at).await;
        }
        let mark = match self.affinity.requests_at_legacy().begin(key) {
            Ok(mark) => mark,
            Err(moved) => {
                moved.await;
                return self.look_up(key).await;
            }
        };
        match mark.requests_ended(until).await {
            RequestsEnded::Yes => {}
            RequestsEnded::UnderWay => {
                return MoveOutcome::NotTried("legacy has not finished a request about this instance".to_owned());
            }
            RequestsEnded::Unsettled(_) => {
                let why = "the end of a request to legacy was not seen, and legacy may go on with it (`settles`)";
                return MoveOutcome::NotTried(why.to_owned());
            }
        }
        // What forbids a move may have begun while legacy's requests were waited for.
        match self.why_no_move(key) {
            Some(why) => MoveOutcome::NotTried(why),
            None => self.claim(key, rule, by).await,
        }
    }

    /// The outcome, as the store has it, of a move that another task of this process has made.
    async fn look_up(&self, key: &InstanceKey) -> MoveOutcome {
        match self.adoption_of(key).await {
            Ok(Some(adoption)) => MoveOutcome::of(&adoption),
            Ok(None) => MoveOutcome::NotTried("it was not claimed".to_owned()),
            Err(_) => MoveOutcome::Moving,
        }
    }

    /// Claims an instance that is marked as moving, and finishes its move.
    async fn claim(&self, key: &InstanceKey, rule: &AdoptRule, by: String) -> MoveOutcome {
        let stored_key = match self.adoption_of(key).await {
            Ok(before) => before.map_or_else(|| key.stored_key(), |before| before.key),
            Err(error) => return MoveOutcome::NotTried(format!("the store does not answer: {error}")),
        };
        let new = NewAdoption {
            pins: pin_keys(&stored_key, &key.id),
            key: stored_key,
            id: key.id.clone(),
            twins: key.pin_keys().collect(),
            run: RunId(Uuid::now_v7()),
            workflow: rule.workflow.clone(),
            by,
            at: clock::now(),
            worker: self.engine.worker(),
            settles_s: rule.settles.as_secs(),
        };
        let claimed = loop {
            match self.store.claim_adoption(new.clone()).await {
                Ok(claimed) => break claimed,
                // The claim may be stored although the reply was lost, so it is repeated until the store
                // confirms or refuses it. Meanwhile no new request goes to legacy.
                Err(error) => {
                    tracing::warn!(
                        %error, family = %key.family.id(),
                        "the claim of an instance is not confirmed by the store: it is repeated; until then its \
                         requests get 503"
                    );
                    if self.engine.is_draining() {
                        // From now on the instance's requests ask the store for the owner, instead of going to legacy.
                        self.affinity.record_adoption(&new.pins, None);
                        return MoveOutcome::Moving;
                    }
                    sleep(STORE_PAUSE).await;
                }
            }
        };
        match claimed {
            AdoptionClaim::Claimed => {
                self.affinity.record_adoption(&new.pins, None);
                let forbidden = self.why_no_move(key);
                let adoption = Adoption {
                    key: new.key,
                    id: new.id,
                    run: new.run,
                    workflow: new.workflow,
                    state: AdoptionState::Moving,
                    reason: None,
                    by: new.by,
                    claimed: new.at,
                    at: new.at,
                };
                // Asked once more after the claim is stored: if new files have removed `adopt:` meanwhile, this process
                // no longer counts the instance's requests, and legacy may be working on one.
                match forbidden {
                    Some(why) => self.record_outcome(&adoption, AdoptionState::GivenBack, Some(why), None).await,
                    None => self.finish(adoption).await,
                }
            }
            AdoptionClaim::Held(adoption) if adoption.state == AdoptionState::Moving => {
                // Nobody works on this claim: the process that made it has ended, or this process left it open (because
                // another process used the store) and has not resumed it yet.
                self.affinity.record_adoption(&new.pins, None);
                self.finish(adoption).await
            }
            AdoptionClaim::Held(adoption) => {
                // The process that adopted it may have ended before it recorded legacy's instance as ended under the
                // family's other ids.
                if adoption.state == AdoptionState::Adopted {
                    self.end_under_other_ids(&adoption).await;
                }
                MoveOutcome::of(&adoption)
            }
            AdoptionClaim::EngineOwns => MoveOutcome::EngineOwns,
            AdoptionClaim::OtherProcess(name) => MoveOutcome::NotTried(format!(
                "`{name}` uses the store too, or did so until a moment ago: what it has sent to legacy is not known here; \
                 let one process run alone"
            )),
        }
    }
}

/// The keys of the pins of an adopted instance.
pub(super) fn pins(adoption: &Adoption) -> Vec<PinKey> {
    pin_keys(&adoption.key, &adoption.id)
}

/// The keys of the pins of an instance that is claimed under this key: one for each spelling of its id.
fn pin_keys(claimed: &PinKey, id: &Arc<str>) -> Vec<PinKey> {
    let ids = [Some(id.clone()), lower_case_uuid(id).map(Arc::from)];
    ids.into_iter().flatten().map(|id| PinKey { family: claimed.family.clone(), id }).collect()
}
