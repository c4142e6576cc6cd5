//! The gates of a flip as text: each condition with what was wanted and what was found, as the gate judged it.

use serde_json::Value;

use super::format::escape_control;

/// How many characters of what was found are shown; `--json` has all of it.
const FOUND_SHOWN: usize = 80;

/// The gates in the entry of a flip; empty if it passed none, or an earlier version wrote the entry.
pub(super) fn text(gates: &Value) -> String {
    let gates = gates.as_array().into_iter().flatten();
    let shown = gates.map(|gate| {
        let conditions = gate["conditions"].as_array().into_iter().flatten().map(condition);
        let conditions: Vec<String> = conditions.collect();
        format!("gate {} to {}: {}", plain(&gate["from"]), plain(&gate["to"]), conditions.join("; "))
    });
    shown.collect::<Vec<_>>().join("; ")
}

fn condition(of: &Value) -> String {
    let wanted = of["wanted"].as_str().map(|wanted| format!(" {}", escape_control(wanted))).unwrap_or_default();
    let failed = match of["verdict"].as_str() {
        Some("pass") | None => String::new(),
        Some(verdict) => format!(" {}", escape_control(verdict)),
    };
    let found = plain(&of["found"]);
    let cut = match found.char_indices().nth(FOUND_SHOWN) {
        Some((end, _)) => format!("{}…", &found[..end]),
        None => found,
    };
    format!("{}{wanted}{failed} ({cut})", plain(&of["name"]))
}

fn plain(value: &Value) -> String {
    value.as_str().map(escape_control).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_condition_has_what_was_wanted_and_what_was_found() {
        let condition = |name: &str, wanted: Option<&str>, verdict: &str, found: &str| json!({ "name": name, "verdict": verdict, "wanted": wanted, "found": found });
        let conditions = [
            condition("pairs", Some("1"), "pass", "1 compared pairs of 1"),
            condition("twins", None, "fail", &"long ".repeat(40)),
        ];
        let gates = json!([{ "from": "shadow", "to": "dark", "conditions": conditions }]);
        let cut = "long ".repeat(16);
        let expected = format!("gate shadow to dark: pairs 1 (1 compared pairs of 1); twins fail ({cut}…)");
        assert_eq!(text(&gates), expected);
        assert_eq!(text(&Value::Null), "");
    }
}
