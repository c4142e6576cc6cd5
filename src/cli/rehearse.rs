//! `rehearse`: what the workflows of a directory make of captures, without any network.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read, Write as _};
use std::path::Path;

use super::args::Rehearse;
use super::client::CallError;
use super::diffs::{inline_diff, request_lines, shown_difference};
use super::format::{Formatter, TableCell, Tone, count, counted, escape_control, plain};
use super::output::Output;
use super::replay::files_refused;
use crate::app::{Capture, RehearsalFiles, RehearsalReport, RehearsedGroup};
use crate::names::RouteId;

/// The most bytes of one line of captures; `captures export` writes lines of at most 256 KiB.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// The most bytes of a HAR file.
const HAR_BYTES_MAX: u64 = 1 << 30;
/// How many differences of a group are shown.
const DIFFERENCES_MAX: usize = 20;
/// How many groups of a route are shown; the rest is in `--json`.
const GROUPS_MAX: usize = 20;

pub(crate) fn rehearse(args: &Rehearse, format: Formatter) -> Result<Output, CallError> {
    let Rehearse { flags, from, route, since, coverage_at_least } = args;
    let files = RehearsalFiles::read(flags).map_err(|failed| files_refused(&failed, format))?;
    let only = route.as_deref().map(RouteId::from);
    if let Some(only) = only.as_ref().filter(|only| !files.routes().any(|route| route == *only)) {
        let known: Vec<_> = files.routes().map(ToString::to_string).collect();
        return Err(CallError::Failed(
            format!("{} has no route `{only}` with a workflow", flags.display()),
            format!("name one of: {}", known.join(", ")),
        ));
    }
    let is_har = from.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("har"));
    let captures: Box<dyn Iterator<Item = Result<Capture, Refused>>> = match is_har {
        true => Box::new(har(from, &files)?.into_iter().map(Ok)),
        false => Box::new(lines(from)?),
    };
    let is_asked_for = |capture: &Result<Capture, Refused>| match (capture, since) {
        (Ok(capture), Some(since)) => capture.at >= *since,
        (Ok(_) | Err(_), _) => true,
    };
    let captures = captures.filter(is_asked_for);
    let shows_progress = io::stderr().is_terminal();
    let mut progress = |read: u64| {
        if shows_progress {
            let _ = write!(io::stderr(), "\r{} captures read", count(read));
        }
    };
    let found = files.rehearse(captures, only.as_ref(), &mut progress);
    if shows_progress {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    let report = found.map_err(|Refused(why)| {
        CallError::Failed(
            format!("{}: {why}", from.display()),
            "give a file that `pointsman captures export` wrote, or a HAR file whose name ends with `.har`".to_owned(),
        )
    })?;
    let mut json = serde_json::to_value(&report).unwrap_or_default();
    let is_ok = report.is_passed() && report.below_coverage(*coverage_at_least).next().is_none();
    for (id, route) in &report.routes {
        json["routes"][id.as_str()]["coverage_percent"] = route.coverage().into();
    }
    json["coverage_at_least_percent"] = (*coverage_at_least).into();
    json["passed"] = is_ok.into();
    Ok(Output { text: text(&report, *coverage_at_least, format), json, is_ok })
}

/// Why captures cannot be read, or a rehearsal cannot begin.
struct Refused(String);

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

fn unreadable(file: &Path, error: &io::Error) -> CallError {
    CallError::Failed(format!("{}: {error}", file.display()), "name a file that can be read, or `-` for stdin".into())
}

/// The captures of a file with a line for each.
fn lines(file: &Path) -> Result<impl Iterator<Item = Result<Capture, Refused>> + use<>, CallError> {
    let mut reader: Box<dyn BufRead> = match file == Path::new("-") {
        true => Box::new(BufReader::new(io::stdin())),
        false => Box::new(BufReader::new(File::open(file).map_err(|error| unreadable(file, &error))?)),
    };
    let mut number = 0;
    Ok(std::iter::from_fn(move || {
        loop {
            number += 1;
            let mut line = Vec::new();
            match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Err(error) => return Some(Err(Refused(format!("line {number}: {error}")))),
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            if !text.trim().is_empty() {
                return Some(Capture::read(text.trim()).map_err(|error| Refused(format!("line {number}: {error}"))));
            }
        }
    }))
}

