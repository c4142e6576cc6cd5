//! The check of `invariants:`: conditions over a request, the engine's reply to it, and its run.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::suggest;
use super::values::condition;
use crate::expression::{EFFECTS, Expression, ReadPath, Scope};
use crate::flag::invariant::{INVARIANT_NAME_BYTES_MAX, INVARIANTS_MAX, Invariant, WrittenInvariant};
use crate::problem::{Problems, Site};
use crate::secret::{RedactRules, TextHash};

/// The names that an invariant may read. `engine` is the same as `reply`, as in an `assert`.
const ROOTS: [&str; 6] = ["request", "reply", "engine", "run", "intents", EFFECTS];
/// Of the run, what an invariant may read.
const RUN_PARTS: [&str; 2] = ["id", "status"];

/// Conditions: a list, or a map by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvariantsDraft {
    /// A list; the name of each is its own text.
    List(Vec<InvariantDraft>),
    /// A map by name.
    Named(BTreeMap<String, InvariantDraft>),
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvariantDraft {
    /// The condition alone: it is judged for answers below 400.
    That(String),
    /// A condition, and another one that says for which answers it is judged.
    When(ConditionalDraft),
}

/// A condition, and for which answers it is judged.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConditionalDraft {
    /// The condition.
    pub that: String,
    /// For which answers it is judged.
    pub when: Option<String>,
}

fn read<T: serde::de::DeserializeOwned, E: serde::de::Error>(value: Value) -> Result<T, E> {
    serde_json::from_value(value).map_err(E::custom)
}

impl<'de> Deserialize<'de> for InvariantsDraft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            value @ Value::Array(_) => read(value).map(Self::List),
            value => read(value).map(Self::Named),
        }
    }
}

impl<'de> Deserialize<'de> for InvariantDraft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self::That(text)),
            value => read(value).map(Self::When),
        }
    }
}

// The schemas list both types instead of using `anyOf`: with `anyOf` a validator would not name an unknown key.

impl JsonSchema for InvariantsDraft {
    fn schema_name() -> Cow<'static, str> {
        "Invariants".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<InvariantDraft>();
        json_schema!({
            "description": "Conditions: a list, or a map by name.",
            "type": ["array", "object"],
            "items": one,
            "additionalProperties": one
        })
    }
}

impl JsonSchema for InvariantDraft {
    fn schema_name() -> Cow<'static, str> {
        "Invariant".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A condition. Alone, it is judged for answers below 400.",
            "type": ["string", "object"],
            "properties": {
                "that": { "type": "string", "description": "The condition that must hold." },
                "when": {
                    "type": "string",
                    "description": "It is judged only where this condition over `request` and `reply.status` holds: \
                                    `${reply.status < 500}`."
                }
            },
            "required": ["that"],
            "additionalProperties": false
        })
    }
}

impl InvariantDraft {
    fn parts(&self) -> (&str, Option<&str>) {
        match self {
            Self::That(that) => (that, None),
            Self::When(ConditionalDraft { that, when }) => (that, when.as_deref()),
        }
    }
    fn written(&self, name: Option<&str>) -> WrittenInvariant {
        let (that, when) = self.parts();
        WrittenInvariant::new(name, that, when)
    }
}

/// Checks conditions. In a list, each condition is named by its own text. `redact`: what the route declares as secret.
pub(super) fn invariants(
    draft: &InvariantsDraft,
    redact: &RedactRules,
    site: &Site,
    problems: &mut Problems,
) -> Vec<Invariant> {
    let entries: Vec<(Site, WrittenInvariant, &InvariantDraft)> = match draft {
        InvariantsDraft::List(list) => {
            list.iter().enumerate().map(|(n, one)| (site.index(n), one.written(None), one)).collect()
        }
        InvariantsDraft::Named(map) => {
            map.iter().map(|(name, one)| (site.key(&**name), one.written(Some(name)), one)).collect()
        }
    };
    if entries.len() > INVARIANTS_MAX {
        problems
            .error(site, format!("a route has at most {INVARIANTS_MAX} invariants, here are {}", entries.len()))
            .hint("join some with `&&`");
        return Vec::new();
    }
    // Names are compared with an unkeyed hash: without a hash, conditions that differ only in masked literals have one
    // name.
    let (mut names, with_hash) = (BTreeSet::new(), redact.with_text_hash(&TextHash::Unkeyed));
    let checked = entries.into_iter().filter_map(|(site, written, draft)| {
        let name = written.name(redact);
        if name.is_empty() || name.len() > INVARIANT_NAME_BYTES_MAX || name.contains(char::is_control) {
            problems
                .error(&site.at_key(), format!("the name of an invariant has 1 to {INVARIANT_NAME_BYTES_MAX} bytes"))
                .hint("such as `one charge`");
            return None;
        }
        if !names.insert(written.name(&with_hash)) {
            problems
                .error(&site, format!("two invariants would be named `{name}`"))
                .hint("give them names: `invariants: { NAME: CONDITION }`");
            return None;
        }
        one(written, draft, redact, &site, problems)
    });
    checked.collect()
}

