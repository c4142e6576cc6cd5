//! The result of a comparison.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::differing_elements::DifferingElements;
use super::effects::{EffectCoverage, IntentCounts};
use super::not_known::UndecidedValues;
use crate::names::StepId;
use crate::secret::{LengthMax, STARS, masked_and_cut};

/// Match, ignored (equal only because a rule said so), or mismatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Equal.
    Match,
    /// Equal only by a rule; counted per rule.
    Ignored,
    /// Different.
    Mismatch,
}

/// What kind of difference: the label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the other names explain themselves
pub enum DifferenceKind {
    Status,
    Header,
    Missing,
    Extra,
    Value,
    Type,
    Order,
    /// One side has a key of an object more than once.
    DuplicateKey,
    Intent,
    Assert,
    /// Any difference in the body, if the workflow has a `volatile: true` read, which is sent after legacy acted.
    StaleRead,
    /// Legacy made a call that the engine would not make.
    EffectMissing,
    /// The engine would make a call that legacy did not make.
    EffectExtra,
    /// A call by legacy differs from the corresponding call of the engine.
    EffectDiffers,
    /// Legacy made two calls in another order than the engine would.
    EffectOrder,
    /// One side made an equal call more often than the other.
    EffectDoubled,
}

impl DifferenceKind {
    /// The label of this kind.
    pub fn as_str(self) -> &'static str {
        match self {
            DifferenceKind::Status => "status",
            DifferenceKind::Header => "header",
            DifferenceKind::Missing => "missing",
            DifferenceKind::Extra => "extra",
            DifferenceKind::Value => "value",
            DifferenceKind::Type => "type",
            DifferenceKind::Order => "order",
            DifferenceKind::DuplicateKey => "duplicate_key",
            DifferenceKind::Intent => "intent",
            DifferenceKind::Assert => "assert",
            DifferenceKind::StaleRead => "stale_read",
            DifferenceKind::EffectMissing => "effect_missing",
            DifferenceKind::EffectExtra => "effect_extra",
            DifferenceKind::EffectDiffers => "effect_differs",
            DifferenceKind::EffectOrder => "effect_order",
            DifferenceKind::EffectDoubled => "effect_doubled",
        }
    }
}

/// One path at which two observations differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// Where they differ: `status`, `headers.location`, `$.items[*].price`, `effects.charge.body.amount`. Array indexes
    /// are `[*]`, so that the same difference in another element has the same path.
    pub path: String,
    /// The kind of the difference.
    pub kind: DifferenceKind,
    /// Legacy's value.
    pub legacy: Option<String>,
    /// The engine's value.
    pub engine: Option<String>,
    /// For ids, which must correspond one-to-one (`ids`): the earlier pairings that these values contradict; the values
    /// themselves may be equal. Left out if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contradicts: Vec<EarlierPairing>,
}

/// An id of legacy and one of the engine that were found to correspond, before others in the replies or calls of a
/// pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EarlierPairing {
    /// Where the two ids are: a path as in [`Difference::path`].
    pub path: String,
    /// Legacy's id.
    pub legacy: String,
    /// The engine's id.
    pub engine: String,
}

/// The longest value that is stored and shown of a difference.
const VALUE_BYTES_MAX: usize = 512;
/// The beginning of [`Difference::engine`] for an assert that cannot be evaluated; the error follows.
pub(super) const CANNOT_BE_EVALUATED: &str = "cannot be evaluated: ";

impl Difference {
    /// Masks each value as a whole, then cuts it, so that no part of a secret is left. To be called once, before the
    /// difference is stored or shown.
    pub fn mask_and_cut(&mut self, mask: impl Fn(&str) -> String) {
        let earlier = self.contradicts.iter_mut().flat_map(|earlier| [&mut earlier.legacy, &mut earlier.engine]);
        for value in [&mut self.legacy, &mut self.engine].into_iter().flatten().chain(earlier) {
            *value = masked_and_cut(value, &mask, LengthMax::Bytes(VALUE_BYTES_MAX));
        }
    }
    /// Replaces the values of the earlier pairings at the paths that are to be hidden.
    pub fn hide_earlier_pairings(&mut self, is_hidden: impl Fn(&str) -> bool) {
        for earlier in self.contradicts.iter_mut().filter(|earlier| is_hidden(&earlier.path)) {
            (earlier.legacy, earlier.engine) = (STARS.to_owned(), STARS.to_owned());
        }
    }
    /// Hides, of the error of an assert that cannot be evaluated, what the assert may have read: names and numbers that
    /// do not stand in the assert itself.
    pub fn hide_values_in_error_of_assert(&mut self) {
        if self.kind != DifferenceKind::Assert {
            return;
        }
        if let Some(error) = self.engine.as_deref().and_then(|value| value.strip_prefix(CANNOT_BE_EVALUATED)) {
            self.engine = Some(format!("{CANNOT_BE_EVALUATED}{}", without_values(error, &self.path)));
        }
    }
}

