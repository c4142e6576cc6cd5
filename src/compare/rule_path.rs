//! The path of a rule: a search in a document, and, where it consists of names and wildcards alone, the steps of it, so
//! that the values that it names are found on a walk.

use serde_json_path::JsonPath;

use crate::expression::{JsonPathError, parse_json_path};

/// A path of a rule.
#[derive(Clone, Debug)]
pub(super) struct RulePath {
    pub(super) search: JsonPath,
    /// `None`: what it names depends on more than the names around a value.
    steps: Option<Vec<PathStep>>,
}

/// One part of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathStep {
    /// Whether it leads to values at any depth (`..`).
    pub(super) is_deep: bool,
    /// The name of a member; `None`: any member or element (`*`).
    pub(super) name: Option<String>,
}

impl RulePath {
    /// # Errors
    /// It is no JSONPath, or a search for it may take too long.
    pub(super) fn parse(text: &str) -> Result<Self, JsonPathError> {
        Ok(Self { search: parse_json_path(text)?, steps: steps(text) })
    }

    /// Whether the steps of both paths show that all values that another path names are, or are parts of, values that
    /// this one names.
    pub(super) fn holds(&self, other: &Self) -> bool {
        let (Some(own), Some(others)) = (self.steps(), other.steps()) else { return false };
        let leads_to = |own: &PathStep, other: &PathStep| {
            own.is_deep == other.is_deep && (own.name.is_none() || own.name == other.name)
        };
        let is_begin = own.len() <= others.len() && own.iter().zip(others).all(|(own, other)| leads_to(own, other));
        // A name at any depth.
        let is_on_the_way = matches!(own, [PathStep { is_deep: true, name: Some(name) }]
            if others.iter().any(|other| other.name.as_ref() == Some(name)));
        is_begin || is_on_the_way
    }

    /// Whether a value that another path names may be one that this one names, or a part of it. `false` only if the
    /// names of both say that it is not.
    pub(super) fn may_hold_a_value_of(&self, other: &Self) -> bool {
        let (Some(own), Some(others)) = (self.steps(), other.steps()) else { return true };
        let are_plain = |steps: &[PathStep]| steps.iter().all(|step| !step.is_deep);
        match own {
            _ if are_plain(own) && are_plain(others) => {
                let may_be_same = |(own, other): (&PathStep, &PathStep)| {
                    own.name.is_none() || other.name.is_none() || own.name == other.name
                };
                own.len() <= others.len() && own.iter().zip(others).all(may_be_same)
            }
            // A name at any depth.
            [PathStep { is_deep: true, name: Some(name) }] if are_plain(others) => {
                others.iter().any(|other| other.name.is_none() || other.name.as_ref() == Some(name))
            }
            _ => true,
        }
    }

    /// The parts of a path of names and wildcards.
    pub(super) fn steps(&self) -> Option<&[PathStep]> {
        self.steps.as_deref()
    }
}

/// The parts of a valid JSONPath; `None` unless all of them are names and wildcards, plainly written.
fn steps(text: &str) -> Option<Vec<PathStep>> {
    let mut rest = text.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (is_deep, part) = match (rest.strip_prefix(".."), rest.strip_prefix('.')) {
            (Some(part), _) => (true, part),
            (None, Some(part)) => (false, part),
            (None, None) => (false, rest),
        };
        let is_named = part.len() < rest.len();
        let name;
        (name, rest) = match part.strip_prefix('[') {
            Some(inner) if is_deep || !is_named => in_brackets(inner)?,
            None if is_named => plain_name(part)?,
            Some(_) | None => return None,
        };
        steps.push(PathStep { is_deep, name });
    }
    Some(steps)
}

/// The name in brackets, `None` for a wildcard, and what follows.
fn in_brackets(inner: &str) -> Option<(Option<String>, &str)> {
    if let Some(rest) = inner.strip_prefix("*]") {
        return Some((None, rest));
    }
    let quote = inner.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let (name, rest) = inner.get(1..)?.split_once(quote)?;
    (!name.contains('\\')).then_some(())?;
    Some((Some(name.to_owned()), rest.strip_prefix(']')?))
}

/// The name behind a dot, `None` for a wildcard, and what follows.
fn plain_name(part: &str) -> Option<(Option<String>, &str)> {
    if let Some(rest) = part.strip_prefix('*') {
        return Some((None, rest));
    }
    let end = part.find(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
    let (name, rest) = part.split_at(end);
    (!name.is_empty()).then(|| (Some(name.to_owned()), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_paths_name_no_common_value_only_if_their_names_say_so() {
        let may = |path: &str, other: &str| {
            RulePath::parse(path).unwrap().may_hold_a_value_of(&RulePath::parse(other).unwrap())
        };
        for (path, other) in [
            ("$", "$.id"),
            ("$.id", "$.id"),
            ("$.lines", "$.lines[*].id"),
            ("$.*", "$.id"),
            ("$.lines[0]", "$.lines[*].id"),
            ("$..id", "$.lines[*].id"),
            ("$..a", "$[*].id"),
            ("$.id", "$..id"),
        ] {
            assert!(may(path, other), "{path} {other}");
        }
        for (path, other) in
            [("$.at", "$.id"), ("$.id.text", "$.id"), ("$.lines[*].n", "$.lines[*].id"), ("$..at", "$.a.id")]
        {
            assert!(!may(path, other), "{path} {other}");
        }
    }

    #[test]
    fn a_path_holds_what_its_steps_lead_to() {
        let holds = |path: &str, other: &str| RulePath::parse(path).unwrap().holds(&RulePath::parse(other).unwrap());
        for (path, other) in [
            ("$", "$.a"),
            ("$.a", "$.a"),
            ("$.a", "$['a'].b[*].c"),
            ("$.a[*]", "$.a[*].b"),
            ("$.*", "$.a"),
            ("$..at", "$.a[*].at"),
            ("$..at", "$..at.b"),
        ] {
            assert!(holds(path, other), "{path} {other}");
        }
        for (path, other) in [("$.a.b", "$.a"), ("$.a", "$.b"), ("$.a", "$..a"), ("$..at", "$.a"), ("$.a[0]", "$.a[0]")]
        {
            assert!(!holds(path, other), "{path} {other}");
        }
    }

    #[test]
    fn names_and_wildcards_are_steps_and_all_else_is_left_to_the_search() {
        let of = |text: &str| {
            let steps = RulePath::parse(text).unwrap().steps?;
            let shown = steps.iter().map(|PathStep { is_deep, name }| {
                format!("{}{}", if *is_deep { ".." } else { "." }, name.as_deref().unwrap_or("*"))
            });
            Some(shown.collect::<String>())
        };
        for (text, steps) in [
            ("$", ""),
            ("$.a.b_2", ".a.b_2"),
            ("$['a b'][*].c", ".a b.*.c"),
            ("$[\"it's\"]", ".it's"),
            ("$..é", "..é"),
            ("$..[*].*", "..*.*"),
            ("$..['x'].y", "..x.y"),
        ] {
            assert_eq!(of(text).as_deref(), Some(steps), "{text}");
        }
        for text in ["$[0]", "$['a','b']", "$[1:2]", "$[?@.a]", "$['a\\'b']", "$[ 'a' ]", "$ .a", "$.a[-1]"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
