//! What of a pair was compared, and not ignored.

/// What of a pair was compared so far.
#[derive(Default)]
pub(super) struct ComparedParts {
    /// Whether a value, or a line of a text, was compared since [`ComparedParts::take_value`] was called last.
    value: bool,
    /// Whether anything of the replies was.
    pub(super) replies: bool,
}

impl ComparedParts {
    /// Notes that a value was compared.
    pub(super) fn note_value(&mut self) {
        self.value = true;
    }

    /// Whether a value was compared since the last call.
    pub(super) fn take_value(&mut self) -> bool {
        std::mem::take(&mut self.value)
    }
}
