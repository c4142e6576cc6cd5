//! Rules of `compare:` in a file: all their forms, and where an error in one is.

use super::set::Set;

const ROUTES: &str = "routes/orders.yaml";
const IGNORE: &str = "      ignore: [$.created_at]\n";

/// What the check says of a set with these rules in place of the one under `ignore`; nothing if it takes them.
fn said(rules: &str) -> String {
    match Set::valid().edit(ROUTES, IGNORE, rules).read() {
        Ok(_) => String::new(),
        Err(failed) => failed.render(false),
    }
}

#[test]
fn every_form_of_a_rule_is_accepted() {
    let rules = "      \
      ignore: [$.created_at, { path: $.detail, when: '${legacy.status == 409}' }, { path: header.x }]
      ids: [$.id, { path: $.a, any_type: true }, { keys: $.orders }, { header.location: '/orders/{id}' }]
      unordered: { $.x: set, $.y: { by: sku, when: '${request.method == \"GET\"}' } }
      tolerance: { $.t: 0.005, $.u: { by: 2s, when: '${legacy.status < 300}' } }
      numbers: { form: strict }
      text: { ignore: ['^generated'], times: { 'due (.*)': 2s }, ids: ['Order ([0-9]+)'] }
";
    assert_eq!(said(rules), "");
    assert_eq!(said("      text: { times: 2s }\n"), "");
}

#[test]
fn an_error_in_a_rule_has_its_line_and_a_hint() {
    // The rules begin in line 10 of the file.
    for (rules, line, message, hint) in [
        (
            "      ignore:\n        - $.a\n        - { path: $.b, whn: x }\n",
            12,
            "unknown key `whn`",
            "did you mean `when`?",
        ),
        ("      numbers:\n        form: exact\n", 11, "exact", "strict"),
        ("      text:\n        ignore: ['(']\n", 11, "`(` is no pattern", "a regular expression"),
        ("      text:\n        times: 7\n", 11, "expected", "text"),
        ("      ids:\n        - { header.location: /orders }\n", 11, "does not say where the id is", "`/orders/{id}`"),
        (
            "      ids:\n        - { path: $.a, when: '${legacy.body.x}' }\n",
            11,
            "cannot read `legacy.body`",
            "legacy.status",
        ),
        ("      tolerance:\n        $.a: { by: soon }\n", 11, "is no tolerance", "a duration"),
        ("      unordered:\n        $.a: {}\n", 11, "`by` is missing", "`set`"),
        ("      unordered: [$.a]\n", 10, "expected a map, found a list", "`unordered: { $.items: sku,"),
        ("      tolerance: [$.a]\n", 10, "expected a map, found a list", "`tolerance: { $.total: 0.01,"),
    ] {
        let said = said(rules);
        assert!(said.contains(&format!("orders.yaml:{line}:")), "{rules}{said}");
        assert!(said.contains(message) && said.contains(hint), "{rules}{said}");
        assert_eq!(said.matches("error: ").count(), 1, "one error, said once: {rules}{said}");
    }
}
