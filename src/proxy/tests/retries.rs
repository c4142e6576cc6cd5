//! A request and its retries get the same arm.

use std::sync::atomic::Ordering::SeqCst;

use http::StatusCode;
use uuid::Uuid;

use super::rig::{Fakes, OK, Origin, Rig, Setup, engine_gives_back, engine_refuses, engine_says};
use crate::exchange::{
    ABANDONED_BEFORE, Abandoned, ArmAnswer, ArmReply, ArmUnknown, ComparisonOutcome, LEGACY_TOOK_FIRST_TRY,
    ProblemDocument, Remembered, RunReport, Served,
};
use crate::expression::{Expression, Template};
use crate::flag::{Arm, Cohort, Freeze, Route, SkipReason, State};
use crate::limits::Limits;
use crate::names::RunId;

const ORDER: &str = "{\"items\":[1]}";

pub(super) fn at(state: State) -> Setup {
    Setup { state, ..Setup::default() }
}

#[tokio::test]
async fn a_retry_stays_on_its_arm() {
    let keyed = format!(
        "POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k-1\r\nContent-Length: {}\r\n\r\n{ORDER}",
        ORDER.len()
    );
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, at(State::Live)).await;
    *rig.fakes.first_try.lock().unwrap() = Some(Ok(Some(Arm::Legacy)));
    assert_eq!(rig.ask(&keyed).await.status(), 200, "legacy had it first");
    assert!(rig.fakes.keys_of_legacy.lock().unwrap().is_empty(), "the store has it");
    assert_eq!(rig.fakes.outcome().await, ComparisonOutcome::Skipped(SkipReason::Retried));
    *rig.fakes.first_try.lock().unwrap() = Some(Err(ArmUnknown));
    let reply = rig.ask(&keyed).await;
    assert_eq!(reply.status(), 503, "the arm of the first try is unknown");
    assert!(reply.text().contains("Nothing was begun, so trying again cannot do the work twice"), "{}", reply.text());
    assert!(reply.head.to_ascii_lowercase().contains("retry-after: 1"), "{}", reply.head);

    let rig = Rig::new(&origin, at(State::Off)).await;
    *rig.fakes.first_try.lock().unwrap() = Some(Ok(Some(Arm::Engine)));
    rig.fakes.answers.lock().unwrap().push_back(engine_says("{}"));
    assert_eq!(rig.ask(&keyed).await.status(), 201, "the engine had it first");
    *rig.fakes.first_try.lock().unwrap() = Some(Err(ArmUnknown));
    assert_eq!(rig.ask(&keyed).await.status(), 200, "off goes on serving without the store");

    let rig = Rig::new(&origin, at(State::Live)).await;
    rig.fakes.answers.lock().unwrap().push_back(engine_gives_back());
    assert_eq!(rig.ask(&keyed).await.status(), 200);
    assert_eq!(rig.fakes.keys_of_legacy.lock().unwrap().len(), 2, "from now on it is legacy's, under any credential");
}

/// The gate to `only` and the guard count the answers and errors of a route: a client that repeats its request must not
/// count the same one again.
#[tokio::test]
async fn only_the_first_try_s_answer_is_counted() {
    let origin = Origin::always_answers(OK).await;
    let keyed = "POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: 4\r\n\r\nbody";
    let with_status = |status| match engine_says("{}") {
        ArmReply::Answer(answer) => ArmReply::Answer(ArmAnswer { status, ..answer }),
        reply => reply,
    };
    let refused_by_schema = || match with_status(StatusCode::UNPROCESSABLE_ENTITY) {
        ArmReply::Answer(answer) => {
            ArmReply::Answer(ArmAnswer { report: RunReport { refused_by_schema: true, ..answer.report }, ..answer })
        }
        reply => reply,
    };
    let of_run = || match engine_refuses("workflow-failed") {
        ArmReply::Refused(problem, report) => {
            let run = Some(RunId(Uuid::from_u128(1)));
            ArmReply::Refused(ProblemDocument { run, ..problem }, report)
        }
        reply => reply,
    };
    let gives_back = |reason| ArmReply::Abandoned(Abandoned { reason, run: None });
    let cases = [
        (with_status(StatusCode::CREATED), Some(Served::Answered)),
        (with_status(StatusCode::UNPROCESSABLE_ENTITY), Some(Served::CallerError)),
        (refused_by_schema(), Some(Served::Error)),
        (with_status(StatusCode::BAD_GATEWAY), Some(Served::Error)),
        (of_run(), Some(Served::Error)),
        (engine_refuses("engine-unavailable"), Some(Served::Error)),
        (engine_refuses("outcome-unknown"), Some(Served::Unknown)),
        (gives_back("deadline"), Some(Served::FellBack)),
        // Legacy has the request, even if the proxy did not know so before.
        (gives_back(ABANDONED_BEFORE), None),
        (gives_back(LEGACY_TOOK_FIRST_TRY), None),
    ];
    for (reply, first) in cases {
        for (first_try, counted) in [(None, first), (Some(Ok(Some(Arm::Engine))), None)] {
            let rig = Rig::new(&origin, at(State::Live)).await;
            *rig.fakes.first_try.lock().unwrap() = first_try;
            rig.fakes.answers.lock().unwrap().push_back(reply.clone());
            rig.ask(keyed).await;
            assert_eq!(*rig.fakes.served.lock().unwrap(), Vec::from_iter(counted), "{reply:?}, {first_try:?}");
        }
    }
}

