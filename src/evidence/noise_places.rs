//! The places at which two replies to one request differ, as far as noise is concerned.
//!
//! Always true: a place is a path and a kind of difference. So if only the values at a path are noise, a value of
//! another type there, or a missing one, still counts. A difference in status is a place of its own for each pair of
//! statuses (`status 200 404`). A pair that differs in anything but the reply and the order of calls, or of which not
//! all differences are known, is never noise.

use std::collections::{BTreeMap, BTreeSet};

use crate::compare::{Comparison, Difference, DifferenceKind, DifferingElements};

/// The most places of one pair; a pair with more is never noise.
const PLACES_OF_PAIR_MAX: usize = 64;
/// The longest name of a place, in bytes.
const PLACE_BYTES_MAX: usize = 200;

/// Prefix of the place of a difference in the order of calls.
const ORDER: &str = "effect_order";

/// The path of a place that is a difference in the order of calls.
pub(super) fn order_at(place: &str) -> Option<&str> {
    place.strip_prefix(ORDER)?.strip_prefix(' ')
}

/// The places at which two replies, or the orders of two arms' calls, differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DifferingPlaces {
    /// Each as `kind path`: `value $.generated_at`.
    pub(super) places: BTreeSet<String>,
    /// The differences in the order of calls, each as its path: `effects.charge, effects.mail`.
    pub(super) orders: BTreeSet<String>,
    /// At which elements of lists they differ at a place.
    pub(super) elements: BTreeMap<String, DifferingElements>,
    /// Whether one of the differences is a call by legacy whose path has placeholders (`{}`).
    pub(super) has_path_placeholders: bool,
    /// Whether these are all differences of the pair.
    pub(super) lists_all_differences: bool,
    /// Whether the comparison listed all differences in the replies.
    pub(super) lists_all_of_replies: bool,
}

impl DifferingPlaces {
    /// The places of a comparison.
    pub fn of(comparison: &Comparison) -> Self {
        let mut found = Self::of_differences(&comparison.differences);
        let elements = comparison.elements.iter();
        let elements = elements.map(|((path, kind), elements)| (format!("{} {path}", kind.as_str()), elements.clone()));
        found.elements = elements.filter(|(place, _)| found.places.contains(place)).collect();
        found.lists_all_differences &= !comparison.truncated;
        found.lists_all_of_replies &= !comparison.truncated;
        found
    }

    /// The places of these differences.
    pub fn of_differences(differences: &[Difference]) -> Self {
        let mut found = Self { lists_all_differences: true, lists_all_of_replies: true, ..Self::default() };
        for difference in differences {
            found.has_path_placeholders |=
                difference.kind == DifferenceKind::EffectMissing && difference.path.contains("{}");
            let is_order = difference.kind == DifferenceKind::EffectOrder;
            if !is_order && !is_of_reply(difference.kind) {
                found.lists_all_differences = false;
                continue;
            }
            let place = place_name(difference);
            let is_known =
                place.len() <= PLACE_BYTES_MAX && found.places.len() + found.orders.len() < PLACES_OF_PAIR_MAX;
            match (is_known, is_order) {
                (true, true) => drop(found.orders.insert(difference.path.clone())),
                (true, false) => drop(found.places.insert(place)),
                (false, true) => found.lists_all_differences = false,
                (false, false) => (found.lists_all_differences, found.lists_all_of_replies) = (false, false),
            }
        }
        found
    }
}

impl DifferingPlaces {
    /// All places, with the orders of calls as places too (`effect_order effects.charge, effects.mail`): they identify
    /// a group of pairs.
    pub(super) fn of_group(&self) -> BTreeSet<String> {
        let orders = self.orders.iter().map(|path| format!("{ORDER} {path}"));
        self.places.iter().cloned().chain(orders).collect()
    }
    /// Whether one of the differences is a call whose path is shown without its values.
    pub fn hides_path_values(&self) -> bool {
        self.has_path_placeholders
    }
    /// Whether these differ at a place only where `others` differ too; in a list, only in the same elements.
    pub(super) fn are_among(&self, others: &Self, place: &str) -> bool {
        match (self.places.contains(place), others.places.contains(place)) {
            (false, _) => true,
            (true, false) => false,
            (true, true) if !is_in_list(place) => true,
            (true, true) => {
                let elements = self.elements.get(place).zip(others.elements.get(place));
                elements.is_some_and(|(own, others)| own.are_among(others))
            }
        }
    }
    /// Whether the replies are equal.
    pub fn are_replies_equal(&self) -> bool {
        self.lists_all_of_replies && self.places.is_empty()
    }
}

/// Whether a difference of this kind is one of the replies. Only these are found when legacy's reply to a repeated
/// request is compared: calls and the route's `assert` are not judged there.
fn is_of_reply(kind: DifferenceKind) -> bool {
    match kind {
        DifferenceKind::Status
        | DifferenceKind::Header
        | DifferenceKind::Missing
        | DifferenceKind::Extra
        | DifferenceKind::Value
        | DifferenceKind::Type
        | DifferenceKind::Order
        | DifferenceKind::DuplicateKey
        | DifferenceKind::StaleRead => true,
        DifferenceKind::Intent
        | DifferenceKind::Assert
        | DifferenceKind::EffectMissing
        | DifferenceKind::EffectExtra
        | DifferenceKind::EffectDiffers
        | DifferenceKind::EffectOrder
        | DifferenceKind::EffectDoubled => false,
    }
}

