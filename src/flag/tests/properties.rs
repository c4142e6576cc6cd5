//! Properties that hold for every set and every request.

use proptest::prelude::*;

use super::decisions::{TestRequest, engine, family, percents, with_shares};
use super::*;

fn some_state() -> impl Strategy<Value = State> {
    (0..5usize).prop_map(|n| State::ALL[n])
}

prop_compose! {
    fn some_state_inputs()(
        requested in some_state(),
        (shadow, dark, live) in (0..=100u8, 0..=100u8, 0..=100u8),
        gate in proptest::option::weighted(0.2, some_state()),
        guard in proptest::option::weighted(0.3, some_state()),
        healthy in proptest::bool::weighted(0.8),
        has_no_flip in any::<bool>(),
        proven in some_state(),
        own in proptest::option::weighted(0.3, some_state()),
    ) -> StateInputs {
        StateInputs {
            requested,
            shares: percents(shadow.into(), dark.into(), live.into()),
            has_no_flip, gate, is_held: gate.is_some(), returns_at_restart: false, guard, healthy, proven,
            proven_cohorts: own.into_iter().map(|own| ("some".to_owned(), own)).collect(),
            held_cohorts: Vec::new(), is_changed: false,
        }
    }
}

fn some_freeze() -> impl Strategy<Value = Freeze> {
    prop_oneof![4 => Just(Freeze::No), 1 => Just(Freeze::Instances), 1 => Just(Freeze::Effects)]
}

prop_compose! {
    fn any_request()(
        method in prop_oneof![Just(Method::POST), Just(Method::GET), Just(Method::HEAD)],
        tenant in proptest::option::weighted(0.8, 0..500u32),
        staff in any::<bool>(),
        conditional in proptest::bool::weighted(0.1),
        random in any::<u64>(),
        owner in prop_oneof![
            4 => Just(Owner::NoPin), 1 => Just(Owner::Engine), 1 => Just(Owner::LegacyWithTwin), 1 => Just(Owner::Unknown),
            1 => Just(Owner::Adopted), 1 => Just(Owner::Moving), 1 => Just(Owner::AdoptionUnknown)
        ],
        first_try in prop_oneof![4 => Just(None), 1 => Just(Some(Arm::Legacy)), 1 => Just(Some(Arm::Engine))],
    ) -> TestRequest {
        let mut request = match tenant {
            Some(tenant) => TestRequest::tenant(tenant.to_string()),
            None => TestRequest::new(),
        };
        if staff { request = request.with("x-staff", "1") }
        if conditional { request = request.with("if-match", "*") }
        TestRequest { method, random, owner, first_try, ..request }
    }
}

/// The arms in which a shared effect is real.
fn real(decision: Decision) -> Vec<Arm> {
    match decision {
        // Neither a rehearsal nor a dark run sends shared steps.
        Decision::Legacy {
            engine_work: EngineWork::None | EngineWork::Skip(_) | EngineWork::Rehearse | EngineWork::Dark,
            ..
        } => {
            vec![Arm::Legacy]
        }
        // Legacy answers only if the engine has begun nothing and never will, so that one arm is real.
        Decision::Engine { .. } => vec![Arm::Engine],
        Decision::Nobody { .. } => vec![],
    }
}

/// A number that is higher for a higher rung; 0 if the request was not sampled.
fn height(decision: Decision) -> u8 {
    match decision {
        Decision::Legacy { engine_work: EngineWork::Skip(SkipReason::NotSampled), .. } => 0,
        Decision::Legacy { rung, .. } | Decision::Engine { rung, .. } | Decision::Nobody { rung, .. } => rung.rank(),
    }
}