/// The error of an expression without values that it read. An error has names in backquotes, and numbers where it says
/// what they are: `-5 is negative`.
fn without_values(error: &str, source: &str) -> String {
    let source = with_dots(source);
    let quoted = error.split('`').enumerate().map(|(n, part)| match n % 2 {
        1 if !source.contains(&with_dots(part)) => STARS,
        _ => part,
    });
    let shown = quoted.collect::<Vec<_>>().join("`");
    let words: Vec<&str> = shown.split(' ').collect();
    let word = |(n, word): (usize, &&str)| match words.get(n + 1) {
        Some(&"is") if word.parse::<f64>().is_ok() => STARS.to_owned(),
        _ => (*word).to_owned(),
    };
    words.iter().enumerate().map(word).collect::<Vec<_>>().join(" ")
}

/// An expression in which all names stand behind dots: `a["b"].c` as `a.b.c`.
fn with_dots(source: &str) -> String {
    let begins = ["['", "[\""].iter().fold(source.to_owned(), |text, begin| text.replace(begin, "."));
    ["']", "\"]"].iter().fold(begins, |text, end| text.replace(end, ""))
}

impl Comparison {
    /// Whether anything of the replies was compared, or a call of the engine with one by legacy.
    pub fn compares_anything(&self) -> bool {
        self.compares_replies || self.effects.as_ref().is_some_and(EffectCoverage::has_compared)
    }
    /// Whether an intent of one of these steps was compared with no call by legacy.
    pub fn lacks_calls_of(&self, steps: &[StepId]) -> bool {
        let of = |step| self.effects.as_ref()?.steps.get(step);
        steps.iter().filter_map(of).any(|counts| counts.unmatched > 0)
    }
}

/// The result of comparing two observations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The verdict.
    pub verdict: Verdict,
    /// The differences; their values are neither masked nor cut ([`Difference::mask_and_cut`]). Empty unless the
    /// verdict is a mismatch.
    pub differences: Vec<Difference>,
    /// Which elements of lists differ, by the path and the kind of the difference.
    #[serde(skip)]
    pub elements: BTreeMap<(String, DifferenceKind), DifferingElements>,
    /// Whether there may be more differences than are listed: there were more than the limit, the time was used up, or
    /// two texts were too long to align.
    pub truncated: bool,
    /// How many times each rule made two values equal, by the rule's text, and how many times its condition could not
    /// be evaluated.
    pub ignored_by: Vec<(String, u32)>,
    /// Whether anything of the replies was compared: the exact status, a header that one of them has, a value or line
    /// of their bodies, or an `assert` on both. If not, it says nothing that they are equal.
    #[serde(skip)]
    pub compares_replies: bool,
    /// A hash of the paths and kinds of the differences, and, where the replies tell it, of their cause: what a refusal
    /// says, or how a line of a text begins. Equal for pairs that differ in the same way.
    pub fingerprint: String,
    /// How many of the engine's intents were compared with a call by legacy; `None` if legacy's calls were not watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effects: Option<EffectCoverage>,
    /// By step: with what the engine's intents were compared.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub intents: BTreeMap<StepId, IntentCounts>,
    /// The engine's intents that were judged, each with its call by legacy.
    #[serde(skip)]
    pub calls: Vec<ComparedCall>,
    /// Orders that legacy did not keep for this request, as the paths of differences in order: it made the two calls at
    /// the same time; or the other way round, where the engine makes them in no order.
    #[serde(skip)]
    pub orders_not_kept: Vec<String>,
    /// The bodies of the replies that are not what their content types say. Empty also if the bodies were not read,
    /// because they are equal byte for byte.
    #[serde(skip)]
    pub unparsable: Vec<UnparsableBody>,
    /// The values of which it is not known whether they differ, because legacy's are those of a capture and redacted.
    #[serde(skip)]
    pub not_known: Vec<UndecidedValues>,
}

