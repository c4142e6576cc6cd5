//! Checks the values of `limits:`: each has a smallest and a largest value with which the process can work.
//!
//! Always true: a value that is accepted neither overflows where it is used nor stops all work.

use std::time::Duration;

use crate::limits::{
    ACCESS_LOG_LINES_LIMIT_MAX, BYTES_LIMIT_MAX, HEAD_FIELDS_LIMIT_MAX, HTTP2_WINDOW_LIMIT_BYTES_MAX, Limits,
    NUMBER_LIMIT_MAX, RETRY_KEYS_FILE_LIMIT_BYTES_MAX, SHADOW_THREADS_LIMIT_MAX, TIME_LIMIT_MAX,
};
use crate::problem::{Problems, Site};

/// Limits for which 0 has a meaning; any other 0 would stop the process from working.
const MAY_BE_ZERO: [&str; 18] = [
    "client_connections_per_address_max",
    "requests_in_flight_max",
    "client_send_bytes_per_s_min",
    "client_read_bytes_per_s_min",
    "legacy_send_bytes_per_s_min",
    "total_ms",
    "stop_delay_ms",
    "drain_ms",
    "drain_head_ms",
    "succession_idle_ms",
    "succession_drain_ms",
    "shadow_drain_ms",
    "service_idle_connections_max",
    "shadow_service_share_percent",
    "run_snapshot_bytes_max",
    "service_unrepeatable_idle_ms",
    "service_connection_age_ms",
    "client_park_ms",
];

/// Limits that have a smallest value other than 1, and why.
const MIN_VALUES: [(&str, u64, &str); 7] = [
    ("retry_keys_file_bytes_max", 65_536, "a smaller file holds too few keys for one commit of the store"),
    ("client_http2_window_bytes_max", 65_535, "the protocol begins with this window"),
    ("head_bytes_max", 8_192, "this is the smallest buffer in which a request head can be read"),
    ("store_connections_max", 2, "requests must not wait for a shadow run that uses the only connection"),
    ("api_body_bytes_max", 4_096, BOUNDS_FLIPS),
    ("output_values_max", 64, BOUNDS_FLIPS),
    ("output_depth_max", 8, BOUNDS_FLIPS),
];
const BOUNDS_FLIPS: &str = "it also bounds requests to the API, such as flips and freezes";

/// The largest `compare_depth_max`: the parser of JSON reads no body that is nested more deeply.
const COMPARED_DEPTH_MAX: u64 = 127;

/// Reports the limits whose values are too small or too large.
pub(super) fn check(limits: &Limits, site: &Site, problems: &mut Problems) {
    let Ok(serde_json::Value::Object(values)) = serde_json::to_value(limits) else { return };
    for (name, value) in &values {
        let Some(value) = value.as_u64() else { continue };
        if value == 0 && !MAY_BE_ZERO.contains(&name.as_str()) {
            problems.error(&site.key(name.as_str()), format!("`{name}: 0` would stop all work"));
        }
        let max = largest(name);
        if value > max {
            let message = format!("`{name}: {value}` is too large: it must be at most {max}{}", in_days(name));
            problems.error(&site.key(name.as_str()), message);
        }
    }
    for (name, min, needed_by) in MIN_VALUES {
        let Some(value) = values.get(name).and_then(serde_json::Value::as_u64) else { continue };
        if (1..min).contains(&value) {
            let message = format!("`{name}: {value}` is too small: it must be at least {min}, because {needed_by}");
            problems.error(&site.key(name), message);
        }
    }
}

/// The largest value of the limit with this name.
fn largest(name: &str) -> u64 {
    match name {
        "head_fields_max" | "reply_fields_max" => HEAD_FIELDS_LIMIT_MAX,
        "access_log_lines_max" => ACCESS_LOG_LINES_LIMIT_MAX,
        "shadow_threads" => SHADOW_THREADS_LIMIT_MAX,
        "compare_depth_max" => COMPARED_DEPTH_MAX,
        "shadow_service_share_percent" => 100,
        "client_http2_stream_window_bytes_max"
        | "client_http2_window_bytes_max"
        | "client_http2_send_buffer_bytes_max" => HTTP2_WINDOW_LIMIT_BYTES_MAX,
        "retry_keys_file_bytes_max" => RETRY_KEYS_FILE_LIMIT_BYTES_MAX,
        _ => match Unit::of(name) {
            Unit::Milliseconds => millis(TIME_LIMIT_MAX),
            Unit::Seconds => TIME_LIMIT_MAX.as_secs(),
            Unit::Bytes => BYTES_LIMIT_MAX,
            Unit::Number => NUMBER_LIMIT_MAX,
        },
    }
}

/// The largest value of a limit that is a time, in days, for the message.
fn in_days(name: &str) -> String {
    match Unit::of(name) {
        Unit::Milliseconds | Unit::Seconds => format!(" ({} days)", TIME_LIMIT_MAX.as_secs() / 86_400),
        Unit::Bytes | Unit::Number => String::new(),
    }
}

