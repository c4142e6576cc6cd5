//! Checks one step: its kind, the keys that belong to that kind, and the steps that it needs.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checked_step::CheckedStep;
use super::context::Check;
use super::names::{ExpressionContext, Usage};
use super::values;
use crate::expression::Template;
use crate::names::StepId;
use crate::problem::Site;
use crate::workflow::definition::{AnswerDraft, FailuresDraft, StepDraft};
use crate::workflow::{ForEach, ResponseTemplate, StepKind, is_without_content};

/// The most headers of a call or an answer.
const HEADERS_MAX: usize = 100;

type IsKind = fn(&StepDraft) -> bool;

/// Kinds of step, and whether a draft is one.
const KINDS: [(&str, IsKind); 6] = [
    ("call", |draft| draft.call.is_some()),
    ("set", |draft| draft.set.is_some()),
    ("checkpoint", |draft| draft.checkpoint.is_some()),
    ("wait", |draft| draft.wait.is_some()),
    ("run", |draft| draft.run.is_some()),
    ("fail", |draft| draft.fail.is_some()),
];

impl Check<'_> {
    pub(super) fn step(&mut self, name: &str, site: &Site, draft: &StepDraft) -> CheckedStep {
        let mut needs = BTreeSet::new();
        for (index, need) in draft.needs.iter().enumerate() {
            let at = site.key("needs").index(index);
            if self.steps.iter().any(|(known, ..)| known == need) {
                needs.insert(need.clone());
            } else {
                let hint = self.step_hint(need);
                let problem = self.problems.error(&at, format!("unknown step `{need}`"));
                if let Some(hint) = hint {
                    problem.hint(hint);
                }
            }
        }
        // The fallback of an item can read `item` and `index`, as the item's own step can, and in its `if` too.
        let is_item_fallback = self.item_fallbacks.contains(name);
        let mut context =
            ExpressionContext { usage: Usage::Value, item: is_item_fallback, needs: &mut needs, extra: &[] };
        let condition = draft.condition.as_ref().and_then(|text| self.condition(text, &site.key("if"), &mut context));
        let for_each = self.for_each(site, draft, &mut context);
        context.item = is_item_fallback || draft.for_each.is_some();
        let kind = self.kind(site, draft, &mut context);
        let effect = match &kind {
            Some(StepKind::Call(call)) => Some(call.effect),
            Some(_) | None => None,
        };
        self.stream(name, site, draft, effect);
        let safeguards = self.safeguards(site, draft, &mut context);
        let mut failure_needs = BTreeSet::new();
        let item = is_item_fallback || draft.for_each.is_some();
        let mut context = ExpressionContext { usage: Usage::Value, item, needs: &mut failure_needs, extra: &[] };
        let failure_settings = self.failure_settings(site, draft, kind.as_ref(), &mut context);
        if failure_needs.remove(name) {
            let problem =
                self.problems.error(site, format!("`undo` and `probe` of `{name}` cannot read `steps.{name}`"));
            problem.hint("write `output`: it is what the step gave");
        }
        needs.extend(failure_needs);
        self.warn_of_needed_fail_steps(name, site, draft, &needs);
        if draft.needs_any && needs.is_empty() {
            let hint = "name steps under `needs:`, or leave `needs_any` out";
            self.problems.warn(&site.key("needs_any"), format!("`{name}` needs no other step")).hint(hint);
        }
        CheckedStep {
            id: StepId::new(name),
            needs,
            needs_any: draft.needs_any,
            condition,
            for_each,
            kind,
            failure_settings,
            safeguards,
        }
    }

    /// Warns of a step that never runs because it needs a step that fails the run: where that one runs, nothing else
    /// begins any more; where it is skipped, so is this one. With `needs_any` this holds only if it needs no other
    /// step.
    fn warn_of_needed_fail_steps(&mut self, name: &str, site: &Site, draft: &StepDraft, needs: &BTreeSet<String>) {
        let fails = |need: &&String| self.steps.iter().any(|(known, .., step)| known == *need && step.fail.is_some());
        let failing: Vec<&String> = needs.iter().filter(fails).collect();
        if draft.needs_any && failing.len() < needs.len() {
            return;
        }
        for need in failing {
            let at = match draft.needs.iter().position(|named| named == need) {
                Some(index) => site.key("needs").index(index),
                None => site.clone(),
            };
            let why = format!("`{name}` never runs: `{need}` ends the run, or is skipped, and `{name}` with it");
            let hint = format!("leave `{need}` out, and give `{name}` an `if:` with the opposite condition");
            self.problems.warn(&at, why).hint(hint);
        }
    }

    fn for_each(&mut self, site: &Site, draft: &StepDraft, context: &mut ExpressionContext<'_>) -> Option<ForEach> {
        let at = site.key("concurrency");
        if draft.concurrency == Some(0) {
            self.problems
                .error(&at, "with a concurrency of 0 no item would ever begin")
                .hint("1 takes one item after the other");
        }
        let calls_max = usize::try_from(self.known.limits.run_calls_max).unwrap_or(usize::MAX).max(1);
        let concurrency = draft.concurrency.map_or(calls_max, |n| usize::try_from(n).unwrap_or(usize::MAX));
        if concurrency > calls_max {
            let message = format!("only {calls_max} calls of a run are under way at the same time (run_calls_max)");
            self.problems.warn(&at, message);
        }
        let Some(items) = &draft.for_each else {
            if draft.concurrency.is_some() {
                self.problems.error(&at.at_key(), "`concurrency` is allowed only in a step with `for_each`");
            }
            return None;
        };
        let at = site.key("for_each");
        if draft.fail.is_some() {
            self.problems.error(&at.clone().at_key(), "a `fail` step ends the run once and takes no `for_each`");
        }
        let items = self.template(items, &at, context)?;
        let list = items.single().is_some() || items.as_constant().is_none_or(Value::is_array);
        if !list || matches!(items.as_constant(), Some(Value::String(_))) {
            self.problems.error(&at, "`for_each` takes a list or one `${ … }` that gives one");
        }
        let collect = draft.failures == Some(FailuresDraft::Collect);
        Some(ForEach { items, concurrency: concurrency.min(calls_max), collect })
    }

    fn kind(&mut self, site: &Site, draft: &StepDraft, context: &mut ExpressionContext<'_>) -> Option<StepKind> {
        let kinds: Vec<&str> = KINDS.into_iter().filter(|(_, is_kind)| is_kind(draft)).map(|(key, _)| key).collect();
        match kinds.as_slice() {
            [] => {
                let problem = self.problems.error(
                    &site.clone().at_key(),
                    "a step has one of `call`, `set`, `checkpoint`, `wait`, `run` and `fail`",
                );
                problem.hint("for example `call: GET ${services.NAME}/path`");
                return None;
            }
            [_] => {}
            [first, second, ..] => {
                let message = format!("a step is either a `{first}` or a `{second}`; make it two steps");
                self.problems.error(&site.key(*second).at_key(), message);
            }
        }
        if draft.call.is_none() {
            self.report_keys_of_calls(site, draft, kinds[0]);
        }
        self.misplaced_keys(site, draft, kinds[0]);
        if let Some(text) = &draft.call {
            return self.call(text, &site.key("call"), site, draft, context).map(|call| StepKind::Call(Box::new(call)));
        }
        if let Some(value) = &draft.set {
            return self.template(value, &site.key("set"), context).map(StepKind::Set);
        }
        if let Some(checkpoint) = &draft.checkpoint {
            return self.checkpoint(checkpoint, site, draft, context).map(|asks| StepKind::Checkpoint(Box::new(asks)));
        }
        if let Some(wait) = &draft.wait {
            return self.wait(wait, site, draft, context).map(|wait| StepKind::Wait(Box::new(wait)));
        }
        if let Some(name) = &draft.run {
            return self.sub_run(name, site, draft, context).map(|run| StepKind::Run(Box::new(run)));
        }
        let fail = draft.fail.as_ref()?;
        let at = site.key("fail");
        if fail.status.is_none() {
            self.problems.error(&at, "`fail` needs a `status`").hint("for example `fail: { status: 409 }`");
        }
        self.answer(fail, &at, context).map(StepKind::Fail)
    }

    /// Reports keys that have a meaning only together with `call`.
    fn report_keys_of_calls(&mut self, site: &Site, draft: &StepDraft, kind: &str) {
        let keys = [
            ("effect", draft.effect.is_some()),
            ("headers", !draft.headers.is_empty()),
            ("body", draft.body.is_some()),
            ("form", draft.form.is_some()),
            ("text", draft.text.is_some()),
            ("raw", draft.raw.is_some()),
            ("retry", draft.retry.is_some()),
            ("timeout", draft.timeout.is_some()),
            ("accept", draft.accept.is_some()),
            ("not_done", draft.not_done.is_some()),
            ("release", draft.release),
            ("stream", draft.stream),
            ("volatile", draft.volatile),
            ("deadline", draft.deadline.is_some()),
            ("on_conflict", draft.on_conflict.is_some()),
            ("fallback", draft.fallback.is_some()),
            ("probe", draft.probe.is_some()),
            ("undo", draft.undo.is_some() && kind != "run"),
            ("on_failure", draft.on_failure.is_some() && kind == "fail"),
            ("output", draft.output.is_some() && kind == "fail"),
        ];
        for (key, _) in keys.into_iter().filter(|(_, is_given)| *is_given) {
            let problem =
                self.problems.error(&site.key(key).at_key(), format!("`{key}` belongs to a `call`, not to a `{kind}`"));
            if kind == "fail" && matches!(key, "headers" | "body") {
                problem.hint(format!("write it under `fail:`: `fail: {{ status: …, {key}: … }}`"));
            }
        }
    }

    /// Checks an answer: of `fail`, of an entry of `respond`, or of `pending`.
    pub(super) fn answer(
        &mut self,
        draft: &AnswerDraft,
        site: &Site,
        context: &mut ExpressionContext<'_>,
    ) -> Option<ResponseTemplate> {
        let default = Value::from(200);
        let status = self.template(draft.status.as_ref().unwrap_or(&default), &site.key("status"), context);
        if let Some(Err(message)) = status.as_ref().map(values::status) {
            self.problems.error(&site.key("status"), message);
        }
        let constant = status.as_ref().and_then(Template::as_constant).and_then(values::status_number);
        if let Some(status) = constant.filter(|status| draft.body.is_some() && is_without_content(*status)) {
            let message = format!("a reply with status {status} has no content: the body is not sent to the caller");
            let problem = self.problems.warn(&site.key("body"), message);
            problem.hint("only the API, and a run above this one, see it; leave it out, or answer with 200");
        }
        let headers = self.headers(&draft.headers, &site.key("headers"), context);
        let body = match &draft.body {
            Some(body) => Some(self.answer_body(body, &site.key("body"), context)?),
            None => None,
        };
        Some(ResponseTemplate { status: status?, headers, body })
    }

    /// Checks headers; wrong ones are reported and left out.
    pub(super) fn headers(
        &mut self,
        map: &serde_json::Map<String, Value>,
        site: &Site,
        context: &mut ExpressionContext<'_>,
    ) -> Vec<(http::HeaderName, Template)> {
        if map.len() > HEADERS_MAX {
            self.problems.error(site, format!("{} headers are too many: at most {HEADERS_MAX}", map.len()));
        }
        let mut headers: Vec<(http::HeaderName, Template)> = Vec::with_capacity(map.len());
        for (name, value) in map {
            let at = site.key(name.as_str());
            let template = self.template(value, &at, context);
            if let Some(Err(message)) = template.as_ref().map(values::header_value) {
                self.problems.error(&at, message);
            }
            match values::header(name) {
                Ok(name) if headers.iter().any(|(known, _)| *known == name) => {
                    self.problems.error(&at.at_key(), format!("the header `{name}` is given twice"));
                }
                Ok(name) => headers.extend(template.map(|template| (name, template))),
                Err(message) => {
                    self.problems.error(&at.at_key(), message);
                }
            }
        }
        headers
    }
}
