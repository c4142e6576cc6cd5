//! Collects what a comparison finds, within its bounds on differences and time.

use std::collections::BTreeMap;

use super::body_rules::RuleId;
use super::bounds::BoundExceeded;
use super::compared_parts::ComparedParts;
use super::differing_elements::{ElementsByDifference, ElementsSavepoint};
use super::effects::EffectCoverage;
use super::fingerprint::fingerprint;
use super::id_map::FoundIds;
use super::magnitude::{DistancesSavepoint, NumberDistance, NumberDistances};
use super::node::Node;
use super::not_known::NotKnown;
use super::pair::HidesSensitive;
pub(super) use super::report_as::ReportAs;
use super::rule_uses::{RuleUses, UsesSavepoint};
use super::rules::Rules;
use super::value_path::ValuePath;
use super::verdict::{ComparedCall, Comparison, Difference, DifferenceKind, EarlierPairing, UnparsableBody, Verdict};
use crate::names::StepId;

mod shown;

/// The most bytes of the text of all causes of a pair's differences.
const CAUSES_BYTES_MAX: usize = 1_024;
/// The time is checked once in this many units of work.
const WORK_BETWEEN_CHECKS: u32 = 256;
/// Work on this many bytes of text counts as one unit.
const BYTES_PER_UNIT: usize = 64;
/// The most earlier pairings that one difference names.
const CONTRADICTED_SHOWN_MAX: usize = 4;

/// The differences so far, how often each rule was used, and the check of the time that the comparison may take.
pub(super) struct ComparisonFindings<'a> {
    differences: Vec<Difference>,
    elements: ElementsByDifference,
    differences_max: usize,
    /// How many differences were found, those with an earlier one's path and kind included.
    found: u64,
    truncated: bool,
    uses: RuleUses,
    /// What is counted beside the rules and decides no verdict.
    notes: RuleUses,
    /// The rules whose condition does not hold for this pair.
    turned_off: Vec<RuleId>,
    pub(super) compared: ComparedParts,
    /// Units of work since the time was checked.
    work: u32,
    expired: &'a dyn Fn() -> bool,
    sensitive: Option<&'a dyn HidesSensitive>,
    report_as: ReportAs,
    /// The text that is put in front of each path.
    prefix: String,
    effects: Option<EffectCoverage>,
    calls: Vec<ComparedCall>,
    orders_not_kept: Vec<String>,
    unparsable: Vec<UnparsableBody>,
    not_known: NotKnown,
    /// Why the statuses, or two texts, differ, as far as the replies say so; see [`Self::add_cause`].
    cause: Option<String>,
    distances: NumberDistances,
}

/// The findings at one moment, to which they are rolled back if one difference is to replace several.
pub(super) struct Savepoint {
    differences: usize,
    elements: ElementsSavepoint,
    found: u64,
    truncated: bool,
    uses: UsesSavepoint,
    not_known: usize,
    /// The length of the text of causes.
    cause: Option<usize>,
    distances: DistancesSavepoint,
}

impl<'a> ComparisonFindings<'a> {
    pub(super) fn new(
        differences_max: usize,
        expired: &'a dyn Fn() -> bool,
        sensitive: Option<&'a dyn HidesSensitive>,
    ) -> Self {
        Self {
            differences: Vec::new(),
            elements: ElementsByDifference::default(),
            differences_max: differences_max.max(1),
            found: 0,
            truncated: false,
            uses: RuleUses::default(),
            notes: RuleUses::default(),
            turned_off: Vec::new(),
            compared: ComparedParts::default(),
            work: 0,
            expired,
            sensitive,
            report_as: ReportAs::Found,
            prefix: String::new(),
            effects: None,
            calls: Vec::new(),
            orders_not_kept: Vec::new(),
            unparsable: Vec::new(),
            not_known: NotKnown::default(),
            cause: None,
            distances: NumberDistances::default(),
        }
    }

    /// Counts one unit of work, and checks the time now and then.
    pub(super) fn count_work(&mut self) -> Result<(), BoundExceeded> {
        self.add_work(1)
    }

