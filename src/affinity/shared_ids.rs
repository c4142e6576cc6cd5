//! Ids that instances of several families have, before files join the creators of these families in one.

use std::time::Duration;

use tokio::time::timeout;

use super::StoreAffinity;
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
    /// given out to another instance under an id of another group. At most `IDS_MAX` for each two ids.
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
                    let id_of_two = |(id, run)| {
                        let pin = PinKey { family: engine.clone(), id };
                        IdOfTwoInstances { pin, run, other: RouteId::clone(other) }
                    };
                    found.extend(ids.into_iter().map(id_of_two));
                }
            }
        }
        Ok(found)
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
