//! What the commands for runs print.

use serde_json::{Value, json};

use super::*;

#[test]
fn events_are_shown_in_full() {
    let long = "x".repeat(500);
    let page = json!([
        { "seq": 2, "at": "2026-01-02T03:04:05.123456Z", "kind": "step_computed", "event": { "step_computed": { "output": long } } },
        { "seq": 3, "at": "2026-01-02T03:04:06Z", "kind": "completed", "event": { "completed": {} } },
    ]);
    let (server, served) = serve_once("200 OK", page.clone());
    let client = Client::new(&server).expect("a client");
    let of = |from, limit| crate::cli::args::EventsArgs { run: "run_1".into(), from, limit, server: server.clone() };
    let done = runs::events(&client, &of(2, Some(2)), Formatter(false)).expect("events");
    assert_eq!(done.json, page);
    let lines: Vec<&str> = done.text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("    2  2026-01-02T03:04:05.123Z  step_computed") && lines[0].contains(&long));
    assert_eq!(lines[1].trim_end(), "    3  2026-01-02T03:04:06.000Z  completed");
    let request = served.join().expect("served");
    assert!(request.starts_with("GET /api/v2/orchestrate/run/run%5F1/events?from=2&limit=2 HTTP"), "{request}");
}

#[test]
fn a_list_shows_parents_if_any_and_counts_the_time_of_open_runs_up_to_now() {
    let run = |n: u32, parent: Value, status: &str| {
        json!({
            "run_id": format!("run_{n}"), "job_id": "job_1", "workflow": "w", "plan_id": "plan_1", "route": null,
            "parent": parent, "mode": "real", "status": status, "checkpoint": null,
            "started": "2026-01-02T03:03:00Z", "updated": "2026-01-02T03:03:00Z", "wake": null, "note": null,
        })
    };
    let rows = |value: Value| read::<Vec<crate::admin::types::RunRow>>(value);
    let alone = runs::table(&rows(json!([run(1, Value::Null, "running")])), now(), Formatter(false));
    assert!(!alone.contains("PARENT") && alone.contains(" 65 s "), "{alone}");
    let family = rows(json!([run(2, json!("run_1"), "completed"), run(1, Value::Null, "waiting_signal")]));
    let family = runs::table(&family, now(), Formatter(false));
    let lines: Vec<&str> = family.lines().collect();
    assert!(lines[0].contains("PARENT") && lines[1].contains(" run_1") && lines[1].contains(" 0 µs "), "{family}");
    assert!(lines[2].contains(" 65 s "), "{family}");
}

#[test]
fn store_and_admin_may_both_be_given() {
    // POINTSMAN_ADMIN in the environment counts as the option.
    let line = ["pointsman", "replay", "run_1", "--store", "sqlite:b.db", "--admin", "http://h:1"];
    assert!(CommandLine::try_parse_from(line).is_ok());
}

#[test]
fn a_streamed_event_shows_how_to_answer_its_checkpoint_or_which_step_is_undone() {
    let progress = |name: &str, data: Value| runs::progress(name, data, Formatter(false));
    let checkpoint = json!({ "run_id": "run_1", "checkpoint": { "id": "chk_1", "question": "Send it?" } });
    let text = progress("checkpoint", checkpoint);
    assert!(text.contains("chk_1 Send it?") && text.contains("pointsman runs answer run_1 chk_1 --yes"), "{text}");
    let undo = progress("step_started", json!({ "run_id": "run_1", "step_id": "pay", "part": "undo", "attempt": 1 }));
    assert!(undo.contains("the undo of pay"), "{undo}");
    let plain = progress("step_started", json!({ "run_id": "run_1", "step_id": "pay", "part": "do", "attempt": 1 }));
    assert!(!plain.contains(" of "), "{plain}");
}

#[test]
fn explain_shows_each_reason_once() {
    let first = "`a` waits for a time; until 2026-01-02T03:04:05Z (in 57 min); what would resume it: that time";
    let explanation = json!({
        "run_id": "run_1", "status": "running", "sentence": format!("It is running: {first}."),
        "waits": [first, "its deadline ends it"], "wake": null, "stuck": false,
    });
    let (server, served) = serve_once("200 OK", explanation);
    let client = Client::new(&server).expect("a client");
    let done = runs::explain(&client, "run_1", Formatter(false)).expect("shown");
    assert_eq!(done.text, format!("It is running: {first}.\n  - its deadline ends it\n"));
    served.join().expect("served");
}

#[test]
fn a_command_to_a_paused_run_shows_how_to_resume_it() {
    let text_of = |envelope: Value| {
        let (server, served) = serve_once("200 OK", envelope);
        let client = Client::new(&server).expect("a client");
        let reason_args = crate::cli::args::ReasonArgs { reason: None, server };
        let command = runs::RunCommand::Skip {
            target: crate::cli::args::StepArgs { run: "run_1".into(), step: "a".into() },
            reason_args,
        };
        let text = runs::send_command(&client, command, Formatter(false)).expect("accepted").text;
        served.join().expect("served");
        text
    };
    let paused = an_envelope("paused");
    let run = paused["data"]["run_id"].as_str().expect("an id").to_owned();
    assert!(
        text_of(paused).ends_with(&format!("accepted; the run is paused, to resume it: pointsman runs resume {run}\n"))
    );
    assert!(!text_of(an_envelope("running")).contains("resume"));
    let mut in_conflict = an_envelope("paused");
    in_conflict["data"]["conflicts"] = json!([{
        "run_id": run, "kind": "outcome_unknown", "step_id": "charge", "item": null, "part": "do", "attempt": 1,
        "message": "it timed out", "expected": null, "status": null, "request": null, "response": null,
        "choices": ["take"], "resolve": "/x",
    }]);
    let text = text_of(in_conflict);
    assert!(text.contains("accepted; the run stays paused until its conflicts are resolved:\n"), "{text}");
    let how = format!("  pointsman runs resolve {run} charge take --attempt 1 --output JSON\n");
    assert!(text.ends_with(&how), "{text}");
}

#[test]
fn a_refused_second_answer_shows_the_first() {
    let first = crate::admin::types::FirstAnswer {
        by: "ann".into(),
        at: Some(now()),
        seq: 7,
        approve: true,
        values: json!({ "n": 1 }),
        approved: Vec::new(),
        struck: vec![2],
        note: Some("fine".into()),
    };
    let shown = crate::cli::output::first_answer(&first);
    assert_eq!(shown, "  ann said yes at 2026-01-02T03:04:05Z (event 7): {\"n\":1}; struck 2; fine");
}