    /// Counts work on a number of bytes of text, and checks the time now and then.
    pub(super) fn count_work_on(&mut self, bytes: usize) -> Result<(), BoundExceeded> {
        self.add_work(u32::try_from(bytes / BYTES_PER_UNIT).unwrap_or(u32::MAX).saturating_add(1))
    }

    fn add_work(&mut self, more: u32) -> Result<(), BoundExceeded> {
        self.work = self.work.saturating_add(more);
        if self.work < WORK_BETWEEN_CHECKS {
            return Ok(());
        }
        self.work = 0;
        self.check_time()
    }

    /// Checks the time before work that cannot be interrupted.
    pub(super) fn check_time(&self) -> Result<(), BoundExceeded> {
        if (self.expired)() { Err(BoundExceeded::Time) } else { Ok(()) }
    }

    pub(super) fn has_differences(&self) -> bool {
        !self.differences.is_empty()
    }
    /// Records that there may be more differences than are listed.
    pub(super) fn truncate(&mut self) {
        self.truncated = true;
    }

    /// Counts a use of a rule: it made two different values equal.
    pub(super) fn count_use(&mut self, rule: RuleId) {
        self.uses.add(rule);
    }
    /// Counts something about a rule that made no two values equal.
    pub(super) fn count_note(&mut self, note: RuleId) {
        self.notes.add(note);
    }
    /// Turns off a rule for this pair.
    pub(super) fn turn_off(&mut self, rule: RuleId) {
        self.turned_off.push(rule);
    }
    /// Whether a rule applies to this pair.
    pub(super) fn applies(&self, rule: RuleId) -> bool {
        !self.turned_off.contains(&rule)
    }

    /// Sets the kind as which the following differences are listed.
    pub(super) fn report_as(&mut self, report_as: ReportAs) {
        self.report_as = report_as;
    }
    /// Sets the text that is put in front of the paths of the following differences.
    pub(super) fn set_prefix(&mut self, prefix: String) {
        self.prefix = prefix;
    }

    /// Sets how many intents were compared with a call. The reads that were counted stay.
    pub(super) fn set_effect_coverage(&mut self, EffectCoverage { steps, calls_not_judged, .. }: EffectCoverage) {
        let effects = self.effects.get_or_insert_default();
        (effects.steps, effects.calls_not_judged) = (steps, calls_not_judged);
    }

    /// Adds why the statuses, or two texts, differ: pairs with other causes have other fingerprints.
    pub(super) fn add_cause(&mut self, cause: &str) {
        let causes = self.cause.get_or_insert_default();
        if causes.len() + cause.len() <= CAUSES_BYTES_MAX {
            causes.push_str(cause);
            causes.push('\n');
        }
    }

    /// Counts a call by legacy that is equal to a read of this step.
    pub(super) fn count_read_of_both(&mut self, step: &StepId) {
        *self.effects.get_or_insert_default().reads_of_both.entry(step.clone()).or_default() += 1;
    }

    /// Notes which call by legacy an intent was compared with.
    pub(super) fn add_compared_call(&mut self, call: ComparedCall) {
        self.calls.push(call);
    }

    /// Notes that legacy itself did not keep an order for this request: the one of a difference with this path.
    pub(super) fn add_order_not_kept(&mut self, path: String) {
        self.orders_not_kept.push(path);
    }

    /// Counts a body of this arm that cannot be parsed as the format that its content type declares.
    pub(super) fn add_unparsable(&mut self, arm: &'static str, format: &'static str) {
        self.unparsable.push(UnparsableBody { arm, format });
    }

    /// Sets whether legacy's reply and calls are those of a capture.
    pub(super) fn set_captured(&mut self, is_captured: bool) {
        self.not_known = NotKnown::of_capture(is_captured);
    }

    /// If it is not known whether these two texts differ, counts that, and returns `true`.
    pub(super) fn is_not_known(&mut self, path: &str, legacy: Option<&str>, engine: Option<&str>) -> bool {
        let (Some(legacy), Some(engine)) = (legacy, engine) else { return false };
        let is_so = self.not_known.covers_texts(legacy, engine);
        if is_so {
            self.not_known.add(format!("{}{path}", self.prefix), legacy, engine);
        }
        is_so
    }

