//! Orders of calls that legacy does not always keep.

use super::EvidenceBasis;
use super::noise_tests::{comparison, replied};
use super::testing::evidence;
use crate::compare::{Comparison, DifferenceKind, Verdict};
use crate::flag::State;
use crate::names::RouteId;

/// Whether or not the route is declared safe to repeat.
#[tokio::test]
async fn an_order_that_legacy_does_not_always_keep_is_no_difference() {
    let order = "effects.charge, effects.mail";
    let (evidence, _store) = evidence().await;
    let route = RouteId::from("orders");
    evidence.set_basis(0, &[(route.clone(), EvidenceBasis::from("w1"))]);
    let pair = |places: &[(DifferenceKind, &str)], not_kept: &[&str]| {
        let not_kept = not_kept.iter().map(|order| (*order).to_owned()).collect();
        let comparison = Comparison { orders_not_kept: not_kept, ..comparison(places) };
        let generation = evidence.generation(&route, 0);
        evidence.record_pair(&route, generation, State::Shadow, &comparison, &replied(), &replied())
    };
    let counted = || {
        let route = evidence.of(&route);
        (route.mismatched, route.ignored, route.matched)
    };
    let in_order = (DifferenceKind::EffectOrder, order);
    let missing = (DifferenceKind::EffectMissing, "effects.bank POST /fees");
    assert_eq!(pair(&[in_order], &[]), Verdict::Mismatch);
    assert_eq!(pair(&[in_order, missing], &[]), Verdict::Mismatch);
    assert_eq!(pair(&[in_order, (DifferenceKind::Value, "$.at")], &[]), Verdict::Mismatch);
    assert_eq!(counted(), (3, 0, 0));
    assert_eq!(pair(&[], &["effects.mail, effects.charge"]), Verdict::Match, "that is another order");
    assert_eq!(counted(), (3, 0, 1));
    assert_eq!(pair(&[], &[order]), Verdict::Match);
    assert_eq!(counted(), (2, 1, 2), "the earlier pair counts as equal, those that differ otherwise too do not");
    assert_eq!(pair(&[in_order], &[]), Verdict::Ignored);
    assert_eq!(pair(&[in_order, missing], &[]), Verdict::Mismatch);
    assert_eq!(counted(), (3, 2, 2));
}
