//! The checked rules for legacy's calls and the engine's intents.
//!
//! Always true: each step that has rules exists in the workflow and makes a call.

use std::collections::BTreeMap;

use http::{HeaderName, Method};

use super::call::{Call, EngineCall};
use super::call_pattern::CallPattern;
use super::call_template::{CallRole, CallTemplate};
use super::draft::EffectRulesDraft;
use super::path_text::{has_dot_segments, path_of_url};
use crate::compare::body_rules::{
    self, BodyRules, BodyRulesDraft, IgnoredName, RuleId, RuleTexts, compared_header, header,
};
use crate::compare::draft::{CompareContext, RulesDraft};
use crate::compare::effect::Effect;
use crate::compare::observation::Intent;
use crate::compare::rule_warnings;
use crate::compare::text_rules::TextRules;
use crate::names::{ServiceName, StepId};
use crate::problem::{Problems, Site, nearest};

/// The rules for the calls of all steps.
#[derive(Clone, Default)]
pub(in crate::compare) struct EffectRules {
    steps: BTreeMap<StepId, StepRules>,
    /// The rules of a step for which none are declared.
    of_others: StepRules,
    /// Calls of legacy that no step makes, and that do not count as differences.
    pub(super) ignore_calls: Vec<(CallPattern, RuleId)>,
    /// The calls that the workflow and its child workflows may make.
    pub(super) templates: Vec<CallTemplate>,
}

/// The rules for the calls of one step.
#[derive(Clone, Default)]
pub(in crate::compare) struct StepRules {
    pub(super) headers: Vec<HeaderName>,
    pub(super) ignored_headers: Vec<(HeaderName, RuleId)>,
    pub(super) ignored_query: Vec<(String, RuleId)>,
    pub(super) ignored_path: Option<RuleId>,
    /// The rule `ignore: ["$"]`: differences of the body do not count, and the body need not have been captured.
    pub(super) ignored_body: Option<RuleId>,
    pub(super) body: BodyRules,
    /// How a body that is text is compared.
    pub(super) text: Option<TextRules>,
    pub(super) any_order: Option<RuleId>,
    /// Whether the intents of a read are compared too.
    pub(super) reads: bool,
    /// The rule `unseen`: legacy's calls of this step do not come through the egress listener.
    pub(in crate::compare) unseen: Option<RuleId>,
    /// Whether legacy may make the same call as this private step.
    pub(super) is_made_by_both: bool,
}

impl EffectRules {
    /// Checks a draft. `site` is the position of the `compare:` value in its file; `renaming` is the first rule under
    /// `ids` for the replies.
    pub(in crate::compare) fn check(
        draft: &RulesDraft,
        site: &Site,
        context: &CompareContext<'_>,
        renaming: Option<RuleId>,
        texts: &mut RuleTexts,
        problems: &mut Problems,
    ) -> Self {
        let mut rules = Self { templates: context.calls.to_vec(), ..Self::default() };
        for (n, text) in draft.ignore_calls.iter().enumerate() {
            let site = site.key("ignore_calls").index(n);
            if let Some(pattern) = CallPattern::check(text, &site, context.services, problems) {
                rules.ignore_calls.push((pattern, texts.register_ignored_calls(text)));
            }
        }
        for (step, draft) in &draft.effects {
            let site = site.key("effects").key(step.as_str());
            if context.runs.contains(&step.as_str()) && draft.unseen.is_none() {
                let prefix = format!("{step}/");
                let below = context.intents.iter().find(|name| name.starts_with(&prefix));
                let example = below.map(|name| format!("`{name}`, or ")).unwrap_or_default();
                problems
                    .error(
                        &site,
                        format!("the step `{step}` runs a workflow: rules are for the steps of that workflow"),
                    )
                    .hint(format!("name one of its steps: {example}say why none is seen (`unseen: REASON`)"));
            } else if is_step(step, &site, context, problems) {
                let template = context.calls.iter().find(|call| call.step.as_ref().is_some_and(|s| s.as_str() == step));
                let checked = StepRules::check(step, draft, template, &site, texts, problems);
                rules.steps.insert(step.as_str().into(), checked);
            }
        }
        // An id that the rules of one step declare may occur in the calls of other steps.
        let own = |step: &StepRules| step.body.renaming.or_else(|| step.text.as_ref()?.first_id_rule());
        let renaming = renaming.or_else(|| rules.steps.values().find_map(own));
        for step in rules.steps.values_mut().chain([&mut rules.of_others]) {
            step.body.renaming = step.body.renaming.or(renaming);
            step.body.number_form = draft.numbers.form;
        }
        rules
    }

