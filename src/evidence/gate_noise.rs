//! The condition `noise_not_worse_by`: what may hide behind the noise of legacy.

use super::bound::ALPHA;
use super::conditions::{Condition, ConditionName as Name, GateVerdict as Verdict, pass};
use super::gate::JudgedRoute;
use super::noise_places::order_at;

impl JudgedRoute<'_> {
    /// The condition on the places at which pairs count as equal by noise: there the engine may differ from legacy more
    /// often than legacy from itself, but at most by so much. `None` if there is no such place.
    pub(super) fn noise(&self) -> Option<Condition> {
        let (noise, wanted) = (&self.evidence.noise, self.promote.noise_not_worse_by);
        let ignored = noise.groups.values().filter(|group| group.is_ignored);
        let excess = |place: &String| noise.excess(place, ALPHA).1;
        let (at_most, place) = ignored
            .flat_map(|group| &group.places)
            // An order counts as noise once legacy was seen not to keep it; how often it does not keep it does not
            // matter.
            .filter(|place| order_at(place).is_none())
            .map(|place| (excess(place), place))
            .max_by(|(a, _), (b, _)| a.total_cmp(b))?;
        let found = format!(
            "`{place}` differs by noise: the engine may differ there up to {:.1} % more often than legacy from itself, by {} \
             repeated requests",
            (at_most * 1e3).ceil() / 10.0,
            noise.repeats
        );
        if at_most <= wanted || wanted >= 1.0 {
            return Some(pass(Name::NoiseNotWorseBy, found));
        }
        let detail = format!(
            "{found}; at most {} % are allowed: wait for more repeated requests (a larger `noise:` repeats more, up to \
             100 %), or say by a rule what may differ there",
            wanted * 100.0
        );
        Some(Condition { name: Name::NoiseNotWorseBy, verdict: Verdict::Inconclusive, detail })
    }
}
