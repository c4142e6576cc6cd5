//! Until when requests are taken under an earlier scope of retry keys.

use super::*;
use crate::expression::Template;
use crate::flag::{EarlierRetryKeys, Owner, RequestFacts, RetryKeys};

/// Files may replace a scope because it treats different requests as one. Therefore first tries are looked up under it
/// only for as long as requests that were in flight at the edit may still come.
#[tokio::test]
async fn first_tries_come_under_an_earlier_scope_for_ten_minutes() {
    let fixture = Fixture::open(files(&[])).await;
    let by_order = Template::parse_str("${request.query.order}").unwrap();
    fixture.ladder.reload(edited(files(&[]), "bare", |route| route.retry_key = Some(by_order)), || {}).await.unwrap();
    let (set, edited_at) = (fixture.ladder.flags().load(), clock::now().as_second());
    let headers = [(http::HeaderName::from_static("idempotency-key"), http::HeaderValue::from_static("k"))];
    let headers: http::HeaderMap = headers.into_iter().collect();
    let keys = |after_s: i64| {
        let facts = RequestFacts {
            method: &Method::POST,
            path: "/bare",
            matched_path: "/bare",
            query: None,
            headers: &headers,
            peer: std::net::Ipv4Addr::LOCALHOST.into(),
            params: &[],
            random: 0,
            owner: Owner::NoPin,
            now_s: edited_at + after_s,
        };
        let EarlierRetryKeys { keys, of_first_tries } =
            set.earlier_retry_keys(set.route(&"bare".into()).unwrap(), &facts);
        (keys.len(), of_first_tries.is_some())
    };
    for (after_s, expected) in
        [(0, (1, true)), (590, (1, true)), (602, (1, false)), (86_400, (1, false)), (87_002, (0, false))]
    {
        assert_eq!(keys(after_s), expected, "{after_s}");
    }
}

/// The keys of a request for `/bare/17/4` in the files in force, and under earlier scopes.
fn keys_of(fixture: &Fixture) -> (Option<RetryKeys>, Vec<RetryKeys>) {
    let set = fixture.ladder.flags().load();
    let headers = [("idempotency-key", "k"), ("x-a", "ann"), ("x-b", "bob")];
    let headers: http::HeaderMap =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    let found = set.find(&Method::POST, None, "/bare/17/4").unwrap();
    let facts = RequestFacts {
        method: &Method::POST,
        path: "/bare/17/4",
        matched_path: "/bare/17/4",
        query: None,
        headers: &headers,
        peer: std::net::Ipv4Addr::LOCALHOST.into(),
        params: &found.params,
        random: 0,
        owner: Owner::NoPin,
        now_s: clock::now().as_second(),
    };
    (set.retry_keys(found.flag, &facts).unwrap(), set.earlier_retry_keys(found.flag, &facts).keys)
}

#[tokio::test]
async fn an_earlier_scope_reads_path_parameters_by_the_names_of_its_time() {
    let of = |path: &str, key: Option<&str>, caller: &str| {
        edited(files(&[]), "bare", |route| {
            route.matches.path = path.to_owned();
            route.retry_key = key.map(|key| Template::parse_str(key).unwrap());
            route.caller = vec![caller.parse::<http::HeaderName>().unwrap()].into();
        })
    };
    let by_id = Some("${request.params.id} ${request.path}");
    let first = || of("/bare/{id}/{line}", by_id, "x-a");
    for (why, edits) in [
        ("the key is another one too", vec![of("/bare/{oid}/{line}", None, "x-a")]),
        (
            "the caller changed before",
            vec![
                of("/bare/{id}/{line}", by_id, "x-b"),
                of("/bare/{oid}/{line}", Some("${request.params.oid} ${request.path}"), "x-b"),
            ],
        ),
        ("the name is that of the other parameter", vec![of("/bare/{line}/{id}", by_id, "x-a")]),
        (
            "twice",
            vec![
                of("/bare/{oid}/{line}", Some("${request.params.oid} ${request.path}"), "x-b"),
                of("/bare/{order}/{line}", None, "x-b"),
            ],
        ),
    ] {
        for restarts in [false, true] {
            let mut fixture = Fixture::open(first()).await;
            let (given, earlier) = keys_of(&fixture);
            assert!(earlier.is_empty());
            for files in &edits {
                fixture = fixture.next(files.clone(), restarts).await;
            }
            let earlier = keys_of(&fixture).1;
            assert!(earlier.contains(&given.unwrap()), "{why}, restarts: {restarts}: {earlier:?}");
        }
    }
}

/// The requests of a route that is removed go to a more general one, which names their parameters otherwise.
#[tokio::test]
async fn a_scope_of_another_route_reads_path_parameters_by_the_names_that_it_gave_them() {
    let key = |text: &str| Some(Template::parse_str(text).unwrap());
    let bare = |path: &str, name: &str| {
        edited(files(&[]), "bare", |route| {
            route.matches.path = path.to_owned();
            route.retry_key = key(&format!("${{request.params.{name}}}"));
        })
    };
    let removed = |mut files: DeclaredFiles| {
        files.routes.retain(|route| route.id.as_str() != "plain");
        files
    };
    let both = edited(bare("/bare/{any}/{more}", "any"), "plain", |route| {
        route.matches.path = "/bare/17/{any}".to_owned();
        route.retry_key = key("${request.params.any}");
    });
    let fixture = Fixture::open(both).await;
    let given = keys_of(&fixture).0.unwrap();
    let fixture = fixture.next(removed(bare("/bare/{any}/{more}", "any")), false).await;
    assert!(keys_of(&fixture).1.contains(&given));
}

/// Its parameters may be those of another request, which the route matched.
#[tokio::test]
async fn a_request_that_a_route_did_not_match_has_no_key_under_a_scope_from_then() {
    let bare = |path: &str, key: &str| {
        edited(files(&[]), "bare", |route| {
            route.matches.path = path.to_owned();
            route.retry_key = Some(Template::parse_str(key).unwrap());
        })
    };
    for (before, key, count) in [
        ("/bare/{id}/cancel", "${request.params.id}", 0),
        ("/bare/{id}/4", "${request.params.id}", 1),
        ("/bare/{id}/cancel", "${request.path}", 1),
    ] {
        for restarts in [false, true] {
            let fixture = Fixture::open(bare(before, key)).await;
            let by_both = "${request.params.id + request.params.verb}";
            let fixture = fixture.next(bare("/bare/{id}/{verb}", by_both), restarts).await;
            assert_eq!(keys_of(&fixture).1.len(), count, "{before} {key}, restarts: {restarts}");
        }
    }
}
