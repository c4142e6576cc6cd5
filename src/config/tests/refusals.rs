//! The exact text that a user sees for each kind of mistake, in `refusals.txt`.

use super::set::{ROUTES, Set, WORKFLOW};

const MAIN_PATH: &str = "pointsman.yaml";
const ROUTES_PATH: &str = "routes/orders.yaml";
const WORKFLOW_PATH: &str = "workflows/create-order.yaml";

fn cases() -> Vec<(&'static str, Set)> {
    let good = Set::valid;
    let edit = |file, from, to| Set::valid().edit(file, from, to);
    let step = |text: &str| good().edit(WORKFLOW_PATH, "respond:", &format!("{text}\nrespond:"));
    vec![
        ("a good set", good()),
        ("an unknown key", edit(ROUTES_PATH, "percent: 50", "percnt: 50")),
        ("an unknown key that resembles no known key", edit(ROUTES_PATH, "percent: 50", "zzz: 50")),
        ("an unknown key of compare", edit(ROUTES_PATH, "ignore:", "ingore:")),
        ("an unknown key of a step", edit(WORKFLOW_PATH, "rehearse:", "reherse:")),
        ("a missing key", edit(ROUTES_PATH, "    match: { method: POST, path: /orders }\n", "")),
        ("a missing key of a workflow", edit(WORKFLOW_PATH, "workflow: create-order\n", "")),
        ("an unknown state", edit(ROUTES_PATH, "state: shadow", "state: shaddow")),
        (
            "wrong types",
            edit(
                MAIN_PATH,
                "listen: 127.0.0.1:8080",
                "listen: 8080\nlimits: { shadow_threads: 0, compare_msx: 1, drain_ms: x }",
            ),
        ),
        (
            "ids that are not text, or name something else in a URL",
            edit(ROUTES_PATH, "id: orders.create", "id: true")
                .put("routes/b.yaml", "routes: [{ id: null, match: { method: GET, path: /b }, legacy: shop }]\n")
                .put("routes/c.yaml", "routes: [{ id: .., match: { method: GET, path: /c }, legacy: shop }]\n")
                .put("routes/d.yaml", "routes: [{ id: '', match: { method: GET, path: /d }, legacy: shop }]\n"),
        ),
        ("a key twice", edit(MAIN_PATH, "store: memory", "listen: 127.0.0.1:1\nstore: memory")),
        ("not YAML", edit(ROUTES_PATH, "percent: 50", "percent: [50")),
        ("a colon in a value", edit(MAIN_PATH, "store: memory", "store: memory:")),
        ("a tab", edit(MAIN_PATH, "  shop:", "\tshop:")),
        ("an empty file", good().put(ROUTES_PATH, "")),
        ("not UTF-8", good().put("routes/x.yaml", b"routes:\n  - id: \xff\n")),
        ("no main file", good().remove(MAIN_PATH)),
        (
            "files that are not read",
            good()
                .put("routes/x.yml", "")
                .put("routes/y.YAML", "")
                .put("routes/.x.yaml.swp", "")
                .put("routes/x.yaml~", "")
                .put("stray.yaml", ""),
        ),
        ("an empty directory", good().put("routes/x", "").remove("routes/x").remove(ROUTES_PATH).put(WORKFLOW_PATH, WORKFLOW)),
        ("an unknown service", edit(ROUTES_PATH, "legacy: shop", "legacy: shpo")),
        ("an unknown default", edit(MAIN_PATH, "default_legacy: shop", "default_legacy: shpo")),
        ("durations without a unit", edit(WORKFLOW_PATH, "workflow: create-order\n", "workflow: create-order\ndeadline: 30\n")),
        ("a duration in quotes without a unit", edit(WORKFLOW_PATH, "workflow: create-order\n", "workflow: create-order\ndeadline: '30'\n")),
        ("shares without a percent sign", edit(ROUTES_PATH, "legacy: shop", "legacy: shop\n    capture: 100\n    guard: { mismatch: 0.1 }\n    promote: { window: 24 }")),
        ("no default_legacy", edit(MAIN_PATH, "default_legacy: shop\n", "")),
        ("an unknown workflow", edit(ROUTES_PATH, "workflow: create-order", "workflow: create-ordr")),
        ("a workflow whose file is not YAML is not reported as unknown", good().put(WORKFLOW_PATH, "workflow: [\n")),
        ("a service of a step that is unknown", edit(WORKFLOW_PATH, "services.bank", "services.bnk")),
        ("a step that does not exist", edit(WORKFLOW_PATH, "steps.charge.output", "steps.chrge.output")),
        (
            "a cycle",
            step(
                "  a:\n    set: ${steps.b.output}\n  b:\n    set: ${steps.c.output}\n  c:\n    set: ${steps.a.output}",
            ),
        ),
        (
            "a fallback that runs anyway, and one that nobody takes",
            step(
                "  a: { call: 'POST ${services.bank}/a', not_done: [503], fallback: b }\n  b: { call: 'POST ${services.bank}/b' }\n  c: { set: 1, fallback_only: true }",
            ),
        ),
        (
            "a fallback for each item",
            step(
                "  a: { for_each: [1], call: 'POST ${services.bank}/a', not_done: [503], fallback: b }\n  b: { call: 'POST ${services.bank}/b', fallback_only: true }",
            ),
        ),
        (
            "an undo of what changes nothing",
            step("  a: { call: 'GET ${services.bank}/a', undo: 'DELETE ${services.bank}/a' }"),
        ),
        ("an undo without a call", step("  a: { call: 'POST ${services.bank}/a', undo: { body: 1 } }")),
        ("an unknown key of undo", step("  a: { call: 'POST ${services.bank}/a', undo: { cal: x } }")),
        (
            "a probe that does not say what it found",
            step("  a: { call: 'POST ${services.bank}/a', probe: { call: 'GET ${services.bank}/a' } }"),
        ),
        (
            "a conflict that is neither paused nor failed",
            step("  a: { call: 'POST ${services.bank}/a', on_conflict: wait }"),
        ),
        (
            "a secret that is not declared",
            step(
                "  ask:\n    call: GET ${services.bank}/x\n    headers: { authorization: \"Bearer ${secrets.bank}\" }",
            ),
        ),
        (
            "credentials without a store key",
            step(
                "  ask:\n    call: GET ${services.bank}/x\n    headers: { authorization: '${request.headers.authorization}' }",
            ),
        ),
        (
            "a cohort that no gate has looked at",
            edit(
                ROUTES_PATH,
                "    percent: 50",
                "    cohorts: [ { name: staff, when: '${request.headers[\"x-staff\"] == \"1\"}', state: live } ]",
            ),
        ),
        ("a percent of 150", edit(ROUTES_PATH, "percent: 50", "percent: 150")),
        ("a bad template", edit(WORKFLOW_PATH, "${request.body.total}", "${request.body.total")),
        ("bad CEL", edit(ROUTES_PATH, "legacy.body.total}", "legacy.body.total +}")),
        ("a bad JSONPath", edit(ROUTES_PATH, "$.created_at", "created_at")),
        ("an assert on a step that does not exist", edit(ROUTES_PATH, "intents.charge", "intents.chrge")),
        (
            "rules for effects that are wrong",
            edit(
                ROUTES_PATH,
                "      ignore: [$.created_at]",
                "      effects:\n        chrge: { ignore: [$.at] }\n        charge: { ignore: [at], tolerance: { $.amount: soon }, reads: true }\n      ignore_calls: [bnk]\n      ignore: [$.created_at]",
            ),
        ),
        ("an unknown key of effects", edit(ROUTES_PATH, "      ignore:", "      effects: { charge: { igore: [$] } }\n      ignore:")),
        (
            "an invariant on a step that does not exist",
            edit(ROUTES_PATH, "    compare:", "    invariants: [ '${intents.chrge.body.amount > 0}' ]\n    compare:"),
        ),
        ("a workflow that runs one that does not exist", step("  more:\n    run: create-ordr")),
        (
            "a workflow that does not take back what another one did",
            step(
                "  first: { run: other }\n  each: { needs: [first], for_each: [1, 2], run: other, undo: 'POST ${services.bank}/back' }\n  harmless: { needs: [each], run: reads }\n  accepted: { needs: [each], run: nested, reversible: false }\n  items: { needs: [each, charge], for_each: [1, 2], run: nested, input: '${item}' }\n  last: { needs: [items, accepted, harmless, first], run: other }\n  calm: { needs: [last], wait: 1s }\n  until: { needs: [calm], wait: { until: '${request.body.at}' } }",
            )
            .put(
                "workflows/other.yaml",
                "workflow: other\nsteps:\n  write: { call: 'POST ${services.bank}/writes', rehearse: {} }\nrespond: { status: 200 }\n",
            )
            .put("workflows/nested.yaml", "workflow: nested\nsteps:\n  in: { run: other }\nrespond: { status: 200 }\n")
            .put(
                "workflows/reads.yaml",
                "workflow: reads\nsteps:\n  look: { call: 'GET ${services.bank}/x' }\nrespond: { status: 200 }\n",
            ),
        ),
        (
            "workflows that run each other",
            step("  more:\n    run: other").put(
                "workflows/other.yaml",
                "workflow: other\nsteps:\n  back: { run: create-order }\n  again: { run: other }\nrespond: { status: 200 }\n",
            ),
        ),
        (
            "people, waits and locks where they make no sense",
            step(
                "  ok:\n    checkpoint: { question: sure, timeout: 1w, on_timeot: reject }\n  calm:\n    wait: { for: 1s, signal: x }\n    lock: { key: a, busy: maybe }\n  risky:\n    set: 1\n    risk: high",
            ),
        ),
        (
            "a question in a rehearsal",
            step("  ok:\n    checkpoint: { question: sure }\n  paid:\n    wait: { signal: paid }"),
        ),
        ("an id twice, a request twice", good().put("routes/two.yaml", ROUTES)),
        ("a workflow twice", good().put("workflows/two.yaml", WORKFLOW)),
        (
            "two routes for the same request",
            good().put("routes/two.yaml", ROUTES.replace("id: orders.create", "id: orders.make")),
        ),
        ("replay_safe with a shared step", edit(ROUTES_PATH, "    percent: 50", "    replay_safe: true")),
        ("noise without replay_safe", edit(ROUTES_PATH, "    percent: 50", "    noise: 2%")),
        ("a shared step without rehearse", edit(WORKFLOW_PATH, "    rehearse: { id: '${legacy.body.id}' }\n", "")),
        ("a parameter that the path does not have", step("  a: { call: 'GET ${services.shop}/${request.params.id}' }")),
        ("a shared step without a retry key", edit(ROUTES_PATH, "    retry_key: ${request.headers[\"x-request\"]}\n", "")),
        (
            "a breaker, a rate and a burst that make no sense",
            edit(
                MAIN_PATH,
                "keyed: true }",
                "keyed: true, breaker: { failures: 0%, over: 10, min: 0, open: 90s, open_max: 60s, probes: 0 }, rate: fast, burst: 0 }",
            ),
        ),
        (
            "a breaker with an unknown key",
            edit(MAIN_PATH, "keyed: true }", "keyed: true, breaker: { failure: 50%, min: many, slow: 2 }, rate: 100 }"),
        ),
        ("a breaker that is a word", edit(MAIN_PATH, "keyed: true }", "keyed: true, breaker: false, burst: 3 }")),
        ("a breaker that is another word", edit(MAIN_PATH, "keyed: true }", "keyed: true, breaker: none, rate: 0/s }")),
        ("legacy is our own listener", edit(MAIN_PATH, "http://127.0.0.1:9000", "http://localhost:8080")),
        ("legacy is our own listener on all addresses", edit(MAIN_PATH, "listen: 127.0.0.1:8080", "listen: 0.0.0.0:9000")),
        ("legacy is our own API", edit(MAIN_PATH, "http://127.0.0.1:9000", "http://0.0.0.0:8081")),
        ("the API is open to the network", edit(MAIN_PATH, "127.0.0.1:8081", "0.0.0.0:8081")),
        ("both listen on one address", edit(MAIN_PATH, "127.0.0.1:8081", "127.0.0.1:8080")),
        ("no address", edit(MAIN_PATH, "listen: 127.0.0.1:8080", "listen: ':8080'")),
        (
            "secrets that are not there",
            edit(MAIN_PATH, "store:", "secrets: { a: { env: NO_SUCH_VARIABLE_HERE }, b: { file: absent }, c-d: {} }\nstore:"),
        ),
        (
            "a store key that is too short",
            good().put("short.key", "abc").edit(MAIN_PATH, "store:", "store_key: { file: short.key }\nstore:"),
        ),
        (
            "retention that keeps nothing, and words that are no age",
            edit(
                MAIN_PATH,
                "store: memory",
                "store: memory\nretention: { completed: 0d, failed: soon, canceled: 1d, abandoned: 2h, cancelled: 200000w }",
            ),
        ),
        ("retention that is not an age", edit(MAIN_PATH, "store: memory", "store: memory\nretention: 30")),
        (
            "a store in memory under routes that could go to `live`",
            edit(ROUTES_PATH, "state: shadow", "state: dark\n    force: { reason: x }").edit(ROUTES_PATH, "    percent: 50\n", ""),
        ),
        ("a store of another kind", edit(MAIN_PATH, "store: memory", "store: mysql://x")),
        (
            "a store's address with a password",
            edit(MAIN_PATH, "store: memory", "store: postgres://ada:p@ss@db:port/flags # postgres://ada:p@ss@db"),
        ),
        (
            "a store's password without its store",
            edit(MAIN_PATH, "store: memory", "store: memory\nstore_password: { file: good.key }").put("good.key", "pw"),
        ),
        ("a pooler, and no server", edit(MAIN_PATH, "store: memory", "store: postgres://p/f\nstore_direct: mysql://x")),
    ]
}

