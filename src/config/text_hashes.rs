//! Puts a keyed hash beside what is masked in the texts of rules, once the store, which has the key, is open.

use std::sync::Arc;

use super::route_rules::RouteRules;
use super::setup::{Loaded, Setup};
use crate::names::RouteId;
use crate::secret::TextHash;

impl Loaded {
    /// The same files, as [`Setup::with_text_hash`].
    #[must_use]
    pub fn with_text_hash(self, text_hash: &TextHash) -> Self {
        Self { setup: self.setup.with_text_hash(text_hash), ..self }
    }
}

impl Setup {
    /// The same set with this hash in it. It is put beside each masked part of the texts that rules are shown with:
    /// those of `compare:`, invariants, `strata_by:` and cohorts.
    #[must_use]
    pub fn with_text_hash(&self, text_hash: &TextHash) -> Self {
        let mut setup = self.clone();
        setup.routes = self.routes.iter().map(|route| Arc::new(route.with_text_hash(text_hash))).collect();
        let masked = self.rules.iter().filter(|(_, rules)| rules.have_masked_texts());
        let checked: Vec<(RouteId, _)> = masked
            .filter_map(|(id, rules)| Some((id.clone(), RouteRules::of(&setup, id)?.check_draft(rules.draft())?)))
            .collect();
        setup.rules.extend(checked.into_iter().map(|(id, rules)| (id, Arc::new(rules))));
        setup
    }
}
