//! The models, round-tripped through Grafana's own schema: what it does not know would be lost.

use std::process::Command;

use serde_json::Value;

use super::{dashboards, directory};

/// Reads each file as Grafana's types and writes it again, one line for each.
const ROUND_TRIP: &str = r"
import json, sys
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
plugins.register_default_plugins()
for name in sys.argv[1:]:
    with open(name) as file:
        print(json.dumps(json.loads(JSONEncoder().encode(Dashboard.from_json(json.load(file))))))
";
/// What only an export for import has, and what only the data source Prometheus knows of an annotation.
const NOT_IN_THE_SCHEMA: [&str; 5] = ["__inputs", "__requires", "titleFormat", "tagKeys", "step"];

/// Adds what is lost or changed from `ours` to `theirs`; they may have more, such as defaults.
fn compare(ours: &Value, theirs: &Value, place: &str, lost: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in ours.iter().filter(|(key, _)| !NOT_IN_THE_SCHEMA.contains(&key.as_str())) {
                match theirs.get(key) {
                    Some(their) => compare(value, their, &format!("{place}.{key}"), lost),
                    None => lost.push(format!("{place}.{key}")),
                }
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                compare(ours, theirs, &format!("{place}[{at}]"), lost);
            }
        }
        (ours, theirs) if ours == theirs => {}
        (ours, theirs) => lost.push(format!("{place}: {ours} became {theirs}")),
    }
}

#[test]
fn grafana_knows_every_part_of_the_models() {
    let python = std::env::var("POINTSMAN_GRAFANA_SDK_PYTHON")
        .expect("POINTSMAN_GRAFANA_SDK_PYTHON names a Python with grafana-foundation-sdk: tests/run installs it");
    let all = dashboards();
    let output = Command::new(&python)
        .args(["-c", ROUND_TRIP])
        .args(all.iter().map(|dashboard| directory().join(&dashboard.file)))
        .output()
        .unwrap_or_else(|e| panic!("{python}: {e}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let models: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(models.len(), all.len());
    for (dashboard, theirs) in all.iter().zip(&models) {
        let mut lost = Vec::new();
        compare(&dashboard.model, theirs, "", &mut lost);
        assert!(lost.is_empty(), "{}: Grafana's schema does not have\n{}", dashboard.file, lost.join("\n"));
        // The comparison sees what is lost: the schema has no such key.
        let mut changed = dashboard.model.clone();
        changed["panels"][1]["titel"] = "a slip".into();
        compare(&changed, theirs, "", &mut lost);
        assert_eq!(lost, [".panels[1].titel"]);
    }
}
