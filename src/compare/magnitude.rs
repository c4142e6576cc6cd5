//! How far the differing numbers of a pair are apart.
//!
//! The question it answers: "can two numbers be the same, rounded differently, or is one of them wrong?" Amounts that
//! differ by rounding in all pairs must not hide the pair in which an amount is wrong at the same place. So pairs are
//! grouped by the largest [`Magnitude`] of their numbers, and a difference that stands for several elements of an array
//! shows the two numbers that are furthest apart.
//!
//! Always true: distances are computed from the values themselves, also where a difference shows them redacted; only
//! the three magnitudes tell anything about these.

use super::node::{Kind, Node};
use super::number::Decimal;
use super::verdict::{Difference, DifferenceKind};

/// Two numbers that differ by at most this share of the larger one may be the same, rounded differently.
const ROUNDING_MAX: f64 = 1e-6;
/// Two numbers that differ by at most this share of the larger one are near each other.
const NEAR_MAX: f64 = 0.01;
/// The longest text that may be a number.
const NUMBER_BYTES_MAX: usize = 40;

/// How far two numbers are apart, roughly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Magnitude {
    /// They may be the same, rounded differently. Whole numbers are not rounded.
    Rounding,
    /// By at most a hundredth.
    Near,
    /// By more.
    Far,
}

/// How far two different numbers are apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct NumberDistance {
    /// The difference as a share of the larger number.
    share: f64,
    magnitude: Magnitude,
}

impl NumberDistance {
    /// `None` if one of them is no number. A text is one if it has a decimal point: without, it is more often an id.
    pub(super) fn of(legacy: Node<'_>, engine: Node<'_>) -> Option<Self> {
        let (a, b) = match (legacy.kind(), engine.kind()) {
            (Kind::Number(a), Kind::Number(b)) => (a, b),
            (Kind::String(a), Kind::String(b)) if is_decimal(a) && is_decimal(b) => (a, b),
            _ => return None,
        };
        let share = distance_of(a, b)?;
        let is_whole = |text: &str| !text.contains(['.', 'e', 'E']);
        let magnitude = match share {
            _ if share <= ROUNDING_MAX && !(is_whole(a) && is_whole(b)) => Magnitude::Rounding,
            _ if share <= NEAR_MAX => Magnitude::Near,
            _ => Magnitude::Far,
        };
        Some(Self { share, magnitude })
    }
}

/// How far two different values are apart; `None` if they are no numbers.
pub(super) fn magnitude_of(legacy: Node<'_>, engine: Node<'_>) -> Option<Magnitude> {
    NumberDistance::of(legacy, engine).map(|distance| distance.magnitude)
}

fn is_decimal(text: &str) -> bool {
    text.len() <= NUMBER_BYTES_MAX && text.contains('.') && Decimal::parse(text).is_some()
}

/// The distance of two numbers as a share of the larger one.
fn distance_of(a: &str, b: &str) -> Option<f64> {
    let (a, b) = (a.parse::<f64>().ok()?, b.parse::<f64>().ok()?);
    let larger = a.abs().max(b.abs());
    if larger == 0.0 {
        return Some(0.0);
    }
    Some((a - b).abs() / larger).filter(|distance| distance.is_finite())
}

impl Difference {
    /// How far the two numbers that this difference shows are apart, as a share of the larger one; `None` if it shows
    /// none.
    pub fn distance(&self) -> Option<f64> {
        match self.kind {
            DifferenceKind::Value
            | DifferenceKind::StaleRead
            | DifferenceKind::Intent
            | DifferenceKind::EffectDiffers => {}
            DifferenceKind::Status
            | DifferenceKind::Header
            | DifferenceKind::Missing
            | DifferenceKind::Extra
            | DifferenceKind::Type
            | DifferenceKind::Order
            | DifferenceKind::DuplicateKey
            | DifferenceKind::Assert
            | DifferenceKind::EffectMissing
            | DifferenceKind::EffectExtra
            | DifferenceKind::EffectOrder
            | DifferenceKind::EffectDoubled => return None,
        }
        let number = |shown: &Option<String>| {
            let text = shown.as_deref()?;
            let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            Some(quoted.unwrap_or(text).to_owned()).filter(|text| {
                text.len() <= NUMBER_BYTES_MAX
                    && Decimal::parse(text).is_some()
                    && (quoted.is_none() || is_decimal(text))
            })
        };
        distance_of(&number(&self.legacy)?, &number(&self.engine)?)
    }
}

