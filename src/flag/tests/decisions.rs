//! The decisions that a flag set makes.

use std::net::{IpAddr, Ipv4Addr};

use http::HeaderMap;

use super::*;
use crate::expression::{Expression, Template};

/// A request whose parts are easy to vary.
#[derive(Clone, Debug)]
pub(super) struct TestRequest {
    pub(super) method: Method,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) random: u64,
    pub(super) owner: Owner,
    pub(super) first_try: Option<Arm>,
}

impl TestRequest {
    pub(super) fn new() -> Self {
        Self { method: Method::POST, headers: Vec::new(), random: 0, owner: Owner::NoPin, first_try: None }
    }
    pub(super) fn tenant(name: impl Into<String>) -> Self {
        Self { headers: vec![("x-tenant", name.into())], ..Self::new() }
    }
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
    pub(super) fn decide_with_diagnostics(&self, set: &FlagSet, id: &str) -> (Decision, DecisionDiagnostics) {
        let headers: HeaderMap = self
            .headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let facts = RequestFacts {
            method: &self.method,
            path: "/orders",
            matched_path: "/orders",
            query: None,
            headers: &headers,
            params: &[],
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            random: self.random,
            owner: self.owner,
            now_s: 0,
        };
        let flag = set.route(&id.into()).unwrap();
        let mut diagnostics = DecisionDiagnostics::default();
        let decision = decide(set, flag, &facts, &mut diagnostics);
        (decision.for_retry(flag, self.first_try), diagnostics)
    }
    pub(super) fn decide(&self, set: &FlagSet, id: &str) -> Decision {
        self.decide_with_diagnostics(set, id).0
    }
}

pub(super) fn percents(shadow: f64, dark: f64, live: f64) -> Shares {
    let percent = |number| Percent::new(number).unwrap();
    Shares { shadow: percent(shadow), dark: percent(dark), live: percent(live) }
}

/// A creator and its follower, both with these inputs.
pub(super) fn family(state_inputs: &StateInputs, freeze: Freeze, cohorts: &[(&str, State)]) -> FlagSet {
    let mut create = route("create", Method::POST, "/orders");
    create.key = Some(Template::parse_str("${request.headers[\"x-tenant\"]}").unwrap());
    create.instance = Some(Instance::Creates { id: serde_json_path::JsonPath::parse("$.id").unwrap().into() });
    let cohort = |(when, state): &(&str, State)| Cohort {
        name: "some".into(),
        when: Expression::parse(when).unwrap(),
        state: *state,
        force: Some("a test".into()),
    };
    create.cohorts = cohorts.iter().map(cohort).collect();
    let mut follow = route("follow", Method::GET, "/orders/{id}");
    follow.key = create.key.clone();
    follow.instance = Some(Instance::Follows { creator: "create".into(), key: InstanceKeySource::Path("id".into()) });
    let inputs = ["create", "follow"].map(|id| (id.into(), state_inputs.clone())).into();
    set(vec![create, follow], inputs, freeze)
}

fn at(state: State) -> FlagSet {
    family(&state_inputs(state), Freeze::No, &[])
}

pub(super) fn with_shares(state: State, shares: Shares) -> FlagSet {
    family(&StateInputs { shares, ..state_inputs(state) }, Freeze::No, &[])
}

fn legacy(rung: State, engine_work: EngineWork) -> Decision {
    Decision::Legacy { rung, engine_work }
}
pub(super) fn engine(rung: State, may_fall_back: bool, reason: EngineReason) -> Decision {
    Decision::Engine { rung, may_fall_back, reason }
}
fn skip(reason: SkipReason) -> EngineWork {
    EngineWork::Skip(reason)
}

#[test]
fn each_rung_adds_one_commitment() {
    for (state, decision) in [
        (State::Off, legacy(State::Off, EngineWork::None)),
        (State::Shadow, legacy(State::Shadow, EngineWork::Rehearse)),
        (State::Dark, legacy(State::Dark, EngineWork::Dark)),
        (State::Live, engine(State::Live, true, EngineReason::Rung)),
        (State::Only, engine(State::Only, false, EngineReason::Rung)),
    ] {
        assert_eq!(TestRequest::new().decide(&at(state), "create"), decision, "{state}");
    }
}

