//! Whether records are missing in a file of retry keys.
//!
//! The question it answers: "had legacy taken first tries that this file should name and does not?"
//!
//! Always true:
//!
//! - Records are numbered from 1 without gaps and written in this order, one at a time, by one thread.
//! - After one or several records, the number of the last one is written to the progress slot.
//! - A record is overwritten only once the store has it and the progress slot says so.
//!
//! So the file must have a record for every number above that of the last stored record, up to the highest number in
//! the progress slot or in a record.
//!
//! Not damage: a single unreadable slot just after the record with the highest number. It was being written when the
//! process was killed or the power failed; legacy is called only after the write (unless the disk hung for longer than
//! a request waits), so it had not taken that try. A kill has no other effect on the file, since what was written
//! survives it. A power cut may lose what was written within the last second, in any order: legacy may have been called
//! for the records that are missing then, so they count as damage. So does an unreadable slot anywhere else, although
//! it may have held a record that the store already had. A record cannot be recognised as missing if the power cut also
//! lost its number in the progress slot.

/// What was read from the file.
pub(super) struct RingContent<'a> {
    /// Whether the header and the progress slot could be read, or the file was never written to.
    pub is_head_readable: bool,
    /// How many bytes are missing compared with the size that the progress slot names.
    pub missing_bytes: u64,
    /// The size of the ring.
    pub records: u64,
    /// All records up to this number are in the store.
    pub stored: u64,
    /// The highest number that was found, in the progress slot or in a record.
    pub last: u64,
    /// How many records above `stored` were read.
    pub waiting: u64,
    /// The indexes of the slots that are not empty and cannot be read.
    pub unreadable: &'a [u64],
}

impl RingContent<'_> {
    /// The signs that records are missing, as text for people; `None` if there is no such sign.
    pub fn damage(&self) -> Option<String> {
        let mut found = Vec::new();
        if self.missing_bytes > 0 {
            found.push(format!("it is {} bytes shorter than the size that is noted in it", self.missing_bytes));
        }
        if !self.is_head_readable {
            found.push("its header or its progress slot cannot be read".to_owned());
        }
        let lost = self.last.saturating_sub(self.stored).saturating_sub(self.waiting);
        if lost > 0 {
            found.push(match lost {
                1 => "1 record is missing".to_owned(),
                _ => format!("{lost} records are missing"),
            });
        }
        let slot_being_written = self.last % self.records;
        let unreadable = self.unreadable.iter().filter(|index| **index != slot_being_written).count();
        if unreadable > 0 {
            // A record in such a slot counts as missing too, unless the store has it.
            found.push(match unreadable {
                1 => "1 slot cannot be read".to_owned(),
                _ => format!("{unreadable} slots cannot be read"),
            });
        }
        (!found.is_empty()).then(|| found.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring of 10 records, of which numbers 6 to 12 wait for the store.
    fn undamaged() -> RingContent<'static> {
        let (stored, last, waiting) = (5, 12, 7);
        RingContent { is_head_readable: true, missing_bytes: 0, records: 10, stored, last, waiting, unreadable: &[] }
    }

    #[test]
    fn only_a_record_that_was_being_written_may_be_unreadable() {
        assert_eq!(undamaged().damage(), None);
        assert_eq!(RingContent { unreadable: &[2], ..undamaged() }.damage(), None, "number 13 was being written");
        for unreadable in [&[1][..], &[3], &[2, 3]] {
            let damage = RingContent { unreadable, ..undamaged() }.damage();
            assert_eq!(damage.as_deref(), Some("1 slot cannot be read"), "{unreadable:?}");
        }
    }

    #[test]
    fn missing_records_missing_bytes_and_an_unreadable_header_are_damage() {
        let damage = RingContent { waiting: 5, missing_bytes: 64, is_head_readable: false, ..undamaged() }.damage();
        let expected = "it is 64 bytes shorter than the size that is noted in it, its header or its progress slot cannot \
                        be read, 2 records are missing";
        assert_eq!(damage.as_deref(), Some(expected));
        let damage = RingContent { waiting: 6, unreadable: &[0, 1], ..undamaged() }.damage();
        assert_eq!(damage.as_deref(), Some("1 record is missing, 2 slots cannot be read"));
    }
}
