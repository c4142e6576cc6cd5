//! The record from outside: each flip has one entry, also after kill -9; an altered store is found out.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, cli, output_text};
use crate::support::{FlagsDir, Pointsman, until};

const ROUTES: &str = "routes:\n  - id: orders\n    match: { method: POST, path: /orders }\n    legacy: shop\n    \
                      workflow: create\n    compare: { ignore: [$.at] }\n";
const WORKFLOW: &str = "workflow: create\nsteps:\n  a: { set: 1 }\nrespond: { status: 200, body: {} }\n";

struct System {
    _legacy: Origin,
    flags: FlagsDir,
    pointsman: Pointsman,
    start: Start,
    dir: TempDir,
}

impl System {
    async fn start() -> Self {
        let legacy = Origin::start(OriginReply::Json("{}")).await;
        let flags = FlagsDir::empty();
        flags.write("pointsman.yaml", &format!("services: {{ shop: {} }}\ndefault_legacy: shop\n", legacy.url()));
        flags.write("routes/orders.yaml", ROUTES);
        flags.write("workflows/create.yaml", WORKFLOW);
        let dir = tempfile::tempdir().expect("a directory");
        let start = Start::on_sqlite(flags.path(), dir.path());
        let pointsman = Pointsman::start(&start).await;
        Self { _legacy: legacy, flags, pointsman, start, dir }
    }

