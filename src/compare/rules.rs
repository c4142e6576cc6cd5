//! Checked rules of one route.
//!
//! Always true: every path and expression has been parsed; an assert reads only `request`, `legacy`, `engine`, and
//! `intents` and `effects` of steps that exist.

use std::sync::Arc;

use http::{HeaderName, Method};

use super::awaited::AwaitedIntents;
use super::body_rules::{self, BodyRules, BodyRulesDraft, RuleId, RuleTexts, compared_header, header};
use super::condition;
use super::draft::{CompareContext, RulesDraft, StatusDraft};
use super::effect::Effect;
use super::effects::{CallRole, EffectRules};
use super::observation::Intent;
use super::rule_drafts::Written;
use super::rule_warnings;
use super::shown_condition::shown_condition;
use super::text_rules::TextRules;
use super::whole_body::WholeBodyIgnored;
use crate::expression::{EFFECTS, EFFECTS_OF_ALL_STEPS, Expression, ReadPath};
use crate::names::{OF_UNDO, ServiceName, StepId};
use crate::problem::{Problems, Site, nearest};

/// Checked rules of one route.
#[derive(Clone)]
pub struct Rules {
    /// Each rule as text, by its id.
    pub(super) texts: RuleTexts,
    pub(super) status: Status,
    pub(super) headers: Vec<HeaderName>,
    pub(super) ignored_headers: Vec<(HeaderName, RuleId)>,
    /// The rules for the bodies of the replies.
    pub(super) body: BodyRules,
    /// The rules for replies that are texts.
    pub(super) text: Option<TextRules>,
    pub(super) effects: EffectRules,
    pub(super) asserts: Vec<Assert>,
    whole_body_ignored: WholeBodyIgnored,
    hash: String,
    draft: Arc<RulesDraft>,
}

/// A condition that must hold.
#[derive(Clone)]
pub(super) struct Assert {
    /// What is shown of its text.
    pub(super) source: String,
    pub(super) expression: Expression,
    /// Where it is evaluated; `None`: where legacy did not answer 4xx or 5xx.
    pub(super) when: Option<Expression>,
    /// Counted where it is not evaluated because legacy refused, or because its condition cannot be evaluated.
    pub(super) skipped: RuleId,
}

