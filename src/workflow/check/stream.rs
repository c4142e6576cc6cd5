//! Checks steps that stream: nothing but the caller may need the body of their reply.

use std::collections::BTreeSet;

use serde_json::Value;

use super::context::Check;
use super::names::{ExpressionContext, Usage};
use crate::expression::Template;
use crate::problem::{Problems, Site};
use crate::workflow::definition::StepDraft;
use crate::workflow::{EffectClass, Step, StepKind};

impl Check<'_> {
    /// Checks the keys beside `stream`. `effect` is that of the call, where the step has one without errors.
    pub(super) fn stream(&mut self, name: &str, site: &Site, draft: &StepDraft, effect: Option<EffectClass>) {
        if !draft.stream {
            return;
        }
        if let Some(effect) = effect.filter(|effect| *effect != EffectClass::Read) {
            let message = format!("`{name}` is {}, and only a `read` can stream", effect.as_str());
            let hint = "a call with an effect is recorded with its reply: leave `stream` out";
            self.problems.error(&site.key("stream"), message).hint(hint);
        }
        let keys = [
            ("for_each", draft.for_each.is_some(), "one answer has one body"),
            ("fallback_only", draft.fallback_only, "its output is read under the name of the step that it replaces"),
            ("output", draft.output.is_some(), "the body is passed on unread, and meets no schema"),
            ("sensitive", !draft.sensitive.is_empty(), "the body is passed on unread, and is never stored or shown"),
        ];
        for (key, _, why) in keys.into_iter().filter(|(_, is_given, _)| *is_given) {
            let message = format!("a step that streams its reply takes no `{key}`: {why}");
            self.problems.error(&site.key(key).at_key(), message).hint(format!("leave `stream` or `{key}` out"));
        }
    }

    /// Checks the body of an answer.
    pub(super) fn answer_body(
        &mut self,
        body: &Value,
        site: &Site,
        context: &mut ExpressionContext<'_>,
    ) -> Option<Template> {
        let is_respond = context.usage == Usage::Respond;
        self.streams.whole_body = is_respond.then(|| self.whole_output(body)).flatten();
        self.streams.answered.extend(self.streams.whole_body.clone());
        let template = self.template(body, site, context);
        self.streams.whole_body = None;
        template
    }

    /// The step of which this value is the output, and nothing else.
    fn whole_output(&self, value: &Value) -> Option<String> {
        let template = Template::parse_within(value, &self.bounds).ok()?;
        let expression = template.single()?;
        let [path] = expression.reads() else { return None };
        let name = path.part(0).filter(|_| path.root() == "steps" && path.part(1) == Some("output"))?;
        let spellings =
            [format!("steps.{name}.output"), format!("steps[\"{name}\"].output"), format!("steps['{name}'].output")];
        spellings.iter().any(|spelling| expression.source().trim() == spelling).then(|| name.to_owned())
    }

    /// What is wrong with reading the output of a step that streams.
    pub(super) fn streamed_output(&self, name: &str, step: &StepDraft) -> Option<(String, Option<String>)> {
        if !step.stream || self.streams.whole_body.as_deref() == Some(name) {
            return None;
        }
        let message = format!("`{name}` streams its reply: its output can only be the whole body of an answer");
        let hint = format!(
            "write `body: ${{steps.{name}.output}}` in `respond`; status and headers can be read anywhere. Or leave \
             `stream` out of `{name}`"
        );
        Some((message, Some(hint)))
    }

    /// Reports steps that stream to nobody.
    pub(super) fn unanswered_streams(&mut self) {
        for (name, site, step) in &self.steps {
            if step.stream && step.call.is_some() && !self.streams.answered.iter().any(|answered| answered == name) {
                let message = format!("`{name}` streams its reply, and no entry of `respond` has it as its body");
                let problem = self.problems.error(&site.key("stream"), message);
                problem.hint(format!("write `body: ${{steps.{name}.output}}` there, or leave `stream` out"));
            }
        }
    }
}

/// Warns of calls that may begin while a reply is streamed, to the service that sends it: the stream holds one of the
/// service's calls until its body has ended, and its body begins only when these calls have ended.
pub(super) fn warn_of_held_calls(steps: &[Step], all: &Site, problems: &mut Problems) {
    let call = |step: &Step| match &step.kind {
        StepKind::Call(call) => Some((call.service.clone(), call.stream)),
        _ => None,
    };
    for (index, streaming) in steps.iter().enumerate() {
        let Some((service, true)) = call(streaming) else { continue };
        let earlier = ancestors(steps, index);
        let waits = |(at, step): &(usize, &Step)| {
            *at != index && !earlier.contains(at) && call(step).is_some_and(|(other, _)| other == service)
        };
        for (_, step) in steps.iter().enumerate().filter(waits) {
            let (name, id) = (&streaming.id, &step.id);
            let message = format!(
                "`{id}` may wait in vain for a call of `{service}`: the stream of `{name}` holds one until it has ended"
            );
            let problem = problems.warn(&all.key(id.as_str()), message);
            problem.hint(format!("let `{name}` begin last (`needs: [{id}]`), or call another service"));
        }
    }
}

/// The steps that have ended when this one begins.
fn ancestors(steps: &[Step], of: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut to_visit = vec![of];
    while let Some(at) = to_visit.pop() {
        let needs = steps[at].needs.iter().map(|index| index.0);
        to_visit.extend(needs.filter(|need| found.insert(*need)));
    }
    found
}
