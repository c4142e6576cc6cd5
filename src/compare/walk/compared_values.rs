//! Notes that a value of two documents was compared, and not ignored.

use super::Walk;

impl Walk<'_, '_> {
    pub(super) fn note_compared_value(&mut self) {
        if self.is_report() {
            self.context.findings.compared.note_value();
        }
    }

    /// Of two empty objects or lists, of these lengths, it is compared that they are empty.
    pub(super) fn note_if_empty(&mut self, legacy: usize, engine: usize) {
        if legacy == 0 && engine == 0 {
            self.note_compared_value();
        }
    }
}
