//! Macros (`map`, `filter`, `all`, …): evaluated for each element of a list, or each key of a map.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::bounds::WORK_MAX;
use super::error::ExpressionError;
use super::evaluate::{Evaluated, Evaluation};
use super::node::{Macro, MacroKind};
use super::value::{OPAQUE, kind};

impl<'s> Evaluation<'s> {
    pub(super) fn evaluate_macro(&mut self, inner: &'s Macro) -> Result<Value, ExpressionError> {
        let elements: Vec<Evaluated<'s>> = match self.json(&inner.range)? {
            Cow::Borrowed(Value::Array(list)) => list.iter().map(Evaluated::Ref).collect(),
            Cow::Owned(Value::Array(list)) => list.into_iter().map(Evaluated::Own).collect(),
            bytes if self.scope.is_opaque(&bytes) => {
                return Err(ExpressionError::new(format!("a macro takes a list or a map, and this is {OPAQUE}")));
            }
            map if map.is_object() => {
                let keys = map.as_object().into_iter().flat_map(Map::keys);
                keys.map(|key| Evaluated::Own(Value::String(key.clone()))).collect()
            }
            other => return Err(ExpressionError::new(format!("a macro takes a list or a map, not {}", kind(&other)))),
        };
        self.charge(elements.len() as u64)?;
        let (mut list, mut true_count, mut failed) = (Vec::new(), 0, None);
        for element in elements {
            self.locals.push(element);
            let outcome = self.element(inner);
            self.locals.pop();
            match (inner.kind, outcome) {
                (_, Err(error)) if self.work > WORK_MAX => return Err(error),
                (MacroKind::Quantifier { deciding_value }, Ok(Some(Value::Bool(holds)))) if holds == deciding_value => {
                    return Ok(Value::Bool(deciding_value));
                }
                (MacroKind::Quantifier { .. }, Err(error)) => failed = failed.or(Some(error)),
                (MacroKind::One, Ok(Some(Value::Bool(true)))) => true_count += 1,
                (MacroKind::Map, Ok(Some(value))) => list.push(value),
                (_, Ok(_)) => {}
                (_, Err(error)) => return Err(error),
            }
        }
        match (inner.kind, failed) {
            (_, Some(error)) => Err(error),
            (MacroKind::Quantifier { deciding_value }, None) => Ok(Value::Bool(!deciding_value)),
            (MacroKind::One, None) => Ok(Value::Bool(true_count == 1)),
            (MacroKind::Map, None) => Ok(Value::Array(list)),
        }
    }

    /// The body for one element; `None` where the filter excludes it.
    fn element(&mut self, inner: &'s Macro) -> Result<Option<Value>, ExpressionError> {
        if let Some(filter) = &inner.filter
            && !self.bool(filter, "a filter")?
        {
            return Ok(None);
        }
        match inner.kind {
            MacroKind::Map => self.owned(&inner.body).map(Some),
            MacroKind::Quantifier { .. } | MacroKind::One => {
                self.bool(&inner.body, "a condition").map(|holds| Some(Value::Bool(holds)))
            }
        }
    }
}
