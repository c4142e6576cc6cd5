//! The slots of the file of retry keys: checksums, numbers and times in them, and the ring's records.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use jiff::Timestamp;

use crate::flag::RetryKey;

pub(super) const SLOT: usize = 64;
/// Slots before the ring.
pub(super) const HEAD_SLOTS: u64 = 64;
/// Zeros are written in pieces of this size, and the file is read in such pieces.
const PIECE: usize = 1 << 20;

pub(super) type Slot = [u8; SLOT];

/// A first try that legacy took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub seq: u64,
    pub at: Timestamp,
    pub key: RetryKey,
}

impl Record {
    pub(super) fn slot(&self) -> Slot {
        let mut slot = [0; SLOT];
        slot[8..16].copy_from_slice(&self.seq.to_le_bytes());
        slot[16..24].copy_from_slice(&millis(self.at));
        slot[24..56].copy_from_slice(&self.key.0);
        slot
    }

    fn read(slot: &[u8]) -> Option<Self> {
        let seq = number(slot, 8);
        Some(Self { seq, at: time(slot, 16)?, key: key(slot) }).filter(|_| seq > 0)
    }
}

/// Reads the first `records` slots of the ring that are not empty: the record, or the index of a slot that cannot be read.
pub(super) fn read_ring(file: &File, records: u64, mut found: impl FnMut(Result<Record, u64>)) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let (mut at, end) = (HEAD_SLOTS * SLOT as u64, (HEAD_SLOTS + records) * SLOT as u64);
    let mut index = 0;
    while at < end {
        let bytes = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        file.read_exact_at(&mut piece[..bytes], at)?;
        for slot in piece[..bytes].chunks_exact(SLOT) {
            if !is_empty(slot) {
                found(checked(slot).and_then(Record::read).ok_or(index));
            }
            index += 1;
        }
        at += bytes as u64;
    }
    Ok(())
}

/// Writes zeros from one slot to another: space that is allocated cannot run out later.
pub(super) fn fill(file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; PIECE];
    let (mut at, end) = (from * SLOT as u64, to * SLOT as u64);
    while at < end {
        let bytes = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        file.write_all_at(&zeros[..bytes], at)?;
        at += bytes as u64;
    }
    Ok(())
}

pub(super) fn checksum(slot: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    sum.copy_from_slice(&blake3::hash(&slot[8..]).as_bytes()[..8]);
    sum
}

pub(super) fn checked(slot: &[u8]) -> Option<&[u8]> {
    (!is_empty(slot) && checksum(slot) == slot[..8]).then_some(slot)
}

pub(super) fn is_empty(slot: &[u8]) -> bool {
    slot.iter().all(|byte| *byte == 0)
}

pub(super) fn number(slot: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&slot[at..at + 8]);
    u64::from_le_bytes(bytes)
}

pub(super) fn first_16(bytes: &[u8]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&bytes[..16]);
    first
}

pub(super) fn millis(at: Timestamp) -> [u8; 8] {
    at.as_millisecond().to_le_bytes()
}

pub(super) fn time(slot: &[u8], at: usize) -> Option<Timestamp> {
    Timestamp::from_millisecond(number(slot, at).cast_signed()).ok()
}

fn key(slot: &[u8]) -> RetryKey {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&slot[24..56]);
    RetryKey(bytes)
}
