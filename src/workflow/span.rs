//! Durations and times as people and expressions write them.
//!
//! Always true: a duration is at most [`SPAN_MAX`], and a declared one, except of a `wait:`, is longer than zero; a
//! time is a valid timestamp.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use serde_json::Value;

/// The longest duration that is accepted.
pub(super) const SPAN_MAX: Duration = Duration::from_secs(400 * 86_400);

const DURATION_HINT: &str = "write 50ms, 2s, 10m, 3h or 2d";

/// Parses a duration longer than zero: `50ms`, `2s`, `10m`, `3h`, `2d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match zero_or_longer(text)? {
        Duration::ZERO => Err("a duration is longer than 0".to_owned()),
        span => Ok(span),
    }
}

fn zero_or_longer(text: &str) -> Result<Duration, String> {
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let factor = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if digits > 0 => return Err(format!("`{text}` is not a duration: it has no unit; write {number}s")),
        _ => return Err(format!("`{text}` is not a duration; {DURATION_HINT}")),
    };
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match millis.map(Duration::from_millis) {
        None => Err(format!("`{text}` is not a duration; {DURATION_HINT}")),
        Some(span) if span > SPAN_MAX => Err(format!("`{text}` is longer than 400 days")),
        Some(span) => Ok(span),
    }
}

/// A duration as text, or a number of seconds. Zero is allowed here: a computed time may have passed already, and a
/// wait of zero ends at once.
pub(super) fn duration_value(value: &Value) -> Result<Duration, String> {
    match value {
        Value::String(text) => zero_or_longer(text),
        Value::Number(seconds) => {
            let seconds = seconds.as_f64().unwrap_or(f64::NAN);
            match Duration::try_from_secs_f64(seconds.max(0.0)) {
                Ok(span) if span <= SPAN_MAX && !seconds.is_nan() => Ok(span),
                Ok(_) => Err(format!("{seconds} seconds are longer than 400 days")),
                Err(_) => Err(format!("{value} is not a duration; give a number of seconds, or {DURATION_HINT}")),
            }
        }
        _ => Err(format!("a duration is a number of seconds, or a text: {DURATION_HINT}")),
    }
}

/// Reads a time: RFC 3339, or seconds since 1970.
pub(super) fn time(value: &Value) -> Result<Timestamp, String> {
    let hint = "a time is RFC 3339 (2026-01-31T12:00:00Z), or seconds since 1970";
    match value {
        Value::String(text) => timestamp(text.trim()).ok_or_else(|| format!("`{text}` is not a time: {hint}")),
        Value::Number(number) => {
            let seconds = number.as_f64().filter(|seconds| seconds.is_finite());
            let span = seconds.and_then(|seconds| jiff::SignedDuration::try_from_secs_f64(seconds).ok());
            span.and_then(|span| Timestamp::UNIX_EPOCH.checked_add(span).ok())
                .ok_or_else(|| format!("{number} is not a time: {hint}"))
        }
        _ => Err(hint.to_owned()),
    }
}

/// Parses RFC 3339. Saturates: a time past the largest timestamp, which lies 26 hours before the end of the year 9999,
/// is set to it, because databases write the last second of that year for "never".
fn timestamp(text: &str) -> Option<Timestamp> {
    let pieces = Pieces::parse(text).ok()?;
    let offset = pieces.to_numeric_offset().filter(|offset| offset.seconds().abs() < 86_400)?;
    text.parse().ok().or_else(|| {
        let civil = DateTime::from_parts(pieces.date(), pieces.time()?);
        let is_too_late = civil.year() == 9999 && offset.to_timestamp(civil).is_err();
        is_too_late.then_some(Timestamp::MAX)
    })
}

/// How long ago something began, for people, and when exactly: `3 min (2026-01-31T12:00:00Z)`.
pub fn ago(since: Timestamp, now: Timestamp) -> String {
    format!("{} ({since:.0})", duration_text(now.duration_since(since)))
}

/// When something ends, and how far ahead that is: `2026-01-31T12:00:00Z (in 57 min)`.
pub fn ahead(until: Timestamp, now: Timestamp) -> String {
    match until > now {
        true => format!("{until:.0} (in {})", duration_text(until.duration_since(now))),
        false => format!("{until:.0} (now)"),
    }
}

fn duration_text(lasting: jiff::SignedDuration) -> String {
    match lasting.as_secs().max(0) {
        s if s < 120 => format!("{s} s"),
        s if s < 7_200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_shown_relative_to_now() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-01-31T12:00:00.9Z");
        assert_eq!(ago(at("2026-01-31T11:57:00.123456789Z"), now), "3 min (2026-01-31T11:57:00Z)");
        assert_eq!(ago(at("2026-01-31T12:00:05Z"), now), "0 s (2026-01-31T12:00:05Z)");
        assert_eq!(ahead(at("2026-01-31T12:57:59.9Z"), now), "2026-01-31T12:57:59Z (in 57 min)");
        assert_eq!(ahead(now, now), "2026-01-31T12:00:00Z (now)");
        assert_eq!(ahead(at("2026-02-04T12:00:00.9Z"), now), "2026-02-04T12:00:00Z (in 4 d)");
    }

    #[test]
    fn durations_and_times_as_people_write_them() {
        let ms = Duration::from_millis;
        assert_eq!(duration("50ms"), Ok(ms(50)));
        assert_eq!(duration(" 3d "), Ok(ms(3 * 86_400_000)));
        assert_eq!(duration("401d"), Err("`401d` is longer than 400 days".into()));
        assert_eq!(duration("0s"), Err("a duration is longer than 0".into()));
        assert_eq!(duration("30"), Err("`30` is not a duration: it has no unit; write 30s".into()));
        for text in ["", "s", "1", "1w", "-1s", "99999999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration_value(&json!(1.5)), Ok(ms(1500)));
        assert_eq!(duration_value(&json!(-3)), Ok(ms(0)));
        assert_eq!(duration_value(&json!("0s")), Ok(ms(0)));
        assert!(duration_value(&json!(1e300)).is_err() && duration_value(&json!(null)).is_err());
        let noon = "1970-01-01T12:00:00Z".parse().unwrap();
        assert_eq!(time(&json!("1970-01-01T13:00:00+01:00")), Ok(noon));
        assert_eq!(time(&json!(43200)), Ok(noon));
        for text in ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999-23:59", "9999-12-31T00:00:00+01:00"] {
            assert_eq!(time(&json!(text)), Ok(Timestamp::MAX), "{text}");
        }
        assert_eq!(time(&json!("9999-12-30T22:00:00Z")), Ok("9999-12-30T22:00:00Z".parse().unwrap()));
        for text in ["9999-12-31T23:59:59", "9999-12-31", "10000-01-01T00:00:00Z", "2026-01-31T12:00:00+24:00"] {
            assert!(time(&json!(text)).is_err(), "{text}");
        }
        assert!(time(&json!("noon")).is_err() && time(&json!(1e300)).is_err() && time(&json!([])).is_err());
    }
}