/// The name of the place of a difference: `value $.generated_at`.
pub(super) fn place_name(Difference { path, kind, legacy, engine, .. }: &Difference) -> String {
    let value = |value: &Option<String>| value.clone().unwrap_or_default();
    match kind {
        DifferenceKind::Status => format!("status {} {}", value(legacy), value(engine)),
        _ => format!("{} {path}", kind.as_str()),
    }
}

/// Whether differences at a place may be noise. A place in a list (`$.items[*].price`) stands for all elements, which
/// are told apart. A text or a body of bytes has one place for all of it, and so have all cookies: differences inside
/// it are not told apart, and noise in one part would hide a defect in another.
pub(super) fn may_be_noise_at(place: &str) -> bool {
    let path = place.split_once(' ').map_or(place, |(_, path)| path);
    !matches!(path, "text" | "body" | "$" | "headers.set-cookie")
}

/// Whether a place stands for the elements of a list.
pub(super) fn is_in_list(place: &str) -> bool {
    place.contains("[*]")
}

/// Whether a place is a difference in status.
pub(super) fn is_status(place: &str) -> bool {
    place.starts_with("status ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Verdict;

    fn places(kinds: &[(DifferenceKind, &str)], truncated: bool) -> DifferingPlaces {
        DifferingPlaces::of(&compared(kinds, truncated))
    }

    fn compared(kinds: &[(DifferenceKind, &str)], truncated: bool) -> Comparison {
        let difference = |(kind, path): &(DifferenceKind, &str)| Difference {
            path: (*path).to_owned(),
            kind: *kind,
            legacy: Some("200".into()),
            engine: Some("500".into()),
            contradicts: Vec::new(),
        };
        Comparison {
            verdict: Verdict::Mismatch,
            differences: kinds.iter().map(difference).collect(),
            elements: Default::default(),
            truncated,
            ignored_by: Vec::new(),
            compares_replies: true,
            fingerprint: String::new(),
            effects: None,
            intents: Default::default(),
            calls: Vec::new(),
            orders_not_kept: Vec::new(),
            unparsable: Vec::new(),
            not_known: Vec::new(),
        }
    }

    #[test]
    fn a_place_is_a_path_and_a_kind() {
        let found = places(
            &[(DifferenceKind::Value, "$.at"), (DifferenceKind::Type, "$.at"), (DifferenceKind::Status, "status")],
            false,
        );
        assert!(found.lists_all_differences && found.lists_all_of_replies);
        let names: Vec<&str> = found.places.iter().map(String::as_str).collect();
        assert_eq!(names, ["status 200 500", "type $.at", "value $.at"]);
        assert!(is_status(names[0]) && !is_status(names[1]));
    }

    #[test]
    fn places_that_cannot_be_noise_are_known_by_path() {
        for counted in ["value $.at", "status 200 201", "header headers.etag", "missing $.a", "order $.items"] {
            assert!(may_be_noise_at(counted) && !is_in_list(counted), "{counted}");
        }
        for counted in ["value $.items[*].price", "extra $.items[*]"] {
            assert!(may_be_noise_at(counted) && is_in_list(counted), "{counted}");
        }
        for whole in ["value text", "value body", "type $", "header headers.set-cookie"] {
            assert!(!may_be_noise_at(whole), "{whole}");
        }
    }

    #[test]
    fn elements_of_lists_are_known_at_their_place() {
        let at = "$.items[*].price";
        let of = |elements: &[u64]| {
            let differences =
                [(DifferenceKind::Value, at), (DifferenceKind::Type, at), (DifferenceKind::Value, "$.at")];
            let mut comparison = compared(&differences, false);
            let elements = DifferingElements::new(elements.iter().copied(), false);
            comparison.elements = [((at.to_owned(), DifferenceKind::Value), elements)].into();
            DifferingPlaces::of(&comparison)
        };
        let (two, three) = (of(&[1, 2]), of(&[1, 2, 3]));
        let price = "value $.items[*].price";
        assert!(two.are_among(&three, price) && !three.are_among(&two, price) && two.are_among(&two, price));
        assert!(!of(&[4]).are_among(&three, price), "another element");
        assert!(two.are_among(&three, "value $.at") && two.are_among(&three, "value $.b"));
        assert!(!two.are_among(&three, "type $.items[*].price"), "nothing is known of its elements");
        assert!(!two.are_among(&of_none(), price) && of_none().are_among(&two, price));
    }

    fn of_none() -> DifferingPlaces {
        places(&[], false)
    }

    #[test]
    fn differences_in_calls_and_conditions_are_no_noise() {
        for kind in [DifferenceKind::EffectDiffers, DifferenceKind::Assert, DifferenceKind::Intent] {
            let found = places(&[(DifferenceKind::Value, "$.at"), (kind, "x")], false);
            assert!(!found.lists_all_differences && found.lists_all_of_replies && found.places.len() == 1, "{kind:?}");
        }
    }

    #[test]
    fn what_is_not_known_whole_is_no_noise() {
        let found = places(&[(DifferenceKind::Value, "$.at")], true);
        assert!(!found.lists_all_differences && !found.lists_all_of_replies);
        let long = "x".repeat(PLACE_BYTES_MAX);
        let found = places(&[(DifferenceKind::Value, &long)], false);
        assert!(!found.lists_all_differences && !found.lists_all_of_replies && found.places.is_empty());
        let many: Vec<String> = (0..=PLACES_OF_PAIR_MAX).map(|n| format!("$.{n}")).collect();
        let many: Vec<_> = many.iter().map(|path| (DifferenceKind::Value, path.as_str())).collect();
        assert!(!places(&many, false).lists_all_differences);
    }
}