/// The unit of a limit, which ends its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Milliseconds,
    Seconds,
    Bytes,
    Number,
}

impl Unit {
    fn of(name: &str) -> Self {
        match name {
            _ if name.ends_with("_ms") => Unit::Milliseconds,
            _ if name.ends_with("_s") => Unit::Seconds,
            _ if name.ends_with("_bytes_max") => Unit::Bytes,
            _ => Unit::Number,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::clock;
    use crate::config::tests::set::Set;

    fn names() -> Vec<String> {
        let values = serde_json::to_value(Limits::default()).unwrap();
        values.as_object().unwrap().keys().cloned().collect()
    }

    /// A set of files in which this limit has this value.
    fn set_with(name: &str, value: u64) -> Set {
        let limits = format!("store: memory\nlimits: {{ {name}: {value} }}\n");
        Set::valid().edit("pointsman.yaml", "store: memory\n", &limits)
    }

    #[test]
    fn each_limit_refuses_a_value_with_which_the_process_cannot_work() {
        for name in names() {
            let max = largest(&name);
            for value in [max + 1, u64::MAX] {
                let (shown, expected) = (set_with(&name, value).shown(), format!("`{name}: {value}` is too large"));
                assert!(shown.contains(&expected) && shown.contains(&format!("at most {max}")), "{shown}");
            }
            let (largest, zero) = (set_with(&name, max), set_with(&name, 0));
            assert!(largest.read().is_ok(), "{}", largest.shown());
            match MAY_BE_ZERO.contains(&name.as_str()) {
                true => assert!(zero.read().is_ok(), "{}", zero.shown()),
                false => {
                    assert!(zero.shown().contains(&format!("`{name}: 0` would stop all work")), "{}", zero.shown())
                }
            }
        }
    }

    #[test]
    fn the_earlier_name_of_a_limit_is_read() {
        let limits = |name: &str| set_with(name, 7_000).read().map(|loaded| loaded.setup.limits.clone());
        assert!(limits("egress_bystanders_max").is_ok_and(|limits| limits.egress_uncompared_requests_max == 7_000));
        assert!(limits("order_wait_ms").is_ok_and(|limits| limits.command_wait_ms == 7_000));
        let both = set_with("order_wait_ms: 7000, command_wait_ms", 7_000).shown();
        assert!(
            both.contains("`order_wait_ms` is the earlier name of `command_wait_ms`, which is set here too"),
            "{both}"
        );
        assert!(both.contains("keep `command_wait_ms` and remove this one") && !both.contains("a bug"), "{both}");
    }

    #[test]
    fn each_limit_with_a_smallest_value_refuses_a_smaller_one() {
        for (name, min, needed_by) in MIN_VALUES {
            let (smaller, smallest) = (set_with(name, min - 1), set_with(name, min));
            assert!(smaller.shown().contains(needed_by), "{}", smaller.shown());
            assert!(smallest.read().is_ok(), "{}", smallest.shown());
        }
    }

    #[test]
    fn the_largest_values_overflow_nothing() {
        for name in names() {
            let max = largest(&name);
            let time = match Unit::of(&name) {
                Unit::Milliseconds => Limits::ms(max),
                Unit::Seconds => Duration::from_secs(max),
                Unit::Bytes => {
                    assert!(i64::try_from(max * 1_000).is_ok() && usize::try_from(max).is_ok(), "{name}");
                    continue;
                }
                Unit::Number => {
                    assert!(u32::try_from(max).is_ok() && max * 1_000 < Semaphore::MAX_PERMITS as u64, "{name}");
                    continue;
                }
            };
            // Times are added to one another, and kept as nanoseconds.
            assert!(Instant::now().checked_add(time * 4).is_some(), "{name}");
            assert!(i64::try_from((time * 4).as_nanos()).is_ok(), "{name}");
            assert!(clock::window_end(clock::now(), time) < jiff::Timestamp::MAX, "{name}");
        }
    }

    #[test]
    fn defaults_are_accepted() {
        let mut problems = Problems::default();
        check(&Limits::default(), &Site::file("pointsman.yaml"), &mut problems);
        assert_eq!(problems.iter().count(), 0);
    }

    /// If the documentation of a limit says what 0 means (` 0:`), 0 must not be refused.
    #[test]
    fn limits_whose_documentation_explains_zero_accept_it() {
        let source = include_str!("../limits.rs");
        let mut documentation = String::new();
        let mut explained = Vec::new();
        for line in source.lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("///") {
                documentation.push_str(text);
            } else if let Some(field) = line.strip_prefix("pub ").and_then(|line| line.strip_suffix(": u64,")) {
                if documentation.contains(" 0:") {
                    explained.push(field);
                }
                documentation.clear();
            } else {
                documentation.clear();
            }
        }
        assert!(explained.contains(&"run_snapshot_bytes_max"), "{explained:?}");
        for name in explained {
            assert!(MAY_BE_ZERO.contains(&name), "`{name}: 0` is documented and refused");
        }
    }
}
