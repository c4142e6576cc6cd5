//! Ids that earlier pairs of an instance bound, and what contradicts them in a later pair.
//!
//! Within a pair ids correspond one to one. That a follow-up names another object of the same instance (the payment of
//! another order) shows only against the pairs before it: there, legacy's id was bound to another id of the engine.
//!
//! Always true: ids are compared with earlier ones of the same declared kind, or of the same name if no kind is
//! declared, because two tables often give the same numbers to different things.

use serde::{Deserialize, Serialize};

use super::findings::{ComparisonFindings, ReportAs};
use super::id_form::is_no_id;
use super::id_map::{FoundIds, IdMap, id_text};
use super::pair::{HidesSensitive, InstanceIds, Pair};
use super::redact::ShownAs;
use super::rule_texts::IdKind;
use super::rules::Rules;
use super::verdict::DifferenceKind;

/// The most ids of one pair that are remembered, and the most that are reported as those of another instance.
const IDS_OF_PAIR_MAX: usize = 64;
/// The longest id that is remembered.
const ID_BYTES_MAX: usize = 256;
/// Names that do not say what is identified: the name before such a one is added to it (`payments.id`).
const COMMON_NAMES: [&str; 9] = ["id", "uuid", "guid", "ref", "key", "no", "nr", "number", "code"];

/// An id of legacy and one of the engine that a pair of an instance bound.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EarlierIds {
    /// What they identify.
    pub of: IdSubject,
    /// Where they were found: a path as in [`super::Difference::path`].
    pub path: String,
    /// Legacy's.
    pub legacy: String,
    /// The engine's.
    pub engine: String,
    /// Whether differences show asterisks in place of the two ids.
    pub is_secret: bool,
}

/// What an id identifies, as far as rules and replies say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdSubject {
    /// A kind that the rules declare (`kind: customer`).
    Kind(String),
    /// The name under which they are: `payment_id`, `payments.id`.
    Name(String),
    /// The place without a name where they are, a header or a text. What they identify is not known, so they are
    /// compared only with the ids of instances, never with what an earlier pair bound at the same place.
    Place(String),
}

impl IdSubject {
    fn found(kind: IdKind, path: &str, kinds: &[String]) -> Self {
        match kinds.get(kind.index()).filter(|_| kind != IdKind::ANY) {
            Some(kind) => Self::Kind(kind.clone()),
            None => name_of(path).map_or_else(|| Self::Place(path.to_owned()), Self::Name),
        }
    }

    /// Whether such ids are compared with those of later pairs of the instance.
    fn are_remembered(&self) -> bool {
        match self {
            Self::Kind(_) | Self::Name(_) => true,
            Self::Place(_) => false,
        }
    }
}

/// The name under which an id is; `None` for one in a header or in a text, which has none.
fn name_of(path: &str) -> Option<String> {
    if path == "text" || path.starts_with("headers.") {
        return None;
    }
    let names = path.split(['.', '[', ']', '\'', '"']).filter(|name| !matches!(*name, "" | "$" | "*"));
    let names: Vec<&str> = names.collect();
    match names.as_slice() {
        [] => None,
        [.., holder, name] if COMMON_NAMES.contains(name) => Some(format!("{holder}.{name}")),
        [.., name] => Some((*name).to_owned()),
    }
}

/// The ids that the comparison of a pair bound under rules.
pub struct BoundIds<'p> {
    pair: &'p Pair<'p>,
    rules: &'p Rules,
    ids: IdMap,
}

impl<'p> BoundIds<'p> {
    pub(super) fn of(pair: &'p Pair<'p>, rules: &'p Rules, ids: IdMap) -> Self {
        Self { pair, rules, ids }
    }

