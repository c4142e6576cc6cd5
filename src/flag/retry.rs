//! PURE. How a route recognises a client's retry and scopes its retry keys by caller: as the files declare it now, in a
//! form that can be stored, and as earlier files declared it.
//!
//! The question it answers: "under which other keys may the first try of this request be recorded?" Always true: a
//! stored scope gives the same keys as when it was in force, for as long as a retry may come.

use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::caller::{CallerScope, TokenKeys, TokenSource};
use super::earlier_match::EarlierMatch;
use super::exact_text::ByteForm;
use super::facts::reads_header;
use super::route::Route;
use crate::expression::{ReadPath, Template};
use crate::names::RouteId;

/// What a route's retry keys are derived from, apart from the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryScope {
    /// The oldest id of the route.
    pub route: RouteId,
    /// The template `retry_key`, if the files have one.
    pub key: Option<String>,
    /// The headers that scope the keys by caller.
    pub headers: Vec<String>,
    /// The public keys that verify tokens, if a token scopes the keys.
    pub token: Option<TokenSource>,
    /// How keys are derived from these values.
    #[serde(default, skip_serializing_if = "KeyForm::is_whole")]
    pub form: KeyForm,
    /// How bytes that are not UTF-8 appear in the template `key`.
    #[serde(default, skip_serializing_if = "ByteForm::is_replaced")]
    pub bytes: ByteForm,
}

/// How the key of one caller is derived if the caller's scope is an unverified credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyForm {
    /// It shares no bytes with the key that does not depend on the caller ([`super::RetryKeys::any_caller`]); used in
    /// older versions, and if there is no such key.
    #[default]
    Whole,
    /// Its first half is derived from the key that does not depend on the caller, as are the first halves of the keys
    /// of single requests.
    SharedHalf,
    /// Like `SharedHalf`; in addition, the key that does not depend on the credential depends on the headers that are
    /// no credentials, which separate callers too.
    LastingHeaders,
}

impl KeyForm {
    pub(super) fn of(caller: &CallerScope) -> Self {
        match caller.is_refreshable() {
            true if caller.lasting_headers().next().is_some() => KeyForm::LastingHeaders,
            true => KeyForm::SharedHalf,
            false => KeyForm::Whole,
        }
    }
    fn is_whole(&self) -> bool {
        *self == KeyForm::Whole
    }
}

/// The times, in seconds since 1970, until which requests may come under a scope that is no longer in force.
#[derive(Clone, Copy, Debug)]
pub struct EarlierTimes {
    /// The time until which first tries may come: requests that were in flight when the files changed.
    pub first_tries_until_s: i64,
    /// The time until which retries may come.
    pub retries_until_s: i64,
}

/// A scope that is no longer in force, under which earlier first tries are still looked up.
pub struct EarlierScope {
    pub(super) route: RouteId,
    pub(super) key: Option<Template>,
    pub(super) caller: CallerScope,
    pub(super) form: KeyForm,
    pub(super) bytes: ByteForm,
    /// The times until which requests may come under the scope.
    pub(super) times: EarlierTimes,
    /// Which requests the route matched when the scope was in force. `None`: the same as now, with the same names of
    /// path parameters.
    pub(super) matched: Option<EarlierMatch>,
}

impl RetryScope {
    /// The scope that the files declare for a route.
    pub fn of(route: &Route) -> Self {
        let CallerScope { token, headers } = &route.caller;
        Self {
            route: route.first_id().clone(),
            key: route.retry_key.as_ref().and_then(Template::text).map(str::to_owned),
            headers: headers.iter().map(|name| name.as_str().to_owned()).collect(),
            token: token.as_ref().map(|keys| keys.source().clone()),
            form: KeyForm::of(&route.caller),
            bytes: if route.retry_key.is_some() { ByteForm::Exact } else { ByteForm::Replaced },
        }
    }

