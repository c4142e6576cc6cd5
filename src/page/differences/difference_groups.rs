//! The groups of a route's differences, each with a sample.

use std::cmp::Reverse;

use maud::{Markup, html};

use crate::admin::types::{DiffGroup, Diffs, Sample};
use crate::page::differences::difference_summary::has_lines_not_shown;
use crate::page::differences::difference_view::{Order, View};
use crate::page::differences::difference_words::{PairPart, headline, sentences, table};
use crate::page::differences::sample_view::sample;
use crate::page::differences::side_by_side::Budget;
use crate::page::html::{count, time};

/// How many groups one page shows.
const GROUPS_PER_PAGE: usize = 20;
/// The samples of so many groups are open when the page is loaded.
const OPEN_SAMPLES: usize = 3;

/// The groups that are looked at: those that count, then those that are noise.
pub(in crate::page) fn groups(route: &str, diffs: &Diffs, view: &View) -> Markup {
    let found = in_view(diffs, view);
    let all = View { group: None, sample: 0, ..view.clone() }.path(route);
    let page: Vec<(usize, &DiffGroup)> =
        found.iter().copied().enumerate().skip(view.from).take(GROUPS_PER_PAGE).collect();
    let counted = || page.iter().filter(|(_, group)| !group.is_noise);
    let noise = || page.iter().filter(|(_, group)| group.is_noise);
    let mut budget = Budget::of_page();
    html! {
        @if view.group.is_some() {
            p {
                @if found.is_empty() { "No sample with this difference is kept any more. " }
                a href=(all) { "All differences" }
            }
        } @else if found.is_empty() {
            p { "No pair differs in this part. " a href=(View { part: None, ..view.clone() }.path(route)) { "All" } }
        }
        @if counted().next().is_some() {
            h2 { "Ways in which pairs differ" }
            p.hint { code { "[*]" } " in a path stands for any element of a list." }
            @for (at, group) in counted() { (self::group(*at, group, route, diffs, view, &mut budget)) }
        }
        @if noise().next().is_some() {
            h2 { "Noise: legacy differs from itself here" }
            p.hint {
                "The same request sent to legacy twice got replies that differ in these places. Such pairs count as "
                "equal."
            }
            div.noise {
                @for (at, group) in noise() { (self::group(*at, group, route, diffs, view, &mut budget)) }
            }
        }
        (pages(found.len(), route, view))
        (hints(route, &page))
    }
}

/// The groups that are looked at, in their order; noise is last, so that it moves nothing to a later page.
fn in_view<'a>(diffs: &'a Diffs, view: &View) -> Vec<&'a DiffGroup> {
    let is_in_view = |group: &&DiffGroup| match &view.group {
        Some(fingerprint) => group.fingerprint == *fingerprint,
        None => view.part.is_none_or(|part| group.differences.iter().any(|found| PairPart::of(found) == part)),
    };
    let mut found: Vec<&DiffGroup> = diffs.groups.iter().filter(is_in_view).collect();
    match view.order {
        // As the API lists them.
        Order::Frequent => found.sort_by_key(|group| group.is_noise),
        Order::Newest => found.sort_by_key(|group| (group.is_noise, Reverse(group.last_seen))),
    }
    found
}

