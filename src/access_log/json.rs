//! A line of JSON.
//!
//! Always true: a line is one JSON object in UTF-8 with every field, `null` where there is no value; it contains no
//! control character, not even DEL or one of the range U+0080 to U+009F, which some terminals obey.

use super::record::{AccessLogRecord, Text, version_name};
use super::text::{lossy, milliseconds, redacted, redacted_agent};

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
    let head = head.as_ref();
    let optional = |text: Option<&Text>| text.map(|text| lossy(text).into_owned());
    let referer = head.and_then(|head| Some(redacted(head, head.referer.as_ref()?)));
    let mut line = Line { to, is_first: true };
    line.text("time", Some(&format!("{ended:.6}")));
    line.text("client", Some(&client.to_canonical().to_string()));
    line.text("forwarded_for", optional(head.and_then(|head| head.forwarded_for.as_ref())).as_deref());
    line.text("method", head.map(|head| head.method.as_str()));
    line.text("target", head.map(|head| redacted(head, &head.target)).as_deref());
    line.text("http", head.map(|head| version_name(head.version)));
    line.text("route", route.as_ref().map(|route| route.as_str()));
    line.text("state", state.map(|state| state.as_str()));
    line.text("rung", rung.map(|rung| rung.as_str()));
    line.text("decision", *decision);
    line.text("reason", *reason);
    line.text("arm", *arm);
    line.number("status", status.map(|status| status.to_string()));
    line.number("reply_bytes", Some(reply_bytes.to_string()));
    line.number("request_bytes", Some(request_bytes.to_string()));
    line.number("duration_ms", Some(milliseconds(*duration)));
    line.text("service", service.as_ref().map(|service| service.as_str()));
    line.number("connect_ms", connect.map(milliseconds));
    line.number("first_byte_ms", first_byte.map(milliseconds));
    line.text("trace_id", trace_id.map(|trace| format!("{trace:032x}")).as_deref());
    let agent = head.and_then(|head| Some(redacted_agent(head.user_agent.as_ref()?)));
    line.text("user_agent", agent.as_deref());
    line.text("referer", referer.as_deref());
    line.text("failure", failure.as_deref());
    to.extend_from_slice(b"}\n");
}

struct Line<'a> {
    to: &'a mut Vec<u8>,
    is_first: bool,
}

impl Line<'_> {
    fn key(&mut self, key: &str) {
        self.to.extend_from_slice(if std::mem::take(&mut self.is_first) { b"{\"" } else { b",\"" });
        self.to.extend_from_slice(key.as_bytes());
        self.to.extend_from_slice(b"\":");
    }
    fn number(&mut self, key: &str, number: Option<String>) {
        self.key(key);
        self.to.extend_from_slice(number.as_deref().unwrap_or("null").as_bytes());
    }
    fn text(&mut self, key: &str, text: Option<&str>) {
        self.key(key);
        match text {
            Some(text) => string(text, self.to),
            None => self.to.extend_from_slice(b"null"),
        }
    }
}

fn string(text: &str, to: &mut Vec<u8>) {
    to.push(b'"');
    for c in text.chars() {
        match c {
            '"' => to.extend_from_slice(b"\\\""),
            '\\' => to.extend_from_slice(b"\\\\"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                to.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
            }
            c => to.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    to.push(b'"');
}
