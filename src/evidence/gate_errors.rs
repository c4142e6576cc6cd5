//! The condition `errors_not_worse_by` on the pairs of a rung, without those in which both arms failed.
//!
//! Always true: the condition holds only if the engine's counted share of failures exceeds legacy's by no more than is
//! allowed. If the excess is larger, the condition fails once the test of `paired` says that this cannot be chance (the
//! test may be read after each request). Until then it is inconclusive, and asks for more requests.

use super::conditions::{Condition, ConditionName as Name, GateVerdict as Verdict, nothing_yet, pass};
use super::gate::JudgedRoute;
use super::statistics::ErrorTable;
use crate::flag::State;

impl JudgedRoute<'_> {
    pub(super) fn errors(&self, rung: State) -> Condition {
        let (e, wanted) = (self.evidence, self.promote.errors_not_worse_by);
        let (counts, pairs) = (e.counts_at(rung), if rung == State::Dark { e.dark_pairs } else { e.pairs() });
        let failed_runs = match rung {
            State::Dark => counts.failed_runs,
            // An earlier version counted them by reason only.
            _ => counts.failed_runs.max(e.failed.values().sum()),
        };
        let (table, late) = (ErrorTable::of(counts, pairs, failed_runs), counts.failed_after_answer);
        let of_both = match table.both {
            0 => String::new(),
            both => format!(" (without {both} in which both arms failed)"),
        };
        let table = table.without_errors_of_both();
        let ErrorTable { requests, only_engine, only_legacy, .. } = table;
        let Some(excess) = table.excess else {
            return nothing_yet(Name::ErrorsNotWorseBy, "no request was compared yet");
        };
        let found = format!(
            "in {requests} requests{of_both} the engine alone failed in {only_engine} ({failed_runs} runs without an answer, {late} \
             after their answer), legacy alone in {only_legacy}"
        );
        let worse_by = only_engine.saturating_sub(only_legacy) as f64 / requests.max(1) as f64;
        if worse_by <= wanted {
            let (more, allowed, at_most) = (worse_by * 100.0, wanted * 100.0, excess.at_most * 100.0);
            let at_most = format!(
                ": {more:.1} % more errors than legacy, of {allowed} % that are allowed; with 95 % confidence it is at most \
                 {at_most:.2} %"
            );
            return pass(Name::ErrorsNotWorseBy, found + &at_most);
        }
        let (verdict, chance) = match table.exceeds(wanted) {
            true => (Verdict::Fail, ""),
            false => (Verdict::Inconclusive, "; with so few requests this may be chance: wait for more"),
        };
        let detail = format!(
            "{found}: {:.1} % more errors than legacy; at most {} % are allowed{chance}{}",
            worse_by * 100.0,
            wanted * 100.0,
            self.counted_since("pairs without a difference"),
        );
        Condition { name: Name::ErrorsNotWorseBy, verdict, detail }
    }
}
