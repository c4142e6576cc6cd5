//! Warns of shared steps that nothing compares before the engine makes their calls in `live`.

use super::checked_files::Routes;
use crate::flag::State;
use crate::problem::Problems;

/// Warns of routes in `dark` or above with such steps, where legacy's calls are not watched: no pair can compare them,
/// so the gate to `live` stays shut.
pub(crate) fn warn(has_egress: bool, routes: &Routes, problems: &mut Problems) {
    if has_egress {
        return;
    }
    for (site, route) in &routes.routes {
        let highest = route.cohorts.iter().map(|cohort| cohort.state).fold(route.declared, State::max);
        let is_asked = highest >= State::Dark && route.promote.effects_compared;
        let Some(rules) = routes.rules.get(&route.id).filter(|_| is_asked) else { continue };
        let steps: Vec<String> = rules
            .shared_steps_to_compare()
            .iter()
            .filter(|step| !rules.asserts_read(step))
            .map(|step| format!("`{step}`"))
            .collect();
        let Some(first) = steps.first().map(|step| step.trim_matches('`')) else { continue };
        let noun = if steps.len() == 1 { "step" } else { "steps" };
        let message = format!(
            "nothing compares the calls of the shared {noun} {} with legacy's, so the gate to `live` stays shut",
            steps.join(", ")
        );
        problems.warn(&site.key("workflow"), message).hint(format!(
            "let legacy make its calls through `egress:`, add an `assert:` over `intents.{first}`, or say in \
             `compare.effects.{first}.unseen` why they are not seen"
        ));
    }
}
