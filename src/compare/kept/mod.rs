//! What is kept of a pair that differs, so that it can be judged again under other rules.
//!
//! The question it answers: "would this pair still differ if the rules were these?" `keep` stores the pair without
//! anything secret, `mask` replaces each secret value by a placeholder, `rejudge` compares what is kept once more.
//!
//! Always true: nothing secret is kept; equal values of one pair have the same placeholder and different values
//! different ones, so that an exact comparison of placeholders says what a comparison of the values would; a pair is
//! judged again only if what is kept shows the same differences under the rules in force as the pair itself did. What
//! depends on more than the equality of a placeholder, or on a body of which only the digest is kept, is not judged,
//! and never counts as equal. (Ids within a secret value are not followed: where both sides have the same secret, its
//! ids count as the right ones.)
//!
//! The caller stores what is kept and bounds how many pairs are.

mod body;
mod calls;
mod keep;
mod mask;
mod record;
mod rejudge;

#[cfg(test)]
mod tests;

pub use calls::{CallPair, CallText, ComparedTo};
pub use keep::{KeepContext, SensitiveParts, keep};
pub(super) use mask::{holds_masked, is_masked};
pub use record::{KeptCall, KeptPair, KeptReply, NotKept, PairRecord};
pub(super) use rejudge::ReadPair;
pub use rejudge::{NotJudged, Rejudged, rejudge};
