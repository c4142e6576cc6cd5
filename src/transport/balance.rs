//! Which of several addresses gets a request.
//!
//! Two addresses are drawn at random, with probabilities in proportion to their weights. The one that has fewer
//! requests in flight in relation to its weight gets the request ("the power of two choices": M. Mitzenmacher, IEEE
//! TPDS 12(10), 2001). So a slow address gets fewer requests, and no address gets all of them because it has just
//! become free.

/// One address, as the choice sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// 0 if the address may get no request.
    pub weight: u64,
    pub in_flight: u64,
}

/// Returns the index of the address that gets a request; `None` if all weights are 0. `random` returns a random number
/// below its argument.
pub(super) fn choose(
    count: usize,
    candidate: impl Fn(usize) -> Candidate,
    mut random: impl FnMut(u64) -> u64,
) -> Option<usize> {
    let total: u64 = (0..count).map(|index| candidate(index).weight).sum();
    if total == 0 {
        return None;
    }
    let mut draw = || {
        let mut left = random(total);
        (0..count).find(|index| {
            let weight = candidate(*index).weight;
            let drawn = left < weight;
            left = left.saturating_sub(weight);
            drawn
        })
    };
    let (first, second) = (draw()?, draw()?);
    let (a, b) = (candidate(first), candidate(second));
    // a.in_flight / a.weight <= b.in_flight / b.weight
    Some(if a.in_flight * b.weight <= b.in_flight * a.weight { first } else { second })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of 10,000 requests each of the addresses gets, if none is in flight when the next one comes.
    fn shares(weights: &[u64]) -> Vec<usize> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut counts = vec![0; weights.len()];
        for _ in 0..10_000 {
            let candidate = |index: usize| Candidate { weight: weights[index], in_flight: 0 };
            counts[choose(weights.len(), candidate, |below| random.u64(..below)).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn each_address_gets_the_share_of_its_weight() {
        for (weights, expected) in [(vec![1, 1], [5_000, 5_000]), (vec![300, 100], [7_500, 2_500])] {
            for (count, expected) in shares(&weights).into_iter().zip(expected) {
                assert!(count.abs_diff(expected) < 200, "{weights:?}: {count}");
            }
        }
        assert_eq!(shares(&[0, 5, 0])[1], 10_000);
    }

    #[test]
    fn the_less_loaded_one_of_two_gets_the_request() {
        let mut random = fastrand::Rng::with_seed(7);
        let loads = [Candidate { weight: 1, in_flight: 9 }, Candidate { weight: 1, in_flight: 0 }];
        let chosen = (0..1_000).map(|_| choose(2, |index| loads[index], |below| random.u64(..below)).unwrap());
        let to_loaded = chosen.filter(|index| *index == 0).count();
        assert!((150..350).contains(&to_loaded), "only where both draws are the loaded one: {to_loaded}");
    }

    #[test]
    fn without_a_weight_there_is_no_choice() {
        assert_eq!(choose(2, |_| Candidate { weight: 0, in_flight: 0 }, |_| 0), None);
        assert_eq!(choose(0, |_| Candidate { weight: 1, in_flight: 0 }, |_| 0), None);
    }
}
