//! Parses the conditions of rules: `when:` and `assert:`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::json;

use crate::expression::{Expression, Scope};
use crate::problem::{Problems, Site, nearest};

/// The statuses of HTTP.
const STATUSES: RangeInclusive<u16> = 100..=599;

/// Parses one expression, written as `${…}`; `what` names it in a message.
pub(super) fn parse(text: &str, what: &str, site: &Site, problems: &mut Problems) -> Option<Expression> {
    let trimmed = text.trim();
    let Some(source) = trimmed.strip_prefix("${").and_then(|t| t.strip_suffix('}')) else {
        problems
            .error(site, format!("{what} has to be one expression in `${{…}}`"))
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
        // The condition has the same value for all pairs.
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
    if may_read_all && !expression.reads().is_empty() {
        warn_of_constant_status(&expression, site, problems);
    }
    may_read_all.then_some(expression)
}

/// Warns of a condition over the status that no status fulfils, and of a comparison with what is no status.
fn warn_of_constant_status(condition: &Expression, site: &Site, problems: &mut Problems) {
    let holds = |status: u16| {
        let mut scope = Scope::new();
        scope.set("legacy", Arc::new(json!({ "status": status })));
        condition.holds(&scope) == Ok(true)
    };
    let hint = "a status is a number from 100 to 599: `${legacy.status >= 400}`";
    if condition.reads().iter().all(|read| read.root() == "legacy") {
        if !STATUSES.into_iter().any(holds) {
            problems.warn(site, "the condition holds for no status from 100 to 599").hint(hint);
        }
    } else if let Some(comparison) = constant_comparison(condition.source()) {
        let message = format!("`{comparison}` is the same for every status from 100 to 599");
        problems.warn(site, message).hint(hint);
    }
}

/// A comparison of the status with a number that gives the same for every status.
fn constant_comparison(source: &str) -> Option<&str> {
    const STATUS: &str = "legacy.status";
    source.match_indices(STATUS).find_map(|(start, _)| {
        let rest = source[start + STATUS.len()..].trim_start();
        let (rest, holds) =
            SIGNS.iter().find_map(|(sign, holds)| Some((rest.strip_prefix(sign)?.trim_start(), holds)))?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..end].parse().ok()?;
        let first = holds(&u64::from(*STATUSES.start()), &number);
        let is_constant = STATUSES.into_iter().all(|status| holds(&status.into(), &number) == first);
        is_constant.then(|| &source[start..source.len() - rest.len() + end])
    })
}

/// Compares two numbers.
type ComparisonOf = fn(&u64, &u64) -> bool;

/// The comparisons by their signs; a sign that begins another one is after it.
const SIGNS: [(&str, ComparisonOf); 6] =
    [("==", u64::eq), ("!=", u64::ne), ("<=", u64::le), (">=", u64::ge), ("<", u64::lt), (">", u64::gt)];
