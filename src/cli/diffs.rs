//! `diffs`: where legacy and engine differ, grouped, with one sample each.
//!
//! Always true: what is shown was redacted before it was stored, its control characters are escaped, and it is bounded:
//! a long diff of a sample is cut, and computing it has a deadline.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use owo_colors::Style;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::client::{CallError, Client, component};
use super::format::{Formatter, Tone, ago, count, counted, escape_control};
use super::output::Output;
use crate::admin::types::{DiffGroup, Difference, Diffs, EarlierPairing, RouteDetail, SampleCall, ShownRequest};
use crate::page::apart;

/// The most lines of one sample's diff.
const LINES_MAX: usize = 60;
/// The most calls of one sample.
const CALLS_MAX: usize = 20;
/// The most child runs of a sample's run that are shown.
const CHILD_RUNS_MAX: usize = 5;
/// How long computing one sample's diff may take.
const DIFF_TIME_MAX: Duration = Duration::from_millis(500);

pub(crate) fn show(
    client: &Client,
    route: &str,
    limit: usize,
    candidate: bool,
    format: Formatter,
) -> Result<Output, CallError> {
    // A server of an earlier version does not know the parameter.
    let of = if candidate { "&candidate=true" } else { "" };
    let path = format!("/api/v2/routes/{}/diffs?limit={limit}{of}", component(route));
    let (diffs, json) = client.get::<Diffs>(&path)?;
    let mut text = text(&diffs, Timestamp::now(), format);
    if candidate {
        // The calls of both plans are the engine's own: all of them are known.
        text.insert_str(0, "`legacy` is what the plan in force did, `engine` what the candidate did\n");
    } else if differs_in_calls(&diffs) {
        let route = escape_control(route);
        let _ =
            writeln!(text, "\nwhich of legacy's calls were attributed to requests, and how: pointsman egress {route}");
    } else if diffs.groups.is_empty() && has_candidate(client, route) {
        let _ = writeln!(
            text,
            "its changed workflow is a candidate, whose differences are apart: `pointsman diffs {} --candidate`",
            escape_control(route)
        );
    }
    Ok(Output { text, json, is_ok: true })
}

/// Whether a route has a candidate; `false` also if that cannot be read.
fn has_candidate(client: &Client, route: &str) -> bool {
    let detail = client.get::<RouteDetail>(&format!("/api/v2/routes/{}", component(route)));
    detail.is_ok_and(|(detail, _)| detail.row.candidate.is_some())
}

pub(crate) fn text(diffs: &Diffs, now: Timestamp, format: Formatter) -> String {
    let mut out = format!(
        "{}  {} pairs, {} differ\n",
        format.tone(&diffs.route, Tone::Strong),
        count(diffs.pairs),
        format.tone(count(diffs.mismatched), if diffs.mismatched == 0 { Tone::Good } else { Tone::Bad }),
    );
    if diffs.noise > 0 {
        let noise = format!("{} differ only where legacy differs from itself, and count as equal", count(diffs.noise));
        let _ = writeln!(out, "{}", format.tone(noise, Tone::Faint));
    }
    if diffs.groups.is_empty() {
        out.push_str(match (diffs.pairs, diffs.mismatched) {
            (0, _) => "nothing has been compared yet\n",
            (_, 0) => "no difference since the workflow or the rules last changed\n",
            _ => "no sample has been kept\n",
        });
    }
    for (n, group) in diffs.groups.iter().enumerate() {
        out.push('\n');
        self::group(&mut out, n + 1, group, (diffs.second_runs, now), format);
    }
    if diffs.groups.iter().flat_map(|group| &group.differences).any(has_lines_not_shown) {
        out.push_str(
            "\nto see lines of texts in later samples (values with a secret name stay hidden), give the route `text:` \
             rules: `compare: { text: {} }`; for the calls of a step: `compare: { effects: { STEP: { text: {} } } }`\n",
        );
    }
    out
}

