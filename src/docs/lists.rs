//! Lists within topics that are made from the code, so that they cannot be out of date.

use serde_json::Value;

use crate::limits::Limits;
use crate::telemetry;

/// Every metric with its kind, its labels and what it says.
pub(super) fn metrics() -> String {
    let mut text = String::new();
    for (kind, metrics) in telemetry::metrics() {
        for (name, help) in metrics {
            let labels: Vec<String> = telemetry::labels_of(name).iter().map(|label| format!("`{label}`")).collect();
            let labels = if labels.is_empty() { String::new() } else { format!(" by {}", labels.join(", ")) };
            text.push_str(&format!("- `{name}` ({kind}{labels}): {help}\n"));
        }
    }
    text
}

/// Every limit with its default and what it bounds.
pub(super) fn limits() -> String {
    let schema = schemars::schema_for!(Limits).to_value();
    let defaults = serde_json::to_value(Limits::default()).unwrap_or_default();
    let mut text = String::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let about = property["description"].as_str().unwrap_or_default();
        text.push_str(&format!("- `{name}` ({}): {}\n", defaults.get(name).unwrap_or(&Value::Null), joined(about)));
    }
    text
}

/// A description in one line.
fn joined(about: &str) -> String {
    about.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_listed_with_their_defaults() {
        let text = limits();
        assert!(text.contains("- `retry_window_s` (86400): "), "{text}");
        assert!(text.lines().all(|line| !line.ends_with(": ")), "each says what it bounds:\n{text}");
    }

    #[test]
    fn metrics_are_listed_with_their_kinds() {
        let text = metrics();
        assert!(text.contains("- `pointsman_flags_age_seconds` (gauge): "), "{text}");
        assert!(text.contains("- `pointsman_flag_state` (gauge by `kind`, `route`): "), "{text}");
    }
}
