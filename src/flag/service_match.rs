//! PURE. Which requests two routes share, in all spellings of paths that their services treat as the same, and which of
//! the two routes gets these requests.
//!
//! The question it answers: "may this route take requests from that one?" Always true: if a request in some spelling
//! can match both, they overlap; they may also be said to overlap although no request matches both.

use super::conventions::PathConventions;
use super::matcher::shape;
use super::route::{Route, RouteMatch};
use super::template_key::template_key;

/// The match of a route, and how its service reads paths.
#[derive(Clone, Copy)]
pub struct ServiceMatch<'a> {
    /// The match.
    pub matches: &'a RouteMatch,
    /// How the service reads paths.
    pub paths: PathConventions,
}

impl<'a> ServiceMatch<'a> {
    /// The match of a route, with its service's conventions.
    pub fn of(route: &'a Route) -> Self {
        Self { matches: &route.matches, paths: route.legacy.paths.of_route(route.strict_paths) }
    }

    /// A text that is equal for two matches exactly if they match the same requests.
    pub fn normal_form(&self) -> String {
        let form = self.matches.normal_form();
        match self.paths.same_spellings() {
            spellings if spellings.is_empty() => form,
            spellings => format!("{form} ({})", spellings.join(", ")),
        }
    }

    /// A text that is equal for all matches that may share a request and of which none is more specific.
    pub fn loosest_form(&self) -> String {
        let paths = PathConventions::loosest();
        shape(&without_suffix(self.with_key(&paths).path, &paths))
    }

    /// Whether any request may match both.
    pub fn overlaps(&self, other: &ServiceMatch<'_>) -> bool {
        let (own, others) = self.comparable(other);
        own.overlaps(&others)
    }

    /// Whether a request that matches both may belong to this match.
    pub fn may_win_over(&self, other: &ServiceMatch<'_>) -> bool {
        let (own, others) = self.comparable(other);
        let is_undecided = || !self.is_exact_with(other) && !others.wins_over(&own);
        own.wins_over(&others) || is_undecided()
    }

    /// Whether each request that matches both belongs to this match.
    pub fn surely_wins_over(&self, other: &ServiceMatch<'_>) -> bool {
        self.may_win_over(other) && !other.may_win_over(self)
    }

    /// Whether both match the same requests in different spellings and neither is more specific, so that only their
    /// order would decide. Never the case if one of the services takes no other spelling for the same (`is_exact`): its
    /// route gets that one spelling.
    pub fn collides_with(&self, other: &ServiceMatch<'_>) -> bool {
        let is_exact = self.paths.is_exact() || other.paths.is_exact();
        // A service that ignores suffixes still prefers a template that ends with the suffix.
        let (own, others) = match self.paths.match_alike(&other.paths) {
            true => (self.with_key(&self.paths), other.with_key(&self.paths)),
            false => self.comparable(other),
        };
        let is_one_spelling = self.matches.normal_form() == other.matches.normal_form();
        !is_exact && !is_one_spelling && own.normal_form() == others.normal_form()
    }

    fn with_key(&self, paths: &PathConventions) -> RouteMatch {
        RouteMatch { path: template_key(&self.matches.path, paths), ..self.matches.clone() }
    }

    fn is_exact_with(&self, other: &ServiceMatch<'_>) -> bool {
        self.paths.is_exact() && other.paths.is_exact()
    }

    /// Both matches in the spelling in which they are compared: without what either of the services ignores.
    fn comparable(&self, other: &ServiceMatch<'_>) -> (RouteMatch, RouteMatch) {
        if self.is_exact_with(other) {
            return (self.matches.clone(), other.matches.clone());
        }
        let paths = self.paths.or(&other.paths);
        let comparable = |of: RouteMatch| RouteMatch { path: without_suffix(of.path, &paths), ..of };
        (comparable(self.with_key(&paths)), comparable(other.with_key(&paths)))
    }
}

/// The key of a template without the suffix of a literal last segment, if suffixes make no difference.
fn without_suffix(mut key: String, paths: &PathConventions) -> String {
    let last = key.rfind('/').map_or(0, |slash| slash + 1);
    if let Some(dot @ 1..) = key[last..].find('.').filter(|_| paths.strips_suffix() && !key[last..].starts_with('{')) {
        key.truncate(last + dot);
    }
    key
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::*;
    use crate::flag::route_groups::find_by;
    use crate::flag::{Framework, matcher::Matcher};

    fn some_paths() -> impl Strategy<Value = PathConventions> {
        use Framework::{Express, Iis, Rails, Spring, Strict, Tomcat};
        let known = [Tomcat, Spring, Express, Rails, Iis, Strict].map(PathConventions::of);
        proptest::sample::select([known.as_slice(), &[PathConventions::default()]].concat())
    }

    fn some_template() -> impl Strategy<Value = String> {
        let segment = prop_oneof![Just("a"), Just("A"), Just("a.json"), Just("a.b.c"), Just("%41"), Just("{x}")];
        (segment.clone(), proptest::option::of(segment), any::<bool>()).prop_map(|(first, second, slash)| {
            let second = second.map(|segment| format!("/{}", segment.replace("{x}", "{y}"))).unwrap_or_default();
            format!("/{first}{second}{}", if slash { "/" } else { "" })
        })
    }

    fn some_path() -> impl Strategy<Value = String> {
        let segment =
            prop_oneof![Just("a"), Just("A"), Just("a.json"), Just("A.b"), Just("a;v=1"), Just("%61"), Just("z")];
        (proptest::collection::vec(segment, 1..3), any::<bool>())
            .prop_map(|(segments, slash)| format!("/{}{}", segments.join("/"), if slash { "/" } else { "" }))
    }

    proptest! {
        /// If both match one path, they overlap, and at least one of them may win over the other.
        #[test]
        fn routes_that_two_services_find_in_one_path_overlap(
            (first, second) in (some_template(), some_template()),
            (first_paths, second_paths) in (some_paths(), some_paths()),
            path in some_path(),
        ) {
            let of = |path: String| RouteMatch { method: Method::POST, path, host: None };
            let (first, second) = (of(first), of(second));
            let finds = |matches: &RouteMatch, paths: &PathConventions| {
                find_by(&Matcher::with_conventions([matches], paths), paths, &Method::POST, None, &path).is_some()
            };
            let both = finds(&first, &first_paths) && finds(&second, &second_paths);
            let first = ServiceMatch { matches: &first, paths: first_paths };
            let second = ServiceMatch { matches: &second, paths: second_paths };
            prop_assert!(!both || first.overlaps(&second));
            // A set of files has no two matches that are equal.
            let is_one = first.matches.normal_form() == second.matches.normal_form();
            prop_assert!(!both || is_one || first.may_win_over(&second) || second.may_win_over(&first));
            // If the conventions make no difference, the templates alone decide.
            if first.is_exact_with(&second) {
                prop_assert_eq!(first.may_win_over(&second), first.matches.wins_over(second.matches));
            }
        }
    }
}
