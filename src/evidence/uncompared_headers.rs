//! Counts the headers of replies that the rules of a route do not compare, so that nobody takes them for equal.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_change::add_change;
use crate::compare::UncomparedHeader;

/// The most headers that are counted separately.
const HEADERS_MAX: usize = 64;
/// The longest name that is counted separately.
const NAME_BYTES_MAX: usize = 128;

/// The headers of replies that the rules do not compare, since the workflow or the rules last changed. Values are not
/// kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UncomparedHeaders {
    /// By the name of the header, for the first 64 names.
    pub names: BTreeMap<String, UncomparedHeaderCounts>,
    /// How often a header was not counted because too many are known, or its name is too long.
    pub unlisted: u64,
}

add_change!(UncomparedHeaders { sum names, sum unlisted });

/// In how many pairs one header occurred that the rules do not compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UncomparedHeaderCounts {
    /// Pairs of which at least one reply had it.
    pub pairs: u64,
    /// Of these, those in which its values were not the same, byte for byte.
    pub differs: u64,
}

add_change!(UncomparedHeaderCounts { sum pairs, sum differs });

impl UncomparedHeaders {
    /// Counts the headers of one pair. Allocates only for a name that is not known yet.
    pub(super) fn count<'p>(&mut self, headers: impl Iterator<Item = UncomparedHeader<'p>>) {
        for UncomparedHeader { name, differs } in headers {
            let name = name.as_str();
            if let Some(counts) = self.names.get_mut(name) {
                counts.add(differs);
            } else if self.names.len() < HEADERS_MAX && name.len() <= NAME_BYTES_MAX {
                self.names.entry(name.to_owned()).or_default().add(differs);
            } else {
                self.unlisted += 1;
            }
        }
    }
}

impl UncomparedHeaderCounts {
    fn add(&mut self, differs: bool) {
        self.pairs += 1;
        self.differs += u64::from(differs);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::header::SET_COOKIE;

    use super::*;
    use crate::evidence::{Evidence, testing};
    use crate::names::RouteId;

    fn header(name: &HeaderName, differs: bool) -> UncomparedHeader<'_> {
        UncomparedHeader { name, differs }
    }

    #[test]
    fn names_are_counted_up_to_a_bound() {
        let mut counts = UncomparedHeaders::default();
        counts.count([header(&SET_COOKIE, true)].into_iter());
        counts.count([header(&SET_COOKIE, false)].into_iter());
        let of_cookies = UncomparedHeaderCounts { pairs: 2, differs: 1 };
        assert_eq!(counts, UncomparedHeaders { names: [("set-cookie".to_owned(), of_cookies)].into(), unlisted: 0 });
        let long: HeaderName = "x".repeat(NAME_BYTES_MAX + 1).parse().unwrap();
        counts.count([header(&long, false)].into_iter());
        assert_eq!((counts.names.len(), counts.unlisted), (1, 1));
        for n in 0..HEADERS_MAX {
            let name: HeaderName = format!("x-{n}").parse().unwrap();
            counts.count([header(&name, false)].into_iter());
        }
        assert_eq!((counts.names.len(), counts.unlisted), (HEADERS_MAX, 2));
        counts.count([header(&SET_COOKIE, true)].into_iter());
        assert_eq!(counts.names["set-cookie"], UncomparedHeaderCounts { pairs: 3, differs: 2 });
    }

    #[tokio::test]
    async fn uncompared_headers_belong_to_the_evidence_in_force_and_survive_a_restart() {
        let (evidence, store) = testing::evidence().await;
        let route = RouteId::from("orders");
        evidence.set_basis(0, &[(route.clone(), "one".into())]);
        let before = evidence.generation(&route, 0);
        let count = |generation| {
            evidence.record_uncompared_headers(&route, generation, [header(&SET_COOKIE, true)].into_iter())
        };
        count(before);
        evidence.flush().await.unwrap();
        let loaded = Evidence::load(store).await.unwrap().of(&route).uncompared_headers;
        assert_eq!(loaded.names["set-cookie"], UncomparedHeaderCounts { pairs: 1, differs: 1 });
        evidence.set_basis(1, &[(route.clone(), "two".into())]);
        count(before);
        assert_eq!(evidence.of(&route).uncompared_headers, UncomparedHeaders::default());
        count(evidence.generation(&route, 1));
        assert_eq!(evidence.of(&route).uncompared_headers.names["set-cookie"].pairs, 1);
    }
}
