//! PURE. What the arms hand to each other.
//!
//! The question it answers: "what does one side of the switch need to know of the other?" Both arms are tower
//! services over these types, so `proxy` and `shadow` never see the engine, and the engine never sees them.
//! Always true: an [`Answered`] exists only once the reply does; a [`Ticket`] ends in exactly one outcome.

mod affinity;
mod answered;
mod arm;
mod offer;

pub use affinity::{Affinity, LegacyTake, OwnerUnknown, Remembered};
pub use answered::{Answered, RequestCopy, request_digest};
pub use arm::{Abandoned, ArmAnswer, ArmReply, ArmRequest, FROZEN, Problem, RunReport, Source};
pub use offer::{Offer, Outcome, Served, Settle, Ticket, Watch};
