//! What values may be: ids, clock readings, numbers that were rounded.

use serde_json::Value;

use crate::compare::magnitude::{Magnitude, magnitude_of};
use crate::compare::node::Node;
use crate::compare::number::Decimal;
use crate::compare::times;

/// How far a time may be from the comparison and still be a clock reading.
const CLOCK_WINDOW_NS: i128 = 15 * 60 * 1_000_000_000;
/// How much two clock readings of one request may differ.
const CLOCK_DIFFERENCE_MAX_NS: i128 = 5 * 60 * 1_000_000_000;
/// How much two times may differ that are computed from clock readings (a time of expiry). Less than between readings:
/// a wrong duration differs too.
const COMPUTED_DIFFERENCE_MAX_NS: i128 = 30 * 1_000_000_000;
/// How far a computed time may be from the comparison: other numbers than times are mostly further away.
const COMPUTED_WINDOW_NS: i128 = 10 * 365 * 86_400 * 1_000_000_000;
/// The distances of computed times from the times of their comparisons may vary by at most the time in which all
/// samples were compared, divided by this.
const COMPUTED_SPREAD_PART: i128 = 4;
/// The tolerances for times that are proposed, with their nanoseconds.
const TIME_TOLERANCES: [(&str, i128); 9] = [
    ("1s", 1_000_000_000),
    ("2s", 2_000_000_000),
    ("5s", 5_000_000_000),
    ("10s", 10_000_000_000),
    ("30s", 30_000_000_000),
    ("1m", 60_000_000_000),
    ("5m", 300_000_000_000),
    ("10m", 600_000_000_000),
    ("20m", 1_200_000_000_000),
];
/// How many times larger a proposed tolerance is than the largest difference of the samples: other pairs may differ
/// more.
const MARGIN: i128 = 4;
/// The fewest characters of an id that nothing but its form shows.
const OPAQUE_CHARS_MIN: usize = 12;

/// Whether a key names ids.
pub(super) fn names_an_id(key: &str) -> bool {
    const NAMES: [&str; 12] =
        ["id", "ids", "uuid", "guid", "ref", "reference", "number", "no", "href", "link", "url", "key"];
    words(key).last().is_some_and(|word| NAMES.contains(&word.as_str()))
}

/// The words of a key, in lower case: `order` and `id` of `orderId`, `order_id` and `order-id`.
pub(super) fn words(key: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower_before = false;
    for c in key.chars() {
        if !c.is_alphanumeric() || c.is_uppercase() && lower_before {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
        lower_before = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// How clearly two values are ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum IdForm {
    /// They cannot be.
    None,
    /// They may be quantities or codes.
    Possible,
    /// Nothing else has this form.
    Opaque,
}

/// Whether two different values have the form of ids.
pub(super) fn id_form(legacy: &Value, engine: &Value) -> IdForm {
    match (legacy, engine) {
        (Value::Number(a), Value::Number(b)) => id_text_form(a.as_str()).min(id_text_form(b.as_str())),
        (Value::String(a), Value::String(b)) => id_text_form(a).min(id_text_form(b)),
        _ => IdForm::None,
    }
}

/// Whether a text has the form of an id.
pub(super) fn id_text_form(text: &str) -> IdForm {
    let has = |is: fn(char) -> bool| text.chars().any(is);
    let all = |is: fn(char) -> bool| text.chars().all(is);
    if !has(|c| c.is_ascii_digit()) || !all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ':' | '.' | '/')) {
        return IdForm::None;
    }
    // Quantities, dates and versions have only digits and signs.
    if all(|c| c.is_ascii_digit()) {
        return if text.len() >= 4 { IdForm::Possible } else { IdForm::None };
    }
    if !has(char::is_alphabetic) || times::instant(&Value::from(text)).is_some() {
        return IdForm::None;
    }
    let is_uuid = text.len() == 36 && text.chars().filter(|c| *c == '-').count() == 4;
    let digits = text.chars().filter(char::is_ascii_digit).count();
    match is_uuid || text.chars().count() >= OPAQUE_CHARS_MIN && digits >= 3 {
        true => IdForm::Opaque,
        false if text.chars().count() >= 3 => IdForm::Possible,
        false => IdForm::None,
    }
}

