//! Begins the run that moves a claimed instance, waits for it, and records the outcome of the move.

use std::time::Duration;

use tokio::time::sleep;

use super::Adoptions;
use super::move_outcome::MoveOutcome;
use super::one::{STORE_PAUSE, pins};
use crate::clock;
use crate::engine::{AdoptionStart, StartError};
use crate::flag::{Family, InstanceKey, lower_case_uuid};
use crate::names::RouteId;
use crate::store::{Adoption, AdoptionOutcome, AdoptionState, InstanceChange};
use crate::workflow::{AdoptionProgress, AnswerRecord, ControlCommand};

/// How long the end of a run is waited for before its state is read again.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The pause before the next attempt if the engine cannot begin the run yet or does not say how it ended: for example
/// while an earlier start of the run may still be stored.
const PAUSE: Duration = Duration::from_millis(200);
/// Who is recorded as having cancelled a run that waits for a person's input: nobody is asked for input while neither
/// arm answers for the instance.
const CANCELLED_BY: &str = "adoption";

impl Adoptions {
    /// Begins the run of a claim, if it has not begun, and waits until it is known what it did; then records the
    /// outcome. Ends earlier only if this process ends.
    pub(super) async fn finish(&self, adoption: Adoption) -> MoveOutcome {
        let mut may_have_begun = false;
        loop {
            let progress = match self.engine.adoption_progress(adoption.run).await {
                Ok(progress) => progress,
                Err(error) => {
                    tracing::warn!(
                        %error, run = %adoption.run,
                        "the state of an adoption's run cannot be read: it is tried again"
                    );
                    if self.engine.is_draining() {
                        return MoveOutcome::Moving;
                    }
                    sleep(STORE_PAUSE).await;
                    continue;
                }
            };
            let (state, reason) = match progress {
                None => match self.begin(&adoption).await {
                    Begun::Yes => continue,
                    Begun::Perhaps => {
                        may_have_begun = true;
                        sleep(STORE_PAUSE).await;
                        continue;
                    }
                    Begun::Later => return MoveOutcome::Moving,
                    // An earlier start of the run has not ended, and may still be stored.
                    Begun::No(_) if self.engine.has_task(adoption.run) => {
                        sleep(PAUSE).await;
                        continue;
                    }
                    Begun::No(why) if may_have_begun => {
                        let why = format!("it is not known whether its run began, and it does not begin now: {why}");
                        (AdoptionState::Unknown, Some(why))
                    }
                    Begun::No(why) => {
                        // In a shared store, another process may be about to begin the run.
                        if self.is_used_by_another(&adoption).await {
                            return MoveOutcome::Moving;
                        }
                        (AdoptionState::GivenBack, Some(why))
                    }
                },
                Some(AdoptionProgress::Running) => {
                    if self.engine.is_draining() {
                        return MoveOutcome::Moving;
                    }
                    let ended = self.engine.wait_until_ended_or_awaits_input(adoption.run, LOOK_EVERY).await;
                    if ended.is_none_or(|summary| !summary.status.has_ended_or_awaits_input()) {
                        sleep(PAUSE).await;
                    }
                    continue;
                }
                Some(AdoptionProgress::Stopped) => {
                    let reason = Some("nobody can be asked while the instance is moved".to_owned());
                    let cancel = ControlCommand::Cancel { compensate: false, reason, automatic: true };
                    if let Err(error) = self.engine.give_command(adoption.run, cancel, CANCELLED_BY.to_owned()).await {
                        tracing::warn!(%error, run = %adoption.run, "a run that adopts an instance was not cancelled");
                        sleep(STORE_PAUSE).await;
                    }
                    continue;
                }
                Some(AdoptionProgress::Adopted(answer)) => match self.why_other_instance(&adoption, &answer) {
                    None => (AdoptionState::Adopted, None),
                    Some(why) => (AdoptionState::Unknown, Some(why)),
                },
                Some(AdoptionProgress::NotReleased(why)) => (AdoptionState::GivenBack, Some(why)),
                Some(AdoptionProgress::Unknown(why)) => (AdoptionState::Unknown, Some(why)),
            };
            return self.record_outcome(&adoption, state, reason, None).await;
        }
    }

    async fn begin(&self, adoption: &Adoption) -> Begun {
        let route = self.creator(&adoption.key.family);
        let start = AdoptionStart {
            run: adoption.run,
            workflow: adoption.workflow.clone(),
            route,
            id: adoption.id.clone(),
            by: adoption.by.clone(),
        };
        loop {
            if self.engine.is_draining() {
                return Begun::Later;
            }
            if self.engine.why_unresumed().is_none() {
                break;
            }
            sleep(PAUSE).await;
        }
        match self.engine.begin_adoption(start).await {
            Ok(()) => Begun::Yes,
            Err(StartError::Store { why, unknown }) => {
                tracing::warn!(why, unknown, run = %adoption.run, "a run that adopts an instance was not begun yet");
                Begun::Perhaps
            }
            Err(error) if self.engine.is_draining() => {
                tracing::debug!(%error, "an adoption is left to the next process");
                Begun::Later
            }
            Err(error) => Begun::No(error.to_string()),
        }
    }

