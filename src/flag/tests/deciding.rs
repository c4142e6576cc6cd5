//! What requests get from a set.

use std::net::{IpAddr, Ipv4Addr};

use http::HeaderMap;

use super::*;
use crate::expression::{Expression, Template};

/// A request that is easy to vary.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) draw: u64,
    pub(super) owner: Owner,
    pub(super) first_try: Option<Arm>,
}

impl Ask {
    pub(super) fn new() -> Self {
        Self { method: Method::POST, headers: Vec::new(), draw: 0, owner: Owner::Nobody, first_try: None }
    }
    pub(super) fn tenant(name: impl Into<String>) -> Self {
        Self { headers: vec![("x-tenant", name.into())], ..Self::new() }
    }
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
    pub(super) fn ask(&self, set: &FlagSet, id: &str) -> (Decision, Notes) {
        let headers: HeaderMap = self
            .headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let facts = RequestFacts {
            method: &self.method,
            path: "/orders",
            query: None,
            headers: &headers,
            params: &[],
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            draw: self.draw,
            owner: self.owner,
            first_try: self.first_try,
            now_s: 0,
        };
        let mut notes = Notes::default();
        let decision = decide_noting(set, set.route(&id.into()).unwrap(), &facts, &mut notes);
        assert_eq!(decision, decide(set, set.route(&id.into()).unwrap(), &facts));
        (decision, notes)
    }
    pub(super) fn decide(&self, set: &FlagSet, id: &str) -> Decision {
        self.ask(set, id).0
    }
}

pub(super) fn percents(shadow: f64, dark: f64, live: f64) -> Shares {
    let percent = |number| Percent::new(number).unwrap();
    Shares { shadow: percent(shadow), dark: percent(dark), live: percent(live) }
}

/// A creator and its follower, both with this standing.
pub(super) fn family(standing: &Standing, freeze: Freeze, cohorts: &[(&str, State)]) -> FlagSet {
    let mut create = route("create", Method::POST, "/orders");
    create.key = Some(Template::parse_str("${request.headers[\"x-tenant\"]}").unwrap());
    create.instance = Some(Instance::Creates { id: serde_json_path::JsonPath::parse("$.id").unwrap() });
    let cohort = |(when, state): &(&str, State)| Cohort {
        name: "some".into(),
        when: Expression::parse(when).unwrap(),
        state: *state,
        force: Some("a test".into()),
    };
    create.cohorts = cohorts.iter().map(cohort).collect();
    let mut follow = route("follow", Method::GET, "/orders/{id}");
    follow.key = create.key.clone();
    follow.instance = Some(Instance::Follows { creator: "create".into(), param: "id".into() });
    let standings = ["create", "follow"].map(|id| (id.into(), standing.clone())).into();
    set(vec![create, follow], standings, freeze)
}

fn at(state: State) -> FlagSet {
    family(&standing(state), Freeze::No, &[])
}

pub(super) fn shared(state: State, shares: Shares) -> FlagSet {
    family(&Standing { shares, ..standing(state) }, Freeze::No, &[])
}

fn legacy(rung: State, other: Other) -> Decision {
    Decision::Legacy { rung, other }
}
pub(super) fn engine(rung: State, may_fall_back: bool, because: Because) -> Decision {
    Decision::Engine { rung, may_fall_back, because }
}
fn skip(reason: SkipReason) -> Other {
    Other::Skip(reason)
}

#[test]
fn each_rung_adds_one_commitment() {
    for (state, decision) in [
        (State::Off, legacy(State::Off, Other::None)),
        (State::Shadow, legacy(State::Shadow, Other::Rehearse)),
        (State::Dark, legacy(State::Dark, Other::Dark)),
        (State::Live, engine(State::Live, true, Because::Rung)),
        (State::Only, engine(State::Only, false, Because::Rung)),
    ] {
        assert_eq!(Ask::new().decide(&at(state), "create"), decision, "{state}");
    }
}

