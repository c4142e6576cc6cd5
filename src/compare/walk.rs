//! Compares two JSON documents node by node.
//!
//! If ids are declared, the documents are walked more than once: first to bind legacy's ids to the engine's, then to
//! report differences with all bindings known. A reference that comes before the id that it refers to is thus compared
//! correctly.

use super::body_rules::{IdRule, Tolerance, Unordered};
use super::bounds::BoundExceeded;
use super::context::WalkContext;
use super::differing_elements::ElementOfLegacy;
use super::equal::{same, within};
use super::id_map::FoundIds;
use super::id_words::is_number;
use super::node::{Elements, Kind, Members, Node};
use super::number::is_same_value;
use super::pairing;
use super::quantity::names_an_amount;
use super::redact::ShownAs;
use super::repeated_report;
use super::value_path::ValuePath;
use super::verdict::DifferenceKind;

mod compared_values;
mod sets;

/// What a difference says of two numbers that are equal and not written alike.
const OTHER_FORM: &str = "the same number in another form";

/// What a difference says of two ids of which one is a number and one a text.
const OTHER_TYPE: &str = "an id of another type, which `any_type: true` allows";

/// One pass over two documents.
pub(super) struct Walk<'a, 'f> {
    context: WalkContext<'a, 'f>,
    pass: PassPurpose,
    /// Whether the values are in an array that is reported as reordered: the order of arrays in it is known to be the
    /// same, and searching it again at each level would double the work at each level.
    in_reordered: bool,
    /// Whether a pass with [`PassPurpose::BindUnambiguous`] found elements of which it is not clear which belong
    /// together.
    is_ambiguous: bool,
}

/// What the pass is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PassPurpose {
    /// Binds ids that are at the same path in both documents; unordered arrays are left out.
    BindByPath,
    /// Binds the ids in unordered arrays whose elements have a key.
    BindByKey,
    /// Binds the ids in those elements of unordered arrays of which it is clear which belong together.
    BindUnambiguous,
    /// Binds the ids in all unordered arrays: elements without a key are paired by the ids that are bound already;
    /// elements that are equal except for other ids are paired in their order.
    BindInUnordered,
    /// Reports differences and binds nothing.
    Report,
}

/// Which ids in unordered arrays are bound.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SetIdBinding {
    /// Those in elements of which it is clear which belong together.
    Unambiguous,
    /// All.
    All,
}

impl<'a, 'f> Walk<'a, 'f> {
    fn new(context: WalkContext<'a, 'f>, pass: PassPurpose) -> Self {
        Self { context, pass, in_reordered: false, is_ambiguous: false }
    }
    /// Binds the ids of two bodies, except those in unordered arrays without a key, which are left to
    /// [`Walk::bind_ids_in_sets`]. Reports nothing.
    pub(super) fn bind_ids(
        context: WalkContext<'a, 'f>,
        legacy: Node<'_>,
        engine: Node<'_>,
    ) -> Result<(), BoundExceeded> {
        if !context.rules.have_ids() {
            return Ok(());
        }
        let mut walk = Self::new(context, PassPurpose::BindByPath);
        walk.compare_values(&mut ValuePath::of("$"), legacy, engine)?;
        if walk.context.rules.unordered.iter().any(|(.., how)| matches!(how, Unordered::Key(_))) {
            walk.pass = PassPurpose::BindByKey;
            walk.compare_values(&mut ValuePath::of("$"), legacy, engine)?;
        }
        Ok(())
    }
    /// Reports the differences of two documents, with the ids that are bound by now. Paths begin with `root`.
    pub(super) fn report(
        context: WalkContext<'a, 'f>,
        root: &str,
        legacy: Node<'_>,
        engine: Node<'_>,
    ) -> Result<(), BoundExceeded> {
        let mut walk = Self::new(context, PassPurpose::Report);
        walk.compare_values(&mut ValuePath::of(root), legacy, engine)
    }

    fn is_report(&self) -> bool {
        self.pass == PassPurpose::Report
    }

