//! Parses the conditions of rules: `when:` and `assert:`.

use crate::expression::{Expression, Scope};
use crate::problem::{Problems, Site, nearest};

/// Parses one expression, written as `${…}`; `what` names it in a message.
pub(super) fn parse(text: &str, what: &str, site: &Site, problems: &mut Problems) -> Option<Expression> {
    let trimmed = text.trim();
    let Some(source) = trimmed.strip_prefix("${").and_then(|t| t.strip_suffix('}')) else {
        problems
            .error(site, format!("{what} is one expression"))
            .hint(format!("write it as `${{{}}}`", trimmed.trim_start_matches("${").trim_end_matches('}')));
        return None;
    };
    match Expression::parse(source) {
        Ok(expression) => Some(expression),
        Err(e) => {
            let skipped = text.len() - text.trim_start().len() + 2;
            let problem = problems.error(site, e.message.clone());
            if let Some(offset) = e.offset {
                problem.offset(skipped + offset);
            }
            None
        }
    }
}

/// Parses the condition of a rule. It reads what is known before the comparison, and of legacy only the status: with
/// a condition over the body, a rule could hide just the replies that differ.
pub(super) fn when(written: Option<&(&str, Site)>, problems: &mut Problems) -> Option<Expression> {
    let (text, site) = written?;
    let expression = parse(text, "a condition", site, problems)?;
    let mut may_read_all = true;
    for read in expression.reads() {
        let root = read.root();
        let may_read = root == "request" || root == "legacy" && read.part(0) == Some("status");
        may_read_all &= may_read;
        if may_read {
            continue;
        }
        let name = if root == "legacy" {
            read.part(0).map_or(root.to_owned(), |p| format!("legacy.{p}"))
        } else {
            root.to_owned()
        };
        let problem = problems.error(site, format!("the condition of a rule cannot read `{name}`"));
        match nearest(&name, ["request", "legacy.status"]) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem.hint("it reads `request` and `legacy.status`"),
        };
    }
    if expression.reads().is_empty() {
        // It has one value for all pairs.
        match expression.holds(&Scope::new()) {
            Ok(holds) => {
                let always = if holds { "always" } else { "never" };
                problems
                    .warn(site, format!("the condition reads nothing, so it {always} holds"))
                    .hint("it reads `request` and `legacy.status`: `${legacy.status < 400}`");
            }
            Err(error) => {
                problems
                    .error(site, format!("the condition is not true or false: {}", error.message))
                    .hint("such as `${legacy.status < 400}`");
                return None;
            }
        }
    }
    may_read_all.then_some(expression)
}
