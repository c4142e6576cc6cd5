//! The format of lines, and what happens to lines when the file cannot be written.

use std::io::Read;
use std::time::Duration;

use http::{Method, Version};
use serde_json::{Value, json};

use super::{AccessLog, AccessLogRecord, AccessLogSettings, LineFormat, LogFile, RequestHead, Text, combined, json};
use crate::limits::{ACCESS_LOG_TEXT_BYTES_MAX, Limits};

fn record(target: &[u8], user_agent: &[u8]) -> AccessLogRecord {
    let head = RequestHead {
        method: Method::GET,
        target: Text::copy(target),
        template: None,
        version: Version::HTTP_11,
        user_agent: Some(Text::copy(user_agent)),
        referer: None,
        forwarded_for: None,
    };
    let mut record = AccessLogRecord::new("127.0.0.1".parse().unwrap(), Some(head));
    record.ended = "2026-11-23T17:28:15.000123Z".parse().unwrap();
    record.duration = Duration::from_micros(1_234);
    record.status = Some(200);
    record
}

fn line(write: fn(&AccessLogRecord, &mut Vec<u8>), record: &AccessLogRecord) -> String {
    let mut bytes = Vec::new();
    write(record, &mut bytes);
    let text = String::from_utf8(bytes).expect("UTF-8");
    let line = text.strip_suffix('\n').expect("the line ends with a line break").to_owned();
    assert!(!line.chars().any(char::is_control), "{line:?}");
    line
}

fn json_line(record: &AccessLogRecord) -> Value {
    let line = line(json::write, record);
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn a_line_of_json_has_the_fields_of_the_reference_in_order() {
    let mut full = record(b"/a?b=1", b"curl");
    full.trace_id = Some(0x4bf9);
    full.first_byte = Some(Duration::from_micros(50));
    let shown = json_line(&full);
    let page = include_str!("../docs/access_log.md");
    let (_, section) = page.split_once("| field | what it is |").expect("the table");
    let (table, _) = section.split_once("\n\n").expect("its end");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    let names: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, rows.collect::<Vec<_>>());
    assert_eq!(shown["time"], "2026-11-23T17:28:15.000123Z");
    assert_eq!((shown["duration_ms"].as_f64(), shown["first_byte_ms"].as_f64()), (Some(1.234), Some(0.05)));
    assert_eq!(shown["trace_id"], "00000000000000000000000000004bf9");
    assert_eq!((&shown["route"], &shown["failure"]), (&Value::Null, &Value::Null));
    let unread = json_line(&AccessLogRecord::new("::1".parse().unwrap(), None));
    assert_eq!((&unread["client"], &unread["method"]), (&json!("::1"), &Value::Null));
}

#[test]
fn a_line_in_the_combined_format_begins_as_apaches_do() {
    let text = line(combined::write, &record(b"/a?b=1", b"curl"));
    let begins = "127.0.0.1 - - [23/Nov/2026:17:28:15 +0000] \"GET /a?b=1 HTTP/1.1\" 200 - \"-\" \"curl\" route=- ";
    assert!(text.starts_with(begins) && text.ends_with(" failure=-"), "{text}");
    let unread = line(combined::write, &AccessLogRecord::new("::1".parse().unwrap(), None));
    assert!(unread.contains("] \"-\" - - \"-\" \"-\" route=- "), "{unread}");
}