/// The pairs of a HAR file whose requests belong to a route.
fn har(file: &Path, files: &RehearsalFiles) -> Result<Vec<Capture>, CallError> {
    let opened = File::open(file).map_err(|error| unreadable(file, &error))?;
    let mut text = String::new();
    opened.take(HAR_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| unreadable(file, &error))?;
    let hint = || "save it again from the browser or the proxy that recorded it (HAR 1.2)".to_owned();
    if text.len() as u64 > HAR_BYTES_MAX {
        return Err(CallError::Failed(format!("{}: larger than {HAR_BYTES_MAX} bytes", file.display()), hint()));
    }
    files.pairs_of_har(&text).map_err(|error| CallError::Failed(format!("{}: {error}", file.display()), hint()))
}

/// The result for people.
fn text(report: &RehearsalReport, coverage_at_least: f64, format: Formatter) -> String {
    let mut rows = Vec::new();
    for (route, found) in &report.routes {
        let sum = |reasons: &std::collections::BTreeMap<String, u64>| reasons.values().sum::<u64>();
        let number = |n: u64, tone: Tone| -> TableCell { (count(n), if n > 0 { tone } else { Tone::Faint }) };
        rows.push(vec![
            plain(route.to_string()),
            plain(count(found.pairs)),
            plain(count(found.matched)),
            plain(count(found.ignored)),
            number(found.mismatched, Tone::Bad),
            number(sum(&found.skipped), Tone::Warn),
            number(sum(&found.failed), Tone::Bad),
        ]);
    }
    let titles = ["route", "pairs", "matched", "ignored", "mismatched", "skipped", "failed"];
    let mut out = format.table(&titles, &[1, 2, 3, 4, 5, 6], rows);
    for (route, found) in &report.routes {
        for (reason, n) in &found.left_out {
            let _ = writeln!(out, "{route}: {} left out: {}", count(*n), left_out(reason));
        }
        for (what, reasons) in [("skipped", &found.skipped), ("failed", &found.failed)] {
            for (reason, n) in reasons {
                let _ = writeln!(out, "{route}: {} {what}: {reason}", count(*n));
            }
        }
        for (why, n) in &found.unresolved {
            let _ = writeln!(out, "  {} {}", count(*n), escape_control(why));
        }
        for (place, n) in &found.not_known {
            let what = format!(
                "{route}: {} at {}: not known whether equal; the captured value is redacted, and the workflow's value \
                 does not come from the capture, so they cannot be compared",
                counted(*n, "pair"),
                escape_control(place)
            );
            let _ = writeln!(out, "{}", format.tone(what, Tone::Warn));
        }
        for (place, n) in &found.contradicted {
            let what = format!(
                "{route}: {} differ at {}: one side has the same value there as in an earlier pair, and the other side has \
                 another one than in that pair (legacy's values are redacted)",
                counted(*n, "pair"),
                escape_control(place)
            );
            let _ = writeln!(out, "{}", format.tone(what, Tone::Bad));
        }
        for (n, of_group) in found.groups.iter().take(GROUPS_MAX).enumerate() {
            group(&mut out, &format!("{route} #{}", n + 1), of_group, format);
        }
        if found.groups.len() > GROUPS_MAX {
            let _ = writeln!(out, "\n{} more groups are in --json", found.groups.len() - GROUPS_MAX);
        }
    }
    for (reason, n) in &report.left_out {
        let _ = writeln!(out, "{} left out: {}", counted(*n, "capture"), left_out(reason));
    }
    let mut is_covered = true;
    for (route, coverage) in report.below_coverage(coverage_at_least) {
        is_covered = false;
        let line = format!("{route}: {coverage:.2}% of its captures were compared, fewer than {coverage_at_least}%");
        let _ = writeln!(out, "{}", format.tone(line, Tone::Bad));
    }
    let verdict = match (report.pairs(), report.is_passed()) {
        (0, _) => format.tone("nothing was compared", Tone::Bad),
        (pairs, true) => equal(pairs, report, is_covered, format),
        (pairs, false) if report.mismatched() == 0 && report.contradicted() > 0 => {
            let differing = format!("at least {} of {} differ", count(report.contradicted()), counted(pairs, "pair"));
            format.tone(differing, Tone::Bad)
        }
        (pairs, false) if report.mismatched() == 0 => {
            let routes: Vec<&str> = report.not_compared().map(RouteId::as_str).collect();
            let what = match routes.as_slice() {
                [] => format!("runs failed; nothing differs in {}", counted(pairs, "pair")),
                routes => format!("nothing was compared of {}", routes.join(", ")),
            };
            format.tone(what, Tone::Bad)
        }
        (pairs, false) => {
            let differing = format!("{} of {} differ", count(report.mismatched()), counted(pairs, "pair"));
            format.tone(differing, Tone::Bad)
        }
    };
    let _ = writeln!(out, "{verdict}");
    out
}

