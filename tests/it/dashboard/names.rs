//! Every name in the dashboards and rules exists: metrics, labels, label values, variables, links; and every metric has
//! a place in a dashboard.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pointsman::telemetry;

use super::promql::{Named, scan};
use super::{Query, dashboards, rules};

/// Labels that Prometheus adds to every series of a target.
const OF_TARGET: [&str; 2] = ["job", "instance"];
/// The process's own metrics, which another crate exports.
const OF_PROCESS: [&str; 8] = [
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
    "process_virtual_memory_bytes",
    "process_virtual_memory_max_bytes",
];

/// Every series that there may be, and its labels without those of the target.
fn series() -> BTreeMap<String, BTreeSet<String>> {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (kind, metrics) in telemetry::metrics() {
        for (name, _) in metrics {
            let labels: BTreeSet<String> = telemetry::labels_of(name).iter().map(|l| (*l).to_owned()).collect();
            if kind == "histogram" {
                let with_bound = labels.iter().cloned().chain(["le".to_owned()]).collect();
                known.insert(format!("{name}_bucket"), with_bound);
                known.insert(format!("{name}_sum"), labels.clone());
                known.insert(format!("{name}_count"), labels);
            } else {
                known.insert((*name).to_owned(), labels);
            }
        }
    }
    known.extend(OF_PROCESS.into_iter().map(|name| (name.to_owned(), BTreeSet::new())));
    known.insert("up".to_owned(), BTreeSet::new());
    let mut of_alerts: BTreeSet<String> = known.values().flatten().cloned().collect();
    of_alerts.extend(["alertname", "alertstate", "severity"].map(str::to_owned));
    known.insert("ALERTS".to_owned(), of_alerts);
    for rule in rules().iter().filter(|rule| rule.alert.is_none()) {
        let named = scan(&rule.expr);
        let mut labels = labels_of(&named, &known);
        labels.retain(|label| !named.without.contains(label) && label != "le");
        known.insert(rule.name.clone(), labels);
    }
    known
}

/// All labels of the series that an expression names.
fn labels_of(named: &Named, known: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    named.selectors.iter().filter_map(|selector| known.get(&selector.name)).flatten().cloned().collect()
}

/// The queries of dashboards, with those of their variables, and the rules.
fn all() -> Vec<Query> {
    let mut all = Vec::new();
    for dashboard in dashboards() {
        all.extend(dashboard.queries());
        all.extend(dashboard.variable_queries().into_iter().map(|(series, label)| Query {
            place: format!("{}, variable", dashboard.file),
            text: series,
            shown: format!("{{{{{label}}}}}"),
        }));
    }
    all.extend(rules().into_iter().map(|rule| {
        let shown = rule.alert.map(|alert| (alert.summary + &alert.description).replace("$labels.", ""));
        Query { place: rule.name, text: rule.expr, shown: shown.unwrap_or_default() }
    }));
    all
}

/// The labels in a text with `{{label}}`.
fn shown_labels(text: &str) -> Vec<&str> {
    let inside = text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
    inside.map(|(label, _)| label.trim()).filter(|label| !label.starts_with("$value")).collect()
}

#[test]
fn every_series_and_label_exists() {
    let known = series();
    let mut wrong = Vec::new();
    for Query { place, text, shown } in all() {
        let named = scan(&text);
        let of_query = labels_of(&named, &known);
        let is_known = |labels: &BTreeSet<String>, label: &str| labels.contains(label) || OF_TARGET.contains(&label);
        for selector in &named.selectors {
            let Some(labels) = known.get(&selector.name) else {
                wrong.push(format!("{place}: nothing exports `{}`", selector.name));
                continue;
            };
            let matched = selector.matchers.iter().map(|(label, ..)| label.as_str());
            wrong.extend(
                matched
                    .filter(|label| !is_known(labels, label))
                    .map(|label| format!("{place}: `{}` has no label `{label}`", selector.name)),
            );
        }
        let used = named.grouped.iter().map(String::as_str).chain(shown_labels(&shown));
        wrong.extend(
            used.filter(|label| !is_known(&of_query, label))
                .map(|label| format!("{place}: nothing in the query has the label `{label}`")),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// All sources of `src`.
fn sources(dir: &Path, into: &mut String) {
    for entry in std::fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(&path).expect("readable"));
        }
    }
}