/// A field that `Connection` names is removed: the request would lose its key, and its retry could go to the other arm.
#[tokio::test]
async fn connection_may_not_name_a_field_that_the_route_depends_on() {
    let origin = Origin::always_answers(OK).await;
    let edit_route = |route: &mut Route| {
        let header = |name: &str| Template::parse_str(&format!("${{request.headers[\"{name}\"]}}")).unwrap();
        route.retry_key = Some(header("X-Order"));
        route.key = Some(header("x-tenant"));
        route.caller = vec!["x-user".parse().unwrap()].into();
        route.cohorts = vec![Cohort {
            name: "staff".into(),
            when: Expression::parse("request.headers[\"x-staff\"] == \"1\"").unwrap(),
            state: State::Off,
            force: None,
        }];
    };
    let rig = Rig::new(&origin, Setup { edit_route, ..at(State::Off) }).await;
    let ask = |named: &str| {
        format!("POST /orders HTTP/1.1\r\nHost: a\r\nConnection: {named}\r\nContent-Length: 4\r\n\r\nbody")
    };
    for named in ["x-order", "keep-alive, X-Tenant", "x-user", "x-staff", "idempotency-key", "authorization", "cookie"]
    {
        let reply = rig.ask(&ask(named)).await;
        assert_eq!(reply.status(), 400, "{named}");
        assert!(reply.text().contains("Connection names a field"), "{}", reply.text());
    }
    assert!(origin.requests().is_empty());
    for named in ["keep-alive", "upgrade", "x-other", "te"] {
        assert_eq!(rig.ask(&ask(named)).await.status(), 200, "{named}");
    }
}

/// A request with two retry keys is served neither as one with the first or second key nor as one without a key.
#[tokio::test]
async fn a_request_with_several_retry_keys_is_refused() {
    let origin = Origin::always_answers(OK).await;
    for state in [State::Off, State::Dark, State::Live, State::Only] {
        let rig = Rig::new(&origin, at(state)).await;
        let twice = "POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: a\r\nIdempotency-Key: b\r\nContent-Length: 1\r\n\r\nx";
        let reply = rig.ask(twice).await;
        assert_eq!(reply.status(), 400, "{state}");
        assert!(reply.text().contains("retry key is read from is repeated"), "{}", reply.text());
        let edit_route = |route: &mut Route| {
            route.retry_key = Some(Template::parse_str("${request.query.k}").unwrap());
        };
        let rig = Rig::new(&origin, Setup { edit_route, ..at(state) }).await;
        let reply = rig.ask("POST /orders?k=1&k=2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
        assert_eq!(reply.status(), 400, "{state}");
        assert!(rig.fakes.keys_of_legacy.lock().unwrap().is_empty());
    }
    assert!(origin.requests().is_empty());
    let rig = Rig::new(&origin, at(State::Live)).await;
    let elsewhere =
        "POST /other HTTP/1.1\r\nHost: a\r\nIdempotency-Key: a\r\nIdempotency-Key: b\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(rig.ask(elsewhere).await.status(), 200, "no workflow");
}

/// The second try is decided as if legacy had not taken the first yet: only taking its keys for legacy shows that it
/// is a retry.
#[tokio::test]
async fn of_two_tries_in_the_same_instant_one_has_a_dark_run() {
    let keyed = "POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: 4\r\n\r\nbody";
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, at(State::Dark)).await;
    assert_eq!(rig.ask(keyed).await.status(), 200);
    rig.fakes.until("the first is offered", |fakes| (fakes.offered.lock().unwrap().len() == 1).then_some(())).await;
    assert_eq!(rig.ask(keyed).await.status(), 200);
    let both = |fakes: &Fakes| Some(fakes.outcomes.lock().unwrap().clone()).filter(|outcomes| outcomes.len() == 2);
    let outcomes = rig.fakes.until("both outcomes", both).await;
    assert_eq!(outcomes, [ComparisonOutcome::Matched, ComparisonOutcome::Skipped(SkipReason::Retried)]);
    assert_eq!((origin.requests().len(), rig.fakes.offered.lock().unwrap().len()), (2, 1));
}