/// A group. `at`: its place in the order.
fn group(at: usize, group: &DiffGroup, route: &str, diffs: &Diffs, view: &View, budget: &mut Budget) -> Markup {
    let number = at + 1;
    let is_chosen = view.group.is_some();
    let shown = if is_chosen { chosen(group, view.sample) } else { &group.sample };
    let differences = if shown.differences.is_empty() { &group.differences } else { &shown.differences };
    let title = format!("group-{number}");
    html! {
        section.group aria-labelledby=(title) {
            h3 id=(title) { (headline(differences)) }
            p {
                strong { (count(group.count)) @if group.count == 1 { " pair" } @else { " pairs" } }
                ", first " (time(group.first_seen)) ", last " (time(group.last_seen))
                @if !is_chosen {
                    " · "
                    a href=(of_group(group, 0, view).path(route)) aria-label=(format!("Only this: difference {number}")) {
                        "Only this"
                    }
                }
            }
            @if group.differed_from_itself > 0 {
                p.notice {
                    "The engine differs from itself here too: in " (count(group.differed_from_itself)) " of "
                    (count(diffs.second_runs)) " requests that it ran twice."
                }
            }
            (sentences(differences, view.arms()))
            (table(differences, view.arms(), &format!("Values of difference {number}")))
            details open[is_chosen || at < OPEN_SAMPLES] {
                summary { "A sample, side by side" }
                (sample(shown, view.arms(), &format!("difference {number}"), route, budget))
            }
            (samples(number, group, route, view))
        }
    }
}

/// The sample with this number, counted from the one that the API shows; that one, if there are not so many.
fn chosen(group: &DiffGroup, number: usize) -> &Sample {
    number.checked_sub(1).and_then(|other| group.other_samples.get(other)).unwrap_or(&group.sample)
}

/// The page that shows a sample of a group alone.
fn of_group(group: &DiffGroup, sample: usize, view: &View) -> View {
    View { group: Some(group.fingerprint.clone()), sample, from: 0, suggests: false, ..view.clone() }
}

/// Links to the samples of a group, if there are several.
fn samples(number: usize, group: &DiffGroup, route: &str, view: &View) -> Markup {
    let times = std::iter::once(group.sample.at).chain(group.other_samples.iter().map(|sample| sample.at));
    let current = if view.group.is_some() { view.sample } else { 0 };
    html! {
        @if !group.other_samples.is_empty() {
            nav.choices aria-label=(format!("Samples of difference {number}")) {
                span { "Samples:" }
                @for (n, at) in times.enumerate() {
                    a href=(of_group(group, n, view).path(route)) aria-current=[(n == current).then_some("true")] {
                        (time(at))
                    }
                }
            }
        }
    }
}

/// Links to the groups before and after those that are shown.
fn pages(found: usize, route: &str, view: &View) -> Markup {
    let to = |from: usize| View { from, suggests: false, ..view.clone() }.path(route);
    let next = view.from.saturating_add(GROUPS_PER_PAGE);
    html! {
        @if view.from > 0 || next < found {
            nav.choices aria-label="More differences" {
                @if view.from > 0 { a href=(to(view.from.saturating_sub(GROUPS_PER_PAGE))) { "Those before" } }
                @if next < found {
                    a href=(to(next)) { "The next " (count((found - next).min(GROUPS_PER_PAGE) as u64)) }
                }
                span.sub { (count(found as u64)) " in all" }
            }
        }
    }
}

