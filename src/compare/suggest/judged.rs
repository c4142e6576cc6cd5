//! The samples from which rules are proposed, judged under any rules.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::compare::bounds::CompareBounds;
use crate::compare::compared_body::ComparedBody;
use crate::compare::draft::RulesDraft;
use crate::compare::kept::{KeptPair, ReadPair, Rejudged, holds_masked};
use crate::compare::rules::Rules;
use crate::compare::verdict::{Difference, DifferenceKind};

/// A sample of a pair that differs.
pub struct SuggestSample<'a> {
    /// The pair.
    pub kept: &'a KeptPair,
    /// The differences that were found.
    pub differences: &'a [Difference],
    /// When it was compared, in nanoseconds since 1970.
    pub compared_ns: i128,
}

/// Samples with the same differences.
pub struct SuggestGroup<'a> {
    /// How many pairs differed in this way, those without a sample included.
    pub pairs: u64,
    /// The samples that may be judged again.
    pub samples: Vec<SuggestSample<'a>>,
    /// How many samples cannot be, for example because nothing is kept of the pair.
    pub not_kept: u64,
}

/// What is needed, besides the samples, to propose rules.
pub struct SuggestContext<'a> {
    /// The rules in force, under which the pairs were compared.
    pub in_force: &'a Rules,
    /// Checks rules; `None` if they are not valid.
    pub check: &'a dyn Fn(&RulesDraft) -> Option<Rules>,
    /// How many pairs were compared in which legacy answered with this class of status (2 for 2xx), equal ones
    /// included.
    pub compared: &'a dyn Fn(u16) -> u64,
    /// The bounds of each comparison.
    pub bounds: &'a CompareBounds,
    /// Whether the time is used up.
    pub expired: &'a dyn Fn() -> bool,
}

/// A sample that is judged.
pub(super) struct JudgedSample<'a> {
    pub(super) read: ReadPair,
    pub(super) found: &'a [Difference],
    /// Whether the list of its differences is cut.
    was_cut: bool,
    pub(super) compared_ns: i128,
    /// How many pairs it stands for.
    pub(super) pairs: f64,
    /// The bodies of both replies, if both have a structure.
    pub(super) documents: Option<[Value; 2]>,
    /// What the caller asked for: equal for equal requests; `None` if a part of it was redacted.
    pub(super) asked: Option<String>,
}

/// All samples that can be judged.
pub(super) struct JudgedSamples<'a> {
    pub(super) samples: Vec<JudgedSample<'a>>,
    pub(super) not_judged: u64,
    pub(super) context: &'a SuggestContext<'a>,
}

/// What the samples look like under some rules.
pub(super) struct Evaluation {
    /// The differences of each sample.
    pub(super) differences: Vec<Vec<Difference>>,
    /// Whether some sample has a difference that it does not have under the rules in force.
    pub(super) has_new: bool,
}

impl Evaluation {
    /// The number of differences that are left, all samples together.
    pub(super) fn left(&self) -> usize {
        self.differences.iter().map(Vec::len).sum()
    }
}

impl<'a> JudgedSamples<'a> {
    pub(super) fn of(groups: &'a [SuggestGroup<'a>], context: &'a SuggestContext<'a>) -> Self {
        let (mut samples, mut not_judged) = (Vec::new(), 0);
        for group in groups {
            not_judged += group.not_kept;
            let of_each = group.pairs as f64 / (group.samples.len() as u64 + group.not_kept).max(1) as f64;
            for sample in &group.samples {
                match JudgedSample::of(sample, of_each, context) {
                    Some(sample) => samples.push(sample),
                    None => not_judged += 1,
                }
            }
        }
        Self { samples, not_judged, context }
    }

    /// Judges all samples under these rules; `None` if the rules are not valid. A sample that cannot be judged under
    /// them keeps its differences.
    pub(super) fn evaluate(&self, draft: &RulesDraft) -> Option<Evaluation> {
        let rules = (self.context.check)(draft)?;
        let mut evaluation = Evaluation { differences: Vec::new(), has_new: false };
        for sample in &self.samples {
            let SuggestContext { in_force, bounds, expired, .. } = self.context;
            let left = match sample.read.judge((sample.found, sample.was_cut), in_force, &rules, bounds, *expired) {
                Ok(Rejudged { comparison, new, .. }) if !comparison.truncated => {
                    evaluation.has_new |= !new.is_empty();
                    comparison.differences
                }
                Ok(_) | Err(_) => sample.found.to_vec(),
            };
            evaluation.differences.push(left);
        }
        Some(evaluation)
    }

    /// The differences of all samples under the rules in force, as they are judged again.
    pub(super) fn before(&self) -> Evaluation {
        let found = self.samples.iter().map(|sample| sample.read_differences(self.context));
        Evaluation { differences: found.collect(), has_new: false }
    }
}

