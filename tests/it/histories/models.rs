//! What a keyed order and the flag of a route are, if one does one thing after the other.

use super::checker::Model;

/// A keyed order: taken once, by one arm, and answered alike from then on.
pub struct KeyedOrder;

/// The answer to an order: what both arms and all reads say of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// Legacy's ids are numbers, the engine's are texts.
    pub id: String,
    /// Whether the engine performed it.
    pub by_engine: bool,
    /// Its other fields.
    pub rest: String,
}

/// The state of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyState {
    /// No request has taken it.
    Free,
    /// A request with this body has taken it. The answer is known once somebody got it.
    Taken { body: u8, answer: Option<Answer> },
}

/// What one try of an order, or a read of it, did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOperation {
    /// A try with this body got the answer of the order.
    Ordered { body: u8, answer: Answer },
    /// A try with this body was refused, since another body came with the key.
    OtherBody { body: u8 },
    /// It is not known whether a try with this body did something.
    Unknown { body: u8 },
    /// A read found the order.
    Read(Answer),
    /// A read did not find the order.
    NotFound,
}

impl Model for KeyedOrder {
    type State = KeyState;
    type Operation = KeyOperation;

    fn apply(state: &KeyState, operation: &KeyOperation) -> Option<KeyState> {
        use KeyState::{Free, Taken};
        let answered = |body: u8, answer: &Answer| Taken { body, answer: Some(answer.clone()) };
        match (operation, state) {
            (KeyOperation::Ordered { body, answer }, Free) => Some(answered(*body, answer)),
            (KeyOperation::Ordered { body, answer }, Taken { body: taken, answer: known }) => {
                let is_same = body == taken && known.as_ref().is_none_or(|known| known == answer);
                is_same.then(|| answered(*body, answer))
            }
            (KeyOperation::OtherBody { body }, Taken { body: taken, .. }) => (body != taken).then(|| state.clone()),
            (KeyOperation::OtherBody { .. }, Free) => None,
            (KeyOperation::Unknown { body }, Free) => Some(Taken { body: *body, answer: None }),
            (KeyOperation::Unknown { .. }, Taken { .. }) => Some(state.clone()),
            (KeyOperation::Read(answer), Taken { body, answer: known }) => {
                known.as_ref().is_none_or(|known| known == answer).then(|| answered(*body, answer))
            }
            (KeyOperation::Read(_), Free) => None,
            (KeyOperation::NotFound, Free) => Some(Free),
            (KeyOperation::NotFound, Taken { .. }) => None,
        }
    }
}

/// The rungs, from the lowest.
pub const RUNGS: [&str; 5] = ["off", "shadow", "dark", "live", "only"];

/// The requested state of a route in one process, with the number of the flip that made it so.
pub struct Flag;

/// A rung, by its place in [`RUNGS`], and the number of the flip that made it so: 0 before the first, and in reads of a
/// flip down that is in force and has no number because it is not recorded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InForce {
    pub rung: usize,
    pub number: u64,
}

/// What one command or read of a flag did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlagOperation {
    /// A flip, which says from where it moved the route, if that is known.
    Flip { from: Option<usize>, to: InForce },
    /// A read.
    Read(InForce),
}

impl Model for Flag {
    type State = InForce;
    type Operation = FlagOperation;

