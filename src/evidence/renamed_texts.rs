//! Renames the texts under which evidence is counted, such as those of rules. What is secret in a text is masked, and a
//! hash of it stands beside the mask; if the key of this hash changes, the same rule has another text.
//!
//! Always true: the counts do not change. Only texts of the rules in the files can be renamed; evidence of earlier
//! rules keeps the texts under which it was counted.

use std::collections::BTreeMap;

use super::Evidence;
use super::counters::Counters;
use super::route::RouteEvidence;
use crate::names::RouteId;

/// By each text that the store may have: the same text as it is written now.
pub type RenamedTexts = BTreeMap<String, String>;

impl Evidence {
    /// Renames the texts under which the evidence of a route is counted: rules, invariants, the key of strata, the
    /// rules of cohorts. Call it before [`Evidence::set_basis`].
    pub fn rename_texts(&self, route: &RouteId, renamed: &RenamedTexts) {
        if !renamed.is_empty() {
            let renamed = renamed.clone();
            self.counters(route).lock().edit(move |counters| counters.rename_texts(&renamed));
        }
    }
}

impl Counters {
    fn rename_texts(&mut self, renamed: &RenamedTexts) {
        let kept = self.kept.iter_mut().map(|kept| &mut kept.evidence);
        for evidence in [&mut self.evidence].into_iter().chain(kept) {
            self.dirty |= rename(evidence, renamed);
        }
    }
}

/// Renames the texts in one evidence. Returns whether it had one of them.
fn rename(evidence: &mut RouteEvidence, renamed: &RenamedTexts) -> bool {
    let mut is_changed = false;
    let mut rename = |text: &mut String| {
        if let Some(new) = renamed.get(text.as_str()).filter(|new| *new != text) {
            text.clone_from(new);
            is_changed = true;
        }
    };
    let mut hits = BTreeMap::<String, u64>::new();
    for (mut rule, count) in std::mem::take(&mut evidence.rule_hits) {
        rename(&mut rule);
        *hits.entry(rule).or_default() += count;
    }
    let mut last_hits = BTreeMap::new();
    for (mut rule, at) in std::mem::take(&mut evidence.rule_last_hits) {
        rename(&mut rule);
        let last = last_hits.entry(rule).or_insert(at);
        *last = at.max(*last);
    }
    (evidence.rule_hits, evidence.rule_last_hits) = (hits, last_hits);
    let invariants = std::mem::take(&mut evidence.invariants).into_iter().map(|(mut name, mut counts)| {
        rename(&mut name);
        rename(&mut counts.text);
        (name, counts)
    });
    evidence.invariants = invariants.collect();
    rename(&mut evidence.strata_by.key);
    evidence.cohort_rules.values_mut().for_each(rename);
    is_changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{InvariantCounts, StrataBy, testing};

    #[tokio::test]
    async fn what_was_counted_is_counted_by_the_new_texts() {
        let (evidence, store) = testing::evidence().await;
        let route = RouteId::from("orders");
        evidence.set_basis(0, &[(route.clone(), "one".into())]);
        let of = |hash: &str| RouteEvidence {
            rule_hits: [(format!("ignore $.a ({hash})"), 3), ("ignore $.b".to_owned(), 1)].into(),
            rule_last_hits: [(format!("ignore $.a ({hash})"), jiff::Timestamp::UNIX_EPOCH)].into(),
            invariants: [(
                format!("a ({hash})"),
                InvariantCounts { text: format!("a ({hash})"), held: 7, ..InvariantCounts::default() },
            )]
            .into(),
            strata_by: StrataBy { key: format!("k ({hash})"), values: ["\"web\"".to_owned()].into() },
            cohort_rules: [("staff".to_owned(), hash.to_owned())].into(),
            ..RouteEvidence::default()
        };
        evidence.counters(&route).lock().evidence = of("old");
        let renamed = ["ignore $.a ({})", "a ({})", "k ({})", "{}"];
        let renamed = renamed.map(|text| (text.replace("{}", "old"), text.replace("{}", "new")));
        evidence.rename_texts(&route, &renamed.clone().into());
        assert_eq!(evidence.of(&route), of("new"));
        evidence.flush().await.unwrap();
        assert_eq!(Evidence::load(store).await.unwrap().of(&route), of("new"), "it is written");
        evidence.rename_texts(&route, &renamed.into());
        assert_eq!(evidence.of(&route), of("new"));
    }
}
