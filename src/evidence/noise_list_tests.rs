//! Noise below lists: how many elements differ decides, so that noise at one does not hide a defect at another.

use super::noise::ALPHA;
use super::noise_places::DifferingPlaces;
use super::noise_tests::{Counted, of};

const PRICE: &str = "value $.items[*].price";
const ITEMS: usize = 5;

/// Replies that differ at the price of so many elements.
fn elements(count: u32) -> DifferingPlaces {
    match count {
        0 => of(&[]),
        _ => DifferingPlaces { elements: [(PRICE.to_owned(), count)].into(), ..of(&[PRICE]) },
    }
}

impl Counted {
    fn repeat_elements(&mut self, engine: u32, again: u32) {
        assert!(self.evidence.count_repeat(&mut self.legacy, &elements(engine), &elements(again), true));
    }
}

/// The prices of a reply: each is unusual with the probability `noise`, and the last one if it is wrong.
fn prices(noise: f64, is_wrong: bool, random: &mut fastrand::Rng) -> Vec<u64> {
    let mut prices: Vec<u64> = (0..ITEMS).map(|_| if random.f64() < noise { random.u64(1..) } else { 0 }).collect();
    if is_wrong {
        prices[ITEMS - 1] = 7;
    }
    prices
}

fn differing(a: &[u64], b: &[u64]) -> u32 {
    u32::try_from(a.iter().zip(b).filter(|(a, b)| a != b).count()).unwrap()
}

#[test]
fn a_place_below_a_list_is_noise_while_the_engine_differs_in_no_more_elements() {
    let mut counted = Counted::new();
    assert!(!counted.pair(&[PRICE]), "legacy was not seen to differ");
    counted.repeat_elements(1, 2);
    counted.repeat_elements(2, 1);
    assert_eq!((counted.evidence.mismatched, counted.evidence.ignored), (0, 1));
    assert!(counted.pair(&[PRICE]));
    let outcomes = counted.evidence.noise.places[PRICE];
    assert_eq!((outcomes.both, outcomes.only_engine, outcomes.only_legacy), (0, 1, 1));
    counted.repeat_elements(3, 3);
    counted.repeat_elements(0, 1);
    let outcomes = counted.evidence.noise.places[PRICE];
    assert_eq!((outcomes.both, outcomes.only_engine, outcomes.only_legacy), (1, 1, 2));
    // Legacy differs in one element each time, and the engine in one more.
    (0..30).for_each(|_| counted.repeat_elements(2, 1));
    assert!(counted.differs_more(PRICE) && !counted.pair(&[PRICE]));
    assert_eq!((counted.evidence.mismatched, counted.evidence.ignored), (3, 0), "those of the past count, too");
    counted.check_sums();
}

/// 500 histories of 100 repeated requests, with a look after each.
#[test]
fn an_engine_whose_elements_differ_as_often_as_those_of_legacy_is_rarely_blamed() {
    let mut random = fastrand::Rng::with_seed(61);
    for noise in [0.1, 0.6] {
        let is_blamed = |_: &usize| {
            let mut counted = Counted::new();
            (0..100).any(|_| {
                let mut reply = || prices(noise, false, &mut random);
                let (first, again, engine) = (reply(), reply(), reply());
                counted.repeat_elements(differing(&engine, &first), differing(&again, &first));
                counted.differs_more(PRICE)
            })
        };
        let blamed = (0..500).filter(is_blamed).count();
        assert!(blamed as f64 <= 500.0 * ALPHA + 7.0, "seed 61, noise {noise}: {blamed} of 500");
    }
}

/// Legacy always differs from itself somewhere in the list, so that the place as a whole always differs: only the
/// number of elements tells that the last one is wrong.
#[test]
fn a_wrong_element_beside_noisy_ones_is_found() {
    let mut random = fastrand::Rng::with_seed(62);
    for (noise, within) in [(0.05, 60), (0.3, 600)] {
        for _ in 0..50 {
            let mut counted = Counted::new();
            let found = (1..=within).any(|_| {
                let (first, again) = (prices(noise, false, &mut random), prices(noise, false, &mut random));
                let engine = prices(noise, true, &mut random);
                // The first element is drawn anew by both.
                counted.repeat_elements(1 + differing(&engine, &first), 1 + differing(&again, &first));
                counted.differs_more(PRICE)
            });
            assert!(found, "seed 62, noise {noise}: not within {within} repeated requests");
        }
    }
}