/// The tolerance under which all these pairs of times are equal, if all are clock readings (both near the time at which
/// they were compared, and near each other), or computed from clock readings. With each pair comes the time of its
/// comparison.
pub(super) fn clock_tolerance<'a>(pairs: impl Iterator<Item = (&'a Value, &'a Value, i128)>) -> Option<&'static str> {
    let mut readings = Vec::new();
    for (legacy, engine, compared) in pairs {
        let ((a, form), (b, other)) = (times::instant(legacy)?, times::instant(engine)?);
        // A tolerance applies to times of one form only.
        if form != other {
            return None;
        }
        readings.push((a, b, compared));
    }
    let largest = readings.iter().map(|(a, b, _)| (a - b).abs()).max()?;
    let is_near = |at: i128, compared: i128| (at - compared).abs() <= CLOCK_WINDOW_NS;
    let are_read = readings.iter().all(|(a, b, compared)| is_near(*a, *compared) && is_near(*b, *compared));
    let limit = match are_read {
        true => CLOCK_DIFFERENCE_MAX_NS,
        false if follow_the_clock(&readings) => COMPUTED_DIFFERENCE_MAX_NS,
        false => return None,
    };
    if largest > limit {
        return None;
    }
    TIME_TOLERANCES.iter().find(|(_, by)| *by >= largest * MARGIN).map(|(text, _)| *text)
}

/// Whether two values may be clock readings, or computed from them, by this pair alone.
pub(super) fn may_be_clock_readings(legacy: &Value, engine: &Value, compared: i128) -> bool {
    let (Some((a, form)), Some((b, other))) = (times::instant(legacy), times::instant(engine)) else { return false };
    form == other && (a - b).abs() <= CLOCK_DIFFERENCE_MAX_NS && (a - compared).abs() <= COMPUTED_WINDOW_NS
}

/// The wider of two tolerances for times.
pub(super) fn wider_tolerance(one: &'static str, other: &'static str) -> &'static str {
    let nanos = |text| TIME_TOLERANCES.iter().position(|(known, _)| *known == text);
    if nanos(one) < nanos(other) { other } else { one }
}

/// Whether legacy's times move on with those of the comparisons, at a constant distance: they are computed from clock
/// readings.
fn follow_the_clock(readings: &[(i128, i128, i128)]) -> bool {
    let spread = |of: &dyn Fn(&(i128, i128, i128)) -> i128| {
        let (least, most) = (readings.iter().map(of).min(), readings.iter().map(of).max());
        most.zip(least).map_or(0, |(most, least)| most - least)
    };
    let compared = spread(&|(_, _, compared)| *compared);
    let are_times = readings.iter().all(|(a, _, compared)| (a - compared).abs() <= COMPUTED_WINDOW_NS);
    are_times && compared > 0 && spread(&|(a, _, compared)| a - compared) * COMPUTED_SPREAD_PART <= compared
}

/// Whether two values are numbers that differ by rounding alone.
pub(super) fn differ_by_rounding(legacy: &Value, engine: &Value) -> bool {
    let (Value::Number(_), Value::Number(_)) = (legacy, engine) else { return false };
    magnitude_of(Node::from(legacy), Node::from(engine)) == Some(Magnitude::Rounding)
}

