//! A rule that is proposed.

use serde_json::{Value, json};

use crate::compare::draft::RulesDraft;
use crate::compare::effects::EffectRulesDraft;
use crate::compare::rule_drafts::{IdDraft, IgnoreDraft, ToleranceDraft, UnorderedDraft};
use crate::compare::text_rules::{TextRulesDraft, TimesDraft};
use crate::compare::times::duration;

/// What a rule is for: the replies, or the calls of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RuleTarget {
    Reply,
    Calls { step: String },
}

/// A rule, in the order of how much it hides: the first kind hides least.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Proposed {
    /// Values that are ids.
    Ids { of: RuleTarget, path: String },
    /// Ids in the path of a header.
    HeaderIds { name: String, pattern: String },
    /// Ids in lines.
    TextIds { pattern: String },
    /// Keys that are ids.
    Keys { path: String },
    /// By how much numbers or times may differ.
    Tolerance { of: RuleTarget, path: String, by: Value },
    /// By how much times in lines may differ: those that a pattern finds, or all in the known forms.
    TextTimes { pattern: Option<String>, by: String },
    /// An array whose order does not matter.
    Unordered { path: String, by: String },
    /// A header that is not compared.
    IgnoredHeader { name: String },
    /// Lines that are not compared.
    IgnoredLines { pattern: String },
    /// A value that is not compared.
    Ignored { path: String },
}

impl Proposed {
    /// How much the rule hides: a smaller number is better.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Ids { .. } => 0,
            Self::HeaderIds { .. } | Self::TextIds { .. } | Self::Keys { .. } => 1,
            Self::Tolerance { .. } | Self::TextTimes { .. } => 2,
            Self::Unordered { by, .. } if by != "set" => 3,
            Self::Unordered { .. } => 4,
            Self::IgnoredHeader { .. } => 5,
            Self::IgnoredLines { .. } => 6,
            Self::Ignored { .. } => 7,
        }
    }

    /// Whether the rule is for lines. All lines that differ are one difference, which several rules may have to explain
    /// together.
    pub(super) fn is_for_lines(&self) -> bool {
        matches!(self, Self::TextIds { .. } | Self::TextTimes { .. } | Self::IgnoredLines { .. })
    }

    /// What a person has to know before the rule is used.
    pub(super) fn warning(&self) -> Option<&'static str> {
        match self {
            Self::Ignored { .. } => Some(
                "nothing at this path is compared any more, a wrong value included: use it only if legacy itself draws \
                 this value anew each time",
            ),
            Self::IgnoredLines { .. } => Some("lines of this kind are not compared any more, wrong ones included"),
            Self::IgnoredHeader { .. } => Some("this header is not compared any more"),
            Self::Ids { .. }
            | Self::HeaderIds { .. }
            | Self::TextIds { .. }
            | Self::Keys { .. }
            | Self::Tolerance { .. }
            | Self::TextTimes { .. }
            | Self::Unordered { .. } => None,
        }
    }

    /// Adds the rule to a draft. Returns `false`, and changes nothing, if the draft has a rule for this already; a
    /// smaller tolerance is replaced.
    pub(super) fn add_to(&self, draft: &mut RulesDraft) -> bool {
        match self {
            Self::Ids { of: RuleTarget::Reply, path } => push(&mut draft.ids, IdDraft(path.as_str().into())),
            Self::Ids { of: RuleTarget::Calls { step }, path } => {
                push(&mut calls(draft, step).ids, IdDraft(path.as_str().into()))
            }
            Self::HeaderIds { name, pattern } => {
                push(&mut draft.ids, IdDraft(json!({ format!("header.{name}"): pattern })))
            }
            Self::Keys { path } => push(&mut draft.ids, IdDraft(json!({ "keys": path }))),
            Self::Tolerance { of, path, by } => {
                let tolerance = match of {
                    RuleTarget::Reply => &mut draft.tolerance,
                    RuleTarget::Calls { step } => &mut calls(draft, step).tolerance,
                };
                let wider = tolerance.get(path).map_or(Some(by.clone()), |ToleranceDraft(now)| widened(by, now));
                wider.is_some_and(|wider| {
                    tolerance.insert(path.clone(), ToleranceDraft(wider));
                    true
                })
            }
            Self::Unordered { path, by } => {
                let is_new = !draft.unordered.contains_key(path);
                if is_new {
                    draft.unordered.insert(path.clone(), UnorderedDraft(by.as_str().into()));
                }
                is_new
            }
            Self::TextIds { pattern } => push(&mut text(draft).ids, pattern.clone()),
            Self::TextTimes { pattern, by } => {
                let text = text(draft);
                let by = pattern.as_ref().map_or_else(|| json!(by), |pattern| json!({ pattern.as_str(): by }));
                let now = text.times.as_ref();
                let wider = now.map_or(Some(by.clone()), |TimesDraft(now)| widened_times(&by, now));
                wider.is_some_and(|wider| {
                    text.times = Some(TimesDraft(wider));
                    true
                })
            }
            Self::IgnoredLines { pattern } => push(&mut text(draft).ignore, pattern.clone()),
            Self::IgnoredHeader { name } => push(&mut draft.ignore, IgnoreDraft(format!("header.{name}").into())),
            Self::Ignored { path } => push(&mut draft.ignore, IgnoreDraft(path.as_str().into())),
        }
    }

    /// The rule alone, as a `compare:` that has nothing else.
    pub(super) fn alone(&self) -> RulesDraft {
        let mut draft = RulesDraft::default();
        self.add_to(&mut draft);
        draft
    }
}

/// The tolerance that covers what both cover; `None` if the one in force does already, or is of another kind.
fn widened(by: &Value, now: &Value) -> Option<Value> {
    match (by, now) {
        (Value::Number(by), Value::Number(now)) => (by.as_f64() > now.as_f64()).then(|| by.clone().into()),
        (Value::String(_), Value::String(_)) => widened_times(by, now),
        // Not one with a condition: what is proposed holds for all pairs.
        (Value::Object(by), Value::Object(now)) if by.len() == 1 && now.len() == 1 => {
            Some(json!({ "times": widened_times(by.get("times")?, now.get("times")?)? }))
        }
        _ => None,
    }
}

/// The same for a duration, or for patterns with durations.
fn widened_times(by: &Value, now: &Value) -> Option<Value> {
    match (by, now) {
        (Value::String(text), Value::String(now)) => (duration(text) > duration(now)).then(|| by.clone()),
        (Value::Object(by), Value::Object(now)) => {
            let mut all = now.clone();
            for (pattern, by) in by {
                let wider = now.get(pattern).map_or_else(|| Some(by.clone()), |now| widened_times(by, now));
                all.extend(wider.map(|wider| (pattern.clone(), wider)));
            }
            (all != *now).then_some(Value::Object(all))
        }
        _ => None,
    }
}

fn push<T: PartialEq>(list: &mut Vec<T>, item: T) -> bool {
    let is_new = !list.contains(&item);
    if is_new {
        list.push(item);
    }
    is_new
}

fn calls<'a>(draft: &'a mut RulesDraft, step: &str) -> &'a mut EffectRulesDraft {
    draft.effects.entry(step.to_owned()).or_default()
}

fn text(draft: &mut RulesDraft) -> &mut TextRulesDraft {
    draft.text.get_or_insert_default()
}
