//! What the check of rules warns of.

use serde_json::{Value, json};

use super::{CompareContext, Rules, RulesDraft};
use crate::problem::{Problems, Site};

/// What the check of rules says: errors and warnings, each with its hint.
fn said(draft: Value) -> Vec<String> {
    let draft: RulesDraft = serde_json::from_value(draft).unwrap();
    let mut problems = Problems::default();
    let context = CompareContext { intents: &["charge"], ..CompareContext::default() };
    Rules::check(&draft, &Site::file("r.yaml"), &context, &mut problems);
    problems.iter().map(|p| format!("{} {} {:?}", p.site, p.message, p.hint)).collect()
}

#[test]
fn rules_that_cannot_do_what_they_are_written_for_are_warned_of() {
    for (draft, part) in [
        (json!({"ignore": ["$..*"]}), "`$..*` ignores every value of the body"),
        (json!({"ignore": ["$.a", "$.a"]}), "`$.a` is ignored twice"),
        (json!({"ignore": ["$.a", "$.a.b"]}), "r.yaml.ignore[1] `$.a.b` is a part of `$.a`, which is ignored"),
        (json!({"ignore": ["$.a"], "ids": [{"keys": "$.a.b"}]}), "`$.a.b` is a part of `$.a`"),
        (json!({"ignore": ["$.a"], "tolerance": {"$.a.t": 1}}), "so its tolerance is never needed"),
        (
            json!({"ignore": ["$..a"], "unordered": {"$.b.a": {"by": "set", "when": "${legacy.status == 200}"}}}),
            "`$.b.a` is a part",
        ),
        (json!({"ignore": ["$.a"], "unordered": {"$.a": "set"}}), "`$.a` is under `ignore` too, so its order"),
        (json!({"ignore": [{"path": "$.a", "when": "${legacy.status == 999}"}]}), "for no status from 100 to 599"),
        (
            json!({"ignore": [{"path": "$.a", "when": "${legacy.status < 100 || request.method == 'GET'}"}]}),
            "`legacy.status < 100` is the same for every status",
        ),
        (json!({"assert": [{"that": "${legacy.body == 1}", "when": "${legacy.status > 599}"}]}), "for no status from"),
        (json!({"ids": ["$..*"]}), "amounts and names are ids too"),
        (json!({"ids": ["$"]}), "amounts and names are ids too"),
        (json!({"ids": ["$.a", {"path": "$.a"}]}), "`$.a` is under `ids` twice"),
        (json!({"ids": ["$.a"], "ignore": ["$.a"]}), "its ids are never compared"),
        (json!({"tolerance": {"$.created_at": 2}}), "`2s`"),
        (json!({"effects": {"charge": {"tolerance": {"$.sentAt": 2}}}}), "`2s`"),
        (json!({"ignore": ["header.x"]}), "not compared anyway"),
        (json!({"ids": [{"header.x": "/a/{id}"}]}), "list `x` under `headers:`"),
        (json!({"text": {"ids": ["()"]}}), "finds only empty texts"),
        (json!({"ignore": [{"path": "$.a", "when": "${1}"}]}), "the condition is not true or false"),
        (json!({"ignore": [{"path": "$.a", "when": "${1 > 2}"}]}), "so it never holds"),
        (json!({"ids": [{"path": "$.a", "kind": "a b"}]}), "`a b` is no name of a kind"),
        (json!({"ids": [{"header.location": "/a/{id}", "kind": "a"}]}), "their names in braces"),
        (json!({"ignore": ["headers.location"]}), "`header.location` under `ignore`"),
        (json!({"ids": ["effects.charge.body.order"]}), "`effects: { charge: { ignore: [$.order] } }`"),
        (json!({"ignore": ["effects.charge.headers.x"]}), "ignore: [header.x]"),
        (json!({"ignore": ["$..a..b"]}), "only once"),
    ] {
        let said = said(draft.clone());
        assert!(said.len() == 1 && said[0].contains(part), "{draft}: {said:?}");
    }
    let nothing = "under these rules nothing of the replies is compared";
    for path in ["$", "$.*", "$[*]", "$..*", "$..[*]"] {
        let said = said(json!({"ignore": [path], "status": "class", "headers": []}));
        assert!(said.iter().any(|said| said.contains(nothing)), "{path}: {said:?}");
    }
    for good in [
        json!({"ignore": ["$"]}),
        json!({"ids": ["$[*]", {"header.location": "/a/{id}"}], "ignore": ["header.location"]}),
        json!({"ignore": [
            {"path": "$.a", "when": "${legacy.status == 201}"}, {"path": "$.a", "when": "${legacy.status == 202}"}]}),
        json!({"tolerance": {"$.total": 2, "$.created_at": "2s"}, "text": {"ids": ["z*([a-z]*)"]}}),
    ] {
        assert_eq!(said(good.clone()), [""; 0], "{good}");
    }
}
