//! Operators on two values: arithmetic, comparison, membership.

use std::borrow::Cow;
use std::cmp::Ordering;

use cel::common::ast::operators;
use serde_json::Value;

use super::error::ExpressionError;
use super::number::Num;
use super::value::kind;

/// A binary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
}

impl Operator {
    /// The operator that CEL's syntax tree gives this name.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            operators::ADD => Operator::Add,
            operators::SUBSTRACT => Operator::Subtract,
            operators::MULTIPLY => Operator::Multiply,
            operators::DIVIDE => Operator::Divide,
            operators::MODULO => Operator::Remainder,
            operators::EQUALS => Operator::Equal,
            operators::NOT_EQUALS => Operator::NotEqual,
            operators::LESS => Operator::Less,
            operators::LESS_EQUALS => Operator::LessEqual,
            operators::GREATER => Operator::Greater,
            operators::GREATER_EQUALS => Operator::GreaterEqual,
            operators::IN => Operator::In,
            _ => return None,
        })
    }

    fn sign(self) -> &'static str {
        match self {
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::Multiply => "*",
            Operator::Divide => "/",
            Operator::Remainder => "%",
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
            Operator::Less => "<",
            Operator::LessEqual => "<=",
            Operator::Greater => ">",
            Operator::GreaterEqual => ">=",
            Operator::In => "in",
        }
    }

    pub(super) fn apply(self, left: Cow<'_, Value>, right: Cow<'_, Value>) -> Result<Value, ExpressionError> {
        match self {
            Operator::Equal => return Ok(Value::Bool(equal(&left, &right))),
            Operator::NotEqual => return Ok(Value::Bool(!equal(&left, &right))),
            Operator::In => return contains(&right, &left).ok_or_else(|| self.refuse(&left, &right)).map(Value::Bool),
            Operator::Less | Operator::LessEqual | Operator::Greater | Operator::GreaterEqual => {
                let order = order(&left, &right).ok_or_else(|| self.refuse(&left, &right))?;
                return Ok(Value::Bool(match self {
                    Operator::Less => order == Ordering::Less,
                    Operator::LessEqual => order != Ordering::Greater,
                    Operator::Greater => order == Ordering::Greater,
                    _ => order != Ordering::Less,
                }));
            }
            Operator::Add | Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Remainder => {}
        }
        if let (Value::Number(a), Value::Number(b)) = (&*left, &*right) {
            let (a, b) = (Num::of(a), Num::of(b));
            return match self {
                Operator::Add => a.add(b),
                Operator::Subtract => a.subtract(b),
                Operator::Multiply => a.multiply(b),
                Operator::Divide => a.divide(b),
                _ => a.remainder(b),
            }?
            .value();
        }
        if self == Operator::Add {
            match (&*left, &*right) {
                (Value::String(_), Value::String(_)) | (Value::Array(_), Value::Array(_)) => {}
                _ => return Err(self.refuse(&left, &right)),
            }
            // A computed left side is extended in place, so that a chain of `+` takes linear time.
            return Ok(match (left.into_owned(), right) {
                (Value::String(mut text), right) => {
                    text.push_str(right.as_str().unwrap_or_default());
                    Value::String(text)
                }
                (Value::Array(mut list), right) => {
                    match right {
                        Cow::Owned(Value::Array(more)) => list.extend(more),
                        right => list.extend(right.as_array().into_iter().flatten().cloned()),
                    }
                    Value::Array(list)
                }
                (other, _) => other,
            });
        }
        Err(self.refuse(&left, &right))
    }

    fn refuse(self, left: &Value, right: &Value) -> ExpressionError {
        let text = |value: &Value| matches!(value, Value::String(_));
        let mixed = matches!(left, Value::Number(_)) && text(right) || matches!(right, Value::Number(_)) && text(left);
        let help = if mixed { "; convert one with string() or double()" } else { "" };
        ExpressionError::new(format!("{} {} {} has no meaning{help}", kind(left), self.sign(), kind(right)))
    }
}

/// Equality by value: 1 equals 1.0.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a == b || Num::of(a).compare(Num::of(b)) == Some(Ordering::Equal),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        (left, right) => left == right,
    }
}

/// The order of two numbers, two strings or two bools.
pub(super) fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => Num::of(a).compare(Num::of(b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn contains(whole: &Value, element: &Value) -> Option<bool> {
    match (whole, element) {
        (Value::Array(list), element) => Some(list.iter().any(|e| equal(e, element))),
        (Value::Object(map), Value::String(key)) => Some(map.contains_key(key)),
        _ => None,
    }
}
