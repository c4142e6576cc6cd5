//! Conditions that the engine's answers to callers have to meet (`invariants:`).

use crate::expression::{EFFECTS, Expression};

/// The most invariants of a route.
pub const INVARIANTS_MAX: usize = 32;
/// The most bytes of the name of an invariant.
pub const INVARIANT_NAME_BYTES_MAX: usize = 80;

/// A condition that each answer of the engine to a caller has to meet.
#[derive(Clone, Debug)]
pub struct Invariant {
    /// Its name: unique in its route, a metric label.
    pub name: String,
    /// Both conditions as they are in the file, but for literals that may be secrets: it is kept and shown. If it is
    /// changed, what was counted of the invariant is not of it.
    pub text: String,
    /// The condition.
    pub that: Expression,
    /// For which answers it is judged; `None`: for those below 400.
    pub when: Option<Expression>,
}

impl Invariant {
    /// Whether it reads what is known only when the run has ended: what it sent, and its status.
    pub fn reads_the_run(&self) -> bool {
        self.that.reads().iter().any(|read| ["run", "intents", EFFECTS].contains(&read.root()))
    }
}
