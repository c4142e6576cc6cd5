//! Whether something outside a run is looked at now, and whether it has to be looked at again.
//!
//! Always true: one look is under way at a time, and what changes meanwhile is looked at once more when it has ended:
//! no change goes unseen.

/// The state of the looks at one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Looks {
    /// None is under way.
    #[default]
    Idle,
    /// One is; whether something changed since it began.
    UnderWay { again: bool },
}

impl Looks {
    /// Something may have changed: whether a look has to begin now.
    pub fn begin(&mut self) -> bool {
        let begins = *self == Looks::Idle;
        *self = Looks::UnderWay { again: !begins };
        begins
    }
    /// The look has ended: whether another one has to begin.
    pub fn end(&mut self) -> bool {
        std::mem::take(self) == Looks::UnderWay { again: true }
    }
    /// None is under way.
    pub fn is_idle(self) -> bool {
        self == Looks::Idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_during_a_look_is_looked_at_once_more() {
        let mut looks = Looks::default();
        assert!(looks.begin() && !looks.begin() && !looks.begin());
        assert!(looks.end() && looks.is_idle());
        assert!(looks.begin() && !looks.end(), "one more, however often it changed");
        assert!(!looks.end(), "a look that nobody began changes nothing");
    }
}
