//! `diffs --try` and `diffs --suggest`: what other rules would make of the samples of a route.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use super::client::{CallError, Client, component};
use super::diffs::shown_difference;
use super::format::{Formatter, Tone, count, counted, escape_control};
use super::output::Output;
use crate::admin::types::{
    FileProblem, HiddenPlace, NotJudgedSamples, StricterRuleRow, SuggestedRuleRow, SuggestedRules, TriedGroup,
    TriedRules, TriedSamples, TryRules, UnexplainedPlace,
};
use crate::limits::FLAG_FILE_BYTES_MAX;

/// Rules to be tried.
pub(crate) struct Trial<'a> {
    pub route: &'a str,
    /// On the samples of the route's candidate.
    pub candidate: bool,
    pub file: &'a Path,
}

pub(crate) fn try_rules(
    client: &Client,
    Trial { route, candidate, file }: &Trial<'_>,
    limit: usize,
    format: Formatter,
) -> Result<Output, CallError> {
    let rules = read(file)?;
    let path = format!("/api/v2/routes/{}/diffs/try{}", component(route), of_candidate(*candidate));
    let (tried, json) = client.post::<TriedRules>(&path, &TryRules { rules })?;
    Ok(Output { text: text(&tried, limit, format), json, is_ok: true })
}

pub(crate) fn suggest(client: &Client, route: &str, candidate: bool, format: Formatter) -> Result<Output, CallError> {
    let path = format!("/api/v2/routes/{}/diffs/suggestions{}", component(route), of_candidate(candidate));
    let (suggested, json) = client.get::<SuggestedRules>(&path)?;
    Ok(Output { text: suggestions(&suggested, format), json, is_ok: true })
}

/// A server of an earlier version does not know the parameter.
fn of_candidate(candidate: bool) -> &'static str {
    if candidate { "?candidate=true" } else { "" }
}

