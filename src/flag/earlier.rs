//! PURE. The scopes that retry keys had in earlier files, and the requests that these scopes applied to.
//!
//! The question it answers: "this request may be a retry of one that came under earlier files: under which keys, other
//! than the present ones, may its first try have been recorded?" Always true: a request is looked up under the earlier
//! scopes of its route, and under the scope of each route that matched it by earlier files, whichever route it belongs
//! to now, if any. Each scope reads path parameters by the names that they had when it was in force. If the route did
//! not match a request at that time, the request has no key under a scope that reads path parameters.

use std::cell::OnceCell;
use std::collections::HashMap;

use http::Method;
use http::header::{HOST, HeaderName};

use super::conventions::PathConventions;
use super::earlier_match::EarlierMatch;
use super::hashes::HashKeys;
use super::matcher::Params;
use super::retry::EarlierScope;
use super::{RequestFacts, RetryKeys, Route, RouteMatch};
use crate::names::RouteId;

/// The scopes that retry keys had in earlier files.
#[derive(Default)]
pub struct EarlierScopes {
    /// The scopes by the present id of the route, the newest first.
    pub by_route: HashMap<RouteId, Vec<EarlierScope>>,
    /// The requests, with their scopes, that may belong to another route now, or to none, the newest first.
    pub reassigned: Vec<ReassignedRequests>,
}

/// The keys of a request under the scopes of earlier files.
#[derive(Default)]
pub struct EarlierRetryKeys {
    /// All keys: those of the route's earlier scopes, then those of reassigned requests; the newest of each first.
    pub keys: Vec<RetryKeys>,
    /// The first of them under which a first try may still be recorded, because it may have been in flight when the
    /// files changed.
    pub of_first_tries: Option<RetryKeys>,
}

impl EarlierScopes {
    /// The retry keys of a request that belongs to this route now. If the request's token is verified by the issuer's
    /// public keys of any of these files, the present ones included, it counts as verified under each scope that
    /// verifies tokens.
    pub(super) fn retry_keys(&self, route: &Route, hash_keys: &HashKeys, facts: &RequestFacts<'_>) -> EarlierRetryKeys {
        let mut all = EarlierRetryKeys::default();
        if self.by_route.is_empty() && self.reassigned.is_empty() {
            return all;
        }
        let own = || self.by_route.get(&route.id).into_iter().flatten();
        let verified = OnceCell::new();
        let verified_elsewhere = || {
            let scopes = std::iter::once(&route.caller).chain(own().map(|scope| &scope.caller));
            let verify = || scopes.filter_map(|scope| scope.token.as_ref()).find_map(|keys| keys.verify(facts.headers));
            verified.get_or_init(verify).clone()
        };
        let keys_under = |scope: &EarlierScope, facts: &RequestFacts<'_>| {
            let times = scope.times;
            hash_keys.earlier_retry_keys(scope, facts, &verified_elsewhere).map(move |keys| (times, keys))
        };
        let host = facts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let own_keys =
            own().filter_map(|scope| match scope.matched.as_ref().map(|matched| matched.read(host, facts)) {
                Some(Some(earlier_path)) => Some(keys_under(scope, &earlier_path.in_facts(facts))),
                // The route did not match this request when the scope was in force. A key made of the present path
                // parameters could be equal to the key of another request.
                Some(None) if scope.reads_path_parameters() => None,
                Some(None) | None => Some(keys_under(scope, facts)),
            });
        let reassigned = self.reassigned.iter().filter(|reassigned| reassigned.may_come(facts.now_s));
        let of_reassigned = reassigned.filter_map(|reassigned| {
            let earlier_path = reassigned.matched.read(host, facts)?;
            Some(keys_under(&reassigned.scope, &earlier_path.in_facts(facts)))
        });
        for (times, keys) in own_keys.flatten().chain(of_reassigned.flatten()) {
            if facts.now_s < times.first_tries_until_s {
                all.of_first_tries.get_or_insert(keys);
            }
            if !all.keys.contains(&keys) {
                all.keys.push(keys);
            }
        }
        all
    }

    /// Whether the keys of a request that belongs to this route now may depend on this header.
    pub(super) fn depend_on_header(&self, route: &RouteId, name: &HeaderName) -> bool {
        let own = self.by_route.get(route).into_iter().flatten();
        own.chain(self.reassigned.iter().map(|reassigned| &reassigned.scope)).any(|scope| scope.depends_on_header(name))
    }

    /// The index of the first entry of `reassigned` that a request matches, and the request's path parameters by that
    /// entry.
    pub(super) fn find_reassigned(
        &self,
        method: &Method,
        host: Option<&str>,
        path: &str,
        now_s: i64,
    ) -> Option<(usize, Params)> {
        let mut all = self.reassigned.iter().enumerate();
        all.find_map(|(index, reassigned)| Some((index, reassigned.find(method, host, path, now_s)?)))
    }
}

/// Requests that belonged to a route with a workflow by earlier files and may belong to another route now, or to none.
pub struct ReassignedRequests {
    /// The route that the requests belonged to.
    pub route: RouteId,
    /// Which requests belonged to the route.
    pub matched: EarlierMatch,
    scope: EarlierScope,
}

impl ReassignedRequests {
    /// The requests that a route matched by the conventions of its service, and the scope of their retry keys.
    pub fn new(route: RouteId, matches: RouteMatch, paths: PathConventions, scope: EarlierScope) -> Self {
        Self { route, matched: EarlierMatch::new(matches, paths), scope }
    }

    /// The requests of a route of another process, whose keys are not looked up here. It is not known here how the
    /// route's service reads paths, so every spelling that some service could take for one of these requests counts.
    pub(super) fn without_keys(matches: RouteMatch) -> Self {
        Self::new("succession".into(), matches, PathConventions::loosest(), EarlierScope::without_keys())
    }

    /// The path parameters of a request. `None` if the request is not one of these, or if a retry of one can no longer
    /// come.
    fn find(&self, method: &Method, host: Option<&str>, path: &str, now_s: i64) -> Option<Params> {
        if !self.may_come(now_s) {
            return None;
        }
        self.matched.params(method, host, path)
    }

    /// Whether a retry of one of these requests may still come.
    pub(super) fn may_come(&self, now_s: i64) -> bool {
        now_s < self.scope.times.retries_until_s
    }
}
