//! Checked rules of one route.
//!
//! Always true: every path and expression has been parsed; an assert reads only `request`, `legacy`, `engine` and
//! `intents` of steps that exist.

use http::HeaderName;
use serde_json::Value;
use serde_json_path::JsonPath;

use super::awaited::AwaitedIntents;
use super::draft::{CompareContext, RulesDraft, StatusDraft};
use super::number::Decimal;
use super::times;
use crate::expression::{Expression, JsonPathError, ReadPath, parse_json_path};
use crate::names::StepId;
use crate::problem::{Problems, Site, nearest};

/// Identifies a rule where its uses are counted: its index in [`Rules::texts`].
pub(super) type RuleId = usize;

/// Checked rules of one route.
#[derive(Clone)]
pub struct Rules {
    /// Each rule as text, by its id.
    pub(super) texts: Vec<String>,
    pub(super) status: Status,
    pub(super) headers: Vec<HeaderName>,
    pub(super) ignored_headers: Vec<(HeaderName, RuleId)>,
    pub(super) ignore: Vec<(JsonPath, RuleId)>,
    pub(super) ids: Vec<(JsonPath, RuleId)>,
    pub(super) unordered: Vec<(JsonPath, RuleId, Unordered)>,
    pub(super) tolerance: Vec<(JsonPath, RuleId, Tolerance)>,
    pub(super) asserts: Vec<(String, Expression)>,
    hash: String,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Status {
    Exact,
    Class { rule: RuleId },
}

/// How the elements of an array whose order does not matter are paired.
#[derive(Clone, Debug)]
pub(super) enum Unordered {
    Set,
    Key(String),
}

/// By how much two values may differ.
#[derive(Clone, Debug)]
pub(super) enum Tolerance {
    Number(Decimal),
    /// In nanoseconds.
    Time(i128),
}

impl Default for Rules {
    fn default() -> Self {
        let headers = vec![http::header::CONTENT_TYPE, http::header::LOCATION];
        Self {
            texts: Vec::new(),
            status: Status::Exact,
            headers,
            ignored_headers: Vec::new(),
            ignore: Vec::new(),
            ids: Vec::new(),
            unordered: Vec::new(),
            tolerance: Vec::new(),
            asserts: Vec::new(),
            hash: hash_of(&RulesDraft::default()),
        }
    }
}

impl Rules {
    /// Checks a draft. `site` is the position of the `compare:` value in its file.
    pub fn check(
        draft: &RulesDraft,
        site: &Site,
        context: &CompareContext<'_>,
        problems: &mut Problems,
    ) -> Option<Rules> {
        let errors_before = problems.iter().filter(|p| p.severity == crate::problem::Severity::Error).count();
        let mut rules = Rules { hash: hash_of(draft), ..Rules::default() };
        if draft.status == StatusDraft::Class {
            rules.status = Status::Class { rule: rules.register("status class".into()) };
        }
        if let Some(names) = &draft.headers {
            let site = site.key("headers");
            let parsed = names.iter().enumerate().filter_map(|(n, name)| header(name, &site.index(n), problems));
            rules.headers = parsed.collect();
        }
        for (n, text) in draft.ignore.iter().enumerate() {
            let site = site.key("ignore").index(n);
            if let Some(name) = text.strip_prefix("header.") {
                if let Some(name) = header(name, &site, problems) {
                    let rule = rules.register(format!("ignore header.{name}"));
                    rules.ignored_headers.push((name, rule));
                }
            } else if let Some(path) = path(text, &site, problems) {
                let rule = rules.register(format!("ignore {text}"));
                rules.ignore.push((path, rule));
            }
        }
        for (n, text) in draft.ids.iter().enumerate() {
            if let Some(path) = path(text, &site.key("ids").index(n), problems) {
                let rule = rules.register(format!("ids {text}"));
                rules.ids.push((path, rule));
            }
        }
        for (text, how) in &draft.unordered {
            let site = site.key("unordered").key(text.as_str());
            let path = path(text, &site.clone().at_key(), problems);
            let how = match how.as_str() {
                "" => {
                    problems.error(&site, "an empty key").hint("`set`, or the name of the field that is the key");
                    continue;
                }
                "set" => Unordered::Set,
                key => Unordered::Key(key.into()),
            };
            if let Some(path) = path {
                let rule = rules.register(format!("unordered {text}"));
                rules.unordered.push((path, rule, how));
            }
        }
        for (text, by) in &draft.tolerance {
            let site = site.key("tolerance").key(text.as_str());
            let path = path(text, &site.clone().at_key(), problems);
            let by = tolerance(&by.0, &site, problems);
            if let (Some(path), Some(by)) = (path, by) {
                let rule = rules.register(format!("tolerance {text}"));
                rules.tolerance.push((path, rule, by));
            }
        }
        for (n, text) in draft.assert.iter().enumerate() {
            if let Some(expression) = assert(text, &site.key("assert").index(n), context, problems) {
                rules.asserts.push((text.trim().to_owned(), expression));
            }
        }
        let errors_after = problems.iter().filter(|p| p.severity == crate::problem::Severity::Error).count();
        (errors_after == errors_before).then_some(rules)
    }

