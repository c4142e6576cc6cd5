use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{CallBounds, CallPermit, ServiceLimits};
use crate::engine::ports::breaker::BreakerState;
use crate::flag::{BreakerSettings, Rate, Service};
use crate::limits::Limits;
use crate::names::RunId;
use crate::transport::AddressRegistry;
use crate::workflow::{AttemptResult, Mode};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(20);

fn service() -> Service {
    let urls = [http::Uri::from_static("http://a:1"), http::Uri::from_static("http://b:2")];
    Service {
        calls_max: Some(2),
        breaker: Some(BreakerSettings { failures: 1.0, min: 1, open: LONG, probes: 1, ..BreakerSettings::default() }),
        ..Service::at("bank", urls)
    }
}

thread_local! {
    static REGISTRY: Arc<AddressRegistry> = AddressRegistry::new();
}

fn service_limits(service: &Service, existing: Option<&Arc<ServiceLimits>>) -> Arc<ServiceLimits> {
    REGISTRY.with(|registry| ServiceLimits::of(service, &Limits::default(), registry).or_existing(existing))
}

async fn acquire(
    service_limits: &Arc<ServiceLimits>,
    mode: Mode,
    within: Duration,
) -> Result<CallPermit, AttemptResult> {
    service_limits
        .acquire(mode, RunId(uuid::Uuid::from_u128(7)), CallBounds { timeout: within, until: None, reserved: within })
        .await
}

fn shown(service_limits: &ServiceLimits) -> (Option<BreakerState>, u64, u64, u64) {
    let view = service_limits.view("bank".into());
    (view.breaker.map(|breaker| breaker.state), view.in_flight, view.secondary_in_flight, view.waiting)
}

const CLOSED: Option<BreakerState> = Some(BreakerState::Closed);
const OPEN: Option<BreakerState> = Some(BreakerState::Open);

#[tokio::test]
async fn real_and_secondary_calls_have_separate_limits() {
    let service_limits = service_limits(&service(), None);
    let first = acquire(&service_limits, Mode::Real, LONG).await.unwrap();
    let _second = acquire(&service_limits, Mode::Real, LONG).await.unwrap();
    let refused = acquire(&service_limits, Mode::Real, SHORT).await.err();
    assert!(matches!(refused, Some(AttemptResult::NotSent(_))), "{refused:?}");
    let _secondary = acquire(&service_limits, Mode::Dark, LONG).await.unwrap();
    assert!(acquire(&service_limits, Mode::Rehearse, SHORT).await.is_err(), "a fifth of two is one");
    assert_eq!(shown(&service_limits), (CLOSED, 2, 1, 0));
    let waiting = tokio::spawn({
        let service_limits = service_limits.clone();
        async move { acquire(&service_limits, Mode::Real, LONG).await.is_ok() }
    });
    while shown(&service_limits).3 == 0 {
        tokio::task::yield_now().await;
    }
    drop(first);
    assert!(waiting.await.unwrap());
    assert_eq!(shown(&service_limits), (CLOSED, 1, 1, 0));
}

#[tokio::test]
async fn secondary_calls_have_the_declared_share_of_a_service() {
    let of_share = |shadow_service_share_percent: u64| {
        let limits = Limits { shadow_service_share_percent, ..Limits::default() };
        let service = Service { calls_max: Some(10), ..service() };
        REGISTRY.with(|registry| ServiceLimits::of(&service, &limits, registry).or_existing(None))
    };
    // A share of nothing still leaves one call, or rehearsals would never end.
    for (share, calls) in [(0, 1), (20, 2), (50, 5), (100, 10)] {
        let service_limits = of_share(share);
        let mut admitted = Vec::new();
        for _ in 0..calls {
            admitted.push(acquire(&service_limits, Mode::Dark, LONG).await.unwrap());
        }
        assert!(acquire(&service_limits, Mode::Rehearse, SHORT).await.is_err(), "{share}");
        assert!(acquire(&service_limits, Mode::Real, SHORT).await.is_ok(), "{share}: real calls have their own");
    }
}

