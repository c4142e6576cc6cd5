//! Checks steps that wait for a person, a time, a signal or a child run: `checkpoint`, `wait`, `run`.

use std::time::Duration;

use serde_json::Value;

use super::context::{Check, compiled, draft};
use super::names::{ExpressionContext, Usage};
use super::values;
use crate::expression::Template;
use crate::names::WorkflowName;
use crate::problem::Site;
use crate::workflow::definition::StepDraft;
use crate::workflow::drafts::{AskDraft, CheckpointDraft, OnSignalTimeout, WaitDraft};
use crate::workflow::rules::{Asking, CheckpointStep, Escalation, SubRun, Until, Wait};
use crate::workflow::{OnTimeout, span};

impl Check<'_> {
    pub(super) fn checkpoint(
        &mut self,
        draft: &CheckpointDraft,
        site: &Site,
        step: &StepDraft,
        context: &mut ExpressionContext<'_>,
    ) -> Option<CheckpointStep> {
        let at = site.key("checkpoint");
        if draft.question.is_none() {
            let problem = self.problems.error(&at, "a checkpoint needs a `question`");
            problem.hint("for example `checkpoint: { question: \"Is this picture fit to print?\" }`");
        }
        let ask = AskDraft {
            question: draft.question.clone(),
            who: draft.who.clone(),
            timeout: draft.timeout.clone(),
            on_timeout: draft.on_timeout,
            escalate: draft.escalate.clone(),
        };
        let asking = self.asking(&ask, &at, context);
        let (schema, compiled) = match &draft.schema {
            None => (None, None),
            Some(schema) => {
                let compiled = compiled(schema, &at.key("schema"), self.problems)?;
                (Some(schema.clone().into()), Some(compiled))
            }
        };
        let default = draft.default.as_ref().map(|value| self.template(value, &at.key("default"), context));
        let default = default.map_or(Some(None), |template| template.map(Some))?;
        let rehearse = self.rehearse_template(site, step, context)?;
        let approves_by_itself = asking.as_ref().is_some_and(|asking| {
            asking.on_timeout == Some(OnTimeout::Approve)
                || asking.escalate.as_ref().is_some_and(|escalate| escalate.timeout.is_some() && escalate.approve)
        });
        if default.is_some() && !approves_by_itself {
            let problem =
                self.problems.error(&at.key("default").at_key(), "`default` is used only if a time-out approves");
            problem.hint("add `on_timeout: approve`, or leave `default` out");
        }
        let automatic =
            default.as_ref().map_or(Some(&Value::Null), Template::as_constant).filter(|_| approves_by_itself);
        if let (Some(compiled), Some(values)) = (&compiled, automatic) {
            let wrong = compiled.check(values).err().unwrap_or_default();
            if let (Some(first), true) = (wrong.first(), default.is_some()) {
                self.problems.error(&at.key("default"), format!("the value does not fit `schema`: {first}"));
            } else if !wrong.is_empty() {
                let problem =
                    self.problems.error(&at, "`schema` requires values, but an approval by time-out has none");
                problem.hint("give them under `default:`");
            }
        }
        let on_reject = step.on_reject.unwrap_or_default();
        Some(CheckpointStep { asking: asking?, schema, default, on_reject, rehearse, compiled })
    }

    /// Checks how people are asked, by a checkpoint or because of a risk.
    pub(super) fn asking(
        &mut self,
        draft: &AskDraft,
        at: &Site,
        context: &mut ExpressionContext<'_>,
    ) -> Option<Asking> {
        let question = match &draft.question {
            Some(text) => Some(self.template(&Value::String(text.clone()), &at.key("question"), context)?),
            None => None,
        };
        let who = self.who(draft.who.as_deref(), &at.key("who"));
        let timeout = self.optional_duration(draft.timeout.as_deref(), &at.key("timeout"));
        let words = ("on_timeout", "`on_timeout: reject`, or `approve`, or `escalate`");
        self.check_time_out_is_complete(at, draft.timeout.is_some(), draft.on_timeout.is_some(), words);
        let escalates = draft.on_timeout == Some(OnTimeout::Escalate);
        match (&draft.escalate, escalates) {
            (None, true) => {
                let problem = self
                    .problems
                    .error(&at.key("on_timeout"), "`escalate` is missing: it names who is asked after the time-out");
                problem.hint("add `escalate: { who: [NAME] }`");
            }
            (Some(_), false) => {
                let problem = self.problems.error(&at.key("escalate").at_key(), "`escalate` is never used");
                problem.hint("add `timeout: 30m` and `on_timeout: escalate`");
            }
            (None, false) | (Some(_), true) => {}
        }
        let escalate = match &draft.escalate {
            None => None,
            Some(draft) => {
                let at = at.key("escalate");
                let who = self.who(Some(&draft.who), &at.key("who"));
                let timeout = self.optional_duration(draft.timeout.as_deref(), &at.key("timeout"));
                let words = ("on_timeout", "`on_timeout: reject`, or `approve`");
                self.check_time_out_is_complete(&at, draft.timeout.is_some(), draft.on_timeout.is_some(), words);
                if draft.on_timeout == Some(OnTimeout::Escalate) {
                    let problem = self.problems.error(&at.key("on_timeout"), "a question is escalated only once");
                    problem.hint("`approve` or `reject`");
                }
                let approve = draft.on_timeout == Some(OnTimeout::Approve);
                Some(Escalation { who: who?, timeout: timeout?, approve })
            }
        };
        Some(Asking { question, who: who?, timeout: timeout?, on_timeout: draft.on_timeout, escalate })
    }

    /// Checks the names of those who may answer.
    fn who(&mut self, who: Option<&[String]>, at: &Site) -> Option<Vec<String>> {
        let Some(who) = who else { return Some(Vec::new()) };
        if who.is_empty() {
            let problem = self.problems.error(at, "the list is empty, so nobody could answer");
            problem.hint("name the tokens that may answer, or leave `who` out: then all who may decide can answer");
            return None;
        }
        let empty = who.iter().position(|name| name.trim().is_empty());
        if let Some(index) = empty {
            self.problems.error(&at.index(index), "a name must not be empty");
        }
        empty.is_none().then(|| who.to_vec())
    }

    /// Checks that a time-out and what happens after it are declared together.
    fn check_time_out_is_complete(
        &mut self,
        at: &Site,
        timeout: bool,
        on_timeout: bool,
        (key, words): (&'static str, &str),
    ) {
        match (timeout, on_timeout) {
            (true, false) => {
                let problem =
                    self.problems.error(&at.key("timeout").at_key(), "`timeout` does not say what happens then");
                problem.hint(format!("add {words}"));
            }
            (false, true) => {
                let problem = self.problems.error(&at.key(key).at_key(), format!("`{key}` without a `timeout`"));
                problem.hint("add `timeout: 30m`");
            }
            (true, true) | (false, false) => {}
        }
    }

    fn optional_duration(&mut self, text: Option<&str>, site: &Site) -> Option<Option<Duration>> {
        let Some(text) = text else { return Some(None) };
        span::duration(text).map(Some).map_err(|message| self.problems.error(site, message)).ok()
    }

    pub(super) fn wait(
        &mut self,
        value: &Value,
        site: &Site,
        step: &StepDraft,
        context: &mut ExpressionContext<'_>,
    ) -> Option<Wait> {
        let at = site.key("wait");
        if value.is_string() {
            return Some(Wait { until: Until::For(self.duration_of(value, &at, context)?), rehearse: None });
        }
        let parsed: WaitDraft = draft(value, &at, self.problems)?;
        let kinds = [
            ("for", parsed.duration.is_some()),
            ("until", parsed.until.is_some()),
            ("signal", parsed.signal.is_some()),
        ];
        let mut kinds = kinds.into_iter().filter(|(_, is_given)| *is_given).map(|(key, _)| key);
        let (first, second) = (kinds.next(), kinds.next());
        match (first, second) {
            (None, _) => {
                let problem = self.problems.error(&at, "a `wait` waits for one of `for`, `until` and `signal`");
                problem.hint("for example `wait: 10m`, or `wait: { signal: paid, timeout: 2d }`");
                return None;
            }
            (Some(first), Some(second)) => {
                let message = format!("a `wait` waits either `{first}` or `{second}`; make it two steps");
                self.problems.error(&at.key(second).at_key(), message);
                return None;
            }
            (Some(_), None) => {}
        }
        if parsed.signal.is_none() {
            let keys = [
                ("where", parsed.filter.is_some()),
                ("timeout", parsed.timeout.is_some()),
                ("on_timeout", parsed.on_timeout.is_some()),
            ];
            for (key, _) in keys.into_iter().filter(|(_, is_given)| *is_given) {
                self.problems.error(&at.key(key).at_key(), format!("`{key}` belongs to a `signal`"));
            }
        }
        if let Some(value) = &parsed.duration {
            return Some(Wait { until: Until::For(self.duration_of(value, &at.key("for"), context)?), rehearse: None });
        }
        if let Some(value) = &parsed.until {
            let at = at.key("until");
            let template = self.template(value, &at, context)?;
            if let Some(constant) = template.as_constant()
                && let Err(message) = span::time(constant)
            {
                self.problems.error(&at, message);
                return None;
            }
            return Some(Wait { until: Until::At(template), rehearse: None });
        }
        let name = parsed.signal?;
        if !values::is_name(&name) {
            self.problems.error(&at.key("signal"), values::bad_name("signal", &name));
        }
        let extra = std::mem::replace(&mut context.extra, &["signal"]);
        let filter = parsed.filter.as_ref().map(|text| self.condition(text, &at.key("where"), context));
        context.extra = extra;
        let timeout = self.optional_duration(parsed.timeout.as_deref(), &at.key("timeout"));
        if parsed.on_timeout.is_some() && parsed.timeout.is_none() {
            let problem = self.problems.error(&at.key("on_timeout").at_key(), "`on_timeout` without a `timeout`");
            problem.hint("add `timeout: 30m`");
        }
        let rehearse = self.rehearse_template(site, step, context)?;
        let until = Until::Signal {
            name,
            filter: filter.map_or(Some(None), |filter| filter.map(Some))?,
            timeout: timeout?,
            continues: parsed.on_timeout == Some(OnSignalTimeout::Continue),
        };
        Some(Wait { until, rehearse })
    }

    fn duration_of(&mut self, value: &Value, at: &Site, context: &mut ExpressionContext<'_>) -> Option<Template> {
        let template = self.template(value, at, context)?;
        let constant = template.as_constant();
        if let Some(Err(message)) = constant.map(span::duration_value) {
            self.problems.error(at, message);
            return None;
        }
        Some(template)
    }

    pub(super) fn sub_run(
        &mut self,
        name: &str,
        site: &Site,
        step: &StepDraft,
        context: &mut ExpressionContext<'_>,
    ) -> Option<SubRun> {
        if !values::is_name(name) {
            self.problems.error(&site.key("run"), values::bad_name("workflow", name));
        }
        let input = step.input.as_ref().map(|value| self.template(value, &site.key("input"), context));
        let input = input.map_or(Some(None), |input| input.map(Some));
        let rehearse = self.rehearse_template(site, step, context);
        Some(SubRun { workflow: WorkflowName::new(name), input: input?, rehearse: rehearse? })
    }

    fn rehearse_template(
        &mut self,
        site: &Site,
        step: &StepDraft,
        context: &mut ExpressionContext<'_>,
    ) -> Option<Option<Template>> {
        let usage = std::mem::replace(&mut context.usage, Usage::Rehearse);
        let rehearse = step.rehearse.as_ref().map(|value| self.template(value, &site.key("rehearse"), context));
        context.usage = usage;
        rehearse.map_or(Some(None), |rehearse| rehearse.map(Some))
    }
}