    /// Adds a difference of two values. First the run's sensitive values are hidden in them, then values under secret
    /// keys are redacted: in the other order, a sensitive text of which a part was redacted would not be recognised.
    pub(super) fn add_values(
        &mut self,
        path: &ValuePath<'_>,
        kind: DifferenceKind,
        legacy: Option<Node<'_>>,
        engine: Option<Node<'_>>,
    ) {
        if let Some(values) = legacy.zip(engine).filter(|values| self.not_known.covers(path, *values)) {
            return self.not_known.add_values(format!("{}{}", self.prefix, path.text()), values);
        }
        let shown =
            |findings: &Self| [legacy, engine].map(|value| value.map(|value| findings.shown_value(path, value)));
        let before = self.differences.len();
        self.add_shown(path, kind, |findings| shown(findings).into());
        let numbers = legacy.zip(engine).filter(|_| kind == DifferenceKind::Value);
        let Some(distance) = numbers.and_then(|(legacy, engine)| NumberDistance::of(legacy, engine)) else { return };
        let (place, kind) = (format!("{}{}", self.prefix, path.text()), self.report_as.kind_of(kind));
        let further = self.distances.note(distance, &self.differences, before, (place.as_str(), kind));
        let Some((index, texts)) = further.map(|index| (index, shown(self))) else { return };
        self.distances.replace(&mut self.differences, index, distance, texts);
    }

    /// Adds a difference of two values whose texts `show` makes, unless it is listed already.
    pub(super) fn add_shown(
        &mut self,
        path: &ValuePath<'_>,
        kind: DifferenceKind,
        show: impl FnOnce(&Self) -> (Option<String>, Option<String>),
    ) {
        let text = path.text();
        let listed = self.listed(&text, self.report_as.kind_of(kind));
        if listed.is_some() || self.differences.len() < self.differences_max {
            self.elements.add(listed.unwrap_or(self.differences.len()), path.element());
        }
        if listed.is_some() || self.differences.len() >= self.differences_max {
            // Its texts are not made: they may be as large as the documents.
            self.truncated |= listed.is_none();
            self.found = self.found.saturating_add(1);
            return;
        }
        let (legacy, engine) = show(self);
        self.add_text(&text, kind, legacy.as_deref(), engine.as_deref());
    }

    /// Adds a difference of two values, one of which may be an id, or name ids, that were bound to others before.
    pub(super) fn add_contradiction(
        &mut self,
        path: &ValuePath<'_>,
        legacy: Node<'_>,
        engine: Node<'_>,
        contradicted: &[&FoundIds],
    ) {
        if contradicted.is_empty() {
            return self.add_values(path, DifferenceKind::Value, Some(legacy), Some(engine));
        }
        let before = self.differences.len();
        let shown = |findings: &Self| [legacy, engine].map(|id| Some(findings.shown_value(path, id))).into();
        self.add_shown(path, DifferenceKind::Value, shown);
        self.add_contradicted(before, contradicted);
    }

    /// Adds a difference of two texts that are redacted, in which ids may be bound to others.
    pub(super) fn add_contradicting_text(
        &mut self,
        path: &str,
        kind: DifferenceKind,
        legacy: Option<&str>,
        engine: Option<&str>,
        contradicted: &[&FoundIds],
    ) {
        let before = self.differences.len();
        self.add_text(path, kind, legacy, engine);
        self.add_contradicted(before, contradicted);
    }

    /// Adds to the difference with this index, if there is one, the bindings that it contradicts, redacted.
    fn add_contradicted(&mut self, index: usize, contradicted: &[&FoundIds]) {
        let pairings = contradicted.iter().take(CONTRADICTED_SHOWN_MAX).map(|found| {
            let (legacy, engine) = self.shown_ids(found);
            EarlierPairing { path: found.path.clone(), legacy, engine }
        });
        let pairings = pairings.collect();
        if let Some(difference) = self.differences.get_mut(index) {
            difference.contradicts = pairings;
        }
    }

