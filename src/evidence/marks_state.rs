//! The routes that are marked: a mark in a file says that the store may lack differences or failures of the route
//! (see `marks`). A mark counts from the end of its write until the request to clear it.

use std::collections::{BTreeMap, BTreeSet};

use crate::slot_file::SlotRoute;

/// The slots in which a mark is written: each is the index of a file and the index of a slot in this file.
pub(super) type MarkSlots = Vec<(usize, u64)>;

/// The state of all marks.
#[derive(Default)]
pub(super) struct MarksState {
    marked: BTreeMap<SlotRoute, RouteMark>,
    /// The number of writes that were requested and have not ended.
    pub outstanding: u64,
    /// Whether a write takes longer than [`MARK_WAIT_MAX`](super::mark_writer::MARK_WAIT_MAX).
    pub is_stalled: bool,
    /// The routes whose marks were requested while writes hang.
    requested: BTreeSet<SlotRoute>,
    /// Whether the last mark could not be written.
    failing: bool,
}

/// A mark of one route (or of every route).
#[derive(Default)]
struct RouteMark {
    slots: MarkSlots,
    /// How many differences were marked since the mark was written.
    difference_count: u64,
    /// How many of these differences are not counted in the evidence yet.
    uncounted: u64,
}

/// Marks whose differences are all counted, each with its number of differences at that moment.
pub(super) struct ClearableMarks(Vec<(SlotRoute, u64)>);

impl MarksState {
    pub fn is_marked(&self, route: SlotRoute) -> bool {
        self.marked.contains_key(&route)
    }

    /// Records that a mark is in these slots.
    pub fn add(&mut self, marked: SlotRoute, slots: MarkSlots) {
        let known = &mut self.marked.entry(marked).or_default().slots;
        for slot in slots {
            if !known.contains(&slot) {
                known.push(slot);
            }
        }
    }

    /// If the route is marked, counts one more difference that is not counted in the evidence yet. Returns whether it
    /// is marked.
    pub fn begin_difference(&mut self, marked: SlotRoute) -> bool {
        let Some(mark) = self.marked.get_mut(&marked) else { return false };
        mark.difference_count += 1;
        mark.uncounted += 1;
        true
    }

    /// Records that a difference of a marked route is counted in the evidence now.
    pub fn end_difference(&mut self, marked: SlotRoute) {
        if let Some(mark) = self.marked.get_mut(&marked) {
            mark.uncounted = mark.uncounted.saturating_sub(1);
        }
    }

    /// The marks whose differences are all counted.
    pub fn clearable(&self) -> ClearableMarks {
        let clearable = self.marked.iter().filter(|(_, mark)| mark.uncounted == 0);
        ClearableMarks(clearable.map(|(route, mark)| (*route, mark.difference_count)).collect())
    }

    /// Removes these marks, except those with further differences since then, and returns the slots to be cleared. From
    /// now on the routes count as not marked: a further difference makes a new mark, which is written after the
    /// clearing.
    pub fn remove(&mut self, ClearableMarks(clearable): ClearableMarks) -> Vec<(SlotRoute, MarkSlots)> {
        let mut removed = Vec::new();
        for (route, difference_count) in clearable {
            if self.marked.get(&route).is_some_and(|mark| mark.difference_count == difference_count)
                && let Some(mark) = self.marked.remove(&route)
            {
                removed.push((route, mark.slots));
            }
        }
        removed
    }

    /// Returns whether to request a mark of this route while writes hang, which is done only once.
    pub fn ask_once(&mut self, route: SlotRoute) -> bool {
        self.requested.insert(route)
    }

    /// Logs that a mark cannot be written, unless this was logged since the last success.
    pub fn log_failure(&mut self, why: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(
                "the file of evidence marks cannot be written ({why}): if the process is killed before evidence is \
                 stored, a gate that differences have shut may open"
            );
        }
    }

    /// Records that a write has ended. Once no write is outstanding, writes no longer count as hanging.
    pub fn record_write_end(&mut self) {
        self.outstanding -= 1;
        self.is_stalled &= self.outstanding > 0;
        if !self.is_stalled {
            self.requested.clear();
        }
    }

    /// Records that a mark was written.
    pub fn record_success(&mut self) {
        self.failing = false;
    }
}
