//! Differences in words: "Legacy's reply has 12.50 at `total`; that of the engine would have 12.49."

use maud::{Markup, html};

use crate::admin::types::{Difference, DifferenceKind, EarlierPairing};
use crate::page::differences::text_marks::shown_up_to;
use crate::page::html::count;

/// How many differences are said in sentences; the table has more of them.
const SENTENCES_MAX: usize = 3;
/// How many rows a table of differences has.
const ROWS_MAX: usize = 50;
/// How much of a value or of a path is shown, in bytes. Values are stored with at most 512.
const VALUE_BYTES_MAX: usize = 600;

/// How the two sides of a comparison are called.
#[derive(Debug)]
pub(in crate::page) struct Arms {
    pub legacy: &'static str,
    /// The same at the beginning of a sentence or as the head of a column.
    pub legacy_first: &'static str,
    pub engine: &'static str,
    pub engine_first: &'static str,
}

impl Arms {
    /// Those of a route.
    pub(in crate::page) const OF_ROUTE: Self =
        Self { legacy: "legacy", legacy_first: "Legacy", engine: "the engine", engine_first: "The engine" };
    /// Those of the candidate of a route.
    pub(in crate::page) const OF_CANDIDATE: Self = Self {
        legacy: "the plan in force",
        legacy_first: "The plan in force",
        engine: "the candidate",
        engine_first: "The candidate",
    };
}

/// The part of a pair that a difference is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::page) enum PairPart {
    Status,
    Header,
    Body,
    Effect,
    Condition,
}

impl PairPart {
    pub(in crate::page) const ALL: [Self; 5] = [Self::Body, Self::Header, Self::Status, Self::Effect, Self::Condition];

    pub(in crate::page) fn of(difference: &Difference) -> Self {
        match difference.kind {
            DifferenceKind::Status => Self::Status,
            DifferenceKind::Header => Self::Header,
            DifferenceKind::Assert => Self::Condition,
            DifferenceKind::Intent
            | DifferenceKind::EffectMissing
            | DifferenceKind::EffectExtra
            | DifferenceKind::EffectDiffers
            | DifferenceKind::EffectOrder
            | DifferenceKind::EffectDoubled => Self::Effect,
            DifferenceKind::Missing
            | DifferenceKind::Extra
            | DifferenceKind::Value
            | DifferenceKind::Type
            | DifferenceKind::Order
            | DifferenceKind::DuplicateKey
            | DifferenceKind::StaleRead => Self::Body,
        }
    }

    /// The name in the page's address.
    pub(in crate::page) fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Header => "header",
            Self::Body => "body",
            Self::Effect => "effect",
            Self::Condition => "condition",
        }
    }

    /// What people read.
    pub(in crate::page) fn title(self) -> &'static str {
        match self {
            Self::Status => "Status",
            Self::Header => "Headers",
            Self::Body => "Body",
            Self::Effect => "Calls to other services",
            Self::Condition => "Conditions",
        }
    }
}

/// What differs, in two or three words.
pub(in crate::page) fn kind_words(kind: DifferenceKind) -> &'static str {
    match kind {
        DifferenceKind::Status => "Another status",
        DifferenceKind::Header => "Another header",
        DifferenceKind::Missing => "Missing value",
        DifferenceKind::Extra => "Additional value",
        DifferenceKind::Value => "Another value",
        DifferenceKind::Type => "Another type of value",
        DifferenceKind::Order => "Another order",
        DifferenceKind::DuplicateKey => "Repeated key",
        DifferenceKind::Intent | DifferenceKind::EffectDiffers => "Another call",
        DifferenceKind::Assert => "A condition does not hold",
        DifferenceKind::StaleRead => "Read after legacy had acted",
        DifferenceKind::EffectMissing => "Missing call",
        DifferenceKind::EffectExtra => "Additional call",
        DifferenceKind::EffectOrder => "Calls in another order",
        DifferenceKind::EffectDoubled => "Call made more often",
    }
}

