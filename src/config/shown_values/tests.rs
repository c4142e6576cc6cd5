use crate::config::tests::set::Set;

#[test]
fn values_that_look_like_secrets_are_not_quoted() {
    let valid = "listen: 127.0.0.1:8080\nstore: memory";
    for (line, hidden, shown) in [
        ("secrets: { pay: hunter2 }", "hunter2", "pay: ***"),
        ("secrets:\n  pay: hunter2", "hunter2", "pay: ***"),
        ("secrets:\n  pay:\n    value: hunter2", "hunter2", "value"),
        ("secrets: { pay: { value: hunter2 } }", "hunter2", "value"),
        ("secrets: { pay: { file: /x, password: hunter2, foo: 2 } }", "hunter2", "file: /x, password: ***"),
        ("store_key: 471147", "471147", "store_key: ***"),
        ("store_key: { value: hunter2 }", "hunter2", "value: ***"),
        ("limits: { password: \"hun\\u0074er2\" }", "hun", "password"),
        ("limits: { password: hunter2, queue: 17 }", "hunter2", "password: ***, queue: 17"),
        ("admin: { tokens: [{ name: ops, token: hunter2, may: [reed] }] }", "hunter2", "token: ***, may: [reed]"),
        ("limits: { \"password\": \"hunter2\", n: 1 }", "hunter2", "\"password\": ***, n: 1"),
        ("limits: { n: '{\"password\":\"hunter2\"}' }", "hunter2", "password"),
        ("limits: { headers: { authorization: 'Basic aHVudGVyMg==' } }", "aHVudGVyMg", "headers"),
        ("limits: { bank: 'http://127.0.0.1:9/x?token=hunter2' }", "hunter2", "http://127.0.0.1:9/x?token=***"),
        ("services: { a: 'http://127.0.0.1:9/x?token=hunter2' }\nx: 1", "hunter2", "http://127.0.0.1:9/x?token=***"),
        ("foo: 1 # password: hunter2", "hunter2", "foo: 1 # password: ***"),
        ("listen: 4111 1111 1111 1111", "1111", "listen: ***"),
        ("admin: { listen: \"Bearer abc123def\" }", "abc123def", "Bearer ***"),
        ("password: hunter2\n  token: : x", "hunter2", "***"),
        ("secrets:\n  pay:\n    value: : hunter2", "hunter2", "    ***"),
        ("limits: { password: hunter2, queue: : }", "hunter2", "password: ***"),
    ] {
        let main = format!("{line}\nservices: {{ shop: 'http://127.0.0.1:9' }}\ndefault_legacy: shop\n");
        let found = Set::valid().put("pointsman.yaml", main.as_str()).shown();
        assert!(!found.contains(hidden) && found.contains(shown), "{line}: {found}");
    }
    let other = format!("{valid}\nlimits: {{ queue: 17 }}\n");
    let found = Set::valid().put("pointsman.yaml", other.as_str()).shown();
    assert!(found.contains("queue: 17"), "{found}");
    // A text that is no UTF-8 has no tree either.
    for text in ["secrets:\n  pay: hunter2", "tokens:\n  - hunter2", "token:\n      hunter2", "secrets: {\na: hunter2"]
    {
        let found = Set::valid().put("pointsman.yaml", [text.as_bytes(), b"\xe9\n"].concat().as_slice()).shown();
        assert!(!found.contains("hunter2") && found.contains("not UTF-8"), "{text}: {found}");
    }
    let bytes = b"limits: { password: hunter2, queue: \xff }\n";
    let found = Set::valid().put("pointsman.yaml", bytes).shown();
    assert!(!found.contains("hunter2") && found.contains("not UTF-8"), "{found}");
}

#[test]
fn a_part_that_is_named_after_a_secret_is_quoted() {
    let workflow = "workflow: w\nsteps:\n  auth: { call: 'GET ${services.shop}/a', timeout: 5x }\n\
                    respond: { status: 200 }\n";
    let found = Set::valid().put("workflows/w.yaml", workflow).shown();
    assert!(found.contains("timeout: 5x"), "{found}");
}

/// Keys that stand twice, names like keys that describe a secret, and anchors.
#[test]
fn no_way_to_write_a_secret_shows_it() {
    for text in [
        "secrets:\n  pay: hunter1\n  pay: hunter2",
        "store_key: hunter1\nstore_key: hunter2",
        "limits: { token: a, token: hunter2 }",
        "admin: { tokens: [{ name: a, token: b, token: hunter2 }] }",
        "secrets: { pay: a }\nsecrets: { pay: hunter2 }",
        "limits: { store_password: 1, store_password: { value: hunter2 } }",
        "secrets: { name: hunter2 }",
        "secrets:\n  file: hunter2",
        "secrets: { env: [hunter2], may: { may: hunter2 } }",
        "secrets: { pay: { file: { name: hunter2 } } }",
        "x: &a hunter2\nsecrets: { pay: *a }",
        "x: [&a hunter2]\nsecrets: { pay: *a }",
        "x: &m { pay: hunter2 }\nsecrets: *m",
        "secrets: { pay: *a, x: &a hunter2 }",
        "secrets: { pay: &hunter2 }",
        "secrets: { pay: *hunter2 }",
        "secrets: { pay: !hunter2 }",
        "secrets:\n  pay: !hunter2 x",
        "store: u:hunter2@h/db",
        "store: postgres:/u:hunter2@h/db",
        "store: postgresql:u:hunter2",
        "store: postgres://h/db?user=u&passwd=hunter2",
        "store: redis:u:hunter2@h",
        "store_direct: u:hunter2@h/db",
        "store_kye: hunter2",
        "store_pasword: hunter2",
        "pasword: hunter2",
        "secert: hunter2",
        "tokn: hunter2",
        "store_keys: hunter2",
        "redact_key: hunter2",
        "? store_key\n# a comment\n: hunter2: x",
        "? [store_key, hunter2]\n: x",
        "? store_key\n:\n  hunter2: x: y",
        "\"store\\u005fkey\": hunter2: x",
        "\"store\\x5fkey\": [hunter2",
        "\"store_\n key\": hunter2: x",
        "storeKey: hunter2: x",
        "store_key: {env: hunter2}",
    ] {
        let main = format!("{text}\nservices: {{ shop: 'http://127.0.0.1:9' }}\ndefault_legacy: shop\n");
        let found = Set::valid().put("pointsman.yaml", main.as_str()).shown();
        assert!(!found.contains("hunter2") && !found.is_empty(), "{text}: {found}");
    }
    let workflow = "workflow: w\nsteps:\n  a:\n    call: POST ${services.shop}/a\n    headers:\n      authorization: a\n      \
                    authorization: hunter2\nrespond: { status: 200 }\n";
    let found = Set::valid().put("workflows/w.yaml", workflow).shown();
    assert!(found.contains("authorization: ***") && !found.contains("hunter2"), "{found}");
    let workflow =
        "workflow: w\nsteps:\n  a:\n    call: \"GET ${services.shop}/x?token=hunter2 z\"\nrespond: { status: 200 }\n";
    let found = Set::valid().put("workflows/w.yaml", workflow).shown();
    assert!(found.contains("${services.shop}/x?token=***") && !found.contains("hunter2"), "{found}");
}
