//! Noise below lists: which elements differ decides, so that noise at one does not hide a defect at another.

use super::noise::ALPHA;
use super::noise_places::DifferingPlaces;
use super::noise_tests::{Counted, of};
use crate::compare::DifferingElements;

const PRICE: &str = "value $.items[*].price";
const ITEMS: usize = 5;

/// Replies that differ at the prices of these elements.
fn elements(differing: &[u64]) -> DifferingPlaces {
    let known = || DifferingElements::new(differing.iter().copied(), false);
    match differing {
        [] => of(&[]),
        _ => DifferingPlaces { elements: [(PRICE.to_owned(), known())].into(), ..of(&[PRICE]) },
    }
}

impl Counted {
    fn repeat_elements(&mut self, engine: &[u64], again: &[u64]) {
        assert!(self.evidence.count_repeat(&mut self.legacy, &elements(engine), &elements(again), true));
    }
}

/// The prices of a reply: each is unusual with the probability `noise`.
fn prices(noise: f64, random: &mut fastrand::Rng) -> [u64; ITEMS] {
    std::array::from_fn(|_| if random.f64() < noise { random.u64(1..) } else { 0 })
}

fn differing(a: [u64; ITEMS], b: [u64; ITEMS]) -> Vec<u64> {
    (0..).zip(a.iter().zip(b)).filter(|(_, (a, b))| **a != *b).map(|(n, _)| n).collect()
}

#[test]
fn a_place_below_a_list_is_noise_while_the_engine_differs_in_no_other_elements() {
    let mut counted = Counted::new();
    assert!(!counted.pair(&[PRICE]), "legacy was not seen to differ");
    counted.repeat_elements(&[1], &[1, 2]);
    counted.repeat_elements(&[1, 2], &[1]);
    assert_eq!((counted.evidence.mismatched, counted.evidence.ignored), (0, 1));
    assert!(counted.pair(&[PRICE]));
    let outcomes = counted.evidence.noise.places[PRICE];
    assert_eq!((outcomes.both, outcomes.only_engine, outcomes.only_legacy), (0, 1, 1));
    counted.repeat_elements(&[1, 2, 3], &[1, 2, 3]);
    counted.repeat_elements(&[], &[1]);
    counted.repeat_elements(&[2], &[1]);
    let outcomes = counted.evidence.noise.places[PRICE];
    assert_eq!((outcomes.both, outcomes.only_engine, outcomes.only_legacy), (1, 2, 2));
    // Legacy differs in one element each time, which the engine has right, and the engine in another one.
    (0..30).for_each(|_| counted.repeat_elements(&[2], &[1]));
    assert!(counted.differs_more(PRICE) && !counted.pair(&[PRICE]));
    assert_eq!((counted.evidence.mismatched, counted.evidence.ignored), (3, 0), "those of the past count, too");
    counted.check_sums();
}

/// 500 histories of 100 repeated requests, with a look after each. In some requests all prices are drawn anew, in the
/// others none.
#[test]
fn an_engine_that_differs_in_the_elements_in_which_legacy_does_is_rarely_blamed() {
    let mut random = fastrand::Rng::with_seed(61);
    for noise in [0.1, 0.6, 1.0] {
        let is_blamed = |_: &usize| {
            let mut counted = Counted::new();
            (0..100).any(|_| {
                let mut reply = || prices(if random.f64() < noise { 1.0 } else { 0.0 }, &mut random);
                let (first, again, engine) = (reply(), reply(), reply());
                counted.repeat_elements(&differing(engine, first), &differing(again, first));
                counted.differs_more(PRICE)
            })
        };
        let blamed = (0..500).filter(is_blamed).count();
        assert!(blamed as f64 <= 500.0 * ALPHA + 7.0, "seed 61, noise {noise}: {blamed} of 500");
    }
}

/// Legacy always differs from itself somewhere in the list, so that the place as a whole always differs, and in as many
/// elements as the engine: only which elements these are tells that the last one is wrong.
#[test]
fn a_wrong_element_beside_noisy_ones_is_found() {
    let mut random = fastrand::Rng::with_seed(62);
    for is_shuffled in [false, true] {
        for _ in 0..50 {
            let mut counted = Counted::new();
            let found = (1..=40).any(|_| {
                let first = if is_shuffled { random.u64(0..ITEMS as u64 - 1) } else { 0 };
                counted.repeat_elements(&[ITEMS as u64 - 1], &[first]);
                counted.differs_more(PRICE)
            });
            assert!(found, "seed 62, shuffled: {is_shuffled}");
        }
    }
    for (noise, within) in [(0.05, 60), (0.3, 60)] {
        let mut counted = Counted::new();
        let found = (1..=within).any(|_| {
            let (first, again) = (prices(noise, &mut random), prices(noise, &mut random));
            let mut engine = prices(noise, &mut random);
            engine[ITEMS - 1] = 7;
            counted.repeat_elements(&differing(engine, first), &differing(again, first));
            counted.differs_more(PRICE)
        });
        assert!(found, "seed 62, noise {noise}: not within {within} repeated requests");
    }
}
