//! When is something outside the run looked at?
//!
//! Always true: one look is under way at a time, and what changes meanwhile is looked at when it has ended: nothing that
//! was poked about goes unseen. Looks themselves belong to `outside`.

/// Something that is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Watch {
    /// Nobody looks.
    #[default]
    Idle,
    /// Somebody does; whether something changed since that look began.
    UnderWay { again: bool },
}

impl Watch {
    /// Something may have changed: whether a look has to begin now.
    pub fn begins(&mut self) -> bool {
        let begins = *self == Watch::Idle;
        *self = Watch::UnderWay { again: !begins };
        begins
    }
    /// The look has ended: whether another one has to begin.
    pub fn ended(&mut self) -> bool {
        std::mem::take(self) == Watch::UnderWay { again: true }
    }
    /// Nobody looks.
    pub fn is_idle(self) -> bool {
        self == Watch::Idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_during_a_look_is_looked_at_once_more() {
        let mut watch = Watch::default();
        assert!(watch.begins() && !watch.begins() && !watch.begins());
        assert!(watch.ended() && watch.is_idle());
        assert!(watch.begins() && !watch.ended(), "one more, however often it changed");
        assert!(!watch.ended(), "a look that nobody began changes nothing");
    }
}
