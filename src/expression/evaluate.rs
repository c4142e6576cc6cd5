//! From a tree and a scope to a value.
//!
//! What a path leads to is borrowed; only what becomes part of a computed value is copied. All work is counted against
//! one budget, which no `&&`, `||` or `default` can hide.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::bounds::WORK_MAX;
use super::error::ExpressionError;
use super::follow::{follow, size};
use super::node::{self, Node, Part, Root};
use super::number::Num;
use super::scope::{Given, Scope};

type Members = BTreeMap<Arc<str>, Given>;

/// A value under way.
pub(super) enum Val<'s> {
    Ref(&'s Value),
    Own(Value),
    Members(&'s Members),
}

/// The value of a tree.
pub(super) fn evaluate(node: &Node, scope: &Scope) -> Result<Value, ExpressionError> {
    let mut run = Run { scope, locals: Vec::new(), work: 0 };
    Ok(match run.value(node)? {
        Val::Ref(value) => value.clone(),
        Val::Own(value) => value,
        Val::Members(members) => Given::Map(Arc::new(members.clone())).to_value(),
    })
}

pub(super) struct Run<'s> {
    scope: &'s Scope,
    /// The variables of the macros around.
    pub(super) locals: Vec<Val<'s>>,
    pub(super) work: u64,
}

impl<'s> Run<'s> {
    pub(super) fn charge(&mut self, work: u64) -> Result<(), ExpressionError> {
        self.work = self.work.saturating_add(work);
        if self.work > WORK_MAX {
            return Err(ExpressionError::new(format!(
                "the expression does too much work (more than {WORK_MAX} steps)"
            )));
        }
        Ok(())
    }

    /// A copy that becomes part of a computed value.
    fn copy(&mut self, value: &Value) -> Result<Value, ExpressionError> {
        self.charge(size(value))?;
        Ok(value.clone())
    }

