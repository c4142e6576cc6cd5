//! Evidence from outside: which changes start it anew, and which do not; that a gate which a difference shut stays shut
//! over a full disk and kill -9; how runs that would pause, or that answer long before they end, are counted.

use http::{Method, StatusCode};
use pointsman::demo::http::{Client, Reply};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_text};
use crate::support::{FlagsDir, Metrics, PROMOTE, Pointsman, WAIT_MAX, until};

/// Pairs that open a gate.
const PAIRS: u64 = 20;

/// One route `orders` whose workflow runs `outer`, which runs `inner`, which charges.
struct Orders {
    legacy: Origin,
    bank: Origin,
    flags: FlagsDir,
    pointsman: Pointsman,
    client: Client,
    start: Start,
    _dir: TempDir,
}

const LEGACY_REPLY: &str = r#"{"total":7}"#;

impl Orders {
    async fn start() -> Self {
        let (legacy, bank) =
            (Origin::start(OriginReply::Json(LEGACY_REPLY)).await, Origin::start(OriginReply::Json("{}")).await);
        let flags = FlagsDir::empty();
        services(&flags, &legacy, &bank, "");
        for (name, runs) in [("create", "outer"), ("outer", "inner")] {
            flags.write(
                &format!("workflows/{name}.yaml"),
                &format!(
                    "workflow: {name}\nsteps:\n  next: {{ run: {runs}, input: {{ a: 1 }} }}\n\
                     respond: {{ status: 200, body: \"${{steps.next.output}}\" }}\n"
                ),
            );
        }
        inner(&flags, 7);
        flags.write(
            "routes/orders.yaml",
            "routes:\n  - { id: orders, match: { method: POST, path: /orders }, legacy: shop, workflow: create, state: off }\n",
        );
        let dir = tempfile::tempdir().expect("a directory");
        let start = Start::on_sqlite(flags.path(), dir.path());
        let pointsman = Pointsman::start(&start).await;
        Self { legacy, bank, flags, pointsman, client: Client::new(WAIT_MAX), start, _dir: dir }
    }

    async fn evidence(&self) -> Value {
        self.pointsman.get("/api/v2/routes/orders/evidence").await
    }

    async fn count(&self, name: &str) -> u64 {
        self.evidence().await["evidence"][name].as_u64().unwrap_or_else(|| panic!("no {name}"))
    }

    async fn order(&self) -> Reply {
        let url = format!("{}/orders", self.pointsman.url());
        self.client.json(Method::POST, &url, &[], &json!({})).await.expect("a reply")
    }

    /// Sends `more` requests, and waits until the count `name` of the evidence has risen by as many.
    async fn gather(&self, name: &str, more: u64) {
        let wanted = self.count(name).await + more;
        for _ in 0..more {
            assert_eq!(self.order().await.status, StatusCode::OK);
        }
        until("the pairs", || async { (self.count(name).await >= wanted).then_some(()) }).await;
    }

    /// What `diffs` shows as soon as it has a sample: a pair is counted before its sample is kept.
    async fn diffs_with_a_sample(&self) -> Value {
        until("a sample", || async {
            let diffs = self.pointsman.get("/api/v2/routes/orders/diffs").await;
            diffs["groups"].as_array().is_some_and(|groups| !groups.is_empty()).then_some(diffs)
        })
        .await
    }

    async fn flip(&self, to: &str) -> Reply {
        self.pointsman.api(Method::POST, "/api/v2/routes/orders/flip", json!({ "to": to, "reason": "test" })).await
    }

    /// Waits until `status` says this of the gate to the next rung, and the list of routes has the same.
    async fn shows_gate(&self, says: &str) {
        until("the gate", || async {
            let routes = self.pointsman.get("/api/v2/routes").await;
            let gate = &routes[0]["gate"];
            let line = match gate["needs"].as_str() {
                Some(needs) => format!("orders to {}: {needs}", gate["to"].as_str()?),
                None => format!("orders to {}: the gate is open", gate["to"].as_str()?),
            };
            let status = output_text(&self.pointsman.cli(&["status"]).await);
            (line.contains(says) && status.contains(&line)).then_some(())
        })
        .await;
    }

