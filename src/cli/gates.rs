//! What routes still need for their next rung, as `status` shows it.

use super::format::{Formatter, Tone, count, counted, escape_control, fitted};
use crate::admin::types::{GateRow, RouteRow};

/// Of more routes than these, only the number is shown.
const ROUTES_SHOWN_MAX: usize = 20;

/// One line for each route that is neither in `off` nor on the highest rung.
pub(crate) fn lines(routes: &[RouteRow], format: Formatter) -> String {
    let mut gates = routes.iter().filter_map(|route| Some((route, route.gate.as_ref()?)));
    let shown = gates.by_ref().take(ROUTES_SHOWN_MAX);
    let mut lines: String = shown.map(|(route, gate)| line(route.id.as_str(), gate, format)).collect();
    let left = gates.count();
    if left > 0 {
        lines.push_str(&format!(
            "and {} (`pointsman evidence ROUTE` says what each needs)\n",
            counted(left as u64, "more route")
        ));
    }
    lines
}

fn line(route: &str, gate: &GateRow, format: Formatter) -> String {
    let GateRow { to, verdict: _, needs, more } = gate;
    let Some(needs) = needs else {
        return format!("{route} to {to}: {}\n", format.tone("the gate is open", Tone::Good));
    };
    let more = match more {
        0 => String::new(),
        more => format!(" (and {} more: `pointsman evidence {route}`)", count(*more)),
    };
    fitted(&format!("{route} to {to}: {}{more}\n", escape_control(needs)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::GateVerdict;
    use crate::flag::State;

    #[test]
    fn the_line_of_a_gate_names_the_first_unmet_condition() {
        let gate = |needs: Option<&str>, more| GateRow {
            to: State::Dark,
            verdict: GateVerdict::Inconclusive,
            needs: needs.map(str::to_owned),
            more,
        };
        let text = |needs, more| line("a", &gate(needs, more), Formatter(false));
        assert_eq!(text(None, 0), "a to dark: the gate is open\n");
        assert_eq!(text(Some("needs 2 more pairs"), 0), "a to dark: needs 2 more pairs\n");
        assert_eq!(
            text(Some("needs 2 more pairs"), 1),
            "a to dark: needs 2 more pairs (and 1 more: `pointsman evidence a`)\n"
        );
    }
}
