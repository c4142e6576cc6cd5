//! What `status`, `evidence` and `diffs` add to their tables.

use std::time::Duration;

use super::*;

#[test]
fn status_shows_a_drain_and_the_runs_that_have_not_ended() {
    let mut value = a_status();
    value["runs"] = json!({ "running": 0, "paused": 2, "waiting_signal": 1_204 });
    value["stopping"] = json!(true);
    let text = status::text(&read::<Status>(value.clone()), false, Formatter(false));
    for part in [
        "\nSTOPPING: ",
        "`drain_ms`",
        "\nruns that have not ended: 1,204 waiting_signal, 2 paused (`pointsman runs list --status paused`",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    value["runs"] = json!({ "running": 0 });
    let text = status::text(&read::<Status>(value), false, Formatter(false));
    assert!(!text.contains("have not ended"), "{text}");
}

/// They stay the same from one look to the next.
#[test]
fn status_counts_the_warnings_about_the_files_unless_it_is_asked_for_them() {
    let mut value = a_status();
    let shown = |value: &Value, all: bool| status::text(&read::<Status>(value.clone()), all, Formatter(false));
    assert_eq!(shown(&value, false), shown(&value, true));
    value["flags"]["warnings"] = json!(["flags/x:1:1: look"]);
    assert!(
        shown(&value, false)
            .ends_with("\n\nwarning: there is one about the files: `pointsman status --warnings` shows it\n")
    );
    value["flags"]["warnings"] = json!(["flags/x:1:1: look", "flags/y:2:2: there"]);
    let text = shown(&value, false);
    assert!(
        text.ends_with("\n\nwarning: there are 2 about the files: `pointsman status --warnings` shows them\n"),
        "{text}"
    );
    assert!(!text.contains("flags/x"), "{text}");
    let text = shown(&value, true);
    assert!(text.ends_with("\n\nwarning: flags/x:1:1: look\nwarning: flags/y:2:2: there\n"), "{text}");
}

#[test]
fn status_names_the_settings_that_wait_for_a_restart() {
    let mut value = a_status();
    assert!(!status::text(&read::<Status>(value.clone()), false, Formatter(false)).contains("restart"));
    value["flags"]["needs_restart"] = json!(["listen", "limits"]);
    let text = status::text(&read::<Status>(value), false, Formatter(false));
    assert!(
        text.ends_with("\n\nchanged in the files, and takes effect only after a restart: listen, limits\n"),
        "{text}"
    );
}

#[test]
fn a_restart_of_evidence_is_shown_with_its_reason() {
    let at = Timestamp::now();
    let mut value = a_status();
    let restart =
        |at: Timestamp| json!({ "at": at, "changed": ["the workflow `w`", "`match:`"], "pairs_before": 1_204 });
    value["routes"][0]["evidence_restarted"] = restart(at);
    value["routes"][1]["evidence_restarted"] = restart(at - Duration::from_secs(90_000));
    let text = status::text(&read::<Status>(value), false, Formatter(false));
    let line = format!("counted from zero since {at:.0} (1,204 pairs before): the workflow `w`, `match:` changed\n");
    let joined = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(joined(&text).contains(&joined(&format!("orders.create: evidence {line}"))), "{text}");
    assert!(!text.contains("orders.get: evidence"), "only for a day: {text}");
    let mut view = json!({ "route": "a", "evidence": {}, "next": null });
    view["evidence"] = serde_json::to_value(crate::evidence::RouteEvidence::default()).expect("JSON");
    view["evidence"]["restarted"] = restart(at);
    let text = evidence::text(&read::<EvidenceView>(view), Formatter(false));
    assert!(text.starts_with(&format!("a\n{line}\n")), "{text}");
}

#[test]
fn diffs_say_which_earlier_pairing_an_id_contradicts() {
    let mut diffs = some_diffs();
    diffs["groups"][0]["differences"][0] = json!({
        "path": "$.lines[*].order", "kind": "value", "legacy": "\"A\"", "engine": "\"A\"",
        "contradicts": [{ "path": "$.id", "legacy": "\"A\"", "engine": "\"X\"" }],
    });
    let text = diffs::text(&read::<Diffs>(diffs), now(), Formatter(false));
    let line = "\n    contradicts $.id, where legacy's \"A\" was paired with the engine's \"X\"\n";
    assert!(text.contains(line), "{text}");
}
