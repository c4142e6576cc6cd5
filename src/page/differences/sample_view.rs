//! A sample of a pair: the request, both replies and the calls of both sides.

use maud::{Markup, html};

use crate::admin::types::{Sample, SampleCall, ShownRequest};
use crate::page::client::segment;
use crate::page::differences::difference_words::{Arms, PairPart};
use crate::page::differences::reply_text::{bodies, body, first_line};
use crate::page::differences::side_by_side::{Budget, Section, table};
use crate::page::differences::text_marks::{has_hidden, shown_up_to};
use crate::page::html::{count, time};
use crate::secret::CUT;

/// How much of a request is shown, in bytes.
const REQUEST_BYTES_MAX: usize = 8_000;
/// How many calls of a sample are shown.
const CALLS_MAX: usize = 20;
/// How much of the id of a run is shown, in bytes. Ids are shorter.
const RUN_BYTES_MAX: usize = 100;
/// How many runs below the run of a sample are linked.
const CHILD_RUNS_MAX: usize = 5;

/// A sample. `name`: of what it is a sample, for screen readers; `route`: the id of the route.
pub(in crate::page) fn sample(sample: &Sample, arms: &Arms, name: &str, route: &str, budget: &mut Budget) -> Markup {
    let rest = format!("All of it: pointsman diffs {route} --json");
    let columns = (arms.legacy_first, arms.engine_first);
    let calls: Vec<Section> = sample.calls.iter().take(CALLS_MAX).map(|call| of_call(call, arms)).collect();
    html! {
        h4 { "Request, " (time(sample.at)) }
        pre { (shown_up_to(&request(&sample.request), REQUEST_BYTES_MAX)) }
        h4 { "Replies" }
        (table(&format!("Both replies: {name}"), columns, &replies(sample), &rest, budget))
        @if !calls.is_empty() {
            h4 { "Calls to other services" }
            (table(&format!("Calls to other services: {name}"), columns, &calls, &rest, budget))
        }
        @if sample.calls.len() > CALLS_MAX {
            p.hint { (count((sample.calls.len() - CALLS_MAX) as u64)) " more calls are not shown. " (rest) }
        }
        (notes(sample))
        (runs(sample))
    }
}

/// The request with its body as it is read.
fn request(stored: &str) -> String {
    let (line, text) = first_line(stored);
    if text.is_empty() { line.to_owned() } else { format!("{line}\n\n{}", body(text)) }
}

/// The status, the headers that differ, and the body.
fn replies(sample: &Sample) -> Vec<Section> {
    let ((legacy_status, legacy_body), (engine_status, engine_body)) =
        (first_line(&sample.legacy), first_line(&sample.engine));
    let (legacy, engine, is_json) = bodies(legacy_body, engine_body);
    let note = if legacy == engine && !legacy.is_empty() {
        "equal as they are stored: the difference is elsewhere, or in what was hidden or cut"
    } else {
        ""
    };
    let mut sections = vec![of_both("Status", legacy_status, engine_status)];
    sections.extend(headers(sample));
    if !(legacy.is_empty() && engine.is_empty()) {
        let compared = of_both("Body", &legacy, &engine);
        sections.push(Section { note: note.to_owned(), ignores_commas: is_json, ..compared });
    }
    sections
}

fn of_both(title: &str, legacy: &str, engine: &str) -> Section {
    Section {
        title: title.to_owned(),
        legacy: Some(legacy.to_owned()),
        engine: Some(engine.to_owned()),
        is_compared: true,
        ..Section::default()
    }
}

/// The headers that differ: a sample has no others.
fn headers(sample: &Sample) -> Option<Section> {
    let differing = || sample.differences.iter().filter(|difference| PairPart::of(difference) == PairPart::Header);
    let lines = |legacy: bool| {
        let line = differing().filter_map(|difference| {
            let value = if legacy { &difference.legacy } else { &difference.engine };
            let name = difference.path.strip_prefix("headers.").unwrap_or(&difference.path);
            Some(format!("{name}: {}", value.as_deref()?))
        });
        let lines: Vec<String> = line.collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    };
    differing().next()?;
    Some(Section {
        title: "Headers that differ".to_owned(),
        legacy: lines(true),
        engine: lines(false),
        is_compared: true,
        ..Section::default()
    })
}

/// A call of both sides, or of one.
fn of_call(call: &SampleCall, arms: &Arms) -> Section {
    let SampleCall { step, item, engine, legacy, held_against } = call;
    let item = item.map_or(String::new(), |item| format!("[{item}]"));
    let title = match step {
        Some(step) => format!("{step}{item}"),
        None => format!("Only {} made this call", arms.legacy),
    };
    let note = match held_against.as_str() {
        "legacy" => String::new(),
        "assert" => "read by a condition of the route".to_owned(),
        "nothing" => "compared with nothing".to_owned(),
        "read" => "a call that only reads; it is not compared".to_owned(),
        _ => "it is not known what it was compared with".to_owned(),
    };
    let text = |ShownRequest { request, body }: &ShownRequest, shown: &str| match body.is_empty() {
        true => request.to_owned(),
        false => format!("{request}\n{shown}"),
    };
    let (legacy, engine, ignores_commas) = match (legacy, engine) {
        (Some(legacy), Some(engine)) => {
            let (one, other, is_json) = bodies(&legacy.body, &engine.body);
            (Some(text(legacy, &one)), Some(text(engine, &other)), is_json)
        }
        (legacy, engine) => {
            let of = |sent: &Option<ShownRequest>| sent.as_ref().map(|sent| text(sent, &body(&sent.body)));
            (of(legacy), of(engine), false)
        }
    };
    let is_compared = matches!(held_against.as_str(), "legacy" | "assert");
    Section { title, note, legacy, engine, ignores_commas, is_compared }
}