#[test]
fn each_refusal_has_its_expected_text() {
    let expected = include_str!("refusals.txt");
    let mut actual = String::new();
    for (name, set) in cases() {
        actual.push_str(&format!("=== {name}\n{}\n", set.shown()));
    }
    if std::env::var_os("POINTSMAN_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/tests/refusals.txt");
        std::fs::write(path, &actual).expect("written");
        return;
    }
    for (actual, expected) in actual.split("=== ").zip(expected.split("=== ")) {
        assert_eq!(actual, expected, "\n--- is:\n{actual}\n--- should be:\n{expected}");
    }
    assert_eq!(actual.len(), expected.len());
}

#[test]
fn colour_only_adds_to_the_plain_text() {
    let failed = Set::valid().edit(ROUTES_PATH, "percent: 50", "percnt: 50").read().err().expect("refused");
    let coloured = failed.render(true);
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some(start) = rest.find('\u{1b}') {
        plain.push_str(&rest[..start]);
        rest = &rest[start..];
        rest = &rest[rest.find('m').expect("the end of a colour") + 1..];
    }
    plain.push_str(rest);
    assert_ne!(coloured, failed.render(false));
    assert_eq!(plain, failed.render(false));
}

#[test]
fn as_json_each_finding_has_its_position() {
    let failed = Set::valid().edit(ROUTES_PATH, "percent: 50", "percnt: 50").read().err().expect("refused");
    let json = failed.findings.to_json();
    assert_eq!(json[0]["line"], 7);
    assert_eq!(json[0]["column"], 5);
    assert_eq!(json[0]["severity"], "error");
    assert_eq!(json[0]["hint"], "did you mean `percent`?");
}

