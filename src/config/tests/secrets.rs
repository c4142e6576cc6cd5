//! Files that are checked on a machine without any of their secrets.

use super::set::{ROUTES, Set};
use crate::config::{Overrides, read};

const ADMIN: &str = "admin: { listen: 127.0.0.1:8081, tokens: [{ name: ops, file: ops.token, may: [decide] }] }";
const CALLER: &str = "caller: { jwt: { keys: issuer.json, audience: shop } }";
const ASKING: &str = "steps:\n  sure: { checkpoint: { question: Sure?, who: [ops] }, rehearse: {} }";
/// The public key of the example in RFC 8037, appendix A.2.
const KEYS: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

fn set() -> Set {
    Set::valid()
        .edit("pointsman.yaml", "admin: { listen: 127.0.0.1:8081 }", ADMIN)
        .put("routes/orders.yaml", ROUTES.replace("    compare:", &format!("    {CALLER}\n    compare:")))
        .edit("workflows/create-order.yaml", "steps:", ASKING)
}

/// The messages about a set that is read without secrets, and the scope of its route's retry keys.
fn without_secrets(set: &Set) -> (Vec<String>, String) {
    let overrides = Overrides { secrets_may_be_absent: true, ..Overrides::default() };
    let loaded = read(&set.dir(), &overrides).unwrap_or_else(|failed| panic!("{}", failed.render(false)));
    let messages = loaded.warnings.0.iter().map(|finding| finding.message.clone()).collect();
    (messages, loaded.setup.routes[0].caller.describe())
}

#[test]
fn a_machine_without_the_secrets_checks_the_rest_of_the_files_as_one_with_them() {
    let with_secrets = set().put("ops.token", "0123456789abcdef").put("issuer.json", KEYS);
    let loaded = with_secrets.read().unwrap_or_else(|failed| panic!("{}", failed.render(false)));
    let expected = "issuer and subject of a verified token for `shop` (1 key), and without one the value of \
                    `authorization`";
    assert_eq!((loaded.warnings.0.len(), loaded.setup.routes[0].caller.describe().as_str()), (0, expected));

    let (messages, scope) = without_secrets(&set());
    assert_eq!(scope, expected.replace("1 key", "keys not read"));
    // One warning for each absent file, and none that says that no token is named `ops`.
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[0].contains("ops.token") && messages[1].contains("issuer.json"), "{messages:?}");
}

#[test]
fn an_unreadable_file_of_an_issuers_keys_is_treated_as_missing() {
    let set = set().put("ops.token", "0123456789abcdef").put("issuer.json/file", "");
    let (messages, scope) = without_secrets(&set);
    assert_eq!(messages, ["the file `issuer.json` cannot be read on this machine"]);
    assert!(scope.contains("keys not read"), "{scope}");
    assert!(set.shown().contains("not a regular file"), "{}", set.shown());
}
