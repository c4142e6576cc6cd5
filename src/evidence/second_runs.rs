//! Where two runs of the engine for one request, from the same inputs, differ.
//!
//! It explains differences from legacy and decides nothing: a place at which the engine differs from itself is compared
//! with legacy as any other.

use std::collections::{BTreeMap, BTreeSet};

use super::add_change::add_change;
use super::noise_places::place_name;
use crate::compare::{Comparison, Difference, DifferenceKind};

/// The most places that are known of a route.
const PLACES_MAX: usize = 64;
/// The most places of one pair of runs.
const PLACES_OF_PAIR_MAX: usize = 64;
/// The longest name of a place.
const PLACE_BYTES_MAX: usize = 256;
/// The place that is counted if the second run read something that the first one did not.
const OTHER_READ: &str = "read";

/// The runs of a route, since its workflow or rules last changed.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct SecondRuns {
    /// How many requests the engine ran twice.
    pub runs: u64,
    /// In how many of them the two runs differed.
    pub differed: u64,
    /// In how many they differed at each place: the kind of the difference and the path (`value $.token`), for a call
    /// with the name of its step; `read` if the second run read something that the first one did not.
    pub places: BTreeMap<String, u64>,
    /// How often a place was not counted because too many are known.
    pub unlisted: u64,
}

add_change!(SecondRuns { sum runs, sum differed, sum places, sum unlisted });

impl SecondRuns {
    /// In how many requests the engine differed from itself at the place of one of these differences: the highest
    /// number of all these places.
    pub fn at<'d>(&self, differences: impl IntoIterator<Item = &'d Difference>) -> u64 {
        differences
            .into_iter()
            .filter_map(|difference| self.places.get(&place_name(difference)))
            .copied()
            .max()
            .unwrap_or(0)
    }
    pub(super) fn count(&mut self, at: &EnginePlaces) {
        self.runs += 1;
        self.differed += u64::from(!at.is_empty());
        for place in &at.places {
            if self.places.len() < PLACES_MAX || self.places.contains_key(place) {
                *self.places.entry(place.clone()).or_default() += 1;
            } else {
                self.unlisted += 1;
            }
        }
        self.unlisted += at.unlisted;
    }
}

/// Where the two runs for one request differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnginePlaces {
    places: BTreeSet<String>,
    unlisted: u64,
}

impl EnginePlaces {
    /// The places of a comparison of the two. What the route asserts is about legacy and is not counted.
    pub fn of(comparison: &Comparison) -> Self {
        let mut found = Self { unlisted: u64::from(comparison.truncated), ..Self::default() };
        for difference in &comparison.differences {
            // An intent that differs is listed as a call that differs, too.
            if matches!(difference.kind, DifferenceKind::Assert | DifferenceKind::Intent) {
                continue;
            }
            let place = place_name(difference);
            if place.len() > PLACE_BYTES_MAX || found.places.len() >= PLACES_OF_PAIR_MAX {
                found.unlisted += 1;
            } else {
                found.places.insert(place);
            }
        }
        found
    }

    /// Forgets a place that says nothing of the two runs.
    pub fn remove(&mut self, place: &str) {
        self.places.remove(place);
    }

    /// The second run read something that the first one did not.
    pub fn other_read() -> Self {
        Self { places: BTreeSet::from([OTHER_READ.to_owned()]), unlisted: 0 }
    }

    /// Whether they are equal.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty() && self.unlisted == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_by_place_and_the_places_are_bounded() {
        let at = |names: &[&str]| EnginePlaces {
            places: names.iter().map(|name| (*name).to_owned()).collect(),
            unlisted: 0,
        };
        let mut runs = SecondRuns::default();
        for places in [at(&[]), at(&["value $.token", "read"]), at(&["value $.token"])] {
            runs.count(&places);
        }
        assert_eq!((runs.runs, runs.differed, runs.places["value $.token"], runs.places["read"]), (3, 2, 2, 1));
        for n in 0..PLACES_MAX {
            runs.count(&at(&[&format!("value $.{n}")]));
        }
        assert_eq!((runs.places.len(), runs.unlisted), (PLACES_MAX, 2));
    }
}