#[test]
fn the_combined_format_has_the_bytes_that_the_client_sent() {
    let mut record = record(b"/caf\xe9?token=\xff&b=\xc3\xa9", b"\xfe");
    let head = record.head.as_mut().unwrap();
    (head.referer, head.forwarded_for) = (Some(Text::copy(b"/\xa0bearer x")), Some(Text::copy(b"\x80")));
    let text = line(combined::write, &record);
    let line = r#""GET /caf\xe9?token=***&b=\xc3\xa9 HTTP/1.1" 200 - "/\xa0bearer x" "\xfe" route=-"#;
    assert!(text.contains(line) && text.contains(r#" forwarded_for="\x80" "#), "{text}");
}

#[test]
fn no_byte_of_a_client_leaves_its_field() {
    let mut random = fastrand::Rng::with_seed(7);
    let hostile =
        [&b"\"}\n{\"status\":200,\x1b[2J\\\"\x7f\xc2\x85\xff\xe2\x80\xa8"[..], b"\\", b"\"", b"\" 200 1 \"", b""];
    let some = (0..200).map(|_| (0..random.usize(0..40)).map(|_| random.u8(..)).collect::<Vec<u8>>());
    for bytes in hostile.iter().map(|bytes| bytes.to_vec()).chain(some) {
        let mut record = record(b"/", &bytes);
        let head = record.head.as_mut().unwrap();
        (head.referer, head.forwarded_for) = (Some(Text::copy(&bytes)), Some(Text::copy(&bytes)));
        record.failure = Some("client-gone".into());
        let shown = json_line(&record);
        assert_eq!(shown["user_agent"], String::from_utf8_lossy(&bytes).as_ref());
        assert_eq!((&shown["status"], &shown["failure"]), (&json!(200), &json!("client-gone")));
        let text = line(combined::write, &record);
        assert!(text.is_ascii() && text.ends_with(" failure=client-gone"), "{text}");
        // The only unescaped quotes are those around the request, the referer, the user agent, and `forwarded_for` if
        // it needs them.
        let mut quotes = 0;
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => assert!(bytes.next().is_some_and(|next| b"\"\\nrtx".contains(&next)), "{text}"),
                b'"' => quotes += 1,
                _ => {}
            }
        }
        assert!(quotes == 8 || quotes == 6, "{quotes}: {text}");
    }
}

#[test]
fn secret_parameters_are_replaced_and_long_texts_cut() {
    let mut secrets = record(b"/pay?amount=7&card_number=4111&token=abc#x", b"");
    secrets.head.as_mut().unwrap().referer = Some(Text::copy(b"https://a/?api_key=k1"));
    let shown = json_line(&secrets);
    assert_eq!(shown["target"], "/pay?amount=7&card_number=***&token=***#x");
    assert_eq!(shown["referer"], "https://a/?api_key=***");
    let text = line(combined::write, &secrets);
    assert!(!text.contains("4111") && !text.contains("abc") && !text.contains("k1"), "{text}");
    let long = vec![b'a'; ACCESS_LOG_TEXT_BYTES_MAX + 1];
    let shown = json_line(&record(b"/", &long));
    let user_agent = shown["user_agent"].as_str().unwrap();
    assert_eq!((user_agent.len(), user_agent.ends_with("a...")), (ACCESS_LOG_TEXT_BYTES_MAX + 3, true));
}

#[test]
fn secrets_in_nested_formats_and_parameters_of_the_path_are_replaced() {
    for (target, shown) in [
        ("/x?f=%7B%22password%22%3A%22hunter2%22%2C%22n%22%3A1%7D", "/x?f=%7B%22password%22:%22***%22%2C%22n%22:1%7D"),
        ("/x?f={\"password\":\"hunter2\"}", "/x?f={\"password\":\"***\"}"),
        ("/x?a=1;password=hunter%262&b=2", "/x?a=1;password=***&b=2"),
        ("/x?to=https%3A%2F%2Fa%2F%3Ftoken%3Dhunter2", "/x?to=https://a/%3Ftoken%3D***"),
        ("/x?to=%2Fa%3Fto%3D%252Fb%253Ftoken%253Dhunter2", "/x?to=/a%3Fto%3D/b%253Ftoken%253D***"),
        ("/search?q=red%20shoes&filter=%7B%22size%22%3A42%7D", "/search?q=red%20shoes&filter=%7B%22size%22%3A42%7D"),
    ] {
        assert_eq!(json_line(&record(target.as_bytes(), b""))["target"], shown);
    }
    let mut reset = record(b"/reset/hunter2?a=1", b"");
    let head = reset.head.as_mut().unwrap();
    (head.template, head.referer) = (Some("/reset/{token}".into()), Some(Text::copy(b"https://a/reset/hunter2#x")));
    let shown = json_line(&reset);
    assert_eq!((&shown["target"], &shown["referer"]), (&json!("/reset/***?a=1"), &json!("https://a/reset/***#x")));
    let text = line(combined::write, &reset);
    assert!(text.contains("\"GET /reset/***?a=1 HTTP/1.1\"") && !text.contains("hunter2"), "{text}");
    assert_eq!(reset.head.unwrap().redacted_path(), "/reset/***");
}