/// Where a difference is: the call, if it is in one, and the place in it; else the place in the reply.
fn place(difference: &Difference) -> (Option<&str>, &str) {
    let path = difference.path.as_str();
    match difference.kind {
        DifferenceKind::Header => (None, path.strip_prefix("headers.").unwrap_or(path)),
        DifferenceKind::Intent | DifferenceKind::EffectDiffers => {
            let of_calls = path.strip_prefix("effects.").or_else(|| path.strip_prefix("intents.")).unwrap_or(path);
            of_calls.split_once('.').map_or((Some(of_calls), ""), |(step, rest)| (Some(step), rest))
        }
        DifferenceKind::EffectMissing | DifferenceKind::EffectExtra | DifferenceKind::EffectDoubled => {
            (Some(path.strip_prefix("effects.").unwrap_or(path)), "")
        }
        _ => (None, path.strip_prefix("$.").unwrap_or(path)),
    }
}

/// The first of some differences as the title of a group.
pub(in crate::page) fn headline(differences: &[Difference]) -> Markup {
    let Some(first) = differences.first() else { return html! { "No difference is listed" } };
    let (call, at) = place(first);
    html! {
        (kind_words(first.kind))
        @if first.kind != DifferenceKind::Status {
            ": " code { (shown_up_to(call.unwrap_or(at), VALUE_BYTES_MAX)) }
            @if call.is_some() && !at.is_empty() { " " code { (shown_up_to(at, VALUE_BYTES_MAX)) } }
        }
        @if differences.len() > 1 { ", and " (count(differences.len() as u64 - 1)) " more" }
    }
}

/// A difference as a sentence.
pub(in crate::page) fn sentence(difference: &Difference, arms: &Arms) -> Markup {
    let Arms { legacy: of_legacy, legacy_first, engine: of_engine, engine_first } = arms;
    let (call, at) = place(difference);
    let value = |value: &Option<String>| match value {
        Some(text) => html! { code.value { (shown_up_to(text, VALUE_BYTES_MAX)) } },
        None => html! { "nothing" },
    };
    let (legacy, engine) = (value(&difference.legacy), value(&difference.engine));
    let has_place = !at.is_empty();
    let at = html! { code { (shown_up_to(at, VALUE_BYTES_MAX)) } };
    let call = html! { code { (shown_up_to(call.unwrap_or_default(), VALUE_BYTES_MAX)) } };
    html! {
        @match difference.kind {
            DifferenceKind::Status => {
                (legacy_first) " answered " (legacy) "; " (of_engine) " would have answered " (engine) "."
            }
            DifferenceKind::Header => {
                (legacy_first) " set the header " (at) " to " (legacy) "; " (of_engine) " would have set it to "
                (engine) "."
            }
            DifferenceKind::Missing => {
                "The reply of " (of_legacy) " has " (legacy) " at " (at) "; that of " (of_engine)
                " would have nothing there."
            }
            DifferenceKind::Extra => {
                "The reply of " (of_engine) " would have " (engine) " at " (at) "; that of " (of_legacy)
                " has nothing there."
            }
            DifferenceKind::Value => {
                "The reply of " (of_legacy) " has " (legacy) " at " (at) "; that of " (of_engine) " would have "
                (engine) "."
            }
            DifferenceKind::Type => {
                "The reply of " (of_legacy) " has " (legacy) " at " (at) "; that of " (of_engine) " would have "
                (engine) ", which is another type of value."
            }
            DifferenceKind::Order => {
                "The elements at " (at) " are in another order: " (of_legacy) " has " (legacy) ", " (of_engine)
                " would have " (engine) "."
            }
            DifferenceKind::DuplicateKey => {
                "One side has a key more than once at " (at) ": " (of_legacy) " " (legacy) ", " (of_engine) " "
                (engine) "."
            }
            DifferenceKind::StaleRead => {
                "The reply of " (of_legacy) " has " (legacy) " at " (at) "; that of " (of_engine) " would have "
                (engine) ". The workflow reads after " (of_legacy) " has acted, which may be the cause."
            }
            DifferenceKind::Assert => {
                "The condition " (at) " "
                (shown_up_to(difference.engine.as_deref().unwrap_or("does not hold"), VALUE_BYTES_MAX)) "."
            }
            DifferenceKind::Intent | DifferenceKind::EffectDiffers => {
                "In the call " (call) ", " (of_legacy) " sent " (legacy)
                @if has_place { " as " (at) }
                "; " (of_engine) " would have sent " (engine) "."
            }
            DifferenceKind::EffectMissing => {
                (legacy_first) " made the call " (legacy) "; " (of_engine) " would not have made it."
            }
            DifferenceKind::EffectExtra => {
                (engine_first) " would have made the call " (engine) " in its step " (call) "; " (of_legacy)
                " did not make it."
            }
            DifferenceKind::EffectOrder => {
                (legacy_first) " made its calls in the order " (legacy) "; " (of_engine)
                " would have made them in the order " (engine) "."
            }
            DifferenceKind::EffectDoubled => {
                (legacy_first) " made the call " (call) " " (legacy) "; " (of_engine) " would have made it " (engine)
                "."
            }
        }
        @if let Some(apart) = difference.distance().map(apart) { " They are " (apart) "." }
        @for EarlierPairing { path, legacy, engine } in &difference.contradicts {
            " This contradicts " code { (shown_up_to(path, VALUE_BYTES_MAX)) } ", where " code.value {
                (shown_up_to(legacy, VALUE_BYTES_MAX))
            } " of " (of_legacy) " was paired with " code.value { (shown_up_to(engine, VALUE_BYTES_MAX)) } " of "
            (of_engine) "."
        }
    }
}