/// The largest distance of the numbers that differences show; 0 if there are none.
pub fn largest_distance(differences: &[Difference]) -> f64 {
    differences.iter().filter_map(Difference::distance).fold(0.0, f64::max)
}

/// The distances that were found so far.
#[derive(Default)]
pub(super) struct NumberDistances {
    largest: Option<Magnitude>,
    /// The distance of the numbers that a listed difference shows, with its index.
    shown: Vec<(usize, f64)>,
    /// The shown values that were replaced, the latest last: they are put back if findings are rolled back.
    replaced: Vec<(usize, f64, [Option<String>; 2])>,
}

/// The distances at one moment.
pub(super) struct DistancesSavepoint {
    largest: Option<Magnitude>,
    replaced: usize,
}

impl NumberDistances {
    /// Notes the distance of two numbers that differ at a place. If `differences` has more entries than `before`, the
    /// last one shows these numbers. Otherwise an entry with this path and kind stands for them too: returns its index
    /// if they are further apart than the numbers that it shows.
    pub(super) fn note(
        &mut self,
        distance: NumberDistance,
        differences: &[Difference],
        before: usize,
        (path, kind): (&str, DifferenceKind),
    ) -> Option<usize> {
        self.largest = self.largest.max(Some(distance.magnitude));
        if differences.len() > before {
            self.shown.push((before, distance.share));
            return None;
        }
        let index = differences.iter().position(|d| d.kind == kind && d.path == path)?;
        let shows_nearer = |(shown, share): &(usize, f64)| *shown == index && *share < distance.share;
        self.shown.iter().any(shows_nearer).then_some(index)
    }

    /// Shows these numbers in a listed difference.
    pub(super) fn replace(
        &mut self,
        differences: &mut [Difference],
        index: usize,
        distance: NumberDistance,
        [legacy, engine]: [Option<String>; 2],
    ) {
        let Some(difference) = differences.get_mut(index) else { return };
        let Some((_, share)) = self.shown.iter_mut().find(|(listed, _)| *listed == index) else { return };
        let before =
            [std::mem::replace(&mut difference.legacy, legacy), std::mem::replace(&mut difference.engine, engine)];
        self.replaced.push((index, *share, before));
        *share = distance.share;
    }

    /// The largest magnitude; `None` if no number differs.
    pub(super) fn largest(&self) -> Option<Magnitude> {
        self.largest
    }

    pub(super) fn savepoint(&self) -> DistancesSavepoint {
        DistancesSavepoint { largest: self.largest, replaced: self.replaced.len() }
    }