fn settings(file: &std::path::Path, sample: f64) -> AccessLogSettings {
    AccessLogSettings { file: LogFile::Path(file.to_owned()), format: LineFormat::Json, sample }
}

#[tokio::test]
async fn failures_are_logged_whatever_the_sample() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log");
    let log = AccessLog::start(&settings(&file, 0.0), &Limits::default()).unwrap();
    log.log(Box::new(record(b"/fine", b"")));
    let mut server_error = record(b"/error", b"");
    server_error.status = Some(500);
    let mut cut = record(b"/cut", b"");
    cut.failure = Some("legacy-reply-cut".into());
    [server_error, cut].into_iter().for_each(|record| log.log(Box::new(record)));
    log.flush(Duration::from_secs(60)).await;
    let text = std::fs::read_to_string(&file).unwrap();
    let targets: Vec<Value> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["target"].clone()).collect();
    assert_eq!(targets, [json!("/error"), json!("/cut")]);
}

/// Nobody reads the pipe, and it was renamed, as a program that rotates the log does: the log creates a file with the
/// old name.
#[tokio::test]
async fn a_log_that_hangs_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("log");
    let _reader = pipe_and_reader(&name);
    let limits = Limits { access_log_lines_max: 10_000, ..Limits::default() };
    let log = AccessLog::start(&settings(&name, 1.0), &limits).unwrap();
    // More lines than a pipe holds.
    for number in 0..1_000 {
        log.log(Box::new(record(format!("/{number}").as_bytes(), b"")));
    }
    std::fs::rename(&name, dir.path().join("moved")).unwrap();
    log.reopen();
    log.flush(Duration::from_secs(60)).await;
    let text = std::fs::read_to_string(&name).unwrap();
    assert!(text.ends_with('\n'), "{text:?}");
    let last = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).next_back().unwrap();
    assert_eq!(last["target"], "/999");
}

/// Makes a pipe, and opens it for reading without blocking.
fn pipe_and_reader(pipe: &std::path::Path) -> std::fs::File {
    rustix::fs::mkfifoat(rustix::fs::CWD, pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let refused = AccessLog::start(&settings(pipe, 1.0), &Limits::default());
    assert!(refused.is_err(), "a pipe without a reader is refused at once");
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true), nonblocking).open(pipe).unwrap()
}

/// A pipe that nobody reads takes some bytes and then no more.
#[tokio::test]
async fn a_file_that_hangs_delays_nobody_and_costs_lines_beyond_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let limits = Limits { access_log_lines_max: 50, ..Limits::default() };
    let mut reader = pipe_and_reader(&pipe);
    let log = AccessLog::start(&settings(&pipe, 1.0), &limits).unwrap();
    let began = std::time::Instant::now();
    for number in 0..20_000 {
        log.log(Box::new(record(format!("/{number}").as_bytes(), b"")));
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(log.overflowed.load(std::sync::atomic::Ordering::Relaxed) > 0, "more lines than a pipe and the queue hold");
    // Once somebody reads, whole lines arrive again.
    let mut read = Vec::new();
    let flush = log.flush(Duration::from_secs(60));
    let reading = async {
        loop {
            let mut chunk = [0; 4_096];
            match reader.read(&mut chunk) {
                Ok(bytes) => read.extend_from_slice(&chunk[..bytes]),
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    tokio::select! {
        () = flush => {}
        () = reading => {}
    }
    let mut rest = Vec::new();
    let _empty = reader.read_to_end(&mut rest);
    read.extend(rest);
    let text = String::from_utf8(read).unwrap();
    assert!(text.ends_with('\n'), "{text:?}");
    text.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).unwrap()));
    assert!(text.lines().count() < 20_000);
}
