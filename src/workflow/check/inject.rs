//! Checks `inject`: values that a rehearsal takes from legacy.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::context::Check;
use super::names::{ExpressionContext, Usage};
use crate::expression::Template;
use crate::problem::Site;
use crate::workflow::Inject;
use crate::workflow::definition::InjectDraft;

/// The roots that it may read: nothing else is known before the run begins.
const READS: [&str; 2] = ["request", "legacy"];

impl Check<'_> {
    pub(super) fn inject(&mut self, draft: &InjectDraft, site: &Site) -> Inject {
        let InjectDraft { now, uuid, random } = draft;
        let now = now.as_ref().and_then(|text| self.injected(text, &site.key("now")));
        let mut all = |drafts: &BTreeMap<String, String>, key: &str| -> BTreeMap<String, Template> {
            let site = site.key(key);
            let value =
                |(name, text): (&String, &String)| Some((name.clone(), self.injected(text, &site.key(name.as_str()))?));
            drafts.iter().filter_map(value).collect()
        };
        Inject { now, uuids: all(uuid, "uuid"), randoms: all(random, "random") }
    }

    fn injected(&mut self, text: &str, site: &Site) -> Option<Template> {
        let mut needs = BTreeSet::new();
        let mut context = ExpressionContext { usage: Usage::Rehearse, item: false, needs: &mut needs, extra: &[] };
        let template = self.template(&Value::from(text), site, &mut context)?;
        if let Some(path) = template.reads().iter().find(|path| !READS.contains(&path.root())) {
            self.problems
                .error(site, format!("`inject` reads `request` and `legacy`, not `{}`", path.root()))
                .hint("it is evaluated before the run begins");
            return None;
        }
        if template.reads().iter().all(|path| path.root() != "legacy") {
            self.problems
                .error(site, "the injected value reads nothing of legacy's reply")
                .hint("${legacy.body.created_at}, ${legacy.headers.date}");
            return None;
        }
        Some(template)
    }
}
