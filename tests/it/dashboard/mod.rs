//! The dashboards, rules and example configurations under `dashboards/`: held against the binary's metrics, Grafana's
//! schema, and a real Prometheus and Alertmanager.

mod alerting;
mod cardinality;
mod demo;
mod grafana;
mod names;
mod promql;
mod rules;
mod server;

pub(crate) use server::Server;

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The directory with what is held.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(directory().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// One dashboard.
struct Dashboard {
    /// Its file.
    file: String,
    model: Value,
}

/// Every dashboard, by file name.
fn dashboards() -> Vec<Dashboard> {
    let entries = std::fs::read_dir(directory()).expect("readable").map(|entry| entry.expect("readable").path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
    files.sort();
    assert!(files.len() >= 5, "the dashboards were found: {files:?}");
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let model = |path: &Path| serde_json::from_str(&std::fs::read_to_string(path).expect("readable")).expect("JSON");
    files.iter().map(|path| Dashboard { file: name(path), model: model(path) }).collect()
}

/// A query, and where it stands.
struct Query {
    place: String,
    text: String,
    /// The labels that its legend or title names, as `{{label}}`.
    shown: String,
}

impl Dashboard {
    fn panels(&self) -> &[Value] {
        self.model["panels"].as_array().expect("panels")
    }
    /// The queries of panels and annotations.
    fn queries(&self) -> Vec<Query> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut queries = Vec::new();
        for panel in self.panels() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().expect("every target has a query").to_owned();
                let place = format!("{}, {}", self.file, text(&panel["title"]));
                queries.push(Query { place, text: query, shown: text(&target["legendFormat"]) });
            }
        }
        for annotation in self.model["annotations"]["list"].as_array().expect("annotations") {
            let query = annotation["expr"].as_str().expect("every annotation has a query").to_owned();
            let place = format!("{}, annotation {}", self.file, text(&annotation["name"]));
            queries.push(Query { place, text: query, shown: text(&annotation["titleFormat"]) });
        }
        assert!(queries.len() > 10, "{}: the panels were found", self.file);
        queries
    }
    /// The queries of the variables: of `label_values(SERIES, LABEL)`, series and label.
    fn variable_queries(&self) -> Vec<(String, String)> {
        let variables = self.model["templating"]["list"].as_array().expect("variables");
        let queries = variables.iter().filter_map(|variable| variable["query"]["query"].as_str());
        queries
            .map(|query| {
                let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
                let (series, label) = inside.and_then(|inside| inside.rsplit_once(", ")).expect("label_values(…, …)");
                (series.to_owned(), label.to_owned())
            })
            .collect()
    }
}

/// A rule of `alerts.yaml`.
struct Rule {
    /// The name of the alert, or of the recorded series.
    name: String,
    expr: String,
    /// `None` of a recording rule.
    alert: Option<Alert>,
}

struct Alert {
    severity: String,
    summary: String,
    description: String,
}

/// Every rule, in order.
fn rules() -> Vec<Rule> {
    let file: Value = serde_saphyr::from_str(&read("alerts.yaml")).expect("YAML");
    let groups = file["groups"].as_array().expect("groups");
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules"));
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("a text: {value}")).trim().to_owned();
    rules
        .map(|rule| Rule {
            name: rule["record"].as_str().map_or_else(|| text(&rule["alert"]), str::to_owned),
            expr: text(&rule["expr"]),
            alert: rule["alert"].is_string().then(|| Alert {
                severity: text(&rule["labels"]["severity"]),
                summary: text(&rule["annotations"]["summary"]),
                description: text(&rule["annotations"]["description"]),
            }),
        })
        .collect()
}
