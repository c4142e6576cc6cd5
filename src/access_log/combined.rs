//! A line in Apache's Combined Log Format, with more fields at its end.
//!
//! Always true: a line is printable ASCII; within it a client's quotes and backslashes are preceded by a backslash, and
//! every other byte that is not printable is `\xHH` (or `\n`, `\r`, `\t`), as Apache writes them.

use super::record::{AccessLogRecord, Text, version_name};
use super::text::{milliseconds, redacted_agent_bytes, redacted_bytes};

/// Appends the line for one record, with its line break.
pub(super) fn write(record: &AccessLogRecord, to: &mut Vec<u8>) {
    // Destructured whole, so that a new field does not compile until it is written.
    let AccessLogRecord {
        ended,
        duration,
        client,
        head,
        request_bytes,
        trace_id,
        route,
        state,
        rung,
        decision,
        reason,
        arm,
        service,
        connect,
        first_byte,
        status,
        reply_bytes,
        failure,
    } = record;
    let time = ended.strftime("%d/%b/%Y:%H:%M:%S +0000");
    push(to, &format!("{} - - [{time}] ", client.to_canonical()));
    match head {
        Some(head) => {
            let (method, target) = (format!("{} ", head.method), redacted_bytes(head, &head.target));
            quoted(&[method.as_bytes(), &target, b" HTTP/", version_name(head.version).as_bytes()].concat(), to);
        }
        None => push(to, "\"-\""),
    }
    push(to, &format!(" {} ", status.map_or("-".to_owned(), |status| status.to_string())));
    push(to, &if *reply_bytes == 0 { "-".to_owned() } else { reply_bytes.to_string() });
    let head = head.as_ref();
    let referer = head.and_then(|head| Some(redacted_bytes(head, head.referer.as_ref()?)));
    let agent = head.and_then(|head| Some(redacted_agent_bytes(head.user_agent.as_ref()?)));
    for text in [referer.as_deref(), agent.as_deref()] {
        push(to, " ");
        quoted(text.unwrap_or(b"-"), to);
    }
    let forwarded_for = head.and_then(|head| head.forwarded_for.as_ref()).map(Text::bytes);
    let trace_id = trace_id.map(|trace| format!("{trace:032x}"));
    let (request_bytes, duration) = (request_bytes.to_string(), milliseconds(*duration));
    let (connect, first_byte) = (connect.map(milliseconds), first_byte.map(milliseconds));
    let fields: [(&str, Option<&str>); 12] = [
        ("route", route.as_ref().map(|route| route.as_str())),
        ("state", state.map(|state| state.as_str())),
        ("rung", rung.map(|rung| rung.as_str())),
        ("decision", *decision),
        ("reason", *reason),
        ("arm", *arm),
        ("request_bytes", Some(request_bytes.as_str())),
        ("duration_ms", Some(duration.as_str())),
        ("service", service.as_ref().map(|service| service.as_str())),
        ("connect_ms", connect.as_deref()),
        ("first_byte_ms", first_byte.as_deref()),
        ("trace_id", trace_id.as_deref()),
    ];
    for (name, value) in fields {
        field(name, value.map(str::as_bytes), to);
    }
    field("forwarded_for", forwarded_for, to);
    field("failure", failure.as_deref().map(str::as_bytes), to);
    to.push(b'\n');
}

fn push(to: &mut Vec<u8>, text: &str) {
    to.extend_from_slice(text.as_bytes());
}

/// Appends ` NAME=VALUE`.
fn field(name: &str, value: Option<&[u8]>, to: &mut Vec<u8>) {
    push(to, &format!(" {name}="));
    match value {
        Some(value) if value.iter().copied().all(is_plain) && !value.is_empty() => to.extend_from_slice(value),
        Some(value) => quoted(value, to),
        None => push(to, "-"),
    }
}

/// Whether a byte needs no quotes.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':' | b'/')
}

fn quoted(bytes: &[u8], to: &mut Vec<u8>) {
    to.push(b'"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => to.extend_from_slice(&[b'\\', byte]),
            b'\n' => push(to, "\\n"),
            b'\r' => push(to, "\\r"),
            b'\t' => push(to, "\\t"),
            b' '..=b'~' => to.push(byte),
            _ => push(to, &format!("\\x{byte:02x}")),
        }
    }
    to.push(b'"');
}