    /// The ids to compare with those of later pairs of the instance, at most `IDS_OF_PAIR_MAX`: the first one of each
    /// kind or name, then the second ones. So many ids of the lines of an order do not displace that of its payment.
    pub fn to_remember(&self) -> Vec<EarlierIds> {
        let mut all: Vec<_> = self.found().map(|found| (self.of_found(found), found)).collect();
        all.retain(|(of, _)| of.are_remembered());
        all.sort_by(|(of, found), (of_other, other)| (of, place(*found)).cmp(&(of_other, place(*other))));
        let mut of_before = (None, 0);
        let mut ranked: Vec<(usize, _)> = Vec::with_capacity(all.len());
        for (of, found) in &all {
            of_before = if of_before.0 == Some(of) { (Some(of), of_before.1 + 1) } else { (Some(of), 0) };
            ranked.push((of_before.1, *found));
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.truncate(IDS_OF_PAIR_MAX);
        ranked.into_iter().map(|(_, found)| self.earlier(found)).collect()
    }

    /// Calls `instance_of` with each two ids that the pair bound (declared kind, legacy's, the engine's). It returns
    /// the ids of the instance that they contradict, if they do. Returns an entry for each contradiction, with the ids
    /// of the instance in place of the bound ones, at most `IDS_OF_PAIR_MAX`: one is enough for the pair to differ.
    pub fn contradicting(
        &self,
        instance_of: impl Fn(Option<&str>, &str, &str) -> Option<InstanceIds>,
    ) -> Vec<EarlierIds> {
        let contradicting = self.found().filter_map(|found| {
            let (kind, legacy, of_engine) = found;
            Some((found, instance_of(self.kind(kind), legacy, id_text(&of_engine.engine)?)?))
        });
        let mut contradicting: Vec<_> = contradicting.collect();
        contradicting.sort_by(|(found, _), (other, _)| place(*found).cmp(&place(*other)));
        contradicting.truncate(IDS_OF_PAIR_MAX);
        let of_instance = |(found, InstanceIds { legacy, engine })| EarlierIds {
            path: "instance.id".to_owned(),
            legacy,
            engine,
            ..self.earlier(found)
        };
        contradicting.into_iter().map(of_instance).collect()
    }

    /// The kind that the rules declare for these two ids, if they were bound.
    pub fn kind_of(&self, InstanceIds { legacy, engine }: &InstanceIds) -> Option<&'p str> {
        let mut found = self
            .found()
            .filter(|(_, of_legacy, found)| *of_legacy == *legacy && id_text(&found.engine) == Some(engine.as_str()));
        found.find_map(|(kind, ..)| self.kind(kind))
    }

    /// The bound ids that can be told from other values.
    fn found(&self) -> impl Iterator<Item = Found<'_>> {
        let ids = self.ids.found_by_rules();
        ids.filter(|(_, legacy, found)| is_kept(legacy) && id_text(&found.engine).is_some_and(is_kept))
    }

    fn kind(&self, kind: IdKind) -> Option<&'p str> {
        self.rules.texts.kinds().get(kind.index()).filter(|_| kind != IdKind::ANY).map(String::as_str)
    }

    fn of_found(&self, (kind, _, found): Found<'_>) -> IdSubject {
        IdSubject::found(kind, &found.path, self.rules.texts.kinds())
    }

    fn earlier(&self, found: Found<'_>) -> EarlierIds {
        let (of, (_, legacy, found)) = (self.of_found(found), found);
        let engine = id_text(&found.engine).unwrap_or_default();
        let is_hidden = |id: &str, hides: &dyn HidesSensitive| hides.hide_in_text(id) != id;
        let is_sensitive = self.pair.sensitive.is_some_and(|by| is_hidden(legacy, by) || is_hidden(engine, by));
        EarlierIds {
            of,
            path: found.path.clone(),
            legacy: legacy.to_owned(),
            engine: engine.to_owned(),
            is_secret: found.shown_as != ShownAs::UnderKey || is_sensitive,
        }
    }
}

fn is_kept(id: &str) -> bool {
    id.len() <= ID_BYTES_MAX && !is_no_id(id)
}

/// A kind, legacy's id, and where it was found.
type Found<'m> = (IdKind, &'m str, &'m FoundIds);

/// The order of found ids: by where they were found, then by legacy's id.
fn place<'m>((_, legacy, found): Found<'m>) -> (&'m str, &'m str) {
    (found.path.as_str(), legacy)
}

/// Reports the ids of a pair of which one was bound to another id by an earlier pair of the instance.
pub(super) fn report_contradictions(
    earlier: &[EarlierIds],
    pair: &Pair<'_>,
    rules: &Rules,
    ids: &IdMap,
    findings: &mut ComparisonFindings<'_>,
) {
    if earlier.is_empty() {
        return;
    }
    let mut found: Vec<_> = ids.found_by_rules().collect();
    found.sort_by_key(|(kind, legacy, found)| (*kind, *legacy, found.path.clone()));
    for (kind, legacy, found) in found {
        let Some(engine) = id_text(&found.engine) else { continue };
        let of = IdSubject::found(kind, &found.path, rules.texts.kinds());
        let is_contradicted = |ids: &&EarlierIds| ids.of == of && (ids.legacy == legacy) != (ids.engine == engine);
        let contradicted: Vec<FoundIds> = earlier.iter().filter(is_contradicted).map(EarlierIds::as_found).collect();
        if contradicted.is_empty() {
            continue;
        }
        let is_of_call = found.path.starts_with("effects.");
        findings.report_as(match (is_of_call, pair.stale_reads) {
            (true, _) => ReportAs::Effect,
            (false, true) => ReportAs::StaleRead,
            (false, false) => ReportAs::Found,
        });
        let (legacy, engine) = findings.shown_ids(found);
        let contradicted: Vec<&FoundIds> = contradicted.iter().collect();
        findings.add_contradicting_text(
            &found.path,
            DifferenceKind::Value,
            Some(&legacy),
            Some(&engine),
            &contradicted,
        );
        findings.report_as(ReportAs::Found);
    }
}

