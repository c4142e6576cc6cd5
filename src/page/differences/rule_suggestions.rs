//! Rules that are proposed for the differences of a route, with what each would hide, and the form to try rules.

use maud::{Markup, html};

use crate::admin::types::{
    ApiProblem, HiddenPlace, StricterRuleRow, SuggestedRuleRow, SuggestedRules, TriedSamples, UnexplainedPlace,
};
use crate::page::client::segment;
use crate::page::differences::difference_words::{Arms, kind_words, sentence};
use crate::page::differences::text_marks::{shown, shown_up_to};
use crate::page::failure::problem_box;
use crate::page::html::{Frame, count, form_key};

/// How many proposed rules, and how many places without one, are shown.
const RULES_MAX: usize = 50;
/// How many places that one rule hides are shown.
const PLACES_MAX: usize = 10;
/// How many examples of each place.
const EXAMPLES_MAX: usize = 3;
/// How much of a rule, of a path or of a sentence is shown, in bytes.
const TEXT_BYTES_MAX: usize = 4_000;

/// What the form needs to know: the route, and whether its candidate is meant.
#[derive(Clone, Copy)]
pub(in crate::page) struct RulesOf<'a> {
    pub route: &'a str,
    pub candidate: bool,
    pub arms: &'a Arms,
}

impl RulesOf<'_> {
    /// The page of the route's differences, with further parameters.
    pub(in crate::page) fn page(self, parameters: &str) -> String {
        let candidate = if self.candidate { "candidate=true" } else { "" };
        let both = [candidate, parameters].map(str::to_owned).into_iter().filter(|part| !part.is_empty());
        let query = both.collect::<Vec<_>>().join("&");
        let mark = if query.is_empty() { "" } else { "?" };
        format!("/routes/{}/differences{mark}{query}", segment(self.route))
    }
}

/// So many samples, in words.
pub(in crate::page) fn samples(number: u64) -> String {
    counted(number, "sample")
}

