//! How shares that grow by themselves are shown.

use super::format::{Formatter, Tone, count, duration_text, escape_control};
use crate::admin::types::AutoRow;

/// The progress towards the route's next share, as a line.
pub(crate) fn line(route: &str, auto: &AutoRow, format: Formatter) -> String {
    let AutoRow { next, due_in_s, requests, requests_wanted, held } = auto;
    let mut waits = Vec::new();
    if *due_in_s > 0 {
        #[allow(clippy::cast_precision_loss)] // bounded by `each`
        waits.push(format!("in {}", duration_text(*due_in_s as f64)));
    }
    if requests < requests_wanted {
        waits.push(format!("after {} of {} requests", count(*requests), count(*requests_wanted)));
    }
    let waits = if waits.is_empty() { "now".to_owned() } else { waits.join(" and ") };
    let held: String = held.iter().map(|why| format!("\n  {}", format.tone(escape_control(why), Tone::Warn))).collect();
    format!(
        "{route}: its share {} {next} % {waits}{}{held}\n",
        if held.is_empty() { "grows to" } else { "would grow to" },
        if held.is_empty() { "" } else { ", but is blocked by:" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_growing_share_says_what_it_waits_for() {
        let auto = |due_in_s, requests, held: &[&str]| AutoRow {
            next: 5.0,
            due_in_s,
            requests,
            requests_wanted: 100,
            held: held.iter().map(|why| (*why).to_owned()).collect(),
        };
        let text = |row: AutoRow| line("a", &row, Formatter(false));
        let both = text(auto(90, 12, &[]));
        assert!(
            both.starts_with("a: its share grows to 5 % in ") && both.contains("after 12 of 100 requests"),
            "{both}"
        );
        assert_eq!(text(auto(0, 100, &[])), "a: its share grows to 5 % now\n");
        assert_eq!(text(auto(0, 100, &["no"])), "a: its share would grow to 5 % now, but is blocked by:\n  no\n");
    }
}