impl<'a> JudgedSample<'a> {
    fn of(sample: &SuggestSample<'a>, pairs: f64, context: &SuggestContext<'_>) -> Option<Self> {
        let SuggestSample { kept, differences, compared_ns } = sample;
        let read = ReadPair::of(kept).ok()?;
        let again = read.check_reproduces(differences, context.in_force, context.bounds, context.expired).ok()?;
        let documents = {
            let legacy = ComparedBody::of(&read.legacy, context.bounds).ok()?;
            let engine = ComparedBody::of(&read.engine, context.bounds).ok()?;
            legacy.documents(&engine).map(|documents| documents.map(|document| document.root.value().into_owned()))
        };
        let asked = |name: &str| read.request.get(name).cloned().unwrap_or_default();
        let asked = json!([asked("method"), asked("path"), asked("query"), asked("body")]);
        // Placeholders of different pairs say nothing about each other.
        let asked = (!holds_masked(&asked)).then(|| asked.to_string());
        let was_cut = again.truncated;
        Some(Self { read, found: *differences, was_cut, compared_ns: *compared_ns, pairs, documents, asked })
    }

    fn read_differences(&self, context: &SuggestContext<'_>) -> Vec<Difference> {
        let SuggestContext { in_force, bounds, expired, .. } = context;
        let again = self.read.check_reproduces(self.found, in_force, bounds, *expired);
        again.map_or_else(|_| self.found.to_vec(), |comparison| comparison.differences)
    }

    /// The class of legacy's status.
    pub(super) fn class(&self) -> u16 {
        self.read.legacy.status().as_u16() / 100
    }
}

/// The values that differ at one place in one sample.
#[derive(Clone, Debug)]
pub(super) struct Occurrence {
    /// The index of the sample.
    pub(super) sample: usize,
    pub(super) legacy: Option<String>,
    pub(super) engine: Option<String>,
}

/// Where samples differ, and how.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) kind: DifferenceKind,
    pub(super) occurrences: Vec<Occurrence>,
    /// How many pairs differ there, about.
    pub(super) pairs: f64,
    /// Which share of all pairs of this kind differ there.
    pub(super) share: f64,
}

/// The places at which samples differ, in the order in which they are found first.
pub(super) fn places(evaluation: &Evaluation, judged: &JudgedSamples<'_>) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for (n, (differences, sample)) in evaluation.differences.iter().zip(&judged.samples).enumerate() {
        for difference in differences {
            let at = places.iter().position(|p| (&p.path, p.kind) == (&difference.path, difference.kind));
            let at = at.unwrap_or(places.len());
            if at == places.len() {
                let (path, kind) = (difference.path.clone(), difference.kind);
                places.push(Place { path, kind, occurrences: Vec::new(), pairs: 0.0, share: 0.0 });
            }
            let (legacy, engine) = (difference.legacy.clone(), difference.engine.clone());
            if let Some(place) = places.get_mut(at) {
                place.occurrences.push(Occurrence { sample: n, legacy, engine });
                place.pairs += sample.pairs;
            }
        }
    }
    for place in &mut places {
        let samples = place.occurrences.iter().filter_map(|o| judged.samples.get(o.sample));
        let classes: BTreeSet<u16> = samples.map(JudgedSample::class).collect();
        let compared: u64 = classes.into_iter().map(|class| (judged.context.compared)(class)).sum();
        place.share = place.pairs / (compared as f64).max(place.pairs).max(1.0);
    }
    places
}