#[test]
fn every_label_value_exists() {
    let mut code = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '*');
    let (mut wrong, mut found) = (Vec::new(), 0);
    for Query { place, text, .. } in all() {
        for selector in scan(&text).selectors.iter().filter(|selector| selector.name.starts_with("pointsman_")) {
            for (label, _, value) in selector.matchers.iter().filter(|(label, ..)| !OF_TARGET.contains(&&**label)) {
                // Other alternatives are patterns or variables.
                for value in value.split('|').filter(|value| !value.is_empty() && value.chars().all(is_word)) {
                    found += 1;
                    // Reasons of the engine are written with `_` in the code.
                    let spellings =
                        [format!("\"{value}\""), format!(":{value}\""), format!("\"{}\"", value.replace('-', "_"))];
                    if !spellings.iter().any(|spelling| code.contains(spelling)) {
                        wrong.push(format!("{place}: no code sets `{label}` to `{value}`"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(found > 30, "values were found: {found}");
}

#[test]
fn every_metric_has_a_place_in_a_dashboard() {
    let queries = dashboards().into_iter().flat_map(|dashboard| dashboard.queries());
    let selectors = queries.flat_map(|query| scan(&query.text).selectors);
    let shown: BTreeSet<String> = selectors.map(|selector| selector.name).collect();
    let is_shown = |name: &str| {
        let parts = ["", "_bucket", "_sum", "_count"].map(|part| format!("{name}{part}"));
        let is_recorded = |series: &String| series.contains(&format!(":{}:", name.trim_end_matches("_total")));
        parts.iter().any(|series| shown.contains(series)) || shown.iter().any(is_recorded)
    };
    let metrics = telemetry::metrics().into_iter().flat_map(|(_, metrics)| metrics.iter().map(|(name, _)| *name));
    let hidden: Vec<&str> = metrics.filter(|name| !is_shown(name)).collect();
    assert!(hidden.is_empty(), "no dashboard shows these metrics; add them where an operator looks: {hidden:?}");
}

#[test]
fn dashboards_are_importable_and_whole() {
    let all = dashboards();
    let uids: BTreeSet<&str> = all.iter().filter_map(|dashboard| dashboard.model["uid"].as_str()).collect();
    assert_eq!(uids.len(), all.len(), "each has a uid of its own");
    for dashboard in &all {
        let (file, model) = (&dashboard.file, &dashboard.model);
        assert_eq!(model["__inputs"][0]["name"], "DS_PROMETHEUS", "{file}: the data source is an input");
        let text = model.to_string();
        for link in text.split("/d/").skip(1) {
            let uid = link.split(['?', '"']).next().unwrap_or_default();
            assert!(uids.contains(uid), "{file}: no dashboard has the uid `{uid}`");
        }
        let declared = model["templating"]["list"].as_array().expect("variables");
        let declared: BTreeSet<&str> = declared.iter().filter_map(|variable| variable["name"].as_str()).collect();
        for used in text.split('$').skip(1) {
            let name = used.trim_start_matches('{');
            let name = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
            let is_known = declared.contains(name) || name.starts_with("__") || name == "DS_PROMETHEUS";
            assert!(is_known, "{file}: no variable `{name}`");
        }
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in dashboard.panels() {
            let number = |value: &serde_json::Value| value.as_u64().expect("a number");
            assert!(ids.insert(number(&panel["id"])), "{file}: an id is taken twice");
            let grid = &panel["gridPos"];
            let (left, top) = (number(&grid["x"]), number(&grid["y"]));
            let (right, bottom) = (left + number(&grid["w"]), top + number(&grid["h"]));
            assert!(right <= 24, "{file}: {} is too wide", panel["title"]);
            for cell in (left..right).flat_map(|x| (top..bottom).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{file}: {} overlaps another panel", panel["title"]);
            }
        }
    }
}
