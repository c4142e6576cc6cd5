//! Which arm owns an instance, by its pins.

use crate::flag::{Arm, Owner};
use crate::names::RunId;
use crate::store::{PinAdoption, PinRecord};

/// The owner of an instance that has pins under several ids of its family: unknown if one of the look-ups failed. A pin
/// of the engine takes precedence over one of legacy, because legacy does not know the engine's instances; a twin whose
/// run is known takes precedence over one whose run is not.
pub(super) fn higher_precedence(one: (Owner, Option<RunId>), other: (Owner, Option<RunId>)) -> (Owner, Option<RunId>) {
    let rank = |(owner, run): &(Owner, Option<RunId>)| match owner {
        Owner::Unknown => 7,
        Owner::AdoptionUnknown => 6,
        Owner::Moving => 5,
        Owner::Adopted => 4,
        Owner::Engine => 3,
        Owner::LegacyWithTwin => 1 + u8::from(run.is_some()),
        Owner::NoPin => 0,
    };
    if rank(&other) > rank(&one) { other } else { one }
}

/// The owner of an instance with this pin.
pub(super) fn owner_of(pin: &PinRecord) -> (Owner, Option<RunId>) {
    let owner = match (pin.arm, pin.adoption) {
        (Arm::Legacy, _) => Owner::LegacyWithTwin,
        (Arm::Engine, None) => Owner::Engine,
        (Arm::Engine, Some(PinAdoption::Adopted)) => Owner::Adopted,
        (Arm::Engine, Some(PinAdoption::Moving)) => Owner::Moving,
        (Arm::Engine, Some(PinAdoption::Unknown)) => Owner::AdoptionUnknown,
    };
    (owner, pin.run)
}
