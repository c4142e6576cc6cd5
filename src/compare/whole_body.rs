//! Whether a route's rules ignore the whole body.

use serde_json::Value;

use super::condition;
use super::rule_drafts::IgnoreDraft;
use crate::expression::Expression;
use crate::problem::{Problems, Site};

/// The paths that name all of a body.
const WHOLE: [&str; 4] = ["$", "$.*", "$..*", "$[*]"];

/// The rules of a route that ignore the whole body.
#[derive(Clone, Default)]
pub(super) struct WholeBodyIgnored {
    /// Whether one of them has no condition.
    pub always: bool,
    /// The conditions of the others.
    pub when: Vec<Expression>,
}

impl WholeBodyIgnored {
    /// Of these rules, whose problems are reported elsewhere.
    pub fn of(ignore: &[IgnoreDraft], site: &Site) -> Self {
        let mut found = Self::default();
        for rule in ignore {
            let path = rule.0.get("path").unwrap_or(&rule.0);
            if !path.as_str().is_some_and(|path| WHOLE.contains(&path.trim())) {
                continue;
            }
            match rule.0.get("when").and_then(Value::as_str) {
                None => found.always = true,
                Some(when) => found.when.extend(condition::when(Some(&(when, site.clone())), &mut Problems::default())),
            }
        }
        found
    }

    /// Whether some of them have a condition.
    pub fn has_conditions(&self) -> bool {
        !self.when.is_empty()
    }
}
