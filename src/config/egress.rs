//! `egress:` of `pointsman.yaml`: the listener for legacy's own calls.
//!
//! Always true: a listener that other machines can reach says who may call, and where calls may go in addition to the
//! services.

use schemars::JsonSchema;
use serde::Deserialize;

use super::addresses::address;
use crate::limits::{EGRESS_DESTINATIONS_MAX, EGRESS_NETWORKS_MAX};
use crate::listener::{Destination, EgressListener, Network};
use crate::problem::{Problems, Site};

/// The listener for calls that legacy makes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EgressDraft {
    /// `ADDRESS:PORT`, for plain HTTP.
    pub listen: String,
    /// The networks from which calls are taken, such as `10.0.0.0/8`; needed where the address is not loopback.
    pub allow: Option<Vec<String>>,
    /// Where calls may go in addition to the services: `HOST` or `HOST:PORT`; needed where the address is not loopback,
    /// and may be empty.
    pub to: Option<Vec<String>>,
    /// What identifies the request that a call by legacy belongs to, in addition to the call's `traceparent`: a header
    /// that legacy passes on (`header.x-request-id`), or a value of the call that is equal to one of the request
    /// (`${call.body.order_ref == request.body.ref}`).
    pub correlate: Option<String>,
    /// How long after the end of a request calls are still attributed to it: `10s`, the default.
    pub window: Option<String>,
}

/// Checks the listener.
pub(super) fn check(draft: &EgressDraft, site: &Site, problems: &mut Problems) -> Option<EgressListener> {
    let listen_site = site.key("listen");
    let address = address(&draft.listen, &listen_site, problems);
    let allow = list(draft.allow.as_deref(), &site.key("allow"), EGRESS_NETWORKS_MAX, Network::parse, problems);
    let to = list(draft.to.as_deref(), &site.key("to"), EGRESS_DESTINATIONS_MAX, Destination::parse, problems);
    if draft.allow.as_ref().is_some_and(Vec::is_empty) {
        problems
            .error(&site.key("allow"), "the list names no network, so no call would be taken")
            .hint("name the networks of legacy, or leave `allow` out on a loopback address");
    }
    for (index, destination) in to.iter().enumerate().filter(|(index, one)| to[..*index].contains(one)) {
        problems.warn(&site.key("to").index(index), format!("`{destination}` is listed twice"));
    }
    let address = address?;
    let is_open = !address.ip().is_loopback();
    if is_open && draft.allow.is_none() {
        problems
            .error(
                &listen_site,
                format!("calls on {address} can come from other machines, and nothing says from which"),
            )
            .hint("add `egress.allow: [10.0.0.0/8]` with the networks of legacy, or listen on 127.0.0.1");
    }
    if is_open && draft.to.is_none() {
        problems
            .error(
                &listen_site,
                format!(
                    "`egress.to` is missing: {address} can be reached from other machines, so the destinations of \
                     calls have to be listed"
                ),
            )
            .hint("add `egress.to: [api.example.org:443]`; `to: []` allows the declared services only");
    }
    Some(EgressListener { address, allow, to })
}

/// The entries of a list that are valid.
fn list<T>(
    texts: Option<&[String]>,
    site: &Site,
    entries_max: usize,
    parse: impl Fn(&str) -> Result<T, (String, String)>,
    problems: &mut Problems,
) -> Vec<T> {
    let texts = texts.unwrap_or_default();
    if texts.len() > entries_max {
        problems.error(site, format!("{} entries are too many: at most {entries_max}", texts.len()));
    }
    let mut parsed = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match parse(text) {
            Ok(value) => parsed.push(value),
            Err((message, hint)) => {
                problems.error(&site.index(index), message).hint(hint);
            }
        }
    }
    parsed
}
