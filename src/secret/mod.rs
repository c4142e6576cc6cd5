//! Values that must not be shown, and what is shown in their place.

mod assignments;
mod cut;
mod detect;
mod escaped;
mod forms;
mod keyed;
mod markup;
mod names;
mod number;
mod path_params;
mod private_keys;
mod quoted;
mod redact;
mod rules;
mod search;
mod text_hash;
mod value_lines;
mod walk;
mod walk_columns;
mod walk_lines;
mod walk_markup;
#[cfg(test)]
mod walk_tests;

use std::sync::Arc;

pub use cut::{BEGINNING_CHARS_MIN, CUT, LengthMax, masked_and_cut};
pub use detect::{Detectors, replace_detected};
pub use escaped::forms_in_texts;
pub use forms::{
    are_name_value_pairs, decoded_component, has_alternating_names, holds_a_name, is_children_order,
    may_name_next_element, parse_json_container, secret_name_before_value, value_of_pair, values_of_secrets,
};
pub use keyed::{REDACTED, RedactionKey, is_redacted};
pub use markup::CDATA;
pub use names::{is_field_name, is_secret, is_weakly_secret, set_secret_names, singular};
pub use number::CanonicalNumber;
pub use path_params::{is_secret_segment, without_secret_params};
pub use private_keys::{PrivateKeyLines, private_key_items};
pub use quoted::{QUOTED_SECRETS_MAX, QuotedSecrets, forms_in_shown_texts};
pub use redact::{SEALED, STARS, is_hidden, redact_line};
pub use rules::RedactRules;
pub use search::{is_quoted_in, quotes_and_cut_quotes_in, quotes_in, replaced};
pub use text_hash::TextHash;
pub use walk::{FoundSecret, USER_INFO, replace_secrets, with_distinct_keys};

/// A value that is never shown: `Debug` prints stars, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<Arc<str>>) -> Self {
        Self(value.into())
    }
    /// The value, for the one place that sends or compares it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}
