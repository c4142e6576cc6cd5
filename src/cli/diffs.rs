//! `diffs`: where legacy and engine differ, grouped, with one sample each.
//!
//! Always true: what is shown was redacted before it was stored, is made harmless for the terminal, and is bounded: a
//! sample of which too much differs is cut, and the diff itself has a deadline.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use owo_colors::Style;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::Done;
use super::client::{CallError, Client, component};
use super::paint::{Paint, Tone, ago, count, harmless};
use crate::admin::types::{DiffGroup, Diffs};

/// Lines of one sample's diff.
const LINES_MAX: usize = 60;
/// One sample's diff, all told.
const DIFF_TIME_MAX: Duration = Duration::from_millis(500);

pub(crate) fn show(client: &Client, route: &str, limit: usize, paint: Paint) -> Result<Done, CallError> {
    let path = format!("/api/v2/routes/{}/diffs?limit={limit}", component(route));
    let (diffs, json) = client.get::<Diffs>(&path)?;
    Ok(Done { text: text(&diffs, Timestamp::now(), paint), json, fine: true })
}

pub(crate) fn text(diffs: &Diffs, now: Timestamp, paint: Paint) -> String {
    let mut out = format!(
        "{}  {} pairs, {} differ\n",
        paint.tone(&diffs.route, Tone::Strong),
        count(diffs.pairs),
        paint.tone(count(diffs.mismatched), if diffs.mismatched == 0 { Tone::Good } else { Tone::Bad }),
    );
    if diffs.groups.is_empty() {
        out.push_str(match (diffs.pairs, diffs.mismatched) {
            (0, _) => "nothing has been compared yet\n",
            (_, 0) => "no difference since the workflow or the rules last changed\n",
            _ => "no sample has been kept\n",
        });
    }
    for (n, group) in diffs.groups.iter().enumerate() {
        out.push('\n');
        self::group(&mut out, n + 1, group, now, paint);
    }
    out
}

fn group(out: &mut String, n: usize, group: &DiffGroup, now: Timestamp, paint: Paint) {
    let _ = writeln!(
        out,
        "{}  {} {}  {}",
        paint.tone(format!("#{n}"), Tone::Strong),
        count(group.count),
        if group.count == 1 { "time" } else { "times" },
        paint.tone(
            format!(
                "first {}, last {}  {}",
                ago(group.first_seen, now),
                ago(group.last_seen, now),
                harmless(&group.fingerprint)
            ),
            Tone::Faint
        ),
    );
    for difference in &group.differences {
        let value = |value: &Option<String>| harmless(value.as_deref().unwrap_or("(absent)"));
        let _ = writeln!(
            out,
            "  {} {}  legacy {}  engine {}",
            paint.tone(harmless(&difference.path), Tone::Strong),
            difference.kind.as_str(),
            paint.tone(value(&difference.legacy), Tone::Bad),
            paint.tone(value(&difference.engine), Tone::Good),
        );
    }
    let sample = &group.sample;
    let run = sample.run.as_deref().map_or(String::new(), |run| format!("  {}", harmless(run)));
    let _ = writeln!(out, "  {}", paint.tone(format!("a sample, {}{run}", ago(sample.at, now)), Tone::Faint));
    for line in harmless(&sample.request).lines().take(12) {
        let _ = writeln!(out, "    {}", paint.tone(line, Tone::Faint));
    }
    let _ = writeln!(out, "  {} / {}", paint.tone("- legacy", Tone::Bad), paint.tone("+ engine", Tone::Good));
    out.push_str(&inline(&laid_out(&sample.legacy), &laid_out(&sample.engine), paint));
}

/// Text in lines: JSON pretty, also behind a head and an empty line.
fn laid_out(text: &str) -> String {
    let pretty =
        |text: &str| serde_json::from_str::<Value>(text).ok().and_then(|v| serde_json::to_string_pretty(&v).ok());
    let laid = match (pretty(text), text.split_once("\n\n")) {
        (Some(json), _) => json,
        (None, Some((head, body))) => format!("{head}\n\n{}", pretty(body).unwrap_or_else(|| body.to_owned())),
        (None, None) => text.to_owned(),
    };
    let mut laid = harmless(&laid);
    if !laid.ends_with('\n') {
        laid.push('\n');
    }
    laid
}

/// A diff by lines, the differing parts of a line marked.
fn inline(legacy: &str, engine: &str, paint: Paint) -> String {
    let deadline = Instant::now() + DIFF_TIME_MAX;
    let diff = TextDiff::configure().deadline(deadline).diff_lines(legacy, engine);
    let mut out = String::new();
    let mut lines = 0;
    for (n, ops) in diff.grouped_ops(2).iter().enumerate() {
        if n > 0 {
            let _ = writeln!(out, "    {}", paint.tone("...", Tone::Faint));
        }
        for change in ops.iter().flat_map(|op| diff.iter_inline_changes_deadline(op, Some(deadline))) {
            lines += 1;
            if lines > LINES_MAX {
                let _ = writeln!(out, "    {}", paint.tone("... more of it with --json", Tone::Faint));
                return out;
            }
            let (sign, base) = match change.tag() {
                ChangeTag::Delete => ("-", Style::new().red()),
                ChangeTag::Insert => ("+", Style::new().green()),
                ChangeTag::Equal => (" ", Style::new().dimmed()),
            };
            let mut line = paint.style(format!("{sign} "), base);
            for (emphasised, part) in change.iter_strings_lossy() {
                let part = part.trim_end_matches('\n');
                if !part.is_empty() {
                    line.push_str(&paint.style(part, if emphasised { base.bold().underline() } else { base }));
                }
            }
            let _ = writeln!(out, "    {line}");
        }
    }
    if out.is_empty() {
        let _ = writeln!(
            out,
            "    {}",
            paint.tone(
                "(the bodies as kept are equal: what differs is in headers, or in the steps' requests)",
                Tone::Faint
            )
        );
    }
    out
}
