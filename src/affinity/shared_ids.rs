//! Ids that instances of several families have, before files join the creators of these families in one.

use std::time::Duration;

use tokio::time::timeout;

use super::StoreAffinity;
use super::collision_check::began;
use crate::flag::PinKey;
use crate::names::{RouteId, RunId};
use crate::store::StoreError;

/// The most ids that are looked up for each two ids of creators.
const IDS_MAX: usize = 100;
/// How long the store is waited for to write what is not in it yet.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// An id of an instance of the engine that another instance has too, in another family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdOfTwoInstances {
    /// The key of the engine's pin.
    pub pin: PinKey,
    /// The run that pinned it.
    pub run: Option<RunId>,
    /// The id of the other family's creator.
    pub other: RouteId,
}

impl StoreAffinity {
    /// Ids that the engine has given out, or adopted, under an id of one of these groups, and that either arm has
    /// given out to another instance under an id of another group. Not all of them if there are many. What only a
    /// follow-up has shown at legacy since the engine's run began does not count where this process can tell, because
    /// the run itself may have created it there.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn ids_of_two_instances(&self, groups: &[Vec<RouteId>]) -> Result<Vec<IdOfTwoInstances>, StoreError> {
        let late = |_| StoreError("what is known of instances could not be written to it in time".into());
        timeout(WRITE_TIMEOUT, self.instances.refresh(None)).await.map_err(late)??;
        let mut found = Vec::new();
        for group in groups {
            let others: Vec<&RouteId> = groups.iter().filter(|other| *other != group).flatten().collect();
            for engine in group {
                for other in &others {
                    let ids = self.store.ids_under_both(engine.clone(), RouteId::clone(other), IDS_MAX).await?;
                    // Of more than are looked up, one may be another instance.
                    let are_all = ids.len() < IDS_MAX;
                    for (id, run) in ids {
                        let pin = PinKey { family: engine.clone(), id };
                        let id_of_two = IdOfTwoInstances { pin, run, other: RouteId::clone(other) };
                        if !are_all || !self.may_be_the_same(&id_of_two).await? {
                            found.push(id_of_two);
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    /// Whether the other instance is one of legacy's that only a follow-up has shown since the engine's run, or the
    /// first one of its job, began.
    async fn may_be_the_same(&self, found: &IdOfTwoInstances) -> Result<bool, StoreError> {
        let IdOfTwoInstances { pin, run, other } = found;
        let Some(run) = *run else { return Ok(false) };
        let key = PinKey { family: other.clone(), id: pin.id.clone() };
        if self.store.pin(key.clone()).await?.is_some_and(|pin| pin.run != Some(run)) {
            return Ok(false);
        }
        let job = self.store.run(run).await?.and_then(|summary| summary.job);
        let first = job.map_or(run.0, |job| job.0);
        self.instances.is_only_followed_up_since(key, began(first)).await
    }

    /// Records a pin collision for each of these pins, and waits until the store has them. If the store takes longer
    /// than a bounded time, that goes on in the background.
    pub async fn record_ids_of_two_instances(&self, pins: impl Iterator<Item = (&PinKey, Option<RunId>)>) {
        for (pin, run) in pins {
            self.families.record_collision(pin, run);
        }
        if timeout(WRITE_TIMEOUT, self.collision_records.flush()).await.is_err() {
            tracing::warn!("the store does not have the pin collisions yet: a restart would forget them");
        }
    }
}