/// The last line where nothing differs: what was not compared may.
fn equal(pairs: u64, report: &RehearsalReport, is_covered: bool, format: Formatter) -> String {
    let without = report.without_comparison();
    let equal = match report.places_not_known() {
        0 => format!("nothing differs in {}", counted(pairs, "pair")),
        n => format!("nothing is known to differ in {}; {} not known", counted(pairs, "pair"), places_are(n)),
    };
    let of_all = format!("{} of {} could not be compared", count(without), counted(pairs + without, "capture"));
    match (without, is_covered) {
        (_, false) => format.tone(format!("{equal}, but {of_all}: too few were compared"), Tone::Bad),
        (0, true) if report.places_not_known() > 0 => format.tone(equal, Tone::Warn),
        (0, true) => format.tone(equal, Tone::Good),
        (_, true) => format.tone(format!("{equal}; {of_all} (--coverage-at-least PERCENT limits that)"), Tone::Warn),
    }
}

fn places_are(n: u64) -> String {
    if n == 1 { "1 place is".to_owned() } else { format!("{} places are", count(n)) }
}

fn left_out(reason: &str) -> &str {
    match reason {
        "no_route" => "the files have no such route",
        "no_workflow" => "the route has no workflow in these files",
        "other_match" => "the request does not match its route in these files",
        "other_route" => "of another route",
        "body_too_large" => "the request's body was not captured whole",
        "unreadable" => "a part of it is no valid HTTP",
        other => other,
    }
}

fn group(out: &mut String, name: &str, group: &RehearsedGroup, format: Formatter) {
    let RehearsedGroup { fingerprint, pairs, has_redacted, differences, request, legacy, engine } = group;
    let _ = writeln!(
        out,
        "\n{}  {}  {}",
        format.tone(name, Tone::Strong),
        counted(*pairs, "pair"),
        format.tone(escape_control(fingerprint), Tone::Faint)
    );
    differences.iter().take(DIFFERENCES_MAX).for_each(|found| out.push_str(&shown_difference(found, format)));
    if *has_redacted {
        let note = "a redacted value is among these: only its equality is known, so that what is computed from it differs; if \
                    that is right, rehearse a copy of the files with the place under `ignore:`";
        let _ = writeln!(out, "  {}", format.tone(note, Tone::Warn));
    }
    let _ = writeln!(out, "  {}", format.tone("an example", Tone::Faint));
    out.push_str(&request_lines(request, format));
    let _ = writeln!(out, "  {} / {}", format.tone("- legacy", Tone::Bad), format.tone("+ engine", Tone::Good));
    out.push_str(&inline_diff(&with_end(legacy), &with_end(engine), format));
}

fn with_end(text: &str) -> String {
    format!("{}\n", escape_control(text).trim_end())
}
