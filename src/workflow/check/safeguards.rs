//! Checks a step's risk and lock, and which keys belong to which kind of step.

use http::Method;
use serde_json::Value;

use super::context::Check;
use super::names::{ExpressionContext, Usage};
use super::values;
use crate::problem::Site;
use crate::workflow::definition::StepDraft;
use crate::workflow::drafts::{AskDraft, RiskRuleDraft};
use crate::workflow::risk::parse_risk;
use crate::workflow::rules::{Asking, Lock, RiskRule, RiskSource, Safeguards};
use crate::workflow::{OnTimeout, Risk};

/// Keys that only some kinds of step accept, with those kinds.
const KEYS_OF_KINDS: [(&str, &[&str]); 9] = [
    ("input", &["run"]),
    ("rehearse", &["call", "checkpoint", "wait", "run"]),
    ("risk", &["call", "run"]),
    ("reversible", &["call", "run"]),
    ("ask", &["call", "run"]),
    ("on_reject", &["call", "run", "checkpoint"]),
    ("lock", &["call", "run"]),
    ("busy_on", &["call"]),
    ("for_each", &["call", "set", "run"]),
];

impl Check<'_> {
    /// Reports keys that do not belong to this kind of step.
    pub(super) fn misplaced_keys(&mut self, site: &Site, draft: &StepDraft, kind: &str) {
        for (key, kinds) in KEYS_OF_KINDS {
            let is_given = match key {
                "input" => draft.input.is_some(),
                "rehearse" => draft.rehearse.is_some(),
                "risk" => draft.risk.is_some(),
                "reversible" => draft.reversible.is_some(),
                "ask" => draft.ask.is_some(),
                "on_reject" => draft.on_reject.is_some(),
                "lock" => draft.lock.is_some(),
                "busy_on" => draft.busy_on.is_some(),
                // This is `for_each`, which a check of its own reports for a `fail` step.
                _ => draft.for_each.is_some() && kind != "fail",
            };
            if !is_given || kinds.contains(&kind) {
                continue;
            }
            let kinds: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
            let belongs = match kinds.as_slice() {
                [one] => format!("a {one}"),
                [others @ .., last] => format!("{} and {last}", others.join(", ")),
                [] => String::new(),
            };
            let at = site.key(key).at_key();
            let problem = self.problems.error(&at, format!("`{key}` belongs to {belongs}, not to a `{kind}`"));
            match (key, kind) {
                ("risk" | "ask", "checkpoint") => problem.hint("a checkpoint is asked in any case"),
                ("ask", _) => problem.hint("to ask a question by itself, use a step of kind `checkpoint`"),
                ("for_each", "checkpoint") => problem.hint("`risk: high` on a call with `for_each` reviews each item"),
                _ => problem,
            };
        }
        let waits_for_signal = draft.wait.as_ref().is_some_and(|wait| wait.get("signal").is_some());
        if kind == "wait" && draft.rehearse.is_some() && !waits_for_signal {
            let problem =
                self.problems.error(&site.key("rehearse").at_key(), "only a wait for a `signal` is rehearsed");
            problem.hint("in a rehearsal, a wait for a duration or a time ends at once");
        }
    }

    pub(super) fn safeguards(
        &mut self,
        site: &Site,
        draft: &StepDraft,
        context: &mut ExpressionContext<'_>,
    ) -> Option<Safeguards> {
        let risk = draft.risk.as_ref().map(|text| self.risk(text, &site.key("risk"), context));
        if draft.ask.is_some() && draft.risk.is_none() && self.risk_rules == 0 {
            let problem = self.problems.error(&site.key("ask").at_key(), "`ask` without a risk: nobody would be asked");
            problem.hint("add `risk: medium` or `risk: high`, or `risks:` for the whole workflow");
        }
        if let (Some(_), Some(Some(RiskSource::Fixed(Risk::Low)))) = (&draft.ask, &risk) {
            self.problems.warn(&site.key("ask").at_key(), "a step of low risk asks nobody");
        }
        let item = std::mem::take(&mut context.item);
        let asking = draft.ask.as_ref().map(|ask| self.asking(ask, &site.key("ask"), context));
        context.item = item;
        let high = matches!(&risk, Some(Some(RiskSource::Fixed(Risk::High))));
        if high && draft.ask.as_ref().is_some_and(approves_by_itself) {
            let at = site.key("ask").key("on_timeout");
            let problem =
                self.problems.warn(&at, "a time-out approves this step of high risk, although nobody reviewed it");
            problem.hint("use `reject`, or `escalate`");
        }
        let lock = draft.lock.as_ref().map(|lock| {
            let at = site.key("lock");
            if lock.key.is_none() && lock.busy.is_none() {
                let problem = self.problems.error(&at, "a lock needs a `key`");
                problem.hint("for example `lock: { key: \"order:${request.body.id}\" }`");
            }
            let key = lock.key.as_ref().map(|key| self.template(&Value::String(key.clone()), &at.key("key"), context));
            let key = key.map_or(Some(None), |key| key.map(Some))?;
            if let Some(Value::String(text)) = key.as_ref().and_then(|key| key.as_constant())
                && text.trim().is_empty()
            {
                self.problems.error(&at.key("key"), "the name of a lock must not be empty");
            }
            Some(Lock { key, busy: lock.busy.unwrap_or_default() })
        });
        let busy_on = draft.busy_on.as_deref().unwrap_or_default();
        let busy_on = self.statuses(busy_on, &site.key("busy_on"));
        Some(Safeguards {
            risk: risk.map_or(Some(None), |risk| risk.map(Some))?,
            irreversible: draft.reversible == Some(false),
            asking: asking.unwrap_or_else(|| Some(Asking::default()))?,
            on_reject: draft.on_reject.unwrap_or_default(),
            lock: lock.map_or(Some(None), |lock| lock.map(Some))?,
            busy_on,
        })
    }

    fn risk(&mut self, text: &str, at: &Site, context: &mut ExpressionContext<'_>) -> Option<RiskSource> {
        let usage = std::mem::replace(&mut context.usage, Usage::Value);
        let template = self.template(&Value::String(text.to_owned()), at, context);
        context.usage = usage;
        let template = template?;
        if let Some(constant) = template.as_constant() {
            let level = parse_risk(constant);
            if level.is_none() {
                let problem = self.problems.error(at, format!("`{text}` is not a risk level"));
                problem.hint("`low` runs, `medium` asks yes or no, `high` is reviewed item by item");
            }
            return level.map(RiskSource::Fixed);
        }
        if template.single().is_none() {
            let problem = self.problems.error(at, "a risk is `low`, `medium`, `high` or one `${ … }`");
            problem.hint("for example `risk: '${steps.price.output.total > 1000 ? \"high\" : \"low\"}'`");
        }
        Some(RiskSource::Computed(template))
    }

    pub(super) fn risk_rules(&mut self, drafts: &[RiskRuleDraft], site: &Site) -> Vec<RiskRule> {
        let mut risk_rules: Vec<RiskRule> = Vec::with_capacity(drafts.len());
        for (index, draft) in drafts.iter().enumerate() {
            let at = site.key("risks").index(index);
            let method = draft.method.as_ref().map(|text| match values::call(&format!("{text} x")) {
                Ok((method, ..)) => Some(method),
                Err((message, hint)) => {
                    let problem = self.problems.error(&at.key("method"), message);
                    if let Some(hint) = hint {
                        problem.hint(hint);
                    }
                    None
                }
            });
            let holds_always = draft.effect.is_none()
                && draft.method.is_none()
                && draft.items_over.is_none()
                && draft.reversible.is_none();
            if holds_always && index + 1 < drafts.len() {
                let problem = self
                    .problems
                    .warn(&at, "the rules after this one are never used: its conditions hold for every call");
                problem.hint("put it last");
            }
            if let Some(method) = method.map_or(Some(None::<Method>), |method| method.map(Some)) {
                let RiskRuleDraft { effect, method: _, items_over, reversible, risk } = draft.clone();
                risk_rules.push(RiskRule { effect, method, items_over, reversible, risk });
            }
        }
        risk_rules
    }
}

/// Whether a time-out, before or after an escalation, approves.
fn approves_by_itself(ask: &AskDraft) -> bool {
    let after_escalation = ask.escalate.as_ref().and_then(|escalate| escalate.on_timeout);
    ask.on_timeout == Some(OnTimeout::Approve) || after_escalation == Some(OnTimeout::Approve)
}