#[tokio::test]
async fn only_results_of_real_runs_change_the_breaker() {
    let service_limits = service_limits(&service(), None);
    for mode in [Mode::Dark, Mode::Rehearse] {
        acquire(&service_limits, mode, LONG).await.unwrap().record_outcome(&AttemptResult::CutOff("x".into()));
    }
    drop(acquire(&service_limits, Mode::Real, LONG).await.unwrap());
    assert_eq!(shown(&service_limits), (CLOSED, 0, 0, 0));
    acquire(&service_limits, Mode::Real, LONG).await.unwrap().record_outcome(&AttemptResult::CutOff("x".into()));
    assert_eq!(shown(&service_limits), (OPEN, 0, 0, 0));
    for mode in [Mode::Real, Mode::Dark, Mode::Rehearse] {
        match acquire(&service_limits, mode, LONG).await.err() {
            Some(AttemptResult::BreakerOpen { service, retry_after_ms }) => {
                assert_eq!(service.as_str(), "bank");
                assert!((1..=20_000).contains(&retry_after_ms), "{retry_after_ms}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(shown(&service_limits), (OPEN, 0, 0, 0));
    let next = service_limits.view("bank".into()).breaker.and_then(|breaker| breaker.next_probe).unwrap();
    let left = next.duration_since(jiff::Timestamp::now()).as_millis();
    assert!((1..=20_000).contains(&left), "{left}");
}

#[tokio::test]
async fn a_dropped_probe_makes_room_for_another() {
    let mut service = service();
    service.breaker = service.breaker.map(|rule| BreakerSettings { open: Duration::from_millis(1), ..rule });
    let service_limits = service_limits(&service, None);
    acquire(&service_limits, Mode::Real, LONG).await.unwrap().record_outcome(&AttemptResult::TimedOut("x".into()));
    let probe = loop {
        match acquire(&service_limits, Mode::Real, LONG).await {
            Ok(permit) => break permit,
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    assert_eq!(shown(&service_limits).0, Some(BreakerState::HalfOpen));
    assert!(acquire(&service_limits, Mode::Real, LONG).await.is_err());
    drop(probe);
    drop(acquire(&service_limits, Mode::Real, LONG).await.unwrap());
    assert_eq!(shown(&service_limits).0, Some(BreakerState::HalfOpen));
}

#[tokio::test]
async fn a_call_that_the_rate_cannot_admit_in_time_is_refused_at_once() {
    let rate = Some(Rate { calls: 1, per: Duration::from_secs(3_600), burst: 1 });
    let service_limits = service_limits(&Service { rate, ..service() }, None);
    drop(acquire(&service_limits, Mode::Real, LONG).await.unwrap());
    let begun = Instant::now();
    for mode in [Mode::Real, Mode::Dark] {
        match acquire(&service_limits, mode, Duration::from_secs(600)).await.err() {
            Some(AttemptResult::OverRate { why, retry_after_ms: 3_500_000..=3_600_000 }) if mode == Mode::Real => {
                assert!(why.contains("rate (1/h)"), "{why}");
            }
            Some(AttemptResult::OverRate { .. }) if mode == Mode::Dark => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(begun.elapsed() < LONG);
    assert_eq!(shown(&service_limits), (CLOSED, 0, 0, 0));
}

/// Calls wait for the rate in the order in which they came. If the first is withdrawn, the next one has its turn.
#[tokio::test(start_paused = true)]
async fn a_withdrawn_call_leaves_its_turn_to_the_next_one() {
    let rate = Some(Rate { calls: 1, per: Duration::from_secs(10), burst: 1 });
    let service_limits = service_limits(&Service { rate, calls_max: Some(9), ..service() }, None);
    let begun = Instant::now();
    drop(acquire(&service_limits, Mode::Real, LONG).await.unwrap());
    let mut waiting = Vec::new();
    for count in 1..=4 {
        let service_limits = service_limits.clone();
        waiting.push(tokio::spawn({
            let service_limits = service_limits.clone();
            async move { acquire(&service_limits, Mode::Real, 9 * LONG).await.map(|_| begun.elapsed().as_secs()) }
        }));
        while shown(&service_limits).3 < count {
            tokio::task::yield_now().await;
        }
    }
    let [first, second, third, fourth] = waiting.try_into().unwrap();
    third.abort(); // in the middle of the queue
    first.abort();
    assert_eq!((second.await.unwrap().unwrap(), fourth.await.unwrap().unwrap()), (10, 20));
}

/// A call that has a token does not wait for a timer, which would fire only at its next tick.
#[tokio::test(start_paused = true)]
async fn calls_that_have_a_token_begin_at_once() {
    let rate = Some(Rate { calls: 1_000, per: Duration::from_secs(1), burst: 100 });
    let service_limits = service_limits(&Service { rate, ..service() }, None);
    let begun = Instant::now();
    for _ in 0..100 {
        drop(acquire(&service_limits, Mode::Real, LONG).await.unwrap());
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// The calls that came due while the process was stopped do not begin together.
#[tokio::test(start_paused = true)]
async fn calls_keep_the_rate_after_the_process_was_stopped() {
    let rate = Some(Rate { calls: 10, per: Duration::from_secs(1), burst: 1 });
    let service_limits = service_limits(&Service { rate, calls_max: Some(100), ..service() }, None);
    let begun = Instant::now();
    let calls = (0..20).map(|_| {
        let service_limits = service_limits.clone();
        tokio::spawn(async move { acquire(&service_limits, Mode::Real, LONG).await.map(|_| begun.elapsed()) })
    });
    let calls = calls.collect::<Vec<_>>();
    while shown(&service_limits).3 < 19 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(Duration::from_millis(1_500)).await;
    let mut times = Vec::new();
    for call in calls {
        times.push(call.await.unwrap().unwrap());
    }
    times.sort_unstable();
    // Two calls begin when the process goes on: the one whose turn it was, and the next one.
    for three in times.windows(3) {
        assert!(three[2] - three[0] >= Duration::from_millis(90), "{times:?}");
    }
}

/// A call that came due while the process was stopped begins although its time to wait is over, and the token of the
/// next call has come due too.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_due_after_a_stop_is_not_refused() {
    let rate = Some(Rate { calls: 1, per: Duration::from_secs(1), burst: 1 });
    let service_limits = service_limits(&Service { rate, calls_max: Some(100), ..service() }, None);
    let begun = Instant::now();
    let calls = (0..3).map(|_| {
        let service_limits = service_limits.clone();
        tokio::spawn(async move { acquire(&service_limits, Mode::Real, 3 * LONG / 20).await.map(|_| begun.elapsed()) })
    });
    let calls = calls.collect::<Vec<_>>();
    while shown(&service_limits).3 < 2 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(Duration::from_secs(60)).await;
    let mut begun_at = Vec::new();
    for call in calls {
        begun_at.push(call.await.unwrap().map(|at| at.as_secs()));
    }
    assert_eq!(begun_at, [Ok(0), Ok(60), Ok(60)]);
    let at = Instant::now();
    acquire(&service_limits, Mode::Real, LONG).await.unwrap();
    assert!(at.elapsed() <= Duration::from_secs(1));
}

/// Calls whose steps' deadlines passed meanwhile are not sent, and leave their tokens to others.
#[tokio::test(start_paused = true)]
async fn calls_that_are_too_late_after_a_stop_take_no_tokens() {
    let rate = Some(Rate { calls: 1, per: Duration::from_secs(1), burst: 1 });
    for mode in [Mode::Real, Mode::Dark] {
        let service_limits = service_limits(&Service { rate, calls_max: Some(100), ..service() }, None);
        let until = Some(Instant::now() + Duration::from_secs(20));
        let bounds = CallBounds { timeout: Duration::from_secs(30), until, reserved: Duration::ZERO };
        let calls = (0..3).map(|_| {
            let service_limits = service_limits.clone();
            tokio::spawn(
                async move { service_limits.acquire(mode, RunId(uuid::Uuid::from_u128(7)), bounds).await.is_ok() },
            )
        });
        let calls = calls.collect::<Vec<_>>();
        while shown(&service_limits).3 < 2 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        let mut begun = 0;
        for call in calls {
            begun += usize::from(call.await.unwrap());
        }
        assert_eq!(begun, 1, "{mode:?}");
        let at = Instant::now();
        acquire(&service_limits, mode, LONG).await.unwrap();
        assert_eq!(at.elapsed(), Duration::ZERO, "{mode:?}");
    }
}

/// A call that got no connection has its whole time at the next URL, unless the step's deadline leaves too little.
#[tokio::test(start_paused = true)]
async fn the_timeout_of_a_call_begins_anew_at_another_url() {
    let service_limits = service_limits(&service(), None);
    let run = RunId(uuid::Uuid::from_u128(7));
    for (until, begins) in [(None, true), (Some(2 * LONG), true), (Some(LONG), false)] {
        let until = until.map(|until| Instant::now() + until);
        let bounds = CallBounds { timeout: LONG, until, reserved: LONG };
        let mut permit = service_limits.acquire(Mode::Real, run, bounds).await.unwrap();
        let deadline = permit.deadline();
        tokio::time::advance(LONG / 2).await;
        assert_eq!(permit.begin_anew(), begins, "{until:?}");
        assert_eq!(permit.deadline() > deadline, begins);
    }
}

#[tokio::test]
async fn the_wait_for_a_permit_does_not_shorten_the_call() {
    let service_limits = service_limits(&service(), None);
    let held = [
        acquire(&service_limits, Mode::Real, LONG).await.unwrap(),
        acquire(&service_limits, Mode::Real, LONG).await.unwrap(),
    ];
    let begun = Instant::now();
    let waits = |until: Option<Instant>| {
        let (service_limits, run) = (service_limits.clone(), RunId(uuid::Uuid::from_u128(8)));
        let bounds = CallBounds { timeout: LONG, until, reserved: LONG };
        tokio::spawn(async move {
            service_limits.acquire(Mode::Real, run, bounds).await.map(|permit| permit.time_allowed())
        })
    };
    let refused = waits(Some(begun + LONG)).await.unwrap();
    assert!(matches!(refused, Err(AttemptResult::NotSent(_))), "its deadline leaves no time to wait: {refused:?}");
    let waiting = waits(Some(begun + 3 * LONG));
    while shown(&service_limits).3 < 1 || begun.elapsed() < SHORT {
        tokio::task::yield_now().await;
    }
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap(), LONG, "its timeout begins with the permit");
    let at_once = waits(Some(Instant::now() + SHORT)).await.unwrap().unwrap();
    assert!(at_once <= SHORT, "the deadline of the step bounds a call that need not wait: {at_once:?}");
}

#[tokio::test]
async fn an_idle_rate_admits_a_call_whose_deadline_comes_before_its_timeout() {
    let rate = Some(Rate { calls: 1, per: Duration::from_secs(3_600), burst: 2 });
    let service_limits = service_limits(&Service { rate, ..service() }, None);
    let bounds = || CallBounds { timeout: LONG, until: Some(Instant::now() + LONG / 2), reserved: LONG };
    for is_admitted in [true, true, false] {
        let permit = service_limits.acquire(Mode::Real, RunId(uuid::Uuid::from_u128(8)), bounds()).await;
        assert_eq!(permit.is_ok(), is_admitted);
    }
}

#[tokio::test]
async fn an_unchanged_service_keeps_its_limits() {
    let first = service_limits(&service(), None);
    acquire(&first, Mode::Real, LONG).await.unwrap().record_outcome(&AttemptResult::CutOff("x".into()));
    let same = service_limits(&Service { keyed: true, ..service() }, Some(&first));
    assert!(Arc::ptr_eq(&first, &same), "`keyed` is not part of the configuration");
    let other = service_limits(&Service { calls_max: Some(3), ..service() }, Some(&same));
    assert_eq!((shown(&same).0, shown(&other).0), (OPEN, CLOSED));
    let slow_start = Some(SHORT);
    let ramped = service_limits(&Service { slow_start, calls_max: Some(3), ..service() }, Some(&other));
    assert!(!Arc::ptr_eq(&ramped, &other), "its addresses are chosen in another way");
    let off = service_limits(&Service { breaker: None, ..service() }, Some(&ramped));
    acquire(&off, Mode::Real, LONG).await.unwrap().record_outcome(&AttemptResult::CutOff("x".into()));
    assert_eq!(shown(&off), (None, 0, 0, 0));
}