fn one(
    written: WrittenInvariant,
    draft: &InvariantDraft,
    redact: &RedactRules,
    site: &Site,
    problems: &mut Problems,
) -> Option<Invariant> {
    let (that, when) = draft.parts();
    let (of_that, of_when) = match draft {
        InvariantDraft::That(_) => (site.clone(), site.clone()),
        InvariantDraft::When(_) => (site.key("that"), site.key("when")),
    };
    let condition_of = |text: &str, site: &Site, problems: &mut Problems| condition(text, site, problems);
    let parsed = condition_of(that, &of_that, problems);
    let condition = when.map(|when| condition_of(when, &of_when, problems));
    let (that, when) = (parsed?, condition.map_or(Some(None), |when| when.map(Some))?);
    // All reads are checked, so that each wrong one is reported.
    let (mut may_read, mut may_decide) = (true, true);
    for read in that.reads() {
        may_read &= may_read_path(read, &of_that, problems);
    }
    for read in when.iter().flat_map(Expression::reads) {
        may_decide &= may_read_in_when(read, &of_when, problems);
    }
    if that.reads().is_empty() && that.holds(&Scope::new()).is_ok() {
        problems
            .error(&of_that, "the condition reads nothing, so it says the same of all answers")
            .hint("it reads `request`, `reply`, `run` and `effects(\"STEP\")`: `${reply.body.total >= 0}`");
        return None;
    }
    let (name, text) = (written.name(redact), written.text(redact));
    (may_read && may_decide).then_some(Invariant { name, text, that, when, written })
}

fn may_read_path(read: &ReadPath, site: &Site, problems: &mut Problems) -> bool {
    let root = read.root();
    match (root, read.part(0)) {
        ("legacy", _) => {
            problems
                .error(site, "an invariant cannot read `legacy`: where the engine answers, legacy is not asked")
                .hint("what needs legacy's reply is an `assert` under `compare:`, judged in `shadow` and `dark`");
            false
        }
        (EFFECTS, None) => {
            problems
                .error(site, "`effects` has to be called: `effects()` or `effects(\"STEP\")`")
                .hint("`effects(\"STEP\")` are the calls that a step sent, and `effects()` all of them");
            false
        }
        ("run", Some(part)) if !RUN_PARTS.contains(&part) => {
            problems
                .error(site, format!("an invariant cannot read `run.{part}`"))
                .hint("it reads `run.status`, such as `completed`, and `run.id`");
            false
        }
        _ if ROOTS.contains(&root) => true,
        _ => {
            let hint = suggest(root, ROOTS.into_iter());
            problems.error(site, format!("`{root}` cannot be read by an invariant")).hint(hint);
            false
        }
    }
}

