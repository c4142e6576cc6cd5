//! Checks in the background whether both arms gave out the same id (a pin collision), whichever was first.
//!
//! The id of an adopted instance came from legacy, so a reply of legacy that has it shows no collision if the reply was
//! given before the instance was claimed, or to a client's retry. Any other such reply shows that legacy has given the
//! id to a second instance, and requests about the second instance would reach the adopted one.
//!
//! Always true: no request waits for a check; the queue is bounded. An id for which the queue has no room is not
//! checked, and the log says so. While the store does not answer, the ids wait.
//!
//! A process that is killed may have found a collision that is not in the store. So each start checks once more the
//! newest pins that the engine has made in each family.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::instances::Instances;
use super::pin_counts::PinCountsById;
use crate::flag::{Arm, Family, InstanceKey, PinKey};
use crate::names::{RouteId, RunId};
use crate::store::{PinRecord, StoreError, StoreHandle};

/// The most checks that wait in the queue.
const QUEUE_MAX: usize = 16_384;
/// The most checks that are taken from the queue together.
const BATCH_MAX: usize = 512;
/// How many pins of each family are checked at a start, the newest: more than are made while a collision is on its way
/// to the store.
const CHECKED_AT_START_MAX: usize = 1_000;
/// A pin is checked at a start only if it is at most this much older than the newest pin of its family: older ones were
/// checked, and their collisions stored, while the process that made the newest one could still write to the store.
const CHECKED_AT_START_AGE: SignedDuration = SignedDuration::from_mins(10);
/// How many times a healthy store is asked about one id.
const TRIES_MAX: u32 = 8;
/// The pauses before the store is asked again, each twice as long as the one before.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// A message to the task that checks.
pub(super) enum CheckMessage {
    /// Legacy created an instance in a family of which the engine owns some: the pin's key, when legacy's reply ended,
    /// and whether that was the reply to a client's retry.
    Instance { key: PinKey, replied_at: Timestamp, is_retry: bool },
    /// A run of the engine has pinned an instance.
    Pinned(PinKey, RunId),
    /// The process has started: the newest pins that the last process made are to be checked.
    NewestPins,
    /// Replies when all messages before this one are processed.
    Flush(oneshot::Sender<()>),
}

/// The sending end of the queue.
pub(super) struct CollisionChecks {
    queue: mpsc::Sender<CheckMessage>,
}

impl CollisionChecks {
    pub(super) fn start(store: StoreHandle, families: Arc<PinCountsById>, instances: Arc<Instances>) -> Self {
        let (queue, received) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run(received, Checker { store, families, instances }));
        let checks = Self { queue };
        checks.send(CheckMessage::NewestPins);
        checks
    }

    pub(super) fn send(&self, message: CheckMessage) {
        if self.queue.try_send(message).is_err() {
            tracing::warn!(
                queue = QUEUE_MAX,
                "an id that an arm gave out is not checked for a pin collision: too many checks wait"
            );
        }
    }

    /// Waits until everything in the queue is checked, however long the store takes.
    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.queue.send(CheckMessage::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
    }
}

/// Runs until the sending end is dropped.
async fn run(mut received: mpsc::Receiver<CheckMessage>, checker: Checker) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while received.recv_many(&mut batch, BATCH_MAX).await > 0 {
        for message in batch.drain(..) {
            match message {
                CheckMessage::Instance { key, replied_at, is_retry } => {
                    checker.check(&key, GivenBy::Legacy { replied_at, is_retry }).await;
                }
                CheckMessage::Pinned(key, run) => {
                    let family = checker.instances.family_of(&key.family);
                    checker.check(&key, GivenBy::Run(run, &family)).await;
                }
                CheckMessage::NewestPins => checker.check_newest().await,
                CheckMessage::Flush(done) => drop(done.send(())),
            }
        }
    }
}

/// Who gave out an id last.
#[derive(Clone, Copy)]
enum GivenBy<'a> {
    /// Legacy, in a reply that ended at this time.
    Legacy { replied_at: Timestamp, is_retry: bool },
    /// This run of the engine, in this family.
    Run(RunId, &'a Family),
}

struct Checker {
    store: StoreHandle,
    families: Arc<PinCountsById>,
    instances: Arc<Instances>,
}

impl Checker {
    /// Checks an id that legacy gave out, or that a run gave out. Asks until the store answers. Must not give up while
    /// the store is down: during that time the engine falls back, so legacy creates most instances, and their ids have
    /// to be checked.
    async fn check(&self, key: &PinKey, by: GivenBy<'_>) {
        if let Some(Some(run)) = self.ask((&key.family, &*key.id), || self.collision(key, by)).await {
            self.families.record_collision(key, run);
        }
    }

