//! Bounds the number of open event streams of a listener: `api_streams_max`, and half of `api_connections_max`.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use crate::limits::Limits;

/// The slots for open event streams.
pub(super) struct StreamSlots {
    semaphore: Arc<Semaphore>,
    max: u64,
    /// The name of the limit from which `max` follows.
    bound: &'static str,
}

/// A slot in use; dropping it frees the slot.
pub(super) struct StreamSlot(#[allow(dead_code)] OwnedSemaphorePermit);

impl StreamSlots {
    pub fn new(limits: &Limits) -> Self {
        let half = limits.api_connections_max / 2;
        let (max, bound) = match limits.api_streams_max {
            streams if streams <= half => (streams, "api_streams_max"),
            _ => (half, "half of api_connections_max"),
        };
        let permits = usize::try_from(max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { semaphore: Arc::new(Semaphore::new(permits)), max, bound }
    }

    /// Takes a slot; refuses at once if none is free, since a client that waited for a slot would take it for a stream
    /// without events.
    pub fn acquire(&self) -> Result<StreamSlot, ApiError> {
        self.semaphore.clone().try_acquire_owned().map(StreamSlot).map_err(|_| {
            let detail = format!("{} streams are open, which is the most ({})", self.max, self.bound);
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too-many-streams", "Too many streams are open", detail)
                .hint("repeat the request without `stream`, or poll with GET")
        })
    }
}
