//! Checks what is declared as `sensitive:`, and whether it can be sealed.

use super::context::Check;
use crate::names::StepId;
use crate::problem::Site;
use crate::workflow::definition::{StepDraft, WorkflowDraft};
use crate::workflow::{Sensitive, SensitivePath};

impl Check<'_> {
    /// Checks the declarations for the request and for every step.
    pub(super) fn sensitive(&mut self, draft: &WorkflowDraft, site: &Site) -> Sensitive {
        let at = site.key("input");
        let input = draft.input.clone().unwrap_or_default();
        let body = self.paths(&input.sensitive, &at.key("sensitive"));
        if !input.sensitive_headers.is_empty() {
            self.report_missing_key(&at.key("sensitive_headers"));
        }
        let headers = input.sensitive_headers.iter().map(|name| name.to_ascii_lowercase()).collect();
        let drafts: Vec<(String, Site, StepDraft)> =
            self.steps.iter().map(|(name, site, step)| ((*name).to_owned(), site.clone(), step.clone())).collect();
        let mut steps = Vec::new();
        for (name, site, step) in drafts.into_iter().filter(|(_, _, step)| !step.sensitive.is_empty()) {
            let at = site.key("sensitive");
            if step.fail.is_some() {
                let message = "a `fail` step has no output, so `sensitive` has nothing to apply to: remove it";
                self.problems.error(&at.clone().at_key(), message);
            }
            steps.push((StepId::new(name), self.paths(&step.sensitive, &at)));
        }
        Sensitive { body, headers, steps }
    }

    fn paths(&mut self, texts: &[String], at: &Site) -> Vec<SensitivePath> {
        if !texts.is_empty() {
            self.report_missing_key(at);
        }
        let mut paths = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match SensitivePath::parse(text) {
                Ok(path) => paths.push(path),
                Err(message) => drop(self.problems.error(&at.index(index), message)),
            }
        }
        paths
    }

    /// Reports an error if no `store_key` is declared: sensitive values could not be sealed.
    fn report_missing_key(&mut self, at: &Site) {
        if !self.known.has_store_key && !self.is_stored_definition {
            let message = "a sensitive value would be stored in clear, because there is no `store_key` to seal it with";
            let hint = "declare `store_key: { file: … }` in pointsman.yaml";
            self.problems.error(&at.clone().at_key(), message).hint(hint);
        }
    }
}