    async fn climb_to_dark(&self) {
        assert_eq!(self.flip("shadow").await.status, StatusCode::OK);
        self.shows_gate(&format!("orders to dark: needs {PAIRS} more compared pairs")).await;
        self.gather("shadow_pairs", PAIRS).await;
        self.shows_gate("orders to dark: the gate is open").await;
        assert_eq!(self.flip("dark").await.status, StatusCode::OK);
        self.gather("dark_pairs", PAIRS).await;
        assert_eq!(self.evidence().await["next"]["missing"], json!([]), "the gate to live is open");
    }

    /// Changes the files, and waits until they are in force.
    async fn reload(&self, change: impl FnOnce(&FlagsDir)) {
        let generation = || async { self.pointsman.get("/api/v2/status").await["flags"]["generation"].as_u64() };
        let before = generation().await;
        change(&self.flags);
        until("the files to be in force", || async { (generation().await > before).then_some(()) }).await;
    }
}

fn services(flags: &FlagsDir, legacy: &Origin, bank: &Origin, bank_settings: &str) {
    let (legacy, bank) = (legacy.url(), bank.url());
    flags.write(
        "pointsman.yaml",
        &format!(
            "services:\n  shop: {legacy}\n  bank: {{ urls: [ \"{bank}\" ]{bank_settings} }}\ndefault_legacy: shop\n{PROMOTE}"
        ),
    );
}