    /// Compares two values that are at the same path.
    fn compare_values<'v>(
        &mut self,
        path: &mut ValuePath<'v>,
        legacy: Node<'v>,
        engine: Node<'v>,
    ) -> Result<(), BoundExceeded> {
        self.context.findings.count_work()?;
        path.set_values(legacy, engine);
        if !self.is_report() && !self.context.rules_by_node.may_have_ids(legacy, engine) {
            return Ok(());
        }
        let covered = self.context.rules_by_node.on_either(legacy, engine);
        if let Some(rule) = covered.ignore {
            if self.is_report() && !same(legacy, engine, self.context.rules.number_form, self.context.findings)? {
                self.context.findings.count_use(rule);
            }
            return Ok(());
        }
        if let Some(ids) = covered.id
            && self.bind_or_compare_ids(path, ids, legacy, engine)
        {
            self.note_compared_value();
            return Ok(());
        }
        if let Some((_, rule, by)) = covered.tolerance.and_then(|n| self.context.rules.tolerance.get(n))
            && (within(legacy, engine, by, self.context.findings)?
                || self.is_same_but_for_times(path, legacy, engine, by)?)
        {
            self.note_compared_value();
            if self.is_report() && !same(legacy, engine, self.context.rules.number_form, self.context.findings)? {
                self.context.findings.count_use(*rule);
            }
            return Ok(());
        }
        let same = match (legacy.kind(), engine.kind()) {
            (Kind::Object(a), Kind::Object(b)) => {
                self.note_if_empty(a.len(), b.len());
                let repeats_keys = !self.context.rules_by_node.repeated().is_empty();
                if self.is_report() && repeats_keys && covered.keys.is_none() {
                    repeated_report::report(&mut self.context, path, (legacy, a), (engine, b), is_same)?;
                }
                if let Some(ids) = covered.keys {
                    return self.compare_objects_by_id(path, ids, (legacy, a), (engine, b));
                }
                self.compare_objects(path, a, b)?;
                return if self.is_report() || !repeats_keys {
                    Ok(())
                } else {
                    self.bind_in_repeated(path, legacy, engine)
                };
            }
            (Kind::Array(a), Kind::Array(b)) => {
                self.note_if_empty(a.len(), b.len());
                return match covered.unordered.and_then(|n| self.context.rules.unordered.get(n)) {
                    Some((_, rule, how)) => self.compare_unordered(path, &a.list(), &b.list(), *rule, how),
                    None => self.compare_ordered(path, (legacy, engine), a, b),
                };
            }
            _ if !self.is_report() => return Ok(()),
            (Kind::Null, Kind::Null) => true,
            (Kind::Bool(a), Kind::Bool(b)) => a == b,
            (Kind::Number(a), Kind::Number(b)) => {
                let same = self.context.rules.number_form.same(a, b);
                if !same && is_same_value(a, b) {
                    self.context.findings.add_shown(path, DifferenceKind::Value, |findings| {
                        let shown = format!("{} ({OTHER_FORM})", findings.shown_value(path, engine));
                        (Some(findings.shown_value(path, legacy)), Some(shown))
                    });
                    return Ok(());
                }
                same
            }
            (Kind::String(a), Kind::String(b)) => self.same_text(path, a, b),
            _ => {
                self.context.findings.add_values(path, DifferenceKind::Type, Some(legacy), Some(engine));
                return Ok(());
            }
        };
        self.note_compared_value();
        if !same {
            let WalkContext { ids, findings, .. } = &mut self.context;
            let texts = legacy.as_str().zip(engine.as_str());
            let contradicted = texts.map_or_else(Vec::new, |(a, b)| ids.contradicted_in_text(a, b));
            findings.add_contradiction(path, legacy, engine, &contradicted);
        }
        Ok(())
    }

    /// Whether two strings are equal, where an id of legacy in them counts as equal to the engine's id that it is bound
    /// to. Counts the rules of these ids if the strings are equal only by that.
    fn same_text(&mut self, path: &ValuePath<'_>, legacy: &str, engine: &str) -> bool {
        if (is_number(legacy) || is_number(engine)) && path.keys().last().is_some_and(names_an_amount) {
            return legacy == engine;
        }
        let WalkContext { ids, findings, rules, .. } = &mut self.context;
        let same = ids.same_text(legacy, engine);
        if same && legacy != engine {
            ids.rules_in(legacy, rules.renaming).into_iter().for_each(|rule| findings.count_use(rule));
        }
        same
    }

    /// Whether two texts are equal but for times in them that are within the tolerance, and for ids that correspond.
    fn is_same_but_for_times(
        &mut self,
        path: &ValuePath<'_>,
        legacy: Node<'_>,
        engine: Node<'_>,
        by: &Tolerance,
    ) -> Result<bool, BoundExceeded> {
        let (Tolerance::TimesInText(times), Kind::String(a), Kind::String(b)) = (by, legacy.kind(), engine.kind())
        else {
            return Ok(false);
        };
        if !self.is_report() {
            return Ok(false);
        }
        let findings = &mut *self.context.findings;
        let text = times.with_times_of_legacy(a, b, &mut |bytes| findings.count_work_on(bytes))?;
        Ok(text.is_some_and(|text| self.same_text(path, a, &text)))
    }

    /// Binds or compares two ids. Returns false if one of them is neither text nor whole number: it is then compared as
    /// any value.
    fn bind_or_compare_ids(&mut self, path: &ValuePath<'_>, by: IdRule, legacy: Node<'_>, engine: Node<'_>) -> bool {
        let (Some(a), Some(b)) = (legacy.as_id(), engine.as_id()) else { return false };
        if !self.is_report() {
            let WalkContext { ids, findings, .. } = &mut self.context;
            ids.bind_as(by.kind, path.keys().last(), a, b, || FoundIds {
                path: findings.path_in_reply_or_call(path),
                shown_as: ShownAs::at(path),
                legacy: legacy.value().into_owned(),
                engine: engine.value().into_owned(),
                rule: Some(by.rule),
                unproven: Some(by.unproven),
            });
        } else if !by.any_type && legacy.is_number() != engine.is_number() {
            self.context.findings.add_shown(path, DifferenceKind::Type, |findings| {
                let shown = format!("{} ({OTHER_TYPE})", findings.shown_value(path, engine));
                (Some(findings.shown_value(path, legacy)), Some(shown))
            });
        } else if !self.context.ids.are_bound(by.kind, a, b) {
            let WalkContext { ids, findings, .. } = &mut self.context;
            findings.add_contradiction(path, legacy, engine, &ids.contradicted(by.kind, a, b));
        } else if a != b || legacy.is_number() != engine.is_number() {
            self.context.findings.count_use(by.rule);
        }
        true
    }

    fn compare_objects<'v>(
        &mut self,
        path: &mut ValuePath<'v>,
        legacy: Members<'v>,
        engine: Members<'v>,
    ) -> Result<(), BoundExceeded> {
        for (key, of_legacy, of_engine) in pairing::pair_by_key(legacy, engine) {
            path.enter_key(key);
            match (of_legacy, of_engine) {
                (Some(value), Some(other)) => self.compare_values(path, value, other)?,
                (Some(value), None) => self.add_unpaired(path, DifferenceKind::Missing, value),
                (None, Some(value)) => self.add_unpaired(path, DifferenceKind::Extra, value),
                (None, None) => {}
            }
            path.leave();
        }
        Ok(())
    }

    /// Binds the ids in the earlier values of keys that two objects repeat equally often.
    fn bind_in_repeated(
        &mut self,
        path: &ValuePath<'_>,
        legacy: Node<'_>,
        engine: Node<'_>,
    ) -> Result<(), BoundExceeded> {
        let repeated = self.context.rules_by_node.repeated();
        for key in repeated_report::keys_repeated_by_either(&self.context, legacy, engine) {
            let (a, b) = (repeated.earlier(legacy, key), repeated.earlier(engine, key));
            for (a, b) in a.iter().zip(&b).filter(|_| a.len() == b.len()) {
                let mut path = path.clone();
                path.enter_key(key);
                self.compare_values(&mut path, (*a).into(), (*b).into())?;
            }
        }
        Ok(())
    }

    /// Reports a value that only one of the documents has.
    fn add_unpaired(&mut self, path: &ValuePath<'_>, kind: DifferenceKind, value: Node<'_>) {
        if !self.is_report() {
            return;
        }
        match (self.context.rules_by_node.on(value).ignore, kind) {
            (Some(rule), _) => self.context.findings.count_use(rule),
            (None, DifferenceKind::Missing) => self.context.findings.add_values(path, kind, Some(value), None),
            (None, _) => self.context.findings.add_values(path, kind, None, Some(value)),
        }
    }

    /// Compares two elements, or reports one that has no partner. `legacy` comes with its index in legacy's list.
    fn compare_element<'v>(
        &mut self,
        path: &mut ValuePath<'v>,
        legacy: Option<(usize, Node<'v>)>,
        engine: Option<Node<'v>>,
    ) -> Result<(), BoundExceeded> {
        path.enter_element(legacy.map(|(index, _)| ElementOfLegacy::at(index)));
        match (legacy.map(|(_, node)| node), engine) {
            (Some(legacy), Some(engine)) => self.compare_values(path, legacy, engine)?,
            (Some(legacy), None) => self.add_unpaired(path, DifferenceKind::Missing, legacy),
            (None, Some(engine)) => self.add_unpaired(path, DifferenceKind::Extra, engine),
            (None, None) => {}
        }
        path.leave();
        Ok(())
    }

    fn compare_ordered<'v>(
        &mut self,
        path: &mut ValuePath<'v>,
        whole: (Node<'v>, Node<'v>),
        legacy: Elements<'v>,
        engine: Elements<'v>,
    ) -> Result<(), BoundExceeded> {
        if !self.is_report() && legacy.len() == engine.len() && legacy.len() > 1 {
            // The ids of elements that were moved are bound to those of the elements to which they correspond.
            let (legacy, engine) = (legacy.list(), engine.list());
            if let Some(pairs) = pairing::pair_reordered(&mut self.context, &legacy, &engine, 0..legacy.len())? {
                for (a, b) in pairs {
                    self.compare_element(path, Some((a, legacy[a])), Some(engine[b]))?;
                }
                return Ok(());
            }
        }
        if legacy.len() != engine.len() && self.is_report() {
            let (legacy, engine) = (legacy.list(), engine.list());
            for (a, b) in pairing::pair_in_order(&mut self.context, &legacy, &engine)? {
                self.compare_element(path, a.map(|n| (n, legacy[n])), b.map(|n| engine[n]))?;
            }
            return Ok(());
        }
        let before = self.context.findings.savepoint();
        let mut differing = Vec::new();
        for (n, (legacy, engine)) in legacy.iter().zip(engine.iter()).enumerate() {
            let found = self.context.findings.found();
            self.compare_element(path, Some((n, legacy)), Some(engine))?;
            differing.extend((self.context.findings.found() > found).then_some(n));
        }
        // One element alone cannot have been moved.
        if self.in_reordered || differing.len() < 2 {
            return Ok(());
        }
        let (legacy, engine) = (legacy.list(), engine.list());
        let Some(pairs) = pairing::pair_reordered(&mut self.context, &legacy, &engine, differing)? else {
            return Ok(());
        };
        // The same elements in another order: reported as one difference, and beside it only where an element differs
        // from the one to which it was moved.
        self.context.findings.roll_back_to(before);
        self.context.findings.add_values(path, DifferenceKind::Order, Some(whole.0), Some(whole.1));
        self.in_reordered = true;
        for (a, b) in pairs {
            self.compare_element(path, Some((a, legacy[a])), Some(engine[b]))?;
        }
        self.in_reordered = false;
        Ok(())
    }
}

/// Whether two values at a path are equal by the rules. Counts the rules by which they are; reports nothing.
fn is_same(
    context: &mut WalkContext<'_, '_>,
    path: &ValuePath<'_>,
    legacy: Node<'_>,
    engine: Node<'_>,
) -> Result<bool, BoundExceeded> {
    let before = context.findings.savepoint();
    let mut walk = Walk::new(context.reborrow(), PassPurpose::Report);
    walk.compare_values(&mut path.clone(), legacy, engine)?;
    let findings = walk.context.findings;
    let is_same = !findings.has_more_than(&before);
    if !is_same {
        findings.roll_back_to(before);
    }
    Ok(is_same)
}
