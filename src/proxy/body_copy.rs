//! The copy of a request's body that is taken while it streams.
//!
//! Always true: the copy has at most `bytes_max` bytes. A larger body is not copied further, but still passed on.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

use crate::exchange::SentBody;

/// The copy of a request's body that is taken while it streams.
#[derive(Default)]
pub(super) struct BodyCopy {
    pub bytes: BytesMut,
    pub bytes_max: usize,
    pub too_large: bool,
    /// When the last byte was passed on.
    pub ended: Option<u64>,
    /// The whole copy, once it has been asked for.
    pub whole: Option<Bytes>,
}

impl BodyCopy {
    pub(super) fn take(&mut self, frame: &Bytes) {
        if self.too_large || self.bytes.len() + frame.len() > self.bytes_max {
            self.too_large = true;
            self.bytes = BytesMut::new();
        } else {
            // Copied, because a slice would keep the whole read buffer alive.
            self.bytes.extend_from_slice(frame);
        }
    }

    /// The whole body; `None` until all of it was passed on, and if it is too large.
    pub(super) fn whole(&mut self) -> Option<Bytes> {
        let is_whole = self.ended.is_some() && !self.too_large;
        is_whole.then(|| self.whole.get_or_insert_with(|| std::mem::take(&mut self.bytes).freeze()).clone())
    }

    /// The number of bytes that are kept.
    pub(super) fn len(&self) -> usize {
        self.whole.as_ref().map_or(self.bytes.len(), Bytes::len)
    }
}

impl SentBody for Mutex<BodyCopy> {
    fn whole(&self) -> Option<Bytes> {
        self.lock().unwrap_or_else(PoisonError::into_inner).whole()
    }
}

/// The number of bytes of a body that were copied.
pub(super) fn copied_bytes(copy: Option<&Arc<Mutex<BodyCopy>>>) -> usize {
    copy.map_or(0, |copy| copy.lock().unwrap_or_else(PoisonError::into_inner).len())
}