/// Whether calls to other services differ.
fn differs_in_calls(diffs: &Diffs) -> bool {
    let is_about_calls = |difference: &Difference| difference.kind.as_str().starts_with("effect_");
    diffs.groups.iter().flat_map(|group| &group.differences).any(is_about_calls)
}

/// Whether a difference of two texts shows digests in place of their lines.
fn has_lines_not_shown(difference: &Difference) -> bool {
    let is_text = difference.path == "text" || difference.path.ends_with(".text");
    let has_digest = |shown: &String| shown.contains(" lines, ") && shown.contains(", digest ");
    is_text && [&difference.legacy, &difference.engine].into_iter().flatten().any(has_digest)
}

fn group(out: &mut String, n: usize, group: &DiffGroup, (runs, now): (u64, Timestamp), format: Formatter) {
    let _ = writeln!(
        out,
        "{}  {} {}  {}",
        format.tone(format!("#{n}"), Tone::Strong),
        count(group.count),
        if group.count == 1 { "time" } else { "times" },
        format.tone(
            format!(
                "first {}, last {}  {}",
                ago(group.first_seen, now),
                ago(group.last_seen, now),
                escape_control(&group.fingerprint)
            ),
            Tone::Faint
        ),
    );
    if group.is_noise {
        let _ = writeln!(out, "  {}", format.tone("noise: ignored, legacy differs from itself here", Tone::Faint));
    }
    if group.differed_from_itself > 0 {
        let differed = count(group.differed_from_itself);
        let note = format!("the engine differs from itself here too: in {differed} of {} second runs", count(runs));
        let _ = writeln!(out, "  {}", format.tone(note, Tone::Warn));
    }
    group.differences.iter().for_each(|difference| out.push_str(&shown_difference(difference, format)));
    let sample = &group.sample;
    let run = sample.run.as_deref().map_or(String::new(), |run| format!("  {}", escape_control(run)));
    let _ = writeln!(out, "  {}", format.tone(format!("a sample, {}{run}", ago(sample.at, now)), Tone::Faint));
    for child in sample.child_runs.iter().take(CHILD_RUNS_MAX) {
        let _ = writeln!(out, "    {}", format.tone(format!("child run {}", escape_control(child)), Tone::Faint));
    }
    if sample.child_runs.len() > CHILD_RUNS_MAX {
        let _ = writeln!(out, "    {}", format.tone("... the rest is in --json", Tone::Faint));
    }
    if !group.other_samples.is_empty() {
        let others = counted(group.other_samples.len() as u64, "other sample");
        let _ = writeln!(out, "    {}", format.tone(format!("{others} in --json"), Tone::Faint));
    }
    out.push_str(&request_lines(&sample.request, format));
    let _ = writeln!(out, "  {} / {}", format.tone("- legacy", Tone::Bad), format.tone("+ engine", Tone::Good));
    let (legacy, engine) = sides(&sample.legacy, &sample.engine);
    out.push_str(&inline_diff(&legacy, &engine, format));
    if !sample.calls.is_empty() {
        let _ = writeln!(out, "  {}", format.tone("calls to other services", Tone::Faint));
        sample.calls.iter().take(CALLS_MAX).for_each(|shown| out.push_str(&call(shown, format)));
        if sample.calls.len() > CALLS_MAX {
            let _ = writeln!(out, "    {}", format.tone("... the rest is in --json", Tone::Faint));
        }
    }
}

/// What the engine would have sent, and legacy's call beside it.
fn call(call: &SampleCall, format: Formatter) -> String {
    let SampleCall { step, item, engine, legacy, held_against } = call;
    let item = item.map_or(String::new(), |item| format!("[{item}]"));
    let step = step.as_ref().map_or("(no step)".to_owned(), |step| format!("{step}{item}"));
    let request = |sent: &Option<ShownRequest>, tone: Tone| match sent {
        Some(ShownRequest { request, body }) => format.tone(escape_control(&format!("{request}  {body}")), tone),
        None => "(nothing)".to_owned(),
    };
    if held_against == "read" {
        let read = format.tone("a read, not compared", Tone::Faint);
        return format!("    {read}\n      legacy {}\n", request(legacy, Tone::Plain));
    }
    let against = match held_against.as_str() {
        "legacy" => String::new(),
        "assert" => "  read by an assert".to_owned(),
        "nothing" => format.tone("  compared with nothing", Tone::Warn),
        _ => format.tone("  it is not known what it was compared with", Tone::Warn),
    };
    format!(
        "    {}{against}\n      legacy {}\n      engine {}\n",
        format.tone(escape_control(&step), Tone::Strong),
        request(legacy, Tone::Bad),
        request(engine, Tone::Good)
    )
}

