//! The condition on the invariants of a route: whether the engine's answers met them.

use std::time::Duration;

use super::conditions::{Condition, ConditionName as Name, GateVerdict as Verdict, pass};
use super::gate::JudgedRoute;
use super::gate_text::{duration_text, elapsed, first_of};
use super::invariants::InvariantCounts;
use crate::flag::Invariant;

const HOUR: Duration = Duration::from_secs(3_600);

impl JudgedRoute<'_> {
    /// The condition on the invariants; `None` without any.
    pub(super) fn invariants(&self) -> Option<Condition> {
        if self.invariants.is_empty() {
            return None;
        }
        let none = InvariantCounts::default();
        let counted = |invariant: &Invariant| {
            let counts = self.evidence.invariants.get(&invariant.name);
            counts.filter(|counts| counts.text == invariant.text).unwrap_or(&none).clone()
        };
        let all: Vec<(&str, InvariantCounts)> =
            self.invariants.iter().map(|invariant| (invariant.name.as_str(), counted(invariant))).collect();
        let broken: Vec<String> = all.iter().filter_map(|(name, counts)| self.shown_broken(name, counts)).collect();
        let judged =
            |counts: &InvariantCounts| format!("{} of {}", counts.judged(), counts.judged() + counts.not_judged());
        let is_thin = |counts: &InvariantCounts| {
            let all = counts.judged() + counts.not_judged();
            (counts.judged() as f64) < self.promote.coverage_at_least * all as f64
        };
        let thin: Vec<String> = all
            .iter()
            .filter(|(_, counts)| is_thin(counts))
            .map(|(name, counts)| {
                let reasons: Vec<String> =
                    counts.not_judged.iter().map(|(why, count)| format!("`{why}` {count}")).collect();
                format!("`{name}` was judged for {} answers (not judged: {})", judged(counts), first_of(&reasons, ", "))
            })
            .collect();
        if !broken.is_empty() {
            let detail = format!("invariants did not hold: {}", first_of(&broken, "; "));
            return Some(Condition { name: Name::Invariants, verdict: Verdict::Fail, detail });
        }
        if !thin.is_empty() {
            let detail = format!(
                "invariants have to be judged for {} % of the answers they are for: {}",
                self.promote.coverage_at_least * 100.0,
                first_of(&thin, "; ")
            );
            return Some(Condition { name: Name::Invariants, verdict: Verdict::Inconclusive, detail });
        }
        let never: Vec<String> =
            all.iter().filter(|(_, counts)| counts.judged() == 0).map(|(name, _)| format!("`{name}`")).collect();
        let held = all.len() - never.len();
        let never = match never.is_empty() {
            true => String::new(),
            false => format!("; no answer so far was one for {}", first_of(&never, ", ")),
        };
        Some(pass(
            Name::Invariants,
            format!("{held} of {} invariants held for all answers they are for{never}", all.len()),
        ))
    }

    /// How often an invariant did not hold, if it was broken within the window.
    fn shown_broken(&self, name: &str, counts: &InvariantCounts) -> Option<String> {
        let last = counts.last_broken.as_ref()?;
        let ago = elapsed(last.at, self.now);
        // As for errors, the last hour counts in any case.
        if ago > self.promote.window.max(HOUR) {
            return None;
        }
        let run = last.run.as_ref().map(|run| format!(", run {run}")).unwrap_or_default();
        let error = last.error.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let judged = counts.judged();
        Some(format!("`{name}` {} of {judged} times (the last {} ago{run}{error})", counts.broken, duration_text(ago)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::evidence::testing::evidence;
    use crate::evidence::{Evidence, EvidenceBasis, GateVerdict, GuardedAnswer, InvariantVerdict, JudgedAnswer};
    use crate::expression::Expression;
    use crate::flag::{Guard, GuardCondition, GuardRelease, Promote, State, WrittenInvariant};
    use crate::names::{RouteId, RunId};

    fn invariant(name: &str, text: &str) -> Invariant {
        let that = Expression::parse("reply.status < 500").unwrap();
        let written = WrittenInvariant::new(Some(name), text, None);
        Invariant { name: name.to_owned(), text: text.to_owned(), that, when: None, written }
    }

    fn answer(supports_only: bool) -> JudgedAnswer {
        JudgedAnswer {
            files_version: 0,
            rung: State::Live,
            answered_at: clock::now(),
            for_guard: Some(GuardedAnswer::Bad),
            supports_only,
            run: Some(RunId(uuid::Uuid::nil())),
        }
    }

    fn condition(evidence: &Evidence, invariants: &[Invariant]) -> Condition {
        let (counted, promote) = (evidence.of(&"orders".into()), Promote::default());
        let route = JudgedRoute {
            evidence: &counted,
            promote: &promote,
            shared_steps: &[],
            private_steps: &[],
            sent_reads: &[],
            shared_steps_below: &[],
            invariants,
            live_share_is_all: true,
            now: clock::now(),
        };
        route.invariants().unwrap()
    }

    #[tokio::test]
    async fn a_broken_invariant_fails_the_gate_and_one_that_is_not_judged_is_inconclusive() {
        let (evidence, _store) = evidence().await;
        let route: RouteId = "orders".into();
        let one = [invariant("a", "x")];
        let record = |verdict| evidence.record_invariants(&route, &answer(true), &[(&one[0], verdict)]);
        assert_eq!(condition(&evidence, &one).verdict, GateVerdict::Pass, "no answer was one for it");
        record(InvariantVerdict::Held);
        assert_eq!(condition(&evidence, &one).verdict, GateVerdict::Pass);
        record(InvariantVerdict::NotJudged("queue_full"));
        let found = condition(&evidence, &one);
        assert_eq!(found.verdict, GateVerdict::Inconclusive);
        assert!(
            found.detail.contains("`a` was judged for 1 of 2") && found.detail.contains("`queue_full` 1"),
            "{found:?}"
        );
        record(InvariantVerdict::Error("no such key".to_owned()));
        let found = condition(&evidence, &one);
        assert_eq!(found.verdict, GateVerdict::Fail);
        assert!(found.detail.contains("`a` 1 of 2 times") && found.detail.contains("no such key"), "{found:?}");
        let changed = [invariant("a", "y")];
        assert_eq!(condition(&evidence, &changed).verdict, GateVerdict::Pass, "what was counted is of another one");
        evidence.set_invariants([(&route, &changed[..])].into_iter());
        evidence.record_invariants(&route, &answer(true), &[(&changed[0], InvariantVerdict::Broken)]);
        record(InvariantVerdict::Held);
        let found = condition(&evidence, &changed);
        assert_eq!(found.verdict, GateVerdict::Fail, "a late verdict on the earlier text changes nothing: {found:?}");
    }

    #[tokio::test]
    async fn an_invariant_that_holds_for_a_forced_cohort_supports_nothing_and_a_broken_one_counts() {
        let (evidence, _store) = evidence().await;
        let (route, one): (RouteId, _) = ("orders".into(), invariant("a", "x"));
        let record = |verdict| evidence.record_invariants(&route, &answer(false), &[(&one, verdict)]);
        record(InvariantVerdict::Held);
        record(InvariantVerdict::Broken);
        let counts = evidence.of(&route).invariants["a"].clone();
        assert_eq!((counts.held, counts.broken), (0, 1));
    }

    #[tokio::test]
    async fn the_guard_acts_on_broken_invariants_as_on_errors() {
        let (evidence, _store) = evidence().await;
        let (route, one): (RouteId, _) = ("orders".into(), invariant("a", "x"));
        evidence.set_basis(0, &[(route.clone(), EvidenceBasis::from("one"))]);
        let guard = Guard {
            mismatch: None,
            errors: Some(0.01),
            p99_ratio: None,
            over: 500,
            at_least: 5,
            in_dark: false,
            release: GuardRelease::Hand,
            notify: None,
        };
        evidence.set_guards([(&route, Some(&guard))].into_iter());
        (0..5).for_each(|_| evidence.record_invariants(&route, &answer(true), &[(&one, InvariantVerdict::Broken)]));
        let found = evidence.take_guard_crossings();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].condition, GuardCondition::Errors);
        assert!(found[0].detail.contains("broke an invariant") && !found[0].runs.is_empty(), "{found:?}");
    }
}
