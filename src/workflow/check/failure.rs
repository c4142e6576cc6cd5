//! Checks how a step handles failures: deadlines, conflicts, fallback, probe, undo, and the schema of its output.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::checked_step::{CheckedStep, FailureSettings};
use super::context::{Check, compiled, draft};
use super::names::{ExpressionContext, Usage};
use super::values;
use crate::limits::Limits;
use crate::problem::Site;
use crate::workflow::definition::{FailuresDraft, ProbeDraft, StepDraft, UndoDraft};
use crate::workflow::{Call, EffectClass, PauseOrFail, Probe, Schema, Statuses, StepKind};

/// The default delay between an attempt and its probe.
const PROBE_AFTER: Duration = Duration::from_secs(1);
/// The default time during which an attempt may still take effect after it was sent.
const PROBE_SETTLES: Duration = Duration::from_secs(30);

impl Check<'_> {
    /// Checks how a step handles failures. `kind` is `None` if the settings of the step's kind have an error.
    pub(super) fn failure_settings(
        &mut self,
        site: &Site,
        draft: &StepDraft,
        kind: Option<&StepKind>,
        context: &mut ExpressionContext<'_>,
    ) -> FailureSettings {
        let deadline = draft.deadline.as_ref().and_then(|text| self.span(text, &site.key("deadline")));
        let output = self.output(site, draft);
        let call = match kind {
            Some(StepKind::Call(call)) => Some(&**call),
            Some(_) | None => None,
        };
        if draft.failures.is_some() && draft.for_each.is_none() {
            self.problems.error(&site.key("failures").at_key(), "`failures` is allowed only in a step with `for_each`");
        }
        if draft.for_each.is_some() && draft.fallback_only {
            let message = "a fallback replaces one call or one item, so it cannot have a `for_each`";
            self.problems.error(&site.key("fallback_only").at_key(), message);
        }
        if draft.failures == Some(FailuresDraft::Collect) && draft.on_failure == Some(PauseOrFail::Pause) {
            let message =
                "a step has either `failures: collect`, or `on_failure: pause`, which has a person decide: not both";
            self.problems.error(&site.key("on_failure").at_key(), message);
        }
        let is_read = call.is_some_and(|call| call.effect == EffectClass::Read);
        for (key, is_given) in [("undo", draft.undo.is_some()), ("probe", draft.probe.is_some())] {
            if is_given && is_read {
                let message = format!("a `read` changes nothing, so `{key}` has no meaning for it");
                let hint = "say `effect: private` or `shared` if it does change something";
                self.problems.error(&site.key(key).at_key(), message).hint(hint);
            }
        }
        FailureSettings {
            fallback: draft.fallback.clone(),
            fallback_only: draft.fallback_only,
            on_conflict: draft.on_conflict,
            on_failure: draft.on_failure,
            deadline,
            output,
            undo: match kind {
                Some(StepKind::Call(call)) if !is_read => self.undo(site, draft, Some(call.effect), context),
                // The undo of a child run is an ordinary call, which reads from the run's output what the run did.
                Some(StepKind::Run(_)) => self.undo(site, draft, None, context),
                Some(_) | None => None,
            },
            probe: call.filter(|_| !is_read).and_then(|call| self.probe(site, draft, call, context)),
        }
    }

    /// Parses a duration of up to a year, such as `90s`, `2h` or `3d`; reports an error.
    pub(super) fn span(&mut self, text: &str, site: &Site) -> Option<Duration> {
        values::span(text).map_err(|message| self.problems.error(site, message)).ok()
    }

    fn output(&mut self, site: &Site, draft: &StepDraft) -> Option<Schema> {
        let schema = draft.output.as_ref()?.schema.as_ref()?;
        compiled(schema, &site.key("output").key("schema"), self.problems)
    }

    /// Checks an undo. `effect` is the effect class of the undo's call; if it is `None`, the call's method determines
    /// the class.
    fn undo(
        &mut self,
        site: &Site,
        step: &StepDraft,
        effect: Option<EffectClass>,
        context: &mut ExpressionContext<'_>,
    ) -> Option<Box<Call>> {
        let value = step.undo.as_ref()?;
        let at = site.key("undo");
        let (undo, call_at) = match value {
            Value::String(text) => (UndoDraft { call: Some(text.clone()), ..UndoDraft::default() }, at.clone()),
            value => (draft::<UndoDraft>(value, &at, self.problems)?, at.key("call")),
        };
        let Some(text) = &undo.call else {
            let problem = self.problems.error(&at, "`undo` needs a `call`");
            problem.hint("for example `undo: DELETE ${services.NAME}/things/${output.id}`");
            return None;
        };
        let accepts_default = undo.accept.is_none();
        let part = StepDraft {
            effect,
            headers: undo.headers,
            body: undo.body,
            retry: undo.retry,
            timeout: undo.timeout,
            accept: undo.accept,
            ..StepDraft::default()
        };
        let mut call = self.undo_or_probe_call(text, &call_at, &at, &part, &["output", "status"], context)?;
        if matches!(call.method, Method::GET | Method::HEAD | Method::OPTIONS) {
            let message = format!("a {} undoes nothing", call.method);
            self.problems.error(&call_at, message).hint("name the call that undoes what the step did");
        }
        if accepts_default && call.method == Method::DELETE {
            // A repeated DELETE is answered with 404 or 410, which counts as undone.
            call.accept.0.extend([(404, 404), (410, 410)]);
        }
        Some(Box::new(call))
    }

    fn probe(
        &mut self,
        site: &Site,
        step: &StepDraft,
        call: &Call,
        context: &mut ExpressionContext<'_>,
    ) -> Option<Box<Probe>> {
        let draft: &ProbeDraft = step.probe.as_ref()?;
        let at = site.key("probe");
        let Some(text) = &draft.call else {
            let problem = self.problems.error(&at, "`probe` needs a `call`");
            problem.hint(format!("for example `call: GET ${{services.{}}}/things?key=${{key}}`", call.service));
            return None;
        };
        let part = StepDraft {
            effect: Some(EffectClass::Read),
            headers: draft.headers.clone(),
            retry: draft.retry.clone(),
            timeout: draft.timeout.clone(),
            accept: draft.accept.clone(),
            ..StepDraft::default()
        };
        if let Ok((method, ..)) = values::call(text)
            && !matches!(method, Method::GET | Method::HEAD | Method::POST)
        {
            let message = format!("a probe only asks; a {method} changes something");
            self.problems.error(&at.key("call"), message).hint("GET, HEAD, or a POST that only searches");
            return None;
        }
        let probe_call = self.undo_or_probe_call(text, &at.key("call"), &at, &part, &["key"], context);
        let after = draft.after.as_ref().map(|text| self.span(text, &at.key("after")));
        let timeout = call.timeout.unwrap_or_else(|| Limits::ms(self.known.limits.step_timeout_ms));
        let settles = match &draft.settles {
            None => Some(PROBE_SETTLES.max(timeout)),
            Some(text) => self.settles(text, timeout, &at.key("settles")),
        };
        let outer = (context.usage, context.extra);
        (context.usage, context.extra) = (Usage::Value, &["key", "output", "status", "headers"]);
        let done = match &draft.done {
            Some(text) => self.condition(text, &at.key("done"), context),
            None => {
                let problem = self.problems.error(&at, "`probe` says how to read the answer: `done` is missing");
                problem.hint("for example `done: ${status == 200}`");
                None
            }
        };
        let output = draft.output.as_ref().map(|value| self.template(value, &at.key("output"), context));
        (context.usage, context.extra) = outer;
        let mut call = probe_call?;
        if draft.accept.is_none() {
            call.accept = Statuses(vec![(200, 299), (404, 404)]);
        }
        let after = after.unwrap_or(Some(PROBE_AFTER))?;
        let output = output.map_or(Some(None), |output| output.map(Some))?;
        Some(Box::new(Probe { call, after, settles: settles?, done: done?, output }))
    }

    /// Checks that `settles` is not shorter than the step's timeout: until then an attempt may still take effect.
    fn settles(&mut self, text: &str, timeout: Duration, at: &Site) -> Option<Duration> {
        let settles = self.span(text, at)?;
        if settles < timeout && !self.is_stored_definition {
            let message = format!(
                "`settles` ({text}) is shorter than the step's timeout ({} ms): an attempt may take effect until then",
                timeout.as_millis()
            );
            let hint = "`settles` is how long after sending the service may still commit a request: at least the step's `timeout`";
            self.problems.error(at, message).hint(hint);
            return None;
        }
        Some(settles)
    }

    /// Checks the call of an undo or a probe. Every step that this call reads becomes a need of the step itself, so it
    /// has ended by then. `extra` names the further values that the call may read.
    fn undo_or_probe_call(
        &mut self,
        text: &str,
        call_at: &Site,
        site: &Site,
        draft: &StepDraft,
        extra: &'static [&'static str],
        context: &mut ExpressionContext<'_>,
    ) -> Option<Call> {
        let outer = (context.usage, context.extra);
        context.extra = extra;
        let call = self.call(text, call_at, site, draft, context);
        (context.usage, context.extra) = outer;
        call
    }

    /// Finds the fallbacks that replace single items: those named by a step with `for_each`, and their own fallbacks.
    pub(super) fn find_item_fallbacks(&mut self) {
        let fallback_of = |name: &str| self.steps.iter().find(|(known, ..)| *known == name)?.2.fallback.as_deref();
        let first = self.steps.iter().filter(|(.., draft)| draft.for_each.is_some());
        let mut open: Vec<&str> = first.filter_map(|(.., draft)| draft.fallback.as_deref()).collect();
        let mut found = BTreeSet::new();
        while let Some(name) = open.pop() {
            if found.insert(name.to_owned()) {
                open.extend(fallback_of(name));
            }
        }
        self.item_fallbacks = found;
    }

    /// Checks that every fallback exists, is `fallback_only`, replaces exactly one other step, and is read by no step.
    pub(super) fn fallbacks(&mut self, checked: &[CheckedStep]) {
        let mut replaced: BTreeMap<&str, &str> = BTreeMap::new();
        for (index, step) in checked.iter().enumerate() {
            let Some(by) = &step.failure_settings.fallback else { continue };
            let Some((_, site, _)) = self.steps.get(index) else { continue };
            let at = site.key("fallback");
            let Some(other) = checked.iter().find(|other| other.id.as_str() == by) else {
                let hint = self.step_hint(by);
                let problem = self.problems.error(&at, format!("unknown step `{by}`"));
                if let Some(hint) = hint {
                    problem.hint(hint);
                }
                continue;
            };
            if other.id == step.id {
                self.problems.error(&at, "a step cannot be its own fallback").hint("`retry` tries it again");
                continue;
            }
            if !other.failure_settings.fallback_only {
                let message = format!("`{by}` runs anyway, so it cannot take the place of `{}`", step.id);
                self.problems.error(&at, message).hint(format!("say `fallback_only: true` in `{by}`"));
            }
            let replaces_no_items =
                matches!(other.kind, Some(StepKind::Checkpoint(_) | StepKind::Wait(_) | StepKind::Fail(_)));
            if replaces_no_items && self.item_fallbacks.contains(by) {
                let message = format!(
                    "`{by}` would take the place of single items of a `for_each`: only a `call`, a `set` or a `run` can"
                );
                self.problems.error(&at, message);
            }
            match replaced.get(by.as_str()) {
                Some(first) => {
                    let message = format!("`{by}` is the fallback of `{first}` already");
                    self.problems.error(&at, message).hint("a fallback replaces only one step: declare a second one");
                }
                None => {
                    replaced.insert(by, step.id.as_str());
                }
            }
        }
        for (index, step) in checked.iter().enumerate() {
            let Some((_, site, _)) = self.steps.get(index) else { continue };
            let site = site.clone();
            if step.failure_settings.fallback_only && !replaced.contains_key(step.id.as_str()) {
                let message = format!("no step has `{}` as its fallback, so it would never run", step.id);
                let hint = format!("say `fallback: {}` in the step whose place it takes", step.id);
                self.problems.error(&site.key("fallback_only"), message).hint(hint);
            }
            for need in &step.needs {
                let fallback_only =
                    checked.iter().any(|other| other.id.as_str() == need && other.failure_settings.fallback_only);
                if let (true, Some(of)) = (fallback_only, replaced.get(need.as_str())) {
                    let message = format!("`{need}` runs only where it takes the place of `{of}`");
                    let hint = format!("read `steps.{of}`: if `{need}` ran, its output is there, and `by` is `{need}`");
                    self.problems.error(&site, message).hint(hint);
                }
            }
        }
    }
}