    /// As JSON, borrowed where it can be.
    pub(super) fn json(&mut self, node: &'s Node) -> Result<Cow<'s, Value>, ExpressionError> {
        Ok(match self.value(node)? {
            Val::Ref(value) => Cow::Borrowed(value),
            Val::Own(value) => Cow::Owned(value),
            Val::Members(members) => {
                let value = Given::Map(Arc::new(members.clone())).to_value();
                self.charge(size(&value))?;
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
            other => Err(ExpressionError::new(format!("{what} takes true or false, not {}", node::kind(other)))),
        }
    }

    fn value(&mut self, node: &'s Node) -> Result<Val<'s>, ExpressionError> {
        self.charge(1)?;
        match node {
            Node::Constant(value) => Ok(Val::Ref(value)),
            Node::Path(Root::Name(name), parts) => self.path(name, parts),
            Node::Path(Root::Local(slot, name), parts) => self.local(*slot, name, parts),
            Node::Select(inner, part) => {
                let inner = self.value(inner)?;
                self.member(inner, part, node)
            }
            Node::Index(inner, index) => {
                let index = self.json(index)?;
                let part = match &*index {
                    Value::String(key) => Part::Key(key.as_str().into()),
                    Value::Number(number) => match Num::of(number) {
                        Num::Int(index) => match usize::try_from(index) {
                            Ok(index) => Part::Index(index),
                            Err(_) => return Err(ExpressionError::absent(self.describe(node))),
                        },
                        Num::Double(_) => return Err(ExpressionError::new("a place in a list is a whole number")),
                    },
                    other => return Err(ExpressionError::new(format!("{} cannot be looked up", node::kind(other)))),
                };
                let inner = self.value(inner)?;
                self.member(inner, &part, node)
            }
            Node::Has(inner) => match self.value(inner) {
                Ok(_) => Ok(Val::Own(Value::Bool(true))),
                Err(error) if error.absent.is_some() => Ok(Val::Own(Value::Bool(false))),
                Err(error) => Err(error),
            },
            Node::Default(inner, fallback) => match self.value(inner) {
                Ok(Val::Ref(Value::Null) | Val::Own(Value::Null)) => self.value(fallback),
                Err(error) if error.absent.is_some() => self.value(fallback),
                other => other,
            },
            Node::Logic { decides, left, right } => self.logic(*decides, left, right).map(|b| Val::Own(Value::Bool(b))),
            Node::Not(inner) => Ok(Val::Own(Value::Bool(!self.bool(inner, "`!`")?))),
            Node::Choose(condition, yes, no) => {
                let condition = self.bool(condition, "`? :`")?;
                self.value(if condition { yes } else { no })
            }
            other => self.computed(other).map(Val::Own),
        }
    }

    /// What is always a new value. Apart from [`Run::value`], so that deep paths recurse through small frames.
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
                let copied =
                    if let Value::String(_) | Value::Array(_) = &*left { size(&left) + size(&right) } else { 1 };
                self.charge(copied)?;
                operator.apply(left, right)
            }
            Node::Negate(inner) => match &*self.json(inner)? {
                Value::Number(number) => Num::of(number).negate()?.value(),
                other => Err(ExpressionError::new(format!("`-` takes a number, not {}", node::kind(other)))),
            },
            Node::Matches(inner, regex) => match &*self.json(inner)? {
                Value::String(text) => {
                    self.charge(text.len() as u64 / 32)?;
                    Ok(Value::Bool(regex.is_match(text)))
                }
                other => Err(ExpressionError::new(format!("matches() takes a string, not {}", node::kind(other)))),
            },
            Node::Call(function, nodes) => {
                let mut args = Vec::with_capacity(nodes.len());
                for node in nodes {
                    args.push(self.json(node)?);
                }
                let cost = args.iter().map(|arg| size(arg)).sum::<u64>();
                self.charge(cost)?;
                let value = function.apply(args)?;
                self.charge(size(&value))?;
                Ok(value)
            }
            Node::Draw(draw, name) => match (&*self.json(name)?, self.scope.draws()) {
                (Value::String(name), Some(key)) => Ok(draw.value(key, name)),
                (Value::String(_), None) => Err(ExpressionError::new("nothing can be drawn here")),
                (other, _) => {
                    Err(ExpressionError::new(format!("what is drawn has a name in quotes, not {}", node::kind(other))))
                }
            },
            Node::Macro(inner) => self.each(inner),
            _ => self.owned(node),
        }
    }

    fn map(&mut self, entries: &'s [(Node, Node)]) -> Result<Value, ExpressionError> {
        let mut map = Map::new();
        for (key, value) in entries {
            let key = match &*self.json(key)? {
                Value::String(key) => key.clone(),
                other => {
                    return Err(ExpressionError::new(format!("a map's key is a string, not {}", node::kind(other))));
                }
            };
            let value = self.owned(value)?;
            if map.insert(key.clone(), value).is_some() {
                return Err(ExpressionError::new(format!("the key `{key}` stands twice in a map")));
            }
        }
        Ok(Value::Object(map))
    }

    /// `&&` and `||`: either side may decide, even where the other fails.
    fn logic(&mut self, decides: bool, left: &'s Node, right: &'s Node) -> Result<bool, ExpressionError> {
        let sign = if decides { "`||`" } else { "`&&`" };
        match self.bool(left, sign) {
            Ok(left) if left == decides => Ok(decides),
            Ok(_) => self.bool(right, sign),
            Err(error) if self.work > WORK_MAX => Err(error),
            Err(error) => match self.bool(right, sign) {
                Ok(right) if right == decides => Ok(decides),
                _ => Err(error),
            },
        }
    }

    fn path(&self, name: &Arc<str>, parts: &'s [Part]) -> Result<Val<'s>, ExpressionError> {
        let mut given = self.scope.get(name).ok_or_else(|| ExpressionError::absent(name.to_string()))?;
        let mut rest = parts;
        while let Given::Map(members) = given {
            let Some((part, after)) = rest.split_first() else { return Ok(Val::Members(members)) };
            let member = match part {
                Part::Key(key) => members.get(key),
                Part::Index(_) => None,
            };
            let so_far = parts.len() - after.len();
            given = member.ok_or_else(|| ExpressionError::absent(node::path_text(name, &parts[..so_far])))?;
            rest = after;
        }
        let Given::Value(value) = given else { return Err(ExpressionError::absent(name.to_string())) };
        follow(value, rest, || node::path_text(name, &parts[..parts.len() - rest.len()])).map(Val::Ref)
    }

    fn local(&mut self, slot: usize, name: &Arc<str>, parts: &'s [Part]) -> Result<Val<'s>, ExpressionError> {
        let found = match self.locals.get(slot) {
            Some(Val::Ref(value)) => return follow(value, parts, || name.to_string()).map(Val::Ref),
            Some(Val::Own(value)) => follow(value, parts, || name.to_string())?.clone(),
            Some(Val::Members(_)) | None => return Err(ExpressionError::absent(name.to_string())),
        };
        self.charge(size(&found))?;
        Ok(Val::Own(found))
    }

    fn member(&mut self, inner: Val<'s>, part: &Part, node: &'s Node) -> Result<Val<'s>, ExpressionError> {
        let found = match (inner, part) {
            (Val::Ref(value), part) => super::follow::get(value, part).map(Val::Ref),
            (Val::Members(members), Part::Key(key)) => match members.get(key) {
                Some(Given::Value(value)) => Some(Val::Ref(value)),
                Some(Given::Map(members)) => Some(Val::Members(members)),
                None => None,
            },
            (Val::Members(_), Part::Index(_)) => None,
            (Val::Own(Value::Object(mut map)), Part::Key(key)) => map.swap_remove(&**key).map(Val::Own),
            (Val::Own(Value::Array(mut list)), Part::Index(index)) => {
                (*index < list.len()).then(|| Val::Own(list.swap_remove(*index)))
            }
            (Val::Own(_), _) => None,
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
                        Value::String(key) => node::push_part(&mut text, &Part::Key(key.as_str().into())),
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
