//! The memory limit for request bodies that are read whole before the service gets them (`buffer_request`).
//!
//! Always true: the bytes of all buffered bodies together never exceed the limit; a body for which there is no room is
//! streamed, as without `buffer_request`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use metrics::{Counter, Gauge, counter, gauge};

/// The memory for buffered bodies of all requests.
pub(super) struct RequestBuffers {
    bytes: AtomicU64,
    bytes_max: u64,
    gauge: Gauge,
    full: Counter,
}

impl RequestBuffers {
    pub(super) fn new(bytes_max: u64) -> Self {
        gauge!("pointsman_request_buffers_bytes_max").set(bytes_max as f64);
        Self {
            bytes: AtomicU64::new(0),
            bytes_max,
            gauge: gauge!("pointsman_request_buffers_bytes"),
            full: counter!("pointsman_request_buffers_full_total"),
        }
    }

    /// Begins the reservation for one body, with 0 bytes.
    pub(super) fn begin(self: &Arc<Self>) -> BufferedBytes {
        BufferedBytes { all: self.clone(), bytes: 0 }
    }
}

/// The reservation for one body, until it is dropped.
pub(super) struct BufferedBytes {
    all: Arc<RequestBuffers>,
    bytes: u64,
}

impl BufferedBytes {
    /// Reserves more bytes. Returns whether there is room for them.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let all = &self.all;
        let add = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= all.bytes_max);
        let has_room = all.bytes.fetch_update(Relaxed, Relaxed, add).is_ok();
        if has_room {
            self.bytes += bytes;
            all.gauge.increment(bytes as f64);
        } else {
            all.full.increment(1);
        }
        has_room
    }
}

impl Drop for BufferedBytes {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.all.bytes.fetch_sub(self.bytes, Relaxed);
            self.all.gauge.decrement(self.bytes as f64);
        }
    }
}
