//! Refuses secrets that the request that lists legacy's instances (`instance.alive`) reads and that no file declares.

use std::collections::BTreeMap;

use super::checked_files::PlacedRoute;
use crate::problem::{Problems, nearest};
use crate::secret::Secret;

/// Checks the headers of each such request.
pub(crate) fn check(secrets: &BTreeMap<String, Secret>, routes: &[PlacedRoute], problems: &mut Problems) {
    for (site, route) in routes {
        let Some(alive) = &route.lifetime.alive else { continue };
        for (header, template) in &alive.headers {
            let site = site.key("instance").key("alive").key("headers").key(header.as_str());
            for read in template.reads().iter().filter(|read| read.root() == "secrets") {
                let name = read.part(0).unwrap_or_default();
                if secrets.contains_key(name) {
                    continue;
                }
                let problem = problems.error(&site, format!("no secret is called `{name}`"));
                match nearest(name, secrets.keys().map(String::as_str)) {
                    Some(near) => problem.hint(format!("did you mean `{near}`?")),
                    None => problem.hint("declare it under `secrets:` in pointsman.yaml"),
                };
            }
        }
    }
}
