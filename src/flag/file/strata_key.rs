//! The check of `promote.strata_by`.

use super::PromoteDraft;
use super::parts::template;
use crate::flag::StratumKey;
use crate::problem::{Problems, Site};
use crate::secret::is_secret;

/// Checks the key by which kinds of requests are told apart. `site`: that of `promote:`; `params`: the parameters of
/// the route's path. Its values are stored and shown, so it must not read a secret.
pub fn check_strata_key(
    draft: &PromoteDraft,
    params: &[&str],
    site: &Site,
    problems: &mut Problems,
) -> Option<StratumKey> {
    let site = site.key("strata_by");
    let template = template(draft.strata_by.as_ref()?, params, &site, problems)?;
    let names = template.reads().iter().filter_map(|read| read.part(1));
    for name in names.filter(|name| is_secret(name)) {
        let message = format!("`{name}` is the name of a secret, and the values of `strata_by` are stored and shown");
        problems.error(&site, message).hint("read something that is not secret");
    }
    Some(StratumKey::new(template))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::flag::file::tests::only_problem;

    #[test]
    fn it_reads_the_head_of_the_request_and_no_secret() {
        for (key, expected) in [
            ("${request.body.channel}", "the expression reads `request.body`, but the decision is made before"),
            ("${legacy.status}", "`legacy` cannot be read here"),
            ("${request.headers.authorization}", "`authorization` is the name of a secret, and the values of"),
            ("${request.query.card_number}", "`card_number` is the name of a secret"),
        ] {
            let found = only_problem(json!({ "promote": { "strata_by": key } }));
            assert!(found.starts_with(&format!("error r.yaml.routes[0].promote.strata_by: {expected}")), "{found}");
        }
        let found = only_problem(json!({ "promote": { "strata_by": "web" } }));
        assert!(found.starts_with("warning r.yaml.routes[0].promote.strata_by: `web` reads nothing"), "{found}");
    }
}
