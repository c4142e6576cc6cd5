//! Checks a workflow that adopts instances of legacy: it reads, has legacy release the instance at most once, and
//! nothing else.

use super::checked_step::CheckedStep;
use super::context::Check;
use crate::expression::ReadPath;
use crate::problem::Site;
use crate::workflow::adoption::READABLE;
use crate::workflow::definition::{StepDraft, WorkflowDraft};
use crate::workflow::{Adoption, EffectClass, PauseOrFail, StepKind};

impl Check<'_> {
    /// How the workflow adopts instances, if it does: if a step has `release: true`, or it says `legacy_passive`.
    pub(super) fn adoption(&mut self, draft: &WorkflowDraft, site: &Site, checked: &[CheckedStep]) -> Option<Adoption> {
        let steps = self.steps.clone();
        let releases: Vec<_> = steps.iter().filter(|(.., step)| step.release).collect();
        let passive = draft.legacy_passive.as_ref();
        if passive.is_some_and(|passive| passive.reason.trim().is_empty()) {
            self.problems
                .error(&site.key("legacy_passive").key("reason"), "the reason is empty")
                .hint("say why legacy does nothing of its own with these instances");
        }
        let adoption = match (releases.as_slice(), passive) {
            ([], None) => return None,
            ([], Some(passive)) => Adoption::LegacyPassive(passive.reason.clone()),
            ([(name, ..)], None) => Adoption::Release((*name).into()),
            ([(name, at, _), ..], Some(_)) => {
                self.problems
                    .error(
                        &at.key("release").at_key(),
                        format!("`{name}` has `release: true`, and `legacy_passive` says that legacy need not be told"),
                    )
                    .hint("keep one of the two");
                return None;
            }
            ([_, (name, at, _), ..], None) => {
                self.problems
                    .error(&at.key("release").at_key(), format!("`{name}` is the second step with `release: true`"))
                    .hint("one call tells legacy: if two did, one of them could be done and the other not");
                return None;
            }
        };
        for ((name, at, step), checked) in steps.iter().zip(checked) {
            self.step_of_adoption(name, at, step, checked);
        }
        if draft.input.as_ref().is_some_and(|input| input.schema.is_some()) {
            self.problems
                .error(&site.key("input").key("schema").at_key(), "a workflow that adopts instances has no input")
                .hint("it learns the instance's id from `instance.id`");
        }
        self.reads_of_adoption(site);
        Some(adoption)
    }

    fn step_of_adoption(&mut self, name: &str, at: &Site, step: &StepDraft, checked: &CheckedStep) {
        let wrong = match &checked.kind {
            None | Some(StepKind::Set(_) | StepKind::Fail(_)) => None,
            Some(StepKind::Call(call)) if step.release && call.effect == EffectClass::Read => Some((
                "effect",
                format!("`{name}` has `release: true`, and its effect is `read`: a read changes nothing at legacy"),
            )),
            Some(StepKind::Call(call)) if step.release || call.effect == EffectClass::Read => None,
            Some(StepKind::Call(call)) => Some((
                "call",
                format!(
                    "`{name}` is a {} step: a workflow that adopts instances only reads, and has legacy release them",
                    call.effect.as_str()
                ),
            )),
            Some(StepKind::Checkpoint(_)) => Some(("checkpoint", format!("`{name}` asks a person"))),
            Some(StepKind::Wait(_)) => Some(("wait", format!("`{name}` waits"))),
            Some(StepKind::Run(_)) => Some(("run", format!("`{name}` runs another workflow"))),
        };
        if let Some((key, message)) = wrong {
            self.problems.error(&at.key(key).at_key(), message).hint(
                "while an instance is moved nobody answers for it: keep only steps that read, and one step with \
                 `release: true`",
            );
        }
        let pauses = |setting: Option<PauseOrFail>| setting == Some(PauseOrFail::Pause);
        let asks = step.risk.as_deref().is_some_and(|risk| risk != "low");
        let keys = [
            (
                "undo",
                step.undo.is_some(),
                "an instance that legacy released is not returned automatically: a person decides",
            ),
            ("fallback", step.fallback.is_some(), "one call tells legacy, or none: the instance stays legacy's"),
            ("for_each", step.release && step.for_each.is_some(), "one call tells legacy"),
            ("if", step.release && step.condition.is_some(), "end the run with a `fail` step where it must not happen"),
            ("on_conflict", pauses(step.on_conflict), "let it fail: the instance stays legacy's"),
            ("on_failure", pauses(step.on_failure), "let it fail: the instance stays legacy's"),
            ("risk", asks, "nobody can be asked while nobody answers for the instance"),
            ("ask", step.ask.is_some(), "nobody can be asked while nobody answers for the instance"),
        ];
        for (key, _, hint) in keys.iter().filter(|(_, is_given, _)| *is_given) {
            let message = format!("`{key}` must not be given in a workflow that adopts instances");
            self.problems.error(&at.key(*key).at_key(), message).hint(*hint);
        }
    }

    /// Refuses what a run without a request, and with an instance of which only the id is known, cannot read.
    fn reads_of_adoption(&mut self, site: &Site) {
        let wrong: Vec<ReadPath> = self.reads.iter().filter(|path| !is_readable(path)).cloned().collect();
        for path in wrong {
            let (text, hint) = match (path.root(), path.part(0)) {
                ("instance", Some(part)) => (
                    format!("instance.{part}"),
                    "of an instance that is adopted only `instance.id` is known (`instance.legacy_id` is the same)",
                ),
                ("instance", None) => ("instance".to_owned(), "name the part: `instance.id`"),
                (root, _) => {
                    (root.to_owned(), "no request begins the run: it learns the instance's id from `instance.id`")
                }
            };
            let message = format!("`{text}` cannot be read in a workflow that adopts instances");
            self.problems.error(&site.key("steps"), message).hint(hint);
        }
    }
}

fn is_readable(path: &ReadPath) -> bool {
    match path.root() {
        "request" | "legacy" | "engine" | "intents" | "signal" => false,
        "instance" => path.part(0).is_some_and(|part| READABLE.contains(&part)),
        _ => true,
    }
}
