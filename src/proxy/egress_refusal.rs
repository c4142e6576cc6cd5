//! Why a call by legacy is not passed on by the egress listener.

use http::StatusCode;

/// Why a call by legacy is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EgressRefusal {
    /// The path does not begin with the name of a service.
    NoService,
    /// The URL is below no base URL of a service, and its host is not listed.
    NotListed,
    /// The address is one of this process's own.
    Loop,
}

impl EgressRefusal {
    /// All refusals.
    #[cfg(test)]
    pub(super) const ALL: [Self; 3] = [Self::NoService, Self::NotListed, Self::Loop];

    /// Returns the problem's parts: status, kind, title, and reason.
    pub(super) fn describe(self) -> (StatusCode, &'static str, &'static str, &'static str) {
        match self {
            Self::NoService => (
                StatusCode::NOT_FOUND,
                "egress-no-service",
                "The path names no service",
                "The path of a call begins with the name of a service (`/SERVICE/...`), one of those under `services:`.",
            ),
            Self::NotListed => (
                StatusCode::FORBIDDEN,
                "egress-not-listed",
                "Calls may not go there",
                "The URL is below no base URL of a service, and its host and port are not listed under `egress.to` (calls \
                 over https to a listed host use CONNECT).",
            ),
            Self::Loop => (
                StatusCode::LOOP_DETECTED,
                "loop",
                "The call would come back to this process",
                "The address leads to a listener of this process.",
            ),
        }
    }
}
