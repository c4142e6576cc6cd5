//! The rules, their unit tests and the example configurations, as the tools of Prometheus and Alertmanager see them;
//! and the documentation of each alert.

use std::collections::BTreeSet;
use std::process::Command;

use pointsman::docs;
use serde_json::Value;

use super::{directory, read, rules};
use crate::support::process::BINARY;

/// Runs a tool in `dashboards/`; it has to succeed.
fn succeeds(tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool).args(arguments).current_dir(directory()).output();
    let output = output.unwrap_or_else(|e| panic!("{tool} is not installed ({e}): tests/run installs it"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}:\n{text}");
    text
}

#[test]
fn the_tools_accept_rules_and_configurations() {
    let checked = succeeds("promtool", &["check", "rules", "alerts.yaml"]);
    assert!(checked.contains(&format!("{} rules found", rules().len())), "{checked}");
    let checked = succeeds("promtool", &["check", "config", "prometheus.yml"]);
    assert!(checked.contains("1 rule files found"), "{checked}");
    succeeds("amtool", &["check-config", "alertmanager.yml"]);
}

#[test]
fn the_unit_tests_of_rules_pass() {
    succeeds("promtool", &["test", "rules", "alerts_test.yaml"]);
}

#[test]
fn every_alert_is_tested_both_ways() {
    let tests: Value = serde_saphyr::from_str(&read("alerts_test.yaml")).expect("YAML");
    let cases = tests["tests"].as_array().expect("tests").iter();
    let cases = cases.flat_map(|test| test["alert_rule_test"].as_array().expect("cases"));
    let (mut fires, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for case in cases {
        let name = case["alertname"].as_str().expect("a name").to_owned();
        match case["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty()) {
            true => fires.insert(name),
            false => silent.insert(name),
        };
    }
    let alerts: BTreeSet<String> = rules().into_iter().filter(|r| r.alert.is_some()).map(|r| r.name).collect();
    assert_eq!((&fires, &silent), (&alerts, &alerts));
}

/// The commands in a text, without their arguments: `pointsman WORD`, and a second word of commands that have several.
fn commands(text: &str) -> BTreeSet<Vec<String>> {
    let spans = text.split('`').skip(1).step_by(2).filter_map(|span| span.strip_prefix("pointsman "));
    spans
        .map(|span| {
            let words: Vec<&str> = span.split_whitespace().collect();
            let several = ["runs", "store", "guard", "record", "help"].contains(&words[0]);
            words.iter().take(if several { 2 } else { 1 }).map(|word| (*word).to_owned()).collect()
        })
        .collect()
}

#[test]
fn every_alert_says_what_to_do_with_commands_that_exist() {
    let (mut names, mut all) = (BTreeSet::new(), BTreeSet::new());
    for rule in rules() {
        let Some(alert) = rule.alert else { continue };
        assert!(rule.name.starts_with("Pointsman") && names.insert(rule.name.clone()), "{}", rule.name);
        assert!(["critical", "warning", "info"].contains(&alert.severity.as_str()), "{}", rule.name);
        assert!(alert.summary.ends_with('.') && alert.description.ends_with('.'), "{}", rule.name);
        let named = commands(&alert.description);
        assert!(!named.is_empty() || alert.description.contains("reload"), "{}: no command", rule.name);
        all.extend(named);
    }
    for command in all {
        let help: Vec<&str> = match command[0].as_str() {
            "help" => command.iter().map(String::as_str).collect(),
            _ => command.iter().map(String::as_str).chain(["--help"]).collect(),
        };
        let output = Command::new(BINARY).args(&help).output().expect("the binary starts");
        assert!(output.status.success(), "there is no `pointsman {}`", command.join(" "));
    }
}

#[test]
fn the_runbook_lists_every_alert() {
    let text = docs::find("alerts").expect("a topic").text();
    // An entry: - `NAME` (SEVERITY): what it means. First: what to do.
    let entries: Vec<&str> = text.split("\n- `Pointsman").skip(1).collect();
    let listed: Vec<(String, &str)> = entries
        .iter()
        .map(|entry| {
            let (name, rest) = entry.split_once("` (").expect("a name");
            (format!("Pointsman{name}"), rest.split_once("): ").expect("a severity").0)
        })
        .collect();
    let alerts = rules();
    let alerts: Vec<(String, &str)> =
        alerts.iter().filter_map(|rule| Some((rule.name.clone(), rule.alert.as_ref()?.severity.as_str()))).collect();
    assert_eq!(listed, alerts, "the list in src/docs/alerts.md: names and severities, in the order of the rules");
    for (entry, rule) in entries.iter().zip(rules().iter().filter(|rule| rule.alert.is_some())) {
        let told = commands(&rule.alert.as_ref().expect("an alert").description);
        let entry = entry.split("\n\n").next().unwrap_or_default();
        let first = entry.split("First:").nth(1).unwrap_or_else(|| panic!("{}: what to do first?", rule.name));
        for command in commands(first) {
            assert!(told.contains(&command), "{}: the alert does not say `pointsman {}`", rule.name, command.join(" "));
        }
    }
}

#[test]
fn the_provisioning_files_are_what_grafana_reads() {
    let datasources: Value = serde_saphyr::from_str(&read("provisioning/datasources/prometheus.yaml")).expect("YAML");
    assert_eq!((&datasources["apiVersion"], &datasources["datasources"][0]["type"]), (&1.into(), &"prometheus".into()));
    let scrape: Value = serde_saphyr::from_str(&read("prometheus.yml")).expect("YAML");
    let interval = &datasources["datasources"][0]["jsonData"]["timeInterval"];
    assert_eq!(interval, &scrape["global"]["scrape_interval"], "$__rate_interval is made from it");
    let providers: Value = serde_saphyr::from_str(&read("provisioning/dashboards/pointsman.yaml")).expect("YAML");
    let provider = &providers["providers"][0];
    assert_eq!((&providers["apiVersion"], &provider["type"]), (&1.into(), &"file".into()));
    assert!(provider["options"]["path"].is_string());
}