#[test]
fn an_instance_stays_with_its_owner() {
    for state in State::ALL {
        for freeze in [Freeze::No, Freeze::Instances, Freeze::Effects] {
            let set = family(&standing(state), freeze, &[]);
            let ask = |owner| Ask { owner, method: Method::GET, ..Ask::new() }.decide(&set, "follow");
            let effective = set.route(&"follow".into()).unwrap().effective.state;
            assert_eq!(ask(Owner::Engine), engine(effective, false, Because::Pin), "{state} {freeze:?}");
            assert!(matches!(ask(Owner::Unknown), Decision::Nobody { .. }), "{state} {freeze:?}");
        }
    }
    for (state, alone, twin) in [
        (State::Off, legacy(State::Off, Other::None), legacy(State::Off, Other::None)),
        (State::Shadow, legacy(State::Shadow, skip(SkipReason::NoInstance)), legacy(State::Shadow, Other::Rehearse)),
        (State::Dark, legacy(State::Dark, skip(SkipReason::NoTwin)), legacy(State::Dark, Other::Dark)),
        (State::Live, legacy(State::Live, skip(SkipReason::NoTwin)), legacy(State::Live, Other::Dark)),
        (State::Only, engine(State::Only, false, Because::Rung), engine(State::Only, false, Because::Rung)),
    ] {
        let ask = |owner| Ask { owner, method: Method::GET, ..Ask::new() }.decide(&at(state), "follow");
        assert_eq!(ask(Owner::Nobody), alone, "{state}");
        assert_eq!(ask(Owner::LegacyWithTwin), twin, "{state}");
    }
}

#[test]
fn a_retry_stays_on_its_arm() {
    for state in State::ALL {
        let ask = |arm| Ask { first_try: Some(arm), ..Ask::new() }.decide(&at(state), "create");
        assert_eq!(ask(Arm::Engine), engine(state, state != State::Only, Because::Retry), "{state}");
        match state {
            State::Off => assert_eq!(ask(Arm::Legacy), legacy(state, Other::None)),
            State::Only => assert!(matches!(ask(Arm::Legacy), Decision::Nobody { rung: State::Only, .. })),
            _ => assert_eq!(ask(Arm::Legacy), legacy(state, skip(SkipReason::Retried))),
        }
    }
}

#[test]
fn what_cannot_be_held_against_each_other_is_skipped() {
    for (ask, reason) in [
        (Ask { method: Method::HEAD, ..Ask::new() }, SkipReason::Conditional),
        (Ask::new().with("if-none-match", "\"x\""), SkipReason::Conditional),
        (Ask::new().with("range", "bytes=0-1"), SkipReason::Conditional),
        (Ask::new().with("upgrade", "websocket"), SkipReason::Streaming),
    ] {
        assert_eq!(ask.decide(&at(State::Shadow), "create"), legacy(State::Shadow, skip(reason)));
        assert_eq!(ask.decide(&at(State::Dark), "create"), legacy(State::Dark, skip(reason)));
        assert_eq!(ask.decide(&at(State::Live), "create"), engine(State::Live, true, Because::Rung));
    }
}

#[test]
fn guard_health_and_freeze_lower_all_but_only() {
    let well = standing(State::Live);
    for (standing, freeze, state, why) in [
        (well.clone(), Freeze::No, State::Live, Why::Requested),
        (Standing { unproven: true, ..well.clone() }, Freeze::No, State::Live, Why::Unproven),
        (Standing { gate: Some(State::Dark), ..well.clone() }, Freeze::No, State::Dark, Why::Gate),
        (Standing { guard: Some(State::Dark), ..well.clone() }, Freeze::No, State::Dark, Why::Guard),
        (Standing { healthy: false, ..well.clone() }, Freeze::No, State::Shadow, Why::Health),
        (well.clone(), Freeze::Instances, State::Shadow, Why::Freeze),
        (Standing { guard: Some(State::Off), ..well.clone() }, Freeze::Effects, State::Off, Why::Guard),
        (
            Standing { healthy: false, guard: Some(State::Off), ..standing(State::Only) },
            Freeze::Effects,
            State::Only,
            Why::Requested,
        ),
        (
            Standing { gate: Some(State::Live), guard: Some(State::Dark), ..standing(State::Only) },
            Freeze::No,
            State::Dark,
            Why::Guard,
        ),
        (standing(State::Shadow), Freeze::Effects, State::Shadow, Why::Requested),
        (standing(State::Off), Freeze::Effects, State::Off, Why::Requested),
    ] {
        assert_eq!(standing.effective(freeze), Effective { state, why }, "{standing:?} {freeze:?}");
    }
}

