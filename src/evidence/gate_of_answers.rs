//! The conditions for `only`: what the engine answered in `live`.

use std::time::Duration;

use super::answers::AnswerSums;
use super::bound;
use super::conditions::{Condition, ConditionName as Name, GateVerdict as Verdict, pass};
use super::gate::JudgedRoute;
use super::gate_text::{AnswersOf, duration_text, elapsed, more_needed};
use super::legacy_share::BadReplies;

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
            // For a candidate, `ErrorsNotWorseBy` is the condition on its pairs, which are rehearsals.
            AnswersOf::Candidate => (Name::CandidateErrors, "requests that the candidate answered"),
        };
        let e = self.evidence;
        let all = answers + errors;
        // Without traffic there is nothing to judge: the condition `answers` then keeps the gate shut.
        if all == 0 {
            return None;
        }
        let legacy = e.legacy.share_without_outage(BadReplies::ServerErrors);
        let found = format!(
            "{:.2} % of {what} ended with an error, a fallback or an unknown outcome ({errors} of {all}); of {} {:.2} % \
             were 5xx ({} of {})",
            share(errors, all) * 100.0,
            legacy.replies_text(self.now),
            legacy.share() * 100.0,
            legacy.bad,
            legacy.of,
        );
        let allowed = legacy.at_least().unwrap_or(0.0) + self.promote.errors_not_worse_by;
        if share(errors, all) <= allowed {
            return Some(pass(name, found));
        }
        let more = more_needed((answers, all), 1.0 - allowed).map_or_else(String::new, |more| {
            let noun = if more == 1 { "answer" } else { "answers" };
            let window = duration_text(self.promote.window);
            format!(": needs {more} more {noun} without an error, or none with one for {window}")
        });
        // If too few of legacy's replies are known, legacy counts as one without errors, as for the guard.
        let unknown = match legacy.at_least() {
            Some(_) => "",
            None => "; legacy's replies are too few to tell how often it fails itself",
        };
        let at_most = self.promote.errors_not_worse_by * 100.0;
        let detail = format!("{found}; at most {at_most} % more are allowed{more}{unknown}");
        Some(Condition { name, verdict: Verdict::Fail, detail })
    }

    /// The condition on the engine's answers with 4xx. They count as the callers' errors only up to the share of 4xx
    /// among legacy's replies. While too few of these are known to tell that share, the condition is inconclusive if
    /// the engine's 4xx would be too many for a legacy without any.
    pub(super) fn client_errors(
        &self,
        AnswerSums { answers, client_errors, .. }: AnswerSums,
        whose: AnswersOf,
    ) -> Option<Condition> {
        let (name, legacy) = (Name::ClientErrors, self.evidence.legacy.share_without_outage(BadReplies::ClientErrors));
        let who = match whose {
            AnswersOf::Route => "the engine",
            AnswersOf::Candidate => "the candidate",
        };
        if answers == 0 {
            let (all, refused) = (self.evidence.engine_answers, self.evidence.engine_answers_4xx);
            // For a route, the condition `answers` then keeps the gate shut. A candidate needs no answers; but one that
            // has given only 4xx does not pass by waiting until these are too old to count.
            let has_only_refused = matches!(whose, AnswersOf::Candidate) && all > 0 && refused == all;
            let detail = format!("needs an answer of {who} below 400: the last {all}, before this time, were 4xx");
            return has_only_refused.then_some(Condition { name, verdict: Verdict::Inconclusive, detail });
        }
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
        let found = match legacy.of {
            0 => format!("{found}; how many of legacy's replies are is not known"),
            replies => format!(
                "{found}; of {} {:.1} % were ({} of {replies})",
                legacy.replies_text(self.now),
                legacy.share() * 100.0,
                legacy.bad
            ),
        };
        // The lower bound with 95 % confidence, so that chance alone does not keep the gate shut.
        let at_least = bound::lower(answers, client_errors);
        let is_within =
            |of_legacy: Option<f64>| at_least <= of_legacy.unwrap_or(0.0) + self.promote.errors_not_worse_by;
        if is_within(legacy.at_least()) {
            return Some(pass(name, found));
        }
        // While few replies of legacy are known, its share may be far above the lower bound.
        let is_known = legacy.at_most.is_some_and(|at_most| !is_within(Some(at_most)));
        let (verdict, detail) = match (is_known, whose) {
            (true, _) => (Verdict::Fail, format!("{who} refuses requests that legacy does not: {found}")),
            (false, AnswersOf::Route) => (
                Verdict::Inconclusive,
                format!(
                    "{found}: needs more replies of legacy, which come below `live` and from callers outside its share; \
                     or pass the gate with `--force` if callers are rightly refused"
                ),
            ),
            (false, AnswersOf::Candidate) => {
                (Verdict::Inconclusive, format!("{found}: needs more replies of the plan in force, at a smaller share"))
            }
        };
        Some(Condition { name, verdict, detail })
    }
}

