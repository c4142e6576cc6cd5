//! The differences of a route: groups, samples side by side, and rules that would hide them.

pub(super) mod difference_groups;
pub(super) mod difference_summary;
pub(super) mod difference_view;
pub(super) mod difference_words;
pub(super) mod groups_page;
pub(super) mod line_words;
pub(super) mod reply_text;
pub(super) mod rule_suggestions;
pub(super) mod rule_trial;
pub(super) mod sample_view;
pub(super) mod side_by_side;
pub(super) mod text_marks;
