//! Calls that legacy made meanwhile and that belong to no known request.

use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value, json};

use super::tests::{charge, found};
use crate::compare::tests::{BOUNDS, reply, rules};
use crate::compare::{DifferenceKind, Observation, Pair, compare};
use crate::names::StepId;

/// Of the step `charge` legacy made a call that names no request.
#[test]
fn a_call_that_may_be_one_that_was_not_attributed_is_not_extra() {
    let legacy = reply(200, &[], "");
    let engine = |steps: Vec<StepId>| {
        let (body, intents) = (legacy.body().clone(), vec![charge(json!({"amount": 1}))]);
        let engine = Observation::new(legacy.status(), HeaderMap::new(), body, Duration::ZERO, intents);
        engine.with_unattributed_steps(steps)
    };
    for (step, is_difference) in [("charge", false), ("mail", true)] {
        let engine = engine(vec![step.into()]);
        let (effects, request) = (Some(&[][..]), &Value::Null);
        let (stale_reads, instance, sensitive) = (false, None, None);
        let pair = Pair { legacy: &legacy, engine: &engine, effects, request, stale_reads, instance, sensitive };
        let comparison = compare(&pair, &rules(json!({})), &BOUNDS, &|| false).unwrap();
        assert_eq!(found(&comparison) == [("effects.charge", DifferenceKind::EffectExtra)], is_difference, "{step}");
        assert_eq!(comparison.lacks_calls_of(engine.unattributed_steps()), !is_difference, "{step}");
    }
}