#[test]
fn an_instance_stays_with_its_owner() {
    for state in State::ALL {
        for freeze in [Freeze::No, Freeze::Instances, Freeze::Effects] {
            let set = family(&state_inputs(state), freeze, &[]);
            let request =
                |owner| TestRequest { owner, method: Method::GET, ..TestRequest::new() }.decide(&set, "follow");
            let effective = set.route(&"follow".into()).unwrap().effective.state;
            assert_eq!(request(Owner::Engine), engine(effective, false, EngineReason::Pin), "{state} {freeze:?}");
            assert!(matches!(request(Owner::Unknown), Decision::Nobody { .. }), "{state} {freeze:?}");
        }
    }
    for (state, alone, twin) in [
        (State::Off, legacy(State::Off, EngineWork::None), legacy(State::Off, EngineWork::None)),
        (
            State::Shadow,
            legacy(State::Shadow, skip(SkipReason::NoInstance)),
            legacy(State::Shadow, EngineWork::Rehearse),
        ),
        (State::Dark, legacy(State::Dark, skip(SkipReason::NoTwin)), legacy(State::Dark, EngineWork::Dark)),
        (State::Live, legacy(State::Live, skip(SkipReason::NoTwin)), legacy(State::Live, EngineWork::Dark)),
        (State::Only, engine(State::Only, false, EngineReason::Rung), engine(State::Only, false, EngineReason::Rung)),
    ] {
        let request =
            |owner| TestRequest { owner, method: Method::GET, ..TestRequest::new() }.decide(&at(state), "follow");
        assert_eq!(request(Owner::NoPin), alone, "{state}");
        assert_eq!(request(Owner::LegacyWithTwin), twin, "{state}");
    }
}

#[test]
fn an_adopted_instance_is_answered_by_the_engine_and_one_that_is_being_moved_by_nobody() {
    for state in State::ALL {
        let request = |owner, first_try| {
            TestRequest { owner, first_try, method: Method::GET, ..TestRequest::new() }.decide(&at(state), "follow")
        };
        assert_eq!(request(Owner::Adopted, None), engine(state, false, EngineReason::Adopted), "{state}");
        // Legacy may not have done what it took before, or do it again, unless it recognises retries and was told.
        let retried = request(Owner::Adopted, Some(Arm::Legacy));
        assert!(matches!(retried, Decision::Nobody { .. }), "{state}: {retried:?}");
        for owner in [Owner::Moving, Owner::AdoptionUnknown] {
            for first_try in [None, Some(Arm::Legacy), Some(Arm::Engine)] {
                assert!(matches!(request(owner, first_try), Decision::Nobody { .. }), "{state} {owner:?}");
            }
        }
    }
}

#[test]
fn a_retry_stays_on_its_arm() {
    for state in State::ALL {
        let request = |arm| TestRequest { first_try: Some(arm), ..TestRequest::new() }.decide(&at(state), "create");
        assert_eq!(request(Arm::Engine), engine(state, state != State::Only, EngineReason::Retry), "{state}");
        match state {
            State::Off => assert_eq!(request(Arm::Legacy), legacy(state, EngineWork::None)),
            State::Only => assert!(matches!(request(Arm::Legacy), Decision::Nobody { rung: State::Only, .. })),
            _ => assert_eq!(request(Arm::Legacy), legacy(state, skip(SkipReason::Retried))),
        }
    }
}

