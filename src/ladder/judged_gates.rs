//! Judges the gates on the way of a move. A move is judged once: what refuses it and what its record says of its gates
//! are from the same judgement.

use super::gate::{Gate, RequestedMove};
use super::gate_condition::Unmet;
use super::gate_judgement::{JudgedGates, Judgement};
use super::positions::{Positions, RoutePosition};
use crate::flag::State;

impl Gate {
    /// Judges the gates on the way of a move; none on the way down.
    pub(super) fn judged_gates(
        &self,
        positions: &Positions,
        position: &RoutePosition,
        requested: &RequestedMove,
    ) -> JudgedGates {
        let (from, to) = (position.rung(), requested.to);
        let is_raised = |rung: State| position.reached(rung).is_some_and(|reached| requested.shares.of(rung) > reached);
        let judged = |from, to| self.judgement(positions, position, (from, to));
        // If more callers come to a rung, its gate is judged again, also on the way down to that rung: force may have
        // overridden the gate, or the evidence may have turned bad since.
        let on_the_way = match to.below().filter(|_| is_raised(to)) {
            Some(below) => vec![judged(below, to)],
            None => {
                let gates = State::ALL.windows(2).filter(|pair| pair[0] >= from && pair[1] <= to);
                gates.map(|pair| judged(pair[0], pair[1])).collect()
            }
        };
        let of_dark = (to == State::Live && is_raised(State::Dark)).then(|| judged(State::Shadow, State::Dark));
        JudgedGates { on_the_way, of_dark }
    }

    fn judgement(&self, positions: &Positions, position: &RoutePosition, (from, to): (State, State)) -> Judgement {
        let others = self.unmet_other_conditions(positions, position, from, to);
        let of_followers = match to {
            State::Live => self.unmet_of_followers(positions, position).collect(),
            State::Off | State::Shadow | State::Dark | State::Only => Vec::new(),
        };
        Judgement {
            from,
            to,
            conditions: self.conditions(positions, position, from, to),
            others: others.into_iter().map(|Unmet { why, since: _ }| why).collect(),
            of_followers,
        }
    }
}
