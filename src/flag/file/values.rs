//! Simple values of the files: names, durations, percentages, conditions.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::expression::Expression;
use crate::problem::{Problems, Site, nearest};

/// The length of the longest id or name, in characters.
const NAME_CHARS_MAX: usize = 64;
/// The longest duration that a route or service may be given.
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Checks an id or name.
pub fn check_name(what: &str, name: &str, site: &Site, problems: &mut Problems) {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(plain) {
        problems
            .error(site, format!("`{name}` is not a valid {what}"))
            .hint(format!("lower case letters, digits, `.`, `_` and `-`; 1 to {NAME_CHARS_MAX} of them"));
    } else if !name.contains(|c: char| c.is_ascii_alphanumeric()) {
        problems
            .error(site, format!("`{name}` is not a valid {what}"))
            .hint("it needs a letter or a digit: in a URL, such as that of the API, `..` names something else");
    }
}

/// Parses a duration of a route or service as people write it: `50ms`, `5s`, `2m`, `1h`.
pub fn duration(text: &str, site: &Site, problems: &mut Problems) -> Option<Duration> {
    duration_within(text, Duration::from_millis(1)..=DURATION_MAX, "1ms and 24h", site, problems)
}

/// Parses a duration as people write it, which has to be in a range; `bounds` says it in words.
pub fn duration_within(
    text: &str,
    range: RangeInclusive<Duration>,
    bounds: &str,
    site: &Site,
    problems: &mut Problems,
) -> Option<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(24 * 3_600_000),
        _ => None,
    };
    let millis = scale.and_then(|scale| number.trim_end().parse::<u64>().ok()?.checked_mul(scale));
    match millis.map(Duration::from_millis) {
        Some(duration) if range.contains(&duration) => Some(duration),
        Some(_) => {
            problems.error(site, format!("`{text}` is not between {bounds}"));
            None
        }
        None => {
            let hint = "a whole number and its unit: 50ms, 5s, 2m, 1h";
            problems.error(site, format!("`{text}` is not a duration")).hint(hint);
            None
        }
    }
}

/// Parses a rate in percent as people write it (`0.1%`); returns a number from 0 to 1.
pub fn percentage(text: &str, site: &Site, problems: &mut Problems) -> Option<f64> {
    let percent = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
    match percent {
        Some(percent) if (0.0..=100.0).contains(&percent) => Some(percent / 100.0),
        Some(percent) => {
            problems.error(site, format!("{percent}% is not between 0% and 100%"));
            None
        }
        None => {
            problems.error(site, format!("`{text}` is not a rate")).hint("a number and a percent sign: 0.1%");
            None
        }
    }
}

/// Parses a condition: a single `${…}`.
pub fn condition(text: &str, site: &Site, problems: &mut Problems) -> Option<Expression> {
    let Some(source) = text.trim().strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
        problems
            .error(site, "a condition has to be one expression in `${…}`")
            .hint(format!("write it as ${{{}}}", text.trim()));
        return None;
    };
    match Expression::parse(source) {
        Ok(expression) => Some(expression),
        Err(error) => {
            let source_start = text.len() - text.trim_start().len() + 2;
            let problem = problems.error(site, error.message);
            if let Some(offset) = error.offset {
                problem.offset(source_start + offset);
            }
            None
        }
    }
}

/// A hint for an unknown name: the nearest known one, or all of them.
pub fn suggest<'a>(word: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(word, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => match known.collect::<Vec<_>>() {
            names if names.is_empty() => "there is none yet".to_owned(),
            names => format!("known: {}", names.join(", ")),
        },
    }
}
