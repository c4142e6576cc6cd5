//! Requests to which earlier files gave another retry key.

use std::sync::Arc;

use super::retries::at;
use super::rig::{OK, Origin, Rig, Setup, engine_says, flag_set};
use crate::exchange::Remembered;
use crate::expression::Template;
use crate::flag::{Arm, EarlierScopes, EarlierTimes, RetryScope, Route, State};

/// The files of `before` with another `retry_key`. First tries that were decided by the files of `before` may come
/// until `first_tries_until_s`.
async fn after_another_retry_key(origin: &Origin, state: State, before: &Rig, first_tries_until_s: i64) -> Rig {
    let edit_route = |route: &mut Route| {
        route.retry_key = Some(Template::parse_str("${request.headers[\"x-request-id\"]}").unwrap());
    };
    let scope = RetryScope::of(&before.flags.load().route(&"orders.create".into()).unwrap().route);
    let scope = scope.parse_earlier(EarlierTimes { first_tries_until_s, retries_until_s: i64::MAX }).unwrap();
    let by_route = [("orders.create".into(), vec![scope])].into();
    let set = flag_set(origin.address, &Setup { edit_route, ..at(state) }, 2);
    let set = set.with_earlier_scopes(Arc::new(EarlierScopes { by_route, reassigned: Vec::new() }));
    let after = Rig::new(origin, Setup { edit_route, ..at(state) }).await;
    after.flags.store(Arc::new(set));
    after
}

/// New requests are not taken under a key of earlier files, whose scope may have been replaced because it gave
/// different requests one key. Retries are still looked up there.
#[tokio::test]
async fn a_request_that_comes_later_is_not_taken_under_a_key_that_only_earlier_files_give_it() {
    let keyed = "POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: 4\r\n\r\nbody";
    let origin = Origin::always_answers(OK).await;
    let key_of_engine = |rig: &Rig| rig.fakes.asked.lock().unwrap().last().and_then(|request| request.retry_keys);
    for state in [State::Dark, State::Live] {
        let before = Rig::new(&origin, at(state)).await;
        let after = after_another_retry_key(&origin, state, &before, 0).await;
        after.fakes.answers.lock().unwrap().extend([engine_says("{}"), engine_says("{}")]);
        after.ask(keyed).await;
        assert!(after.fakes.keys_of_legacy.lock().unwrap().is_empty(), "{state}");
        assert_eq!(key_of_engine(&after), None, "{state}");
        *after.fakes.first_try.lock().unwrap() = Some(Ok(Some(Arm::Engine)));
        assert_eq!(after.ask(keyed).await.status(), 201, "{state}");
        assert!(key_of_engine(&after).is_some(), "{state}");
    }
}

/// Files may merge several routes into one, or exchange their requests, and a client may use one key for both.
#[tokio::test]
async fn a_request_under_whose_keys_both_arms_took_requests_is_refused() {
    let keyed =
        "POST /orders HTTP/1.1\r\nHost: a\r\nX-Request-Id: r\r\nIdempotency-Key: k\r\nContent-Length: 1\r\n\r\nb";
    let origin = Origin::always_answers(OK).await;
    let [of_legacy, of_engine] = [Arm::Legacy, Arm::Engine].map(Remembered::TakenBy);
    for state in [State::Off, State::Dark, State::Live] {
        let before = Rig::new(&origin, at(state)).await;
        for remembered in [[of_legacy, of_engine], [of_engine, of_legacy]] {
            let after = after_another_retry_key(&origin, state, &before, 0).await;
            after.fakes.remembered_next.lock().unwrap().extend(remembered);
            assert_eq!(after.ask(keyed).await.status(), 409, "{state}");
            assert!(after.fakes.asked.lock().unwrap().is_empty(), "{state}: the engine");
        }
    }
    assert!(origin.requests().is_empty());
}

/// The key under which legacy is known to have the request expires with the other caller's request.
#[tokio::test]
async fn a_request_that_legacy_gets_because_of_another_caller_is_noted_under_its_own_keys() {
    let keyed =
        "POST /orders HTTP/1.1\r\nHost: a\r\nX-Request-Id: r\r\nIdempotency-Key: k\r\nContent-Length: 1\r\n\r\nb";
    let origin = Origin::always_answers(OK).await;
    let before = Rig::new(&origin, at(State::Off)).await;
    let after = |state| after_another_retry_key(&origin, state, &before, 0);
    let (off, live) = (after(State::Off).await, after(State::Live).await);
    for rig in [&before, &off] {
        assert_eq!(rig.ask(keyed).await.status(), 200);
    }
    let [earlier, own] = [&before, &off].map(|rig| rig.fakes.keys_of_legacy.lock().unwrap().clone());
    assert!(earlier.len() == 2 && earlier != own, "{earlier:?}");
    live.fakes.first_tries.lock().unwrap().insert(earlier[1], Arm::Legacy);
    assert_eq!(live.ask(keyed).await.status(), 200);
    assert_eq!(*live.fakes.keys_of_legacy.lock().unwrap(), own);
}

/// The first try, decided by earlier files, may still be uploading: it finds the retry under the key that both have.
#[tokio::test]
async fn a_request_that_has_a_retry_key_only_by_earlier_files_is_taken_under_that_key() {
    let keyed = "POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: 4\r\n\r\nbody";
    let origin = Origin::always_answers(OK).await;
    for state in [State::Dark, State::Live] {
        let before = Rig::new(&origin, at(state)).await;
        let after = after_another_retry_key(&origin, state, &before, i64::MAX).await;
        for rig in [&before, &after] {
            rig.fakes.answers.lock().unwrap().push_back(engine_says("{}"));
            rig.ask(keyed).await;
        }
        let [first, retry] = [&before, &after].map(|rig| {
            let key_of_engine = rig.fakes.asked.lock().unwrap().iter().find_map(|request| request.retry_keys);
            (rig.fakes.keys_of_legacy.lock().unwrap().clone(), key_of_engine)
        });
        assert!(first.0.len() + first.1.into_iter().count() > 0, "{state}");
        assert_eq!(retry, first, "{state}");
    }
}
