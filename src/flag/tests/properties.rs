//! What holds for every set and every request.

use proptest::prelude::*;

use super::deciding::{Ask, engine, family, percents, shared};
use super::*;

fn some_state() -> impl Strategy<Value = State> {
    (0..5usize).prop_map(|n| State::ALL[n])
}

prop_compose! {
    fn some_standing()(
        requested in some_state(),
        (shadow, dark, live) in (0..=100u8, 0..=100u8, 0..=100u8),
        gate in proptest::option::weighted(0.2, some_state()),
        guard in proptest::option::weighted(0.3, some_state()),
        healthy in proptest::bool::weighted(0.8),
        unproven in any::<bool>(),
    ) -> Standing {
        Standing {
            requested,
            shares: percents(shadow.into(), dark.into(), live.into()),
            unproven, gate, guard, healthy,
        }
    }
}

fn some_freeze() -> impl Strategy<Value = Freeze> {
    prop_oneof![4 => Just(Freeze::No), 1 => Just(Freeze::Instances), 1 => Just(Freeze::Effects)]
}

prop_compose! {
    fn some_ask()(
        method in prop_oneof![Just(Method::POST), Just(Method::GET), Just(Method::HEAD)],
        tenant in proptest::option::weighted(0.8, 0..500u32),
        staff in any::<bool>(),
        conditional in proptest::bool::weighted(0.1),
        draw in any::<u64>(),
        owner in prop_oneof![
            4 => Just(Owner::Nobody), 1 => Just(Owner::Engine), 1 => Just(Owner::LegacyWithTwin), 1 => Just(Owner::Unknown)
        ],
        first_try in prop_oneof![4 => Just(None), 1 => Just(Some(Arm::Legacy)), 1 => Just(Some(Arm::Engine))],
    ) -> Ask {
        let mut ask = match tenant {
            Some(tenant) => Ask::tenant(tenant.to_string()),
            None => Ask::new(),
        };
        if staff { ask = ask.with("x-staff", "1") }
        if conditional { ask = ask.with("if-match", "*") }
        Ask { method, draw, owner, first_try, ..ask }
    }
}

/// In which arms a shared effect is real.
fn real(decision: Decision) -> Vec<Arm> {
    match decision {
        // Neither a rehearsal nor a dark run sends shared steps.
        Decision::Legacy { other: Other::None | Other::Skip(_) | Other::Rehearse | Other::Dark, .. } => {
            vec![Arm::Legacy]
        }
        // Legacy answers only where the engine has begun nothing and never will.
        Decision::Engine { .. } => vec![Arm::Engine],
        Decision::Nobody { .. } => vec![],
    }
}

/// How far up a decision is.
fn height(decision: Decision) -> u8 {
    match decision {
        Decision::Legacy { other: Other::Skip(SkipReason::NotSampled), .. } => 0,
        Decision::Legacy { rung, .. } | Decision::Engine { rung, .. } | Decision::Nobody { rung, .. } => rung.rank(),
    }
}

const STAFF: &str = "request.headers[\"x-staff\"] == \"1\"";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn every_request_has_one_safe_decision(
        standing in some_standing(), freeze in some_freeze(), ask in some_ask(),
        follow in any::<bool>(), cohort in proptest::option::weighted(0.5, some_state()),
    ) {
        let cohorts: Vec<_> = cohort.map(|state| (STAFF, state)).into_iter().collect();
        let set = family(&standing, freeze, &cohorts);
        let id = if follow { "follow" } else { "create" };
        let flag = set.route(&id.into()).unwrap();
        let effective = flag.effective.state;
        let decision = ask.decide(&set, id);
        let pinned = ask.owner == Owner::Engine;
        let retried = ask.first_try.is_some();

        // Totality is that we are here. A shared effect is real in at most one arm, and in one unless nobody answers.
        prop_assert_eq!(real(decision).len(), usize::from(!matches!(decision, Decision::Nobody { .. })));
        // `only` never names legacy.
        if effective == State::Only {
            let named = matches!(decision, Decision::Legacy { .. } | Decision::Engine { may_fall_back: true, .. });
            prop_assert!(!named, "{:?}", decision);
        }
        if let Decision::Legacy { rung, .. } = decision {
            prop_assert!(rung < State::Only);
        }
        // What the engine owns is the engine's.
        if pinned {
            prop_assert_eq!(decision, engine(effective, false, Because::Pin));
        }
        // A retry stays, or nobody answers it.
        if let Some(arm) = ask.first_try && !pinned && ask.owner != Owner::Unknown {
            prop_assert!(real(decision).iter().all(|real| *real == arm), "{:?}", decision);
        }
        // The engine answers something new only where a rung says so, and no rung is above the cap but `only`.
        if let Decision::Engine { rung, because: Because::Rung, .. } = decision {
            prop_assert!(rung >= State::Live && !pinned && !retried);
            prop_assert!(rung <= flag.cap || effective == State::Only);
        }
        if let Decision::Legacy { other: Other::Dark, .. } = decision {
            prop_assert!(flag.cap >= State::Dark);
        }
        // A follow-up of nothing that the engine knows is not given to it below `only`.
        if follow && ask.owner == Owner::Nobody && effective != State::Only && !retried {
            let untouched = matches!(decision, Decision::Legacy { other: Other::None | Other::Skip(_), .. });
            prop_assert!(untouched, "{:?}", decision);
        }
    }

    #[test]
    fn raising_a_share_only_adds_keys(
        state in some_state(), shares in (0..=100u8, 0..=100u8, 0..=100u8), rung in 0..3usize, to in 0..=100u8,
        ask in some_ask(),
    ) {
        let ask = Ask { owner: Owner::Nobody, first_try: None, ..ask };
        let mut numbers = [shares.0, shares.1, shares.2];
        let build = |n: [u8; 3]| shared(state, percents(n[0].into(), n[1].into(), n[2].into()));
        let before = ask.decide(&build(numbers), "create");
        numbers[rung] = numbers[rung].max(to);
        let after = ask.decide(&build(numbers), "create");
        prop_assert!(height(after) >= height(before), "{:?} then {:?}", before, after);
    }

    #[test]
    fn lowering_a_state_lowers_every_request(
        standing in some_standing(), lower in some_state(), freeze in some_freeze(), ask in some_ask(),
    ) {
        let ask = Ask { owner: Owner::Nobody, first_try: None, ..ask };
        let below = Standing { requested: lower.min(standing.requested), ..standing.clone() };
        // From `only`, which nothing lowers by itself, a step down meets guard, health and freeze: lower all the same.
        let before = ask.decide(&family(&standing, freeze, &[]), "create");
        let after = ask.decide(&family(&below, freeze, &[]), "create");
        prop_assert!(height(after) <= height(before), "{:?} then {:?}", before, after);
        if below.requested < State::Live {
            prop_assert!(!matches!(after, Decision::Engine { .. }), "{:?}", after);
        }
    }

    #[test]
    fn who_is_live_would_be_dark(live in 0..=100u8, more in 0..=100u8, tenant in 0..5_000u32) {
        let dark = live.saturating_add(more).min(100);
        let ask = Ask::tenant(tenant.to_string());
        let is_live = matches!(
            ask.decide(&shared(State::Live, percents(0.0, 0.0, live.into())), "create"),
            Decision::Engine { .. }
        );
        let is_dark = matches!(
            ask.decide(&shared(State::Dark, percents(0.0, dark.into(), 0.0)), "create"),
            Decision::Legacy { rung: State::Dark, .. }
        );
        prop_assert!(!is_live || is_dark);
    }
}
