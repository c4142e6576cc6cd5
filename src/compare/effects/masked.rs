//! Compares texts of the engine's calls in which asterisks stand in place of secrets.
//!
//! A secret is filled in when a call is sent, and is not recorded: any text of legacy in its place counts as equal.

use crate::compare::id_map::IdMap;
use crate::secret::STARS;

/// Whether legacy's text equals the engine's, with corresponding ids and with any text in place of each secret.
pub(super) fn same_text(ids: &IdMap, legacy: &str, engine: &str) -> bool {
    if !engine.contains(STARS) {
        return ids.same_text(legacy, engine);
    }
    let engine = ids.with_legacy_ids(engine);
    let mut parts = engine.split(STARS);
    let Some(mut rest) = legacy.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        // The first occurrence leaves the most text for the parts that follow.
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_may_be_anything() {
        let mut ids = IdMap::default();
        ids.bind_texts(None, "ord-17000", "run-18000");
        for (legacy, engine, same) in [
            ("Bearer abc", "Bearer ***", true),
            ("Bearer ", "Bearer ***", true),
            ("Basic abc", "Bearer ***", false),
            ("a-x-b-y-c", "a-***-b-***-c", true),
            ("a-x-b-c", "a-***-b-***-c", false),
            ("a-b", "a-***-b", false),
            ("ord-17000:k", "run-18000:***", true),
            ("ord-17001:k", "run-18000:***", false),
            ("abc", "abc", true),
            ("abc", "abd", false),
        ] {
            assert_eq!(same_text(&ids, legacy, engine), same, "{legacy} {engine}");
        }
    }
}