/// The tolerance under which all these pairs of numbers, which differ by rounding, are equal; `None` if there are none.
pub(super) fn rounding_tolerance<'a>(pairs: impl Iterator<Item = (&'a Value, &'a Value)>) -> Option<Value> {
    let distance = |(legacy, engine): (&Value, &Value)| Some((legacy.as_f64()? - engine.as_f64()?).abs());
    let largest = pairs.filter_map(distance).max_by(f64::total_cmp)?;
    let text = (1..=18).rev().map(|zeros| format!("0.{}1", "0".repeat(zeros - 1)));
    let mut fitting = text.filter(|text| text.parse::<f64>().is_ok_and(|by| by >= largest * MARGIN as f64));
    let text = fitting.next().filter(|text| Decimal::parse(text).is_some())?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_told_from_quantities_codes_and_words() {
        for (a, b, form) in [
            (
                json!("0f8b7c1e-3a5d-4c3b-9a51-2f6f6c0c9a11"),
                json!("1f8b7c1e-3a5d-4c3b-9a51-2f6f6c0c9a12"),
                IdForm::Opaque,
            ),
            (json!("ord_7f3k29xq81"), json!("run_0190aa7c21"), IdForm::Opaque),
            (json!("A4000DE"), json!("A4001DE"), IdForm::Possible),
            (json!(4012), json!(4013), IdForm::Possible),
            (json!(401), json!(402), IdForm::None),
            (json!("17.50"), json!("17.51"), IdForm::None),
            (json!(17.50), json!(17.51), IdForm::None),
            (json!("EUR"), json!("USD"), IdForm::None),
            (json!("2026-11-17T10:00:00Z"), json!("2026-11-18T10:00:00Z"), IdForm::None),
            (json!("2026-11-17"), json!("2026-11-18"), IdForm::None),
            (json!("4012"), json!(4012), IdForm::None),
            (json!("order 4012"), json!("order 4013"), IdForm::None),
        ] {
            assert_eq!(id_form(&a, &b), form, "{a} {b}");
        }
        for (key, is) in [("orderId", true), ("order_id", true), ("id", true), ("paid", false), ("grid", false)] {
            assert_eq!(names_an_id(key), is, "{key}");
        }
    }

    #[test]
    fn a_tolerance_is_found_only_for_clock_readings_and_for_rounding() {
        let (at, _) = times::instant(&json!("2026-11-17T10:00:00Z")).unwrap();
        let of = |a: Value, b: Value| clock_tolerance([(&a, &b, at)].into_iter());
        assert_eq!(of(json!("2026-11-17T10:00:00.2Z"), json!("2026-11-17T10:00:00.9Z")), Some("5s"));
        assert_eq!(of(json!("2026-11-17T10:00:00Z"), json!("2026-11-17T10:05:01Z")), None);
        assert_eq!(of(json!("2026-12-17T10:00:00Z"), json!("2026-12-17T10:00:01Z")), None, "a date that is computed");
        assert_eq!(of(json!(17), json!(18)), None);
        // Times of expiry, at requests a minute apart.
        let later = |legacy: [i64; 3], by: i64| {
            let of = |at: i64| json!(jiff::Timestamp::from_second(at).unwrap().to_string());
            let start = i64::try_from(at / 1_000_000_000).unwrap();
            let pairs = legacy.map(|after| (of(start + after), of(start + after + by)));
            clock_tolerance(pairs.iter().enumerate().map(|(n, (a, b))| (a, b, at + n as i128 * 60_000_000_000)))
        };
        let day = 86_400;
        assert_eq!(later([day, day + 61, day + 119], 1), Some("5s"));
        assert_eq!(later([day, day + 60, day + 120], 60), None, "a wrong duration");
        assert_eq!(later([day, day, day], 1), None, "a date that is the same at all times");
        assert_eq!(later([day, 3 * day, 2 * day], 1), None, "a date that is computed from something else");
        let counters: Vec<(Value, Value)> = (0..3).map(|n| (json!(1_000 + n * 60), json!(1_001 + n * 60))).collect();
        let counters = counters.iter().enumerate().map(|(n, (a, b))| (a, b, at + n as i128 * 60_000_000_000));
        assert_eq!(clock_tolerance(counters), None, "a number that grows as fast as the clock");
        let of = |a: &str, b: &str| {
            let (a, b): (Value, Value) = (serde_json::from_str(a).unwrap(), serde_json::from_str(b).unwrap());
            let rounded = Some((&a, &b)).filter(|(a, b)| differ_by_rounding(a, b));
            rounding_tolerance(rounded.into_iter()).map(|by| by.to_string())
        };
        assert!(of("0.30000000000000004", "0.3").is_some());
        assert_eq!((of("17.50", "17.51"), of("1000000", "1000001"), of("10.00", "10.01")), (None, None, None));
    }
}