/// Where and how legacy and engine differ, in one line, and what it contradicts.
pub(super) fn shown_difference(difference: &Difference, format: Formatter) -> String {
    let mut out = String::new();
    let value = |value: &Option<String>| escape_control(value.as_deref().unwrap_or("(absent)"));
    if difference.kind.as_str() == "assert" {
        // A condition over both arms has no two sides.
        let path = format.tone(escape_control(&difference.path), Tone::Strong);
        let _ = writeln!(out, "  {path}: {}", format.tone(value(&difference.engine), Tone::Bad));
        return out;
    }
    let apart = difference.distance().map_or(String::new(), |distance| format!("  ({})", apart(distance)));
    let _ = writeln!(
        out,
        "  {} {}  legacy {}  engine {}{}",
        format.tone(escape_control(&difference.path), Tone::Strong),
        difference.kind.as_str(),
        format.tone(value(&difference.legacy), Tone::Bad),
        format.tone(value(&difference.engine), Tone::Good),
        format.tone(apart, Tone::Faint),
    );
    for EarlierPairing { path, legacy, engine } in &difference.contradicts {
        let (path, legacy, engine) = (escape_control(path), escape_control(legacy), escape_control(engine));
        let why = format!("contradicts {path}, where legacy's {legacy} was paired with the engine's {engine}");
        let _ = writeln!(out, "    {}", format.tone(why, Tone::Warn));
    }
    out
}

/// How many lines of a request are shown.
const REQUEST_LINES_MAX: usize = 12;

/// The first lines of a stored request, and how many are left out.
pub(super) fn request_lines(request: &str, format: Formatter) -> String {
    let request = escape_control(request);
    let more = request.lines().count().saturating_sub(REQUEST_LINES_MAX);
    let rest = (more > 0).then(|| format!("... {} in --json", counted(more as u64, "more line")));
    let lines = request.lines().take(REQUEST_LINES_MAX).map(str::to_owned).chain(rest);
    lines.map(|line| format!("    {}\n", format.tone(line, Tone::Faint))).collect()
}

/// Both stored replies by lines. Where they differ in the last line break alone, the one without says so.
fn sides(legacy: &str, engine: &str) -> (String, String) {
    let mut sides = (indented(legacy, None), indented(engine, Some(legacy)));
    if sides.0 == sides.1 {
        const NOTE: &str = "(no line break at the end)\n";
        match (legacy.ends_with('\n'), engine.ends_with('\n')) {
            (true, false) => sides.1.push_str(NOTE),
            (false, true) => sides.0.push_str(NOTE),
            (true, true) | (false, false) => {}
        }
    }
    sides
}

