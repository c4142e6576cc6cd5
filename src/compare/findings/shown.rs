//! The form in which differences show values.

use serde_json::Value;

use super::ComparisonFindings;
use crate::compare::id_map::FoundIds;
use crate::compare::node::Node;
use crate::compare::redact;
use crate::compare::value_path::ValuePath;

impl ComparisonFindings<'_> {
    /// Returns the form in which a difference shows a text, where the text has no name that could be a secret key.
    pub(in crate::compare) fn shown_text(&self, text: &str) -> String {
        self.shown_header("", text)
    }

    /// Returns the form in which a difference shows a header's value.
    pub(in crate::compare) fn shown_header(&self, name: &str, value: &str) -> String {
        match self.sensitive {
            Some(sensitive) => redact::header(name, &sensitive.hide_in_text(value)),
            None => redact::header(name, value),
        }
    }

    /// Returns the form in which a difference shows the value at a path.
    pub(in crate::compare) fn shown_value(&self, path: &ValuePath<'_>, value: Node<'_>) -> String {
        match self.sensitive {
            Some(sensitive) => {
                let mut value = value.value().into_owned();
                sensitive.hide_in_value(&mut value);
                redact::show(path, &value)
            }
            None => redact::show(path, &value.value()),
        }
    }

    /// Returns the form in which a difference shows two ids: legacy's and the engine's.
    pub(in crate::compare) fn shown_ids(&self, found: &FoundIds) -> (String, String) {
        let show = |value: &Value| match self.sensitive {
            Some(sensitive) => {
                let mut value = value.clone();
                sensitive.hide_in_value(&mut value);
                found.shown_as.show(&value)
            }
            None => found.shown_as.show(value),
        };
        (show(&found.legacy), show(&found.engine))
    }
}
