//! `processes`: the processes that share the store, one row each.

use jiff::Timestamp;

use super::client::{CallError, Client};
use super::format::{Formatter, TableCell, Tone, ago, duration_text, escape_control, plain};
use super::output::Output;
use crate::admin::types::{FilesComparison, ProcessRow};

/// A machine's clock that is this far from the store's is coloured.
const CLOCK_WRONG_MS: u64 = 1_000;

pub(crate) fn show(client: &Client, format: Formatter) -> Result<Output, CallError> {
    let (processes, json) = client.get::<Vec<ProcessRow>>("/api/v2/processes")?;
    Ok(Output { text: text(&processes, Timestamp::now(), format), json, is_ok: true })
}

pub(crate) fn text(processes: &[ProcessRow], now: Timestamp, format: Formatter) -> String {
    let newest = processes.iter().filter_map(|process| process.newest_flip).max();
    let header = ["PROCESS", "VERSION", "STARTED", "PROXY", "API", "FILES", "FLIP", "CLOCK", "LEASE"];
    format.table(&header, &[6, 7, 8], processes.iter().map(|process| row(process, newest, now)).collect())
}

fn row(process: &ProcessRow, newest: Option<u64>, now: Timestamp) -> Vec<TableCell> {
    let ProcessRow {
        name,
        is_this,
        host: _,
        pid: _,
        version,
        started,
        listen,
        admin,
        edition,
        files,
        newest_flip,
        clock_ahead_ms,
        lease_left_ms,
    } = process;
    let text = |text: &str| if text.is_empty() { plain("-") } else { plain(escape_control(text)) };
    let this = if *is_this { " (this one)" } else { "" };
    let files = match files {
        FilesComparison::Same if *is_this => plain(escape_control(edition)),
        FilesComparison::Same => (format!("{} as here", escape_control(edition)), Tone::Good),
        FilesComparison::Other => (format!("{}, OTHERS", escape_control(edition)), Tone::Bad),
        FilesComparison::Unknown => ("not known".to_owned(), Tone::Warn),
    };
    let flip = match newest_flip {
        // A store of one process.
        None if lease_left_ms.is_none() => plain("-"),
        None => ("not known".to_owned(), Tone::Warn),
        Some(number) if *newest_flip < newest => (format!("{number}, BEHIND"), Tone::Bad),
        Some(number) => plain(number.to_string()),
    };
    let clock = match clock_ahead_ms {
        None => plain("-"),
        Some(ahead) => {
            let amount = duration_text(std::time::Duration::from_millis(ahead.unsigned_abs()).as_secs_f64());
            let tone = if ahead.unsigned_abs() < CLOCK_WRONG_MS { Tone::Plain } else { Tone::Warn };
            (format!("{}{amount}", if *ahead < 0 { '-' } else { '+' }), tone)
        }
    };
    let left = lease_left_ms.map(|left| std::time::Duration::from_millis(left).as_secs_f64());
    vec![
        (format!("{}{this}", escape_control(name)), Tone::Strong),
        text(version),
        plain(started.map_or_else(|| "-".to_owned(), |started| ago(started, now))),
        text(&listen.join(", ")),
        text(admin),
        files,
        flip,
        clock,
        plain(left.map_or_else(|| "-".to_owned(), |left| format!("{} left", duration_text(left)))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_says_where_it_is_and_whether_its_files_are_the_same() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let this = ProcessRow {
            name: "process 7 on a".into(),
            is_this: true,
            host: "a".into(),
            pid: 7,
            version: "1.2.3".into(),
            started: Some("2026-03-01T11:59:00Z".parse().unwrap()),
            listen: vec!["10.0.0.1:80".into(), "10.0.0.1:81".into()],
            admin: "127.0.0.1:8081".into(),
            edition: "0123456789ab".into(),
            files: FilesComparison::Same,
            newest_flip: Some(12),
            clock_ahead_ms: Some(-7_000),
            lease_left_ms: Some(12_000),
        };
        let other = ProcessRow {
            name: "process 8 on b".into(),
            is_this: false,
            edition: "ba9876543210".into(),
            files: FilesComparison::Other,
            newest_flip: Some(9),
            clock_ahead_ms: Some(3),
            ..this.clone()
        };
        let same = ProcessRow { name: "process 9 on c".into(), files: FilesComparison::Same, ..other.clone() };
        let older = ProcessRow {
            name: "process 10".into(),
            version: String::new(),
            started: None,
            listen: Vec::new(),
            admin: String::new(),
            edition: String::new(),
            files: FilesComparison::Unknown,
            newest_flip: None,
            clock_ahead_ms: None,
            ..other.clone()
        };
        let shown = text(&[this, other, same, older], now, Formatter(false));
        let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
        let cells = |at: usize| lines[at].iter().copied().filter(|cell| !cell.is_empty()).collect::<Vec<_>>();
        let first = ["process 7 on a (this one)", "1.2.3", "60 s ago", "10.0.0.1:80, 10.0.0.1:81", "127.0.0.1:8081"];
        assert_eq!(cells(1)[..5], first, "{shown}");
        assert_eq!(cells(1)[5..], ["0123456789ab", "12", "-7 s", "12 s left"], "{shown}");
        assert_eq!(cells(2)[5..], ["ba9876543210, OTHERS", "9, BEHIND", "+3 ms", "12 s left"], "{shown}");
        assert_eq!(cells(3)[5], "ba9876543210 as here", "{shown}");
        assert_eq!(cells(4), ["process 10", "-", "-", "-", "-", "not known", "not known", "-", "12 s left"], "{shown}");
    }
}
