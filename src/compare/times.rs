//! Parses times and durations as bodies and rules write them.

use serde_json::Value;

/// A duration of a rule (`2s`, `500ms`, `1m30s`), in nanoseconds.
pub(super) fn duration(text: &str) -> Option<i128> {
    let span: jiff::SignedDuration = text.trim().parse().ok()?;
    (!span.is_negative()).then(|| span.as_nanos())
}

/// A point in time, in nanoseconds since 1970: RFC 3339, with or without a zone, an HTTP date, or a number of seconds
/// (of milliseconds from 1e11 on).
pub(super) fn instant(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => {
            let text = text.trim();
            if let Ok(at) = text.parse::<jiff::Timestamp>() {
                return Some(at.as_nanosecond());
            }
            if let Ok(at) = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text) {
                return Some(at.as_nanosecond());
            }
            let civil: jiff::civil::DateTime = text.parse().ok()?;
            Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_nanosecond())
        }
        Value::Number(number) => {
            let number = number.as_f64()?;
            let seconds = if number.abs() >= 1e11 { number / 1e3 } else { number };
            (seconds.abs() < 1e15).then_some((seconds * 1e9) as i128)
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
        let at = instant(&json!("2026-01-02T03:04:05Z")).unwrap();
        for same in ["2026-01-02T04:04:05+01:00", "Fri, 02 Jan 2026 03:04:05 GMT", "2026-01-02T03:04:05.000"] {
            assert_eq!(instant(&json!(same)), Some(at), "{same}");
        }
        assert_eq!(instant(&json!(1_767_323_045)), Some(at));
        assert_eq!(instant(&json!(1_767_323_045_000_i64)), Some(at));
        assert_eq!(instant(&json!("soon")), None);
        assert_eq!(duration("2s"), Some(2_000_000_000));
        assert_eq!(duration("500ms"), Some(500_000_000));
        assert_eq!(duration("-1s"), None);
        assert_eq!(duration("two"), None);
    }
}
