//! What the commands print for canned responses, and the requests that they send.

mod candidates;
mod docs;
mod egress;
mod lost_responses;
mod open_runs;
mod run_commands;
mod status_notes;
mod store_check;
mod widths;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use clap::Parser;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::{CliCommand, CommandLine, Server};
use super::client::{CallError, Client};
use super::format::{Formatter, escape_control, without_ciphertext};
use super::{diffs, evidence, flip, runs, services, status};
use crate::admin::types::{Diffs, EventRow, EvidenceView, Orchestration, ServiceRow, Status};
use crate::flag::State;

/// Responds to one request, and returns that request.
fn serve_once(status: &'static str, body: Value) -> (Server, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let admin = format!("http://{}", listener.local_addr().expect("an address"));
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = Vec::new();
        let mut chunk = [0; 4_096];
        loop {
            let n = stream.read(&mut chunk).expect("readable");
            request.extend_from_slice(&chunk[..n]);
            let text = String::from_utf8_lossy(&request).into_owned();
            let Some((head, content)) = text.split_once("\r\n\r\n") else { continue };
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if content.len() >= length.unwrap_or(0) {
                break;
            }
        }
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).expect("writable");
        String::from_utf8_lossy(&request).into_owned()
    });
    (Server { admin, by: Some("ada".to_owned()), token_file: None }, served)
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the shape")
}

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().expect("a time")
}

fn a_status() -> Value {
    let shares = json!({ "shadow": 50.0, "dark": 100.0, "live": 12.5 });
    let route = |id: &str, requested: &str, effective: &str, why: &str, pairs: u64, mismatched: u64| {
        json!({
            "id": id, "matches": "POST /orders", "legacy": "shop", "workflow": "create-order",
            "requested": requested, "effective": { "state": effective, "why": why }, "shares": shares,
            "pairs": pairs, "mismatched": mismatched, "requests": 12_345,
            "overhead_p50_us": if pairs == 0 { Value::Null } else { json!(38.0) },
        })
    };
    json!({
        "build": { "version": "0.1.0", "started": "2026-01-02T03:04:05Z" }, "listen": "127.0.0.1:8080",
        "freeze": "no",
        "flags": { "generation": 3, "age_s": 61.5, "last_error": null, "warnings": [] },
        "engine_healthy": true, "runs_in_flight": 1, "shadow": { "queue_depth": 0, "in_flight": 2 },
        "routes": [
            route("orders.create", "live", "shadow", "guard", 1_204, 3),
            route("orders.get", "off", "off", "unproven", 0, 0),
        ],
    })
}

#[test]
fn status_shows_one_row_for_each_route() {
    let text = status::text(&read::<Status>(a_status()), false, Formatter(false));
    assert_eq!(
        text,
        "\
pointsman 0.1.0  proxy on 127.0.0.1:8080  flags 62 s old, flag set 3  1 run in flight  shadow 0 waiting, 2 in flight

ROUTE          MATCHES       REQUESTED  EFFECTIVE  WHY                   SHARE  PAIRS   MISMATCH  REQUESTS  OVERHEAD
orders.create  POST /orders  live       shadow     lowered by the guard    50%  1,204  3 (0.25%)    12,345     38 µs
orders.get     POST /orders  off        off        from the file             -      -          -    12,345         -
"
    );
}

