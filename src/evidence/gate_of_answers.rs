//! The conditions for `only`: what the engine answered in `live`.

use std::time::Duration;

use super::answers::AnswerSums;
use super::bound;
use super::conditions::{Condition, ConditionName as Name, GateVerdict as Verdict, pass};
use super::gate::JudgedRoute;
use super::gate_text::{AnswersOf, duration_text, elapsed, more_needed};

impl JudgedRoute<'_> {
    /// The conditions for `only`.
    pub(super) fn of_answers(&self) -> Vec<Condition> {
        let sums = self.evidence.answers.over(self.promote.window, self.now);
        let mut conditions = vec![self.share(), self.answers(sums), self.window()];
        conditions.extend(self.errors_of_answers(sums, AnswersOf::Route));
        conditions.extend(self.client_errors(sums, AnswersOf::Route));
        conditions.extend(self.invariants());
        conditions.extend(self.age("answer of the engine without an error", self.evidence.last_answer, false));
        conditions
    }

    fn share(&self) -> Condition {
        match self.live_share_is_all {
            true => pass(Name::Share, "100 % in live".to_owned()),
            false => {
                let detail = "needs a share of 100 % in live".to_owned();
                Condition { name: Name::Share, verdict: Verdict::Fail, detail }
            }
        }
    }

    fn answers(&self, AnswerSums { answers, .. }: AnswerSums) -> Condition {
        let wanted = self.promote.answers;
        if answers >= wanted {
            return pass(Name::Answers, format!("{answers} answers without an error, of {wanted}"));
        }
        let more = wanted - answers;
        let detail = format!(
            "needs {more} more {} of the engine without an error ({answers} of {wanted}){}",
            if more == 1 { "answer" } else { "answers" },
            self.counted_since("answers"),
        );
        Condition { name: Name::Answers, verdict: Verdict::Inconclusive, detail }
    }

    fn window(&self) -> Condition {
        let wanted = self.promote.window;
        let over = self.evidence.answers_since.map_or(Duration::ZERO, |since| elapsed(since, self.now));
        if over >= wanted {
            return pass(Name::Window, format!("the engine has answered for {}", duration_text(over)));
        }
        let detail = format!("needs answers over {} (so far {})", duration_text(wanted), duration_text(over));
        Condition { name: Name::Window, verdict: Verdict::Inconclusive, detail }
    }

    pub(super) fn errors_of_answers(
        &self,
        AnswerSums { answers, errors, .. }: AnswerSums,
        whose: AnswersOf,
    ) -> Option<Condition> {
        let (name, what) = match whose {
            AnswersOf::Route => (Name::ErrorsNotWorseBy, "requests"),
            // The pairs of a candidate, which are rehearsals, have a condition with the other name.
            AnswersOf::Candidate => (Name::CandidateErrors, "requests that the candidate answered"),
        };
        let e = self.evidence;
        let all = answers + errors;
        // No traffic is no `pass`: then `answers` holds the gate.
        if all == 0 {
            return None;
        }
        let (failed, replies) = (e.legacy.server_errors, e.legacy.replies);
        let of_legacy = share(failed, replies);
        let found = format!(
            "{:.2} % of {what} ended with an error, a fallback or an unknown outcome ({errors} of {all}); of legacy's \
             replies {:.2} % were 5xx ({failed} of {replies})",
            share(errors, all) * 100.0,
            of_legacy * 100.0,
        );
        let allowed = of_legacy + self.promote.errors_not_worse_by;
        if share(errors, all) <= allowed {
            return Some(pass(name, found));
        }
        let more = more_needed((answers, all), 1.0 - allowed).map_or_else(String::new, |more| {
            let noun = if more == 1 { "answer" } else { "answers" };
            let window = duration_text(self.promote.window);
            format!(": needs {more} more {noun} without an error, or none with one for {window}")
        });
        let detail = format!("{found}; at most {} % more are allowed{more}", self.promote.errors_not_worse_by * 100.0);
        Some(Condition { name, verdict: Verdict::Fail, detail })
    }

    /// A 4xx is the caller's error only as far as legacy answers as many. While it is not known how many these are,
    /// what would be too many for a legacy without any is not judged.
    pub(super) fn client_errors(
        &self,
        AnswerSums { answers, client_errors, .. }: AnswerSums,
        whose: AnswersOf,
    ) -> Option<Condition> {
        let (name, legacy) = (Name::ClientErrors, &self.evidence.legacy);
        if answers == 0 {
            return None;
        }
        let who = match whose {
            AnswersOf::Route => "the engine",
            AnswersOf::Candidate => "the candidate",
        };
        if client_errors == answers {
            let detail = format!(
                "needs an answer of {who} below 400: it answered all {answers} with 4xx, so perhaps no run took effect"
            );
            return Some(Condition { name, verdict: Verdict::Fail, detail });
        }
        let found = format!(
            "{:.1} % of {who}'s answers are 4xx ({client_errors} of {answers})",
            share(client_errors, answers) * 100.0
        );
        let of_legacy = share(legacy.client_errors, legacy.replies);
        let found = match legacy.replies {
            0 => format!("{found}; how many of legacy's replies are is not known"),
            replies => format!(
                "{found}; of legacy's replies {:.1} % were ({} of {replies})",
                of_legacy * 100.0,
                legacy.client_errors
            ),
        };
        // With 95 % confidence, so that chance does not hold a route.
        let at_least = 1.0 - bound::upper(answers, answers - client_errors);
        if at_least <= of_legacy + self.promote.errors_not_worse_by {
            return Some(pass(name, found));
        }
        let (verdict, detail) = match (legacy.replies, whose) {
            (0, AnswersOf::Route) => (
                Verdict::Inconclusive,
                format!(
                    "{found}: needs replies of legacy, which come below `live` and from callers outside its share; or pass \
                     the gate with `--force` if callers are rightly refused"
                ),
            ),
            (0, AnswersOf::Candidate) => {
                (Verdict::Inconclusive, format!("{found}: needs replies of the plan in force, at a smaller share"))
            }
            (_, _) => (Verdict::Fail, format!("{who} refuses requests that legacy does not: {found}")),
        };
        Some(Condition { name, verdict, detail })
    }
}

/// A part of a whole, from 0 to 1; 0 of nothing.
fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}
