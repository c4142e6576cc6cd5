//! Whether a route's rules ignore the whole body, as far as their paths alone say so.

use super::rule_drafts::IgnoreDraft;
use super::rule_path::RulePath;

/// Whether rules of a route ignore the whole body.
#[derive(Clone, Copy, Default)]
pub(super) struct WholeBodyIgnored {
    /// Whether one of them has no condition.
    pub always: bool,
    /// Whether one of them has a condition.
    pub on_condition: bool,
}

impl WholeBodyIgnored {
    /// Looks at these rules. What is wrong with them is reported elsewhere.
    pub fn of(ignore: &[IgnoreDraft]) -> Self {
        let mut found = Self::default();
        for rule in ignore {
            let path = rule.0.get("path").unwrap_or(&rule.0);
            if path.as_str().is_some_and(|path| names_all(path.trim())) {
                let has_condition = rule.0.get("when").is_some();
                found.always |= !has_condition;
                found.on_condition |= has_condition;
            }
        }
        found
    }
}

/// Whether a path names all of a body: `$`, or all that is directly in it, or at any depth.
fn names_all(path: &str) -> bool {
    let path = RulePath::parse(path).ok();
    path.as_ref().and_then(RulePath::steps).is_some_and(|steps| match steps {
        [] => true,
        [step] => step.name.is_none(),
        [_, _, ..] => false,
    })
}
