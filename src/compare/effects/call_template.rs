//! The calls that a workflow may make, as far as they are known before it runs.

use std::collections::BTreeSet;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::names::{ServiceName, StepId};

/// Stands for a path segment that contains a value. No segment of a URL can be written like this.
pub(in crate::compare) const VALUE: &str = "{}";

/// A call that a workflow may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallTemplate {
    /// The step, or `STEP.undo`, below other steps if a child workflow makes the call (`ship/label`). `None` if no
    /// intent of the call is compared.
    pub step: Option<StepId>,
    /// The service.
    pub service: ServiceName,
    /// The method.
    pub method: Method,
    /// The path of the whole URL, with `{}` in place of each segment that contains a value.
    pub path: String,
    /// What the call does, and whether it is recorded.
    pub role: CallRole,
    /// Whether the step, where it is rehearsed, takes its output from the call by legacy that corresponds.
    pub takes_reply: bool,
    /// The steps that have ended before the call is sent: those that its step needs, directly or through others.
    pub after: BTreeSet<StepId>,
    /// The outermost step that runs a workflow for each item, if the call is below one: the runs of the items are under
    /// way at the same time.
    pub fan_out: Option<StepId>,
}

/// What a call of a workflow does to the world, and whether a comparison gets an intent of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallRole {
    /// The call touches what legacy also touches.
    Shared,
    /// The call writes only what the engine alone owns; legacy may not make such a call.
    Private,
    /// The call reads. It is sent, and therefore not recorded, unless the step has a `rehearse:`.
    Read {
        /// Whether an intent is recorded.
        is_recorded: bool,
    },
    /// A child workflow makes the call, and no intent of the call is compared: the child workflow runs itself
    /// recursively, or the step that runs it begins no run in `shadow`.
    NotCompared {
        /// Whether it does more than read.
        is_effect: bool,
    },
}

impl CallTemplate {
    /// Whether the call only reads.
    pub(super) fn reads(&self) -> bool {
        matches!(self.role, CallRole::Read { .. })
    }

    /// Whether the call only reads and is sent, also in `shadow` and `dark`.
    pub(super) fn sends_read(&self) -> bool {
        self.role == CallRole::Read { is_recorded: false }
    }

    /// Whether the template fits any path of its length, because all segments are values.
    pub(super) fn fits_any_path(&self) -> bool {
        let mut segments = self.path.split('/').filter(|segment| !segment.is_empty()).peekable();
        segments.peek().is_some() && segments.all(|segment| segment == VALUE)
    }

    /// Whether a call to the same service with this method and path fits the template.
    pub(in crate::compare) fn matches(&self, method: &Method, path: &str) -> bool {
        self.method == *method && path_matches(&self.path, path)
    }
}

/// Whether a path has the segments of a template.
pub(in crate::compare) fn path_matches(template: &str, path: &str) -> bool {
    let (mut template, mut path) = (template.split('/'), path.split('/'));
    loop {
        match (template.next(), path.next()) {
            (None, None) => return true,
            (Some(VALUE), Some(value)) if !value.is_empty() => {}
            (Some(literal), Some(segment)) if is_same_segment(literal, segment) => {}
            _ => return false,
        }
    }
}

/// Whether two segments are equal after percent-decoding.
fn is_same_segment(a: &str, b: &str) -> bool {
    a == b || (a.contains('%') || b.contains('%')) && percent_decode_str(a).eq(percent_decode_str(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_fills_one_segment() {
        for (template, path, matches) in [
            ("/charges", "/charges", true),
            ("/charges", "/charge", false),
            ("/charges", "/charges/", false),
            ("/charges", "/v1/charges", false),
            ("/orders/{}/cancel", "/orders/17/cancel", true),
            ("/orders/{}/cancel", "/orders//cancel", false),
            ("/orders/{}/cancel", "/orders/17/18/cancel", false),
            ("/a%20b/{}", "/a%20b/x", true),
            ("/a-b", "/a%2Db", true),
            ("/", "/", true),
        ] {
            assert_eq!(path_matches(template, path), matches, "{template} {path}");
        }
    }
}
