//! Every metric, limit, key, path, file and variable that the documents name exists; every key is named somewhere.

use std::collections::BTreeSet;
use std::path::Path;

use pointsman::flag::SkipReason;
use pointsman::limits::Limits;
use serde_json::Value;

use super::{document, documents};
use crate::support::process::{Start, cli};
use crate::support::{FlagsDir, Pointsman};

/// Names of members in JSON Schemas, at any depth.
fn properties(schema: &Value, into: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            into.extend(
                members.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(k, _)| k.clone()),
            );
            members.values().for_each(|value| properties(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| properties(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Every key of every kind of file, as `pointsman schema` lists them.
async fn keys() -> BTreeSet<String> {
    let output = cli(&["schema"], &[]).await;
    let schemas: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut keys = BTreeSet::new();
    properties(&schemas, &mut keys);
    assert!(keys.contains("retry_key") && keys.contains("fallback") && keys.contains("breaker"), "{keys:?}");
    keys
}

fn limits() -> BTreeSet<String> {
    let defaults = serde_json::to_value(Limits::default()).expect("JSON");
    defaults.as_object().expect("a map").keys().cloned().collect()
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_that_is_named_exists() {
    let keys = keys().await;
    let mut wrong = Vec::new();
    for document in documents() {
        for span in document.spans() {
            let key =
                span.split_once(':').filter(|(_, rest)| rest.is_empty() || rest.starts_with(' ')).map(|(key, _)| key);
            // `object` is a key of the API's replies, not of a file.
            if let Some(key) = key.filter(|key| is_name(key) && *key != "object")
                && !keys.contains(key)
            {
                wrong.push(format!("{}: `{span}`", document.name));
            }
        }
    }
    assert!(wrong.is_empty(), "no such key in any file:\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_is_named_somewhere() {
    let mut named: BTreeSet<String> = BTreeSet::new();
    for document in documents() {
        let code = document.spans().into_iter().chain(document.blocks("yaml")).collect::<Vec<_>>().join("\n");
        named.extend(
            code.split(|c: char| !c.is_ascii_lowercase() && c != '_' && !c.is_ascii_digit()).map(str::to_owned),
        );
    }
    let unnamed: Vec<String> = keys().await.into_iter().filter(|key| !named.contains(key)).collect();
    assert!(unnamed.is_empty(), "keys that no document names: {unnamed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_that_is_named_exists() {
    let (limits, keys) = (limits(), keys().await);
    let mut wrong = Vec::new();
    for document in documents() {
        for span in document.spans() {
            let unit = ["_max", "_ms", "_s", "_percent", "_bytes"].iter().any(|unit| span.ends_with(unit));
            if unit
                && is_name(span)
                && !span.starts_with("pointsman_")
                && !limits.contains(span)
                && !keys.contains(span)
            {
                wrong.push(format!("{}: `{span}`", document.name));
            }
        }
    }
    assert!(wrong.is_empty(), "no such limit:\n{}", wrong.join("\n"));
}

#[test]
fn every_metric_that_is_named_exists() {
    let counted: BTreeSet<&str> = pointsman::telemetry::metrics()
        .into_iter()
        .flat_map(|(_, lines)| lines.iter().map(|(name, _)| *name))
        .collect();
    let mut named = BTreeSet::new();
    for document in documents() {
        for (at, _) in document.text.match_indices("pointsman_") {
            let name: String =
                document.text[at..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            assert!(counted.contains(name.as_str()), "{}: nothing counts `{name}`", document.name);
            named.insert(name);
        }
    }
    assert_eq!(named.len(), counted.len(), "the topic `metrics` lists all of them");
}

#[test]
fn every_reason_for_skipping_a_comparison_is_explained() {
    let text = document("compare").text;
    for reason in SkipReason::ALL {
        assert!(text.contains(&format!("`{}`", reason.as_str())), "{}", reason.as_str());
    }
}

#[test]
fn every_file_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = 0;
    for document in documents() {
        for word in document.text.split(|c: char| c.is_whitespace() || matches!(c, '`' | '(' | ')' | ',' | ';')) {
            let word = word.trim_end_matches('.');
            let ours = ["src/", "tests/", "dashboards/", "deploy/"].iter().any(|top| word.starts_with(top));
            if !ours {
                continue;
            }
            found += 1;
            let path = word.split('*').next().unwrap_or(word);
            let path = if path.ends_with('/') || path == word {
                path
            } else {
                path.rsplit_once('/').map_or(path, |(dir, _)| dir)
            };
            assert!(root.join(path).exists(), "{}: `{word}` is not there", document.name);
        }
    }
    assert!(found > 4, "files were found: {found}");
}

#[test]
fn every_environment_variable_that_is_named_is_read() {
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
    let mut code = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
    for document in documents() {
        for (at, _) in document.text.match_indices("POINTSMAN_") {
            let name: String =
                document.text[at..].chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            assert!(code.contains(&format!("\"{name}\"")), "{}: no code reads `{name}`", document.name);
        }
    }
}

/// The entry of an API path in the OpenAPI description. The documents may leave out the prefix of the paths of runs.
fn find_path_entry<'a>(document: &'a Value, method: Option<&str>, path: &str) -> Option<&'a Value> {
    let under = ["", "/api/v2/orchestrate"].map(|prefix| format!("{prefix}{path}"));
    let paths = document["paths"].as_object()?;
    let found = paths.iter().find(|(known, _)| under.contains(known))?.1;
    match method {
        Some(method) => found.get(method.to_ascii_lowercase()),
        None => Some(found),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_of_the_api_that_is_named_is_served() {
    let flags = FlagsDir::passthrough("http://127.0.0.1:9");
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    let openapi = pointsman.get("/openapi.json").await;
    let mut found = 0;
    for document in documents() {
        for span in document.spans() {
            let (method, path) = match span.split_once(' ') {
                Some((method @ ("GET" | "POST"), path)) if path.starts_with('/') => (Some(method), path),
                _ if ["/api/", "/metrics", "/docs", "/healthz", "/readyz", "/openapi"]
                    .iter()
                    .any(|p| span.starts_with(p)) =>
                {
                    (None, span)
                }
                _ => continue,
            };
            if path == "/api/v2/orchestrate" {
                continue; // the common prefix, not a path
            }
            let path = path.split_whitespace().next().unwrap_or(path);
            found += 1;
            assert!(find_path_entry(&openapi, method, path).is_some(), "{}: `{span}` is not served", document.name);
        }
    }
    assert!(found > 15, "paths were found: {found}");
    assert_eq!(pointsman.stop().await, Some(0));
}

/// The string literals that follow `marker` in the sources of a folder or file, each within its own call.
fn literals_after(path: &str, marker: &str) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path);
    let mut found = BTreeSet::new();
    let mut paths = vec![root];
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            let inside = std::fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path());
            paths.extend(inside.filter(|path| !path.ends_with("tests")));
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("source is UTF-8");
        for (at, _) in text.match_indices(marker) {
            let call = text[at + marker.len()..].split(';').next().unwrap_or_default();
            let word =
                |text: &&str| text.len() > 1 && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'-');
            found.extend(call.split('"').nth(1).filter(word).map(|word| word.replace('_', "-")));
        }
    }
    found
}

#[test]
fn every_reason_of_the_engine_is_listed() {
    let mut reasons: BTreeSet<String> = ["not_started(", "may_not_begin(", "unstored(", "kind: "]
        .into_iter()
        .flat_map(|marker| literals_after("engine", marker))
        .collect();
    let refused_input =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine/machine/refused_input.rs"));
    assert!(
        refused_input.expect("readable").contains("\"urn:pointsman:problem:bad-input\""),
        "it has its reason itself"
    );
    reasons.insert("bad-input".to_owned());
    let own = ["RETRY_KEY_HELD", "NO_SUCH_INSTANCE"];
    let given_back = ["FROZEN", "FILES_CHANGED", "NO_FIRST_TRY", "ABANDONED_BEFORE", "LEGACY_TOOK_FIRST_TRY"];
    for constant in given_back.into_iter().chain(own) {
        let found = literals_after("exchange/arm.rs", &format!("const {constant}: &str ="));
        assert_eq!(found.len(), 1, "{constant}");
        reasons.extend(found);
    }
    let kinds = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/workflow/failure.rs"));
    let kinds = kinds.expect("readable");
    let kinds = kinds.lines().filter_map(|line| line.trim().strip_prefix("FailureKind::")?.split_once(" => \""));
    reasons.extend(kinds.map(|(_, name)| format!("workflow-{}", name.trim_end_matches("\",").replace('_', "-"))));
    assert!(reasons.contains("workflow-timed-out") && reasons.contains("too-many-runs"), "{reasons:?}");
    let text = document("failures").text;
    let (_, section) = text.split_once("## Problems of the engine and its runs").expect("the section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    let listed: BTreeSet<String> = rows.filter(|first| *first != "reason").map(str::to_owned).collect();
    assert_eq!(listed, reasons);
}