    /// Parses a stored scope, with the times until which requests may come under it.
    ///
    /// # Errors
    /// Another version stored the scope, and this one cannot parse it.
    pub fn parse_earlier(&self, times: EarlierTimes) -> Result<EarlierScope, String> {
        let Self { route, key, headers, token, form, bytes } = self;
        let key = key.as_ref().map(|text| Template::parse_str(text).map_err(|error| error.to_string()));
        let header = |name: &String| HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string());
        let token = token.as_ref().map(|source| TokenKeys::read(&source.keys, source.audience.clone()));
        let caller = CallerScope {
            token: token.transpose()?.map(std::sync::Arc::new),
            headers: headers.iter().map(header).collect::<Result<_, _>>()?,
        };
        let (route, key) = (route.clone(), key.transpose()?);
        Ok(EarlierScope { route, key, caller, form: *form, bytes: *bytes, times, matched: None })
    }

    /// Whether the key may depend on how the route's `match` names the parameters of a path.
    pub fn reads_path_parameters(&self) -> bool {
        let Some(text) = &self.key else { return false };
        Template::parse_str(text).map_or(true, |key| reads_path_parameters(&key))
    }
}

fn reads_path_parameters(key: &Template) -> bool {
    let of_request = |read: &ReadPath| read.root() == "request" && matches!(read.part(0), None | Some("params"));
    key.reads().iter().any(of_request)
}

