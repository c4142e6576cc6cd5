//! Two JSON documents side by side.
//!
//! The same walk is made twice where ids are declared: first only to bind legacy's ids to the engine's, then to report
//! with all bindings known, so that a reference in front of the id it refers to is judged rightly.

use serde_json::{Map, Value};

use super::equal::{same, within};
use super::findings::Findings;
use super::ids::Ids;
use super::marks::Marks;
use super::number;
use super::pairing;
use super::place::Place;
use super::rules::{RuleId, Rules, Unordered};
use super::verdict::{Kind, TooMuch};

pub(super) struct Walk<'a, 'f> {
    pub(super) rules: &'a Rules,
    pub(super) marks: &'a Marks,
    pub(super) ids: &'a mut Ids,
    pub(super) found: &'a mut Findings<'f>,
    stage: Stage,
}

/// What the walk is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// To bind the ids whose partner stands where it stands: not those in arrays without an order.
    Anchor,
    /// To bind the rest: elements of a set find each other by what is bound already.
    Bind,
    Report,
}

impl<'a, 'f> Walk<'a, 'f> {
    /// Binds the ids of two bodies and reports nothing.
    pub(super) fn bind(
        rules: &'a Rules,
        marks: &'a Marks,
        ids: &'a mut Ids,
        found: &'a mut Findings<'f>,
        legacy: &Value,
        engine: &Value,
    ) -> Result<(), TooMuch> {
        let mut walk = Self { rules, marks, ids, found, stage: Stage::Anchor };
        walk.pair(&mut Place::of("$"), legacy, engine)?;
        if !rules.unordered.is_empty() {
            walk.stage = Stage::Bind;
            walk.pair(&mut Place::of("$"), legacy, engine)?;
        }
        Ok(())
    }
    /// Reports, with the ids as they are bound.
    pub(super) fn reporting(rules: &'a Rules, marks: &'a Marks, ids: &'a mut Ids, found: &'a mut Findings<'f>) -> Self {
        Self { rules, marks, ids, found, stage: Stage::Report }
    }
    /// Walks two bodies.
    pub(super) fn body(self, legacy: &Value, engine: &Value) -> Result<(), TooMuch> {
        self.at(Place::of("$"), legacy, engine)
    }
    /// Walks two documents that stand at a place.
    pub(super) fn at<'v>(mut self, mut place: Place<'v>, legacy: &'v Value, engine: &'v Value) -> Result<(), TooMuch> {
        self.pair(&mut place, legacy, engine)
    }

    fn reports(&self) -> bool {
        self.stage == Stage::Report
    }

    fn pair<'v>(&mut self, place: &mut Place<'v>, legacy: &'v Value, engine: &'v Value) -> Result<(), TooMuch> {
        self.found.step()?;
        let said = self.marks.on_either(legacy, engine);
        if let Some(rule) = said.ignore {
            if self.reports() && !same(legacy, engine, self.found)? {
                self.found.hit(rule);
            }
            return Ok(());
        }
        if let Some(rule) = said.id
            && self.id(place, rule, legacy, engine)
        {
            return Ok(());
        }
        if let Some((_, rule, by)) = said.tolerance.and_then(|n| self.rules.tolerance.get(n))
            && within(legacy, engine, by)
        {
            if self.reports() && !same(legacy, engine, self.found)? {
                self.found.hit(*rule);
            }
            return Ok(());
        }
        let same = match (legacy, engine) {
            (Value::Object(legacy), Value::Object(engine)) => return self.objects(place, legacy, engine),
            (Value::Array(a), Value::Array(b)) => {
                return match said.unordered.and_then(|n| self.rules.unordered.get(n)) {
                    Some((_, rule, how)) => self.unordered(place, a, b, *rule, how),
                    None => self.ordered(place, (legacy, engine), a, b),
                };
            }
            _ if !self.reports() => return Ok(()),
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Number(a), Value::Number(b)) => number::same(a, b),
            (Value::String(a), Value::String(b)) => self.same_text(a, b),
            _ => {
                self.found.values(place, Kind::Type, Some(legacy), Some(engine));
                return Ok(());
            }
        };
        if !same {
            self.found.values(place, Kind::Value, Some(legacy), Some(engine));
        }
        Ok(())
    }

    fn same_text(&mut self, legacy: &str, engine: &str) -> bool {
        let same = self.ids.same_text(legacy, engine);
        if same
            && legacy != engine
            && let Some((_, rule)) = self.rules.ids.first()
        {
            self.found.hit(*rule);
        }
        same
    }

    /// Whether the two were judged as ids; what is no text or number is judged as what it is.
    fn id(&mut self, place: &Place<'_>, rule: RuleId, legacy: &Value, engine: &Value) -> bool {
        let (Some(a), Some(b)) = (id_text(legacy), id_text(engine)) else { return false };
        if !self.reports() {
            self.ids.bind(a, b);
        } else if !self.ids.agree(a, b) {
            self.found.values(place, Kind::Value, Some(legacy), Some(engine));
        } else if legacy != engine {
            // Also where one is a number and the other text: an id is a name, however it is written.
            self.found.hit(rule);
        }
        true
    }

    fn objects<'v>(
        &mut self,
        place: &mut Place<'v>,
        legacy: &'v Map<String, Value>,
        engine: &'v Map<String, Value>,
    ) -> Result<(), TooMuch> {
        for (key, value) in legacy {
            place.enter_key(key);
            match engine.get(key) {
                Some(other) => self.pair(place, value, other)?,
                None => self.alone(place, Kind::Missing, value),
            }
            place.leave();
        }
        for (key, value) in engine {
            if !legacy.contains_key(key) {
                place.enter_key(key);
                self.alone(place, Kind::Extra, value);
                place.leave();
            }
        }
        Ok(())
    }

    /// A value that the other side does not have.
    fn alone(&mut self, place: &Place<'_>, kind: Kind, value: &Value) {
        if !self.reports() {
            return;
        }
        match (self.marks.on(value).ignore, kind) {
            (Some(rule), _) => self.found.hit(rule),
            (None, Kind::Missing) => self.found.values(place, kind, Some(value), None),
            (None, _) => self.found.values(place, kind, None, Some(value)),
        }
    }

    fn element<'v>(
        &mut self,
        place: &mut Place<'v>,
        legacy: Option<&'v Value>,
        engine: Option<&'v Value>,
    ) -> Result<(), TooMuch> {
        place.enter_element();
        match (legacy, engine) {
            (Some(legacy), Some(engine)) => self.pair(place, legacy, engine)?,
            (Some(legacy), None) => self.alone(place, Kind::Missing, legacy),
            (None, Some(engine)) => self.alone(place, Kind::Extra, engine),
            (None, None) => {}
        }
        place.leave();
        Ok(())
    }

    fn ordered<'v>(
        &mut self,
        place: &mut Place<'v>,
        whole: (&'v Value, &'v Value),
        legacy: &'v [Value],
        engine: &'v [Value],
    ) -> Result<(), TooMuch> {
        let before = self.found.mark();
        if legacy.len() != engine.len() && self.reports() {
            for (a, b) in pairing::aligned(self, legacy, engine)? {
                self.element(place, a.map(|n| &legacy[n]), b.map(|n| &engine[n]))?;
            }
            return Ok(());
        }
        for (legacy, engine) in legacy.iter().zip(engine) {
            self.element(place, Some(legacy), Some(engine))?;
        }
        // Every element is there, only elsewhere: that is one difference.
        if self.found.since(&before) && pairing::only_moved(self, legacy, engine)? {
            self.found.back_to(before);
            self.found.values(place, Kind::Order, Some(whole.0), Some(whole.1));
        }
        Ok(())
    }

    fn unordered<'v>(
        &mut self,
        place: &mut Place<'v>,
        legacy: &'v [Value],
        engine: &'v [Value],
        rule: RuleId,
        how: &Unordered,
    ) -> Result<(), TooMuch> {
        if self.stage == Stage::Anchor {
            return Ok(());
        }
        let pairs = pairing::matched(self, legacy, engine, how)?;
        if self.reports() && pairs.iter().any(|(a, b)| matches!((a, b), (Some(a), Some(b)) if a != b)) {
            self.found.hit(rule);
        }
        for (a, b) in pairs {
            self.element(place, a.map(|n| &legacy[n]), b.map(|n| &engine[n]))?;
        }
        Ok(())
    }
}

/// An id as text, however it is typed.
pub(super) fn id_text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.as_str()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
