//! Checks `respond`: its entries, and `pending`, the answer while the run goes on.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checked_step::CheckedStep;
use super::context::{Check, draft};
use super::names::{ExpressionContext, Usage};
use super::order::StepIndexes;
use crate::expression::Expression;
use crate::problem::Site;
use crate::workflow::definition::{AnswerDraft, RespondDraft};
use crate::workflow::{Respond, ResponseTemplate};

/// An entry of `respond`, before the order of all steps is known.
pub(super) struct CheckedRespond {
    when: Option<Expression>,
    after: Option<Vec<String>>,
    answer: ResponseTemplate,
}

impl CheckedRespond {
    pub(super) fn with_indexes(self, indexes: &StepIndexes) -> Option<Respond> {
        let after = match self.after {
            Some(names) => Some(names.iter().map(|name| indexes.get(name.as_str()).copied()).collect::<Option<_>>()?),
            None => None,
        };
        Some(Respond { when: self.when, after, answer: self.answer })
    }
}

impl Check<'_> {
    pub(super) fn respond(
        &mut self,
        respond: Option<&Value>,
        site: &Site,
        checked: &[CheckedStep],
    ) -> (Vec<CheckedRespond>, Option<ResponseTemplate>) {
        let Some(respond) = respond else {
            let problem = self.problems.error(site, "a workflow says what the caller gets: `respond` is missing");
            problem.hint("for example `respond: { status: 200, body: \"${steps.NAME.output}\" }`");
            return (Vec::new(), None);
        };
        let top = site.key("respond");
        let drafts: Vec<(Site, &Value)> = match respond {
            Value::Array(list) => list.iter().enumerate().map(|(index, value)| (top.index(index), value)).collect(),
            one => vec![(top.clone(), one)],
        };
        let (mut entries, mut pending, mut has_unconditional) = (Vec::new(), None, false);
        for (site, value) in &drafts {
            let Some(entry) = draft::<RespondDraft>(value, site, self.problems) else { continue };
            if let Some(answer) = &entry.pending {
                let at = site.key("pending");
                if pending.is_some() {
                    self.problems.error(
                        &at.clone().at_key(),
                        "`pending` is declared twice; there is one answer while a run goes on",
                    );
                }
                let mut read = BTreeSet::new();
                let mut context =
                    ExpressionContext { usage: Usage::Respond, item: false, needs: &mut read, extra: &[] };
                pending = pending.or(self.answer(answer, &at, &mut context));
                if let Some(step) = read.first() {
                    let message = format!("`pending` reads `steps.{step}`, which may not have ended");
                    self.problems.error(&at, message).hint("`pending` can always read `request` and `run`");
                }
                let only_pending =
                    entry.when.is_none() && entry.after.is_none() && entry.status.is_none() && entry.body.is_none();
                if only_pending && entry.headers.is_empty() && drafts.len() > 1 {
                    continue;
                }
            }
            if has_unconditional {
                let message = "this entry is never taken: an entry above it has neither `when` nor `after`";
                let problem = self.problems.warn(site, message);
                problem.hint("put the entries with `when` and `after` first");
            }
            has_unconditional |= entry.when.is_none() && entry.after.is_none();
            entries.extend(self.entry(entry, site, checked));
        }
        if !has_unconditional && !drafts.is_empty() {
            let problem = self.problems.warn(&top, "if the conditions of no entry hold, the caller gets an error");
            problem.hint("end the list with an entry without `when` and `after`");
        }
        if drafts.is_empty() {
            self.problems.error(&top, "`respond` is empty");
        }
        (entries, pending)
    }

    fn entry(&mut self, draft: RespondDraft, site: &Site, checked: &[CheckedStep]) -> Option<CheckedRespond> {
        let mut read = BTreeSet::new();
        let mut context = ExpressionContext { usage: Usage::Respond, item: false, needs: &mut read, extra: &[] };
        let when = draft.when.as_ref().map(|text| self.condition(text, &site.key("when"), &mut context));
        let answer = AnswerDraft { status: draft.status, headers: draft.headers, body: draft.body };
        let answer = self.answer(&answer, site, &mut context);
        if let Some(after) = &draft.after {
            self.after(after, &read, &site.key("after"), checked);
        }
        let when = match when {
            Some(when) => Some(when?),
            None => None,
        };
        Some(CheckedRespond { when, after: draft.after, answer: answer? })
    }

    /// Checks that the steps under `after` exist, and that the answer reads only these steps and those that they need:
    /// no other step is certain to have ended.
    fn after(&mut self, after: &[String], read: &BTreeSet<String>, site: &Site, checked: &[CheckedStep]) {
        for (index, name) in after.iter().enumerate() {
            if !checked.iter().any(|step| step.id.as_str() == name) {
                let hint = self.step_hint(name);
                let problem = self.problems.error(&site.index(index), format!("unknown step `{name}`"));
                if let Some(hint) = hint {
                    problem.hint(hint);
                }
            }
        }
        let mut ended: BTreeSet<&str> = BTreeSet::new();
        let mut to_visit: Vec<&str> = after.iter().map(String::as_str).collect();
        while let Some(name) = to_visit.pop() {
            if ended.insert(name)
                && let Some(step) = checked.iter().find(|step| step.id.as_str() == name)
            {
                to_visit.extend(step.needs.iter().map(String::as_str));
            }
        }
        for name in read.iter().filter(|name| !ended.contains(name.as_str())) {
            let message =
                format!("the answer reads `steps.{name}`, which may not have ended after {}", after.join(", "));
            self.problems.error(site, message).hint(format!("add `{name}` to `after`"));
        }
    }
}