#[test]
fn requests_that_cannot_be_compared_are_skipped() {
    for (request, reason) in [
        (TestRequest { method: Method::HEAD, ..TestRequest::new() }, SkipReason::Conditional),
        (TestRequest::new().with("if-none-match", "\"x\""), SkipReason::Conditional),
        (TestRequest::new().with("range", "bytes=0-1"), SkipReason::Conditional),
        (TestRequest::new().with("upgrade", "websocket"), SkipReason::Streaming),
    ] {
        assert_eq!(request.decide(&at(State::Shadow), "create"), legacy(State::Shadow, skip(reason)));
        assert_eq!(request.decide(&at(State::Dark), "create"), legacy(State::Dark, skip(reason)));
        assert_eq!(request.decide(&at(State::Live), "create"), engine(State::Live, true, EngineReason::Rung));
    }
}

#[test]
fn guard_health_and_freeze_lower_all_states_except_for_the_state_only() {
    let healthy = state_inputs(State::Live);
    for (state_inputs, freeze, state, why) in [
        (healthy.clone(), Freeze::No, State::Live, EffectiveReason::Requested),
        (StateInputs { has_no_flip: true, ..healthy.clone() }, Freeze::No, State::Live, EffectiveReason::Unproven),
        (StateInputs { gate: Some(State::Dark), ..healthy.clone() }, Freeze::No, State::Dark, EffectiveReason::Gate),
        (StateInputs { guard: Some(State::Dark), ..healthy.clone() }, Freeze::No, State::Dark, EffectiveReason::Guard),
        (StateInputs { healthy: false, ..healthy.clone() }, Freeze::No, State::Shadow, EffectiveReason::Health),
        (healthy.clone(), Freeze::Instances, State::Shadow, EffectiveReason::Freeze),
        (
            StateInputs { guard: Some(State::Off), ..healthy.clone() },
            Freeze::Effects,
            State::Off,
            EffectiveReason::Guard,
        ),
        (
            StateInputs { healthy: false, guard: Some(State::Off), ..state_inputs(State::Only) },
            Freeze::Effects,
            State::Only,
            EffectiveReason::Requested,
        ),
        (
            StateInputs { gate: Some(State::Live), guard: Some(State::Dark), ..state_inputs(State::Only) },
            Freeze::No,
            State::Dark,
            EffectiveReason::Guard,
        ),
        (state_inputs(State::Shadow), Freeze::Effects, State::Shadow, EffectiveReason::Requested),
        (state_inputs(State::Off), Freeze::Effects, State::Off, EffectiveReason::Requested),
    ] {
        assert_eq!(state_inputs.effective(freeze), Effective { state, why }, "{state_inputs:?} {freeze:?}");
    }
}

#[test]
fn cohorts_are_taken_in_order_and_capped() {
    let staff = "request.headers[\"x-staff\"] == \"1\"";
    let cohorts = [("request.headers[\"absent\"] == 1", State::Off), (staff, State::Live), ("true", State::Dark)];
    let set = family(&state_inputs(State::Off), Freeze::No, &cohorts);
    let (decision, diagnostics) = TestRequest::new().with("x-staff", "1").decide_with_diagnostics(&set, "create");
    assert_eq!(decision, engine(State::Live, true, EngineReason::Cohort));
    assert_eq!(diagnostics.cohort_errors, 1, "an absent header is an error, which counts as false");
    let (decision, diagnostics) = TestRequest::new().decide_with_diagnostics(&set, "create");
    assert_eq!((decision, diagnostics.cohort_errors), (legacy(State::Dark, EngineWork::Dark), 2));
    assert!(set.route(&"create".into()).unwrap().can_be_above_off(), "its cohort is above `off`");

    let live = family(&state_inputs(State::Live), Freeze::No, &cohorts);
    let decision = TestRequest::new().with("x-staff", "1").decide(&live, "create");
    assert_eq!(decision, engine(State::Live, true, EngineReason::Rung), "so is everybody");

    let frozen = family(&state_inputs(State::Off), Freeze::Instances, &cohorts);
    assert_eq!(
        TestRequest::new().with("x-staff", "1").decide(&frozen, "create"),
        legacy(State::Shadow, EngineWork::Rehearse)
    );
    let only = family(&state_inputs(State::Only), Freeze::Instances, &cohorts);
    assert_eq!(TestRequest::new().decide(&only, "create"), engine(State::Only, false, EngineReason::Rung));
}