    /// The rules for the calls of a step. Those of a step that runs a workflow hold for all steps below it that have no
    /// rules of their own.
    pub(in crate::compare) fn of(&self, step: &StepId) -> &StepRules {
        let above = std::iter::successors(Some(step.as_str()), |name| Some(name.rsplit_once('/')?.0));
        above.filter_map(|name| self.steps.get(name)).next().unwrap_or(&self.of_others)
    }

    /// The steps whose private calls legacy must not make too: all but those that the rules declare `made_by_both`.
    pub(in crate::compare) fn private_steps(&self) -> impl Iterator<Item = &StepId> {
        let private = self.templates.iter().filter(|template| template.role == CallRole::Private);
        private.filter_map(|template| template.step.as_ref()).filter(|step| !self.of(step).is_made_by_both)
    }

    /// The template of a step's call; `None` if it is not known.
    pub(in crate::compare) fn template_of(&self, step: &StepId) -> Option<&CallTemplate> {
        self.templates.iter().find(|template| template.step.as_ref() == Some(step))
    }

    /// The steps that make a shared call, and their undos.
    pub(in crate::compare) fn shared_steps(&self) -> impl Iterator<Item = &StepId> {
        let shared = self.templates.iter().filter(|template| template.role == CallRole::Shared);
        shared.filter_map(|template| template.step.as_ref())
    }

    /// Whether the bodies of some step's calls are compared line by line.
    pub(in crate::compare) fn compares_text(&self) -> bool {
        self.steps.values().any(|step| step.text.is_some())
    }

    /// Whether a step, where it is rehearsed, takes its output from a call by legacy.
    pub(in crate::compare) fn takes_replies(&self) -> bool {
        self.templates.iter().any(|template| template.takes_reply)
    }

    /// Whether `effects` hold, for each step that takes its output from a call by legacy, a call that may be the
    /// step's.
    pub(in crate::compare) fn all_replies_may_be_there(&self, effects: &[Effect]) -> bool {
        let fits = |template: &CallTemplate, effect: &Effect| {
            effect.service.as_ref().is_none_or(|service| *service == template.service)
                && template.matches(&effect.method, path_of_url(&effect.url))
        };
        let mut takers = self.templates.iter().filter(|template| template.takes_reply);
        takers.all(|template| effects.iter().any(|effect| fits(template, effect)))
    }

