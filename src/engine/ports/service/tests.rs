use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Permit, Upstream};
use crate::engine::ports::breaker::BreakerState;
use crate::flag::{Breaker, Rate, Service};
use crate::limits::Limits;
use crate::names::RunId;
use crate::workflow::{AttemptResult, Mode};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(20);

fn service() -> Service {
    Service {
        name: "bank".into(),
        urls: vec![http::Uri::from_static("http://a:1"), http::Uri::from_static("http://b:2")],
        keyed: false,
        connect: None,
        first_byte: None,
        calls_max: Some(2),
        breaker: Some(Breaker { failures: 1.0, min: 1, open: LONG, probes: 1, ..Breaker::default() }),
        rate: None,
    }
}

fn base(service: &Service, before: Option<&Arc<Upstream>>) -> Arc<Upstream> {
    Upstream::of(service, &Limits::default()).or(before)
}

async fn turn(base: &Arc<Upstream>, mode: Mode, within: Duration) -> Result<Permit, AttemptResult> {
    base.turn(mode, RunId(uuid::Uuid::from_u128(7)), Instant::now() + within).await
}

fn shown(base: &Upstream) -> (Option<BreakerState>, u64, u64, u64) {
    let view = base.view("bank".into());
    (view.breaker.map(|breaker| breaker.state), view.in_flight, view.secondary_in_flight, view.waiting)
}

const CLOSED: Option<BreakerState> = Some(BreakerState::Closed);
const OPEN: Option<BreakerState> = Some(BreakerState::Open);

#[tokio::test]
async fn places_are_bounded_and_others_have_their_own() {
    let base = base(&service(), None);
    let first = turn(&base, Mode::Real, LONG).await.unwrap();
    let _second = turn(&base, Mode::Real, LONG).await.unwrap();
    let refused = turn(&base, Mode::Real, SHORT).await.err();
    assert!(matches!(refused, Some(AttemptResult::NotSent(_))), "{refused:?}");
    let _secondary = turn(&base, Mode::Dark, LONG).await.unwrap();
    assert!(turn(&base, Mode::Rehearse, SHORT).await.is_err(), "a fifth of two is one");
    assert_eq!(shown(&base), (CLOSED, 2, 1, 0));
    let waiting = tokio::spawn({
        let base = base.clone();
        async move { turn(&base, Mode::Real, LONG).await.is_ok() }
    });
    while shown(&base).3 == 0 {
        tokio::task::yield_now().await;
    }
    drop(first);
    assert!(waiting.await.unwrap());
    assert_eq!(shown(&base), (CLOSED, 1, 1, 0));
}

#[tokio::test]
async fn only_what_is_heard_of_a_real_run_moves_the_breaker() {
    let base = base(&service(), None);
    for mode in [Mode::Dark, Mode::Rehearse] {
        turn(&base, mode, LONG).await.unwrap().heard(&AttemptResult::CutOff("x".into()));
    }
    drop(turn(&base, Mode::Real, LONG).await.unwrap());
    assert_eq!(shown(&base), (CLOSED, 0, 0, 0));
    turn(&base, Mode::Real, LONG).await.unwrap().heard(&AttemptResult::CutOff("x".into()));
    assert_eq!(shown(&base), (OPEN, 0, 0, 0));
    for mode in [Mode::Real, Mode::Dark, Mode::Rehearse] {
        match turn(&base, mode, LONG).await.err() {
            Some(AttemptResult::BreakerOpen { service, retry_after_ms }) => {
                assert_eq!(service.as_str(), "bank");
                assert!((1..=20_000).contains(&retry_after_ms), "{retry_after_ms}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(shown(&base), (OPEN, 0, 0, 0));
    let next = base.view("bank".into()).breaker.and_then(|breaker| breaker.next_probe).unwrap();
    let left = next.duration_since(jiff::Timestamp::now()).as_millis();
    assert!((1..=20_000).contains(&left), "{left}");
}

#[tokio::test]
async fn a_dropped_probe_gives_its_place_back() {
    let mut service = service();
    service.breaker = service.breaker.map(|rule| Breaker { open: Duration::from_millis(1), ..rule });
    let base = base(&service, None);
    turn(&base, Mode::Real, LONG).await.unwrap().heard(&AttemptResult::TimedOut("x".into()));
    let probe = loop {
        match turn(&base, Mode::Real, LONG).await {
            Ok(turn) => break turn,
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    assert_eq!(shown(&base).0, Some(BreakerState::HalfOpen));
    assert!(turn(&base, Mode::Real, LONG).await.is_err());
    drop(probe);
    drop(turn(&base, Mode::Real, LONG).await.unwrap());
    assert_eq!(shown(&base).0, Some(BreakerState::HalfOpen));
}

#[tokio::test]
async fn who_cannot_come_in_time_is_told_at_once() {
    let rate = Some(Rate { calls: 1, per: Duration::from_secs(3_600), burst: 1 });
    let base = base(&Service { rate, ..service() }, None);
    drop(turn(&base, Mode::Real, LONG).await.unwrap());
    let begun = Instant::now();
    for mode in [Mode::Real, Mode::Dark] {
        match turn(&base, mode, Duration::from_secs(600)).await.err() {
            Some(AttemptResult::NotSent(why)) => assert!(why.contains("no more than 1/h"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(begun.elapsed() < LONG);
    assert_eq!(shown(&base), (CLOSED, 0, 0, 0));
}

#[tokio::test]
async fn it_is_kept_where_the_files_say_the_same() {
    let first = base(&service(), None);
    turn(&first, Mode::Real, LONG).await.unwrap().heard(&AttemptResult::CutOff("x".into()));
    let same = base(&Service { keyed: true, ..service() }, Some(&first));
    assert!(Arc::ptr_eq(&first, &same), "who may send twice has nothing to do with it");
    let other = base(&Service { calls_max: Some(3), ..service() }, Some(&same));
    assert_eq!((shown(&same).0, shown(&other).0), (OPEN, CLOSED));
    let off = base(&Service { breaker: None, ..service() }, Some(&other));
    turn(&off, Mode::Real, LONG).await.unwrap().heard(&AttemptResult::CutOff("x".into()));
    assert_eq!(shown(&off), (None, 0, 0, 0));
}

#[test]
fn urls_take_turns() {
    let base = base(&service(), None);
    assert_eq!([base.next(), base.next(), base.next()], ["http://a:1", "http://b:2", "http://a:1"]);
    assert_eq!(base.first(), "http://a:1");
}
