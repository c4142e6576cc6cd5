//! What the names of kinds of requests say: `POST 2xx`, then the cohort, then the declared value in quotation marks,
//! then [`TOO_LARGE`].

/// The name of all kinds of requests together that are not counted separately.
pub(super) const OTHER_STRATA: &str = "other";
/// Stands in a name for all declared values that are not counted separately. No name of a cohort begins like this.
pub(super) const OTHER_VALUES: &str = "(other values)";
/// Suffix of a stratum's name under which its requests that are too large to compare are counted.
pub(super) const TOO_LARGE: &str = " too large";

/// Whether a kind of request, by its name, is one of this cohort.
pub(super) fn is_of_cohort(stratum: &str, cohort: &str) -> bool {
    let name = stratum.strip_suffix(TOO_LARGE).unwrap_or(stratum);
    name.split(' ').nth(2) == Some(cohort)
}

/// Whether legacy answered requests of this kind with 4xx or 5xx.
pub(super) fn is_of_errors(stratum: &str) -> bool {
    matches!(stratum.split(' ').nth(1), Some("4xx" | "5xx"))
}

/// Whether several kinds are counted under this name, so that one that was not compared may hide among them.
pub(super) fn are_several_kinds(stratum: &str) -> bool {
    stratum == OTHER_STRATA || stratum.strip_suffix(TOO_LARGE).unwrap_or(stratum).ends_with(OTHER_VALUES)
}

/// The name without the declared value; `None` if it has none.
pub(super) fn without_value(stratum: &str) -> Option<String> {
    let (name, too_large) = match stratum.strip_suffix(TOO_LARGE) {
        Some(name) => (name, TOO_LARGE),
        None => (stratum, ""),
    };
    let value = name.find(" \"").or_else(|| name.find(OTHER_VALUES).map(|at| at.saturating_sub(1)))?;
    Some(format!("{}{too_large}", name.get(..value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_whole() {
        assert!(is_of_cohort("POST 2xx staff", "staff") && is_of_cohort("POST 2xx staff too large", "staff"));
        assert!(is_of_cohort("POST 2xx staff \"web\"", "staff") && is_of_cohort("POST 2xx other", "other"));
        for name in ["POST 2xx", "POST 2xx staffers", "POST 2xx \"staff\"", "POST 2xx \"a staff\""] {
            assert!(!is_of_cohort(name, "staff"), "{name}");
        }
        assert!(!is_of_cohort("POST 2xx too large", "large") && !is_of_cohort("POST 2xx (other values)", "other"));
        assert!(is_of_errors("POST 4xx staff") && is_of_errors("GET 5xx") && !is_of_errors("POST 2xx \"a 4xx b\""));
        assert!(are_several_kinds("other") && are_several_kinds("POST 2xx staff (other values) too large"));
        assert!(!are_several_kinds("POST 2xx other") && !are_several_kinds("POST 2xx \"(other values)\""));
    }

    #[test]
    fn the_declared_value_is_taken_out() {
        for (name, without) in [
            ("POST 2xx \"web\"", Some("POST 2xx")),
            ("POST 2xx staff \"a \\\"b\\\" too large\"", Some("POST 2xx staff")),
            ("POST 2xx \"web\" too large", Some("POST 2xx too large")),
            ("POST 2xx (other values)", Some("POST 2xx")),
            ("POST 2xx staff", None),
            ("other", None),
        ] {
            assert_eq!(without_value(name).as_deref(), without, "{name}");
        }
    }
}