    /// Takes back what was noted since, after the list was cut to the differences of that moment.
    pub(super) fn roll_back_to(&mut self, savepoint: &DistancesSavepoint, differences: &mut [Difference]) {
        self.largest = savepoint.largest;
        while self.replaced.len() > savepoint.replaced {
            let Some((index, distance, [legacy, engine])) = self.replaced.pop() else { break };
            if let Some(difference) = differences.get_mut(index) {
                (difference.legacy, difference.engine) = (legacy, engine);
            }
            self.shown.iter_mut().filter(|(listed, _)| *listed == index).for_each(|(_, shown)| *shown = distance);
        }
        self.shown.retain(|(index, _)| *index < differences.len());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{json_reply, rules};
    use super::super::{Comparison, Pair, compare};
    use super::*;
    use crate::compare::tests::BOUNDS;

    fn compared(draft: Value, legacy: &Value, engine: &Value) -> Comparison {
        let (legacy, engine) = (json_reply(legacy), json_reply(engine));
        let pair = Pair {
            legacy: &legacy,
            engine: &engine,
            request: &Value::Null,
            effects: None,
            instance: None,
            stale_reads: false,
            sensitive: None,
        };
        compare(&pair, &rules(draft), &BOUNDS, &|| false).unwrap()
    }

    #[test]
    fn a_wrong_amount_is_in_another_group_than_a_rounded_one() {
        let of = |legacy: Value, engine: Value| {
            compared(json!({}), &json!({ "total": legacy }), &json!({ "total": engine })).fingerprint
        };
        let rounded = of(json!(139.3), json!(139.299_999_999_999_98));
        assert_eq!(rounded, of(json!(0.3), json!(0.300_000_000_000_000_04)));
        let near = of(json!(17.50), json!(17.51));
        let far = of(json!(87.84), json!(97.6));
        assert!(rounded != near && near != far && rounded != far);
        assert_eq!(far, of(json!(1), json!(200)));
        assert_eq!(near, of(json!(1_000_000), json!(1_000_001)), "whole numbers are not rounded");
        assert_eq!((of(json!("87.84"), json!("97.60")), of(json!("17.50"), json!("17.51"))), (far.clone(), near));
        assert_eq!(far, of(json!("ord_1"), json!("ord_2")), "what is no number has no distance");
        assert_eq!(of(json!("4012"), json!("4013")), of(json!("4012"), json!("17")), "ids have none");
    }

    #[test]
    fn of_many_elements_a_difference_shows_the_numbers_that_are_furthest_apart() {
        let amounts = |amounts: &[f64]| json!({ "lines": amounts.iter().map(|a| json!({"a": a})).collect::<Vec<_>>() });
        let legacy = amounts(&[139.3, 87.84, 5.0]);
        let engine = amounts(&[139.299_999_999_999_98, 97.6, 5.01]);
        let found = compared(json!({}), &legacy, &engine);
        let [only] = found.differences.as_slice() else { panic!("{:?}", found.differences) };
        assert_eq!((only.legacy.as_deref(), only.engine.as_deref()), (Some("87.84"), Some("97.6")));
        assert!(only.distance().is_some_and(|distance| (0.09..0.11).contains(&distance)));
        let alone = compared(json!({}), &amounts(&[87.84]), &amounts(&[97.6]));
        assert_eq!(found.fingerprint, alone.fingerprint);
    }

    #[test]
    fn numbers_of_findings_that_are_taken_back_are_not_shown() {
        let difference = |legacy: &str, engine: &str| Difference {
            path: "$.a[*]".to_owned(),
            kind: DifferenceKind::Value,
            legacy: Some(legacy.to_owned()),
            engine: Some(engine.to_owned()),
            contradicts: Vec::new(),
        };
        let mut distances = NumberDistances::default();
        let mut listed = vec![difference("10.0", "10.1")];
        let apart = |engine: &str| {
            let (a, b) = (json!(10.0), serde_json::from_str::<Value>(engine).unwrap());
            NumberDistance::of(Node::from(&a), Node::from(&b)).unwrap()
        };
        let place = ("$.a[*]", DifferenceKind::Value);
        assert_eq!(distances.note(apart("10.1"), &listed, 0, place), None);
        let before = distances.savepoint();
        let far = apart("20.0");
        assert_eq!(distances.note(far, &listed, 1, place), Some(0));
        distances.replace(&mut listed, 0, far, ["10.0", "20.0"].map(|text| Some(text.to_owned())));
        assert_eq!((listed[0].engine.as_deref(), distances.largest()), (Some("20.0"), Some(Magnitude::Far)));
        assert_eq!(distances.note(apart("15.0"), &listed, 1, place), None, "nearer than what is shown");
        distances.roll_back_to(&before, &mut listed);
        assert_eq!((listed[0].engine.as_deref(), distances.largest()), (Some("10.1"), Some(Magnitude::Near)));
        assert_eq!(distances.note(apart("15.0"), &listed, 1, place), Some(0), "the distance is that of what is shown");
    }
}