#[tokio::test]
async fn a_request_that_the_engine_took_under_another_flag_set_is_not_given_to_legacy() {
    let origin = Origin::always_answers(OK).await;
    let keyed = "POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: 4\r\n\r\nbody";
    for state in [State::Off, State::Shadow, State::Dark] {
        let rig = Rig::new(&origin, at(state)).await;
        rig.fakes.engine_takes_first.store(true, SeqCst);
        rig.fakes.answers.lock().unwrap().push_back(engine_says("{}"));
        assert_eq!(rig.ask(keyed).await.status(), 201, "{state}");
    }
    let limits = Limits { body_engine_bytes_max: 3, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { limits, ..at(State::Live) }).await;
    rig.fakes.engine_takes_first.store(true, SeqCst);
    assert_eq!(rig.ask(keyed).await.status(), 413);
    assert!(origin.requests().is_empty());
}

/// The engine took a request. Another process could not look it up under its next credential, took it for legacy, and
/// refused it when its claim found the engine's run: the store has the key of that try as legacy's, and nothing more.
#[tokio::test]
async fn a_key_of_legacy_in_the_store_does_not_hide_that_the_engine_took_the_request_under_another_credential() {
    let origin = Origin::always_answers(OK).await;
    let keyed = "POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: 4\r\n\r\nbody";
    for state in [State::Off, State::Shadow, State::Dark, State::Live] {
        let rig = Rig::new(&origin, at(state)).await;
        let keys = {
            let before = Rig::new(&origin, at(State::Off)).await;
            assert_eq!(before.ask(keyed).await.status(), 200);
            before.fakes.keys_of_legacy.lock().unwrap().clone()
        };
        rig.fakes.first_tries.lock().unwrap().extend(keys.into_iter().map(|key| (key, Arm::Legacy)));
        let served = origin.requests().len();
        rig.fakes.remembered_next.lock().unwrap().push_back(Remembered::NotEngineHere);
        assert_eq!(rig.ask(keyed).await.status(), 200, "{state}: the engine has no request under another credential");
        *rig.fakes.first_try.lock().unwrap() = Some(Ok(Some(Arm::Engine)));
        rig.fakes.remembered_next.lock().unwrap().push_back(Remembered::NotEngineHere);
        let refused = rig.ask(keyed).await;
        assert_eq!(refused.status(), 409, "{state}");
        assert!(refused.text().contains("retry-key-held"), "{}", refused.text());
        assert_eq!(origin.requests().len(), served + 1, "{state}");
        // The look-up does not find the engine's run, which is not committed yet; the confirmation waits for it.
        *rig.fakes.first_try.lock().unwrap() = None;
        rig.fakes.is_unconfirmed.store(true, SeqCst);
        rig.fakes.remembered_next.lock().unwrap().push_back(Remembered::NotEngineHere);
        assert_eq!(rig.ask(keyed).await.status(), 409, "{state}");
        assert_eq!(origin.requests().len(), served + 1, "{state}");
    }
}

