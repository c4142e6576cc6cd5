//! Proposes rules that explain the differences of a route.
//!
//! The question it answers: "which of these differences are noise, and which rules make exactly the noise equal?" The
//! samples are judged repeatedly (`judged`): for each place that differs, `propose` names the rule that
//! hides least (`rule`) or says why there is none; `search` keeps a rule only if with it fewer differences are left and
//! no new ones are found, and drops each that the others make superfluous.
//!
//! What counts as noise, and never as a defect:
//!
//! - ids that each arm drew: in one-to-one correspondence over all samples, in nearly all pairs of their kind, not
//!   given by the caller, and formed or named as ids are;
//! - times that both arms read from their clocks, alone or within texts: near the time of the comparison, and near each
//!   other; and times that are computed from them;
//! - numbers that differ by rounding alone;
//! - the order of arrays that legacy neither sorts nor takes from the request;
//! - a value in which legacy differs from itself, for equal requests.
//!
//! Besides, `stricter` names rules that compare more than those in force and by which no sample differs.
//!
//! Always true: no rule is proposed for a status, a call that only one arm makes, a missing value, a whole body, or a
//! difference that only few pairs have: such a difference is a defect, or a rare kind of request.

mod arrays;
mod judged;
mod lines;
mod noise;
mod propose;
mod references;
mod rule;
mod search;
mod stricter;
mod times_within;
mod values;

#[cfg(test)]
mod tests;

pub use judged::{SuggestContext, SuggestGroup, SuggestSample};
pub use search::{HiddenValues, SuggestedRule, Suggestions, Unexplained, suggest};
pub use stricter::StricterRule;
