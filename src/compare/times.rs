//! Parses times and durations as bodies and rules write them.

use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use serde_json::Value;

/// Parses a duration of a rule (`2s`, `500ms`, `1m30s`); returns nanoseconds.
pub(super) fn duration(text: &str) -> Option<i128> {
    let span: jiff::SignedDuration = text.trim().parse().ok()?;
    (!span.is_negative()).then(|| span.as_nanos())
}

/// Parses a point in time: RFC 3339, with or without a zone, an HTTP date, or a number of seconds (of milliseconds from
/// 1e11 on). Returns nanoseconds since 1970.
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
            // Computed without a timestamp, because the last 26 hours of the year 9999 have none.
            let (civil, offset) = match Pieces::parse(text) {
                Ok(pieces) if pieces.offset().is_some() => {
                    (DateTime::from_parts(pieces.date(), pieces.time()?), pieces.to_numeric_offset()?.seconds())
                }
                Ok(_) | Err(_) => (text.parse().ok()?, 0),
            };
            let since_1970 = civil.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0));
            Some(since_1970.as_nanos() - i128::from(offset) * 1_000_000_000)
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
        let last = |text: &str| instant(&json!(text)).unwrap();
        assert_eq!(last("9999-12-31T23:59:59Z") - last("9999-12-30T21:59:59Z"), 26 * 3_600 * 1_000_000_000);
        assert_eq!(last("9999-12-31T23:59:59+01:00"), last("9999-12-31T22:59:59"));
        assert_eq!(duration("2s"), Some(2_000_000_000));
        assert_eq!(duration("500ms"), Some(500_000_000));
        assert_eq!(duration("-1s"), None);
        assert_eq!(duration("two"), None);
    }
}
