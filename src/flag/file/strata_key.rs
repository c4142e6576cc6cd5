//! The check of `promote.strata_by`.

use super::PromoteDraft;
use super::parts::template;
use crate::expression::ReadPath;
use crate::flag::StratumKey;
use crate::problem::{Problems, Site};
use crate::secret::RedactRules;

const STORED: &str = "the values of `strata_by` are stored and shown";

/// Checks the key by which kinds of requests are told apart. `site`: that of `promote:`; `params`: the parameters of
/// the route's path; `redact`: what is declared as secret. Its values are stored and shown, so it must not read a
/// secret.
pub fn check_strata_key(
    draft: &PromoteDraft,
    params: &[&str],
    redact: &RedactRules,
    site: &Site,
    problems: &mut Problems,
) -> Option<StratumKey> {
    let site = site.key("strata_by");
    let template = template(draft.strata_by.as_ref()?, params, &site, problems)?;
    for why in secrets_read(template.reads(), params, redact) {
        problems
            .error(&site, format!("{why}, and {STORED}"))
            .hint("read one header or parameter that is not secret, by its name: ${request.headers[\"x-channel\"]}");
    }
    Some(StratumKey::new(template, redact.text_hash()))
}

/// Checks that a route's `strata_by`, if it is that of pointsman.yaml, reads nothing that is secret in this route.
/// `site`: where the route declares what is secret.
pub(super) fn check_inherited_key(
    key: &StratumKey,
    params: &[&str],
    redact: &RedactRules,
    site: &Site,
    problems: &mut Problems,
) {
    for why in secrets_read(key.reads(), params, redact) {
        let message = format!("of this route, {why}: `promote.strata_by` of pointsman.yaml reads it, and {STORED}");
        problems.error(site, message).hint("give the route a `promote: { strata_by: … }` of its own");
    }
}

/// What the key reads that is, or may be, a secret.
fn secrets_read(reads: &[ReadPath], params: &[&str], redact: &RedactRules) -> Vec<String> {
    let secret_param = params.iter().find(|param| redact.is_secret(param));
    let why_secret = |read: &ReadPath| match (read.part(0)?, read.part(1)) {
        // The name is computed, or all values are read: any of the values may be a secret.
        ("headers" | "query" | "params", None) => {
            Some(format!("`{read}` is read as a whole, or with a computed name, and may have secrets"))
        }
        (_, Some(name)) if redact.is_secret(name) => Some(format!("`{name}` is the name of a secret")),
        ("path", None) => secret_param.map(|param| format!("`{read}` has the parameter `{param}`, which is a secret")),
        _ => None,
    };
    reads.iter().filter(|read| read.root() == "request").filter_map(why_secret).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::expression::Template;
    use crate::flag::Promote;
    use crate::flag::file::tests::{known_names, messages, only_problem, with};
    use crate::flag::file::{KnownNames, check_routes};
    use crate::secret::TextHash;

    #[test]
    fn strata_by_reads_the_head_of_the_request_and_no_secret() {
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

    #[test]
    fn strata_by_reads_no_computed_name_and_no_secret_of_the_route() {
        let whole =
            |of: &str| format!("`request.{of}` is read as a whole, or with a computed name, and may have secrets");
        let declared = json!({ "names": ["x-customer"] });
        for (key, redact, expected) in [
            ("${request.headers[\"author\" + \"ization\"]}", json!({}), whole("headers")),
            ("${request.headers[request.query.h]}", json!({}), whole("headers")),
            ("${request.headers.filter(h, h.startsWith(\"auth\"))[0]}", json!({}), whole("headers")),
            ("${string(size(request.query))}", json!({}), whole("query")),
            ("${request.headers[\"X-Customer\"]}", declared.clone(), "`x-customer` is the name of a secret".to_owned()),
            ("${request.query[\"of[x_customer]\"]}", declared, "`of[x_customer]` is the name of a secret".to_owned()),
        ] {
            let found = only_problem(json!({ "promote": { "strata_by": key }, "redact": redact }));
            let expected = format!("error r.yaml.routes[0].promote.strata_by: {expected}, and the values of");
            assert!(found.starts_with(&expected), "{key}: {found}");
        }
    }

    /// The problems that a patch causes, where `promote:` of pointsman.yaml says this.
    fn messages_with(promote: &Promote, patch: Value) -> Vec<String> {
        let draft = serde_json::from_value(with(patch)).unwrap();
        let (services, workflows) = known_names();
        let known = KnownNames {
            services: &services,
            workflows: &workflows,
            promote,
            guard: None,
            redact: &RedactRules::default(),
            read_file: &|_| Ok(None),
        };
        let mut problems = Problems::default();
        check_routes(&[(Site::file("r.yaml").key("routes").index(0), draft)], &known, &mut problems);
        messages(&problems)
    }

    #[test]
    fn an_inherited_key_reads_no_secret_of_the_route() {
        let by_default = "${default(request.headers[\"x-customer\"], request.path)}";
        let of = |patch: Value| {
            let template = Template::parse_str(by_default).unwrap();
            let promote = Promote { strata_by: Some(StratumKey::new(template, &TextHash::None)), ..Promote::default() };
            messages_with(&promote, patch)
        };
        assert_eq!(of(json!({})), Vec::<String>::new());
        assert_eq!(of(json!({ "redact": { "names": ["customer"] } })), Vec::<String>::new());
        let found = of(json!({ "redact": { "names": ["x-customer"] } }));
        assert!(
            found[0].starts_with("error r.yaml.routes[0].id: of this route, `x-customer` is the name"),
            "{found:?}"
        );
        let found = of(json!({ "match": { "method": "POST", "path": "/reset/{token}" } }));
        assert!(found[0].contains("`request.path` has the parameter `token`, which is a secret"), "{found:?}");
        let own = json!({ "strata_by": "${request.method}" });
        assert_eq!(of(json!({ "redact": { "names": ["x-customer"] }, "promote": own })), Vec::<String>::new());
    }

    #[test]
    fn strata_by_reads_no_path_with_a_secret() {
        let with = |path: &str, key: Value| json!({ "match": { "method": "POST", "path": path }, "promote": { "strata_by": key } });
        let found = only_problem(with("/reset/{token}", json!("${request.path}")));
        assert!(
            found.contains("`request.path` has the parameter `token`, which is a secret, and the values"),
            "{found}"
        );
        let found = only_problem(with("/reset/{token}", json!("${request.params.token}")));
        assert!(found.contains("`token` is the name of a secret"), "{found}");
    }
}
