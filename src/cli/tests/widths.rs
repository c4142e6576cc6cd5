//! Texts with long parts are at most 120 columns wide.

use super::*;
use crate::admin::types::RunRow;
use crate::cli::format::COLUMNS_MAX;

fn widest(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or_default()
}

#[test]
fn status_shows_what_a_route_matches_below_its_name_if_one_row_is_too_wide() {
    let mut value = a_status();
    let route = &mut value["routes"][0];
    route["id"] = json!("orders.lines.cancel");
    route["matches"] = json!("POST /orders/{id}/lines/{line}/cancel");
    route["effective"] = json!({ "state": "live", "why": "unproven" });
    route["changed_since_evidence"] = json!("its workflow was changed");
    route["gate"] = json!({ "to": "only", "verdict": "fail", "needs": "needs more answers ".repeat(20), "more": 2 });
    let status = read::<Status>(value);
    let text = status::text(&status, false, Formatter(false));
    assert!(widest(&text) <= COLUMNS_MAX, "{}\n{text}", widest(&text));
    assert!(text.contains("\n  POST /orders/{id}/lines/{line}/cancel"), "{text}");
    for word in ["changed", "since", "evidence", "SHARE", "OVERHEAD", "(and 2 more: `pointsman evidence"] {
        assert!(text.contains(word), "{word} is not in:\n{text}");
    }
    assert!(!text.contains("MATCHES"), "{text}");
}

#[test]
fn evidence_is_at_most_120_columns_wide() {
    let view = json!({
        "route": "a", "evidence": {}, "uncompared_steps": [],
        "next": {
            "to": "dark", "missing": ["too few calls of shared steps were compared with a call ".repeat(9)],
            "verdict": "fail",
            "conditions": [{
                "name": "errors_not_worse_by", "verdict": "pass",
                "detail": "in 90 requests the engine failed ".repeat(13),
            }],
        },
    });
    let (server, served) = serve_once("200 OK", view);
    let client = Client::new(&server).expect("a client");
    let text = evidence::show(&client, "a", false, Formatter(false)).expect("shown").text;
    served.join().expect("served");
    assert!(widest(&text) <= COLUMNS_MAX, "{}\n{text}", widest(&text));
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(joined.matches("the engine failed").count(), 13, "{text}");
    assert!(text.contains("errors_not_worse_by  pass") && text.contains("\n    "), "{text}");
}

#[test]
fn a_list_of_runs_has_long_notes_below_the_runs() {
    let run = |note: Option<&str>, parent: Option<&str>| {
        read::<RunRow>(json!({
            "run_id": "run_01900000000170008000000000000001", "job_id": "job_1", "workflow": "create-order",
            "plan_id": "plan_1", "route": "orders.create", "parent": parent, "mode": "real", "status": "failed",
            "checkpoint": null, "started": now(), "updated": now(), "wake": null, "note": note,
        }))
    };
    let text = |rows: &[RunRow]| runs::table(rows, now(), Formatter(false));
    let short = text(&[run(Some("gone"), None)]);
    assert!(
        short.lines().next().is_some_and(|header| header.ends_with("NOTE")) && short.lines().count() == 2,
        "{short}"
    );
    let note = "the step `charge` failed: card declined; not undone: `reserve` ".repeat(3);
    let long = text(&[run(Some(&note), Some("run_2")), run(None, None)]);
    assert!(widest(&long) <= COLUMNS_MAX, "{long}");
    assert!(long.contains("\n    parent run_2\n    the step `charge` failed") && !long.contains("NOTE"), "{long}");
    assert!(long.lines().last().is_some_and(|last| last.starts_with("run_0190")), "{long}");
}
