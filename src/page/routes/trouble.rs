//! What is wrong with the process, as a short list.

use maud::{Markup, html};

use crate::admin::types::Status;
use crate::page::client::segment;
use crate::page::html::count;

/// Warnings about the files that are listed; the rest is counted.
const WARNINGS_SHOWN: usize = 5;

/// All that is wrong; an empty element if nothing is, so that the script has one to renew.
pub(in crate::page) fn list(status: &Status) -> Markup {
    let wrong = wrong(status);
    let warnings = &status.flags.warnings;
    html! {
        div #trouble data-live {
            @if !wrong.is_empty() {
                section.trouble aria-labelledby="trouble-title" {
                    h2 #trouble-title { span aria-hidden="true" { "▲ " } "Needs attention" }
                    ul { @for (what, text) in &wrong { li { strong { (what) } " " span.text { (text) } } } }
                }
            }
            @if !status.stuck.is_empty() {
                section.trouble aria-labelledby="stuck-title" {
                    h2 #stuck-title { span aria-hidden="true" { "▲ " } "Runs that cannot be resumed" }
                    ul {
                        @for stuck in &status.stuck {
                            li {
                                a href=(format!("/runs/{}", segment(&stuck.run_id))) { (stuck.run_id) } ": " (stuck.why)
                            }
                        }
                        @if status.stuck_more > 0 { li { "and " (count(status.stuck_more)) " more" } }
                    }
                }
            }
            @if !warnings.is_empty() {
                details #file-warnings {
                    summary {
                        @if warnings.len() == 1 { "1 warning" } @else { (warnings.len()) " warnings" }
                        " about the files in force"
                    }
                    ul {
                        @for warning in warnings.iter().take(WARNINGS_SHOWN) { li { (warning) } }
                        @if warnings.len() > WARNINGS_SHOWN {
                            li {
                                "and " (warnings.len() - WARNINGS_SHOWN) " more: "
                                code { "pointsman status --warnings" }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What is wrong: of what, and how.
fn wrong(status: &Status) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    if status.stopping {
        wrong.push(("Stopping:", "what is in progress finishes, then the process ends".to_owned()));
    }
    if status.freeze_unrecorded {
        wrong.push(("Freeze:", "the store has not recorded it yet: a restart would end it".to_owned()));
    }
    if status.flips_unrecorded > 0 {
        let number = status.flips_unrecorded;
        let text = format!("{number} flips down are not recorded yet: if the process ends before, these routes return");
        wrong.push(("Flips:", text));
    }
    if !status.engine_healthy {
        let why = match (&status.store_trouble, &status.recovery_trouble) {
            (_, Some(why)) => format!("the runs that the last process left are not resumed yet: {why}"),
            (Some(_), None) => "its store is in trouble".to_owned(),
            (None, None) => "its store accepts no writes".to_owned(),
        };
        wrong.push(("Engine:", format!("it takes no new runs: {why}")));
    }
    if let Some(error) = &status.flags.last_error {
        wrong
            .push(("Files:", format!("the newest files are not in force; the last good set stays in force.\n{error}")));
    }
    if !status.flags.needs_restart.is_empty() {
        let keys = status.flags.needs_restart.join(", ");
        wrong.push(("Restart:", format!("changed in the files, and takes effect only after a restart: {keys}")));
    }
    let troubles = [
        ("Store:", &status.store_trouble),
        ("Clock:", &status.clock_trouble),
        ("Services:", &status.services_trouble),
        ("Retry keys:", &status.retry_keys_trouble),
        ("Adoption:", &status.adoption_trouble),
        ("Instances:", &status.instances_trouble),
        ("Processes:", &status.processes_trouble),
        ("Succession:", &status.succession),
    ];
    wrong.extend(troubles.into_iter().filter_map(|(what, text)| Some((what, text.clone()?))));
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(more: &Value) -> Status {
        let mut status = json!({
            "build": { "version": "1", "started": "2026-12-01T12:00:00Z" }, "listen": "", "freeze": "no",
            "flags": { "generation": 1, "age_s": 1.0, "last_error": null, "warnings": [] },
            "engine_healthy": true, "runs_in_flight": 0, "runs": null,
            "shadow": { "queue_depth": 0, "in_flight": 0 }, "routes": [],
        });
        for (name, value) in more.as_object().unwrap() {
            status[name] = value.clone();
        }
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn nothing_wrong_is_an_empty_element() {
        assert_eq!(list(&status(&json!({}))).into_string(), "<div id=\"trouble\" data-live></div>");
    }

    #[test]
    fn each_trouble_is_named_and_escaped() {
        let shown = list(&status(&json!({
            "store_trouble": "disk full <b>", "engine_healthy": false, "clock_trouble": "2 min ahead",
            "stuck": [{ "run_id": "run_1", "why": "no plan" }], "stuck_more": 1200, "flips_unrecorded": 2,
        })))
        .into_string();
        for text in
            ["Store:", "disk full &lt;b&gt;", "its store is in trouble", "2 min ahead", "/runs/run%5F1", "2 flips"]
        {
            assert!(shown.contains(text), "{text}: {shown}");
        }
    }
}
