//! Bounds the number of open event streams (`api_streams_max`).

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use crate::limits::Limits;

/// One slot for each stream that may be open.
pub(super) struct StreamSlots {
    semaphore: Arc<Semaphore>,
    max: u64,
}

/// A slot in use; dropping it frees the slot.
pub(super) struct StreamSlot(#[allow(dead_code)] OwnedSemaphorePermit);

impl StreamSlots {
    pub fn new(limits: &Limits) -> Self {
        let max = limits.api_streams_max.min(limits.api_connections_max / 2);
        let permits = usize::try_from(max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { semaphore: Arc::new(Semaphore::new(permits)), max }
    }

    /// Takes a slot, or refuses at once if none is free: to the client, waiting for a slot would look like a stream
    /// without events.
    pub fn acquire(&self) -> Result<StreamSlot, ApiError> {
        self.semaphore.clone().try_acquire_owned().map(StreamSlot).map_err(|_| {
            let detail = format!("{} streams are open, which is the most (api_streams_max)", self.max);
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too-many-streams", "Too many streams are open", detail)
                .hint("repeat the request without `stream`, or poll with GET")
        })
    }
}