/// What to know about texts that were hidden or cut before they were stored.
fn notes(sample: &Sample) -> Markup {
    let calls = sample.calls.iter().flat_map(|call| [&call.legacy, &call.engine]).flatten();
    let of_calls = calls.flat_map(|call| [&call.request, &call.body]);
    let texts: Vec<&String> = [&sample.request, &sample.legacy, &sample.engine].into_iter().chain(of_calls).collect();
    html! {
        @if texts.iter().any(|text| has_hidden(text)) {
            p.hint {
                "What is framed was hidden before the sample was stored, and nobody can read it here: " code { "***" }
                " and " code { "[redacted …]" } " stand for a secret value, a digest for a text whose values have no "
                "names. Equal numbers in them mean equal values."
            }
        }
        @if texts.iter().any(|text| text.ends_with(CUT)) {
            p.hint { "A text that ends in “…” was cut when the sample was stored (limit " code { "sample_bytes_max" } ")." }
        }
    }
}

/// The way of the request through the workflow.
fn runs(sample: &Sample) -> Markup {
    html! {
        @if let Some(run) = &sample.run {
            p {
                a href=(format!("/runs/{}", segment(run))) { "Its way through the workflow" }
                " (run " code { (shown_up_to(run, RUN_BYTES_MAX)) } ")"
            }
        }
        @if !sample.child_runs.is_empty() {
            p {
                "Runs below it: "
                @for (n, run) in sample.child_runs.iter().take(CHILD_RUNS_MAX).enumerate() {
                    @if n > 0 { ", " }
                    a href=(format!("/runs/{}", segment(run))) { (shown_up_to(run, RUN_BYTES_MAX)) }
                }
                @if sample.child_runs.len() > CHILD_RUNS_MAX {
                    ", and " (count((sample.child_runs.len() - CHILD_RUNS_MAX) as u64)) " more"
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn html(value: Value) -> String {
        let sample: Sample = serde_json::from_value(value).unwrap();
        super::sample(&sample, &Arms::OF_ROUTE, "way 1", "orders.create", &mut Budget::of_page()).into_string()
    }

    #[test]
    fn a_sample_shows_the_request_both_replies_and_the_calls() {
        let call = |amount: &str| json!({ "request": "bank POST http://bank/charges", "body": format!("{{\"amount\":{amount}}}") });
        let shown = html(json!({
            "at": "2026-11-28T10:00:00Z", "run": "run_1", "child_runs": ["run_2"],
            "differences": [
                { "path": "headers.location", "kind": "header", "legacy": "/orders/1", "engine": null },
                { "path": "$.total", "kind": "value", "legacy": "12.50", "engine": "12.49" },
            ],
            "request": "POST /orders?token=***\n{\"items\":[1]}",
            "legacy": "201\n{\"total\":12.50,\"card\":\"***\"}",
            "engine": "409\n{\"card\":\"***\",\"total\":12.49}",
            "calls": [
                { "step": "charge", "item": 2, "legacy": call("12.50"), "engine": call("12.49"), "held_against": "legacy" },
                { "step": null, "item": null, "legacy": call("1"), "engine": null, "held_against": "read" },
            ],
        }));
        assert!(shown.contains("POST /orders?token=<mark"), "{shown}");
        for marked in ["201</del>", "409</ins>", "12.50</del>", "12.49</ins>", "location: /orders/1</del>"] {
            assert!(shown.contains(marked), "{marked}: {shown}");
        }
        assert_eq!(shown.matches("<del>").count(), 4, "status, header, total and the amount of the call: {shown}");
        for text in ["charge[2]", "Only legacy made this call", "only reads; it is not compared", "hidden before"] {
            assert!(shown.contains(text), "{text}: {shown}");
        }
        assert!(shown.contains("href=\"/runs/run%5F1\"") && shown.contains("href=\"/runs/run%5F2\""), "{shown}");
    }

    #[test]
    fn a_hostile_sample_is_inert() {
        let hostile = "<script>alert(1)</script>\u{202e}\u{0}\"'";
        let shown = html(json!({
            "at": "2026-11-28T10:00:00Z", "run": hostile, "child_runs": [hostile], "differences": [],
            "request": hostile, "legacy": format!("200\n{hostile}"), "engine": format!("200\n{hostile}x"),
            "calls": [{ "step": null, "item": null, "legacy": { "request": hostile, "body": hostile },
                "engine": null, "held_against": hostile }],
        }));
        assert!(!shown.contains("<script") && !shown.contains('\u{202e}') && !shown.contains('\u{0}'), "{shown}");
        assert!(shown.contains("&lt;script&gt;") && shown.contains("U+202E"), "{shown}");
    }

    #[test]
    fn equal_bodies_and_cut_ones_are_said() {
        let of = |legacy: &str| {
            html(json!({ "at": "2026-11-28T10:00:00Z", "run": null, "request": "GET /a", "legacy": legacy,
                "engine": legacy }))
        };
        assert!(of("200\nabc").contains("equal as they are stored"));
        let cut = of("200\n{\"a\": 1, \"b…");
        assert!(cut.contains("sample_bytes_max") && !cut.contains("way through"), "{cut}");
    }
}