#[test]
fn cohorts_are_taken_in_order_and_capped() {
    let staff = "request.headers[\"x-staff\"] == \"1\"";
    let cohorts = [("request.headers[\"absent\"] == 1", State::Off), (staff, State::Live), ("true", State::Dark)];
    let set = family(&standing(State::Off), Freeze::No, &cohorts);
    let (decision, notes) = Ask::new().with("x-staff", "1").ask(&set, "create");
    assert_eq!(decision, engine(State::Live, true, Because::Rung));
    assert_eq!(notes.cohort_errors, 1, "an absent header is an error, and that is a no");
    let (decision, notes) = Ask::new().ask(&set, "create");
    assert_eq!((decision, notes.cohort_errors), (legacy(State::Dark, Other::Dark), 2));
    assert!(set.route(&"create".into()).unwrap().is_flagged(), "a cohort above off is a flag above off");

    let frozen = family(&standing(State::Off), Freeze::Instances, &cohorts);
    assert_eq!(Ask::new().with("x-staff", "1").decide(&frozen, "create"), legacy(State::Shadow, Other::Rehearse));
    let only = family(&standing(State::Only), Freeze::Instances, &cohorts);
    assert_eq!(Ask::new().decide(&only, "create"), engine(State::Only, false, Because::Rung));
}

#[test]
fn without_a_key_value_dark_and_live_do_not_take_a_caller() {
    let set = shared(State::Live, percents(100.0, 50.0, 50.0));
    for ask in [Ask::new(), Ask::tenant("")] {
        let (decision, notes) = ask.ask(&set, "create");
        assert_eq!(decision, legacy(State::Shadow, Other::Rehearse));
        assert!(notes.without_key);
    }
    let everybody = shared(State::Live, percents(100.0, 50.0, 100.0));
    let (decision, notes) = Ask::new().ask(&everybody, "create");
    assert_eq!((decision, notes.without_key), (engine(State::Live, true, Because::Rung), false));
}

#[test]
fn shares_are_about_right_and_floors_hold() {
    let set = shared(State::Live, percents(30.0, 40.0, 10.0));
    let (mut live, mut dark, mut shadow, mut not_sampled) = (0, 0, 0, 0);
    for n in 0..20_000 {
        match Ask::tenant(format!("tenant-{n}")).decide(&set, "create") {
            Decision::Engine { rung: State::Live, .. } => live += 1,
            Decision::Legacy { rung: State::Dark, .. } => dark += 1,
            Decision::Legacy { rung: State::Shadow, other: Other::Rehearse } => shadow += 1,
            Decision::Legacy { other: Other::Skip(SkipReason::NotSampled), .. } => not_sampled += 1,
            other => panic!("{other:?}"),
        }
    }
    // 10 % live; the dark 40 % hold those; of the 60 % outside, 30 % are sampled, by another hash.
    for (count, share) in [(live, 0.10), (dark, 0.30), (shadow, 0.18), (not_sampled, 0.42)] {
        let measured = f64::from(count) / 20_000.0;
        assert!((measured - share).abs() < 0.015, "{measured} for {share}");
    }
}

#[test]
fn without_a_key_shadow_samples_requests() {
    let route = route("plain", Method::POST, "/plain");
    let shares = percents(25.0, 100.0, 100.0);
    let standings = [("plain".into(), Standing { shares, ..standing(State::Shadow) })].into();
    let set = set(vec![route], standings, Freeze::No);
    let rehearsed = |n: u64| {
        let ask = Ask { draw: n.wrapping_mul(0x9e37_79b9_7f4a_7c15), ..Ask::new() };
        ask.decide(&set, "plain") == legacy(State::Shadow, Other::Rehearse)
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
            query: None,
            headers: &headers,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            params: &[],
            draw: 0,
            owner: Owner::Nobody,
            first_try: None,
            now_s: 0,
        };
        set.retry_keys(set.route(&id.into()).unwrap(), &facts)
    };
    let one = key("create", &[("idempotency-key", "k"), ("authorization", "a")]);
    assert!(one.is_some());
    assert_eq!(one, key("create", &[("idempotency-key", "k"), ("authorization", "a")]));
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
    assert_eq!(any(one), any(key("create", &[("idempotency-key", "k"), ("authorization", "b")])), "a refreshed one");
    assert_ne!(any(one), any(key("create", &[("idempotency-key", "l"), ("authorization", "a")])));
    assert_eq!(key("create", &[("authorization", "a")]), None);
    assert_eq!(key("create", &[("idempotency-key", "")]), None);
}
