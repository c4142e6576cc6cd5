//! Notes that a value of two documents was compared, and not ignored.

use super::Walk;

impl Walk<'_, '_> {
    pub(super) fn note_compared_value(&mut self) {
        if self.is_report() {
            self.context.findings.compared.note_value();
        }
    }

    /// Notes a compared value if two objects or lists, of these lengths, are empty: that they are is what is compared.
    pub(super) fn note_if_empty(&mut self, legacy: usize, engine: usize) {
        if legacy == 0 && engine == 0 {
            self.note_compared_value();
        }
    }
}
