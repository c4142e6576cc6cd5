//! Whether a history is linearizable: a search after Wing and Gong (1993) that remembers which configurations it has
//! visited, as Lowe (2017) describes and Porcupine does.
//!
//! An operation takes effect at one moment between its invocation and its return. The search places operations one
//! after the other: next may come each that was invoked before any operation that is not placed yet had returned. A
//! configuration, the set of placed operations with the state that they lead to, is visited once. An operation that did
//! not return may take effect at any time after its invocation, or never.
//!
//! Histories of different objects are checked one by one: a history is linearizable if those of its objects are
//! (Herlihy and Wing 1990).

use std::collections::HashSet;
use std::hash::Hash;

/// The sequential behaviour of an object.
pub trait Model {
    /// The state of the object.
    type State: Clone + Eq + Hash;
    /// An operation with its outcome.
    type Operation;
    /// The state after the operation; `None` if the operation cannot have this outcome in this state.
    fn apply(state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;
}

/// An operation and its interval, in nanoseconds of one clock.
#[derive(Clone, Debug)]
pub struct Timed<O> {
    /// Before the operation was sent.
    pub invoked: u64,
    /// After its outcome was there. `None` if it is unknown whether and when it takes effect.
    pub returned: Option<u64>,
    /// The operation.
    pub operation: O,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The operations, by index, in an order in which each is possible.
    Linearizable(Vec<usize>),
    /// There is no such order. The longest that was found, and the operations one of which would have to come next.
    Violation { longest: Vec<usize>, next: Vec<usize> },
    /// More configurations than the bound.
    TooConcurrent,
}

/// Looks for an order of the operations that the model allows, and that keeps the order of those which do not overlap.
/// Visits at most `configurations_max` configurations.
pub fn check<M: Model>(initial: M::State, operations: &[Timed<M::Operation>], configurations_max: usize) -> Verdict {
    let mut sorted: Vec<usize> = (0..operations.len()).collect();
    sorted.sort_by_key(|index| operations[*index].invoked);
    Search::<M> { operations, sorted, placed: Placed::none_of(operations.len()), state: initial }
        .run(configurations_max)
}

/// The positions, in the order of invocations, whose operations are placed.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Placed(Box<[u64]>);

impl Placed {
    fn none_of(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)].into())
    }
    fn has(&self, position: usize) -> bool {
        self.0[position / 64] & (1 << (position % 64)) != 0
    }
    fn flip(&mut self, position: usize) {
        self.0[position / 64] ^= 1 << (position % 64);
    }
    /// The first position that is not placed, or one past the last.
    fn first_open(&self) -> usize {
        let full = self.0.iter().take_while(|word| **word == u64::MAX).count();
        full * 64 + self.0.get(full).map_or(0, |word| word.trailing_ones() as usize)
    }
}

struct Search<'a, M: Model> {
    operations: &'a [Timed<M::Operation>],
    /// The operations' indices, by their invocations.
    sorted: Vec<usize>,
    placed: Placed,
    state: M::State,
}

