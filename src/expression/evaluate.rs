//! Evaluates a tree in a scope.
//!
//! The value at a path is borrowed; only what becomes part of a computed value is copied. All work is counted against
//! one budget; exceeding it is an error that `&&`, `||` and `default` do not recover from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::bounds::WORK_MAX;
use super::error::ExpressionError;
use super::json::{RESERVED_PREFIX, is_reserved_key};
use super::lookup::{lookup, lookup_in_results};
use super::node::{self, Node, PathPart, Root};
use super::number::Num;
use super::operators::Operator;
use super::scope::{Scope, ScopeValue};
use super::value::{OPAQUE, kind, work};

/// The version of the language. Raised by each change after which a valid expression may give another value (a change
/// here, in the functions and operators, or in what `steps` holds), or a pair may get another verdict: comparisons made
/// under an earlier version then no longer count as evidence.
pub const DIALECT: u32 = 9;

type Members = BTreeMap<Arc<str>, ScopeValue>;

/// The value of a node: borrowed from the scope, or computed.
pub(super) enum Evaluated<'s> {
    Ref(&'s Value),
    Own(Value),
    Members(&'s Members),
}

/// The value of a tree.
pub(super) fn evaluate(node: &Node, scope: &Scope) -> Result<Value, ExpressionError> {
    let mut run = Evaluation { scope, locals: Vec::new(), work: 0 };
    Ok(match run.value(node)? {
        Evaluated::Ref(value) => value.clone(),
        Evaluated::Own(value) => value,
        Evaluated::Members(members) => ScopeValue::Map(Arc::new(members.clone())).to_value(),
    })
}

pub(super) struct Evaluation<'s> {
    pub(super) scope: &'s Scope,
    /// The variables of the enclosing macros, outermost first.
    pub(super) locals: Vec<Evaluated<'s>>,
    pub(super) work: u64,
}

impl<'s> Evaluation<'s> {
    pub(super) fn charge(&mut self, work: u64) -> Result<(), ExpressionError> {
        self.work = self.work.saturating_add(work);
        if self.work > WORK_MAX {
            return Err(ExpressionError::new(format!(
                "the expression does too much work (more than {WORK_MAX} units)"
            )));
        }
        Ok(())
    }

    /// A copy that becomes part of a computed value.
    fn copy(&mut self, value: &Value) -> Result<Value, ExpressionError> {
        self.charge(work(value))?;
        Ok(value.clone())
    }

