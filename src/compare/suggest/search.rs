//! Finds the smallest set of rules that explains the samples.

use super::judged::{Evaluation, JudgedSamples, Place, SuggestContext, SuggestGroup, places};
use super::propose::propose;
use super::rule::Proposed;
use super::stricter::{self, StricterRule};
use crate::compare::draft::RulesDraft;
use crate::compare::verdict::{Difference, DifferenceKind};

/// The most rules that are tried in one round.
const TRIED_MAX: usize = 64;
/// The most rounds: a rule may bring to light what another one explains.
const ROUNDS_MAX: usize = 4;
/// The most examples of what a rule hides.
const EXAMPLES_MAX: usize = 3;
/// The most places that are listed as not explained.
const UNEXPLAINED_MAX: usize = 64;

/// Rules that explain samples.
#[derive(Clone, Debug, Default)]
pub struct Suggestions {
    /// The whole rules: those in force, with the ones that are proposed.
    pub rules: RulesDraft,
    /// The rules that are proposed, those that hide least first.
    pub added: Vec<SuggestedRule>,
    /// What differs still.
    pub unexplained: Vec<Unexplained>,
    /// Rules that would compare more, and by which no sample differs.
    pub stricter: Vec<StricterRule>,
    /// The whole rules with the stricter ones too.
    pub stricter_rules: RulesDraft,
    /// The samples that were judged.
    pub judged: u64,
    /// The samples that cannot be judged again. They count neither as explained nor as not.
    pub not_judged: u64,
}

/// A rule that is proposed.
#[derive(Clone, Debug)]
pub struct SuggestedRule {
    /// The rule, as a `compare:` that has nothing else.
    pub rule: RulesDraft,
    /// What would differ without it, and with all the others.
    pub hides: Vec<HiddenValues>,
    /// How many samples would differ in more places without it.
    pub samples: u64,
    /// How many pairs these stand for, about.
    pub pairs: u64,
    /// What a person has to know before the rule is used.
    pub warning: Option<&'static str>,
}

/// What a rule hides at one place.
#[derive(Clone, Debug)]
pub struct HiddenValues {
    /// The path.
    pub path: String,
    /// Some of the differences, each with its values.
    pub examples: Vec<Difference>,
}

/// A difference for which no rule is proposed.
#[derive(Clone, Debug)]
pub struct Unexplained {
    /// The path.
    pub path: String,
    /// The kind.
    pub kind: DifferenceKind,
    /// In how many samples it is.
    pub samples: u64,
    /// In how many pairs, about.
    pub pairs: u64,
    /// Why no rule is proposed, as the rest of a sentence that begins with the place.
    pub why: String,
    /// One of them, with its values.
    pub example: Option<Difference>,
}

/// Proposes the smallest set of rules that explains the differences of these samples.
pub fn suggest(groups: &[SuggestGroup<'_>], context: &SuggestContext<'_>) -> Suggestions {
    let judged = JudgedSamples::of(groups, context);
    let mut search = Search { judged: &judged, accepted: Vec::new() };
    let mut left = judged.before();
    for _ in 0..ROUNDS_MAX {
        let accepted = search.accepted.len();
        left = search.round(left);
        if search.accepted.len() == accepted || left.left() == 0 {
            break;
        }
    }
    let left = search.drop_superfluous(left);
    search.accepted.sort_by_key(Proposed::rank);
    let rules = search.draft(None);
    let (stricter, stricter_rules) = stricter::find(&judged, &rules, &left);
    Suggestions {
        rules,
        stricter,
        stricter_rules,
        added: (0..search.accepted.len()).map(|n| search.shown(n, &left)).collect(),
        unexplained: unexplained(&left, &judged),
        judged: judged.samples.len() as u64,
        not_judged: judged.not_judged,
    }
}

struct Search<'a> {
    judged: &'a JudgedSamples<'a>,
    accepted: Vec<Proposed>,
}