/// What would show more than the samples do.
fn hints(route: &str, page: &[(usize, &DiffGroup)]) -> Markup {
    let differences = || page.iter().flat_map(|(_, group)| &group.differences);
    html! {
        @if differences().any(has_lines_not_shown) {
            p.hint {
                "To see lines of texts in later samples (values with a secret name stay hidden), give the route rules for "
                "texts: " code { "compare: { text: {} }" } "; for the calls of a step: "
                code { "compare: { effects: { STEP: { text: {} } } }" } "."
            }
        }
        @if differences().any(|found| PairPart::of(found) == PairPart::Effect) {
            p.hint {
                "Which of legacy's calls belong to which request, and how that is known: "
                code { "pointsman egress " (route) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A group that differs in one place, with two samples.
    fn group(fingerprint: &str, count: u64, day: u32, kind: &str, is_noise: bool) -> Value {
        let at = format!("2026-11-{day:02}T10:00:00Z");
        let differences = json!([{ "path": "$.total", "kind": kind, "legacy": "12.50", "engine": "12.49" }]);
        let sample = |request: &str| {
            json!({ "at": at, "run": null, "differences": differences, "request": request,
                "legacy": "200\n{\"total\":12.50}", "engine": "200\n{\"total\":12.49}" })
        };
        json!({ "fingerprint": fingerprint, "count": count, "first_seen": at, "last_seen": at,
            "differences": differences, "is_noise": is_noise, "differed_from_itself": 0,
            "sample": sample("GET /first"), "other_samples": [sample("GET /second")] })
    }

    fn diffs(groups: Vec<Value>) -> Diffs {
        let value = json!({ "route": "orders", "pairs": 100, "mismatched": 9, "noise": 1, "second_runs": 0,
            "groups": groups });
        serde_json::from_value(value).unwrap()
    }

    fn some() -> Diffs {
        diffs(vec![
            group("noisy", 9, 20, "value", true),
            group("old", 7, 1, "value", false),
            group("new", 2, 9, "effect_differs", false),
        ])
    }

    fn fingerprints(view: &View) -> Vec<String> {
        in_view(&some(), view).into_iter().map(|group| group.fingerprint.clone()).collect()
    }

    #[test]
    fn groups_are_ordered_and_filtered_and_noise_is_last() {
        let usual = View::default();
        assert_eq!(fingerprints(&usual), ["old", "new", "noisy"]);
        assert_eq!(fingerprints(&View { order: Order::Newest, ..usual.clone() }), ["new", "old", "noisy"]);
        assert_eq!(fingerprints(&View { part: Some(PairPart::Effect), ..usual.clone() }), ["new"]);
        assert!(fingerprints(&View { part: Some(PairPart::Status), ..usual.clone() }).is_empty());
        assert_eq!(fingerprints(&View { group: Some("old".into()), ..usual }), ["old"]);
    }

    #[test]
    fn a_group_shows_its_count_its_values_and_the_sample_that_is_asked_for() {
        let html = groups("orders", &some(), &View::default()).into_string();
        let (counted, noise) = html.split_once("Noise: legacy differs from itself here").unwrap();
        assert!(counted.contains("<strong>7 pairs</strong>") && noise.contains("<strong>9 pairs</strong>"), "{html}");
        assert!(counted.contains("12.50</del>") && counted.contains("GET /first"), "{html}");
        assert!(!html.contains("GET /second"), "{html}");
        let view = View { group: Some("old".into()), sample: 1, ..View::default() };
        let html = groups("orders", &some(), &view).into_string();
        assert!(html.contains("GET /second") && !html.contains("GET /first"), "{html}");
        assert!(html.contains("href=\"/routes/orders/differences?group=old\""), "{html}");
        assert!(html.contains("href=\"/routes/orders/differences?group=old&amp;sample=1\" aria-current=\"true\""));
        let html = groups("orders", &some(), &View { sample: usize::MAX, ..view }).into_string();
        assert!(html.contains("GET /first"), "a sample that is not there is the first: {html}");
    }

    #[test]
    fn many_and_missing_groups_are_said() {
        let many = diffs((0..50).map(|n| group(&format!("f{n}"), 1, 1, "value", false)).collect());
        let html = groups("orders", &many, &View { from: 20, ..View::default() }).into_string();
        assert_eq!(html.matches("<section").count(), GROUPS_PER_PAGE);
        assert!(html.contains("The next 10") && html.contains("50 in all") && html.contains("from=40"), "{html}");
        let gone = View { group: Some("gone".into()), ..View::default() };
        assert!(groups("orders", &many, &gone).into_string().contains("is kept any more"));
        let beyond = View { from: usize::MAX, ..View::default() };
        assert!(!groups("orders", &many, &beyond).into_string().contains("<section"));
    }

    #[test]
    fn a_hostile_group_is_inert() {
        let hostile = "\"><script>alert(1)</script>";
        let html = groups("orders", &diffs(vec![group(hostile, 1, 1, "value", false)]), &View::default()).into_string();
        assert!(!html.contains("<script") && html.contains("%3Cscript%3E"), "{html}");
    }
}
