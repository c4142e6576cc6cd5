//! `legacy`: who still calls a service, what may call it, and since when nothing has called it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use jiff::{Span, SpanRelativeTo, Timestamp, Unit};

use super::client::{CallError, Client, component};
use super::format::{Formatter, TableCell, Tone, ago, counted, duration_text, escape_control, plain};
use super::output::Output;
use crate::admin::types::{ServiceCallerRow, ServiceCallers, UNDER_WAY};

/// How long another process that uses the store is waited for: it says each minute up to when its calls are stored, and
/// counts as gone if it has not done so for 150 s.
const OTHERS_WITHIN: Duration = Duration::from_secs(155);
/// How often it is asked again meanwhile.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// How many callers the text shows.
const SHOWN_MAX: usize = 50;

/// Parses the value of `--unused-for`: `30d`, `12h`, `90 minutes`. A day has 24 hours.
///
/// # Errors
/// It is no duration, or not a positive one.
pub(crate) fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    let span: Span = text.parse().map_err(|_| "expected a duration such as 30d or 12h".to_owned())?;
    let seconds = span.total((Unit::Second, SpanRelativeTo::days_are_24_hours())).map_err(|error| error.to_string())?;
    let lasting = Duration::try_from_secs_f64(seconds).map_err(|_| "expected a positive duration".to_owned())?;
    if lasting.is_zero() { Err("expected a positive duration".to_owned()) } else { Ok(lasting) }
}

pub(crate) fn show(
    client: &Client,
    service: &str,
    unused_for: Option<Duration>,
    format: Formatter,
) -> Result<Output, CallError> {
    let path = format!("/api/v2/services/{}/callers", component(service));
    let (mut view, mut json) = client.get::<ServiceCallers>(&path)?;
    let (asked_at, end) = (view.now, Instant::now() + OTHERS_WITHIN);
    if unused_for.is_some() && view.known_until < asked_at {
        eprintln!(
            "another process uses the store: this waits until its calls are known, up to {} s",
            OTHERS_WITHIN.as_secs()
        );
    }
    while unused_for.is_some() && view.known_until < asked_at && Instant::now() < end {
        std::thread::park_timeout(POLL_EVERY);
        (view, json) = client.get::<ServiceCallers>(&path)?;
    }
    let is_ok = unused_for.is_none_or(|wanted| is_unused_for(&view, wanted));
    Ok(Output { text: text(&view, unused_for, format), json, is_ok })
}

/// For how long nothing has called, up to when all calls are known; `None` if they are not.
fn quiet_for(view: &ServiceCallers) -> Option<Duration> {
    let since = view.quiet_since?;
    Some(Duration::try_from(view.known_until.duration_since(since)).unwrap_or_default())
}

fn is_unused_for(view: &ServiceCallers, wanted: Duration) -> bool {
    quiet_for(view).is_some_and(|quiet| quiet >= wanted)
}

