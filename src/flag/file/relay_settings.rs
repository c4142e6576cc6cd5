//! How requests are forwarded: `buffer_request` and time-outs of services and routes, and their checks.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::service_tls::text_or_number;
use super::values::duration;
use crate::flag::{Compress, RelaySettings, TotalTimeout};
use crate::limits::BUFFER_REQUEST_BYTES_LIMIT_MAX;
use crate::problem::{Problems, Site};

/// Time-outs of a route's forwarded requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeoutsDraft {
    /// How long to wait from the request's last byte to the reply's first byte: `30s`.
    pub first_byte: Option<String>,
    /// The longest pause within a body, in either direction: `30s`.
    pub idle: Option<String>,
    /// The longest time of the whole exchange: `10m`, or `off`.
    pub total: Option<String>,
}

/// A number of bytes: `65536`, `64KiB`, `1MiB`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SizeDraft(#[schemars(schema_with = "text_or_number")] pub Value);

/// Checks `buffer_request`, a key of the map at `site`, and the time-outs, which are keys of the map at
/// `timeouts_site`.
pub(super) fn relay_settings(
    buffer_request: Option<&SizeDraft>,
    compress: Option<Compress>,
    timeouts: &TimeoutsDraft,
    site: &Site,
    timeouts_site: &Site,
    problems: &mut Problems,
) -> RelaySettings {
    let TimeoutsDraft { first_byte, idle, total } = timeouts;
    let mut time = |key: &str, text: &Option<String>| duration(text.as_ref()?, &timeouts_site.key(key), problems);
    let (first_byte, idle) = (time("first_byte", first_byte), time("idle", idle));
    RelaySettings {
        buffer_request: buffer(buffer_request, &site.key("buffer_request"), problems),
        first_byte,
        idle,
        total: total_timeout(total.as_ref(), &timeouts_site.key("total"), problems),
        compress,
    }
}

fn buffer(draft: Option<&SizeDraft>, site: &Site, problems: &mut Problems) -> Option<u64> {
    let SizeDraft(value) = draft?;
    let bytes = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => size(text),
        _ => None,
    };
    match bytes {
        Some(bytes) if bytes <= BUFFER_REQUEST_BYTES_LIMIT_MAX => Some(bytes),
        Some(bytes) => {
            let max = BUFFER_REQUEST_BYTES_LIMIT_MAX >> 20;
            problems.error(site, format!("{bytes} bytes are too many: at most {max}MiB of a body are buffered"));
            None
        }
        None => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let hint = "a whole number of bytes, KiB or MiB: 65536, 64KiB, 1MiB";
            problems.error(site, format!("`{text}` is not a size")).hint(hint);
            None
        }
    }
}

fn size(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn total_timeout(text: Option<&String>, site: &Site, problems: &mut Problems) -> Option<TotalTimeout> {
    match text?.as_str() {
        "off" => Some(TotalTimeout::Off),
        text => duration(text, site, problems).map(TotalTimeout::After),
    }
}