/// Without `force` a cohort is at most on the rung that its route reached by evidence for all callers, but never below
/// callers outside the cohort.
#[test]
fn a_cohort_without_force_is_capped_by_the_evidence_of_its_route() {
    let mut create = route("create", Method::POST, "/orders");
    create.key = Some(Template::parse_str("${request.headers[\"x-tenant\"]}").unwrap());
    let when = Expression::parse("request.headers[\"x-staff\"] == \"1\"").unwrap();
    create.cohorts = vec![Cohort { name: "staff".into(), when, state: State::Live, force: None }];
    let with = |state, live, proven| {
        let inputs = StateInputs { shares: percents(100.0, 100.0, live), proven, ..state_inputs(state) };
        set(vec![create.clone()], [("create".into(), inputs)].into(), Freeze::No)
    };
    let staff = |set: &FlagSet| TestRequest::tenant("t").with("x-staff", "1").decide(set, "create");
    let live = engine(State::Live, true, EngineReason::Rung);
    let dark = legacy(State::Dark, EngineWork::Dark);
    assert_eq!(staff(&with(State::Live, 0.0, State::Live)), live);
    assert_eq!(staff(&with(State::Live, 0.0, State::Dark)), dark, "the evidence supports `dark` only");
    assert_eq!(staff(&with(State::Live, 0.0, State::Off)), dark, "by the share of the route");
    assert_eq!(staff(&with(State::Live, 100.0, State::Off)), live, "like everybody else");
    assert_eq!(staff(&with(State::Off, 100.0, State::Off)), legacy(State::Shadow, EngineWork::Rehearse));
}

#[test]
fn callers_without_a_key_value_are_outside_shares_of_dark_and_live() {
    let set = with_shares(State::Live, percents(100.0, 50.0, 50.0));
    for request in [TestRequest::new(), TestRequest::tenant("")] {
        let (decision, diagnostics) = request.decide_with_diagnostics(&set, "create");
        assert_eq!(decision, legacy(State::Shadow, EngineWork::Rehearse));
        assert!(diagnostics.without_key);
    }
    let everybody = with_shares(State::Live, percents(100.0, 50.0, 100.0));
    let (decision, diagnostics) = TestRequest::new().decide_with_diagnostics(&everybody, "create");
    assert_eq!((decision, diagnostics.without_key), (engine(State::Live, true, EngineReason::Rung), false));
}

#[test]
fn shares_are_respected_and_lower_rungs_keep_theirs() {
    let set = with_shares(State::Live, percents(30.0, 40.0, 10.0));
    let (mut live, mut dark, mut shadow, mut not_sampled) = (0, 0, 0, 0);
    for n in 0..20_000 {
        match TestRequest::tenant(format!("tenant-{n}")).decide(&set, "create") {
            Decision::Engine { rung: State::Live, .. } => live += 1,
            Decision::Legacy { rung: State::Dark, .. } => dark += 1,
            Decision::Legacy { rung: State::Shadow, engine_work: EngineWork::Rehearse } => shadow += 1,
            Decision::Legacy { engine_work: EngineWork::Skip(SkipReason::NotSampled), .. } => not_sampled += 1,
            other => panic!("{other:?}"),
        }
    }
    // 10 % are live; the 40 % of dark include these; of the other 60 %, 30 % are sampled, by an independent hash.
    for (count, share) in [(live, 0.10), (dark, 0.30), (shadow, 0.18), (not_sampled, 0.42)] {
        let measured = f64::from(count) / 20_000.0;
        assert!((measured - share).abs() < 0.015, "{measured} for {share}");
    }
}

#[test]
fn without_a_key_shadow_samples_requests() {
    let route = route("plain", Method::POST, "/plain");
    let shares = percents(25.0, 100.0, 100.0);
    let inputs = [("plain".into(), StateInputs { shares, ..state_inputs(State::Shadow) })].into();
    let set = set(vec![route], inputs, Freeze::No);
    let rehearsed = |n: u64| {
        let request = TestRequest { random: n.wrapping_mul(0x9e37_79b9_7f4a_7c15), ..TestRequest::new() };
        request.decide(&set, "plain") == legacy(State::Shadow, EngineWork::Rehearse)
    };
    let count = (0..10_000).filter(|n| rehearsed(*n)).count();
    assert!((2_300..2_700).contains(&count), "{count}");
}