fn inner(flags: &FlagsDir, amount: u64) {
    flags.write(
        "workflows/inner.yaml",
        &format!(
            "workflow: inner\nsteps:\n  charge: {{ call: \"POST ${{services.bank}}/charges\", body: {{ amount: {amount} }}, \
             rehearse: {{}} }}\nrespond: {{ status: 200, body: {{ total: {amount} }} }}\n"
        ),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_starts_anew_when_a_workflow_changes_that_its_workflow_runs() {
    let orders = Orders::start().await;
    orders.climb_to_dark().await;
    orders.reload(|flags| inner(flags, 9_999)).await;
    let refused = orders.flip("live").await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.json());
    assert_eq!(orders.count("dark_pairs").await, 0);
    assert_eq!(orders.order().await.json()["total"], 7, "legacy answers");
    assert_eq!(orders.bank.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_starts_anew_when_a_service_or_legacy_moves_and_not_when_its_limits_change() {
    let orders = Orders::start().await;
    orders.climb_to_dark().await;
    let (legacy, bank) =
        (Origin::start(OriginReply::Json(LEGACY_REPLY)).await, Origin::start(OriginReply::Json("{}")).await);
    let limits = ", keyed: true, calls_max: 9, rate: 1000/s, breaker: off";
    orders.reload(|flags| services(flags, &orders.legacy, &orders.bank, limits)).await;
    assert_eq!(
        orders.count("dark_pairs").await,
        PAIRS,
        "these settings limit when the service is called, not what it answers"
    );
    orders.reload(|flags| services(flags, &orders.legacy, &bank, limits)).await;
    assert_eq!(orders.flip("live").await.status, StatusCode::CONFLICT);
    assert_eq!(orders.count("dark_pairs").await, 0, "a service that only a child of a child calls");
    orders.gather("dark_pairs", PAIRS).await;
    assert_eq!(orders.evidence().await["next"]["missing"], json!([]));
    orders.reload(|flags| services(flags, &legacy, &bank, limits)).await;
    assert_eq!(orders.count("dark_pairs").await, 0, "the route's legacy");
    let mut orders = orders;
    orders.gather("dark_pairs", PAIRS).await;
    assert_eq!(orders.pointsman.stop().await, Some(0));
    orders.pointsman = Pointsman::start(&orders.start).await;
    assert_eq!(orders.count("dark_pairs").await, PAIRS, "the same files after a restart");
}

/// The reasons why a move is refused.
fn reasons(reply: &Reply) -> String {
    assert_eq!(reply.status, StatusCode::CONFLICT, "{}", reply.json());
    reply.json().to_string()
}

const DIFFERENT: &str = r#"{"total":8}"#;

/// From now on the process cannot write beyond the first KiB of a file: the store takes nothing, as on a full disk.
fn fill_disk(pointsman: &Pointsman) {
    let pid = i32::try_from(pointsman.pid()).ok().and_then(rustix::process::Pid::from_raw);
    let limit = rustix::process::Rlimit { current: Some(1 << 10), maximum: None };
    rustix::process::prlimit(pid, rustix::process::Resource::Fsize, limit).expect("the limit is set");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_a_difference_shut_stays_shut_after_a_full_disk_and_kill_9() {
    let mut orders = Orders::start().await;
    orders.flip("shadow").await;
    orders.gather("shadow_pairs", PAIRS).await;
    assert_eq!(orders.pointsman.stop().await, Some(0), "the clean pairs are stored");
    orders.pointsman = Pointsman::start(&orders.start).await;
    assert_eq!(orders.evidence().await["next"]["missing"], json!([]));
    fill_disk(&orders.pointsman);
    orders.legacy.set_default(OriginReply::Json(DIFFERENT));
    orders.gather("mismatched", 3).await;
    let shut = reasons(&orders.flip("dark").await);
    assert!(shut.contains("open mismatches"), "{shut}");
    orders.pointsman.kill().await;

    orders.legacy.set_default(OriginReply::Json(LEGACY_REPLY));
    orders.pointsman = Pointsman::start(&orders.start).await;
    let shut = reasons(&orders.flip("dark").await);
    assert!(shut.contains("one or more differences were lost"), "{shut}");
    until("the new start of the evidence to be stored", || async {
        let path = orders.start.store.strip_prefix("sqlite:").expect("a file").to_owned() + ".evidence";
        let marks = std::fs::read(path).expect("the file");
        marks[64..].iter().all(|byte| *byte == 0).then_some(())
    })
    .await;
    orders.pointsman.kill().await;
    orders.pointsman = Pointsman::start(&orders.start).await;
    let shut = reasons(&orders.flip("dark").await);
    assert!(shut.contains("one or more differences were lost"), "stored with the evidence: {shut}");
    orders.gather("shadow_pairs", PAIRS).await;
    assert_eq!(orders.flip("dark").await.status, StatusCode::OK, "the gate is opened by new pairs");
}

/// The process is killed as soon as a flip finds the gate shut, in most runs before the difference is stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_a_difference_shut_stays_shut_after_kill_9() {
    let mut orders = Orders::start().await;
    orders.flip("shadow").await;
    orders.gather("shadow_pairs", PAIRS).await;
    assert_eq!(orders.pointsman.stop().await, Some(0), "the clean pairs are stored");
    orders.pointsman = Pointsman::start(&orders.start).await;
    orders.legacy.set_default(OriginReply::Json(DIFFERENT));
    orders.gather("mismatched", 1).await;
    let shut = reasons(&orders.flip("dark").await);
    assert!(shut.contains("open mismatch"), "{shut}");
    orders.pointsman.kill().await;
    orders.pointsman = Pointsman::start(&orders.start).await;
    let shut = reasons(&orders.flip("dark").await);
    assert!(shut.contains("open mismatch") || shut.contains("one or more differences were lost"), "{shut}");
}

/// The disk is full when the last difference is seen, so that it is not stored before the kill.
#[tokio::test(flavor = "multi_thread")]
async fn stored_mismatches_stay_open_when_a_kill_loses_one_more() {
    let mut orders = Orders::start().await;
    orders.flip("shadow").await;
    orders.gather("shadow_pairs", PAIRS).await;
    orders.legacy.set_default(OriginReply::Json(DIFFERENT));
    orders.gather("mismatched", 3).await;
    assert_eq!(orders.pointsman.stop().await, Some(0), "the differences are stored");
    orders.pointsman = Pointsman::start(&orders.start).await;
    assert!(reasons(&orders.flip("dark").await).contains("has 3 open mismatches"));
    fill_disk(&orders.pointsman);
    orders.gather("mismatched", 1).await;
    orders.pointsman.kill().await;

    orders.legacy.set_default(OriginReply::Json(LEGACY_REPLY));
    orders.pointsman = Pointsman::start(&orders.start).await;
    orders.gather("shadow_pairs", PAIRS).await;
    let shut = reasons(&orders.flip("dark").await);
    assert!(shut.contains("has 3 open mismatches") && shut.contains("more are not counted"), "{shut}");
}

/// A call is refused, and its step says `on_conflict: pause`. A run that answers a caller would pause until a person
/// decides. In `shadow` and `dark` nobody is asked: the run fails, and the request is skipped as `would_pause`.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_would_pause_is_counted_by_that_name() {
    const LOOK: &str = "steps:\n  look: { call: \"GET ${services.bank}/charges\", on_conflict: pause }\n\
                        respond: { status: 200, body: { total: 7 } }\n";
    let orders = Orders::start().await;
    orders.bank.set_default(OriginReply::Status(409));
    let mut counted = 0.0;
    for (file, name) in [("workflows/inner.yaml", "inner"), ("workflows/create.yaml", "create")] {
        orders.reload(|flags| flags.write(file, &format!("workflow: {name}\n{LOOK}"))).await;
        for (rung, requests) in [("shadow", 3_u32), ("dark", 2)] {
            let to = json!({ "to": rung, "reason": "test", "force": true });
            let moved = orders.pointsman.api(Method::POST, "/api/v2/routes/orders/flip", to).await;
            assert_eq!(moved.status, StatusCode::OK, "{name} {rung}: {}", moved.json());
            for _ in 0..requests {
                assert_eq!(orders.order().await.status, StatusCode::OK);
            }
            counted += f64::from(requests);
            let labels = [("route", "orders"), ("outcome", "skipped"), ("reason", "would_pause")];
            let metrics = orders
                .pointsman
                .until_metric(&format!("{name} in {rung} to be counted"), |metrics| {
                    metrics.sum("pointsman_comparisons_total", &labels) == counted
                })
                .await;
            assert_eq!(metrics.sum("pointsman_comparisons_total", &[]), counted, "and nothing else");
            assert!(metrics.unbalanced().is_empty(), "{:?}", metrics.unbalanced());
        }
        let evidence = orders.evidence().await["evidence"].clone();
        assert_eq!(evidence["skipped"], json!({ "would_pause": 5 }), "{name}: {evidence}");
        assert_eq!((&evidence["matched"], &evidence["failed"]), (&json!(0), &json!({})), "{name}: {evidence}");
        let shown = orders.pointsman.cli(&["evidence", "orders"]).await;
        assert!(output_text(&shown).contains("skipped: would_pause"), "{}", output_text(&shown));
        assert_eq!(orders.flip("shadow").await.status, StatusCode::OK);
    }
    let failed = orders.pointsman.get("/api/v2/orchestrate/runs?mode=dark&status=failed").await;
    let run = failed["runs"][0]["run_id"].as_str().unwrap_or_else(|| panic!("a dark run: {failed}")).to_owned();
    let explained = output_text(&orders.pointsman.cli(&["explain", &run]).await);
    assert!(explained.contains("409"), "{explained}");
}

/// The runs of the workflow answer after their first step, and then wait for ten minutes.
#[tokio::test(flavor = "multi_thread")]
async fn runs_that_answer_long_before_they_end_are_compared_and_open_the_gates() {
    const EARLY: &str = "workflow: create\nsteps:\n  \
                         accept: { call: \"POST ${services.bank}/charges\", rehearse: {} }\n  \
                         nap: { needs: [accept], wait: 10m }\n  \
                         mail: { needs: [nap], call: \"POST ${services.bank}/mails\", rehearse: {} }\n\
                         respond: { after: [accept], status: 200, body: { total: 7 } }\n";
    let orders = Orders::start().await;
    orders.reload(|flags| flags.write("workflows/create.yaml", EARLY)).await;
    orders.climb_to_dark().await;
    let evidence = orders.evidence().await["evidence"].clone();
    let counted = ["matched", "mismatched", "failed", "skipped"].map(|name| evidence[name].clone());
    assert_eq!(counted, [json!(2 * PAIRS), json!(0), json!({}), json!({})], "{evidence}");
    let open = orders.pointsman.get("/api/v2/orchestrate/runs?mode=dark&status=running").await;
    assert!(open["runs"].as_array().is_some_and(|runs| !runs.is_empty()), "the dark runs go on: {open}");
}

/// The runs of the workflow answer after their first step, and then fail: their answers alone open no gate.
#[tokio::test(flavor = "multi_thread")]
async fn runs_that_fail_after_their_answer_hold_every_gate() {
    const FAILS: &str = "workflow: create\nsteps:\n  \
                         accept: { call: \"POST ${services.bank}/charges\", rehearse: {} }\n  \
                         broken: { needs: [accept], call: \"GET ${services.bank}/late\", accept: [204] }\n\
                         respond: { after: [accept], status: 200, body: { total: 7 } }\n";
    let orders = Orders::start().await;
    orders.reload(|flags| flags.write("workflows/create.yaml", FAILS)).await;
    for (rung, next, counter) in [
        ("shadow", "dark", "failed_after_answer"),
        ("dark", "live", "failed_after_answer"),
        ("live", "only", "engine_errors"),
    ] {
        let to = json!({ "to": rung, "reason": "test", "force": true });
        let moved = orders.pointsman.api(Method::POST, "/api/v2/routes/orders/flip", to).await;
        assert_eq!(moved.status, StatusCode::OK, "{rung}: {}", moved.json());
        orders.gather(counter, PAIRS).await;
        let refused = orders.flip(next).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{next}: {}", refused.json());
        assert!(reasons(&refused).contains("after their answer") || rung == "live", "{}", refused.json());
    }
    let next = orders.evidence().await["next"].clone();
    let of_errors =
        next["conditions"].as_array().and_then(|all| all.iter().find(|c| c["name"] == "errors_not_worse_by"));
    assert_eq!(of_errors.map(|condition| &condition["verdict"]), Some(&json!("fail")), "{next}");
}

/// A client that repeats a request gets the answer of its first try, which was counted.
#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_retry_is_not_counted_again() {
    let orders = Orders::start().await;
    for rung in ["shadow", "dark", "live"] {
        let to = json!({ "to": rung, "reason": "test", "force": true });
        let moved = orders.pointsman.api(Method::POST, "/api/v2/routes/orders/flip", to).await;
        assert_eq!(moved.status, StatusCode::OK, "{rung}: {}", moved.json());
    }
    let url = format!("{}/orders", orders.pointsman.url());
    for key in ["first", "first", "first", "second"] {
        let headers = [("idempotency-key", key)];
        let reply = orders.client.json(Method::POST, &url, &headers, &json!({})).await.expect("a reply");
        assert_eq!(reply.status, StatusCode::OK);
    }
    until("the answers", || async { (orders.count("engine_answers").await >= 2).then_some(()) }).await;
    assert_eq!((orders.count("engine_answers").await, orders.bank.count()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_rehearsal_can_be_read_while_its_sample_is_kept() {
    let orders = Orders::start().await;
    orders.reload(|flags| inner(flags, 8)).await;
    assert_eq!(orders.flip("shadow").await.status, StatusCode::OK);
    orders.gather("mismatched", 1).await;
    let diffs = orders.diffs_with_a_sample().await;
    let run = diffs["groups"][0]["sample"]["run"].as_str().unwrap_or_else(|| panic!("{diffs:#}")).to_owned();
    let events = orders.pointsman.get(&format!("/api/v2/orchestrate/run/{run}/events")).await;
    let of = |name: &str| events.as_array().into_iter().flatten().map(|event| event[name].clone()).collect::<Vec<_>>();
    let kinds = of("kind");
    assert_eq!(kinds.first(), Some(&json!("run_started")), "{events:#}");
    assert!(kinds.contains(&json!("completed")), "{events:#}");
    assert_eq!(of("seq"), (1..=kinds.len()).map(|seq| json!(seq)).collect::<Vec<_>>());
    let page = orders.pointsman.get(&format!("/api/v2/orchestrate/run/{run}/events?from=2&limit=1")).await;
    assert_eq!((page.as_array().map(Vec::len), &page[0]["seq"]), (Some(1), &json!(2)));
    let shown = output_text(&orders.pointsman.cli(&["runs", "events", &run]).await);
    assert!(shown.contains("completed"), "{shown}");
    let other = format!("run_{}", "0".repeat(32));
    let unknown = orders.pointsman.cli(&["runs", "events", &other]).await;
    assert!(!unknown.status.success(), "{}", output_text(&unknown));
}

/// The difference is in the workflow at the bottom: its run is below a run that is below the rehearsal.
#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_the_runs_below_a_rehearsal_can_be_read_while_its_sample_is_kept() {
    let orders = Orders::start().await;
    let shown_inner = "workflow: inner\nsteps:\n  charge: { call: \"POST ${services.bank}/charges\", \
                       headers: { x-api-key: not-shown-key }, body: { amount: 8, card: not-shown-card }, \
                       rehearse: { id: p8 } }\nrespond: { status: 200, body: { total: 8 } }\n";
    orders.reload(|flags| flags.write("workflows/inner.yaml", shown_inner)).await;
    assert_eq!(orders.flip("shadow").await.status, StatusCode::OK);
    orders.gather("mismatched", 1).await;
    let diffs = orders.diffs_with_a_sample().await;
    let sample = &diffs["groups"][0]["sample"];
    let parent = sample["run"].as_str().unwrap_or_else(|| panic!("{diffs:#}"));
    let below = sample["child_runs"].as_array().unwrap_or_else(|| panic!("{diffs:#}"));
    assert_eq!(below.len(), 2, "{diffs:#}");

    let events = async |run: &str| orders.pointsman.get(&format!("/api/v2/orchestrate/run/{run}/events")).await;
    let child_of = |events: &Value| -> String {
        let rows = events.as_array().into_iter().flatten();
        let begun =
            rows.filter(|row| row["kind"] == "child_started").map(|row| &row["event"]["child_started"]["child"]);
        begun.filter_map(Value::as_str).next().unwrap_or_else(|| panic!("{events:#}")).to_owned()
    };
    let outer = child_of(&events(parent).await);
    let inner = child_of(&events(&outer).await);
    let shown = |id: &str| format!("run_{}", id.replace('-', ""));
    assert_eq!(below, &[json!(shown(&outer)), json!(shown(&inner))], "{diffs:#}");

    // By the id as the parent's event has it, and as `diffs` has it.
    for id in [inner.clone(), shown(&inner)] {
        let text = output_text(&orders.pointsman.cli(&["runs", "events", &id]).await);
        for expected in ["run_started", "charge", "p8", "completed"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("not-shown"), "{text}");
    }
    let text = output_text(&orders.pointsman.cli(&["diffs", "orders"]).await);
    assert!(text.contains(&shown(&inner)), "{text}");

    // They go with the sample.
    orders.reload(|flags| self::inner(flags, 7)).await;
    let gone = orders.pointsman.cli(&["runs", "events", &inner]).await;
    assert!(!gone.status.success(), "{}", output_text(&gone));
}

/// Legacy's calls are watched, the rules compare nothing of the replies, and the workflow makes no calls, or legacy's are
/// not known to be the request's: that such pairs are equal says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn pairs_of_which_nothing_is_compared_are_no_evidence_although_calls_are_watched() {
    let legacy = Origin::start(OriginReply::Json(r#"{"v":1}"#)).await;
    let flags = FlagsDir::empty();
    flags.write(
        "pointsman.yaml",
        &format!(
            "services:\n  shop: {}\ndefault_legacy: shop\negress: {{ listen: 127.0.0.1:0, window: 1s }}\n{PROMOTE}",
            legacy.url()
        ),
    );
    let charge = "charge: { call: 'POST ${services.shop}/charges', body: { amount: 999 }, rehearse: { id: 1 } }";
    for (name, steps) in [("v", "a: { set: 8 }"), ("w", charge)] {
        let workflow =
            format!("workflow: {name}\nsteps: {{ {steps} }}\nrespond: {{ status: 201, body: {{ v: 8 }} }}\n");
        flags.write(&format!("workflows/{name}.yaml"), &workflow);
        flags.write(
            &format!("routes/{name}.yaml"),
            &format!(
                "routes:\n  - id: {name}\n    match: {{ method: POST, path: /{name} }}\n    legacy: shop\n    \
                 workflow: {name}\n    state: shadow\n    \
                 compare: {{ status: class, headers: [], ignore: [\"$..[*]\", \"$.*\"] }}\n"
            ),
        );
    }
    let dir = tempfile::tempdir().expect("a directory");
    let pointsman = Pointsman::start(&Start::in_memory(flags.path(), dir.path())).await;
    let client = Client::new(WAIT_MAX);
    let egress = pointsman.egress.expect("an egress listener");
    for route in ["v", "w", "v", "w"] {
        // Nothing says of which request the charge is.
        for url in [format!("{}/{route}", pointsman.url()), format!("http://{egress}/shop/charges")] {
            let reply = client.json(Method::POST, &url, &[], &json!({})).await.expect("a reply");
            assert_eq!(reply.status, 200);
        }
    }
    let skipped =
        |metrics: &Metrics| metrics.sum("pointsman_comparisons_total", &[("reason", "nothing_compared")]) == 4.0;
    pointsman.until_metric("four skipped requests", skipped).await;
    for route in ["v", "w"] {
        let evidence = pointsman.get(&format!("/api/v2/routes/{route}/evidence")).await;
        assert_eq!(evidence["evidence"]["shadow_pairs"], 0, "{evidence}");
    }
}