/// `part` as a share of `all`, from 0 to 1; 0 if `all` is 0.
fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::evidence::gate_tests::{answers, good, legacy, missing, only_missing, small};
    use crate::evidence::{RepliesOfLegacy, RouteEvidence};
    use crate::exchange::OfferedRequest;
    use crate::flag::State;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    /// One reply of legacy says little of its share.
    #[test]
    fn a_few_bad_replies_of_legacy_open_no_gate_to_an_engine_that_fails() {
        let mut e = RouteEvidence { legacy: legacy(1, 0, 1), answers: answers(60, 0, 30), ..good() };
        let detail = only_missing(&e, &small(), State::Only, Name::ErrorsNotWorseBy, Verdict::Fail);
        assert!(detail.ends_with("legacy's replies are too few to tell how often it fails itself"), "{detail}");
        e.legacy = legacy(20, 0, 10);
        only_missing(&e, &small(), State::Only, Name::ErrorsNotWorseBy, Verdict::Fail);
        let mut e = RouteEvidence { legacy: legacy(1, 1, 0), answers: answers(90, 45, 0), ..good() };
        for replies in [1, 19] {
            e.legacy = legacy(replies, replies, 0);
            only_missing(&e, &small(), State::Only, Name::ClientErrors, Verdict::Inconclusive);
        }
        e.legacy = legacy(20, 6, 0);
        only_missing(&e, &small(), State::Only, Name::ClientErrors, Verdict::Inconclusive);
        e.legacy = legacy(200, 100, 0);
        assert_eq!(missing(&e, &small(), State::Live, State::Only), [], "legacy refuses as many");
    }

    /// Legacy failed when its last replies came.
    #[test]
    fn an_outage_of_legacy_that_went_on_when_its_last_reply_came_opens_no_gate_to_an_engine_that_fails() {
        let mut legacy = RepliesOfLegacy::default();
        for (number, status) in [(900, 200), (100, 500)] {
            let legacy_status = http::StatusCode::from_u16(status).ok();
            let request = OfferedRequest { legacy_status, ..OfferedRequest::new("orders", 0) };
            (0..number).for_each(|_| legacy.count(&request, NOW - SignedDuration::from_hours(72)));
        }
        let e = RouteEvidence { answers: answers(95, 0, 5), legacy, ..good() };
        let detail = only_missing(&e, &small(), State::Only, Name::ErrorsNotWorseBy, Verdict::Fail);
        assert!(detail.contains("before its last 100, more of which were errors"), "{detail}");
    }

    /// Legacy failed for a while; at a share of 100 % no reply of it comes any more.
    #[test]
    fn an_outage_of_legacy_that_is_over_opens_no_gate_to_an_engine_that_fails() {
        let legacy_after = |replies: &[(u64, u16)]| {
            let mut legacy = RepliesOfLegacy::default();
            for (number, status) in replies {
                let legacy_status = http::StatusCode::from_u16(*status).ok();
                let request = OfferedRequest { legacy_status, ..OfferedRequest::new("orders", 0) };
                (0..*number).for_each(|_| legacy.count(&request, NOW - SignedDuration::from_hours(72)));
            }
            legacy
        };
        let e =
            RouteEvidence { answers: answers(60, 0, 30), legacy: legacy_after(&[(100, 500), (122, 200)]), ..good() };
        let detail = only_missing(&e, &small(), State::Only, Name::ErrorsNotWorseBy, Verdict::Fail);
        assert!(detail.contains("of legacy's last 122 replies (the last one 3 days ago) 0.00 % were 5xx"), "{detail}");
        let of_guard = crate::evidence::legacy_rates::LegacyRates::of(&e).errors.unwrap();
        assert!(of_guard < 0.1, "{of_guard}");
    }
}
