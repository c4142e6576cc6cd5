//! Why an exchange was cut: its client did not get a whole answer, or did not take it.
//!
//! Always true: the reasons are a closed set, which `pointsman help access_log` lists; requests that are answered with
//! a problem have the reasons of `failure` instead.

use metrics::counter;

/// Why an exchange was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CutReason {
    /// The client closed or reset its connection, or only its sending side and then took nothing for
    /// `client_half_close_ms`.
    ClientGone,
    /// The client took nothing of the answer for the `idle` time of the route or service, or `body_idle_ms`.
    ClientStalled,
    /// The client read the answer more slowly than `client_read_bytes_per_s_min`.
    ClientSlow,
    /// Legacy's connection ended before its reply did.
    LegacyReplyBroken,
    /// Legacy sent nothing more of its reply for the `idle` time of the route or service, or `body_idle_ms`.
    LegacyReplyStalled,
    /// Legacy sent its reply more slowly than `legacy_send_bytes_per_s_min`.
    LegacyReplySlow,
    /// The service whose reply the engine streams closed its connection before the reply ended.
    ServiceReplyBroken,
    /// The service whose reply the engine streams sent nothing more for its `idle` time, or `body_idle_ms`.
    ServiceReplyStalled,
    /// The service whose reply the engine streams sent more slowly than `legacy_send_bytes_per_s_min`.
    ServiceReplySlow,
    /// The exchange took longer than the `total` time of the route or service, or `total_ms`.
    Timeout,
    /// The process stopped, and the exchange did not end within `drain_ms`; or it handed over to a successor, and the
    /// exchange did not end in the time for that.
    Drain,
    /// Nothing moved in a tunnel for `client_idle_ms`.
    TunnelIdle,
    /// The client violated HTTP/2, or sent more resets or control frames than it may, and its connection was closed.
    Http2Error,
}

impl CutReason {
    /// The name in the access log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            CutReason::ClientGone => "client-gone",
            CutReason::ClientStalled => "client-stalled",
            CutReason::ClientSlow => "client-slow",
            CutReason::LegacyReplyBroken => "legacy-reply-cut",
            CutReason::LegacyReplyStalled => "legacy-reply-stalled",
            CutReason::LegacyReplySlow => "legacy-reply-slow",
            CutReason::ServiceReplyBroken => "service-reply-cut",
            CutReason::ServiceReplyStalled => "service-reply-stalled",
            CutReason::ServiceReplySlow => "service-reply-slow",
            CutReason::Timeout => "timeout",
            CutReason::Drain => "drain-cut",
            CutReason::TunnelIdle => "tunnel-idle",
            CutReason::Http2Error => "http2-error",
        }
    }

    /// Returns the reason with a service in the place of legacy, for a reply that came from a service that a step
    /// called. The code that cuts an exchange does not know whose reply it passes on, and names legacy.
    pub(super) fn of_service(self) -> Self {
        match self {
            CutReason::LegacyReplyBroken => CutReason::ServiceReplyBroken,
            CutReason::LegacyReplyStalled => CutReason::ServiceReplyStalled,
            CutReason::LegacyReplySlow => CutReason::ServiceReplySlow,
            other => other,
        }
    }

    /// Counts an exchange that was cut. Rare, so the series is looked up by name.
    pub(super) fn count(self) {
        counter!("pointsman_exchanges_cut_total", "reason" => self.as_str()).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_lists_every_reason() {
        let all = [
            CutReason::ClientGone,
            CutReason::ClientStalled,
            CutReason::ClientSlow,
            CutReason::LegacyReplyBroken,
            CutReason::LegacyReplyStalled,
            CutReason::LegacyReplySlow,
            CutReason::ServiceReplyBroken,
            CutReason::ServiceReplyStalled,
            CutReason::ServiceReplySlow,
            CutReason::Timeout,
            CutReason::Drain,
            CutReason::TunnelIdle,
            CutReason::Http2Error,
        ];
        let page = include_str!("../docs/access_log.md");
        let (_, section) = page.split_once("## Why an exchange failed").expect("the section");
        let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
        let listed: Vec<_> = rows.filter(|first| *first != "failure").collect();
        assert_eq!(listed, all.map(CutReason::as_str));
    }
}