#[test]
fn the_example_set_is_valid() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/flags");
    let loaded = crate::config::read(dir.as_ref(), &crate::config::Overrides::default());
    let loaded = loaded.unwrap_or_else(|failed| panic!("{failed}"));
    println!("{}", loaded.warnings);
    assert!(!loaded.setup.routes.is_empty());
}

/// A follow-up on an instance that the engine created would get 404 from legacy.
#[test]
fn a_creator_that_no_route_follows_causes_a_warning() {
    let creator = |set: Set| set.edit(ROUTES_PATH, "    percent: 50\n", "    instance: { creates: $.id }\n");
    let shown = |set: &Set| {
        assert!(set.read().is_ok(), "{}", set.shown());
        set.shown()
    };
    let text = shown(&creator(Set::valid()));
    assert!(text.contains("no route follows up the instances that `orders.create` creates"), "{text}");
    assert!(text.contains("follows: orders.create"), "{text}");
    let follower = "routes:\n  - id: orders.get\n    match: { method: GET, path: '/orders/{id}' }\n    legacy: shop\n    \
                    workflow: create-order\n    state: shadow\n    retry_key: ${request.headers[\"x-request\"]}\n    \
                    instance: { follows: orders.create, key: path.id }\n";
    for set in [Set::valid(), creator(Set::valid()).put("routes/get.yaml", follower)] {
        let text = shown(&set);
        assert!(!text.contains("no route follows up"), "{text}");
    }
}

