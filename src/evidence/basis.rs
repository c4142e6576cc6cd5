//! What the evidence of a route depends on, as hashes, and what its parts say.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::part_names::ATTRIBUTION;
use crate::expression::without_literals;
use crate::names::PlanId;

/// What the evidence of a route depends on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvidenceBasis {
    /// A hash of all of it.
    pub hash: String,
    /// Its parts.
    pub parts: BasisParts,
    /// The names of the parts that belong to the route itself: the workflows that it runs, directly or through another
    /// workflow, and the addresses of the services that these call. The other parts belong to its creator or to other
    /// followers, or say how the route is compared.
    pub own_parts: BTreeSet<String>,
    /// The plan of the route's own workflow.
    pub plan: Option<PlanId>,
    /// A hash of what legacy's replies and their comparison depend on; empty if the route is not declared safe to
    /// repeat.
    pub noise: String,
    /// As `noise`, without the rules.
    pub noise_apart_from_rules: String,
    /// The rules as JSON, as [`Rules::shown_draft`](crate::compare::Rules::shown_draft) writes them; empty if they
    /// compare nothing of the replies.
    pub rules: String,
    /// What the gates of the route ask for. Not part of the hash: it decides no verdict on a pair.
    pub wanted: WantedPairs,
}

/// How many pairs the gates of a route ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WantedPairs {
    /// [`crate::flag::Promote::pairs`].
    pub pairs: u64,
    /// [`crate::flag::Promote::mismatch_below`].
    pub mismatch_below: f64,
}

/// The parts of a basis, by name as [`changed`](super::EvidenceRestart::changed) lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BasisParts {
    /// A hash of each part.
    #[serde(rename = "parts", default)]
    pub hashes: BTreeMap<String, String>,
    /// The text of each part. That of the rules is in [`EvidenceBasis::rules`], unless they compare nothing of the
    /// replies.
    #[serde(rename = "part_values", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

impl BasisParts {
    /// Removes from stored parts what may be secret: an earlier version stored `egress.correlate` with the texts and
    /// numbers of its expression.
    pub(super) fn restored(mut self) -> Self {
        if let Some(value) = self.values.get_mut(ATTRIBUTION)
            && let Some((window, correlate)) = value.split_once("${")
        {
            *value = format!("{window}${{{}", without_literals(correlate));
        }
        self
    }

    /// Whether `other` has the same hashes of the parts with these names.
    pub(super) fn are_same(&self, other: &BTreeMap<String, String>, parts: &[&str]) -> bool {
        parts.iter().all(|part| self.hashes.get(*part) == other.get(*part))
    }
}

#[cfg(test)]
impl<const N: usize> From<[(String, String); N]> for BasisParts {
    fn from(hashes: [(String, String); N]) -> Self {
        Self { hashes: hashes.into(), values: BTreeMap::new() }
    }
}

impl From<&str> for EvidenceBasis {
    fn from(hash: &str) -> Self {
        Self { hash: hash.to_owned(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_an_earlier_version_stored_are_masked() {
        let source = r#"window: 10s, correlate: ${call.body.ref == default(request.headers["x-ref"], "hunter2")}"#;
        let values = |text: &str| BasisParts {
            values: [(ATTRIBUTION.to_owned(), text.to_owned())].into(),
            ..BasisParts::default()
        };
        let shown = values(source).restored();
        let expected = r#"window: 10s, correlate: ${call.body.ref == default(request.headers["x-ref"], "***")}"#;
        assert_eq!(shown, values(expected));
        assert_eq!(shown.clone().restored(), shown);
        let header = values("window: 10s, correlate: header.x-id");
        assert_eq!(header.clone().restored(), header);
    }
}