    /// The calls of the workflow to which a call with this service, method and URL may correspond.
    fn fitting<'r>(
        &'r self,
        service: Option<&'r ServiceName>,
        method: &'r Method,
        url: &'r str,
    ) -> impl Iterator<Item = &'r CallTemplate> {
        let of_service = self.templates.iter().filter(move |template| service == Some(&template.service));
        of_service.filter(move |template| template.matches(method, path_of_url(url)))
    }

    /// The calls of the workflow that a call by legacy may be.
    pub(super) fn templates_of<'r>(&'r self, call: &'r Call<'_>) -> impl Iterator<Item = &'r CallTemplate> {
        self.fitting(call.service, call.method, call.url)
    }

    /// Whether a step sends a read with a method that is not safe.
    pub(in crate::compare) fn has_unsafe_reads(&self) -> bool {
        self.templates.iter().any(|template| template.reads() && !template.method.is_safe())
    }

    /// The step of a read that was sent. A read of a run below is recorded under the name of its step there.
    pub(super) fn step_of_read<'r>(&'r self, read: &'r EngineCall<'r>) -> &'r StepId {
        let below = || self.templates_of(&read.call).find(|template| template.reads())?.step.as_ref();
        if read.template.is_some_and(CallTemplate::reads) { read.step } else { below().unwrap_or(read.step) }
    }
    /// The steps that send reads with a method that is not safe: all but those that the rules declare `made_by_both`.
    pub(in crate::compare) fn sent_reads(&self) -> impl Iterator<Item = &StepId> {
        let sent = self.templates.iter().filter(|template| template.sends_read() && !template.method.is_safe());
        sent.filter_map(|template| template.step.as_ref()).filter(|step| !self.of(step).is_made_by_both)
    }
    /// Whether a step that only reads makes such a call, and no other step does.
    pub(in crate::compare) fn is_declared_read(&self, effect: &Effect) -> bool {
        let mut fitting = self.fitting(effect.service.as_ref(), &effect.method, &effect.url).peekable();
        fitting.peek().is_some() && fitting.all(CallTemplate::reads)
    }

    /// Whether a call that only legacy made is a read, and compared with nothing.
    pub(in crate::compare) fn is_read_without_comparison(
        &self,
        service: Option<&ServiceName>,
        method: &Method,
        url: &str,
    ) -> bool {
        method.is_safe() && self.fitting(service, method, url).all(|template| !self.judges(template))
    }

    /// Whether a step of the workflow, or of one that it runs, makes such a call and only reads with it.
    pub(in crate::compare) fn may_be_made_to_read(&self, effect: &Effect) -> bool {
        let mut fitting = self.fitting(effect.service.as_ref(), &effect.method, &effect.url);
        fitting
            .any(|template| matches!(template.role, CallRole::Read { .. } | CallRole::NotCompared { is_effect: false }))
    }

    /// Whether the workflow, or one that it runs, makes such a call where legacy makes it, or the rules ignore it. A
    /// private step does not: legacy may not make its call.
    pub(in crate::compare) fn is_expected_call(
        &self,
        service: Option<&ServiceName>,
        authority: &str,
        method: &Method,
        path: &str,
    ) -> bool {
        let is_made = |template: &CallTemplate| {
            let may_be_legacys = match &template.step {
                Some(step) => template.role != CallRole::Private || self.of(step).is_made_by_both,
                None => true,
            };
            // A template that fits any path does not tell where the engine calls. A path with dot segments may lead
            // elsewhere.
            let is_named = !template.fits_any_path() && template.matches(method, path) && !has_dot_segments(path);
            may_be_legacys && is_named && service == Some(&template.service)
        };
        self.templates.iter().any(is_made) || self.ignores_call(service, authority, method, path)
    }

    /// Whether `ignore_calls` names such a call.
    pub(in crate::compare) fn ignores_call(
        &self,
        service: Option<&ServiceName>,
        authority: &str,
        method: &Method,
        path: &str,
    ) -> bool {
        let name = service.map(ServiceName::as_str);
        self.ignore_calls.iter().any(|(calls, _)| calls.names(name, authority, method, path))
    }

    /// Whether a call like this one may be an effect of the workflow, or of one that it runs.
    pub(in crate::compare) fn makes_as_effect(&self, call: &Intent) -> bool {
        let is_effect = |template: &CallTemplate| match template.role {
            CallRole::Shared | CallRole::Private => true,
            CallRole::NotCompared { is_effect } => is_effect,
            CallRole::Read { .. } => false,
        };
        self.fitting(call.service.as_ref(), &call.method, &call.url).any(is_effect)
    }

    /// Whether a call like this one may be a shared effect of the workflow, or an effect of one that it runs.
    pub(in crate::compare) fn makes_as_shared(&self, call: &Effect) -> bool {
        let is_shared = |template: &CallTemplate| match template.role {
            CallRole::Shared => true,
            CallRole::NotCompared { is_effect } => is_effect,
            CallRole::Private | CallRole::Read { .. } => false,
        };
        self.fitting(call.service.as_ref(), &call.method, &call.url).any(is_shared)
    }

    /// Whether an intent is compared with legacy's calls. An intent without a template is, unless its method is
    /// safe or it is of a child run: such intents are compared only if their templates are known.
    pub(super) fn judges_intent(&self, intent: &EngineCall<'_>) -> bool {
        match intent.template {
            Some(template) => self.judges(template),
            None => !intent.step.as_str().contains('/') && !intent.call.method.is_safe(),
        }
    }

    /// Whether the engine's intents of a call are compared with legacy's calls.
    pub(super) fn judges(&self, template: &CallTemplate) -> bool {
        match (&template.step, template.role) {
            (Some(_), CallRole::Shared | CallRole::Private) => true,
            (Some(step), CallRole::Read { is_recorded }) => is_recorded && self.of(step).reads,
            (None, _) | (_, CallRole::NotCompared { .. }) => false,
        }
    }
}

