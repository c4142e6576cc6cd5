//! Until when requests are taken under an earlier scope of retry keys.

use super::*;
use crate::expression::Template;
use crate::flag::{EarlierRetryKeys, Owner, RequestFacts};

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