impl EarlierIds {
    /// As ids that a difference contradicts.
    fn as_found(&self) -> FoundIds {
        FoundIds {
            path: format!("{} of an earlier pair", self.path),
            shown_as: if self.is_secret { ShownAs::Stars } else { ShownAs::UnderKey },
            legacy: self.legacy.as_str().into(),
            engine: self.engine.as_str().into(),
            rule: None,
            unproven: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::compare::id_tests::with_location;
    use crate::compare::tests::{BOUNDS, found, json_reply, rules};
    use crate::compare::{Comparison, Verdict, compare_in_instance};

    /// Compares two replies after earlier pairs.
    fn follow_up(
        legacy: &Value,
        engine: &Value,
        draft: &Value,
        earlier: &[EarlierIds],
    ) -> (Comparison, Vec<EarlierIds>) {
        let instance = InstanceIds { legacy: "17".to_owned(), engine: "run-1".to_owned() };
        let (legacy, engine) = (json_reply(legacy), json_reply(engine));
        let pair = Pair {
            legacy: &legacy,
            engine: &engine,
            request: &Value::Null,
            effects: None,
            stale_reads: false,
            instance: Some(&instance),
            sensitive: None,
        };
        let rules = rules(draft.clone());
        let (comparison, bound) = compare_in_instance(&pair, earlier, &rules, &BOUNDS, &|| false).unwrap();
        (comparison, bound.to_remember())
    }

    #[test]
    fn a_follow_up_that_names_another_object_of_the_instance_is_found() {
        let draft = json!({"ids": ["$.id", "$.payment_id", "$.lines[*].id"]});
        let order =
            |id: &str, payment: &str, line: u64| json!({"id": id, "payment_id": payment, "lines": [{"id": line}]});
        let (create, earlier) = follow_up(&order("17", "p-1", 4), &order("run-1", "q-1", 9), &draft, &[]);
        assert_eq!(create.verdict, Verdict::Ignored);
        let of: Vec<_> = earlier.iter().map(|ids| (&ids.of, &*ids.legacy, &*ids.engine)).collect();
        let [line, payment] = ["lines.id", "payment_id"].map(|name| IdSubject::Name(name.to_owned()));
        assert_eq!(of, [(&line, "4", "9"), (&payment, "p-1", "q-1")], "that of the instance is known without it");
        let judged = |engine: &Value| follow_up(&order("17", "p-1", 4), engine, &draft, &earlier).0;
        assert_eq!(judged(&order("run-1", "q-1", 9)).verdict, Verdict::Ignored);
        let wrong = judged(&order("run-1", "q-2", 9));
        assert_eq!(found(&wrong), [("$.payment_id", DifferenceKind::Value)]);
        let contradicted = &wrong.differences[0].contradicts[0];
        assert_eq!(
            (&*contradicted.path, &*contradicted.legacy, &*contradicted.engine),
            ("$.payment_id of an earlier pair", "\"p-1\"", "\"q-1\"")
        );
        assert_eq!(found(&judged(&order("run-1", "q-1", 8))), [("$.lines[*].id", DifferenceKind::Value)]);
        // Alone, the pair says nothing of it.
        assert_eq!(
            follow_up(&order("17", "p-1", 4), &order("run-1", "q-2", 9), &draft, &[]).0.verdict,
            Verdict::Ignored
        );
        // The engine's id of one object for another one of legacy.
        let other = follow_up(&order("17", "p-2", 4), &order("run-1", "q-1", 9), &draft, &earlier).0;
        assert_eq!(found(&other), [("$.payment_id", DifferenceKind::Value)]);
    }

    #[test]
    fn many_ids_of_one_name_do_not_displace_the_one_of_another() {
        let draft = json!({"ids": ["$.lines[*].id", "$.payment_id"]});
        let order = |payment: &str, first: usize| {
            let lines: Vec<Value> = (first..first + 70).map(|line| json!({"id": line})).collect();
            json!({"payment_id": payment, "lines": lines})
        };
        let (_, earlier) = follow_up(&order("p-1", 100), &order("q-1", 300), &draft, &[]);
        assert_eq!(earlier.len(), IDS_OF_PAIR_MAX);
        let wrong = follow_up(&order("p-1", 100), &order("q-2", 300), &draft, &earlier).0;
        assert_eq!(found(&wrong), [("$.payment_id", DifferenceKind::Value)]);
    }

    #[test]
    fn ids_in_headers_are_not_compared_with_those_of_earlier_pairs() {
        let rules = rules(json!({"ids": [{"header.location": "/orders/{id}"}]}));
        let of = |id: &str| with_location(&format!("/orders/{id}"), &json!({}));
        let (legacy, engine) = (of("17"), of("e-1"));
        let pair = Pair {
            legacy: &legacy,
            engine: &engine,
            effects: None,
            stale_reads: false,
            request: &Value::Null,
            instance: None,
            sensitive: None,
        };
        let (_, bound) = compare_in_instance(&pair, &[], &rules, &BOUNDS, &|| false).unwrap();
        assert_eq!(bound.to_remember(), []);
        let all = bound.contradicting(|kind, legacy, engine| {
            assert_eq!((kind, legacy, engine), (None, "17", "e-1"));
            Some(InstanceIds { legacy: "18".to_owned(), engine: "e-1".to_owned() })
        });
        let of = IdSubject::Place("headers.location".to_owned());
        let path = "instance.id".to_owned();
        let ids = EarlierIds { of, path, legacy: "18".to_owned(), engine: "e-1".to_owned(), is_secret: false };
        assert_eq!(all, [ids]);
    }

    #[test]
    fn ids_of_other_things_may_have_the_same_numbers() {
        let draft = json!({"ids": ["$.payment.id", "$.shipment.id"]});
        let (_, earlier) = follow_up(&json!({"payment": {"id": 3}}), &json!({"payment": {"id": 1}}), &draft, &[]);
        let shipped = follow_up(&json!({"shipment": {"id": 5}}), &json!({"shipment": {"id": 1}}), &draft, &earlier).0;
        assert_eq!(shipped.verdict, Verdict::Ignored, "{:?}", shipped.differences);
        // A declared kind is the same thing under every name.
        let draft = json!({"ids": [{"path": "$.a.id", "kind": "payment"}, {"path": "$.paid_by", "kind": "payment"}]});
        let (_, earlier) = follow_up(&json!({"a": {"id": 3}}), &json!({"a": {"id": 1}}), &draft, &[]);
        let named = |engine: u64| follow_up(&json!({"paid_by": 3}), &json!({"paid_by": engine}), &draft, &earlier).0;
        assert_eq!((named(1).verdict, named(2).verdict), (Verdict::Ignored, Verdict::Mismatch));
    }

    #[test]
    fn secret_ids_are_not_shown() {
        let draft = json!({"ids": ["$.session.token"]});
        let of = |token: &str| json!({"session": {"token": token}});
        let (_, earlier) = follow_up(&of("tok-1"), &of("tok-a"), &draft, &[]);
        let wrong = follow_up(&of("tok-1"), &of("tok-b"), &draft, &earlier).0;
        assert_eq!(wrong.verdict, Verdict::Mismatch);
        assert!(!serde_json::to_string(&wrong.differences).unwrap().contains("tok-"), "{:?}", wrong.differences);
    }

    #[test]
    fn the_name_of_an_id_is_its_key_or_has_the_key_before_a_common_one() {
        for (path, name) in [
            ("$.payment_id", Some("payment_id")),
            ("$.reservations[*].id", Some("reservations.id")),
            ("$['a b'].no", Some("a b.no")),
            ("$.id", Some("id")),
            ("effects.charge.body.order", Some("order")),
            ("headers.location", None),
            ("text", None),
            ("$.note.text", Some("text")),
        ] {
            assert_eq!(name_of(path).as_deref(), name, "{path}");
        }
    }

    proptest! {
        /// An arm that renames all its ids in the same way in every pair is never reported.
        #[test]
        fn a_constant_renaming_is_no_contradiction(
            first in prop::collection::vec((0usize..3, 0u32..20), 1..6),
            second in prop::collection::vec((0usize..3, 0u32..20), 1..6),
        ) {
            let draft = json!({"ids": [
                {"path": "$[*].a", "kind": "a"}, {"path": "$[*].b", "kind": "b"}, {"path": "$[*].c", "kind": "c"}]});
            let document = |ids: &[(usize, u32)], shift: u32| {
                Value::from_iter(ids.iter().map(|(of, n)| json!({["a", "b", "c"][*of]: n + 1 + shift})))
            };
            let (_, earlier) = follow_up(&document(&first, 0), &document(&first, 100), &draft, &[]);
            let (comparison, _) = follow_up(&document(&second, 0), &document(&second, 100), &draft, &earlier);
            prop_assert_ne!(comparison.verdict, Verdict::Mismatch, "{:?}", comparison.differences);
        }
    }
}