    /// The value of a node as JSON, borrowed where possible.
    pub(super) fn json(&mut self, node: &'s Node) -> Result<Cow<'s, Value>, ExpressionError> {
        Ok(match self.value(node)? {
            Evaluated::Ref(value) => Cow::Borrowed(value),
            Evaluated::Own(value) => Cow::Owned(value),
            Evaluated::Members(members) => {
                let value = ScopeValue::Map(Arc::new(members.clone())).to_value();
                self.charge(work(&value))?;
                Cow::Owned(value)
            }
        })
    }

    pub(super) fn owned(&mut self, node: &'s Node) -> Result<Value, ExpressionError> {
        match self.json(node)? {
            Cow::Borrowed(value) => self.copy(value),
            Cow::Owned(value) => Ok(value),
        }
    }

    pub(super) fn bool(&mut self, node: &'s Node, what: &str) -> Result<bool, ExpressionError> {
        match &*self.json(node)? {
            Value::Bool(bool) => Ok(*bool),
            other => Err(ExpressionError::new(format!("{what} takes true or false, not {}", kind(other)))),
        }
    }

    fn value(&mut self, node: &'s Node) -> Result<Evaluated<'s>, ExpressionError> {
        self.charge(1)?;
        match node {
            Node::Constant(value) => Ok(Evaluated::Ref(value)),
            Node::Path(Root::Name(name), parts) => self.path(name, parts),
            Node::Path(Root::Local(slot, name), parts) => self.local(*slot, name, parts),
            Node::Select(inner, part) => {
                let inner = self.value(inner)?;
                self.member(inner, part, node)
            }
            Node::Index(inner, index) => {
                let index = self.json(index)?;
                let part = match &*index {
                    Value::String(key) => PathPart::Key(key.as_str().into()),
                    Value::Number(number) => match Num::of(number) {
                        Num::Int(index) => match usize::try_from(index) {
                            Ok(index) => PathPart::Index(index),
                            Err(_) => return Err(ExpressionError::absent(self.describe(node))),
                        },
                        Num::Double(_) => return Err(ExpressionError::new("the index of a list is a whole number")),
                    },
                    other => {
                        return Err(ExpressionError::new(format!(
                            "a key is a string or a whole number, not {}",
                            kind(other)
                        )));
                    }
                };
                let inner = self.value(inner)?;
                self.member(inner, &part, node)
            }
            Node::Has(inner) => match self.value(inner) {
                Ok(_) => Ok(Evaluated::Own(Value::Bool(true))),
                Err(error) if error.absent.is_some() => Ok(Evaluated::Own(Value::Bool(false))),
                Err(error) => Err(error),
            },
            Node::Default(inner, fallback) => match self.value(inner) {
                Ok(Evaluated::Ref(Value::Null) | Evaluated::Own(Value::Null)) => self.value(fallback),
                Err(error) if error.absent.is_some() => self.value(fallback),
                other => other,
            },
            Node::Logic { deciding_value, left, right } => {
                self.logic(*deciding_value, left, right).map(|b| Evaluated::Own(Value::Bool(b)))
            }
            Node::Not(inner) => Ok(Evaluated::Own(Value::Bool(!self.bool(inner, "`!`")?))),
            Node::Choose(condition, yes, no) => {
                let condition = self.bool(condition, "`? :`")?;
                self.value(if condition { yes } else { no })
            }
            other => self.computed(other).map(Evaluated::Own),
        }
    }

    /// Nodes whose value is always new. Separate from [`Evaluation::value`], so that the recursion through deep paths
    /// has small stack frames.
    fn computed(&mut self, node: &'s Node) -> Result<Value, ExpressionError> {
        match node {
            Node::List(nodes) => {
                let mut list = Vec::with_capacity(nodes.len());
                for node in nodes {
                    list.push(self.owned(node)?);
                }
                Ok(Value::Array(list))
            }
            Node::Map(entries) => self.map(entries),
            Node::Binary(operator, left, right) => {
                let left = self.json(left)?;
                let right = self.json(right)?;
                if *operator == Operator::In && self.scope.is_opaque(&right) {
                    return Err(ExpressionError::new(format!("`in`: the right side is {OPAQUE}")));
                }
                let copied =
                    if let Value::String(_) | Value::Array(_) = &*left { work(&left) + work(&right) } else { 1 };
                self.charge(copied)?;
                operator.apply(left, right)
            }
            Node::Negate(inner) => match &*self.json(inner)? {
                Value::Number(number) => Num::of(number).negate()?.value(),
                other => Err(ExpressionError::new(format!("`-` takes a number, not {}", kind(other)))),
            },
            Node::Matches(inner, regex) => match &*self.json(inner)? {
                Value::String(text) => {
                    self.charge(text.len() as u64 / 32)?;
                    Ok(Value::Bool(regex.is_match(text)))
                }
                other => Err(ExpressionError::new(format!("matches() takes a string, not {}", kind(other)))),
            },
            Node::Call(function, nodes) => {
                let mut args = Vec::with_capacity(nodes.len());
                for node in nodes {
                    args.push(self.json(node)?);
                }
                if args.iter().any(|arg| self.scope.is_opaque(arg)) {
                    return Err(ExpressionError::new(format!("{}(): a value is {OPAQUE}", function.name())));
                }
                let cost = args.iter().map(|arg| work(arg)).sum::<u64>();
                self.charge(cost)?;
                let value = function.apply(args)?;
                self.charge(work(&value))?;
                Ok(value)
            }
            Node::PseudoRandom(pseudo_random, name) => match (&*self.json(name)?, self.scope.random_key()) {
                (Value::String(name), Some(key)) => {
                    let injected = self.scope.injected(*pseudo_random, name);
                    Ok(injected.cloned().unwrap_or_else(|| pseudo_random.value(key, name)))
                }
                (Value::String(_), None) => Err(ExpressionError::new("uuid() and random() are not available here")),
                (other, _) => {
                    Err(ExpressionError::new(format!("uuid() and random() take a name in quotes, not {}", kind(other))))
                }
            },
            Node::Macro(inner) => self.evaluate_macro(inner),
            _ => self.owned(node),
        }
    }

    fn map(&mut self, entries: &'s [(Node, Node)]) -> Result<Value, ExpressionError> {
        let mut map = Map::new();
        for (key, value) in entries {
            let key = match &*self.json(key)? {
                Value::String(key) => key.clone(),
                other => {
                    return Err(ExpressionError::new(format!("a map's key is a string, not {}", kind(other))));
                }
            };
            if is_reserved_key(&key) {
                return Err(ExpressionError::new(format!("a map's key may not begin with `{RESERVED_PREFIX}`")));
            }
            let value = self.owned(value)?;
            if map.insert(key.clone(), value).is_some() {
                return Err(ExpressionError::new(format!("the key `{key}` is in the map twice")));
            }
        }
        Ok(Value::Object(map))
    }

    /// `&&` and `||`: a side that has the deciding value settles the result, even where the other side fails.
    fn logic(&mut self, deciding_value: bool, left: &'s Node, right: &'s Node) -> Result<bool, ExpressionError> {
        let sign = if deciding_value { "`||`" } else { "`&&`" };
        match self.bool(left, sign) {
            Ok(left) if left == deciding_value => Ok(deciding_value),
            Ok(_) => self.bool(right, sign),
            Err(error) if self.work > WORK_MAX => Err(error),
            Err(error) => match self.bool(right, sign) {
                Ok(right) if right == deciding_value => Ok(deciding_value),
                _ => Err(error),
            },
        }
    }

    fn path(&self, name: &Arc<str>, parts: &'s [PathPart]) -> Result<Evaluated<'s>, ExpressionError> {
        let mut current = self.scope.get(name).ok_or_else(|| ExpressionError::absent(name.to_string()))?;
        let mut rest = parts;
        while let ScopeValue::Map(members) = current {
            let Some((part, after)) = rest.split_first() else { return Ok(Evaluated::Members(members)) };
            let member = match part {
                PathPart::Key(key) => members.get(key),
                PathPart::Index(_) => None,
            };
            let so_far = parts.len() - after.len();
            current = member.ok_or_else(|| ExpressionError::absent(node::path_text(name, &parts[..so_far])))?;
            rest = after;
        }
        let from = || node::path_text(name, &parts[..parts.len() - rest.len()]);
        match current {
            ScopeValue::Value(value) => lookup(value, rest, self.scope, from).map(Evaluated::Ref),
            ScopeValue::Steps(results) => {
                let found = lookup_in_results(results, rest, self.scope, from).map(Evaluated::Ref);
                found.map_err(|error| match rest.first() {
                    Some(PathPart::Key(step)) if self.scope.is_unknown_step(step) => error.of_unknown(),
                    _ => error,
                })
            }
            ScopeValue::Map(_) => Err(ExpressionError::absent(name.to_string())),
        }
    }

    fn local(&mut self, slot: usize, name: &Arc<str>, parts: &'s [PathPart]) -> Result<Evaluated<'s>, ExpressionError> {
        let found = match self.locals.get(slot) {
            Some(Evaluated::Ref(value)) => {
                return lookup(value, parts, self.scope, || name.to_string()).map(Evaluated::Ref);
            }
            Some(Evaluated::Own(value)) => lookup(value, parts, self.scope, || name.to_string())?.clone(),
            Some(Evaluated::Members(_)) | None => return Err(ExpressionError::absent(name.to_string())),
        };
        self.charge(work(&found))?;
        Ok(Evaluated::Own(found))
    }

    fn member(
        &mut self,
        inner: Evaluated<'s>,
        part: &PathPart,
        node: &'s Node,
    ) -> Result<Evaluated<'s>, ExpressionError> {
        let is_opaque = match &inner {
            Evaluated::Ref(value) => self.scope.is_opaque(value),
            Evaluated::Own(value) => self.scope.is_opaque(value),
            Evaluated::Members(_) => false,
        };
        let found = match (inner, part) {
            _ if is_opaque => None,
            (Evaluated::Ref(value), part) => super::lookup::get(value, part).map(Evaluated::Ref),
            (Evaluated::Members(members), PathPart::Key(key)) => match members.get(key) {
                Some(ScopeValue::Value(value)) => Some(Evaluated::Ref(value)),
                Some(ScopeValue::Map(members)) => Some(Evaluated::Members(members)),
                Some(ScopeValue::Steps(results)) => Some(Evaluated::Ref(results.whole())),
                None => None,
            },
            (Evaluated::Members(_), PathPart::Index(_)) => None,
            (Evaluated::Own(Value::Object(mut map)), PathPart::Key(key)) => map.swap_remove(&**key).map(Evaluated::Own),
            (Evaluated::Own(Value::Array(mut list)), PathPart::Index(index)) => {
                (*index < list.len()).then(|| Evaluated::Own(list.swap_remove(*index)))
            }
            (Evaluated::Own(_), _) => None,
        };
        match found {
            Some(found) => Ok(found),
            None => Err(ExpressionError::absent(self.describe(node))),
        }
    }

    /// A computed path as text, for the message that it is absent.
    fn describe(&mut self, node: &'s Node) -> String {
        match node {
            Node::Path(root, parts) => node::path_text(root.name(), parts),
            Node::Select(inner, part) => {
                let mut text = self.describe(inner);
                node::push_part(&mut text, part);
                text
            }
            Node::Index(inner, index) => {
                let mut text = self.describe(inner);
                match self.json(index) {
                    Ok(index) => match &*index {
                        Value::String(key) => node::push_part(&mut text, &PathPart::Key(key.as_str().into())),
                        other => text.push_str(&format!("[{other}]")),
                    },
                    Err(_) => text.push_str("[…]"),
                }
                text
            }
            _ => "(…)".to_owned(),
        }
    }
}