impl Search<'_> {
    /// Tries the rules for the places that are left, the ones that hide least first.
    fn round(&mut self, mut left: Evaluation) -> Evaluation {
        let places = places(&left, self.judged);
        let mut proposed: Vec<Proposed> = Vec::new();
        for rule in places.iter().filter_map(|place| propose(place, self.judged).ok()).flatten() {
            if !proposed.contains(&rule) {
                proposed.push(rule);
            }
        }
        proposed.sort_by_key(Proposed::rank);
        proposed.truncate(TRIED_MAX);
        let lines: Vec<Proposed> = proposed.iter().filter(|rule| rule.is_for_lines()).cloned().collect();
        for rules in proposed.into_iter().map(|rule| vec![rule]).chain([lines]) {
            if (self.judged.context.expired)() {
                break;
            }
            let mut draft = self.draft(None);
            // Leaves out rules that are in force or accepted already.
            let rules: Vec<Proposed> = rules.into_iter().filter(|rule| rule.add_to(&mut draft)).collect();
            if !rules.is_empty()
                && let Some(with) = self.judged.evaluate(&draft)
                && with.left() < left.left()
                && !with.has_new
            {
                self.accepted.extend(rules);
                left = with;
            }
        }
        left
    }

    /// Drops rules without which no more differs, those that hide most first.
    fn drop_superfluous(&mut self, mut left: Evaluation) -> Evaluation {
        let mut by_rank: Vec<usize> = (0..self.accepted.len()).collect();
        by_rank.sort_by_key(|n| std::cmp::Reverse(self.accepted[*n].rank()));
        let mut dropped = Vec::new();
        for n in by_rank {
            let without = [dropped.as_slice(), &[n]].concat();
            if let Some(evaluation) = self.judged.evaluate(&self.draft(Some(&without)))
                && evaluation.left() <= left.left()
                && !evaluation.has_new
            {
                dropped = without;
                left = evaluation;
            }
        }
        let mut n = 0;
        self.accepted.retain(|_| {
            n += 1;
            !dropped.contains(&(n - 1))
        });
        left
    }

    /// The rules in force with those that are accepted, without some of them.
    fn draft(&self, without: Option<&[usize]>) -> RulesDraft {
        let mut draft = self.judged.context.in_force.draft().clone();
        for (n, rule) in self.accepted.iter().enumerate() {
            if !without.is_some_and(|without| without.contains(&n)) {
                rule.add_to(&mut draft);
            }
        }
        draft
    }

    /// A rule with what would differ without it.
    fn shown(&self, n: usize, with: &Evaluation) -> SuggestedRule {
        let rule = &self.accepted[n];
        let (mut hides, mut samples, mut pairs) = (Vec::<HiddenValues>::new(), 0, 0.0);
        let without = self.judged.evaluate(&self.draft(Some(&[n])));
        let differences = without.map(|without| without.differences).unwrap_or_default();
        for ((without, with), sample) in differences.iter().zip(&with.differences).zip(&self.judged.samples) {
            let is_hidden = |d: &&Difference| !with.iter().any(|other| (&other.path, other.kind) == (&d.path, d.kind));
            let hidden: Vec<&Difference> = without.iter().filter(is_hidden).collect();
            if hidden.is_empty() {
                continue;
            }
            samples += 1;
            pairs += sample.pairs;
            for difference in hidden {
                let at = hides.iter().position(|hidden| hidden.path == difference.path).unwrap_or(hides.len());
                if at == hides.len() {
                    hides.push(HiddenValues { path: difference.path.clone(), examples: Vec::new() });
                }
                if let Some(hidden) = hides.get_mut(at) {
                    hidden.examples.push(difference.clone());
                }
            }
        }
        // The examples whose numbers are furthest apart: they show whether the rule hides more than rounding.
        for HiddenValues { examples, .. } in &mut hides {
            examples.sort_by(|a, b| distance(b).total_cmp(&distance(a)));
            examples.truncate(EXAMPLES_MAX);
        }
        SuggestedRule { rule: rule.alone(), hides, samples, pairs: pairs.round() as u64, warning: rule.warning() }
    }
}

/// How far the numbers of a difference are apart; 0 if it has none.
fn distance(difference: &Difference) -> f64 {
    difference.distance().unwrap_or_default()
}

fn unexplained(left: &Evaluation, judged: &JudgedSamples<'_>) -> Vec<Unexplained> {
    let mut places = places(left, judged);
    places.sort_by(|a, b| b.pairs.total_cmp(&a.pairs));
    let of = |place: Place| {
        let why = match propose(&place, judged) {
            Ok(_) => "no rule explains it without hiding more".to_owned(),
            Err(why) => why,
        };
        let of_sample = |n: usize| left.differences.get(n).into_iter().flatten();
        let of_place = |n: usize| of_sample(n).find(|d| (&d.path, d.kind) == (&place.path, place.kind));
        // The first of those whose numbers are furthest apart.
        let found = place.occurrences.iter().rev().filter_map(|occurrence| of_place(occurrence.sample));
        let example = found.max_by(|a, b| distance(a).total_cmp(&distance(b))).cloned();
        let (samples, pairs) = (place.occurrences.len() as u64, place.pairs.round() as u64);
        Unexplained { path: place.path, kind: place.kind, samples, pairs, why, example }
    };
    places.into_iter().take(UNEXPLAINED_MAX).map(of).collect()
}