#[tokio::test]
async fn a_retry_of_an_engine_request_does_not_fall_back_because_of_its_size() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { body_engine_bytes_max: 3, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { limits, ..at(State::Live) }).await;
    *rig.fakes.first_try.lock().unwrap() = Some(Ok(Some(Arm::Engine)));
    let keyed = "POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: 4\r\n\r\nbody";
    let reply = rig.ask(keyed).await;
    assert_eq!(reply.status(), 413);
    assert!(reply.text().contains("that try may have been carried out"), "{}", reply.text());
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn requests_whose_key_cannot_be_recorded_are_served_below_live_only() {
    let keyed = "POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: 4\r\n\r\nbody";
    let origin = Origin::always_answers(OK).await;
    for state in [State::Off, State::Shadow, State::Dark] {
        let rig = Rig::new(&origin, at(state)).await;
        rig.fakes.records_no_keys.store(true, SeqCst);
        assert_eq!(rig.ask(keyed).await.status(), 200, "{state}");
        assert_eq!(rig.fakes.served_unnoted.load(SeqCst), 1, "{state}");
    }
    // A retry of a request that was noted does not wait for a store that does not answer.
    for state in [State::Off, State::Shadow, State::Dark] {
        let rig = Rig::new(&origin, at(state)).await;
        assert_eq!(rig.ask(keyed).await.status(), 200, "{state}");
        rig.fakes.records_no_keys.store(true, SeqCst);
        rig.fakes.store_is_silent.store(true, SeqCst);
        assert_eq!(rig.ask(keyed).await.status(), 200, "{state}");
        assert_eq!(rig.fakes.served_unnoted.load(SeqCst), 0, "{state}");
    }
    let served = origin.requests().len();
    // In the first round the engine gives the request back; in the second its body is too large for the engine.
    for bytes in [1_000, 3] {
        let limits = Limits { body_engine_bytes_max: bytes, ..Limits::default() };
        let rig = Rig::new(&origin, Setup { limits, ..at(State::Live) }).await;
        rig.fakes.records_no_keys.store(true, SeqCst);
        rig.fakes.answers.lock().unwrap().push_back(engine_gives_back());
        let refused = rig.ask(keyed).await;
        assert_eq!(refused.status(), 503);
        assert!(refused.text().contains("retry-key-not-noted"), "{}", refused.text());
        assert_eq!(rig.fakes.served_unnoted.load(SeqCst), 0);
    }
    assert_eq!(origin.requests().len(), served, "legacy was not called in live");
    let rig = Rig::new(&origin, at(State::Live)).await;
    rig.fakes.records_no_keys.store(true, SeqCst);
    *rig.fakes.first_try.lock().unwrap() = Some(Ok(Some(Arm::Legacy)));
    assert_eq!(rig.ask(keyed).await.status(), 200, "the store knows that it is legacy's");
}

/// This also holds for a caller of the route whom legacy answers: a flip may put that caller in `live` at any time.
#[tokio::test]
async fn a_caller_on_a_lower_rung_of_a_route_in_live_is_not_served_without_a_recorded_key() {
    let edit_route = |route: &mut Route| {
        route.cohorts = vec![Cohort {
            name: "everybody".into(),
            when: Expression::parse("true").unwrap(),
            state: State::Off,
            force: None,
        }];
    };
    let keyed = |key: &str| {
        format!("POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: {key}\r\nContent-Length: 4\r\n\r\nbody")
    };
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup { edit_route, ..at(State::Live) }).await;
    assert_eq!(rig.ask(&keyed("k")).await.status(), 200);
    rig.fakes.records_no_keys.store(true, SeqCst);
    let refused = rig.ask(&keyed("other")).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.text().contains("retry-key-not-noted"), "{}", refused.text());
    assert_eq!(origin.requests().len(), 1, "legacy was called once");
    assert_eq!(rig.ask(&keyed("k")).await.status(), 200, "a retry, whose keys were noted when its first try came");
    assert_eq!(rig.fakes.served_unnoted.load(SeqCst), 0);
}

