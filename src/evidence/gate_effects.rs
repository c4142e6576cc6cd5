//! Conditions on the calls of a workflow's steps: whether the calls of shared steps were compared, and whether legacy
//! makes calls of private steps too, or of steps that read.

use super::conditions::{Condition, ConditionName as Name, GateVerdict as Verdict, pass};
use super::gate::JudgedRoute;
use super::gate_text::{ComparedWith, first_of};
use super::rung::RungCounts;
use crate::flag::State;
use crate::names::StepId;

impl JudgedRoute<'_> {
    /// The condition that legacy does not make the calls of private steps too. `None` if no such call was seen, and
    /// enough of legacy's calls are known (or need not be).
    pub(super) fn private_calls_of_both(&self) -> Option<Condition> {
        let of_step = |step: &StepId| self.evidence.all.effects.get(step.as_str()).copied().unwrap_or_default();
        let made_by_both: Vec<String> = self
            .private_steps
            .iter()
            .map(|step| (step, of_step(step)))
            .filter(|(_, of_step)| of_step.compared > 0)
            .map(|(step, of_step)| format!("`{step}` ({} of {} calls)", of_step.compared, of_step.intents))
            .collect();
        if made_by_both.is_empty() {
            let is_asked = self.promote.effects_compared && !self.private_steps.is_empty();
            let unknown = self.evidence.all.legacy_calls.why_not_known(self.promote.coverage_at_least);
            let detail = unknown.filter(|_| is_asked)?;
            let detail =
                format!("legacy may make the calls of private steps too, and the engine sends them in dark: {detail}");
            return Some(Condition { name: Name::PrivateSteps, verdict: Verdict::Inconclusive, detail });
        }
        let detail = format!(
            "legacy makes the calls of private steps too, which the engine sends in dark: they are made twice there: {}. \
             Declare these steps `effect: shared`, or say in `compare.effects.STEP.made_by_both` why that does no harm",
            first_of(&made_by_both, ", ")
        );
        Some(Condition { name: Name::PrivateSteps, verdict: Verdict::Fail, detail })
    }

    /// The condition that legacy does not make a call that the workflow declares `effect: read` and that the engine
    /// sends too, with an unsafe method. `None` if no such call was seen.
    pub(super) fn reads_of_both(&self) -> Option<Condition> {
        let calls = |step: &StepId| self.evidence.all.effects.get(step.as_str()).map_or(0, |calls| calls.compared);
        let of_both = self.sent_reads.iter().filter(|step| calls(step) > 0);
        let of_both: Vec<String> = of_both.map(|step| format!("`{step}` ({} calls)", calls(step))).collect();
        (!of_both.is_empty()).then(|| {
            let detail = format!(
                "legacy makes calls too that the workflow declares `effect: read` and sends beside it in shadow and dark, \
                 with a method that may change something: {}. If they change something, that is done twice: declare the \
                 steps `effect: shared`. Else say so in `compare.effects.STEP.made_by_both`, or answer them with legacy's \
                 reads (`replay_reads: true`)",
                first_of(&of_both, ", ")
            );
            Condition { name: Name::SentReads, verdict: Verdict::Fail, detail }
        })
    }

    /// Names the kinds of requests and the branches of the workflow for which the calls are known in no compared pair.
    /// They are judged one by one, because the share over all pairs would hide a rare kind. For a candidate
    /// (`compared_with` the plan in force), only branches are judged, and only if the candidate makes shared calls.
    fn kinds_with_unknown_calls(&self, rung: State, compared_with: ComparedWith) -> Option<String> {
        let RungCounts { strata, branches, .. } = self.evidence.counts_at(rung);
        let is_candidate = compared_with == ComparedWith::PlanInForce;
        if is_candidate && self.shared_steps.is_empty() {
            return None;
        }
        let is_unknown = |compared: u64, unknown: u64| compared > 0 && unknown >= compared;
        let kinds =
            strata.iter().filter(|(_, counts)| !is_candidate && is_unknown(counts.compared, counts.calls_unknown));
        let kinds = kinds.map(|(name, counts)| format!("`{name}` ({} compared)", counts.compared));
        let branches = branches.branches.iter().filter(|(_, counts)| is_unknown(counts.compared, counts.calls_unknown));
        let branches = branches.map(|(name, counts)| format!("runs with {name} ({} compared)", counts.compared));
        let found: Vec<String> = kinds.chain(branches).collect();
        (!found.is_empty()).then(|| {
            let calls = if is_candidate { "the calls of the plan in force" } else { "legacy's calls" };
            format!("for these kinds {calls} are known in no pair: {}", first_of(&found, ", "))
        })
    }

    pub(super) fn effects(&self, rung: State, compared_with: ComparedWith) -> Condition {
        let name = Name::EffectsCompared;
        if !self.promote.effects_compared {
            return pass(name, "not required (`effects_compared: false`)".to_owned());
        }
        // For `dark`, only calls in `dark` count: those compared in `shadow` may be of other kinds of requests.
        let counts = self.evidence.counts_at(rung);
        let in_dark = if rung == State::Dark { " in dark" } else { "" };
        let wanted = self.promote.coverage_at_least;
        let uncompared: Vec<String> = counts
            .uncompared(self.shared_steps, wanted)
            .map(|step| {
                let of_step = counts.effects.get(step.as_str()).copied().unwrap_or_default();
                format!("`{step}` ({} of {} calls)", of_step.compared + of_step.asserted, of_step.intents)
            })
            .collect();
        let own = (!uncompared.is_empty()).then(|| {
            format!(
                "too few calls of shared steps{in_dark} were compared with a call by {} or judged by an `assert` (at least one, \
                 and {} %): {}. {}",
                compared_with.caller(),
                wanted * 100.0,
                uncompared.join(", "),
                compared_with.advice(),
            )
        });
        let below = (!self.shared_steps_below.is_empty()).then(|| {
            format!(
                "the calls of shared steps of workflows that it runs are compared with nothing: {}. Make the calls in the \
                 route's own workflow, or say in `compare.effects.STEP.unseen` of the step that runs the workflow why they \
                 need no comparison",
                first_of(self.shared_steps_below, ", ")
            )
        });
        let unknown = counts.legacy_calls.why_not_known(wanted);
        let rare = self.kinds_with_unknown_calls(rung, compared_with);
        let missing: Vec<String> = own.into_iter().chain(below).chain(unknown).chain(rare).collect();
        if missing.is_empty() {
            let steps = self.shared_steps.len();
            return pass(name, format!("each of {steps} shared steps had a call compared or asserted{in_dark}"));
        }
        Condition { name, verdict: Verdict::Inconclusive, detail: missing.join("; and ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::branches::BranchRunCounts;
    use crate::evidence::gate::conditions;
    use crate::evidence::gate_tests::{good, judged, small};
    use crate::evidence::legacy_calls::LegacyCallCounts;
    use crate::evidence::route::RouteEvidence;
    use crate::evidence::rung::StepIntents;
    use crate::evidence::strata::StratumCounts;
    use crate::flag::Promote;

    #[test]
    fn steps_that_nothing_compared_are_named() {
        let steps = ["charge", "mail", "print"].map(StepId::from);
        let of = |compared, asserted| StepIntents { intents: 5, compared, asserted };
        let mut e = good();
        e.dark.effects =
            [("charge", of(5, 0)), ("mail", of(0, 1)), ("print", of(0, 0))].map(|(s, of)| (s.to_owned(), of)).into();
        let effects = |evidence: &RouteEvidence, promote: &Promote| {
            let route = JudgedRoute { shared_steps: &steps, ..judged(evidence, promote, &[]) };
            let all = conditions(&route, State::Dark, State::Live);
            all.into_iter().find(|condition| condition.name == Name::EffectsCompared).unwrap()
        };
        let found = effects(&e, &small());
        assert_eq!(found.verdict, Verdict::Inconclusive);
        assert!(
            found.detail.contains("(at least one, and 95 %): `mail` (1 of 5 calls), `print` (0 of 5 calls)."),
            "{found:?}"
        );
        e.dark.effects.clear();
        let found = effects(&e, &small());
        assert!(found.detail.contains("`charge` (0 of 0 calls), `mail` (0 of 0 calls), `print`"), "{found:?}");
        e.dark.effects = ["charge", "mail", "print"].map(|step| (step.to_owned(), of(5, 0))).into();
        assert_eq!(effects(&e, &small()).verdict, Verdict::Pass);
        // Which calls legacy made is not known of too many pairs.
        e.dark.legacy_calls = LegacyCallCounts { watched: 60, known: 50, incomplete: 4, ..Default::default() };
        let found = effects(&e, &small());
        assert_eq!(found.verdict, Verdict::Inconclusive);
        assert!(found.detail.starts_with("of 4 of 60 pairs it is not known which calls legacy made"), "{found:?}");
        let waived = effects(&e, &Promote { effects_compared: false, ..small() });
        assert_eq!(waived.verdict, Verdict::Pass, "{waived:?}");
    }

    /// What legacy does as well is done twice as soon as the engine sends it in `dark`.
    #[test]
    fn a_private_step_whose_call_legacy_makes_holds_the_gates_to_dark_and_live() {
        let steps = ["note", "draft"].map(StepId::from);
        let mut e = good();
        let of = |compared| StepIntents { intents: 9, compared, asserted: 0 };
        let condition = |evidence: &RouteEvidence, steps: &[StepId], from, to| {
            let promote = small();
            let route = JudgedRoute { private_steps: steps, ..judged(evidence, &promote, &[]) };
            conditions(&route, from, to).into_iter().find(|condition| condition.name == Name::PrivateSteps)
        };
        e.all.effects = [("note".to_owned(), of(0)), ("charge".to_owned(), of(9))].into();
        assert_eq!(condition(&e, &steps, State::Shadow, State::Dark), None);
        // Some of legacy's calls are not known: they may be those of a private step.
        let unknown = LegacyCallCounts { watched: 30, known: 27, incomplete: 3, ..Default::default() };
        e.all.legacy_calls = unknown;
        let found = condition(&e, &steps, State::Shadow, State::Dark).unwrap();
        assert_eq!(found.verdict, Verdict::Inconclusive, "{found:?}");
        assert_eq!(condition(&e, &[], State::Shadow, State::Dark), None, "no private step");
        e.all.legacy_calls = LegacyCallCounts { incomplete: 1, known: 29, ..unknown };
        assert_eq!(condition(&e, &steps, State::Shadow, State::Dark), None);
        e.all.effects.insert("draft".to_owned(), of(7));
        for (from, to) in [(State::Shadow, State::Dark), (State::Dark, State::Live)] {
            let found = condition(&e, &steps, from, to).unwrap();
            assert_eq!(found.verdict, Verdict::Fail);
            assert!(found.detail.contains("`draft` (7 of 9 calls)") && !found.detail.contains("`note`"), "{found:?}");
            assert_eq!(condition(&e, &steps[..1], from, to), None, "the rules say that both may make it");
        }
        assert_eq!(condition(&e, &steps, State::Live, State::Only), None, "legacy does nothing there");
    }

    /// The share of all pairs whose calls are known says nothing of a rare kind of request, or of a rare branch.
    #[test]
    fn a_kind_and_a_branch_of_which_no_pair_shows_the_calls_hold_the_gate_to_live() {
        let mut e = good();
        let promote = small();
        let found = |evidence: &RouteEvidence| {
            let all = conditions(&judged(evidence, &promote, &[]), State::Dark, State::Live);
            all.into_iter().find(|condition| condition.name == Name::EffectsCompared).unwrap()
        };
        e.dark.legacy_calls = LegacyCallCounts { watched: 60, known: 58, incomplete: 2, ..Default::default() };
        assert_eq!(found(&e).verdict, Verdict::Pass);
        let counts = |compared, calls_unknown| BranchRunCounts { runs: 2, compared, mismatched: 0, calls_unknown };
        e.dark.branches.branches.insert("`gift`".into(), counts(2, 2));
        let rare = found(&e);
        assert_eq!(rare.verdict, Verdict::Inconclusive);
        assert!(rare.detail.contains("legacy's calls are known in no pair: runs with `gift` (2 compared)"), "{rare:?}");
        e.dark.branches.branches.insert("`gift`".into(), counts(2, 1));
        assert_eq!(found(&e).verdict, Verdict::Pass, "one of them is known");
        let of = StratumCounts { served: 2, compared: 2, mismatched: 0, calls_unknown: 2, skipped: 0 };
        e.dark.strata.insert("POST 2xx vip".into(), of);
        assert!(found(&e).detail.contains("`POST 2xx vip` (2 compared)"), "{:?}", found(&e));
        let waived = Promote { effects_compared: false, ..small() };
        let all = conditions(&judged(&e, &waived, &[]), State::Dark, State::Live);
        assert!(
            all.iter().all(|condition| condition.name != Name::EffectsCompared || condition.verdict == Verdict::Pass)
        );
    }

    #[test]
    fn a_sent_read_that_legacy_makes_too_holds_the_gates_to_dark_and_live() {
        let steps = ["quote", "charge"].map(StepId::from);
        let mut e = good();
        let promote = small();
        let found = |evidence: &RouteEvidence, from, to| {
            let route = JudgedRoute { sent_reads: &steps, ..judged(evidence, &promote, &[]) };
            conditions(&route, from, to).into_iter().find(|condition| condition.name == Name::SentReads)
        };
        e.all.effects.clear();
        assert_eq!(found(&e, State::Shadow, State::Dark), None);
        e.all.effects = [("charge".to_owned(), StepIntents { intents: 3, compared: 3, asserted: 0 })].into();
        for (from, to) in [(State::Shadow, State::Dark), (State::Dark, State::Live)] {
            let found = found(&e, from, to).unwrap();
            assert_eq!(found.verdict, Verdict::Fail);
            assert!(found.detail.contains(": `charge` (3 calls). If they"), "{found:?}");
        }
    }
}