/// A number and what is counted.
pub(in crate::page) fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// What became of samples, in words: "2 would be equal, 1 would differ".
pub(in crate::page) fn outcome(samples: TriedSamples) -> String {
    let TriedSamples { kept: _, equal, differ, not_judged } = samples;
    let part = |number: u64, words: &str| (number > 0).then(|| format!("{} {words}", count(number)));
    let parts =
        [part(equal, "would be equal"), part(differ, "would differ"), part(not_judged, "cannot be judged again")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The form to try rules. Nothing is written. `rules`: the text in it; `problem`: why the API refused it.
pub(in crate::page) fn form(frame: &Frame, of: RulesOf<'_>, rules: &str, problem: Option<&ApiProblem>) -> Markup {
    let described = if problem.is_some() { "rules-problem rules-hint" } else { "rules-hint" };
    html! {
        form.rules method="post" action=(format!("/routes/{}/differences/try", segment(of.route))) {
            (form_key(frame))
            @if of.candidate { input type="hidden" name="candidate" value="true"; }
            @if let Some(problem) = problem { div #rules-problem { (problem_box(problem)) } }
            label for="rules-text" { "Rules to try" }
            p #rules-hint.hint {
                "The whole " code { "compare:" } " of the route as it would be, as YAML or JSON. The samples that are "
                "kept are compared again with these rules. Nothing is written: not the rules, not the evidence."
            }
            textarea #rules-text name="rules" rows="14" cols="80" spellcheck="false" autocapitalize="off"
                aria-describedby=(described) aria-invalid=[problem.map(|_| "true")] { "\n" (rules) }
            div { button.primary type="submit" { "Try these rules" } }
        }
    }
}

/// What is proposed.
pub(in crate::page) fn suggestions(suggested: &SuggestedRules, arms: &Arms) -> Markup {
    let SuggestedRules { rules, added, stricter, stricter_rules, unexplained, samples: judged, .. } = suggested;
    html! {
        @match (judged.kept, added.is_empty()) {
            (0, _) => { p { "No sample is kept: nothing can be explained." } }
            (_, true) => { p { "No rule is proposed for the " (samples(judged.kept)) " that are kept." } }
            (_, false) => {
                p {
                    "With " (counted(added.len() as u64, "more rule")) ", of " (samples(judged.kept)) ": "
                    (outcome(*judged)) ". A proposal is no proof: read what each rule would hide."
                }
                ol.suggested { @for rule in added.iter().take(RULES_MAX) { li { (suggested_rule(rule, arms)) } } }
                (left_out(added.len()))
                h3 { "To copy: all rules of the route, with these" }
                pre.copy { (shown(rules.trim_end())) }
                p.hint {
                    "It takes the place of the route's " code { "compare:" } " in its file under " code { "flags/" }
                    ". Or try it below first, with changes of your own."
                }
            }
        }
        (not_explained(unexplained, arms))
        (stricter_rules_of(stricter, stricter_rules))
    }
}

fn left_out(number: usize) -> Markup {
    html! {
        @if number > RULES_MAX { p.hint { (count((number - RULES_MAX) as u64)) " more are not shown." } }
    }
}

/// A rule, and what it would hide.
fn suggested_rule(row: &SuggestedRuleRow, arms: &Arms) -> Markup {
    let SuggestedRuleRow { rule, hides, samples: number, pairs, warning } = row;
    html! {
        pre.copy { (shown_up_to(rule.trim_end(), TEXT_BYTES_MAX)) }
        @if let Some(warning) = warning { p { strong { "Before you use it: " } (shown_up_to(warning, TEXT_BYTES_MAX)) } }
        p { "It would hide, in " (samples(*number)) " (about " (counted(*pairs, "pair")) "):" }
        ul {
            @for HiddenPlace { path, examples } in hides.iter().take(PLACES_MAX) {
                li {
                    code { (shown_up_to(path, TEXT_BYTES_MAX)) }
                    @if !examples.is_empty() {
                        ul { @for example in examples.iter().take(EXAMPLES_MAX) { li { (sentence(example, arms)) } } }
                    }
                }
            }
            @if hides.len() > PLACES_MAX { li { (count((hides.len() - PLACES_MAX) as u64)) " more places" } }
        }
    }
}

fn not_explained(places: &[UnexplainedPlace], arms: &Arms) -> Markup {
    html! {
        @if !places.is_empty() {
            h3 { "Not explained by a rule" }
            p { "These count as defects of the workflow, until somebody shows that they are none." }
            ul {
                @for place in places.iter().take(RULES_MAX) {
                    @let UnexplainedPlace { path, kind, samples: number, pairs, why, example } = place;
                    li {
                        (kind_words(*kind)) " at " code { (shown_up_to(path, TEXT_BYTES_MAX)) } ", in " (samples(*number))
                        " (about " (counted(*pairs, "pair")) "): " (shown_up_to(why, TEXT_BYTES_MAX)) "."
                        @if let Some(example) = example { " " (sentence(example, arms)) }
                    }
                }
            }
            (left_out(places.len()))
        }
    }
}

fn stricter_rules_of(rows: &[StricterRuleRow], rules: &str) -> Markup {
    html! {
        @if !rows.is_empty() {
            h3 { "Stricter rules, with which no sample differs in more places" }
            p { "They hide nothing. With them the evidence is counted from zero, so take them early." }
            ul {
                @for StricterRuleRow { compares, samples: number } in rows.iter().take(RULES_MAX) {
                    li { (shown_up_to(compares, TEXT_BYTES_MAX)) ", equal in " (samples(*number)) }
                }
            }
            (left_out(rows.len()))
            h3 { "To copy: all rules of the route, with the stricter ones" }
            pre.copy { (shown(rules.trim_end())) }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const OF: RulesOf<'_> = RulesOf { route: "orders.create", candidate: true, arms: &Arms::OF_ROUTE };

    fn suggested(hostile: &str) -> SuggestedRules {
        let difference = json!({ "path": hostile, "kind": "value", "legacy": hostile, "engine": "B-2" });
        let value: Value = json!({
            "route": "orders.create", "pairs": 10, "mismatched": 3,
            "rules": format!("compare:\n  ids: ['{hostile}']\n"),
            "added": [{ "rule": "compare:\n  ids: [$.id]\n", "samples": 1, "pairs": 3, "warning": hostile,
                "hides": [{ "path": hostile, "examples": [difference] }] }],
            "stricter": [{ "compares": hostile, "samples": 2 }], "stricter_rules": hostile,
            "unexplained": [{ "path": hostile, "kind": "effect_missing", "samples": 1, "pairs": 1, "why": hostile,
                "example": difference }],
            "samples": { "kept": 4, "equal": 2, "differ": 1, "not_judged": 1 },
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_proposal_says_what_it_would_hide() {
        let html = suggestions(&suggested("$.id"), &Arms::OF_ROUTE).into_string();
        assert!(html.contains("With 1 more rule, of 4 samples: 2 would be equal, 1 would differ, 1 cannot be judged"));
        assert!(html.contains("<pre class=\"copy\">compare:\n  ids: [$.id]</pre>"), "{html}");
        assert!(html.contains("It would hide, in 1 sample (about 3 pairs):"), "{html}");
        assert!(html.contains("count as defects") && html.contains("Missing call at "), "{html}");
        assert!(html.contains("equal in 2 samples"), "{html}");
        let none = SuggestedRules { added: Vec::new(), unexplained: Vec::new(), stricter: Vec::new(), ..suggested("") };
        let html = suggestions(&none, &Arms::OF_ROUTE).into_string();
        assert!(html.contains("No rule is proposed") && !html.contains("<h3>"), "{html}");
    }

    #[test]
    fn the_form_keeps_what_was_typed_and_hostile_text_is_inert() {
        let hostile = "</textarea></pre><script>alert(1)</script>";
        let frame = Frame { viewer: None, form_key: "k".into(), path: "/p".into(), part: "routes" };
        let mut refused = crate::page::client::problem(http::StatusCode::UNPROCESSABLE_ENTITY, "2 errors");
        refused.reasons.push(hostile.to_owned());
        let html = form(&frame, OF, hostile, Some(&refused)).into_string();
        assert!(html.contains("action=\"/routes/orders%2Ecreate/differences/try\""), "{html}");
        assert!(html.contains("name=\"candidate\" value=\"true\"") && html.contains("aria-invalid=\"true\""), "{html}");
        assert!(html.contains("&lt;/textarea&gt;&lt;/pre&gt;&lt;script&gt;") && !html.contains("<script"), "{html}");
        let html = suggestions(&suggested(hostile), &Arms::OF_ROUTE).into_string();
        assert!(!html.contains("<script") && !html.contains("</textarea>"), "{html}");
    }

    #[test]
    fn the_page_has_its_parameters() {
        assert_eq!(OF.page(""), "/routes/orders%2Ecreate/differences?candidate=true");
        assert_eq!(OF.page("a=1"), "/routes/orders%2Ecreate/differences?candidate=true&a=1");
        let of_route = RulesOf { candidate: false, ..OF };
        assert_eq!(of_route.page(""), "/routes/orders%2Ecreate/differences");
        assert_eq!(of_route.page("a=1"), "/routes/orders%2Ecreate/differences?a=1");
    }
}