impl Assert {
    /// Whether the condition compares the intents of a step with legacy's reply or the request: one that reads only
    /// intents compares them with nothing.
    pub(super) fn reads(&self, step: &StepId) -> bool {
        let reads = self.expression.reads();
        if !reads.iter().any(|read| ["legacy", "request"].contains(&read.root())) {
            return false;
        }
        let mut of_intents = self.expression.reads().iter().filter(|read| are_intents(read));
        of_intents.any(|read| read_step(read).is_none_or(|name| name == step.as_str()))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Status {
    Exact,
    Class { rule: RuleId },
}

impl Default for Rules {
    fn default() -> Self {
        let headers = vec![http::header::CONTENT_TYPE, http::header::LOCATION];
        Self {
            texts: RuleTexts::default(),
            status: Status::Exact,
            headers,
            ignored_headers: Vec::new(),
            body: BodyRules::default(),
            text: None,
            effects: EffectRules::default(),
            asserts: Vec::new(),
            whole_body_ignored: WholeBodyIgnored::default(),
            hash: hash_of(&RulesDraft::default()),
            draft: Arc::default(),
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
        let whole_body_ignored = WholeBodyIgnored::of(&draft.ignore);
        let own = Arc::new(draft.clone());
        let texts = RuleTexts::new(context.redact);
        let mut rules = Rules { texts, hash: hash_of(draft), whole_body_ignored, draft: own, ..Rules::default() };
        // Before the rules, of which the first may name a kind that a later one declares.
        let ids = draft.effects.values().fold(draft.ids.iter().collect(), |mut ids: Vec<_>, of_step| {
            ids.extend(&of_step.ids);
            ids
        });
        for kind in ids.iter().filter_map(|ids| ids.0.get("kind")?.as_str()) {
            rules.texts.declare_kind(kind);
        }
        if draft.status == StatusDraft::Class {
            rules.status = Status::Class { rule: rules.texts.register("status class".into()) };
        }
        if let Some(names) = &draft.headers {
            let site = site.key("headers");
            let parsed =
                names.iter().enumerate().filter_map(|(n, name)| compared_header(name, &site.index(n), problems));
            rules.headers = parsed.collect();
        }
        let body = BodyRulesDraft {
            ignore: &draft.ignore,
            ids: &draft.ids,
            unordered: &draft.unordered,
            tolerance: &draft.tolerance,
        };
        let ignored = &mut rules.ignored_headers;
        rules.body = body_rules::check(&body, "", site, &mut rules.texts, problems, |entry, rule, problems| {
            let Some(name) = entry.text.strip_prefix("header.") else { return false };
            if let Some(name) = header(name, entry.site, problems) {
                ignored.push((name, rule()));
            }
            true
        });
        rules.body.number_form = draft.numbers.form;
        rule_warnings::warn(&body, site, problems);
        rule_warnings::warn_of_headers(&rules.headers, &rules.ignored_headers, &rules.body, site, problems);
        if let Some(text) = &draft.text {
            let checked = TextRules::check(text, "", &site.key("text"), &mut rules.texts, problems);
            rules.body.renaming = rules.body.renaming.or_else(|| checked.first_id_rule());
            rules.text = Some(checked);
        }
        let renaming = rules.body.renaming;
        rules.effects = EffectRules::check(draft, site, context, renaming, &mut rules.texts, problems);
        for (n, draft) in draft.assert.iter().enumerate() {
            let Some(written) = Written::of(&draft.0, "that", &site.key("assert").index(n)) else { continue };
            let when = condition::when(written.when.as_ref(), problems);
            if let Some(expression) = assert(written.text(), &written.site, context, problems) {
                let text = written.text().trim();
                let source = rules.texts.masked(text, shown_condition);
                let why = match &when {
                    None => "(not evaluated: legacy answered 4xx or 5xx)",
                    Some(_) => "(condition failed: it was not evaluated)",
                };
                let skipped = rules.texts.register_note(format!("assert {source} {why}"));
                rules.asserts.push(Assert { source, expression, when, skipped });
            }
        }
        let hint = "leave out `ignore: [\"$\"]` and name the parts that may differ, or compare the exact status";
        if rules.compares_no_reply() {
            let message = "under these rules nothing of the replies is compared, so no pair counts as evidence";
            problems.warn(site, message).hint(hint);
        } else if rules.may_compare_only_the_body() && rules.whole_body_ignored.on_condition {
            let message = "where the condition of an `ignore` of the whole body holds, nothing of the replies is \
                           compared, so that such a pair does not count as evidence";
            problems.warn(site, message).hint(hint);
        }
        let errors_after = problems.iter().filter(|p| p.severity == crate::problem::Severity::Error).count();
        (errors_after == errors_before).then_some(rules)
    }

    /// Whether the rules say that nothing of the replies is compared, whatever they are: not the body, only the class
    /// of the status, no header, no `assert`. Whether anything of a pair was, [`Comparison::compares_replies`] says.
    ///
    /// [`Comparison::compares_replies`]: super::Comparison::compares_replies
    pub fn compares_no_reply(&self) -> bool {
        self.whole_body_ignored.always && self.may_compare_only_the_body()
    }

    /// Whether the rules compare neither the exact status nor a header and have no `assert` on both arms, so that the
    /// body is all that they may compare of the replies.
    fn may_compare_only_the_body(&self) -> bool {
        let is_ignored = |header: &HeaderName| self.ignored_headers.iter().any(|(ignored, _)| ignored == header);
        matches!(self.status, Status::Class { .. })
            && self.headers.iter().all(is_ignored)
            && !self.asserts.iter().any(|assert| holds_arms_together(&assert.expression))
    }

    /// A hash that is equal for equal rules. Evidence that was collected under other rules does not count.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The rules as they were written.
    pub fn draft(&self) -> &RulesDraft {
        &self.draft
    }

    /// The texts of the rules that can make two different values equal, as [`Comparison::ignored_by`] names them.
    ///
    /// [`Comparison::ignored_by`]: super::Comparison::ignored_by
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.texts.rules()
    }

    /// Whether there are asserts or conditions, which read the request.
    pub fn reads_request(&self) -> bool {
        !self.asserts.is_empty() || self.texts.conditions().next().is_some()
    }

    /// Whether a step, where it is rehearsed, takes its output from a call by legacy (`rehearse: legacy`).
    pub fn takes_replies(&self) -> bool {
        self.effects.takes_replies()
    }

    /// Whether the rules say that legacy's calls of a step are not seen.
    pub fn is_unseen(&self, step: &StepId) -> bool {
        self.effects.of(step).unseen.is_some()
    }

    /// Whether an assert holds the intents of a step against legacy's reply or the request.
    pub fn asserts_read(&self, step: &StepId) -> bool {
        self.asserts.iter().any(|assert| assert.reads(step))
    }

    /// The steps of the workflow that make a shared call, without undos and without those that the rules declare
    /// `unseen`.
    pub fn shared_steps_to_compare(&self) -> Vec<StepId> {
        // Whether an undo is sent depends on a failure, which legacy seldom has.
        let is_compared = |step: &&StepId| !step.as_str().ends_with(OF_UNDO) && !self.is_unseen(step);
        self.effects.shared_steps().filter(is_compared).cloned().collect()
    }

    /// The private steps of the workflow, without undos and without those that the rules declare `made_by_both`. In
    /// `dark` the engine sends their calls beside legacy.
    pub fn private_steps_of_one_arm(&self) -> Vec<StepId> {
        self.effects.private_steps().filter(|step| !step.as_str().ends_with(OF_UNDO)).cloned().collect()
    }

    /// The steps of the workflow that only read, with a method that is not safe, and are sent, without those that the
    /// rules declare `made_by_both`. If such a call changes something after all, both arms change it.
    pub fn sent_reads_of_one_arm(&self) -> Vec<StepId> {
        self.effects.sent_reads().cloned().collect()
    }

    /// Whether a call that legacy made may have changed something: its method is not safe, and the workflow has no step
    /// that makes such a call and is declared to read only.
    pub fn may_change_something(&self, effect: &Effect) -> bool {
        !effect.method.is_safe() && !self.effects.is_declared_read(effect)
    }
    /// Whether this step makes such a call, and it is a difference if legacy does not. It is none for a private step
    /// and a step that is declared `unseen`. In a tunnel (CONNECT) to the step's service, any call may have been made.
    pub fn is_judged_call_of(&self, step: &StepId, service: Option<&ServiceName>, method: &Method, path: &str) -> bool {
        let template = self.effects.template_of(step).filter(|template| template.role != CallRole::Private);
        let makes = template.is_some_and(|template| {
            let may_be = *method == Method::CONNECT || template.matches(method, path);
            service == Some(&template.service) && may_be
        });
        makes && !self.is_unseen(step)
    }

    /// Whether the workflow, or one that it runs, makes such a call where legacy makes it, or `ignore_calls` names it.
    /// `authority`: host and port, in lower case.
    pub fn is_expected_call(
        &self,
        service: Option<&ServiceName>,
        authority: &str,
        method: &Method,
        path: &str,
    ) -> bool {
        self.effects.is_expected_call(service, authority, method, path)
    }
    /// Whether `ignore_calls` names such a call.
    pub fn ignores_call(&self, service: Option<&ServiceName>, authority: &str, method: &Method, path: &str) -> bool {
        self.effects.ignores_call(service, authority, method, path)
    }
    /// Whether a step sends a read with a method that is not safe: a call by legacy to the same address may be that
    /// read, or do something.
    pub fn has_unsafe_reads(&self) -> bool {
        self.effects.has_unsafe_reads()
    }
    /// Whether a call that only legacy made, such as this one, is a read, and compared with nothing.
    pub fn is_read_without_comparison(&self, service: Option<&ServiceName>, method: &Method, url: &str) -> bool {
        self.effects.is_read_without_comparison(service, method, url)
    }
    /// Whether a step of the workflow, or of one that it runs, may make such a call in order to read.
    pub fn may_be_read(&self, effect: &Effect) -> bool {
        effect.method.is_safe() || self.effects.may_be_made_to_read(effect)
    }
    /// Whether a step of the workflow, or of one that it runs, makes such a call and does more than read: to the same
    /// service, with this method and a path that fits.
    pub fn makes_as_effect(&self, call: &Intent) -> bool {
        self.effects.makes_as_effect(call)
    }
    /// Whether a step of the workflow makes such a call as a shared one, or one of a workflow that it runs as an
    /// effect.
    pub fn makes_as_shared(&self, call: &Effect) -> bool {
        self.effects.makes_as_shared(call)
    }
    /// Whether `effects` hold, for each step that takes its output from a call by legacy, a call that may be the
    /// step's.
    pub fn all_replies_may_be_there(&self, effects: &[Effect]) -> bool {
        self.effects.all_replies_may_be_there(effects)
    }

    /// The intents that the asserts read.
    pub fn awaited_intents(&self) -> AwaitedIntents {
        let reads = self.asserts.iter().flat_map(|assert| assert.expression.reads());
        // `None`, and so `All`: a path that names no step may read the intents of all steps, and which undos are sent
        // is known only at the run's end.
        let step = |read: &ReadPath| read_step(read).filter(|name| !name.ends_with(OF_UNDO)).map(StepId::from);
        let steps: Option<Vec<StepId>> = reads.filter(|read| are_intents(read)).map(step).collect();
        match steps {
            None => AwaitedIntents::All,
            Some(steps) if steps.is_empty() => AwaitedIntents::None,
            Some(steps) => AwaitedIntents::OfSteps(steps.into()),
        }
    }
}

/// Whether an assert reads something of legacy's and something of the engine's.
pub(super) fn holds_arms_together(expression: &Expression) -> bool {
    let reads = |roots: &[&str]| expression.reads().iter().any(|read| roots.contains(&read.root()));
    reads(&["legacy"]) && reads(&["engine", "intents", EFFECTS])
}

/// Whether a path leads to calls of the run: `intents.STEP`, `effects("STEP")`.
fn are_intents(read: &ReadPath) -> bool {
    matches!(read.root(), "intents" | EFFECTS)
}

/// The step whose calls are read; `None` if it may be any.
fn read_step(read: &ReadPath) -> Option<&str> {
    read.part(0).filter(|name| *name != EFFECTS_OF_ALL_STEPS)
}

fn hash_of(draft: &RulesDraft) -> String {
    // A draft holds only lists, ordered maps and scalars, so equal drafts result in equal texts.
    let text = serde_json::to_string(draft).unwrap_or_default();
    blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
}

const ROOTS: [&str; 5] = ["request", "legacy", "engine", "intents", EFFECTS];

fn assert(text: &str, site: &Site, context: &CompareContext<'_>, problems: &mut Problems) -> Option<Expression> {
    let expression = condition::parse(text, "an assert", site, problems)?;
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
            None => problem.hint("it reads `request`, `legacy`, `engine`, `intents` and `effects(\"STEP\")`"),
        };
        return false;
    }
    if root == EFFECTS && read.part(0).is_none() {
        let problem = problems.error(site, "`effects` has to be called: `effects()` or `effects(\"STEP\")`");
        problem.hint("`effects(\"STEP\")` are the calls of a step, and `effects()` all of them");
        return false;
    }
    let Some(step) = read_step(read).filter(|_| are_intents(read)) else { return true };
    if context.intents.contains(&step) {
        return true;
    }
    let written = |step: &str| match root {
        EFFECTS => format!("effects({step:?})"),
        _ if step.contains(['/', '.']) => format!("intents[{step:?}]"),
        _ => format!("intents.{step}"),
    };
    if let Some(of) = step.strip_suffix(OF_UNDO).filter(|of| context.intents.contains(of)) {
        let message = format!("the step `{of}` has no `undo:`, so there are no intents of one");
        problems.error(site, message).hint(format!("the step's own intent is `{}`", written(of)));
        return false;
    }
    let problem = problems.error(site, format!("the workflow has no step `{step}` with a call"));
    let steps: Vec<&str> = context.intents.iter().copied().filter(|name| !name.ends_with(OF_UNDO)).collect();
    match nearest(step, steps.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean `{}`?", written(near))),
        None if context.intents.is_empty() && context.has_workflow => {
            problem.hint("the workflow makes no calls of its own, so there are no intents")
        }
        None if context.intents.is_empty() => problem.hint("the route has no workflow, so there are no intents"),
        None => problem.hint(format!("its steps are {}", steps.join(", "))),
    };
    false
}
