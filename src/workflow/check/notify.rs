//! Checks `notify`, the URL to which a message is posted when a run waits for a person.

use super::context::Check;
use crate::expression::UrlTemplate;
use crate::problem::Site;

/// The roots that the URL may read. The request is not among them, because the path is stored and shown.
const READS: [&str; 2] = ["services", "run"];

impl Check<'_> {
    /// Checks that the URL begins with a declared service, and that its path does not read the request.
    pub(super) fn notify(&mut self, text: &str, site: &Site) -> Option<UrlTemplate> {
        let url = match UrlTemplate::parse_within(text, &self.bounds) {
            Ok(url) => url,
            Err(error) => {
                self.report_parse_error(site, &error, 0);
                return None;
            }
        };
        let Some(service) = url.service() else {
            let problem = self.problems.error(site, "`notify` has to go to a declared service, not to an address");
            problem.hint("declare it under `services:` in pointsman.yaml and write `${services.NAME}`".to_owned());
            return None;
        };
        if !self.is_stored_definition && !self.known.services.contains_key(service) {
            self.problems.error(site, format!("there is no service `{service}`"));
            return None;
        }
        if let Some(path) = url.reads().iter().find(|path| !READS.contains(&path.root())) {
            self.problems.error(site, format!("`notify` may read `run`, not `{}`", path.root()));
            return None;
        }
        Some(url)
    }
}
