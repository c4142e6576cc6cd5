//! Which requests a route matches: this is decided by its `match:`, and by how its service reads paths.

use super::basis::BasisParts;
use super::part_names::MATCH;
use crate::flag::{PathConventions, RouteMatch, ServiceMatch};

/// The name of the value that says how the service reads paths. It has no hash among the parts of the basis: if it
/// makes other routes take requests of this route, that is a part of the basis already (`OTHER_ROUTES`).
const PATHS: &str = "how paths are read";
/// Separates the match from the reading of paths in a text.
const SEPARATOR: char = '\n';

/// Which requests a route matches or matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MatchedRequests {
    Of {
        matches: RouteMatch,
        paths: PathConventions,
    },
    /// An earlier version stored no more than this hash.
    Hash(String),
}

impl BasisParts {
    /// Sets how the service reads paths.
    pub fn set_paths(&mut self, paths: &PathConventions) {
        self.values.remove(PATHS);
        if *paths != PathConventions::default() {
            self.values.insert(PATHS.to_owned(), serde_json::to_string(paths).unwrap_or_default());
        }
    }
}

impl MatchedRequests {
    /// `None` if an earlier version stored the evidence, or another route has taken all of them over.
    pub(super) fn of(parts: &BasisParts) -> Option<Self> {
        let of_text = Self::text_of(parts).and_then(|text| Self::parse(&text));
        of_text.or_else(|| parts.hashes.get(MATCH).cloned().map(Self::Hash))
    }

    /// The match and the reading of paths, as a text that can be stored.
    pub(super) fn text_of(parts: &BasisParts) -> Option<String> {
        let matches = parts.values.get(MATCH)?;
        Some(match parts.values.get(PATHS) {
            Some(paths) => format!("{matches}{SEPARATOR}{paths}"),
            None => matches.clone(),
        })
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (matches, paths) =
            text.split_once(SEPARATOR).map_or((text, None), |(matches, paths)| (matches, Some(paths)));
        let paths = paths.and_then(|paths| serde_json::from_str(paths).ok()).unwrap_or_default();
        Some(Self::Of { matches: matches.parse().ok()?, paths })
    }

    /// Removes from the parts which requests the route matches.
    pub(super) fn remove_from(parts: &mut BasisParts) {
        parts.hashes.remove(MATCH);
        parts.values.remove(MATCH);
    }

    /// Whether a request may be among both.
    pub(super) fn overlap(&self, other: &Self) -> bool {
        self.compare(other, |own, others| own.overlaps(&others))
    }

    /// Whether all requests of `other` are among these.
    pub(super) fn cover(&self, other: &Self) -> bool {
        self.compare(other, |own, others| own.matches.covers(others.matches) && own.paths.match_all_of(&others.paths))
    }

    /// Whether both are the same.
    pub(super) fn are_same_as(&self, other: &Self) -> bool {
        self.compare(other, |own, others| own.normal_form() == others.normal_form())
    }

    fn compare(&self, other: &Self, compare: impl Fn(ServiceMatch<'_>, ServiceMatch<'_>) -> bool) -> bool {
        match (self, other) {
            (Self::Of { matches, paths }, Self::Of { matches: other_matches, paths: other_paths }) => compare(
                ServiceMatch { matches, paths: *paths },
                ServiceMatch { matches: other_matches, paths: *other_paths },
            ),
            _ => self == other,
        }
    }
}