/// The arms, as [`UnparsableBody::arm`] names them.
pub(super) const LEGACY: &str = "legacy";
pub(super) const ENGINE: &str = "engine";

/// The body of a reply that is not what its content type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnparsableBody {
    /// The arm whose reply it is: `legacy` or `engine`.
    pub arm: &'static str,
    /// The format that its content type names: `JSON`, `XML`, `CSV`.
    pub format: &'static str,
}

/// An intent of the engine, and the call by legacy to which it corresponds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComparedCall {
    /// The index of the intent.
    pub intent: usize,
    /// The number of the call; `None` if legacy made none.
    pub legacy: Option<u64>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::compare;
    use super::super::pair::Pair;
    use super::super::tests::{BOUNDS, json_reply, rules};
    use super::*;

    const SECRET: &str = "CARD-4111-2222-3333";

    /// Returns the differences of a pair as they are stored.
    fn shown(legacy: &serde_json::Value, draft: serde_json::Value) -> Vec<Difference> {
        let (legacy, engine) = (json_reply(legacy), json_reply(&json!({})));
        let request = json!({ "card": SECRET, "n": -4711 });
        let pair = Pair {
            legacy: &legacy,
            engine: &engine,
            request: &request,
            effects: None,
            stale_reads: false,
            instance: None,
            sensitive: None,
        };
        let mut found = compare(&pair, &rules(draft), &BOUNDS, &|| false).unwrap().differences;
        found.iter_mut().for_each(|difference| {
            difference.hide_values_in_error_of_assert();
            difference.mask_and_cut(|text| text.replace(SECRET, "***"));
        });
        found
    }

    #[test]
    fn a_difference_is_masked_as_a_whole_before_it_is_cut() {
        for filled in (VALUE_BYTES_MAX - 30)..VALUE_BYTES_MAX {
            let body = json!({ "doc": { "pad": "x".repeat(filled), "v": SECRET } });
            let text = json!({ "text": format!("{}{SECRET}{}", "x".repeat(filled), "y".repeat(99)) });
            for legacy in [body, text] {
                let found = shown(&legacy, json!({}));
                let value = found[0].legacy.as_deref().unwrap();
                assert!(!value.contains('C') && value.len() <= VALUE_BYTES_MAX, "{filled}: {value}");
            }
        }
    }

    #[test]
    fn the_label_of_a_kind_is_its_name_in_the_api() {
        let kinds = serde_json::to_value(schemars::schema_for!(DifferenceKind)).unwrap();
        let mut names: Vec<_> = Vec::new();
        let mut waiting = vec![&kinds];
        while let Some(value) = waiting.pop() {
            names.extend(value.get("const").and_then(|name| name.as_str()));
            names.extend(
                value.get("enum").and_then(|list| list.as_array()).into_iter().flatten().filter_map(|n| n.as_str()),
            );
            waiting.extend(value.get("oneOf").and_then(|list| list.as_array()).into_iter().flatten());
        }
        assert_eq!(names.len(), 16, "{kinds}");
        for name in names {
            let kind: DifferenceKind = serde_json::from_value(json!(name)).unwrap();
            assert_eq!(kind.as_str(), name);
        }
    }

    #[test]
    fn the_error_of_an_assert_says_what_is_absent_and_quotes_nothing_that_it_read() {
        for (assert, error) in [
            ("${legacy.body.absent == 1}", "cannot be evaluated: `legacy.body.absent` is absent"),
            ("${legacy.body['absent'].x == 1}", "cannot be evaluated: `legacy.body.absent` is absent"),
            ("${legacy.body[request.card] == 1}", "cannot be evaluated: `***` is absent"),
            ("${uint(request.n) == 1}", "cannot be evaluated: uint(): *** is negative"),
            ("${{request.card: 1, request.card: 2} == {}}", "cannot be evaluated: the key `***` is in the map twice"),
            ("${int(request.card) == 7}", "cannot be evaluated: int(): the text is not a whole number"),
            ("${request.card == ''}", "does not hold"),
        ] {
            let found = shown(&json!({}), json!({ "assert": [assert] }));
            assert_eq!(found[0].engine.as_deref(), Some(error), "{assert}");
        }
    }
}
