//! The last changes, numbered without gaps, each with the text that is sent for it.
//!
//! Always true: a client that has the change with a number, and gets all later ones from the ring, has missed nothing
//! that this ring was told; where that is not so, [`Ring::after`] says so. An id names the ring as well as the number,
//! so that the number of another process, or of this one before a restart, is never taken for one of this ring.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::change::Change;
use crate::admin::types::ResetReason;

/// The most changes that are kept: some seconds when very much happens, hours otherwise.
pub(in crate::admin) const KEPT_MAX: usize = 4_096;

/// A change in the ring.
#[derive(Debug)]
pub(super) struct Numbered {
    pub number: u64,
    pub change: Change,
    /// The server-sent event.
    pub text: Bytes,
}

pub(super) struct Ring {
    /// Names this ring in ids.
    name: String,
    /// Ascending, without gaps.
    kept: VecDeque<Arc<Numbered>>,
    /// The number of the last change; 0 before the first.
    newest: u64,
}

impl Ring {
    pub fn new() -> Self {
        Self { name: format!("{:016x}", fastrand::u64(..)), kept: VecDeque::new(), newest: 0 }
    }

    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// The id of the change with this number.
    pub fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.name)
    }

    pub fn push(&mut self, change: Change) {
        self.newest += 1;
        let number = self.newest;
        let text = change.text(&self.id(number));
        if self.kept.len() >= KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::new(Numbered { number, change, text }));
    }

    /// The number in an id.
    ///
    /// # Errors
    /// It is no id of this ring, or the changes after it are not all kept.
    pub fn number_of(&self, id: &str) -> Result<u64, ResetReason> {
        let number = id.strip_prefix(self.name.as_str()).and_then(|rest| rest.strip_prefix('-'));
        let number = number.and_then(|number| number.parse().ok()).filter(|number| *number <= self.newest);
        let number = number.ok_or(ResetReason::Unknown)?;
        self.has_all_after(number).then_some(number).ok_or(ResetReason::Missed)
    }

    /// At most `limit` changes after this number, in order; `None` if they are not all kept.
    pub fn after(&self, number: u64, limit: usize) -> Option<Vec<Arc<Numbered>>> {
        if !self.has_all_after(number) {
            return None;
        }
        let wanted = usize::try_from(self.newest - number.min(self.newest)).unwrap_or(usize::MAX);
        let skipped = self.kept.len().saturating_sub(wanted);
        Some(self.kept.iter().skip(skipped).take(limit).cloned().collect())
    }

    fn has_all_after(&self, number: u64) -> bool {
        let oldest = self.newest + 1 - self.kept.len() as u64;
        number + 1 >= oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::types::{ChangeData, FilesChange};

    fn push(ring: &mut Ring, count: usize) {
        for _ in 0..count {
            ring.push(Change::new(ChangeData::Files(FilesChange { version: 1 })));
        }
    }

    fn numbers(ring: &Ring, after: u64, limit: usize) -> Option<Vec<u64>> {
        Some(ring.after(after, limit)?.iter().map(|one| one.number).collect())
    }

    #[test]
    fn changes_are_numbered_without_a_gap_and_read_from_any_kept_number() {
        let mut ring = Ring::new();
        assert_eq!(numbers(&ring, 0, 9), Some(vec![]));
        push(&mut ring, 5);
        assert_eq!(numbers(&ring, 0, 9), Some(vec![1, 2, 3, 4, 5]));
        assert_eq!(numbers(&ring, 3, 9), Some(vec![4, 5]));
        assert_eq!(numbers(&ring, 3, 1), Some(vec![4]));
        assert_eq!(numbers(&ring, 5, 9), Some(vec![]));
    }

    #[test]
    fn what_is_not_kept_any_more_is_said() {
        let mut ring = Ring::new();
        push(&mut ring, KEPT_MAX + 2);
        assert_eq!(ring.after(1, 9).map(|kept| kept.len()), None, "change 2 is gone");
        assert_eq!(numbers(&ring, 2, 2), Some(vec![3, 4]));
        assert_eq!(ring.number_of(&ring.id(1)), Err(ResetReason::Missed));
        assert_eq!(ring.number_of(&ring.id(2)), Ok(2));
    }

    #[test]
    fn an_id_of_another_ring_or_of_no_change_is_unknown() {
        let (mut ring, other) = (Ring::new(), Ring::new());
        push(&mut ring, 3);
        assert_eq!(ring.number_of(&ring.id(3)), Ok(3));
        for id in [other.id(3), ring.id(4), "3".into(), String::new(), format!("{}-x", ring.name)] {
            assert_eq!(ring.number_of(&id), Err(ResetReason::Unknown), "{id}");
        }
    }
}