    /// Equal for equal rules. Evidence that was collected under other rules does not count.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Whether there are asserts: they read the request.
    pub fn has_asserts(&self) -> bool {
        !self.asserts.is_empty()
    }

    /// The intents that the asserts read.
    pub fn awaited_intents(&self) -> AwaitedIntents {
        let reads = self.asserts.iter().flat_map(|(_, expression)| expression.reads());
        // A path that names no step may read all of them.
        let step = |read: &ReadPath| read.part(0).filter(|name| !name.ends_with(OF_UNDO)).map(StepId::from);
        let steps: Option<Vec<StepId>> = reads.filter(|read| read.root() == "intents").map(step).collect();
        match steps {
            None => AwaitedIntents::All,
            Some(steps) if steps.is_empty() => AwaitedIntents::None,
            Some(steps) => AwaitedIntents::OfSteps(steps.into()),
        }
    }

    pub(super) fn has_ids(&self) -> bool {
        !self.ids.is_empty()
    }

    fn register(&mut self, text: String) -> RuleId {
        self.texts.push(text);
        self.texts.len() - 1
    }
}

fn hash_of(draft: &RulesDraft) -> String {
    // A draft holds only lists, ordered maps and scalars: equal drafts give equal text.
    let text = serde_json::to_string(draft).unwrap_or_default();
    blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
}

fn header(name: &str, site: &Site, problems: &mut Problems) -> Option<HeaderName> {
    let parsed = name.parse().ok();
    if parsed.is_none() {
        problems.error(site, format!("`{name}` is no header name"));
    }
    parsed
}

fn path(text: &str, site: &Site, problems: &mut Problems) -> Option<JsonPath> {
    match parse_json_path(text) {
        Ok(path) => Some(path),
        Err(JsonPathError { message, offset }) => {
            let problem = problems.error(site, format!("`{text}` is no JSONPath: {message}"));
            problem.offset(offset);
            if !text.starts_with('$') {
                problem.hint(format!("a path starts at the body: `$.{text}`"));
            }
            None
        }
    }
}

fn tolerance(value: &Value, site: &Site, problems: &mut Problems) -> Option<Tolerance> {
    let parsed = match value {
        Value::Number(number) => {
            Decimal::parse(&number.to_string()).filter(|d| !d.is_negative()).map(Tolerance::Number)
        }
        Value::String(text) => times::duration(text).map(Tolerance::Time),
        _ => None,
    };
    if parsed.is_none() {
        problems
            .error(site, format!("{value} is no tolerance"))
            .hint("a number from 0 up (absolute), or a duration such as `2s` or `500ms` for times");
    }
    parsed
}

/// The end of the name under which the intents of a step's `undo` are recorded. No step has a `.` in its name.
const OF_UNDO: &str = ".undo";
const ROOTS: [&str; 4] = ["request", "legacy", "engine", "intents"];

fn assert(text: &str, site: &Site, context: &CompareContext<'_>, problems: &mut Problems) -> Option<Expression> {
    let trimmed = text.trim();
    let Some(source) = trimmed.strip_prefix("${").and_then(|t| t.strip_suffix('}')) else {
        problems
            .error(site, "an assert is one expression")
            .hint(format!("write it as `${{{}}}`", trimmed.trim_start_matches("${").trim_end_matches('}')));
        return None;
    };
    let expression = match Expression::parse(source) {
        Ok(expression) => expression,
        Err(e) => {
            let skipped = text.len() - text.trim_start().len() + 2;
            let problem = problems.error(site, e.message.clone());
            if let Some(offset) = e.offset {
                problem.offset(skipped + offset);
            }
            return None;
        }
    };
    let mut may_read_all = true;
    for read in expression.reads() {
        may_read_all &= may_read(read, site, context, problems);
    }
    may_read_all.then_some(expression)
}

fn may_read(read: &ReadPath, site: &Site, context: &CompareContext<'_>, problems: &mut Problems) -> bool {
    let root = read.root();
    if !ROOTS.contains(&root) {
        let problem = problems.error(site, format!("an assert cannot read `{root}`"));
        match nearest(root, ROOTS) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem.hint("it reads `request`, `legacy`, `engine` and `intents`"),
        };
        return false;
    }
    let Some(step) = read.part(0).filter(|_| root == "intents") else { return true };
    if context.intents.contains(&step) {
        return true;
    }
    if let Some(of) = step.strip_suffix(OF_UNDO).filter(|of| context.intents.contains(of)) {
        let message = format!("the step `{of}` has no `undo:`, so there are no intents of one");
        problems.error(site, message).hint(format!("the step's own intent is `intents.{of}`"));
        return false;
    }
    let problem = problems.error(site, format!("the workflow has no step `{step}` with a call"));
    let steps: Vec<&str> = context.intents.iter().copied().filter(|name| !name.ends_with(OF_UNDO)).collect();
    match nearest(step, steps.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean `intents.{near}`?")),
        None if context.intents.is_empty() => problem.hint("the route has no workflow, so there are no intents"),
        None => problem.hint(format!("its steps are {}", steps.join(", "))),
    };
    false
}
