//! What every group of events defines: the names of its kinds, and the step that an event is about.

use crate::names::StepId;

/// Defines the names of a group's kinds, as they are stored.
macro_rules! kinds {
    ($group:ident { $($pattern:pat => $name:literal,)+ }) => {
        impl $group {
            /// The names of all kinds of this group.
            pub(super) const KINDS: &'static [&'static str] = &[$($name),+];

            /// The name of this event's kind in the store and in listings.
            pub fn kind(&self) -> &'static str {
                match self { $($pattern => $name),+ }
            }
        }
    };
}
pub(super) use kinds;

/// The step that an event is about, and the item of its `for_each`.
pub(super) type EventSubject<'a> = Option<(&'a StepId, Option<u32>)>;
