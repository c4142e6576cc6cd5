//! The fingerprint of a comparison: equal for pairs that differ in the same way.

use super::magnitude::Magnitude;
use super::verdict::Difference;

/// The fingerprint of pairs without a difference, which is the most frequent one.
const OF_NONE: &str = "af1349b9f5f9a1a6";

/// Suffix of the fingerprint of a pair whose list of differences was cut.
const OF_CUT: &str = "-cut";

/// A hash of the set of paths and kinds, of the cause, and of how far the numbers that differ are apart; and whether
/// the list of differences was cut: two such pairs may differ in other ways too.
pub(super) fn fingerprint(
    differences: &[Difference],
    is_cut: bool,
    cause: Option<&str>,
    largest: Option<Magnitude>,
) -> String {
    let of_listed = match differences.is_empty() && cause.is_none() {
        true => OF_NONE.to_owned(),
        false => hash_of(differences, cause, largest),
    };
    if is_cut { of_listed + OF_CUT } else { of_listed }
}

/// Whether pairs with this fingerprint have more differences than are listed.
pub fn is_of_cut_list(fingerprint: &str) -> bool {
    fingerprint.ends_with(OF_CUT)
}

fn hash_of(differences: &[Difference], cause: Option<&str>, largest: Option<Magnitude>) -> String {
    let mut set: Vec<(&str, &str)> = differences.iter().map(|d| (d.path.as_str(), d.kind.as_str())).collect();
    set.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for (path, kind) in set {
        hasher.update(path.as_bytes()).update(b"\0").update(kind.as_bytes()).update(b"\n");
    }
    if let Some(cause) = cause {
        hasher.update(cause.as_bytes());
    }
    let numbers: Option<&[u8]> = match largest {
        Some(Magnitude::Rounding) => Some(b"\0numbers differ by rounding"),
        Some(Magnitude::Near) => Some(b"\0numbers are near each other"),
        // Nothing is added, so that fingerprints that earlier versions stored stay valid.
        Some(Magnitude::Far) | None => None,
    };
    if let Some(numbers) = numbers {
        hasher.update(numbers);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_differences_it_is_that_of_the_empty_set() {
        assert_eq!(hash_of(&[], None, None), OF_NONE);
    }
}