    /// Checks the newest pins of each family without an open collision. Pins that are older than the last acceptance of
    /// the family's collisions are left out: the acceptance covers them.
    async fn check_newest(&self) {
        let families = self.families.without_open_collision();
        let Some((first, _)) = families.first() else { return };
        let Some(rows) = self.ask((first, "the earlier ids"), || self.store.declared()).await else { return };
        for (stored_under, accepted) in families {
            let pins = || self.store.pins(stored_under.clone(), Arm::Engine, CHECKED_AT_START_MAX);
            let Some(pins) = self.ask((&stored_under, "the newest pins"), pins).await else { continue };
            // The files are not read yet. The store has the ids that the files gave the routes when they were last in
            // force.
            let row = rows.iter().find(|row| row.route == stored_under || row.earlier_ids.contains(&stored_under));
            let family = row.map_or_else(
                || Family::from(stored_under.clone()),
                |row| Family::new(row.route.clone(), row.earlier_ids.clone().into()),
            );
            let newest = pins.iter().map(|pin| pin.at).max();
            let is_recent =
                |pin: &PinRecord| newest.is_some_and(|at| at.duration_since(pin.at) <= CHECKED_AT_START_AGE);
            let is_new = |pin: &PinRecord| is_recent(pin) && accepted.is_none_or(|accepted| pin.at > accepted);
            for PinRecord { key, run, .. } in pins.into_iter().filter(is_new) {
                if let Some(run) = run {
                    self.check(&key, GivenBy::Run(run, &family)).await;
                }
            }
        }
    }

    /// Asks the store until it answers. `about` names in the log what is asked for, in the family of this route.
    /// `None`: the store answers other questions, and this one only with errors.
    async fn ask<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        (route, about): (&RouteId, &str),
        question: impl Fn() -> F,
    ) -> Option<T> {
        let (mut pause, mut tries) = (RETRY_PAUSE_MIN, 0);
        loop {
            let error = match question().await {
                Ok(answer) => return Some(answer),
                Err(error) => error,
            };
            // A row that cannot be read must not keep all other ids from being checked.
            tries = if self.store.healthy() { tries + 1 } else { 0 };
            if tries >= TRIES_MAX {
                tracing::error!(
                    %error, %route, about,
                    "whether both arms gave out this id cannot be read: a pin collision may go unnoticed"
                );
                return None;
            }
            if pause == RETRY_PAUSE_MIN {
                tracing::warn!(
                    %error, %route, about,
                    "whether both arms gave out this id is not known; the store is asked again"
                );
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    /// If both arms gave out the id: the run that pinned it for the engine, as far as the store names it.
    async fn collision(&self, key: &PinKey, by: GivenBy<'_>) -> Result<Option<Option<RunId>>, StoreError> {
        if let GivenBy::Run(run, family) = by
            && !self.legacy_had(&InstanceKey { family: family.clone(), id: key.id.clone() }, run).await?
        {
            return Ok(None);
        }
        let Some(pin) = self.store.pin(key.clone()).await?.filter(|pin| pin.arm == Arm::Engine) else {
            return Ok(None);
        };
        // The id of an adopted instance is legacy's own: legacy's replies until the claim (`pin.at`), and those to
        // retries, are no collision.
        let is_collision = match by {
            GivenBy::Legacy { replied_at, is_retry } => pin.adoption.is_none() || !is_retry && replied_at > pin.at,
            GivenBy::Run(run, _) => pin.adoption.is_none() && pin.run == Some(run),
        };
        Ok(is_collision.then_some(pin.run))
    }

    /// Whether legacy gave out this id before the run began; for a rerun, before the first run of its job began,
    /// because an earlier run of the job may itself have created the instance at legacy.
    async fn legacy_had(&self, instance: &InstanceKey, run: RunId) -> Result<bool, StoreError> {
        if !self.instances.legacy_had(instance, began(run.0)).await? {
            return Ok(false);
        }
        let job = self.store.run(run).await?.and_then(|summary| summary.job);
        match job.filter(|job| job.0 != run.0) {
            Some(job) => self.instances.legacy_had(instance, began(job.0)).await,
            None => Ok(true),
        }
    }
}

/// When a run or a job began, by its id (UUIDv7). A job has the UUID of its first run.
fn began(id: Uuid) -> Timestamp {
    let (seconds, nanos) = id.get_timestamp().map_or((0, 0), |time| time.to_unix());
    let nanos = i32::try_from(nanos).unwrap_or(0);
    Timestamp::new(seconds.cast_signed(), nanos).unwrap_or(Timestamp::MIN)
}
