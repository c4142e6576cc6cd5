//! Tells noise from a defect by how often a place differs, and by whether legacy differs from itself.

use serde_json::Value;

use super::judged::{JudgedSample, Place};

/// A place is taken for noise only if it differs in at least this share of the pairs of its kind: a value that is drawn
/// anew for each request nearly always differs. One that differs less often is right in the other pairs, so it is wrong
/// where it differs.
const NOISE_SHARE_MIN: f64 = 0.9;
/// The fewest samples, and pairs, from which something is concluded.
const SAMPLES_MIN: usize = 2;
const PAIRS_MIN: f64 = 3.0;

/// The values that differ at a place in one sample.
pub(super) struct Values<'a> {
    pub(super) legacy: Value,
    pub(super) engine: Value,
    pub(super) sample: &'a JudgedSample<'a>,
}

/// Whether enough is known to tell noise from a defect.
///
/// # Errors
/// Why not.
pub(super) fn enough(place: &Place) -> Result<(), String> {
    if place.occurrences.len() < SAMPLES_MIN || place.pairs < PAIRS_MIN {
        return Err("too few pairs to tell noise from a defect".into());
    }
    if place.share < NOISE_SHARE_MIN {
        let percent = (place.share * 100.0).floor();
        return Err(format!("it differs in {percent} % of the pairs of this kind: where it differs, it is wrong"));
    }
    Ok(())
}

/// Whether legacy has different values for equal requests, and not mostly the same: it draws them.
pub(super) fn legacy_differs_from_itself(values: &[Values<'_>]) -> bool {
    let (mut equal, mut different) = (0usize, 0usize);
    for (n, one) in values.iter().enumerate() {
        for other in values[n + 1..].iter().filter(|other| are_equal_requests(one, other)) {
            match one.legacy == other.legacy {
                true => equal += 1,
                false => different += 1,
            }
        }
    }
    different > equal
}

fn are_equal_requests(one: &Values<'_>, other: &Values<'_>) -> bool {
    one.sample.asked.is_some() && one.sample.asked == other.sample.asked
}