#[test]
fn retry_keys_are_scoped_by_route_and_caller() {
    let set = at(State::Live);
    let key = |id: &str, headers: &[(&'static str, &str)]| {
        let headers: HeaderMap =
            headers.iter().map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap())).collect();
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
            now_s: 0,
        };
        set.retry_keys(set.route(&id.into()).unwrap(), &facts).expect("a clear key")
    };
    let one = key("create", &[("idempotency-key", "k"), ("authorization", "a")]);
    assert!(one.is_some());
    assert_eq!(one, key("create", &[("idempotency-key", "k"), ("authorization", "a")]));
    let repeated = key("create", &[("idempotency-key", "k"), ("authorization", "a"), ("authorization", "a")]);
    assert_eq!(one, repeated, "the same caller, named twice");
    let two_callers = key("create", &[("idempotency-key", "k"), ("authorization", "a"), ("authorization", "b")]);
    assert!(two_callers.is_some() && two_callers != one && two_callers != repeated);
    for other in [
        key("follow", &[("idempotency-key", "k"), ("authorization", "a")]),
        key("create", &[("idempotency-key", "k"), ("authorization", "b")]),
        key("create", &[("idempotency-key", "l"), ("authorization", "a")]),
        key("create", &[("idempotency-key", "k")]),
    ] {
        assert!(other.is_some() && other.map(|keys| keys.scoped) != one.map(|keys| keys.scoped));
    }
    let any = |keys: Option<RetryKeys>| keys.and_then(|keys| keys.any_caller);
    assert!(any(one).is_some());
    assert_eq!(
        any(one),
        any(key("create", &[("idempotency-key", "k"), ("authorization", "b")])),
        "a refreshed credential"
    );
    assert_ne!(any(one), any(key("create", &[("idempotency-key", "l"), ("authorization", "a")])));
    assert_eq!(key("create", &[("authorization", "a")]), None);
    assert_eq!(key("create", &[("idempotency-key", "")]), None);
}

/// A retry key that is not UTF-8, such as a name in Latin-1, is a key of its own.
#[test]
fn retry_keys_of_different_bytes_are_different() {
    let template = |text: &str| Some(Template::parse_str(text).unwrap());
    let by_header =
        Route { retry_key: template("${request.headers[\"x-order\"]}"), ..route("by-header", Method::POST, "/orders") };
    let by_query = Route { retry_key: template("${request.query.order}"), ..route("by-query", Method::POST, "/paid") };
    let set = set(vec![by_header, by_query], BTreeMap::new(), Freeze::No);
    let key = |id: &str, header: &[u8], query: &str| {
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static("x-order"),
            http::HeaderValue::from_bytes(header).unwrap(),
        )]);
        let facts = RequestFacts {
            method: &Method::POST,
            path: "/orders",
            matched_path: "/orders",
            query: Some(query),
            headers: &headers,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            params: &[],
            random: 0,
            owner: Owner::NoPin,
            now_s: 0,
        };
        set.retry_keys(set.route(&id.into()).unwrap(), &facts).expect("a clear key").expect("a key")
    };
    let header = |value: &[u8]| key("by-header", value, "");
    assert_eq!(header(b"M\xfcller"), header(b"M\xfcller"));
    assert_ne!(header(b"M\xfcller"), header(b"M\xf6ller"));
    assert_ne!(header(b"M\xfcller"), header("Müller".as_bytes()));
    let query = |value: &str| key("by-query", b"", &format!("order={value}"));
    assert_eq!(query("M%FCller"), query("M%fcller"));
    assert_ne!(query("M%FCller"), query("M%F6ller"));
    assert_ne!(query("M%FCller"), query("M%25FCller"));
}
