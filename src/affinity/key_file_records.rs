//! The records in the ring of the file of retry keys.

use std::io;

use jiff::Timestamp;

use crate::flag::RetryKey;
use crate::slot_file::{self, FileSlot, SLOT_BYTES, SlotFile, bytes_at, number_at};

/// Slots before the ring.
pub(super) const HEAD_SLOTS: u64 = 64;

/// A first try that legacy took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub seq: u64,
    pub at: Timestamp,
    pub key: RetryKey,
}

impl Record {
    pub(super) fn slot(&self) -> FileSlot {
        let mut slot = [0; SLOT_BYTES];
        slot[8..16].copy_from_slice(&self.seq.to_le_bytes());
        slot[16..24].copy_from_slice(&millis(self.at));
        slot[24..56].copy_from_slice(&self.key.0);
        slot
    }

    fn read(slot: &FileSlot) -> Option<Self> {
        let seq = number_at(slot, 8);
        Some(Self { seq, at: time_at(slot, 16)?, key: RetryKey(bytes_at(slot, 24)) }).filter(|_| seq > 0)
    }
}

/// Reads the ring, which has `records` slots. Calls `found` for each slot that is not free: with its record, or with
/// its index in the ring if it cannot be read.
pub(super) fn read_ring(file: &SlotFile, records: u64, mut found: impl FnMut(Result<Record, u64>)) -> io::Result<()> {
    file.read(HEAD_SLOTS..HEAD_SLOTS + records, |place, slot| {
        if !slot_file::is_free(slot) {
            let record = slot_file::is_whole(slot).then(|| Record::read(slot)).flatten();
            found(record.ok_or(place - HEAD_SLOTS));
        }
    })
}

pub(super) fn millis(at: Timestamp) -> [u8; 8] {
    at.as_millisecond().to_le_bytes()
}

pub(super) fn time_at(slot: &FileSlot, at: usize) -> Option<Timestamp> {
    Timestamp::from_millisecond(number_at(slot, at).cast_signed()).ok()
}
