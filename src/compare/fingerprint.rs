//! The fingerprint of a comparison: equal for pairs that differ in the same way.

use super::verdict::Difference;

/// That of pairs without a difference, which most are.
const OF_NONE: &str = "af1349b9f5f9a1a6";

/// A hash of the set of paths and kinds, and of the cause.
pub(super) fn fingerprint(differences: &[Difference], cause: Option<&str>) -> String {
    if differences.is_empty() && cause.is_none() {
        return OF_NONE.to_owned();
    }
    hash_of(differences, cause)
}

fn hash_of(differences: &[Difference], cause: Option<&str>) -> String {
    let mut set: Vec<(&str, &str)> = differences.iter().map(|d| (d.path.as_str(), d.kind.as_str())).collect();
    set.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for (path, kind) in set {
        hasher.update(path.as_bytes()).update(b"\0").update(kind.as_bytes()).update(b"\n");
    }
    if let Some(cause) = cause {
        hasher.update(cause.as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_differences_it_is_that_of_the_empty_set() {
        assert_eq!(hash_of(&[], None), OF_NONE);
    }
}