    /// The path of a value in the replies, or, with a prefix, in the body of a call.
    pub(super) fn path_in_reply_or_call(&self, path: &ValuePath<'_>) -> String {
        match self.prefix.as_str() {
            "" => path.text(),
            prefix => format!("{prefix}{}", path.text().trim_start_matches('$')),
        }
    }

    /// Adds a difference whose texts hold nothing that must be redacted.
    pub(super) fn add_text(&mut self, path: &str, kind: DifferenceKind, legacy: Option<&str>, engine: Option<&str>) {
        let kind = self.report_as.kind_of(kind);
        self.found = self.found.saturating_add(1);
        if self.listed(path, kind).is_some() {
            return;
        }
        if self.differences.len() >= self.differences_max {
            self.truncated = true;
            return;
        }
        let (path, legacy, engine) =
            (format!("{}{path}", self.prefix), legacy.map(str::to_owned), engine.map(str::to_owned));
        self.differences.push(Difference { path, kind, legacy, engine, contradicts: Vec::new() });
    }

    /// The index of the difference with this path and kind, if one is listed already: the same difference in another
    /// element of an array has the same path.
    fn listed(&self, path: &str, kind: DifferenceKind) -> Option<usize> {
        let rest = |d: &Difference| d.path.strip_prefix(self.prefix.as_str()) == Some(path);
        self.differences.iter().position(|d| d.kind == kind && rest(d))
    }

    /// How many differences were found, those that are not listed included.
    pub(super) fn found(&self) -> u64 {
        self.found
    }

    pub(super) fn savepoint(&self) -> Savepoint {
        Savepoint {
            differences: self.differences.len(),
            elements: self.elements.savepoint(),
            found: self.found,
            truncated: self.truncated,
            uses: self.uses.savepoint(),
            not_known: self.not_known.len(),
            cause: self.cause.as_ref().map(String::len),
            distances: self.distances.savepoint(),
        }
    }

    /// Whether anything was found since the savepoint.
    pub(super) fn has_more_than(&self, savepoint: &Savepoint) -> bool {
        self.found > savepoint.found || self.truncated != savepoint.truncated
    }

    pub(super) fn roll_back_to(&mut self, savepoint: Savepoint) {
        self.differences.truncate(savepoint.differences);
        self.distances.roll_back_to(&savepoint.distances, &mut self.differences);
        self.elements.roll_back_to(savepoint.elements);
        self.found = savepoint.found;
        self.truncated = savepoint.truncated;
        self.uses.roll_back_to(savepoint.uses);
        self.not_known.truncate(savepoint.not_known);
        match (&mut self.cause, savepoint.cause) {
            (Some(cause), Some(length)) => cause.truncate(length),
            (cause, _) => *cause = None,
        }
    }

    pub(super) fn finish(self, rules: &Rules) -> Comparison {
        let (mut ignored_by, largest) = (self.uses.counted(&rules.texts), self.distances.largest());
        ignored_by.extend(self.not_known.counted());
        let verdict = match (self.differences.is_empty() && !self.truncated, ignored_by.is_empty()) {
            (true, true) => Verdict::Match,
            (true, false) => Verdict::Ignored,
            (false, _) => Verdict::Mismatch,
        };
        ignored_by.extend(self.notes.counted(&rules.texts));
        let fingerprint = fingerprint(&self.differences, self.truncated, self.cause.as_deref(), largest);
        Comparison {
            verdict,
            elements: self.elements.by_name(self.differences.iter().map(|d| (d.path.clone(), d.kind))),
            differences: self.differences,
            truncated: self.truncated,
            ignored_by,
            compares_replies: self.compared.replies,
            fingerprint,
            effects: self.effects,
            intents: BTreeMap::new(),
            calls: self.calls,
            orders_not_kept: self.orders_not_kept,
            unparsable: self.unparsable,
            not_known: self.not_known.into_values(),
        }
    }
}
