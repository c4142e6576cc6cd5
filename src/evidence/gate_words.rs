//! Lists and times in the messages of gates.

use std::time::Duration;

use jiff::Timestamp;

/// How many reasons, kinds of requests or steps a message names.
pub(super) const NAMES_SHOWN: usize = 3;

/// The first names of a list, and how many more there are.
pub(super) fn first_of(names: &[String], separator: &str) -> String {
    let shown = names.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(separator);
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The time from `since` to `now`; zero if the clock was set back.
pub(super) fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO)
}

/// A time in its largest unit of which there is at least one.
pub(super) fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    let (count, unit) = match seconds {
        172_800.. => (seconds / 86_400, "days"),
        7_200.. => (seconds / 3_600, "hours"),
        120.. => (seconds / 60, "minutes"),
        _ => (seconds, "seconds"),
    };
    format!("{count} {unit}")
}