fn may_read_in_when(read: &ReadPath, site: &Site, problems: &mut Problems) -> bool {
    let is_status = ["reply", "engine"].contains(&read.root()) && read.part(0) == Some("status");
    let may_read = is_status || read.root() == "request";
    if !may_read {
        problems
            .error(site, format!("the condition of an invariant cannot read `{}`", read.root()))
            .hint("it reads `request` and `reply.status`: `${reply.status < 500}`");
    }
    may_read
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::flag::file::tests::only_problem;
    use crate::secret::Detectors;

    fn checked(draft: Value) -> (Vec<Invariant>, usize) {
        let (mut problems, site) = (Problems::default(), Site::file("r.yaml"));
        let draft: InvariantsDraft = serde_json::from_value(draft).unwrap();
        let redact = RedactRules::new(["customer_ref".to_owned()], Vec::new(), Detectors::default());
        let found = invariants(&draft, &redact, &site.key("invariants"), &mut problems);
        let of_store = redact.with_text_hash(&TextHash::derived_from(None, &[1; 32]));
        assert!(
            found.iter().all(|one| !format!("{} {}", one.name, one.text).contains("***\"} (")),
            "no hash without a key"
        );
        (found.iter().map(|one| one.shown_with(&of_store)).collect(), problems.iter().count())
    }

    #[test]
    fn invariants_are_a_list_or_a_map_each_with_or_without_when() {
        let (found, problems) = checked(json!(["${reply.body.total >= 0}"]));
        assert_eq!((found[0].name.as_str(), problems), ("${reply.body.total >= 0}", 0));
        assert!(found[0].when.is_none() && !found[0].reads_the_run());
        let (found, problems) = checked(json!({
            "one charge": { "that": "${size(effects(\"charge\")) == 1}", "when": "${request.method == \"POST\"}" },
            "it ends": "${run.status == \"completed\"}",
        }));
        let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!((names, problems), (vec!["it ends", "one charge"], 0));
        assert!(found.iter().all(Invariant::reads_the_run) && found[1].when.is_some());
        assert_ne!(found[1].text, found[0].text);
    }

    #[test]
    fn neither_their_texts_nor_their_names_have_a_secret() {
        let of = |literal: &str| {
            let that = format!("${{request.headers[\"x-api-key\"] != \"{literal}\"}}");
            let when = format!("${{request.body.customer_ref != \"{literal}\"}}");
            (that, json!({ "that": "${reply.body.total >= 0}", "when": when }))
        };
        let ((one, when), (other, _)) = (of("k3y-1"), of("k3y-2"));
        let (listed, problems) = checked(json!([one, other, when]));
        let (named, _) = checked(json!({ "a": one, "b": other }));
        assert_eq!((listed.len(), named.len(), problems), (3, 2, 0));
        for invariant in listed.iter().chain(&named) {
            assert!(!format!("{} {}", invariant.name, invariant.text).contains("k3y"), "{invariant:?}");
        }
        assert!(listed[0].name.starts_with("${request.headers[\"x-api-key\"] != \"***\"} ("), "{listed:?}");
        let (moved, _) = checked(json!(["${reply.status < 500}", one]));
        assert_eq!(moved[1].name, listed[0].name, "wherever it stands in the list");
        assert!(listed[0].name != listed[1].name && listed[0].text != listed[1].text && named[0].text != named[1].text);
        let long = format!(
            "${{request.headers[\"x-api-key\"] != \"k3y\" && {}}}",
            "reply.status < 500 && ".repeat(5) + "true"
        );
        let (long, _) = checked(json!([long]));
        assert!(long[0].name.ends_with(')') && long[0].name.len() <= INVARIANT_NAME_BYTES_MAX, "{long:?}");
    }

    #[test]
    fn an_invariant_that_reads_what_it_cannot_is_refused_with_what_it_can_read() {
        for (draft, place, why) in [
            (json!(["${legacy.body.total > 0}"]), "invariants[0]", "legacy is not asked"),
            (json!(["${instance.id != null}"]), "invariants[0]", "`instance` cannot be read"),
            (json!(["${run.output > 0}"]), "invariants[0]", "cannot read `run.output`"),
            (json!(["${1 < 2}"]), "invariants[0]", "reads nothing"),
            (
                json!({"a": {"that": "${reply.status < 500}", "when": "${reply.body.x}"}}),
                "a.when",
                "cannot read `reply`",
            ),
            (json!({"": "${reply.status < 500}"}), "invariants", "1 to 80 bytes"),
            (json!(["${reply.status < 500}", "${reply.status < 500}"]), "invariants[1]", "two invariants"),
            (json!(vec!["${reply.status < 500}"; 33]), "invariants", "at most 32"),
        ] {
            let found = only_problem(json!({ "invariants": draft }));
            assert!(found.contains(place) && found.contains(why), "{found}");
        }
    }
}