#[test]
fn status_warns_of_a_route_that_was_changed_in_live() {
    let mut value = a_status();
    let why = "`orders.get` is in `live`, and its workflow was changed";
    value["routes"][1]["effective"] = json!({ "state": "live", "why": "unproven" });
    value["routes"][1]["changed_since_evidence"] = json!(why);
    let text = status::text(&read::<Status>(value), false, Formatter(false));
    for part in ["live       changed since its evidence", &format!("\n\nwarning: {why}\n")] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

/// `shadow` needs no evidence.
#[test]
fn status_calls_only_what_needs_a_proof_unproven() {
    for (state, shown) in [("shadow", "from the file  "), ("dark", "from the file, unproven")] {
        let mut value = a_status();
        value["routes"][1]["effective"] = json!({ "state": state, "why": "unproven" });
        let text = status::text(&read::<Status>(value), false, Formatter(false));
        assert!(text.contains(shown), "{state}:\n{text}");
    }
}

#[test]
fn status_shows_everything_that_is_wrong() {
    let mut value = a_status();
    value["freeze"] = json!("effects");
    value["engine_healthy"] = json!(false);
    value["store_trouble"] = json!("(code: 13) database or disk is full");
    value["clock_trouble"] = json!("this machine's clock was set while the process runs");
    value["services_trouble"] = json!("no address is known for `shop.internal` of service `shop`");
    value["retry_keys_trouble"] = json!("the file of retry keys /gone is not there");
    value["adoption_trouble"] = json!("it is not known which arm has 2 instances of `orders.create`");
    value["instances_trouble"] = json!("legacy creates instances of `orders.create`, and nobody answers `orders.get`");
    value["stuck"] = json!([{ "run_id": "run_1", "why": "its plan is gone" }]);
    value["stuck_more"] = json!(1_203);
    value["flags"]["last_error"] = json!("error: unknown key `percnt`\n --> flags/routes/orders.yaml:7:5");
    value["flags"]["warnings"] = json!(["flags/x:1:1: look"]);
    let text = status::text(&read::<Status>(value), true, Formatter(false));
    for part in [
        "FROZEN",
        "instances: legacy creates instances of `orders.create`",
        "takes no new runs",
        "disk is full",
        "clock: this machine's clock was set",
        "services: no address is known for `shop.internal`",
        "retry keys: the file of retry keys /gone is not there",
        "adoption: it is not known which arm has 2 instances of `orders.create`",
        "stuck: run_1: its plan is gone\nstuck: and 1,203 more",
        "the last good set stays in force:\nerror: unknown key",
        "\nwarning: flags/x:1:1: look\n",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn status_shows_a_store_that_does_not_answer() {
    let mut value = a_status();
    value["runs"] = Value::Null;
    value["store_trouble"] = json!("the store did not answer within 500 ms");
    let text = status::text(&read::<Status>(value), false, Formatter(false));
    let line = "the store: the store did not answer within 500 ms; how many runs are open is not known\n";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("orders.create"), "{text}");
}

/// The engine may be held up by something else than the store; a write may fail although the store answers.
#[test]
fn status_says_of_the_store_only_what_the_store_reported() {
    let mut value = a_status();
    value["engine_healthy"] = json!(false);
    value["runs"] = json!({ "paused": 1 });
    value["store_trouble"] = json!("database or disk is full");
    let shown = |value: &Value| status::text(&read::<Status>(value.clone()), false, Formatter(false));
    let text = shown(&value);
    let lines = "the engine takes no new runs: its store is in trouble\nthe store: database or disk is full\n";
    assert!(text.contains(lines), "{text}");
    value["recovery_trouble"] = json!("3 runs are left");
    let text = shown(&value);
    assert!(text.contains("the runs that the last process left are not resumed yet: 3 runs are left\n"), "{text}");
    assert!(text.contains("\nthe store: database or disk is full\n"), "{text}");
    value.as_object_mut().unwrap().remove("store_trouble");
    value.as_object_mut().unwrap().remove("recovery_trouble");
    assert!(shown(&value).contains("its store accepts no writes, and reports no error\n"), "{}", shown(&value));
}

#[test]
fn colour_adds_no_text() {
    let coloured = status::text(&read::<Status>(a_status()), false, Formatter(true));
    let mut plain = String::new();
    let mut parts = coloured.split('\u{1b}');
    plain.push_str(parts.next().unwrap_or(""));
    for part in parts {
        plain.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
    }
    let expected = status::text(&read::<Status>(a_status()), false, Formatter(false));
    let trimmed = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    assert_eq!(trimmed(&plain), trimmed(&expected));
    assert!(coloured.contains('\u{1b}'));
}

fn some_diffs() -> Value {
    json!({
        "route": "orders.create", "pairs": 40, "mismatched": 12,
        "groups": [{
            "fingerprint": "f1", "count": 12, "first_seen": "2026-01-02T03:02:05Z", "last_seen": "2026-01-02T03:04:03Z",
            "differences": [{ "path": "$.total", "kind": "value", "legacy": "10.35", "engine": "10.34" }],
            "sample": {
                "at": "2026-01-02T03:04:03Z", "run": null, "request": "POST /orders\n{\"items\":1}\u{1b}[2J",
                "legacy": "201\n{\"id\":1,\"total\":10.35}", "engine": "201\n{\"id\":1,\"total\":10.34}",
            },
        }],
    })
}

#[test]
fn diffs_show_a_sample_line_by_line() {
    let text = diffs::text(&read::<Diffs>(some_diffs()), now(), Formatter(false));
    assert_eq!(
        text,
        "\
orders.create  40 pairs, 12 differ

#1  12 times  first 2 min ago, last 2 s ago  f1
  $.total value  legacy 10.35  engine 10.34  (0.10 % apart)
  a sample, 2 s ago
    POST /orders
    {\"items\":1}\\u{1b}[2J
  - legacy / + engine
      {
        \"id\": 1,
    -   \"total\": 10.35
    +   \"total\": 10.34
      }
"
    );
    let coloured = diffs::text(&read::<Diffs>(some_diffs()), now(), Formatter(true));
    assert!(coloured.contains("\u{1b}[31") && coloured.contains("\u{1b}[32"), "{coloured:?}");
    assert!(!coloured.contains("\u{1b}[2J"), "recorded traffic must not control the terminal");
}

#[test]
fn diffs_say_how_the_lines_of_texts_are_shown() {
    let shown = |path: &str, legacy: &str| {
        let mut diffs = some_diffs();
        diffs["groups"][0]["differences"] =
            json!([{ "path": path, "kind": "value", "legacy": legacy, "engine": null }]);
        diffs::text(&read::<Diffs>(diffs), now(), Formatter(false)).contains("`compare: { text: {} }`")
    };
    let digest = "line 2: 1 lines, 9 bytes, digest 0123456789abcdef";
    assert!(shown("text", digest) && shown("effects.mail.text", digest));
    assert!(!shown("text", "line 2: Total: 5") && !shown("$.a", digest));
}

#[test]
fn a_flip_sends_the_request_and_shows_the_response() {
    let (server, served) = serve_once(
        "200 OK",
        json!({
            "flip": {
                "number": 7, "route": "orders.create", "from": "live", "to": "shadow", "shares": null,
                "by": "ada (unverified)", "at": "2026-01-02T03:04:05Z", "reason": "back", "forced": false,
            },
            "effective": { "state": "off", "why": "freeze" },
            "shares": { "shadow": 50.0, "dark": 100.0, "live": 100.0 },
            "horizon": ["3 orders are known only to the engine", "its share of `shadow` is not raised to 50%: the disk"],
            "runs_in_flight": 2,
        }),
    );
    let client = Client::new(&server).expect("a client");
    let options = flip::FlipOptions {
        route: "orders.create".into(),
        state: State::Shadow,
        percent: Some(50.0),
        reason: Some("back".into()),
        force: false,
        yes: true,
    };
    let done = flip::flip(&client, &server, &options, Formatter(false)).expect("done");
    assert_eq!(
        done.text,
        "orders.create live -> shadow at 50%, by ada (unverified)\n\
         the state in force is off: frozen\n\
         2 runs in flight continue as they were started\n\
         horizon: 3 orders are known only to the engine\n\
         note: its share of `shadow` is not raised to 50%: the disk\n"
    );
    let request = served.join().expect("served");
    assert!(request.starts_with("POST /api/v2/routes/orders%2Ecreate/flip HTTP/1.1\r\n"), "{request}");
    let body: Value = serde_json::from_str(request.split_once("\r\n\r\n").expect("a body").1).expect("json");
    let expected =
        json!({ "to": "shadow", "percent": 50.0, "reason": "back", "force": false, "acknowledge": true, "as": "ada" });
    assert_eq!(body, expected);
}

#[test]
fn a_shut_gate_is_shown_with_its_reasons() {
    let (server, served) = serve_once(
        "409 Conflict",
        json!({
            "type": "gate-shut", "title": "the gate is shut", "status": 409, "detail": "orders.create stays in shadow",
            "reasons": ["8 of 20 pairs"], "hint": "wait, or use --force --reason",
        }),
    );
    let client = Client::new(&server).expect("a client");
    match client.get::<Value>("/api/v2/status") {
        Err(CallError::Refused(problem, _)) => {
            assert_eq!(problem.title, "the gate is shut");
            assert_eq!(problem.reasons, ["8 of 20 pairs"]);
            assert_eq!(problem.hint.as_deref(), Some("wait, or use --force --reason"));
        }
        other => panic!("{:?}", other.map(|(value, _)| value)),
    }
    served.join().expect("served");
}

#[test]
fn the_error_names_a_server_that_is_unreachable_or_is_not_pointsman() {
    let unreachable =
        |server: &Server| match Client::new(server).and_then(|client| client.get::<Status>("/api/v2/status")) {
            Err(CallError::Failed(message, _)) => message,
            other => panic!("{other:?}"),
        };
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let server = |admin: String| Server { admin, by: None, token_file: None };
    assert!(unreachable(&server(format!("http://{free}"))).contains("no pointsman answers"));
    assert!(unreachable(&server("https://localhost:1".into())).contains("not an http URL"));
    assert!(unreachable(&server("http://[".into())).contains("is not a URL"));
    let (not_pointsman, served) = serve_once("404 Not Found", json!(["hello"]));
    assert!(unreachable(&not_pointsman).contains("not in the format of pointsman's API"));
    served.join().expect("served");
}

fn an_envelope(status: &str) -> Value {
    let text = include_str!("../admin/tests/envelope.json");
    let mut envelope: Value = serde_json::from_str(text).expect("json");
    for place in ["/data/status", "/data/run/status", "/data/job/status"] {
        *envelope.pointer_mut(place).expect("a status") = json!(status);
    }
    envelope
}

#[test]
fn runs_show_steps_and_events() {
    let envelope = read::<Orchestration>(an_envelope("running"));
    let events = json!([{ "seq": 1, "at": envelope.data.run.started, "kind": "run_started", "event": { "run_started": { "mode": "real" } } }]);
    let now = envelope.data.run.started + jiff::SignedDuration::from_mins(3);
    let text = runs::text(&envelope.data, &read::<Vec<EventRow>>(events), now, Formatter(false));
    let expected = format!(
        "\
{run}  running  3 min of create-order in real mode, for orders.create
{job}  plan_1  started {started}

STEP    STATUS   EFFECT  ATTEMPTS  TOOK  NOTE
total   done     -              0  0 µs
charge  done     shared         1   1 s
mail    skipped  -              0  0 µs  its `if` is false
late    pending  -              0     -

#  AFTER  EVENT
1   0 µs  run_started  {{\"mode\":\"real\"}}

{more}in full: pointsman runs events {run}
",
        more = match envelope.data.run.seq {
            1 => String::new(),
            seq => format!("{} more; ", seq - 1),
        },
        run = envelope.data.run_id,
        job = envelope.data.job_id,
        started = envelope.data.run.started,
    );
    assert_eq!(text, expected);
}

#[test]
fn a_paused_run_shows_the_commands_that_resume_it() {
    let mut envelope = an_envelope("paused");
    envelope["data"]["conflicts"] = json!([{
        "run_id": envelope["data"]["run_id"], "kind": "outcome_unknown", "step_id": "charge", "item": 2, "part": "do", "attempt": 1,
        "message": "it timed out", "expected": "an answer", "status": null,
        "request": { "method": "POST", "url": "http://bank/charges", "headers": [], "body": { "amount": 5 } },
        "response": null, "choices": ["retry", "take", "cancel"], "resolve": "/x",
    }]);
    envelope["data"]["checkpoints"] = json!([{
        "id": "chk_1", "run_id": "run_below", "step_id": "pick", "item": null, "kind": "review", "risk": "high", "question": "Send these?",
        "schema": null, "who": ["bob"], "items": [{ "index": 0, "what": "POST http://mail/send", "value": { "to": "a" } }],
        "opened": "2026-01-02T03:04:05Z", "until": "2026-01-02T04:04:05Z", "on_timeout": "reject", "answer": "/y",
    }]);
    let envelope = read::<Orchestration>(envelope);
    let text = runs::text(&envelope.data, &[], now(), Formatter(false));
    let run = &envelope.data.run_id;
    for line in [
        "conflict in charge[2] (outcome unknown, attempt 1): it timed out".to_owned(),
        "  sent      POST http://bank/charges {\"amount\":5}".to_owned(),
        format!("  pointsman runs resolve {run} charge retry --item 2 --attempt 1"),
        format!("  pointsman runs resolve {run} charge take --item 2 --attempt 1 --output JSON"),
        "asked in pick of run_below (review, risk high): Send these?".to_owned(),
        "  until     2026-01-02T04:04:05Z, then reject".to_owned(),
        "  pointsman runs answer run_below chk_1 --approve 0,1 --strike 2".to_owned(),
        "  pointsman runs answer run_below chk_1 --no".to_owned(),
    ] {
        assert!(text.lines().any(|shown| shown.trim_end() == line), "{line} is not in:\n{text}");
    }
}

#[test]
fn evidence_shows_what_the_next_rung_requires() {
    let view = json!({
        "route": "orders.create",
        "evidence": serde_json::to_value(crate::evidence::RouteEvidence::default()).expect("json"),
        "next": { "to": "dark", "missing": ["8 of 20 pairs"] },
    });
    let text = evidence::text(&read::<EvidenceView>(view), Formatter(false));
    assert!(text.ends_with("the gate to dark is shut:\n  - 8 of 20 pairs\n"), "{text}");
    assert!(!text.contains("at most"), "no bound without pairs: {text}");
    let hits = [("ignore $.at", 2), ("ids $.id (unproven: an id that stands only once)", 3)];
    let rule_hits = hits.map(|(rule, n)| (rule.to_owned(), n)).into();
    let unparsable_bodies = [("engine JSON".to_owned(), 7)].into();
    let clean = crate::evidence::RouteEvidence {
        dark_pairs: 449,
        matched: 449,
        rule_hits,
        unparsable_bodies,
        ..Default::default()
    };
    let dead = ["ignore $.gone", "ignore $.x when ${legacy.status == 1}"];
    let clean = serde_json::to_value(clean).expect("json");
    let view = json!({ "route": "r", "evidence": clean, "next": null, "dead_rules": dead });
    let text = evidence::text(&read::<EvidenceView>(view), Formatter(false));
    assert!(text.contains("mend their paths):\n  - ignore $.gone\n"), "{text}");
    assert!(text.contains("  - ignore $.x when ${legacy.status == 1} (or its condition never held)\n"), "{text}");
    assert!(text.contains("made equal by: ignore $.at") && text.contains("note on rule: ids $.id (unproven"), "{text}");
    assert!(text.contains("not what their type says, compared as text: engine JSON"), "{text}");
    let bound = "at most 1.00% of requests differ (95% confidence, no matter how often you look); 4,063 more pairs";
    assert!(text.contains(bound), "{text}");
}

#[test]
fn services_show_one_row_each() {
    let service = |name: &str, breaker: Value, waiting: u64, rate: Value| {
        json!({
            "name": name, "urls": ["http://h"], "breaker": breaker, "in_flight": 3, "calls_max": 64,
            "secondary_in_flight": 0, "secondary_calls_max": 12, "waiting": waiting, "rate": rate,
            "burst": if rate.is_null() { Value::Null } else { json!(20) },
        })
    };
    let breaker = |state: &str, next: Value, calls: u64| json!({ "state": state, "since": "2026-01-02T03:04:00Z", "next_probe": next, "calls": calls, "failed": 1 });
    let rows = read::<Vec<ServiceRow>>(json!([
        service("bank", breaker("open", json!("2026-01-02T03:04:17Z"), 0), 2, Value::Null),
        service("late", breaker("open", json!("2026-01-02T03:04:03Z"), 0), 0, Value::Null),
        service("mail", breaker("half_open", Value::Null, 0), 0, json!("100/s")),
        service("shop", breaker("closed", Value::Null, 20), 0, Value::Null),
        service("none", Value::Null, 0, Value::Null),
    ]));
    assert_eq!(
        services::text(&rows, now(), Formatter(false)),
        "\
SERVICE  BREAKER    SINCE    NEXT PROBE      FAILED  IN FLIGHT  SHADOW/DARK  WAITING  RATE
bank     open       5 s ago  in 12 s              -    3 of 64      0 of 12        2  -
late     open       5 s ago  the next call        -    3 of 64      0 of 12        0  -
mail     half-open  5 s ago  -                    -    3 of 64      0 of 12        0  100/s, burst 20
shop     closed     5 s ago  -              1 of 20    3 of 64      0 of 12        0  -
none     off        -        -                    -    3 of 64      0 of 12        0  -
"
    );
}

#[test]
fn services_show_their_addresses_and_names() {
    let address = |address: &str, state: &str, until: Value, failure: Value| {
        json!({
            "address": address, "url": "http://shop.test", "state": state, "ejected_until": until,
            "ejected_because": if until.is_null() { Value::Null } else { json!("no_connection") }, "weight": 2,
            "share_percent": 40, "in_flight": 3, "secondary_in_flight": 1, "last_failure": failure,
        })
    };
    let failure = json!({ "at": "2026-01-02T03:03:05Z", "why": "no connection: refused" });
    let row = json!({
        "name": "shop", "urls": ["http://shop.test"], "breaker": null, "in_flight": 0, "calls_max": 64,
        "secondary_in_flight": 0, "secondary_calls_max": 12, "waiting": 0, "rate": null, "burst": null,
        "addresses": [
            address("10.0.0.1:80", "available", Value::Null, Value::Null),
            address("10.0.0.2:80", "ejected", json!("2026-01-02T03:04:17Z"), failure),
            address("10.0.0.3:80", "unhealthy", Value::Null, Value::Null),
        ],
        "lookups": [
            { "name": "shop.test", "at": "2026-01-02T03:04:00Z", "failure": null },
            { "name": "old.test", "at": "2026-01-02T03:04:00Z", "failure": "no such host" },
            { "name": "new.test", "at": null, "failure": null },
        ],
    });
    let text = services::text(&read::<Vec<ServiceRow>>(json!([row])), now(), Formatter(false));
    let shown = text.split_once("\n\n").expect("a second table").1;
    assert_eq!(
        shown,
        "\
SERVICE  ADDRESS      STATE                                  WEIGHT  SHARE  IN FLIGHT  SHADOW/DARK  LAST FAILURE                      URL
shop     10.0.0.1:80  available                                   2   40 %          3            1  -                                 http://shop.test
shop     10.0.0.2:80  ejected: no connection, tried in 12 s       2   40 %          3            1  60 s ago: no connection: refused  http://shop.test
shop     10.0.0.3:80  unhealthy                                   2   40 %          3            1  -                                 http://shop.test

SERVICE  NAME       LOOKED UP  RESULT
shop     shop.test  5 s ago    found
shop     old.test   5 s ago    failed, earlier addresses are kept: no such host
shop     new.test   not yet    -
"
    );
}

#[test]
fn the_command_line_is_parsed_as_its_help_says() {
    let fine = [
        "status",
        "status --watch --json",
        "flip r live --percent 10% --reason x --force",
        "flip r off --yes",
        "freeze",
        "freeze --effects",
        "freeze --off",
        "diffs r",
        "evidence r",
        "flips",
        "services",
        "services --json",
        "runs list --status failed",
        "runs show run_1",
        "runs events run_1 --from 3 --limit 2 --json",
        "runs start create-order --input {} --key k --follow",
        "runs pause run_1 --reason x",
        "runs cancel job_1 --no-undo",
        "runs skip run_1 mail",
        "runs adjust run_1 mail --item 1 --input {}",
        "runs retry run_1",
        "runs rerun run_1 --from charge",
        "runs resolve run_1 charge retry-with --input {}",
        "runs answer run_1 --approve 0,1 --strike 2",
        "runs answer run_1 chk_1 --no --as ada",
        "runs signal run_1 paid --payload {} --id d",
        "explain run_1",
        "replay run_1 --store sqlite:x.db",
        "check",
        "check flags",
        "schema",
        "schema routes",
        "demo",
        "demo --exit",
        "serve",
        "help",
        "help ladder",
        "help runs start",
        "serve --flags f --listen localhost:1 --admin 127.0.0.1:2 --store memory:",
        "status --admin http://h:1 --as ada",
    ];
    for line in fine {
        let words = std::iter::once("pointsman").chain(line.split(' '));
        assert!(CommandLine::try_parse_from(words).is_ok(), "{line}");
    }
    let CliCommand::Serve(serve) = CommandLine::try_parse_from(["pointsman", "serve"]).expect("accepted").command
    else {
        panic!("another command")
    };
    assert_eq!(serve.flags.as_path(), "flags");
    let wrong = [
        "",
        "flip r",
        "flip r up",
        "flip r live --percent 101",
        "flip r live --force",
        "freeze --off --effects",
        "serve --flags f --listen nowhere",
        "nothing",
        "schema x",
        "runs resolve run_1 charge guess",
        "runs answer run_1 --yes --no",
        "runs adjust run_1 mail",
        "runs rerun run_1",
        "runs events run_1 --from 0",
    ];
    for line in wrong {
        let words = std::iter::once("pointsman").chain(line.split(' ').filter(|word| !word.is_empty()));
        let error = CommandLine::try_parse_from(words).err().unwrap_or_else(|| panic!("{line} is accepted"));
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn control_characters_are_escaped() {
    assert_eq!(escape_control("a\u{1b}[31m\r\n\u{202e}b\tc"), "a\\u{1b}[31m\\u{d}\n\\u{202e}b\\u{9}c");
}

#[test]
fn ciphertext_is_shown_as_stars() {
    assert_eq!(without_ciphertext("`a`: «sealed:eA==» and «sealed:eQ==»\u{7}"), "`a`: *** and ***\\u{7}");
    assert_eq!(without_ciphertext("«sealed:eA"), "«sealed:eA", "cut off");
    assert_eq!(without_ciphertext("plain"), "plain");
}