impl<M: Model> Search<'_, M> {
    fn run(mut self, configurations_max: usize) -> Verdict {
        let mut visited = HashSet::new();
        // What was placed, each with its place among the candidates and the state before.
        let mut path: Vec<(usize, usize, M::State)> = Vec::new();
        let (mut longest, mut next): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
        // The place of the first candidate that was not tried in this configuration.
        let mut from = 0;
        loop {
            let candidates = self.candidates();
            let order = || path.iter().map(|(position, ..)| self.sorted[*position]).collect::<Vec<_>>();
            let Some(candidates) = candidates else { return Verdict::Linearizable(order()) };
            if next.is_empty() || path.len() > longest.len() {
                longest = order();
                next = candidates.iter().map(|position| self.sorted[*position]).collect();
            }
            let possible = candidates.into_iter().enumerate().skip(from).find_map(|(place, position)| {
                let after = M::apply(&self.state, &self.operations[self.sorted[position]].operation)?;
                let mut placed = self.placed.clone();
                placed.flip(position);
                visited.insert((placed, after.clone())).then_some((position, place, after))
            });
            if visited.len() > configurations_max {
                return Verdict::TooConcurrent;
            }
            match possible {
                Some((position, place, after)) => {
                    self.placed.flip(position);
                    path.push((position, place, std::mem::replace(&mut self.state, after)));
                    from = 0;
                }
                None => {
                    let Some((position, place, before)) = path.pop() else {
                        return Verdict::Violation { longest, next };
                    };
                    self.placed.flip(position);
                    self.state = before;
                    from = place + 1;
                }
            }
        }
    }

    /// The positions of the operations that may come next, in the order of their returns, which is often that of their
    /// effects. `None` if all that returned are placed.
    fn candidates(&self) -> Option<Vec<usize>> {
        let (mut open, mut first_return) = (Vec::new(), None);
        for position in self.placed.first_open()..self.sorted.len() {
            let Timed { invoked, returned, .. } = &self.operations[self.sorted[position]];
            if first_return.is_some_and(|first| first < *invoked) {
                break;
            }
            if self.placed.has(position) {
                continue;
            }
            open.push(position);
            first_return = returned.iter().copied().chain(first_return).min();
        }
        let first_return = first_return?;
        open.retain(|position| self.operations[self.sorted[*position]].invoked <= first_return);
        open.sort_by_key(|position| self.operations[self.sorted[*position]].returned.unwrap_or(u64::MAX));
        Some(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register that is written, read, and compared and set.
    struct Register;

    #[derive(Clone, Copy, Debug)]
    enum Access {
        Write(u8),
        Read(u8),
        Swap(u8, u8),
    }
    use Access::{Read, Swap, Write};

    impl Model for Register {
        type State = u8;
        type Operation = Access;
        fn apply(state: &u8, operation: &Access) -> Option<u8> {
            match *operation {
                Write(value) => Some(value),
                Read(value) => (*state == value).then_some(value),
                Swap(from, to) => (*state == from).then_some(to),
            }
        }
    }

    fn at(invoked: u64, returned: u64, operation: Access) -> Timed<Access> {
        Timed { invoked, returned: Some(returned), operation }
    }

    fn lost(invoked: u64, operation: Access) -> Timed<Access> {
        Timed { invoked, returned: None, operation }
    }

    fn is_linearizable(history: &[Timed<Access>]) -> bool {
        match check::<Register>(0, history, 100_000) {
            Verdict::Linearizable(order) => {
                assert!(is_valid(history, &order), "{order:?} of {history:?}");
                true
            }
            Verdict::Violation { .. } => false,
            Verdict::TooConcurrent => panic!("too concurrent"),
        }
    }

    /// Whether an order is possible, has each operation that returned once, and keeps the order of real time.
    fn is_valid(history: &[Timed<Access>], order: &[usize]) -> bool {
        let mut state = Some(0);
        for index in order {
            state = state.and_then(|state| Register::apply(&state, &history[*index].operation));
        }
        let has = |index: usize| order.iter().filter(|placed| **placed == index).count();
        let complete = (0..history.len()).all(|index| match history[index].returned {
            Some(_) => has(index) == 1,
            None => has(index) <= 1,
        });
        let in_order = order.iter().enumerate().all(|(place, later)| {
            order[..place]
                .iter()
                .all(|earlier| history[*later].returned.is_none_or(|returned| returned >= history[*earlier].invoked))
        });
        state.is_some() && complete && in_order
    }

    #[test]
    fn what_happens_one_after_the_other_has_one_order() {
        assert!(is_linearizable(&[]));
        assert!(is_linearizable(&[at(0, 1, Write(1)), at(2, 3, Read(1)), at(4, 5, Write(2)), at(6, 7, Read(2))]));
        assert!(!is_linearizable(&[at(0, 1, Write(1)), at(2, 3, Read(0))]), "a stale read");
        assert!(!is_linearizable(&[at(0, 1, Read(1)), at(2, 3, Write(1))]), "a read of the future");
    }

    #[test]
    fn what_overlaps_may_come_in_any_order_but_in_one() {
        let (write, other) = (at(0, 10, Write(1)), at(0, 10, Write(2)));
        assert!(is_linearizable(&[write.clone(), other.clone(), at(11, 12, Read(1))]));
        assert!(is_linearizable(&[write.clone(), other.clone(), at(11, 12, Read(2))]));
        assert!(!is_linearizable(&[write.clone(), other.clone(), at(11, 12, Read(0))]));
        let reads = [at(11, 12, Read(1)), at(13, 14, Read(2))];
        assert!(!is_linearizable(&[vec![write.clone(), other.clone()], reads.to_vec()].concat()));
        // A new value, and later the old one, while the write goes on.
        assert!(is_linearizable(&[write.clone(), at(1, 2, Read(0)), at(3, 4, Read(1))]));
        assert!(!is_linearizable(&[write.clone(), at(1, 2, Read(1)), at(3, 4, Read(0))]));
        // Intervals that touch overlap.
        assert!(is_linearizable(&[at(0, 5, Write(1)), at(5, 9, Read(0))]));
    }

    #[test]
    fn of_two_swaps_from_one_value_one_succeeds() {
        assert!(!is_linearizable(&[at(0, 9, Swap(0, 1)), at(0, 9, Swap(0, 2))]));
        assert!(is_linearizable(&[at(0, 9, Swap(0, 1)), at(0, 9, Swap(1, 2)), at(10, 11, Read(2))]));
        assert!(!is_linearizable(&[at(0, 9, Swap(0, 1)), at(0, 9, Swap(1, 2)), at(10, 11, Read(1))]));
    }

    #[test]
    fn what_did_not_return_takes_effect_at_any_time_or_never() {
        let write = lost(5, Write(1));
        assert!(is_linearizable(&[write.clone(), at(6, 7, Read(0)), at(8, 9, Read(1))]));
        assert!(is_linearizable(&[write.clone(), at(6, 7, Read(0))]), "never");
        assert!(is_linearizable(&[write.clone(), at(6, 7, Write(2)), at(8, 9, Read(1))]), "late");
        assert!(!is_linearizable(&[write.clone(), at(1, 4, Read(1))]), "before it was invoked");
        assert!(!is_linearizable(&[write, at(6, 7, Read(1)), at(8, 9, Read(0))]), "once");
    }

    #[test]
    fn a_long_chain_of_overlapping_operations_is_followed() {
        let chain = |last: u8| -> Vec<Timed<Access>> {
            let step = |n: u8| at(u64::from(n) * 10, u64::from(n) * 10 + 15, Swap(n, n + 1));
            (0..200).map(step).chain([at(5_000, 5_001, Read(last))]).collect()
        };
        assert!(is_linearizable(&chain(200)));
        assert!(!is_linearizable(&chain(199)));
    }

    #[test]
    fn a_violation_names_the_operations_that_did_not_fit() {
        let history = [at(0, 1, Write(1)), at(2, 3, Read(1)), at(4, 5, Read(7)), at(6, 7, Read(1))];
        let Verdict::Violation { longest, next } = check::<Register>(0, &history, 100) else { panic!("it fits") };
        assert_eq!((longest, next), (vec![0, 1], vec![2]));
    }

    #[test]
    fn a_history_beyond_the_bound_is_not_a_pass() {
        let mut history: Vec<_> = (1..20).map(|value| at(0, 100, Write(value))).collect();
        history.push(at(101, 102, Read(99)));
        assert_eq!(check::<Register>(0, &history, 1_000), Verdict::TooConcurrent);
    }

    /// Random histories: what a register did is linearizable, and the search agrees with one that tries every order.
    #[test]
    fn the_search_agrees_with_all_permutations() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut right, mut wrong) = (0, 0);
        for _ in 0..2_000 {
            let count = random.usize(1..6);
            let history: Vec<Timed<Access>> = (0..count)
                .map(|_| {
                    let invoked = random.u64(..12);
                    let value = random.u8(..3);
                    let operation = [Write(value), Read(value), Swap(random.u8(..3), value)][random.usize(..3)];
                    let returned = (random.u8(..6) > 0).then(|| invoked + random.u64(..8));
                    Timed { invoked, returned, operation }
                })
                .collect();
            let mut orders = Vec::new();
            subsequences(count, &mut Vec::new(), &mut orders);
            let expected = orders.iter().any(|order| is_valid(&history, order));
            assert_eq!(is_linearizable(&history), expected, "{history:?}");
            *(if expected { &mut right } else { &mut wrong }) += 1;
        }
        assert!(right > 200 && wrong > 200, "{right} and {wrong}");
    }

    /// All orders of all subsets.
    fn subsequences(count: usize, order: &mut Vec<usize>, into: &mut Vec<Vec<usize>>) {
        into.push(order.clone());
        for next in 0..count {
            if !order.contains(&next) {
                order.push(next);
                subsequences(count, order, into);
                order.pop();
            }
        }
    }

    /// What clients of a register saw: each operation takes effect at a moment in its interval.
    fn real_history(random: &mut fastrand::Rng, count: usize) -> Vec<Timed<Access>> {
        let mut moments: Vec<u64> = (0..count as u64).map(|n| 100 * n + random.u64(..100)).collect();
        moments.sort_unstable();
        let mut state = 0;
        let mut history = Vec::new();
        for moment in moments {
            let operation = match random.u8(..3) {
                0 => Read(state),
                1 => Write(random.u8(..5)),
                _ => Swap(state, random.u8(..5)),
            };
            state = Register::apply(&state, &operation).expect("it is possible");
            let returned = (random.u16(..400) > 0).then(|| moment + random.u64(..200));
            history.push(Timed { invoked: moment.saturating_sub(random.u64(..200)), returned, operation });
        }
        history
    }

    #[test]
    fn a_large_history_is_checked_and_a_change_in_it_is_found() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..4 {
            let mut history = real_history(&mut random, 700);
            assert!(is_linearizable(&history));
            // A value that nobody wrote.
            let reads = (0..history.len()).filter(|n| matches!(history[*n].operation, Read(_)));
            let read =
                random.choice(reads.filter(|n| history[*n].returned.is_some()).collect::<Vec<_>>()).expect("one");
            history[read].operation = Read(9);
            assert!(!is_linearizable(&history));
        }
    }
}