    /// Why the instance that the workflow read is not the one that was claimed: its answer has another id. Legacy may
    /// read several spellings as one id, and then the instance would be adopted once for each.
    pub(super) fn why_other_instance(&self, adoption: &Adoption, answer: &AnswerRecord) -> Option<String> {
        let flags = self.flags.load();
        let creator = flags.route(&self.creator(&adoption.key.family))?;
        let instance = creator.route.instance.as_ref()?;
        let id = instance.created_id(&answer.headers, &answer.body.value())?;
        // Upper and lower case spell one UUID.
        let spelled = |id: &str| lower_case_uuid(id).unwrap_or_else(|| id.to_owned());
        (spelled(&id) != spelled(&adoption.id)).then(|| {
            format!("the workflow answered with an instance whose id is {id:?}, and {:?} was asked for", adoption.id)
        })
    }

    /// The present id of the route that creates the instances of a family, by an id under which they are stored.
    pub(super) fn creator(&self, stored: &RouteId) -> RouteId {
        let flags = self.flags.load();
        let found = flags.routes.iter().find(|flag| flag.route.ids().any(|id| id == stored));
        found.map_or_else(|| stored.clone(), |flag| flag.route.id.clone())
    }

    /// The instance of an adoption, in the family that has it by the files in force.
    pub(super) fn instance_key(&self, adoption: &Adoption) -> InstanceKey {
        let flags = self.flags.load();
        let found = flags.routes.iter().find(|flag| flag.route.ids().any(|id| *id == adoption.key.family));
        let family = found.map_or_else(|| adoption.key.family.clone().into(), |flag| Family::of(&flag.route));
        InstanceKey { family, id: adoption.id.clone() }
    }

    /// Records how an adoption ended, or that its outcome is unknown. Waits until the store has it.
    pub(super) async fn record_outcome(
        &self,
        adoption: &Adoption,
        state: AdoptionState,
        reason: Option<String>,
        by: Option<String>,
    ) -> MoveOutcome {
        let key = self.instance_key(adoption);
        // So that the gate to `only` counts the instance even if no request has shown it before.
        if state == AdoptionState::Unknown || state == AdoptionState::GivenBack && by.is_some() {
            let shown = InstanceChange::LegacyListed(adoption.key.clone(), clock::now());
            self.apply(&key, vec![shown]).await;
        }
        let outcome = AdoptionOutcome {
            key: adoption.key.clone(),
            run: adoption.run,
            state,
            reason: reason.clone(),
            by,
            at: clock::now(),
        };
        let holds = loop {
            match self.store.record_adoption_outcome(outcome.clone()).await {
                Ok(holds) => break holds,
                Err(error) => {
                    tracing::warn!(%error, run = %adoption.run, "the store did not record the outcome of an adoption, and is asked again; until it does, the instance gets 503");
                    if self.engine.is_draining() {
                        return MoveOutcome::Moving;
                    }
                    sleep(STORE_PAUSE).await;
                }
            }
        };
        let family = self.creator(&adoption.key.family);
        if holds && adoption.state != state {
            let counter = metrics::counter!(
                "pointsman_instances_adopted_total", "route" => family.to_string(), "outcome" => state.as_str()
            );
            counter.increment(1);
            tracing::info!(route = %family, run = %adoption.run, outcome = state.as_str(), reason, "the move of an instance has ended");
        }
        match state {
            AdoptionState::Adopted if holds => {
                self.affinity.record_adoption(&pins(adoption), Some(adoption.run));
                self.end_under_other_ids(adoption).await;
            }
            // The next request asks the store for the owner; also if another outcome was recorded meanwhile (`!holds`).
            AdoptionState::Adopted | AdoptionState::GivenBack | AdoptionState::Unknown | AdoptionState::Moving => {
                self.affinity.forget_pins(&pins(adoption));
            }
        }
        MoveOutcome::of(&Adoption { state, reason, ..adoption.clone() })
    }

    /// Records that legacy no longer has an adopted instance, under every other id of the instance's family. If the
    /// process ends first, the instance counts as legacy's until the next bulk move.
    pub(super) async fn end_under_other_ids(&self, adoption: &Adoption) {
        let (key, mut ended) = (self.instance_key(adoption), Vec::new());
        for other in key.stored_keys().filter(|other| *other != adoption.key) {
            if !matches!(self.store.legacy_instance(other.clone()).await, Ok(None)) {
                ended.push(InstanceChange::LegacyEnded(other, clock::now()));
            }
        }
        if !ended.is_empty() {
            self.apply(&key, ended).await;
        }
    }

    /// Records changes of an instance at legacy. Waits until the store has them, unless this process is ending.
    async fn apply(&self, key: &InstanceKey, changes: Vec<InstanceChange>) {
        loop {
            let Err(error) = self.affinity.instances().apply(&key.family, changes.clone()).await else { return };
            tracing::warn!(%error, "the store did not record what is known of an instance, and is asked again");
            if self.engine.is_draining() {
                return;
            }
            sleep(STORE_PAUSE).await;
        }
    }
}

/// Whether the run of a claim has begun.
enum Begun {
    /// It has begun.
    Yes,
    /// It may have begun: once the store answers, the run's events show it, and a late start may still be stored.
    Perhaps,
    /// It has not, because this process is ending: the next process begins it.
    Later,
    /// It will not begin, for this reason.
    No(String),
}
