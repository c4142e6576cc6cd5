//! `pointsman check` accepts exactly the keys of a route that `pointsman schema` lists.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::FlagsDir;
use crate::support::process::{cli, output_text};

/// A valid value for every key of a route. The maps `percent`, `force`, `promote` and `guard` have every key
/// of their schema.
const ROUTE: [(&str, &str); 33] = [
    ("id", "things"),
    ("was", "[old.things]"),
    ("match", "{ method: GET, path: '/things/{id}' }"),
    ("legacy", "shop"),
    ("workflow", "look-up"),
    ("state", "shadow"),
    ("force", "{ reason: a drill }"),
    ("percent", "{ shadow: 5, dark: 100, live: 100 }"),
    ("key", "'${request.headers.tenant}'"),
    (
        "cohorts",
        "[{ name: staff, when: '${request.headers.staff == \"1\"}', state: live, force: { reason: a drill } }]",
    ),
    ("instance", "{ follows: make, key: path.id }"),
    ("retry_key", "'${request.headers.key}'"),
    ("caller", "authorization"),
    ("keep", "all"),
    ("deadline", "5s"),
    ("buffer_request", "64KiB"),
    ("compress", "gzip"),
    ("requests_max", "50"),
    ("timeouts", "{ first_byte: 1s, idle: 2s, total: off }"),
    ("replay_safe", "true"),
    ("noise", "0.5%"),
    ("reverse", "0.5%"),
    ("rehearse_twice", "2%"),
    ("replay_reads", "false"),
    ("paths", "strict"),
    ("expose", "true"),
    ("compare", "{ ignore: [$.at] }"),
    (
        "promote",
        "{ pairs: 20, mismatch_below: 1%, open_differences: 0, coverage_at_least: 90%, strata_at_least: 1, strata_by: '${request.headers.channel}', \
         effects_compared: true, errors_not_worse_by: 1%, noise_not_worse_by: 9%, p99_ratio_below: 1.5, age_at_most: 2d, answers: 9, window: 1h }",
    ),
    (
        "guard",
        "{ enabled: true, mismatch: 1%, errors: 1%, p99_ratio: 1.5, over: 500, at_least: 5, in_dark: true, \
         release: evidence, notify: '${services.shop}/hooks' }",
    ),
    ("auto", "{ steps: [1%, 5%, 100%], each: 10m, at_least: 50 }"),
    ("capture", "10%"),
    ("redact", "{ names: [ref], paths: [$.a], detect: [email] }"),
    ("invariants", "['${reply.status == 200}']"),
];

fn flags() -> FlagsDir {
    let flags = FlagsDir::passthrough("http://127.0.0.1:9");
    flags.write(
        "workflows/look-up.yaml",
        "workflow: look-up\nsteps: { look: { call: 'GET ${services.shop}/x' } }\nrespond: { status: 200 }\n",
    );
    flags
}

fn route(keys: impl IntoIterator<Item = (String, String)>) -> String {
    let lines: String = keys.into_iter().map(|(key, value)| format!("    {key}: {value}\n")).collect();
    let make = "  - { id: make, match: { method: POST, path: /things }, legacy: shop, \
                instance: { creates: { header.location: '/things/{id}' } } }";
    format!("routes:\n{make}\n  -\n{lines}")
}

fn keys(schema: &Value, definition: &str) -> BTreeSet<String> {
    let keys = schema.pointer(&format!("/$defs/{definition}/properties")).and_then(Value::as_object);
    keys.unwrap_or_else(|| panic!("no `{definition}` in {schema}")).keys().cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_of_a_route_is_in_the_schema_and_every_key_of_the_schema_is_accepted() {
    let schema: Value = serde_json::from_slice(&cli(&["schema", "routes"], &[]).await.stdout).expect("JSON");
    let known: BTreeMap<&str, &str> = ROUTE.into_iter().collect();
    assert_eq!(keys(&schema, "RouteDraft"), known.keys().map(|key| (*key).to_owned()).collect());
    for (definition, key) in
        [("GuardDraft", "guard"), ("PromoteDraft", "promote"), ("Percent", "percent"), ("ForceDraft", "force")]
    {
        let inner: Value = serde_saphyr::from_str(known[key]).expect("YAML");
        let inner: BTreeSet<String> = inner.as_object().expect("a map").keys().cloned().collect();
        assert_eq!(keys(&schema, definition), inner, "{key}");
    }
    let flags = flags();
    let dir = flags.path().display().to_string();
    let all = || known.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    flags.write("routes/all.yaml", &route(all()));
    let checked = cli(&["check", &dir], &[]).await;
    assert_eq!(checked.status.code(), Some(0), "{}", output_text(&checked));
    let scope = format!("{}: retry keys are scoped by the value of `", known["id"]);
    assert!(output_text(&checked).contains(&scope), "{}", output_text(&checked));
    // A key that is not in the schema is refused, whatever its value.
    for name in known.keys() {
        let other = format!("{name}x");
        flags.write("routes/all.yaml", &route(all().chain([(other.clone(), known[name].to_owned())])));
        let checked = cli(&["check", &dir], &[]).await;
        let text = output_text(&checked);
        assert!(checked.status.code() == Some(1) && text.contains(&format!("`{other}`")), "{other}: {text}");
    }
    for (key, from) in [("guard", "mismatch:"), ("percent", "dark:"), ("force", "reason:"), ("cohorts", "when:")] {
        let to = format!("x{from}");
        let wrong = all().map(|(name, value)| match name == key {
            true => (name, value.replacen(from, &to, 1)),
            false => (name, value),
        });
        flags.write("routes/all.yaml", &route(wrong));
        let checked = cli(&["check", &dir], &[]).await;
        let text = output_text(&checked);
        assert!(checked.status.code() == Some(1) && text.contains(to.trim_end_matches(':')), "{key}: {text}");
    }
}
