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
            "not_compared": 4, "not_kept": 0, "requests_left_out": 0, "uncompared_requests_left_out": 0,
        },
        "unattributed": [call],
        "tunnels": [
            { "to": "bank.test:443\u{1b}", "service": "bank", "opened": 12, "open": 2, "last_opened": "2026-01-02T03:05:00Z" },
            { "to": "mail.test:443", "service": null, "opened": 1, "open": 0, "last_opened": "2026-01-02T03:04:05Z" },
        ],
        "tunnels_to_others": 3,
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

#[test]
fn egress_shows_the_calls_that_are_part_of_no_pair() {
    let now = "2026-01-02T03:05:05Z".parse().expect("a time");
    let plain = egress::text(&view(true, 3), now, Formatter(false));
    assert!(!plain.contains("part of no compared pair"), "{plain}");
    let calls = EgressView {
        late: 2,
        late_to: vec!["POST bank/points\u{1b}".into()],
        of_no_request: 55,
        of_no_request_to: vec!["POST mail/mails/*".into(), "CONNECT bank".into()],
        ..view(true, 3)
    };
    let text = egress::text(&calls, now, Formatter(false));
    assert!(text.contains("\n2 calls after the window went to POST bank/points") && !text.contains('\u{1b}'), "{text}");
    assert!(
        text.contains("55 calls or tunnels of no known request went to POST mail/mails/*, CONNECT bank,"),
        "{text}"
    );
}

#[test]
fn egress_shows_where_tunnels_lead_and_that_nobody_sees_what_goes_through_them() {
    let now = "2026-01-02T03:05:05Z".parse().expect("a time");
    let text = egress::text(&view(true, 3), now, Formatter(false));
    let row = |first: &str| text.lines().find(|line| line.starts_with(first)).unwrap_or_default().to_owned();
    let cells = |line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    assert!(cells(row("bank.test:443")).ends_with("bank 12 2 5 s ago"), "{text}");
    assert!(cells(row("mail.test:443")).ends_with("- 1 0 60 s ago"), "{text}");
    assert!(text.contains("and to hosts that are not listed: 3\n"), "{text}");
    assert!(text.contains("what goes through a tunnel is not seen"), "{text}");
    // A server of an earlier version counts none.
    let mut earlier = serde_json::to_value(view(true, 3)).expect("json");
    let members = earlier.as_object_mut().expect("a map");
    members.retain(|key, _| !key.starts_with("tunnels"));
    let text = egress::text(&read(earlier), now, Formatter(false));
    assert!(!text.contains("TUNNELS"), "{text}");
}