pub(crate) fn text(view: &ServiceCallers, unused_for: Option<Duration>, format: Formatter) -> String {
    let now = view.now;
    let mut out = format!("{}\n\n", format.tone(escape_control(&view.service), Tone::Strong));
    let quiet = match (quiet_for(view), view.last_call) {
        (None, _) => "calls were never noted".to_owned(),
        (Some(quiet), Some(last)) if view.quiet_since == Some(last) => {
            format!("last called {} ago", duration_text(quiet.as_secs_f64()))
        }
        (Some(quiet), last) => {
            let before = last.map_or("none is known from before".to_owned(), |last| {
                format!("the last one that is known was {}", ago(last, now))
            });
            format!("no call for {}; {before}", duration_text(quiet.as_secs_f64()))
        }
    };
    let _ = writeln!(out, "{quiet}");
    if let Some(wanted) = unused_for {
        let (word, tone) = match is_unused_for(view, wanted) {
            true => ("yes", Tone::Good),
            false => ("no", Tone::Bad),
        };
        let wanted = duration_text(wanted.as_secs_f64());
        let _ = writeln!(out, "unused for {wanted}: {}", format.tone(word, tone));
    }
    for unknown in &view.unknown {
        let lasting = duration_text(unknown.to.duration_since(unknown.from).as_secs_f64());
        let _ = writeln!(
            out,
            "{} a process was killed: calls of up to {lasting} before its end are not known",
            ago(unknown.from, now)
        );
    }
    if view.known_until < view.now {
        let lasting = duration_text(view.now.duration_since(view.known_until).as_secs_f64());
        let _ = writeln!(out, "another process uses the store: its calls of the last {lasting} are not known yet");
    }
    if view.may_call.is_empty() {
        out.push_str(
            "\nby the files, the plans in force and the runs that have not ended, nothing calls it any more\n",
        );
    } else {
        let list: String = view.may_call.iter().map(|line| format!("  {}\n", escape_control(line))).collect();
        let _ = write!(
            out,
            "\nby the files, the plans in force and the runs that have not ended, these may call it:\n{list}"
        );
    }
    if !view.callers.is_empty() {
        let rows = view.callers.iter().take(SHOWN_MAX).map(|caller| row(caller, now)).collect();
        out.push('\n');
        out.push_str(&format.table(&["LAST CALL", "FIRST CALL", "FROM", "CLIENT", "PATH"], &[], rows));
        let more = view.callers.len().saturating_sub(SHOWN_MAX);
        if more > 0 {
            let _ = writeln!(out, "\nand {} that called earlier: see --json", counted(more as u64, "caller"));
        }
    }
    out
}

fn row(caller: &ServiceCallerRow, now: Timestamp) -> Vec<TableCell> {
    let client = if caller.client.is_empty() { "-".to_owned() } else { escape_control(&caller.client) };
    let path = match caller.source == UNDER_WAY {
        true => "not ended: client and path are noted at its end".to_owned(),
        false => escape_control(&caller.path),
    };
    vec![
        plain(ago(caller.last, now)),
        plain(ago(caller.first, now)),
        (escape_control(&caller.source), Tone::Strong),
        plain(client),
        plain(path),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn view(last_call: Option<i64>, quiet_since: Option<i64>) -> ServiceCallers {
        ServiceCallers {
            service: "shop".into(),
            may_call: vec!["route orders (dark)".into()],
            callers: Vec::new(),
            last_call: last_call.map(at),
            quiet_since: quiet_since.map(at),
            now: at(1_000_000),
            known_until: at(1_000_000),
            unknown: Vec::new(),
        }
    }

    #[test]
    fn a_duration_has_a_unit_and_is_positive() {
        assert_eq!(parse_positive_duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_positive_duration("90 minutes"), Ok(Duration::from_secs(5_400)));
        for wrong in ["", "30", "-1h", "0s", "soon"] {
            assert!(parse_positive_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_service_is_unused_only_for_as_long_as_it_is_known() {
        let day = Duration::from_secs(86_400);
        assert!(is_unused_for(&view(None, Some(0)), day));
        assert!(!is_unused_for(&view(Some(999_000), Some(999_000)), day));
        assert!(!is_unused_for(&view(None, None), Duration::from_secs(1)), "never noted is not unused");
    }

    #[test]
    fn the_text_says_since_when_nothing_calls_and_what_may() {
        let shown = text(&view(Some(1_000), Some(913_600)), Some(Duration::from_secs(86_400)), Formatter(false));
        assert!(shown.contains("no call for 24 h; the last one that is known was"), "{shown}");
        assert!(shown.contains("unused for 24 h: yes"), "{shown}");
        assert!(shown.contains("  route orders (dark)\n"), "{shown}");
    }

    #[test]
    fn a_row_without_client_and_path_says_why() {
        let caller = |source: &str| ServiceCallerRow {
            source: source.to_owned(),
            client: String::new(),
            path: String::new(),
            first: at(1_000),
            last: at(2_000),
        };
        let callers = vec![caller(UNDER_WAY), caller("step w.charge")];
        let shown = text(&ServiceCallers { callers, ..view(Some(2_000), Some(2_000)) }, None, Formatter(false));
        let line = |source: &str| shown.lines().find(|line| line.contains(source)).unwrap().trim_end().to_owned();
        assert!(line("under way").ends_with("not ended: client and path are noted at its end"), "{shown}");
        assert!(line("step w.charge").ends_with('-'), "{shown}");
    }
}