/// How far two numbers are apart, of which this is the share of the larger one.
pub(crate) fn apart(distance: f64) -> String {
    match distance * 100.0 {
        percent if percent < 0.000_1 => "less than 0.0001 % apart".to_owned(),
        percent if percent < 0.01 => format!("{percent:.4} % apart"),
        percent if percent < 0.995 => format!("{percent:.2} % apart"),
        percent if percent < 9.95 => format!("{percent:.1} % apart"),
        percent => format!("{percent:.0} % apart"),
    }
}

/// The first differences as sentences.
pub(in crate::page) fn sentences(differences: &[Difference], arms: &Arms) -> Markup {
    html! {
        @if let [only] = differences {
            p.in-words { (sentence(only, arms)) }
        } @else if !differences.is_empty() {
            ul.in-words { @for difference in differences.iter().take(SENTENCES_MAX) { li { (sentence(difference, arms)) } } }
        }
    }
}

/// All differences as a table. `label` names it for screen readers; each table of a page has another one.
pub(in crate::page) fn table(differences: &[Difference], arms: &Arms, label: &str) -> Markup {
    let value = |value: &Option<String>| {
        html! {
            @match value {
                Some(text) => { code.value { (shown_up_to(text, VALUE_BYTES_MAX)) } }
                None => { span.sub { "nothing" } }
            }
        }
    };
    html! {
        div.scroll tabindex="0" role="region" aria-label=(label) {
            table.differences {
                thead {
                    tr {
                        th scope="col" { "Where" }
                        th scope="col" { "What" }
                        th scope="col" { (arms.legacy_first) }
                        th scope="col" { (arms.engine_first) }
                    }
                }
                tbody {
                    @for difference in differences.iter().take(ROWS_MAX) {
                        tr {
                            th scope="row" {
                                code { (shown_up_to(&difference.path, VALUE_BYTES_MAX)) }
                                div.sub { (PairPart::of(difference).title()) }
                            }
                            td { (kind_words(difference.kind)) }
                            td { (value(&difference.legacy)) }
                            td { (value(&difference.engine)) }
                        }
                    }
                }
            }
        }
        @if differences.len() > ROWS_MAX {
            p.hint { (count((differences.len() - ROWS_MAX) as u64)) " more differences are not shown." }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn difference(path: &str, kind: &str, legacy: Option<&str>, engine: Option<&str>) -> Difference {
        let difference = json!({ "path": path, "kind": kind, "legacy": legacy, "engine": engine });
        serde_json::from_value(difference).unwrap()
    }

    /// The text of some HTML without its tags.
    fn text(markup: &Markup) -> String {
        let parts = markup.0.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text));
        parts.collect::<String>().replace("&quot;", "\"").replace("&amp;", "&")
    }

    fn words(path: &str, kind: &str, legacy: Option<&str>, engine: Option<&str>) -> String {
        text(&sentence(&difference(path, kind, legacy, engine), &Arms::OF_ROUTE))
    }

    #[test]
    fn a_difference_is_said_in_words() {
        assert_eq!(
            words("$.total", "value", Some("12.50"), Some("12.49")),
            "The reply of legacy has 12.50 at total; that of the engine would have 12.49. They are 0.08 % apart."
        );
        assert_eq!(
            words("effects.charge.body.amount", "effect_differs", Some("12.50"), Some("12.49")),
            "In the call charge, legacy sent 12.50 as body.amount; the engine would have sent 12.49. They are 0.08 % apart."
        );
        assert_eq!(
            words("status", "status", Some("201"), Some("409")),
            "Legacy answered 201; the engine would have answered 409."
        );
        assert_eq!(
            words("headers.location", "header", Some("/orders/1"), None),
            "Legacy set the header location to /orders/1; the engine would have set it to nothing."
        );
        assert_eq!(
            words("effects.mailer POST /orders/{}/mails", "effect_missing", Some("POST http://m/1"), None),
            "Legacy made the call POST http://m/1; the engine would not have made it."
        );
        let assert = words("${intents.charge.body == 1}", "assert", Some("holds"), Some("does not hold"));
        assert_eq!(assert, "The condition ${intents.charge.body == 1} does not hold.");
        let candidate = sentence(&difference("status", "status", Some("1"), Some("2")), &Arms::OF_CANDIDATE);
        assert_eq!(text(&candidate), "The plan in force answered 1; the candidate would have answered 2.");
    }

    #[test]
    fn every_kind_has_a_part_and_a_title() {
        for kind in [
            "status",
            "header",
            "missing",
            "extra",
            "value",
            "type",
            "order",
            "duplicate_key",
            "intent",
            "assert",
            "stale_read",
            "effect_missing",
            "effect_extra",
            "effect_differs",
            "effect_order",
            "effect_doubled",
        ] {
            let difference = difference("$.a", kind, Some("1"), None);
            let is_of_calls = kind.starts_with("effect_") || kind == "intent";
            assert_eq!(PairPart::of(&difference) == PairPart::Effect, is_of_calls, "{kind}");
            assert!(!text(&sentence(&difference, &Arms::OF_ROUTE)).contains("  "), "{kind}");
        }
    }

    #[test]
    fn hostile_values_are_inert() {
        let hostile = difference("$['<script>']", "value", Some("\u{202e}<img src=x onerror=y>"), Some("\"\u{0}"));
        let html = table(&[hostile], &Arms::OF_ROUTE, "\"><script>").into_string();
        assert!(!html.contains("<script") && !html.contains("<img") && !html.contains('\u{202e}'), "{html}");
        assert!(
            html.contains("U+202E") && html.contains("U+0000") && html.contains("&quot;&gt;&lt;script&gt;"),
            "{html}"
        );
        let many: Vec<_> = (0..80).map(|_| difference("$.a", "value", None, Some(&"x".repeat(5_000)))).collect();
        let html = table(&many, &Arms::OF_ROUTE, "many").into_string();
        assert!(html.contains("30 more differences") && html.len() < 80_000, "{}", html.len());
    }
}