impl EarlierScope {
    /// This scope for the requests that the route matched by `matched`.
    pub fn of_requests(self, matched: EarlierMatch) -> Self {
        Self { matched: Some(matched), ..self }
    }
    /// Whether the key depends on the parameters of a path.
    pub(super) fn reads_path_parameters(&self) -> bool {
        self.key.as_ref().is_some_and(reads_path_parameters)
    }
    /// A scope for requests of another process (`serve --succeed`), whose keys are not looked up here; it never expires
    /// by itself.
    pub(super) fn without_keys() -> Self {
        Self {
            route: RouteId::new("succession"),
            key: None,
            caller: Vec::new().into(),
            form: KeyForm::Whole,
            bytes: ByteForm::Exact,
            times: EarlierTimes { first_tries_until_s: i64::MAX, retries_until_s: i64::MAX },
            matched: None,
        }
    }
    /// Whether the key of a request under this scope may depend on this header.
    pub(super) fn depends_on_header(&self, name: &HeaderName) -> bool {
        self.caller.depends_on_header(name) || self.key.as_ref().is_some_and(|key| reads_header(key.reads(), name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use http::{HeaderMap, Method};

    use super::*;
    use crate::flag::tests::{route, set};
    use crate::flag::{EarlierScopes, FlagSet, Freeze, Owner, RequestFacts, RetryKeys};

    const ISSUER: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA8hSg603dM3oK3k8Jx68RvCg1fYgeYhcPZ1J5nev4imo=
-----END PUBLIC KEY-----
";

    fn set_of(route: Route) -> FlagSet {
        set(vec![route], BTreeMap::new(), Freeze::No)
    }

    /// First tries may come until 50, and retries until 100.
    const TIMES: EarlierTimes = EarlierTimes { first_tries_until_s: 50, retries_until_s: 100 };

    /// The keys of one request at this time, under the scope in force and under earlier scopes.
    fn keys(set: &FlagSet, now_s: i64) -> (Option<RetryKeys>, Vec<RetryKeys>) {
        let headers = [("idempotency-key", "k"), ("x-key", "other"), ("x-caller", "c"), ("authorization", "a")];
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let facts = RequestFacts {
            method: &Method::POST,
            path: "/orders",
            matched_path: "/orders",
            query: None,
            headers: &headers,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            params: &[],
            random: 0,
            owner: Owner::NoPin,
            now_s,
        };
        let flag = &set.routes[0];
        (set.retry_keys(flag, &facts).unwrap(), set.earlier_retry_keys(flag, &facts).keys)
    }

    fn of_route_a(scope: EarlierScope) -> EarlierScopes {
        EarlierScopes { by_route: [(RouteId::from("a"), vec![scope])].into(), reassigned: Vec::new() }
    }

    #[test]
    fn a_stored_scope_gives_the_same_keys_as_before() {
        let plain = || route("a", Method::POST, "/orders");
        let template = Template::parse_str("${request.headers[\"x-key\"]}").unwrap();
        let tokens = TokenKeys::read(ISSUER, vec!["shop".into()]).unwrap();
        let by_token = CallerScope { token: Some(Arc::new(tokens)), headers: vec!["x-caller".parse().unwrap()] };
        let before = [
            plain(),
            Route { caller: vec!["x-caller".parse().unwrap()].into(), ..plain() },
            Route { retry_key: Some(template), ..plain() },
            Route { was: vec!["b".into(), "c".into()], ..plain() },
            Route { caller: by_token, ..plain() },
        ];
        for (n, before) in before.into_iter().enumerate() {
            let scope = RetryScope::of(&before);
            let stored: RetryScope = serde_json::from_value(serde_json::to_value(&scope).unwrap()).unwrap();
            assert_eq!(stored, scope);
            let earlier = of_route_a(stored.parse_earlier(TIMES).unwrap());
            let now = Route { caller: Vec::new().into(), ..plain() };
            let (given, none) = keys(&set_of(before), 99);
            let set = set_of(now).with_earlier_scopes(Arc::new(earlier));
            assert_eq!((keys(&set, 99).1, none), (vec![given.unwrap()], vec![]), "{n}");
            assert_ne!(keys(&set, 99).0, given, "{n}");
            assert!(keys(&set, 100).1.is_empty(), "{n}: no retry may come any more");
        }
    }

    /// The sets in `affinity` hold a part of the first half, so that all keys of one request of an unverified caller
    /// take one entry.
    #[test]
    fn the_keys_of_an_unverified_caller_share_the_first_half() {
        let unverified =
            Route { caller: vec!["authorization".parse().unwrap()].into(), ..route("a", Method::POST, "/orders") };
        let RetryKeys { scoped, any_caller, .. } = keys(&set_of(unverified.clone()), 1).0.unwrap();
        let of_request = any_caller.unwrap().of_request(&[7; 32]);
        assert_eq!(scoped.0[..16], of_request.0[..16]);
        assert_ne!(scoped.0[16..], of_request.0[16..]);
        // An older version stored its scope without a form: keys that it recorded are looked up in that form.
        let mut stored = serde_json::to_value(RetryScope::of(&unverified)).unwrap();
        assert!(stored.as_object_mut().unwrap().remove("form").is_some());
        let stored: RetryScope = serde_json::from_value(stored).unwrap();
        let earlier = of_route_a(stored.parse_earlier(TIMES).unwrap());
        let before = keys(&set_of(unverified).with_earlier_scopes(Arc::new(earlier)), 1).1;
        assert_eq!((before.len(), before[0].any_caller), (1, any_caller));
        assert_ne!(before[0].scoped.0[..16], scoped.0[..16]);
    }

    /// A credential may be refreshed, a tenant is not: what one tenant sent reserves no key against another tenant.
    #[test]
    fn headers_that_are_no_credentials_separate_callers() {
        let caller =
            |names: &[&str]| CallerScope::from(names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>());
        let any_caller = |names: &[&str], tenant: &str, token: &str| {
            let set = set_of(Route { caller: caller(names), ..route("a", Method::POST, "/orders") });
            let headers = [("idempotency-key", "k"), ("x-tenant", tenant), ("authorization", token)];
            let headers: HeaderMap =
                headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            let facts = RequestFacts {
                method: &Method::POST,
                path: "/orders",
                matched_path: "/orders",
                query: None,
                headers: &headers,
                peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
                params: &[],
                random: 0,
                owner: Owner::NoPin,
                now_s: 1,
            };
            set.retry_keys(&set.routes[0], &facts).unwrap().unwrap().any_caller
        };
        let both = ["x-tenant", "authorization"];
        assert_eq!(any_caller(&both, "t1", "a"), any_caller(&both, "t1", "b"));
        assert_ne!(any_caller(&both, "t1", "a"), any_caller(&both, "t2", "a"));
        assert_eq!(any_caller(&["authorization"], "t1", "a"), any_caller(&["authorization"], "t2", "b"));
        assert_eq!(any_caller(&["x-tenant"], "t1", "a"), None, "nothing of it is refreshed");
        // An earlier version stored such a scope in the earlier form: it is looked up as a different scope.
        let scope = RetryScope::of(&Route { caller: caller(&both), ..route("a", Method::POST, "/orders") });
        assert_eq!(scope.form, KeyForm::LastingHeaders);
        let stored = serde_json::to_value(RetryScope { form: KeyForm::SharedHalf, ..scope.clone() }).unwrap();
        assert_ne!(serde_json::from_value::<RetryScope>(stored).unwrap(), scope);
    }

    /// Older versions replaced the bytes that are not UTF-8, and stored their scopes without `bytes`.
    #[test]
    fn a_key_that_is_not_utf8_is_looked_up_in_the_form_of_older_versions() {
        let template = "${request.headers[\"x-key\"]} ${request.query.q} ${request.params.id}";
        let keyed = Route {
            retry_key: Some(Template::parse_str(template).unwrap()),
            ..route("a", Method::POST, "/orders/{id}")
        };
        let mut stored = serde_json::to_value(RetryScope::of(&keyed)).unwrap();
        assert!(stored.as_object_mut().unwrap().remove("bytes").is_some());
        let stored: RetryScope = serde_json::from_value(stored).unwrap();
        assert_ne!(stored, RetryScope::of(&keyed), "the bytes were replaced");
        let set = set_of(keyed).with_earlier_scopes(Arc::new(of_route_a(stored.parse_earlier(TIMES).unwrap())));
        let keys = |header: &[u8], query: &str, path: &str| {
            let headers = [("x-key".parse().unwrap(), http::HeaderValue::from_bytes(header).unwrap())];
            let headers: HeaderMap = headers.into_iter().collect();
            let found = set.find(&Method::POST, None, path).unwrap();
            let facts = RequestFacts {
                method: &Method::POST,
                path,
                matched_path: path,
                query: Some(query),
                headers: &headers,
                peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
                params: &found.params,
                random: 0,
                owner: Owner::NoPin,
                now_s: 1,
            };
            (set.retry_keys(found.flag, &facts).unwrap().unwrap(), set.earlier_retry_keys(found.flag, &facts).keys)
        };
        // The text of the first request in the older version, spelled in UTF-8.
        let (now, earlier) = keys(b"\xfc", "q=%F6", "/orders/%E4");
        let (as_before, _) = keys("\u{fffd}".as_bytes(), "q=%EF%BF%BD", "/orders/%25E4");
        assert_eq!(earlier, [as_before]);
        assert_ne!(now, as_before);
        // For UTF-8, the older version made the same key.
        let (now, earlier) = keys("ü".as_bytes(), "q=%C3%B6", "/orders/17");
        assert_eq!(earlier, [now]);
        // The default header is no template: its key has always been the bytes.
        let plain = serde_json::to_value(RetryScope::of(&route("a", Method::POST, "/orders"))).unwrap();
        assert_eq!(plain.get("bytes"), None);
    }

    #[test]
    fn a_stored_scope_that_cannot_be_read_is_an_error() {
        let scope = RetryScope::of(&route("a", Method::POST, "/orders"));
        assert!(RetryScope { key: Some("${".into()), ..scope.clone() }.parse_earlier(TIMES).is_err());
        assert!(RetryScope { headers: vec!["no header".into()], ..scope.clone() }.parse_earlier(TIMES).is_err());
        let token = Some(TokenSource { keys: "no keys".into(), audience: Vec::new() });
        assert!(RetryScope { token, ..scope }.parse_earlier(TIMES).is_err());
    }
}