const STAFF: &str = "request.headers[\"x-staff\"] == \"1\"";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn every_request_has_one_safe_decision(
        state_inputs in some_state_inputs(), freeze in some_freeze(), request in any_request(),
        follow in any::<bool>(), cohort in proptest::option::weighted(0.5, some_state()),
    ) {
        let cohorts: Vec<_> = cohort.map(|state| (STAFF, state)).into_iter().collect();
        let set = family(&state_inputs, freeze, &cohorts);
        let id = if follow { "follow" } else { "create" };
        let flag = set.route(&id.into()).unwrap();
        let effective = flag.effective.state;
        let decision = request.decide(&set, id);
        let pinned = request.owner == Owner::Engine;
        let retried = request.first_try.is_some();

        // A shared effect is real in exactly one arm, or in none if neither arm answers.
        prop_assert_eq!(real(decision).len(), usize::from(!matches!(decision, Decision::Nobody { .. })));
        // `only` never names legacy.
        if effective == State::Only {
            let named = matches!(decision, Decision::Legacy { .. } | Decision::Engine { may_fall_back: true, .. });
            prop_assert!(!named, "{:?}", decision);
        }
        if let Decision::Legacy { rung, .. } = decision {
            prop_assert!(rung < State::Only);
        }
        // The engine answers for the instances that it owns.
        if pinned {
            prop_assert_eq!(decision, engine(effective, false, EngineReason::Pin));
        }
        // A retry stays on its arm, or neither arm answers it.
        let is_unknown = matches!(request.owner, Owner::Unknown | Owner::Moving | Owner::AdoptionUnknown);
        if let Some(arm) = request.first_try && !pinned && !is_unknown {
            prop_assert!(real(decision).iter().all(|real| *real == arm), "{:?}", decision);
        }
        // The engine answers a new request only if a rung says so. No rung but `only` is above the cap.
        if let Decision::Engine { rung, reason: EngineReason::Rung | EngineReason::Cohort, .. } = decision {
            prop_assert!(rung >= State::Live && !pinned && !retried);
            prop_assert!(rung <= flag.cap || effective == State::Only);
        }
        if let Decision::Legacy { engine_work: EngineWork::Dark, .. } = decision {
            prop_assert!(flag.cap >= State::Dark);
        }
        // Below `only` the engine gets no follow-up of an instance that it does not have.
        if follow && request.owner == Owner::NoPin && effective != State::Only && !retried {
            let untouched = matches!(decision, Decision::Legacy { engine_work: EngineWork::None | EngineWork::Skip(_), .. });
            prop_assert!(untouched, "{:?}", decision);
        }
    }

    #[test]
    fn raising_a_share_only_adds_keys(
        state in some_state(), shares in (0..=100u8, 0..=100u8, 0..=100u8), rung in 0..3usize, to in 0..=100u8,
        request in any_request(),
    ) {
        let request = TestRequest { owner: Owner::NoPin, first_try: None, ..request };
        let mut numbers = [shares.0, shares.1, shares.2];
        let build = |n: [u8; 3]| with_shares(state, percents(n[0].into(), n[1].into(), n[2].into()));
        let before = request.decide(&build(numbers), "create");
        numbers[rung] = numbers[rung].max(to);
        let after = request.decide(&build(numbers), "create");
        prop_assert!(height(after) >= height(before), "{:?} then {:?}", before, after);
    }

    #[test]
    fn lowering_a_state_lowers_every_request(
        state_inputs in some_state_inputs(), lower in some_state(), freeze in some_freeze(), request in any_request(),
    ) {
        let request = TestRequest { owner: Owner::NoPin, first_try: None, ..request };
        let below = StateInputs { requested: lower.min(state_inputs.requested), ..state_inputs.clone() };
        // Guard, health and freeze lower no route in `only`, but they lower one in `live`: the result is still lower.
        let before = request.decide(&family(&state_inputs, freeze, &[]), "create");
        let after = request.decide(&family(&below, freeze, &[]), "create");
        prop_assert!(height(after) <= height(before), "{:?} then {:?}", before, after);
        if below.requested < State::Live {
            prop_assert!(!matches!(after, Decision::Engine { .. }), "{:?}", after);
        }
    }

    #[test]
    fn a_caller_in_a_share_of_live_is_in_the_same_share_of_dark(live in 0..=100u8, more in 0..=100u8, tenant in 0..5_000u32) {
        let dark = live.saturating_add(more).min(100);
        let request = TestRequest::tenant(tenant.to_string());
        let is_live = matches!(
            request.decide(&with_shares(State::Live, percents(0.0, 0.0, live.into())), "create"),
            Decision::Engine { .. }
        );
        let is_dark = matches!(
            request.decide(&with_shares(State::Dark, percents(0.0, dark.into(), 0.0)), "create"),
            Decision::Legacy { rung: State::Dark, .. }
        );
        prop_assert!(!is_live || is_dark);
    }
}
