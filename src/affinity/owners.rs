//! Which arm owns an instance, by its pins.

use crate::flag::{Arm, Owner};
use crate::names::RunId;

/// The owner of an instance that has pins under several ids of its family: unknown if one of the look-ups failed. A pin
/// of the engine takes precedence over one of legacy, because legacy does not know the engine's instances; a twin whose
/// run is known takes precedence over one whose run is not.
pub(super) fn higher_precedence(one: (Owner, Option<RunId>), other: (Owner, Option<RunId>)) -> (Owner, Option<RunId>) {
    let rank = |(owner, run): &(Owner, Option<RunId>)| match owner {
        Owner::Unknown => 4,
        Owner::Engine => 3,
        Owner::LegacyWithTwin => 1 + u8::from(run.is_some()),
        Owner::NoPin => 0,
    };
    if rank(&other) > rank(&one) { other } else { one }
}

/// The owner of an instance with this pin, or none.
pub(super) fn owner_of(pin: Option<(Arm, Option<RunId>)>) -> (Owner, Option<RunId>) {
    match pin {
        None => (Owner::NoPin, None),
        Some((Arm::Engine, run)) => (Owner::Engine, run),
        Some((Arm::Legacy, run)) => (Owner::LegacyWithTwin, run),
    }
}
