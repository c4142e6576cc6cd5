//! The `match` that a route had when an earlier scope of its retry keys was in force. It is needed because a scope that
//! reads path parameters reads them by the names that the `match` of that time gave them.

use crate::flag::{EarlierMatch, EarlierScope, EarlierTimes, RetryScope, RouteMatch};
use crate::store::{ReplacedScope, RetryScopes};

/// Whether a scope with this match derives the same keys from a request as a replaced scope. If the two match different
/// requests, the names of path parameters do not count: the replaced scope is then also looked up as reassigned.
pub(super) fn read_alike((scope, matches): (&RetryScope, Option<&str>), replaced: &ReplacedScope) -> bool {
    let names_are_alike = || match matches.zip(replaced.matches.as_deref()) {
        Some((now, then)) => now == then || !match_alike(now, then),
        None => true,
    };
    *scope == replaced.scope && (!scope.reads_path_parameters() || names_are_alike())
}

/// Whether two matches, as text, are of the same requests, whatever the names of path parameters.
pub(super) fn match_alike(one: &str, other: &str) -> bool {
    let parsed = one.parse::<RouteMatch>().ok().zip(other.parse::<RouteMatch>().ok());
    parsed.is_some_and(|(one, other)| one.normal_form() == other.normal_form())
}

/// Parses an earlier scope of a route that has these scopes, so that requests can be looked up under it.
///
/// # Errors
/// Another version stored it, and this one cannot read it.
pub(super) fn parse(
    replaced: &ReplacedScope,
    scopes: &RetryScopes,
    times: EarlierTimes,
) -> Result<EarlierScope, String> {
    let ReplacedScope { scope, at: _, matches, paths } = replaced;
    let earlier = scope.parse_earlier(times)?;
    // If the match is still the present one, the parameters have the same names in the request.
    match matches.as_ref().filter(|then| scopes.matches.as_ref() != Some(then)) {
        Some(then) => Ok(earlier.of_requests(EarlierMatch::new(then.parse()?, paths.unwrap_or_default()))),
        None => Ok(earlier),
    }
}