/// A pending answer pins the instance whose id its body contains.
#[test]
fn a_pending_answer_that_does_not_pin_its_instance_causes_a_warning() {
    let shown = |pending: &str| {
        let workflow = "workflows/create-order.yaml";
        let set = Set::valid().edit(ROUTES_PATH, "    percent: 50\n", "    instance: { creates: $.order.id }\n").edit(
            workflow,
            "respond:\n  status: 201\n  body:",
            &format!("respond:\n  - pending: {pending}\n  - status: 201\n    body:"),
        );
        assert!(set.read().is_ok(), "{}", set.shown());
        set.shown()
            .contains("`respond.pending` names the run, but does not return the id of its instance (`$.order.id`")
    };
    for (pending, warns) in [
        ("{ status: 202, body: { order: { id: '${run.id}' } } }", false),
        ("{ status: 202, body: { order: { id: 'o-${run.id}' }, state: open } }", false),
        ("{ status: 202, body: '${ {\"order\": {\"id\": run.id}} }' }", false),
        ("{ status: 202, body: { state: open } }", false), // the caller is not told the id
        ("{ status: 202, body: { run: '${run.id}' } }", true),
        ("{ status: 202, headers: { location: '/orders/${run.id}' }, body: { state: open } }", true),
        ("{ status: 503, body: { order: { id: '${run.id}' } } }", true), // only a 2xx or 3xx answer pins
    ] {
        assert_eq!(shown(pending), warns, "{pending}");
    }
}

