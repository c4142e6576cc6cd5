//! Changes the view of a `for_each` and of the fallback that runs in place of its items.

use jiff::Timestamp;

use super::Steps;
use crate::names::StepId;
use crate::workflow::{Run, Skipped, StepStatus};

impl Steps {
    /// A fallback runs in place of one item. The items shown for the fallback are those that it replaces.
    pub(super) fn item_replaced(&mut self, (step, item): (&StepId, u32), by: &StepId, why: &str, at: Timestamp) {
        self.set_status(step, at, StepStatus::Running, Some(format!("`{by}` takes the place of item {item}: {why}")));
        let by = self.step(by, at);
        by.items = Some(by.items.unwrap_or(0) + 1);
        by.items_ended.get_or_insert(0);
        by.status = StepStatus::Running;
    }

    /// One item will not run.
    pub(super) fn item_skipped(&mut self, (step, item): (&StepId, u32), reason: Skipped, at: Timestamp, run: &Run) {
        if let Some(ended) = &mut self.step(step, at).items_ended {
            *ended += 1;
        }
        // For these reasons the item that this one would have replaced is skipped too. For other reasons it fails, and
        // the next event says so.
        if matches!(reason, Skipped::ByHand | Skipped::Rejected | Skipped::Busy) {
            self.replaced_item_ended(step, Some(item), at, run);
        }
    }

    /// Counts the items that this item replaced as ended, because this item has ended.
    pub(super) fn replaced_item_ended(&mut self, step: &StepId, item: Option<u32>, at: Timestamp, run: &Run) {
        let mut step = step;
        // A chain of fallbacks has no cycle, so this ends.
        while let (Some(_), Some(original)) = (item, run.replaced.get(step)) {
            if let Some(ended) = &mut self.step(original, at).items_ended {
                *ended += 1;
            }
            step = original;
        }
    }
}
