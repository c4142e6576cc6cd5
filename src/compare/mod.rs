//! PURE. Two observations held against each other.
//!
//! The question it answers: "did both arms do the same, and where not?" Always true: an [`Observation`] is frozen when
//! it is made; a [`Comparison`] is bounded in time, size and depth; `ignored` is a verdict of its own and stays
//! counted. Which requests are compared is `flag`'s and `shadow`'s business, what comparisons add up to is
//! `evidence`'s.

mod observation;
mod rules;
mod verdict;

pub use observation::{Body, Intent, Observation};
pub use rules::Rules;
pub use verdict::{Comparison, Difference, Kind, Verdict};
