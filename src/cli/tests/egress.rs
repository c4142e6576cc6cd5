//! What `egress` prints.

use super::*;
use crate::admin::types::EgressView;
use crate::cli::egress;

fn view(is_watched: bool, calls: u64) -> EgressView {
    let call = json!({
        "at": "2026-01-02T03:04:05Z", "service": null, "method": "POST", "url": "http://bank/x?token=***\u{1b}[2J",
        "outcome": "ambiguous",
    });
    read(json!({
        "route": "orders.create",
        "is_watched": is_watched,
        "correlate": "header.x-id",
        "window_s": 10.0,
        "requests": 12, "closed": 9, "without_call": 2,
        "calls": { "traceparent": calls, "header": 1, "value": 0 },
        "all": {
            "attributed": calls, "ambiguous": 1, "unattributed": 0,
            "attributed_share": if calls > 0 { json!(0.75) } else { json!(null) },
            "not_compared": 4, "not_kept": 0, "requests_left_out": 0, "bystanders_left_out": 0,
        },
        "unattributed": [call],
    }))
}

#[test]
fn egress_shows_the_share_that_was_attributed_and_what_was_not() {
    let now = "2026-01-02T03:05:05Z".parse().expect("a time");
    let text = egress::text(&view(true, 3), now, Formatter(false));
    for line in [
        "75.0 % of the calls were attributed, by traceparent or header.x-id",
        "the last calls without a request:",
        "  of these, without a call",
        "ambiguous: several requests could have caused it",
        "for requests that are not compared",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    assert!(text.contains("  ambiguous  POST http://bank/x?token=***"), "{text}");
    assert!(!text.contains('\u{1b}'), "recorded text cannot control a terminal: {text:?}");
    let none = egress::text(&view(true, 0), now, Formatter(false));
    assert!(none.contains("\nno call was counted yet that a compared request could have caused\n"), "{none}");
    let text = egress::text(&view(false, 0), now, Formatter(false));
    assert!(text.ends_with("was started without `egress:` in pointsman.yaml\n"), "{text}");
}