impl StepRules {
    fn check(
        step: &str,
        draft: &EffectRulesDraft,
        template: Option<&CallTemplate>,
        site: &Site,
        texts: &mut RuleTexts,
        problems: &mut Problems,
    ) -> Self {
        let mut rules = Self::default();
        let names = draft.headers.iter().enumerate();
        rules.headers =
            names.filter_map(|(n, name)| compared_header(name, &site.key("headers").index(n), problems)).collect();
        let prefix = format!("effects.{step} ");
        let body = BodyRulesDraft {
            ignore: &draft.ignore,
            ids: &draft.ids,
            unordered: &draft.unordered,
            tolerance: &draft.tolerance,
        };
        let (mut headers, mut query, mut path, mut whole) = (Vec::new(), Vec::new(), None, None);
        rules.body = body_rules::check(&body, &prefix, site, texts, problems, |ignored, rule, problems| {
            let IgnoredName { text, site, is_conditional } = *ignored;
            if let Some(name) = text.strip_prefix("header.") {
                if let Some(name) = header(name, site, problems) {
                    headers.push((name, rule()));
                }
            } else if let Some(name) = text.strip_prefix("query.") {
                query.push((name.to_owned(), rule()));
            } else if text == "path" {
                path = Some(rule());
            } else if text == "$" {
                whole = Some(rule());
            } else {
                return false;
            }
            if is_conditional {
                let message = format!("`{text}` of a call cannot have a `when`");
                problems.error(site, message).hint("only parts of the body can: `$.sent_at`");
            }
            true
        });
        rule_warnings::warn(&body, site, problems);
        (rules.ignored_headers, rules.ignored_query) = (headers, query);
        (rules.ignored_path, rules.ignored_body) = (path, whole);
        let is_shared = template.is_some_and(|template| template.role == CallRole::Shared);
        if is_shared && rules.ignored_body.is_some() && rules.headers.is_empty() {
            let message =
                format!("the body of `{step}` is not compared (`$`), so its calls count as compared with nothing");
            problems.warn(&site.key("ignore"), message).hint(
                "ignore parts of it, hold it against an `assert:`, or say by `unseen:` why it need not be compared",
            );
        }
        let text = draft.text.as_ref();
        rules.text = text.map(|text| TextRules::check(text, &prefix, &site.key("text"), texts, problems));
        rules.any_order = draft.any_order.then(|| texts.register(format!("{prefix}any_order")));
        if let Some(reason) = &draft.unseen {
            if reason.trim().is_empty() {
                problems
                    .error(&site.key("unseen"), "`unseen` gives no reason")
                    .hint("say why legacy's calls of this step do not come through the egress listener");
            }
            rules.unseen = Some(texts.register(format!("{prefix}unseen")));
        }
        if let Some(reason) = &draft.made_by_both {
            check_made_by_both(step, reason, template, &site.key("made_by_both"), problems);
            rules.is_made_by_both = true;
        }
        rules.reads = draft.reads;
        if draft.reads {
            check_reads(step, template, &site.key("reads"), problems);
        }
        rules
    }
}

/// Checks that the workflow has a step of this name with a call; reports an error otherwise.
fn is_step(step: &str, site: &Site, context: &CompareContext<'_>, problems: &mut Problems) -> bool {
    if context.intents.contains(&step) || context.runs.contains(&step) {
        return true;
    }
    let problem = problems.error(&site.clone().at_key(), format!("the workflow has no step `{step}` with a call"));
    match nearest(step, context.intents.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None if context.intents.is_empty() => problem.hint("the route has no workflow with a call to compare"),
        None => problem.hint(format!("its steps are {}", context.intents.join(", "))),
    };
    false
}

fn check_made_by_both(step: &str, reason: &str, template: Option<&CallTemplate>, site: &Site, problems: &mut Problems) {
    if reason.trim().is_empty() {
        problems
            .error(site, "`made_by_both` gives no reason")
            .hint("say why no harm is done where legacy and the engine both make the call");
    }
    let is_sent = |template: &CallTemplate| template.role == CallRole::Private || template.sends_read();
    if template.is_some_and(|template| !is_sent(template)) {
        problems
            .error(
                site,
                format!(
                    "the step `{step}` is neither private nor a read that is sent, so the engine does not make its \
                     call in addition to legacy's"
                ),
            )
            .hint("leave `made_by_both` out");
    }
}

fn check_reads(step: &str, template: Option<&CallTemplate>, site: &Site, problems: &mut Problems) {
    match template.map(|template| template.role) {
        Some(CallRole::Read { is_recorded: true }) | None => {}
        Some(CallRole::Read { is_recorded: false }) => {
            problems
                .error(site, format!("the step `{step}` is sent in shadow and dark, so no call of it can be compared"))
                .hint("a read with a `rehearse:` is not sent, and is recorded");
        }
        Some(CallRole::Shared | CallRole::Private | CallRole::NotCompared { .. }) => {
            problems
                .warn(site, format!("the step `{step}` does not only read: its calls are compared anyway"))
                .hint("leave `reads` out");
        }
    }
}