    async fn flip(&self, to: &str) {
        let request = json!({ "to": to, "reason": "a test", "force": true, "acknowledge": true });
        let reply = self.pointsman.api(Method::POST, "/api/v2/routes/orders/flip", request).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.json());
    }

    /// Waits until the record has an entry of this source, and returns all.
    async fn entries_with(&self, source: &str) -> Vec<Value> {
        let look = || async {
            let page = self.pointsman.get("/api/v2/record").await;
            let entries = page["entries"].as_array().cloned().unwrap_or_default();
            entries.iter().any(|entry| entry["source"] == source).then_some(entries)
        };
        until(source, look).await
    }

    async fn verified(&self, more: &[&str]) -> (bool, String) {
        let shown = self.pointsman.cli(&[&["record", "verify"], more].concat()).await;
        (shown.status.success(), output_text(&shown))
    }

    async fn restart(&mut self) {
        self.pointsman = Pointsman::start(&self.start).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_flip_has_one_entry_also_after_kill_9_and_an_altered_entry_is_named() {
    let mut system = System::start().await;
    for to in ["shadow", "dark", "live"] {
        system.flip(to).await;
        // The kill may come before the entry is written: the next process writes it.
        system.pointsman.kill().await;
        system.restart().await;
    }
    let entries = system.entries_with("flip 3").await;
    let numbers: Vec<_> = entries.iter().map(|entry| (entry["number"].clone(), entry["source"].clone())).collect();
    assert_eq!(numbers, [1, 2, 3].map(|n| (json!(n), json!(format!("flip {n}")))));
    assert_eq!((&entries[2]["body"]["to"], &entries[2]["body"]["forced"]), (&json!("live"), &json!(true)));
    let noted = entries[1]["hash"].as_str().expect("a hash").to_owned();
    let (holds, text) = system.verified(&["--hash", &noted[..12].to_uppercase()]).await;
    assert!(holds && text.contains("3 entries"), "{text}");

    let exported = system.dir.path().join("record.ndjson");
    let lines = system.pointsman.cli(&["record", "export"]).await.stdout;
    std::fs::write(&exported, &lines).expect("a file");
    let file = exported.to_str().expect("a path");
    let checked = cli(&["record", "verify", "--file", file], &[]).await;
    assert!(checked.status.success(), "{}", output_text(&checked));
    let altered = String::from_utf8_lossy(&lines).replacen("a test", "no test", 1);
    std::fs::write(&exported, altered).expect("a file");
    let checked = cli(&["record", "verify", "--file", file], &[]).await;
    assert!(!checked.status.success() && output_text(&checked).contains("entry 1:"), "{}", output_text(&checked));
    let added = String::from_utf8_lossy(&lines).replacen('{', "{\"note\":\"forged\",", 1);
    for (text, why) in
        [(added.as_str(), "line 1: it is not exactly as `record export` writes it"), ("", "the file has no entry")]
    {
        std::fs::write(&exported, text).expect("a file");
        let checked = cli(&["record", "verify", "--file", file], &[]).await;
        assert!(!checked.status.success() && output_text(&checked).contains(why), "{}", output_text(&checked));
    }

    system.pointsman.stop().await;
    let database = rusqlite::Connection::open(system.dir.path().join("db")).expect("the store");
    let alter = "UPDATE record_entries SET record = CAST(replace(CAST(record AS TEXT), 'dark', 'only') AS BLOB) WHERE number = 2";
    assert_eq!(database.execute(alter, []).expect("a row"), 1);
    drop(database);
    system.restart().await;
    let (holds, text) = system.verified(&[]).await;
    assert!(!holds && text.contains("entry 2: was changed"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_flip_and_a_cut_record_are_found_out() {
    let mut system = System::start().await;
    system.flip("shadow").await;
    system.flip("off").await;
    let entries = system.entries_with("flip 2").await;
    let newest = entries[1]["hash"].as_str().expect("a hash").to_owned();
    system.pointsman.stop().await;
    let database = rusqlite::Connection::open(system.dir.path().join("db")).expect("the store");
    let execute = |text: &str| database.execute(text, []).expect("the table");
    assert_eq!(
        execute(
            "UPDATE flips SET record = CAST(replace(CAST(record AS TEXT), 'a test', 'no test') AS BLOB) WHERE number = 1"
        ),
        1
    );
    drop(database);
    system.restart().await;
    let (holds, text) = system.verified(&[]).await;
    assert!(!holds && text.contains("flip 1 in the store is not the one in the record: `reason` differs"), "{text}");

    system.pointsman.stop().await;
    let database = rusqlite::Connection::open(system.dir.path().join("db")).expect("the store");
    database.execute("DELETE FROM record_entries WHERE number = 2", []).expect("the table");
    database.execute("UPDATE flips SET record = CAST(replace(CAST(record AS TEXT), 'no test', 'a test') AS BLOB) WHERE number = 1", []).expect("it");
    drop(database);
    system.restart().await;
    system.entries_with("flip 2").await;
    let (holds, text) = system.verified(&[]).await;
    assert!(!holds && text.contains("entry 2: is missing: entry 3 follows entry 1"), "it is written again: {text}");
    let (holds, text) = system.verified(&["--hash", "0198"]).await;
    assert!(!holds && text.contains("hexadecimal digits"), "{text}");

    // The head of the chain is removed too: the store had one when the first entry was added.
    system.pointsman.stop().await;
    let database = rusqlite::Connection::open(system.dir.path().join("db")).expect("the store");
    let cut = "DELETE FROM record_entries WHERE number > 1; DELETE FROM meta WHERE key = 'record_head'";
    database.execute_batch(cut).expect("the tables");
    drop(database);
    system.restart().await;
    system.entries_with("flip 2").await;
    let (holds, text) = system.verified(&[]).await;
    assert!(!holds && text.contains("entry 2: is missing: entry 3 follows entry 1"), "{text}");

    // Without any entry it looks like a store of an earlier version: only a hash that was noted elsewhere shows it.
    system.pointsman.stop().await;
    let database = rusqlite::Connection::open(system.dir.path().join("db")).expect("the store");
    let cut = "DELETE FROM record_entries; DELETE FROM meta WHERE key = 'record_head'";
    database.execute_batch(cut).expect("the tables");
    drop(database);
    system.restart().await;
    system.entries_with("flip 2").await;
    assert!(system.verified(&[]).await.0, "the entries were written again, with other times");
    let (holds, text) = system.verified(&["--hash", &newest]).await;
    assert!(!holds && text.contains("rewritten or truncated"), "{text}");

    // The last flip is removed: after a restart the route is in the state before.
    system.pointsman.stop().await;
    let database = rusqlite::Connection::open(system.dir.path().join("db")).expect("the store");
    assert_eq!(database.execute("DELETE FROM flips WHERE number = 2", []).expect("the table"), 1);
    drop(database);
    system.restart().await;
    let (holds, text) = system.verified(&[]).await;
    assert!(!holds && text.contains("flip 2 of the record is not in the store any more"), "{text}");
}

/// Changed while it runs, then again as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_no_flip_or_entry_and_a_record_that_was_emptied_do_not_hold() {
    let mut system = System::start().await;
    system.flip("shadow").await;
    system.flip("off").await;
    system.entries_with("flip 2").await;
    let database = rusqlite::Connection::open(system.dir.path().join("db")).expect("the store");
    let copy = "CREATE TEMP TABLE f AS SELECT * FROM flips; CREATE TEMP TABLE e AS SELECT * FROM record_entries; \
                CREATE TEMP TABLE m AS SELECT * FROM meta WHERE key = 'record_head'";
    database.execute_batch(copy).expect("a copy");
    let old = "UPDATE flips SET record = CAST(json_set(CAST(record AS TEXT), '$.at', '2020-01-01T00:00:00Z') AS BLOB)";
    let without_head = "DELETE FROM meta WHERE key = 'record_head'";
    let without_entry = format!("DELETE FROM record_entries WHERE number = 2; {without_head}; {old} WHERE number = 2");
    let cases = [
        ("UPDATE flips SET route = 'other' WHERE number = 2", "flip 2 in the store cannot be read: its column `route`"),
        ("INSERT INTO flips SELECT 0, route, record FROM flips WHERE number = 1", "flip 0 in the store cannot be read"),
        (
            "INSERT INTO flips SELECT -1, route, record FROM flips WHERE number = 1",
            "flip -1 in the store cannot be read",
        ),
        ("UPDATE flips SET record = '{}' WHERE number = 1", "flip 1 in the store cannot be read: missing field"),
        (
            r#"UPDATE record_entries SET record = CAST('{"kind":"refused",' || substr(CAST(record AS TEXT), 2) AS BLOB)
               WHERE number = 2"#,
            "entry 2: cannot be read: duplicate field `kind`",
        ),
        ("UPDATE record_entries SET record = '' WHERE number = 1", "entry 1: cannot be read: EOF"),
        (
            "UPDATE record_entries SET source = 'flip 7' WHERE number = 2",
            "entry 2: cannot be read: its column `source`",
        ),
        (
            r#"UPDATE record_entries SET number = 2, record =
               CAST(replace(CAST(record AS TEXT), '"reason":', '"reason":"a drill","reason":') AS BLOB) WHERE number = 2"#,
            "entry 2: cannot be read: it is not exactly as pointsman writes it",
        ),
        (
            r#"UPDATE record_entries SET record = CAST('{"note":"forged",' || substr(CAST(record AS TEXT), 2) AS BLOB)
               WHERE number = 1"#,
            "entry 1: cannot be read: it is not exactly as pointsman writes it",
        ),
        ("DELETE FROM record_entries", "entry 1: is missing: the store notes entry 2 with the hash"),
        ("DELETE FROM record_entries WHERE number = 2", "entry 2: is missing: the store notes entry 2 with the hash"),
        (
            "DELETE FROM record_entries; DELETE FROM meta WHERE key = 'record_head'",
            "the record is empty although flip 1 is in the store",
        ),
        (without_entry.as_str(), "entry 2: may be missing: the store has lost its note of the newest entry"),
    ];
    for (change, why) in cases {
        database.execute_batch(change).expect("the tables");
        let (holds, text) = system.verified(&[]).await;
        assert!(!holds && text.contains(why), "{change}: {text}");
        let again = "DELETE FROM flips; INSERT INTO flips SELECT * FROM f; DELETE FROM record_entries; \
                     INSERT INTO record_entries SELECT * FROM e; INSERT OR REPLACE INTO meta SELECT * FROM m";
        database.execute_batch(again).expect("the rows as they were");
        let (holds, text) = system.verified(&[]).await;
        assert!(holds && !text.contains("written more than"), "{text}");
    }

    // The next start writes entries for all flips, after a gap.
    system.pointsman.stop().await;
    database.execute_batch(&format!("DELETE FROM record_entries; {old}")).expect("the tables");
    system.restart().await;
    system.entries_with("flip 2").await;
    let (holds, text) = system.verified(&[]).await;
    assert!(!holds && text.contains("entry 1: is missing: the first one is entry 3"), "{text}");
    assert!(
        text.contains("2 entries were written more than 5 min after their flips (the first is entry 3: "),
        "{text}"
    );

    // A store of an earlier version has no head: then only the late entries show it.
    system.pointsman.stop().await;
    database.execute_batch(&format!("DELETE FROM record_entries; {without_head}")).expect("the tables");
    system.restart().await;
    system.entries_with("flip 2").await;
    let (holds, text) = system.verified(&[]).await;
    assert!(
        holds && text.contains("2 entries were written more than 5 min after their flips (the first is entry 1: "),
        "{text}"
    );
    let shown = output_text(&system.pointsman.cli(&["record", "show"]).await);
    assert!(shown.contains("(entered "), "{shown}");

    // The state in force would be that of the flip before: no process starts on it.
    system.pointsman.stop().await;
    database.execute("UPDATE flips SET route = 'other' WHERE number = 2", []).expect("a row");
    drop(database);
    let log = Pointsman::try_start(&system.start).await.err().expect("it refuses to start");
    assert!(log.contains("flip 2 in the store cannot be read: its column `route` is `other`"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_rules_is_an_entry() {
    let system = System::start().await;
    system.flags.write("routes/orders.yaml", &ROUTES.replace("$.at", "$.other"));
    let look = || async {
        let page = system.pointsman.get("/api/v2/record").await;
        page["entries"].as_array().and_then(|all| all.iter().find(|entry| entry["kind"] == "basis").cloned())
    };
    let entry = until("the entry", look).await;
    assert_eq!((&entry["route"], &entry["body"]["changed"]), (&json!("orders"), &json!("`compare:`")));
    let keys = json!([{ "key": "ignore", "before": ["$.at"], "after": ["$.other"] }]);
    assert_eq!(entry["body"]["changes"], json!([{ "part": "`compare:`", "keys": keys }]));
    assert!(entry["body"]["evidence_before"]["shadow_pairs"].is_u64(), "{entry}");
    let shown = output_text(&system.pointsman.cli(&["record", "show", "orders"]).await);
    assert!(shown.contains("`compare:`: the evidence starts from zero"), "{shown}");
    assert!(shown.contains("ignore: added $.other, removed $.at"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_literal_that_a_rules_condition_compares_with_a_secret_is_shown_or_stored() {
    let mut system = System::start().await;
    let (ignored, condition) = ("ignore: [$.at]", r#"request.headers["x-api-key"] == "k3y-zz""#);
    for (index, path) in ["$.at", "$.by"].into_iter().enumerate() {
        let rules = format!(
            "ignore: [{{ path: {path}, when: '${{{condition}}}' }}], assert: ['${{{condition} || legacy.status == 200}}']"
        );
        system.flags.write("routes/orders.yaml", &ROUTES.replace(ignored, &rules));
        until("the entry", || async {
            let page = system.pointsman.get("/api/v2/record").await;
            let all = page["entries"].as_array().cloned().unwrap_or_default();
            (all.iter().filter(|entry| entry["kind"] == "basis").count() == index + 1).then_some(())
        })
        .await;
    }
    let shown = output_text(&system.pointsman.cli(&["record", "show", "orders", "--json"]).await);
    assert!(shown.contains(r#"request.headers[\"x-api-key\"] == \"***\""#), "{shown}");
    let evidence = system.pointsman.get("/api/v2/routes/orders/evidence").await.to_string();
    let metrics = system.pointsman.api(Method::GET, "/metrics", Value::Null).await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!([&shown, &evidence, &metrics].into_iter().all(|text| !text.contains("k3y")), "{shown}\n{evidence}");
    system.pointsman.stop().await;
    for file in std::fs::read_dir(system.dir.path()).expect("the store").flatten() {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        assert!(!bytes.windows(3).any(|window| window == b"k3y"), "{:?}", file.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_a_start_finds_is_an_entry_with_what_the_files_said_before() {
    let mut system = System::start().await;
    system.pointsman.stop().await;
    system
        .flags
        .write("routes/orders.yaml", &ROUTES.replace("ignore: [$.at]", "ignore: [$.at], tolerance: { $.total: 1 }"));
    system.flags.write("workflows/create.yaml", &WORKFLOW.replace("set: 1", "set: 2"));
    system.flags.edit("pointsman.yaml", |text| {
        text.replace("services: { shop: ", "services: { shop: http://127.0.0.1:9, other: ")
    });
    system.restart().await;
    let look = || async {
        let page = system.pointsman.get("/api/v2/record").await;
        page["entries"].as_array().and_then(|all| all.iter().find(|entry| entry["kind"] == "basis").cloned())
    };
    let body = until("the entry", look).await["body"].clone();
    let part = |name: &str| {
        let found = body["changes"].as_array().and_then(|all| all.iter().find(|change| change["part"] == name));
        found.cloned().unwrap_or_else(|| panic!("{name}: {body:#}"))
    };
    let tolerance = json!([{ "key": "tolerance.$.total", "before": null, "after": 1 }]);
    assert_eq!(part("`compare:`")["keys"], tolerance);
    let workflow = part("the workflow `create`");
    let plans = [&workflow["before"], &workflow["after"]].map(|plan| plan.as_str().expect("a plan").to_owned());
    assert!(plans.iter().all(|plan| plan.starts_with("plan_")) && plans[0] != plans[1], "{workflow}");
    let address = part("the address of its legacy service");
    assert!(address["after"] == "http://127.0.0.1:9/" && address["before"] != address["after"], "{address}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_the_gate_refuses_has_an_entry_with_the_reasons_once() {
    let system = System::start().await;
    for _ in 0..2 {
        let request = json!({ "to": "live", "reason": "too early" });
        let reply = system.pointsman.api(Method::POST, "/api/v2/routes/orders/flip", request).await;
        assert_eq!(reply.status, StatusCode::CONFLICT, "{}", reply.json());
    }
    // What the file requests is refused too.
    system.flags.write("routes/orders.yaml", &format!("{ROUTES}    state: only\n"));
    let refused = |entries: &[Value]| {
        let of_kind = entries.iter().filter(|entry| entry["kind"] == "refused");
        of_kind.map(|entry| entry["body"].clone()).collect::<Vec<_>>()
    };
    let entries = until("the entry of the file's move", || async {
        let page = system.pointsman.get("/api/v2/record").await;
        let found = refused(page["entries"].as_array().map_or(&[], Vec::as_slice));
        found.iter().any(|body| body["by"] == "file").then_some(found)
    })
    .await;
    let asked: Vec<_> = entries.iter().map(|body| (body["to"].as_str(), body["reason"].as_str())).collect();
    assert_eq!(asked, [(Some("live"), Some("too early")), (Some("only"), None)], "{entries:#?}");
    assert!(entries.iter().all(|body| body["why"][0].is_string()), "{entries:#?}");
    assert!(entries.iter().all(|body| body["evidence"]["shadow_pairs"] == 0), "{entries:#?}");
    let shown = output_text(&system.pointsman.cli(&["record", "show", "orders"]).await);
    assert!(shown.contains("refused: to live") && shown.contains("too early ("), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 120), "{shown}");
    assert!(system.verified(&[]).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cohort_that_a_file_forces_has_an_entry_and_so_has_a_change_of_who_is_in_it() {
    let of_staff = |when: &str| {
        format!(
            "{ROUTES}    state: shadow\n    cohorts:\n      - {{ name: staff, when: '${{request.headers[\"x-staff\"] {when} \"1\"}}', \
             state: live, force: {{ reason: audit }} }}\n"
        )
    };
    let flags = |system: &System, when: &str| system.flags.write("routes/orders.yaml", &of_staff(when));
    let mut system = System::start().await;
    // A first start with these files.
    system.pointsman.stop().await;
    std::fs::remove_file(system.dir.path().join("db")).expect("the store");
    flags(&system, "==");
    system.restart().await;
    let entries = async |system: &System, count: usize| {
        until("the entries", || async {
            let page = system.pointsman.get("/api/v2/record").await;
            let all = page["entries"].as_array().cloned().unwrap_or_default();
            let found: Vec<Value> = all.into_iter().filter(|entry| entry["kind"] == "cohort").collect();
            (found.len() == count).then_some(found)
        })
        .await
    };
    let [entry] = entries(&system, 1).await.try_into().expect("one entry");
    let body = &entry["body"];
    let said = [&body["cohort"], &body["from"], &body["to"], &body["by"], &body["forced"], &body["reason"]];
    assert_eq!(said, [&json!("staff"), &Value::Null, &json!("live"), &json!("file"), &json!(true), &json!("audit")]);
    let shown = output_text(&system.pointsman.cli(&["status"]).await);
    assert!(shown.contains("orders: its cohort `staff` is in live by force: audit"), "{shown}");
    for _ in 0..2 {
        system.pointsman.kill().await;
        system.restart().await;
    }
    system.flip("off").await;
    system.flip("shadow").await;
    system.entries_with("flip 2").await;
    entries(&system, 1).await; // neither a start nor a kill makes another one
    // The process ends before the entry is written: the next one makes it.
    system.pointsman.stop().await;
    let database = rusqlite::Connection::open(system.dir.path().join("db")).expect("the store");
    let cut = "DELETE FROM record_entries; DELETE FROM meta WHERE key = 'record_head'";
    database.execute_batch(cut).expect("the tables");
    drop(database);
    system.restart().await;
    let [entry] = entries(&system, 1).await.try_into().expect("one entry");
    assert_eq!((&entry["body"]["from"], &entry["body"]["reason"]), (&Value::Null, &json!("audit")), "{entry}");
    flags(&system, "!=");
    let all = entries(&system, 2).await;
    let last = &all[1]["body"];
    assert_eq!((&last["from"], &last["to"], &last["by"]), (&json!("live"), &json!("live"), &json!("file")), "{last}");
    let shown = output_text(&system.pointsman.cli(&["record", "show", "orders"]).await);
    assert!(shown.contains("cohort staff: in live, with another rule"), "{shown}");
    // The files are changed while no process runs.
    system.pointsman.stop().await;
    flags(&system, "==");
    system.restart().await;
    let all = entries(&system, 3).await;
    let last = &all[2]["body"];
    assert_eq!(
        (&last["from"], &last["to"], &last["reason"]),
        (&json!("live"), &json!("live"), &json!("audit")),
        "{last}"
    );
    let says = |name: &str, when: &str| last[name].as_str().is_some_and(|text| text.contains(when));
    let (before, now) = (r#"request.headers["x-staff"] != "***""#, r#"request.headers["x-staff"] == "***""#);
    assert!(says("when_before", before) && says("when", now), "{last}");
    let shown = output_text(&system.pointsman.cli(&["record", "show", "orders"]).await);
    assert!(shown.contains(before) && shown.contains(now), "{shown}");
    assert!(system.verified(&[]).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_a_file_forces_without_a_flip_has_one_entry() {
    let mut system = System::start().await;
    let forced = |state: &str| format!("{ROUTES}    state: {state}\n    force: {{ reason: audit }}\n");
    let with_new = |state: &str| {
        let new =
            forced(state).replace("routes:\n", "").replace("id: orders", "id: carts").replace("/orders", "/carts");
        format!("{ROUTES}{new}")
    };
    system.flags.write("routes/orders.yaml", &with_new("live"));
    let declared = async |system: &System, count: usize| {
        until("the entries", || async {
            let page = system.pointsman.get("/api/v2/record").await;
            let all = page["entries"].as_array().cloned().unwrap_or_default();
            let found: Vec<Value> = all.into_iter().filter(|entry| entry["kind"] == "declared").collect();
            (found.len() == count).then_some(found)
        })
        .await
    };
    let [entry] = declared(&system, 1).await.try_into().expect("one entry");
    assert_eq!(entry["route"], "carts");
    let body = &entry["body"];
    let said = [&body["state"], &body["in_force"], &body["by"], &body["reason"], &body["shares"]["live"]];
    assert_eq!(said, [&json!("live"), &json!("live"), &json!("file"), &json!("audit"), &json!(100.0)], "{body}");
    assert!(body["evidence"].is_object() && body["since"].is_string(), "{body}");
    let shown = output_text(&system.pointsman.cli(&["record", "show", "carts"]).await);
    assert!(shown.contains("file: live without a flip") && shown.contains("audit (forced)"), "{shown}");
    let status = system.pointsman.get("/api/v2/routes/carts").await;
    assert_eq!(status["row"]["effective"]["why"], "unproven", "{status}");

    for _ in 0..2 {
        system.pointsman.kill().await;
        system.restart().await;
    }
    system.flip("shadow").await;
    let entries = system.entries_with("flip 1").await;
    assert_eq!(entries.len(), 2, "neither a start nor a kill makes another one: {entries:#?}");
    // The process ends before the entry is written: the next one makes it.
    system.pointsman.stop().await;
    let database = rusqlite::Connection::open(system.dir.path().join("db")).expect("the store");
    let cut = "DELETE FROM record_entries WHERE number >= 1; DELETE FROM meta WHERE key = 'record_head'";
    database.execute_batch(cut).expect("the table");
    drop(database);
    system.restart().await;
    declared(&system, 1).await;

    system.flags.write("routes/orders.yaml", &with_new("dark").replace("audit", "another"));
    system.entries_with("flip 2").await;
    assert!(system.verified(&[]).await.0, "a move from there is a flip");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_literal_of_a_cohorts_condition_is_in_no_entry_and_a_change_of_it_shows() {
    let mut system = System::start().await;
    let conditions = [
        r#"request.headers["x-api-key"] == "k3y-zz""#,
        r#"request.headers["x-api-key"].startsWith("k3y-yy")"#,
        r#"request.headers.authorization in ["Bearer k3y-xx"]"#,
        r#"request.headers["x-staff"] == "k3y-ww""#,
        r#"request.headers["x-staff"] == "k3y-vv""#,
    ];
    for (index, when) in conditions.iter().enumerate() {
        let cohorts = format!(
            "{ROUTES}    state: shadow\n    redact: {{ names: [x-staff] }}\n    cohorts:\n      - {{ name: staff, when: '${{{when}}}', \
             state: live, force: {{ reason: audit }} }}\n"
        );
        system.flags.write("routes/orders.yaml", &cohorts);
        until("the entry", || async {
            let page = system.pointsman.get("/api/v2/record").await;
            let all = page["entries"].as_array().cloned().unwrap_or_default();
            (all.iter().filter(|entry| entry["kind"] == "cohort").count() == index + 1).then_some(())
        })
        .await;
    }
    let page = system.pointsman.get("/api/v2/record").await.to_string();
    let shown = output_text(&system.pointsman.cli(&["record", "show", "orders"]).await);
    assert!(!page.contains("k3y") && !shown.contains("k3y"), "{shown}");
    assert!(shown.contains(r#"request.headers["x-staff"] == "***""#), "{shown}");
    assert!(shown.contains("by file: audit; rule "), "only the literal is another one: {shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 120), "{shown}");
    system.pointsman.stop().await;
    for file in std::fs::read_dir(system.dir.path()).expect("the store").flatten() {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        assert!(!bytes.windows(3).any(|window| window == b"k3y"), "{:?}", file.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_promote_has_an_entry_and_a_flip_the_conditions_that_it_passed() {
    let mut system = System::start().await;
    let with = |promote: &str| format!("{ROUTES}    promote: {{ {promote} }}\n");
    let changes = async |system: &System, count: usize| {
        until("the entries", || async {
            let page = system.pointsman.get("/api/v2/record").await;
            let all = page["entries"].as_array().cloned().unwrap_or_default();
            let found: Vec<Value> = all.into_iter().filter(|entry| entry["kind"] == "promote").collect();
            (found.len() == count).then_some(found)
        })
        .await
    };
    system.flip("shadow").await;
    system.flags.write("routes/orders.yaml", &with("pairs: 1, mismatch_below: 100%, coverage_at_least: 0%"));
    let [entry] = changes(&system, 1).await.try_into().expect("one entry");
    let keys = &entry["body"]["changes"][0]["keys"];
    assert_eq!(keys[2], json!({ "key": "pairs", "before": "4512", "after": "1" }), "{keys}");
    assert_eq!(entry["body"]["requires"]["mismatch_below"], "100%", "{entry}");
    system.flip("dark").await;
    system.entries_with("flip 2").await;
    // Restored while no process runs; neither a start nor a kill makes another entry.
    system.pointsman.stop().await;
    system.flags.write("routes/orders.yaml", ROUTES);
    for _ in 0..2 {
        system.restart().await;
        changes(&system, 2).await;
        system.pointsman.kill().await;
    }
    system.restart().await;
    let entries = system.entries_with("flip 2").await;
    let flip = entries.iter().find(|entry| entry["source"] == "flip 2").expect("it");
    let pairs = &flip["body"]["gates"][0]["conditions"][0];
    assert_eq!((&pairs["name"], &pairs["wanted"]), (&json!("pairs"), &json!("1")), "{flip}");
    let shown = output_text(&system.pointsman.cli(&["record", "show", "orders"]).await);
    let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("gate shadow to dark: pairs 1 inconclusive ("), "{shown}");
    assert!(words.contains("coverage_at_least: 95% to 0%; mismatch_below: 0.1% to 100%; pairs: 4512 to 1"), "{shown}");
    assert!(words.contains("coverage_at_least: 0% to 95%; mismatch_below: 100% to 0.1%; pairs: 1 to 4512"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 120), "{shown}");
    assert!(system.verified(&[]).await.0);
}