#[test]
fn the_shared_steps_of_workflows_that_a_workflow_runs_count_as_its_own() {
    let parent = |name: &str, child: &str| {
        format!(
            "workflow: {name}\nsteps: {{ child: {{ run: {child}, input: '${{request.body}}' }} }}\nrespond: {{ status: 201 }}\n"
        )
    };
    let set = |store: &str, route: &str| {
        let route = format!(
            "routes:\n  - id: orders.create\n    match: {{ method: POST, path: /orders }}\n    legacy: shop\n    \
             workflow: grandparent\n    {route}\n"
        );
        Set::valid()
            .put("workflows/grandparent.yaml", parent("grandparent", "parent"))
            .put("workflows/parent.yaml", parent("parent", "create-order"))
            .edit(
                "workflows/create-order.yaml",
                "    body: { amount: '${request.body.total}' }\n    rehearse: { id: '${legacy.body.id}' }",
                "    body: { amount: '${request.body.total}' }\n    rehearse: { id: x }",
            )
            .edit(MAIN_PATH, "store: memory", store)
            .put(ROUTES_PATH, route)
    };
    let (sqlite, memory) = ("store: sqlite:orders.db", "store: memory");
    let shown = set(sqlite, "state: shadow").shown();
    assert!(shown.contains("a client's retry is a new request here"), "{shown}");
    let shown = set(sqlite, "replay_safe: true").shown();
    assert!(shown.contains("is not safe to replay"), "{shown}");
    let shown = set(memory, "state: dark\n    force: { reason: x }").shown();
    assert!(shown.contains("the store is in memory and forgets"), "{shown}");
    // Without the shared step there is no warning.
    let read_only =
        "workflow: create-order\nsteps: { read: { call: 'GET ${services.bank}/charges' } }\nrespond: { status: 201 }\n";
    for (store, route) in [(sqlite, "replay_safe: true"), (memory, "state: dark\n    force: { reason: x }")] {
        let set = set(store, route).put("workflows/create-order.yaml", read_only);
        let shown = set.shown();
        let found = ["new request here", "not safe to replay", "store is in memory"];
        assert!(set.read().is_ok() && !found.iter().any(|text| shown.contains(text)), "{shown}");
    }
}

#[test]
fn an_unreadable_directory_is_named() {
    let set = Set::valid();
    let failed = crate::config::read(&set.dir().join("absent"), &crate::config::Overrides::default()).err();
    assert!(failed.expect("refused").render(false).contains("absent: cannot be read: No such file or directory"));
    let failed = crate::config::read(&set.dir().join(MAIN_PATH), &crate::config::Overrides::default()).err();
    assert!(failed.expect("refused").render(false).contains("not a directory"));
}

#[test]
fn the_schemas_accept_the_example_set() {
    use crate::config::{FileKind, parse::parse, schema};
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("flags");
    let mut files = vec![(FileKind::Pointsman, root.join("pointsman.yaml"))];
    for (kind, dir) in [(FileKind::Routes, "routes"), (FileKind::Workflow, "workflows")] {
        let entries = std::fs::read_dir(root.join(dir)).expect("a directory");
        files.extend(entries.map(|entry| (kind, entry.expect("an entry").path())));
    }
    for (kind, path) in files {
        let text = std::fs::read_to_string(&path).expect("readable");
        let (source, _) = parse(&"f.yaml".into(), &text);
        let value = source.root.expect("YAML").to_value();
        let validator = jsonschema::validator_for(schema(kind)).expect("a JSON Schema");
        let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", path.display());
    }
}