/// The text of a file, which is no larger than a flag file.
fn read(file: &Path) -> Result<String, CallError> {
    let failed = |what: String| {
        CallError::Failed(
            format!("{}: {what}", file.display()),
            "name a file with the `compare:` of a route".to_owned(),
        )
    };
    let opened = std::fs::File::open(file).map_err(|error| failed(error.to_string()))?;
    let mut text = String::new();
    opened.take(FLAG_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > FLAG_FILE_BYTES_MAX {
        return Err(failed(format!("larger than {FLAG_FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// What the samples would look like.
pub(crate) fn text(tried: &TriedRules, limit: usize, format: Formatter) -> String {
    let mut out = format!(
        "{}  {} pairs, {} differ\n",
        format.tone(&tried.route, Tone::Strong),
        count(tried.pairs),
        count(tried.mismatched)
    );
    for warning in &tried.warnings {
        let FileProblem { line, column, message, hint, .. } = warning;
        let position = match (line, column) {
            (Some(line), Some(column)) => format!("{line}:{column}: "),
            _ => String::new(),
        };
        let hint = hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
        let text = escape_control(&format!("{position}{message}{hint}"));
        let _ = writeln!(out, "{} {text}", format.tone("warning:", Tone::Warn));
    }
    match tried.samples.kept {
        0 => out.push_str("no sample has been kept: nothing can be judged again\n"),
        _ => {
            let _ = writeln!(
                out,
                "under these rules, of {}: {}",
                samples(tried.samples.kept),
                outcome(tried.samples, format)
            );
        }
    }
    for (n, group) in tried.groups.iter().take(limit).enumerate() {
        out.push('\n');
        self::group(&mut out, n + 1, group, format);
    }
    if tried.groups.len() > limit {
        let _ = writeln!(out, "\n{} more groups (--limit)", count((tried.groups.len() - limit) as u64));
    }
    out.push_str(
        "\nnothing was changed. Samples are kept only of pairs that differ: rules that compare more may find \
         differences in pairs that are equal now\n",
    );
    out
}

fn samples(n: u64) -> String {
    counted(n, "sample")
}

fn outcome(samples: TriedSamples, format: Formatter) -> String {
    let TriedSamples { kept: _, equal, differ, not_judged } = samples;
    let toned = |n: u64, what: &str, tone: Tone| (n > 0).then(|| format.tone(format!("{} {what}", count(n)), tone));
    let parts = [
        toned(equal, "equal", Tone::Good),
        toned(differ, if differ == 1 { "differs" } else { "differ" }, Tone::Bad),
        toned(not_judged, "cannot be judged again", Tone::Warn),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn group(out: &mut String, n: usize, group: &TriedGroup, format: Formatter) {
    let _ = writeln!(
        out,
        "{}  {}  {}",
        format.tone(format!("#{n}"), Tone::Strong),
        counted(group.pairs, "pair"),
        format.tone(escape_control(&group.fingerprint), Tone::Faint)
    );
    let _ = writeln!(out, "  {}", format.tone("before: these differ", Tone::Faint));
    for difference in &group.before {
        let path = escape_control(&difference.path);
        let _ = writeln!(out, "    {path} {}", difference.kind.as_str());
    }
    let after = format.tone("after:", Tone::Faint);
    let _ = writeln!(out, "  {after} of {}: {}", samples(group.samples.kept), outcome(group.samples, format));
    for (rule, n) in &group.equal_by {
        let _ = writeln!(out, "    made equal by {} in {}", escape_control(rule), samples(*n));
    }
    for (title, tone, differences) in
        [("differs still:", Tone::Warn, &group.still), ("differs in addition:", Tone::Bad, &group.new)]
    {
        if !differences.is_empty() {
            let _ = writeln!(out, "    {}", format.tone(title, tone));
            differences.iter().for_each(|d| out.push_str(&indented(&shown_difference(d, format), "    ")));
        }
    }
    for NotJudgedSamples { reason, samples: n } in &group.not_judged {
        let _ = writeln!(out, "    not judged again, in {}: {}", samples(*n), escape_control(reason));
    }
}

/// The rules that are proposed, what each would hide, and what they leave.
pub(crate) fn suggestions(suggested: &SuggestedRules, format: Formatter) -> String {
    let SuggestedRules {
        route,
        pairs,
        mismatched,
        rules,
        added,
        stricter,
        stricter_rules,
        unexplained,
        samples: judged,
    } = suggested;
    let (route, pairs, mismatched) = (format.tone(route, Tone::Strong), count(*pairs), count(*mismatched));
    let mut out = format!("{route}  {pairs} pairs, {mismatched} differ\n");
    match (judged.kept, added.is_empty()) {
        (0, _) => out.push_str("no sample has been kept: nothing can be explained\n"),
        (_, true) => out.push_str("no rule is proposed\n"),
        (_, false) => {
            let n = counted(added.len() as u64, "more rule");
            let _ = writeln!(out, "with {n}, of {}: {}\n", samples(judged.kept), outcome(*judged, format));
            let _ = writeln!(out, "{}", escape_control(rules).trim_end());
        }
    }
    for SuggestedRuleRow { rule, hides, samples: n, pairs, warning } in added {
        let lines: Vec<&str> = rule.lines().skip(1).map(str::trim).collect();
        let rule = format.tone(escape_control(&lines.join(" ")), Tone::Strong);
        let _ = writeln!(out, "\n{rule}\n  hides in {} (about {}):", samples(*n), counted(*pairs, "pair"));
        for HiddenPlace { examples, .. } in hides {
            examples.iter().for_each(|example| out.push_str(&indented(&shown_difference(example, format), "  ")));
        }
        if let Some(warning) = warning {
            let _ = writeln!(out, "  {} {}", format.tone("warning:", Tone::Warn), escape_control(warning));
        }
    }
    if !unexplained.is_empty() {
        let _ =
            writeln!(out, "\n{}", format.tone("not explained: these are defects, until shown otherwise", Tone::Bad));
    }
    for UnexplainedPlace { path, kind, samples: n, pairs, why, example } in unexplained {
        let place = format.tone(escape_control(path), Tone::Strong);
        let (n, pairs) = (samples(*n), counted(*pairs, "pair"));
        let _ = writeln!(out, "  {place} {}, in {n} (about {pairs}): {}", kind.as_str(), escape_control(why));
        if let Some(example) = example {
            out.push_str(&indented(&shown_difference(example, format), "  "));
        }
    }
    if !stricter.is_empty() {
        let title = "stricter rules under which no sample differs in more places:";
        let _ = writeln!(out, "\n{}", format.tone(title, Tone::Strong));
        for StricterRuleRow { compares, samples: n } in stricter {
            let _ = writeln!(out, "  {}, equal in {}", escape_control(compares), samples(*n));
        }
        let text = escape_control(stricter_rules);
        let _ = writeln!(out, "with all of them, and the evidence counted from zero:\n\n{}", text.trim_end());
    }
    out.push_str("\nnothing was changed\n");
    out
}

fn indented(text: &str, by: &str) -> String {
    text.lines().map(|line| format!("{by}{line}\n")).collect()
}
