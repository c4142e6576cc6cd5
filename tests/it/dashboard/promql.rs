//! What a PromQL expression names: series with their matchers, and the labels of its groupings.
//!
//! No parser: a scan that knows strings, matchers and the words that are followed by a list of labels. Whether the
//! expression is valid is for Prometheus to say.

use std::collections::BTreeSet;

/// A series that an expression selects.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selector {
    pub name: String,
    /// Label, operator, value.
    pub matchers: Vec<(String, String, String)>,
}

/// What an expression names.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub selectors: Vec<Selector>,
    /// Labels after `by`, `without`, `on`, `ignoring`, `group_left` and `group_right`.
    pub grouped: BTreeSet<String>,
    /// Those after `without`.
    pub without: BTreeSet<String>,
}

const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Scans an expression.
pub(super) fn scan(expression: &str) -> Named {
    let mut named = Named::default();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            rest = &rest[1 + rest[1..].find('"').expect("a string ends") + 1..];
            continue;
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        if length == 0 {
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (word, after) = rest.split_at(length);
        rest = after;
        if first.is_ascii_digit() {
            continue;
        }
        let next = after.trim_start();
        if LISTS.contains(&word) && next.starts_with('(') {
            let (list, after) = next[1..].split_once(')').expect("a list ends");
            let labels = list.split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty());
            let labels: Vec<String> = labels.collect();
            named.grouped.extend(labels.iter().cloned());
            if word == "without" {
                named.without.extend(labels);
            }
            rest = after;
        } else if let Some(inside) = after.strip_prefix('{') {
            let (matchers, after) = matchers(inside);
            named.selectors.push(Selector { name: word.to_owned(), matchers });
            rest = after;
        } else if is_series(word) {
            named.selectors.push(Selector { name: word.to_owned(), matchers: Vec::new() });
        }
    }
    named
}

fn is_series(word: &str) -> bool {
    word.starts_with("pointsman_")
        || word.starts_with("process_")
        || word.contains(':')
        || word == "ALERTS"
        || word == "up"
}

/// Reads matchers up to the closing brace; returns what follows.
fn matchers(mut rest: &str) -> (Vec<(String, String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return (found, after);
        }
        let at = rest.find(['=', '!']).expect("an operator");
        let label = rest[..at].trim().to_owned();
        let quote = at + rest[at..].find('"').expect("a value");
        let operator = rest[at..quote].trim().to_owned();
        let end = quote + 1 + rest[quote + 1..].find('"').expect("a value ends");
        found.push((label, operator, rest[quote + 1..end].to_owned()));
        rest = &rest[end + 1..];
    }
}

#[test]
fn an_expression_is_scanned() {
    let text = r#"sum without (instance) (rate(pointsman_a_total{x=~"b|c", y!="d}"}[5m]))
                  / on (job) group_left (z) a:b:c > 1e3 or label_replace(up, "by", "pointsman_no", "", "")"#;
    let named = scan(text);
    let names: Vec<&str> = named.selectors.iter().map(|selector| selector.name.as_str()).collect();
    assert_eq!(names, ["pointsman_a_total", "a:b:c", "up"]);
    let matcher = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(named.selectors[0].matchers, [matcher("x", "=~", "b|c"), matcher("y", "!=", "d}")]);
    assert_eq!(named.grouped.iter().map(String::as_str).collect::<Vec<_>>(), ["instance", "job", "z"]);
    assert_eq!(named.without.iter().map(String::as_str).collect::<Vec<_>>(), ["instance"]);
}