/// A freeze is lifted without a gate, after which the engine performs this caller's retries.
#[tokio::test]
async fn a_caller_whose_cohort_returns_to_live_is_treated_as_in_live() {
    let origin = Origin::always_answers(OK).await;
    let edit_route = |route: &mut Route| {
        route.cohorts = vec![Cohort {
            name: "staff".into(),
            when: Expression::parse("request.headers[\"x-staff\"] == \"1\"").unwrap(),
            state: State::Live,
            force: Some("our own people".into()),
        }];
    };
    let keyed = |staff: &str, key: &str| {
        format!(
            "POST /orders HTTP/1.1\r\nHost: a\r\nX-Staff: {staff}\r\nIdempotency-Key: {key}\r\nContent-Length: 4\r\n\r\nbody"
        )
    };
    for state in [State::Off, State::Shadow, State::Dark] {
        let rig = Rig::new(&origin, Setup { edit_route, freeze: Freeze::Instances, ..at(state) }).await;
        assert_eq!(rig.ask(&keyed("1", "noted")).await.status(), 200, "{state}");
        let served = origin.requests().len();
        rig.fakes.records_no_keys.store(true, SeqCst);
        let refused = rig.ask(&keyed("1", "one")).await;
        assert_eq!(refused.status(), 503, "{state}");
        assert!(refused.text().contains("retry-key-not-noted"), "{}", refused.text());
        assert_eq!((origin.requests().len(), rig.fakes.served_unnoted.load(SeqCst)), (served, 0), "{state}");
        assert_eq!(rig.ask(&keyed("0", "two")).await.status(), 200, "{state}");
        assert_eq!(rig.fakes.served_unnoted.load(SeqCst), 1, "{state}: the other caller is outside the cohort");
    }
    // The engine of another process may have taken the first try, and the store does not answer.
    for state in [State::Off, State::Shadow] {
        let rig = Rig::new(&origin, Setup { edit_route, freeze: Freeze::Instances, ..at(state) }).await;
        *rig.fakes.first_try.lock().unwrap() = Some(Err(ArmUnknown));
        let served = origin.requests().len();
        assert_eq!(rig.ask(&keyed("1", "one")).await.status(), 503, "{state}");
        assert_eq!(origin.requests().len(), served, "{state}");
        assert_eq!(rig.ask(&keyed("0", "two")).await.status(), 200, "{state}");
    }
}

/// While the route was in `live`, the engine of another process may have taken the first try, and its keys were not
/// read yet: legacy would do the work again.
#[tokio::test]
async fn while_keys_of_other_engines_are_unread_a_silent_store_means_that_keyed_requests_are_refused() {
    let origin = Origin::always_answers(OK).await;
    let keyed = "POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: 4\r\n\r\nbody";
    for state in [State::Off, State::Shadow] {
        let rig = Rig::new(&origin, at(state)).await;
        *rig.fakes.first_try.lock().unwrap() = Some(Err(ArmUnknown));
        rig.fakes.keys_are_unread.store(true, SeqCst);
        let served = origin.requests().len();
        assert_eq!(rig.ask(keyed).await.status(), 503, "{state}");
        assert_eq!(origin.requests().len(), served, "{state}: not begun");
        *rig.fakes.first_try.lock().unwrap() = Some(Ok(None));
        assert_eq!(rig.ask(keyed).await.status(), 200, "{state}: the store says that no engine has it");
        *rig.fakes.first_try.lock().unwrap() = Some(Err(ArmUnknown));
        rig.fakes.keys_are_unread.store(false, SeqCst);
        assert_eq!(rig.ask(&keyed.replace("k\r", "l\r")).await.status(), 200, "{state}");
    }
}

/// A restart would return the route to `live`, because its flip down is not in the store: the engine of another process
/// may have taken the first try, and legacy would do the work again.
#[tokio::test]
async fn a_route_whose_flip_down_is_not_recorded_refuses_keyed_requests_while_the_store_is_silent() {
    let origin = Origin::always_answers(OK).await;
    let keyed = |key: &str| {
        format!("POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: {key}\r\nContent-Length: 4\r\n\r\nbody")
    };
    for state in [State::Off, State::Shadow] {
        let rig = Rig::new(&origin, Setup { returns_at_restart: true, ..at(state) }).await;
        let served = origin.requests().len();
        *rig.fakes.first_try.lock().unwrap() = Some(Err(ArmUnknown));
        assert_eq!(rig.ask(&keyed("one")).await.status(), 503, "{state}");
        assert_eq!(origin.requests().len(), served, "{state}: not begun");
        let unkeyed = "POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
        assert_eq!(rig.ask(unkeyed).await.status(), 200, "{state}");
        *rig.fakes.first_try.lock().unwrap() = Some(Ok(None));
        rig.fakes.records_no_keys.store(true, SeqCst);
        let refused = rig.ask(&keyed("two")).await;
        assert!(refused.text().contains("retry-key-not-noted"), "{state}: {}", refused.text());
    }
}
