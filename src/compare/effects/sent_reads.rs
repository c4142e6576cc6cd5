//! Tells which of legacy's calls are reads that the run made too.
//!
//! A step may read with a method that is not safe: `POST /quotes`, `POST /rpc`. To such an address legacy may also send
//! what changes something. That the workflow reads there says nothing about legacy's call.
//!
//! Always true: legacy's call counts as a read only if the run made an equal read (once or several times), by the rules
//! of the step that made it. It is then paired with no other step.

use super::call::{Call, EngineCall};
use super::call_template::CallTemplate;
use super::masked::same_text;
use super::report;
use super::rules::EffectRules;
use super::step_calls::StepCalls;
use crate::compare::bounds::{BoundExceeded, CompareBounds};
use crate::compare::findings::ComparisonFindings;
use crate::compare::id_map::IdMap;
use crate::compare::observation::Observation;
use crate::compare::rules_by_node::RulesByNode;

/// The reads that a run made with methods that are not safe; `None` if they are not known.
pub(super) struct SentReads<'a>(Option<Vec<EngineCall<'a>>>);

impl<'a> SentReads<'a> {
    /// Those that were sent, and those that were recorded in place of being sent and are not compared.
    pub(super) fn of(run: &'a Observation, rules: &'a EffectRules, bounds: &CompareBounds) -> Self {
        let reads = run.sent_reads().map(|sent| {
            let call = |intent| EngineCall::of(intent, rules.template_of(&intent.step), bounds);
            let recorded = run
                .intents()
                .iter()
                .map(call)
                .filter(|intent| intent.template.is_some_and(CallTemplate::reads) && !rules.judges_intent(intent));
            sent.iter().map(call).chain(recorded).collect()
        });
        Self(reads)
    }

    /// Whether a call that fits this template counts as a read only if it equals one of these. Not for safe methods: a
    /// call with one is always a read.
    pub(super) fn decides_for(&self, template: &CallTemplate) -> bool {
        self.0.is_some() && template.reads() && !template.method.is_safe()
    }

    /// Whether a call by legacy is equal to one of the reads.
    pub(super) fn have_equal(
        &self,
        call: &Call<'_>,
        rules: &EffectRules,
        ids: &mut IdMap,
        findings: &mut ComparisonFindings<'_>,
    ) -> Result<bool, BoundExceeded> {
        for read in self.0.iter().flatten() {
            findings.count_work()?;
            if read.call.method == call.method
                && call.is_to_service_of(&read.call)
                && is_equal(call, read, rules, ids, findings)?
            {
                findings.count_read_of_both(rules.step_of_read(read));
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether the two have no difference. The uses of rules by which they are equal are counted.
fn is_equal(
    call: &Call<'_>,
    read: &EngineCall<'_>,
    rules: &EffectRules,
    ids: &mut IdMap,
    findings: &mut ComparisonFindings<'_>,
) -> Result<bool, BoundExceeded> {
    let mut step = StepCalls::of(rules.step_of_read(read), rules);
    if step.rules.ignored_path.is_none() && !same_text(ids, &call.path, &read.call.path) {
        return Ok(false);
    }
    let bodies = [call.document(), read.call.document()].into_iter().flatten();
    step.nodes = RulesByNode::of(&step.rules.body, bodies, findings)?;
    let before = findings.savepoint();
    match report::report(&step, call, &read.call, ids, findings) {
        // Path or query differs already, so that a body that was not captured whole does not matter.
        Ok(()) | Err(BoundExceeded::Size | BoundExceeded::Depth) if findings.has_more_than(&before) => {
            findings.roll_back_to(before);
            Ok(false)
        }
        Ok(()) => Ok(true),
        Err(exceeded) => Err(exceeded),
    }
}

/// Which of legacy's calls are reads, although another step of the workflow may make such a call.
pub(super) struct ReadsByLegacy(Vec<bool>);

impl ReadsByLegacy {
    /// No call is known to be a read.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Finds the reads before calls and intents are paired, so that no intent gets a read for its partner.
    pub(super) fn before_pairing(
        reads: &SentReads<'_>,
        legacy: &[Call<'_>],
        engine: &[EngineCall<'_>],
        rules: &EffectRules,
        ids: &mut IdMap,
        findings: &mut ComparisonFindings<'_>,
    ) -> Result<Self, BoundExceeded> {
        let mut found = vec![false; legacy.len()];
        if reads.0.as_ref().is_none_or(Vec::is_empty) {
            return Ok(Self(found));
        }
        findings.set_prefix(String::new());
        for (call, is_read) in legacy.iter().zip(&mut found) {
            let is_taken = engine.iter().any(|intent| intent.taken_from.is_some() && intent.taken_from == call.number);
            if !call.method.is_safe() && !is_taken {
                *is_read = reads.have_equal(call, rules, ids, findings)?;
            }
        }
        Ok(Self(found))
    }

    /// Whether legacy's call with this index is a read.
    pub(super) fn contains(&self, call: usize) -> bool {
        self.0.get(call).copied().unwrap_or(false)
    }
}
