//! What is shown of noise.

use std::sync::Arc;

use super::Evidence;
use super::noise_tests::{AT, basis, of};
use super::testing::Memory;
use crate::names::RouteId;

/// While the engine answers 500, nothing is known of the values in the bodies.
#[tokio::test]
async fn the_share_at_a_place_is_that_of_the_repeated_requests_whose_bodies_were_compared() {
    let (evidence, route) = (Evidence::load(Arc::new(Memory::new())).await.unwrap(), RouteId::from("orders.get"));
    evidence.set_basis(0, &[(route.clone(), basis("w1", "n1"))]);
    let status = "status 200 500";
    let repeat = |engine: &[&str], legacy: &[&str], same_class| {
        assert!(evidence.record_repeat(&route, evidence.generation(&route, 0), &of(engine), &of(legacy), same_class));
    };
    for n in 0..200 {
        let at: &[&str] = if n < 120 { &[AT] } else { &[] };
        repeat(&[AT], at, true);
    }
    for _ in 0..119 {
        repeat(&[status], &[AT], false);
    }
    repeat(&[], &[status], false);
    let view = evidence.noise(&route).unwrap();
    assert_eq!((view.repeats, view.bodies_compared), (320, 200));
    let place = |name: &str| view.places.iter().find(|at| at.place == name).unwrap();
    let at = place(AT);
    assert_eq!((at.legacy_differs, at.legacy_compared, at.engine_differs, at.engine_compared), (120, 200, 200, 200));
    assert!(at.rate.at_least < 0.6 && 0.6 < at.rate.at_most, "{at:?}");
    assert!(at.engine_rate.at_least > 0.8 && at.engine_rate.at_most > 0.99, "{at:?}");
    let of_status = place(status);
    assert_eq!((of_status.legacy_differs, of_status.legacy_compared, of_status.engine_differs), (1, 320, 119));
}
