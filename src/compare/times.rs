//! Parses times and durations as bodies and rules write them.

use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use serde_json::Value;

/// Parses a duration of a rule (`2s`, `500ms`, `1m30s`); returns nanoseconds.
pub(super) fn duration(text: &str) -> Option<i128> {
    let span: jiff::SignedDuration = text.trim().parse().ok()?;
    (!span.is_negative()).then(|| span.as_nanos())
}

/// Whether two times are written in the same form and differ by no more than this. A client that reads one form does
/// not read another: seconds for milliseconds, or a time without its zone, are a difference however near the times are.
pub(super) fn are_within(legacy: &Value, engine: &Value, by: i128) -> bool {
    let (Some((a, form)), Some((b, other))) = (instant(legacy), instant(engine)) else { return false };
    form == other && (a - b).abs() <= by
}

/// Whether two texts are times that differ by no more than this.
pub(super) fn texts_are_within(a: &str, b: &str, by: i128) -> bool {
    are_within(&value_of_text(a), &value_of_text(b), by)
}

/// A part of a text as a value of which the time is read: a number if it has only digits.
pub(super) fn value_of_text(text: &str) -> Value {
    let text = text.trim();
    let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    number.map_or_else(|| Value::from(text), Value::from)
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeForm {
    /// As RFC 3339 says, or without its time of day or its zone.
    Rfc3339 {
        has_time: bool,
        has_zone: bool,
        /// A blank, and no `T`, between date and time.
        has_blank: bool,
    },
    /// As mails and HTTP write it.
    Rfc2822,
    Seconds,
    Milliseconds,
}

/// Parses a point in time: RFC 3339, with or without a zone, an HTTP date, or a number of seconds (of milliseconds from
/// 1e11 on). Returns nanoseconds since 1970, and the form.
pub(super) fn instant(value: &Value) -> Option<(i128, TimeForm)> {
    match value {
        Value::String(text) => {
            let text = text.trim();
            let form =
                |has_zone| TimeForm::Rfc3339 { has_time: text.contains(':'), has_zone, has_blank: text.contains(' ') };
            if let Ok(at) = text.parse::<jiff::Timestamp>() {
                return Some((at.as_nanosecond(), form(true)));
            }
            if let Ok(at) = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text) {
                return Some((at.as_nanosecond(), TimeForm::Rfc2822));
            }
            // Computed without a timestamp, because the last 26 hours of the year 9999 have none.
            let (civil, offset) = match Pieces::parse(text) {
                Ok(pieces) if pieces.offset().is_some() => {
                    let civil = DateTime::from_parts(pieces.date(), pieces.time()?);
                    (civil, Some(pieces.to_numeric_offset()?.seconds()))
                }
                Ok(_) | Err(_) => (text.parse().ok()?, None),
            };
            let since_1970 = civil.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0));
            let nanos = since_1970.as_nanos() - i128::from(offset.unwrap_or(0)) * 1_000_000_000;
            Some((nanos, form(offset.is_some())))
        }
        Value::Number(number) => {
            let number = number.as_f64()?;
            let is_millis = number.abs() >= 1e11;
            let seconds = if is_millis { number / 1e3 } else { number };
            let form = if is_millis { TimeForm::Milliseconds } else { TimeForm::Seconds };
            (seconds.abs() < 1e15).then_some(((seconds * 1e9) as i128, form))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_read_in_every_common_form() {
        let instant = |value: &Value| super::instant(value).map(|(at, _)| at);
        let at = instant(&json!("2026-01-02T03:04:05Z")).unwrap();
        for same in ["2026-01-02T04:04:05+01:00", "Fri, 02 Jan 2026 03:04:05 GMT", "2026-01-02T03:04:05.000"] {
            assert_eq!(instant(&json!(same)), Some(at), "{same}");
        }
        assert_eq!(instant(&json!(1_767_323_045)), Some(at));
        assert_eq!(instant(&json!(1_767_323_045_000_i64)), Some(at));
        assert_eq!(instant(&json!("soon")), None);
        let last = |text: &str| instant(&json!(text)).unwrap();
        assert_eq!(last("9999-12-31T23:59:59Z") - last("9999-12-30T21:59:59Z"), 26 * 3_600 * 1_000_000_000);
        assert_eq!(last("9999-12-31T23:59:59+01:00"), last("9999-12-31T22:59:59"));
        assert_eq!(duration("2s"), Some(2_000_000_000));
        assert_eq!(duration("500ms"), Some(500_000_000));
        assert_eq!(duration("-1s"), None);
        assert_eq!(duration("two"), None);
    }

    #[test]
    fn times_in_another_form_differ() {
        let forms = [
            json!("2026-01-02T03:04:05Z"),
            json!("2026-01-02T03:04:05"),
            json!("2026-01-02 03:04:05Z"),
            json!("Fri, 02 Jan 2026 03:04:05 GMT"),
            json!(1_767_323_045),
            json!(1_767_323_045_000_i64),
        ];
        for (n, a) in forms.iter().enumerate() {
            for (m, b) in forms.iter().enumerate() {
                assert_eq!(are_within(a, b, 2_000_000_000), n == m, "{a} {b}");
            }
        }
        for same in ["2026-01-02T03:04:06.123Z", "2026-01-02T04:04:05+01:00"] {
            assert!(are_within(&forms[0], &json!(same), 2_000_000_000), "{same}");
        }
    }
}