    fn apply(state: &InForce, operation: &FlagOperation) -> Option<InForce> {
        match operation {
            FlagOperation::Flip { from, to } => {
                let is_next = to.number > state.number && from.is_none_or(|from| from == state.rung);
                is_next.then_some(*to)
            }
            FlagOperation::Read(read) => {
                let is_same = read.rung == state.rung && (read.number == 0 || read.number == state.number);
                is_same.then_some(*state)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::checker::{Timed, Verdict, check};
    use super::*;

    fn answer(id: &str) -> Answer {
        Answer { id: id.to_owned(), by_engine: false, rest: String::new() }
    }

    fn ordered(body: u8, id: &str) -> KeyOperation {
        KeyOperation::Ordered { body, answer: answer(id) }
    }

    /// Each operation in its interval; one that ends at 0 did not return.
    fn holds(history: &[(u64, u64, KeyOperation)]) -> bool {
        let timed = |(invoked, returned, operation): &(u64, u64, KeyOperation)| Timed {
            invoked: *invoked,
            returned: (*returned > 0).then_some(*returned),
            operation: operation.clone(),
        };
        let history: Vec<_> = history.iter().map(timed).collect();
        matches!(check::<KeyedOrder>(KeyState::Free, &history, 10_000), Verdict::Linearizable(_))
    }

    #[test]
    fn all_tries_of_an_order_get_one_answer() {
        assert!(holds(&[(0, 5, ordered(0, "1")), (1, 7, ordered(0, "1")), (8, 9, KeyOperation::Read(answer("1")))]));
        assert!(!holds(&[(0, 5, ordered(0, "1")), (1, 7, ordered(0, "2"))]), "performed twice");
        assert!(!holds(&[(0, 5, ordered(0, "1")), (8, 9, KeyOperation::Read(answer("2")))]));
        assert!(!holds(&[(0, 5, ordered(0, "1")), (8, 9, KeyOperation::NotFound)]), "lost");
        assert!(holds(&[(0, 5, KeyOperation::NotFound), (1, 9, ordered(0, "1"))]));
        assert!(!holds(&[(0, 1, KeyOperation::Read(answer("1"))), (2, 3, ordered(0, "1"))]));
    }

    #[test]
    fn another_body_is_refused_once_the_key_is_taken() {
        let other = KeyOperation::OtherBody { body: 1 };
        assert!(holds(&[(0, 5, ordered(0, "1")), (1, 2, other.clone())]), "while the first one is performed");
        assert!(!holds(&[(0, 1, other.clone()), (2, 5, ordered(0, "1"))]), "before anybody took it");
        assert!(!holds(&[(0, 5, ordered(0, "1")), (1, 7, ordered(1, "1"))]), "the answer of another order");
        assert!(!holds(&[(0, 5, ordered(1, "1")), (1, 7, other.clone())]), "its own body");
        assert!(holds(&[(0, 0, KeyOperation::Unknown { body: 0 }), (1, 7, other.clone())]), "an unknown try took it");
        assert!(!holds(&[(1, 7, other), (8, 0, KeyOperation::Unknown { body: 0 })]));
    }

    #[test]
    fn an_unknown_try_may_have_taken_the_key_and_has_one_answer() {
        let unknown = |body| KeyOperation::Unknown { body };
        assert!(holds(&[(0, 0, unknown(0)), (1, 2, ordered(0, "1")), (3, 4, ordered(0, "1"))]));
        assert!(holds(&[(0, 0, unknown(1)), (1, 2, ordered(0, "1"))]), "it did nothing");
        assert!(!holds(&[(0, 0, unknown(0)), (1, 2, ordered(0, "1")), (3, 4, ordered(0, "2"))]));
        assert!(!holds(&[(0, 0, unknown(1)), (1, 2, ordered(0, "1")), (3, 4, ordered(1, "2"))]));
    }

    #[test]
    fn a_flag_is_moved_from_where_it_was_and_read_where_it_is() {
        let at = |rung, number| InForce { rung, number };
        let flip = |from, rung, number| FlagOperation::Flip { from, to: at(rung, number) };
        let holds = |history: &[(u64, u64, FlagOperation)]| {
            let timed = |(invoked, returned, operation): &(u64, u64, FlagOperation)| Timed {
                invoked: *invoked,
                returned: (*returned > 0).then_some(*returned),
                operation: operation.clone(),
            };
            let history: Vec<_> = history.iter().map(timed).collect();
            matches!(check::<Flag>(at(0, 0), &history, 10_000), Verdict::Linearizable(_))
        };
        let read = |rung, number| FlagOperation::Read(at(rung, number));
        assert!(holds(&[(0, 1, flip(Some(0), 1, 4)), (2, 3, read(1, 4)), (4, 5, flip(Some(1), 2, 7))]));
        assert!(!holds(&[(0, 1, flip(Some(0), 1, 4)), (2, 3, read(0, 0))]), "stale");
        assert!(!holds(&[(0, 9, flip(Some(0), 1, 4)), (0, 9, flip(Some(0), 2, 5))]), "from one state twice");
        assert!(!holds(&[(0, 1, flip(None, 1, 5)), (2, 3, flip(None, 2, 4))]), "a lower number later");
        assert!(!holds(&[(0, 1, flip(None, 1, 5)), (2, 3, read(1, 4))]), "the same state of another flip");
        assert!(holds(&[(0, 0, flip(None, 1, 5)), (2, 3, read(0, 0)), (4, 5, read(1, 0)), (6, 7, read(1, 5))]));
        assert!(!holds(&[(0, 0, flip(None, 1, 5)), (2, 3, read(1, 5)), (4, 5, read(0, 0))]), "and back");
    }
}