/// A stored reply: the status in its first line, and the body with JSON indented, its members in the order in which
/// another stored reply has them, because their order has no meaning.
fn indented(text: &str, ordered_as: Option<&str>) -> String {
    let body = |text: &str| serde_json::from_str::<Value>(text.split_once('\n')?.1).ok();
    let order = ordered_as.and_then(body);
    let pretty = |text: &str| {
        let value = serde_json::from_str::<Value>(text).ok()?;
        let value = order.as_ref().map_or_else(|| value.clone(), |order| in_order_of(order, &value));
        serde_json::to_string_pretty(&value).ok()
    };
    let text = match text.split_once('\n') {
        Some((status, body)) => format!("{status}\n{}", pretty(body).unwrap_or_else(|| body.to_owned())),
        None => text.to_owned(),
    };
    let mut text = escape_control(&text);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// A value with its members in the order of another one; those that only this one has are last.
pub(super) fn in_order_of(order: &Value, value: &Value) -> Value {
    match (order, value) {
        (Value::Object(order), Value::Object(members)) => {
            let common = order.iter().filter_map(|(name, order)| {
                let value = members.get(name)?;
                Some((name.clone(), in_order_of(order, value)))
            });
            let others = members.iter().filter(|(name, _)| !order.contains_key(*name));
            Value::Object(common.chain(others.map(|(name, value)| (name.clone(), value.clone()))).collect())
        }
        (Value::Array(order), Value::Array(items)) => {
            let last = order.last();
            let ordered =
                |(n, item)| order.get(n).or(last).map_or_else(|| Value::clone(item), |of| in_order_of(of, item));
            Value::Array(items.iter().enumerate().map(ordered).collect())
        }
        (_, value) => value.clone(),
    }
}

/// A diff by lines, with the differing parts of a line emphasised.
pub(super) fn inline_diff(legacy: &str, engine: &str, format: Formatter) -> String {
    let deadline = Instant::now() + DIFF_TIME_MAX;
    let diff = TextDiff::configure().deadline(deadline).diff_lines(legacy, engine);
    let mut out = String::new();
    let mut lines = 0;
    for (n, ops) in diff.grouped_ops(2).iter().enumerate() {
        if n > 0 {
            let _ = writeln!(out, "    {}", format.tone("...", Tone::Faint));
        }
        for change in ops.iter().flat_map(|op| diff.iter_inline_changes_deadline(op, Some(deadline))) {
            lines += 1;
            if lines > LINES_MAX {
                let _ = writeln!(out, "    {}", format.tone("... the rest is in --json", Tone::Faint));
                return out;
            }
            let (sign, base) = match change.tag() {
                ChangeTag::Delete => ("-", Style::new().red()),
                ChangeTag::Insert => ("+", Style::new().green()),
                ChangeTag::Equal => (" ", Style::new().dimmed()),
            };
            let mut line = format.style(format!("{sign} "), base);
            for (emphasised, part) in change.iter_strings_lossy() {
                let part = part.trim_end_matches('\n');
                if !part.is_empty() {
                    line.push_str(&format.style(part, if emphasised { base.bold().underline() } else { base }));
                }
            }
            let _ = writeln!(out, "    {line}");
        }
    }
    if out.is_empty() {
        let _ = writeln!(
            out,
            "    {}",
            format.tone(
                "(the stored replies are equal: the difference is in headers, in the steps' requests, or in what was \
                 redacted or cut)",
                Tone::Faint
            )
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_in_the_last_line_break_alone_can_be_seen() {
        let (legacy, engine) = sides("200\na\n", "200\na");
        assert_eq!((&*legacy, &*engine), ("200\na\n", "200\na\n(no line break at the end)\n"));
        let (legacy, engine) = sides("200\n{\"a\":1}", "200\n{\"a\":2}");
        assert!(!legacy.contains("line break") && !engine.contains("line break"));
    }

    #[test]
    fn two_numbers_that_differ_show_how_far_they_are_apart() {
        let shown = |legacy: &str, engine: &str| {
            let difference = json!({ "path": "$.total", "kind": "value", "legacy": legacy, "engine": engine });
            shown_difference(&serde_json::from_value(difference).unwrap(), Formatter(false))
        };
        let total = |apart: &str, (legacy, engine): (&str, &str)| {
            format!("  $.total value  legacy {legacy}  engine {engine}{apart}\n")
        };
        for (apart, of) in [
            ("  (less than 0.0001 % apart)", ("139.3", "139.29999999999998")),
            ("  (0.06 % apart)", ("17.5", "17.51")),
            ("  (10 % apart)", ("87.84", "97.6")),
            ("  (150 % apart)", ("-1", "2")),
            ("", ("\"4012\"", "\"4013\"")),
            ("", ("***", "***")),
        ] {
            assert_eq!(shown(of.0, of.1), total(apart, of));
        }
    }
}
