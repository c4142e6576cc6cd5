//! The functions of expressions. Each can be written `f(a, b)` or `a.f(b)`.
//!
//! The macros `has`, `map`, `filter`, `all`, `exists`, `exists_one` and the functions `default`, `matches`, `uuid` and
//! `random` are not here: they are nodes of their own, because they do more than compute on evaluated arguments.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::RangeInclusive;

use serde_json::{Number, Value};

use super::bounds::WORK_MAX;
use super::error::ExpressionError;
use super::number::Num;
use super::operators::{equal, order};
use super::value::kind;

type Args<'a> = [Cow<'a, Value>];
type Outcome = Result<Value, ExpressionError>;

/// A function of values.
#[derive(Clone, Copy)]
pub(super) struct Function(&'static FunctionEntry);

struct FunctionEntry {
    name: &'static str,
    takes: RangeInclusive<usize>,
    apply: fn(&Args<'_>) -> Outcome,
}

impl Function {
    /// The function with this name, and how many arguments it takes.
    pub(super) fn of(name: &str) -> Option<(Self, RangeInclusive<usize>)> {
        TABLE.iter().find(|entry| entry.name == name).map(|entry| (Self(entry), entry.takes.clone()))
    }
    /// All names.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().map(|entry| entry.name)
    }
    pub(super) fn name(self) -> &'static str {
        self.0.name
    }
    pub(super) fn apply(self, args: Vec<Cow<'_, Value>>) -> Outcome {
        (self.0.apply)(&args).map_err(|mut error| {
            error.message = format!("{}(): {}", self.0.name, error.message);
            error
        })
    }
}

macro_rules! entry {
    ($name:literal, $takes:expr, $apply:expr) => {
        FunctionEntry { name: $name, takes: $takes, apply: $apply }
    };
}

static TABLE: &[FunctionEntry] = &[
    // text
    entry!("contains", 2..=2, |a| Ok(text(&a[0])?.contains(text(&a[1])?).into())),
    entry!("startsWith", 2..=2, |a| Ok(text(&a[0])?.starts_with(text(&a[1])?).into())),
    entry!("endsWith", 2..=2, |a| Ok(text(&a[0])?.ends_with(text(&a[1])?).into())),
    entry!("lowerAscii", 1..=1, |a| Ok(text(&a[0])?.to_ascii_lowercase().into())),
    entry!("upperAscii", 1..=1, |a| Ok(text(&a[0])?.to_ascii_uppercase().into())),
    entry!("trim", 1..=1, |a| Ok(text(&a[0])?.trim().into())),
    entry!("split", 2..=2, |a| Ok(text(&a[0])?.split(text(&a[1])?).map(Value::from).collect())),
    entry!("join", 1..=2, join),
    entry!("replace", 3..=3, replace),
    entry!("substring", 2..=3, substring),
    entry!("indexOf", 2..=2, index_of),
    // numbers
    entry!("round", 1..=2, round),
    entry!("floor", 1..=1, |a| round_with(&a[0], f64::floor)),
    entry!("ceil", 1..=1, |a| round_with(&a[0], f64::ceil)),
    entry!("abs", 1..=1, |a| match number(&a[0])? {
        negative if negative.double() < 0.0 => negative.negate()?.value(),
        positive => positive.value(),
    }),
    entry!("min", 1..=usize::MAX, |a| extreme(a, Ordering::Less)),
    entry!("max", 1..=usize::MAX, |a| extreme(a, Ordering::Greater)),
    entry!("sum", 1..=1, |a| {
        let start = Ok(Num::Int(0));
        list(&a[0])?.iter().fold(start, |sum, value| sum?.add(number(value)?))?.value()
    }),
    // conversions
    entry!("string", 1..=1, |a| Ok(scalar(&a[0])?.into())),
    entry!("int", 1..=1, int),
    entry!("uint", 1..=1, uint),
    entry!("double", 1..=1, double),
    entry!("dyn", 1..=1, |a| Ok(a[0].clone().into_owned())),
    // lists and maps
    entry!("size", 1..=1, size),
    entry!("once", 1..=1, |a| match &*a[0] {
        Value::Array(list) => Ok((list.len() == 1).into()),
        Value::Null => Ok(false.into()),
        Value::Object(_) => Ok(true.into()),
        other => Err(type_error("a list, a map or nothing", other)),
    }),
    entry!("keys", 1..=1, |a| match &*a[0] {
        Value::Object(map) => Ok(map.keys().map(|key| Value::from(key.as_str())).collect()),
        other => Err(type_error("a map", other)),
    }),
    entry!("values", 1..=1, |a| match &*a[0] {
        Value::Object(map) => Ok(map.values().cloned().collect()),
        other => Err(type_error("a map", other)),
    }),
    entry!("sort", 1..=1, sort),
    entry!("reverse", 1..=1, |a| Ok(list(&a[0])?.iter().rev().cloned().collect())),
    entry!("flatten", 1..=1, |a| {
        let lists = list(&a[0])?.iter().map(list).collect::<Result<Vec<_>, _>>()?;
        Ok(lists.into_iter().flatten().cloned().collect())
    }),
];

fn type_error(what: &str, got: &Value) -> ExpressionError {
    ExpressionError::new(format!("takes {what}, not {}", kind(got)))
}

fn text(value: &Value) -> Result<&str, ExpressionError> {
    value.as_str().ok_or_else(|| type_error("a string", value))
}

fn list(value: &Value) -> Result<&Vec<Value>, ExpressionError> {
    value.as_array().ok_or_else(|| type_error("a list", value))
}

fn number(value: &Value) -> Result<Num, ExpressionError> {
    match value {
        Value::Number(number) => Ok(Num::of(number)),
        other => Err(type_error("a number", other)),
    }
}

/// A scalar as text, numbers and bools as JSON writes them.
pub(super) fn scalar(value: &Value) -> Result<String, ExpressionError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(type_error("a string, a number or a bool", value)),
    }
}

/// A scalar as text that may contain line breaks.
pub(super) fn scalar_lines(value: &Value) -> Result<String, ExpressionError> {
    scalar(value).map_err(|e| ExpressionError::new(format!("text {}", e.message)))
}

/// A scalar as one line of text.
pub(super) fn scalar_line(value: &Value) -> Result<String, ExpressionError> {
    let text = scalar_lines(value)?;
    match text.contains(['\r', '\n']) {
        true => Err(ExpressionError::new("a line break is not allowed here")),
        false => Ok(text),
    }
}

/// Refuses a result that exceeds the budget of one evaluation (32 bytes of text are one unit, see [`WORK_MAX`]), before
/// memory is allocated for it.
fn check_size(bytes: usize) -> Result<(), ExpressionError> {
    match bytes as u64 / 32 > WORK_MAX {
        true => Err(ExpressionError::new("the result is too large")),
        false => Ok(()),
    }
}

fn join(args: &Args<'_>) -> Outcome {
    let separator = args.get(1).map_or(Ok(""), |s| text(s))?;
    let parts = list(&args[0])?.iter().map(scalar).collect::<Result<Vec<_>, _>>()?;
    check_size(separator.len().saturating_mul(parts.len()))?;
    Ok(parts.join(separator).into())
}

fn replace(args: &Args<'_>) -> Outcome {
    let (whole, from, to) = (text(&args[0])?, text(&args[1])?, text(&args[2])?);
    check_size(whole.matches(from).count().saturating_mul(to.len()))?;
    Ok(whole.replace(from, to).into())
}

/// Counts characters; an index beyond the text means its end.
fn substring(args: &Args<'_>) -> Outcome {
    let whole = text(&args[0])?;
    let index = |value: &Value| match number(value)? {
        Num::Int(at) => usize::try_from(at.max(0)).map_err(|_| ExpressionError::new("the index is too large")),
        Num::Double(_) => Err(ExpressionError::new("takes whole numbers")),
    };
    let from = index(&args[1])?;
    let to = args.get(2).map_or(Ok(usize::MAX), |to| index(to))?;
    Ok(whole.chars().skip(from).take(to.saturating_sub(from)).collect::<String>().into())
}

/// The index in characters, or -1 where the text does not contain the part.
fn index_of(args: &Args<'_>) -> Outcome {
    let (whole, part) = (text(&args[0])?, text(&args[1])?);
    let at = whole.find(part).map(|byte| whole[..byte].chars().count());
    Ok(at.map_or(Value::from(-1), Value::from))
}

fn round(args: &Args<'_>) -> Outcome {
    let value = number(&args[0])?;
    let Some(digits) = args.get(1) else { return value.round(0).whole()?.value() };
    match number(digits)? {
        Num::Int(digits @ 0..=15) => value.round(digits as usize).value(),
        _ => Err(ExpressionError::new("takes 0 to 15 digits")),
    }
}

fn round_with(value: &Value, rounding: fn(f64) -> f64) -> Outcome {
    match number(value)? {
        Num::Double(double) => Num::Double(rounding(double)).whole()?.value(),
        int => int.value(),
    }
}

/// The smallest or largest of a list, or of several arguments.
fn extreme(args: &Args<'_>, wins: Ordering) -> Outcome {
    let values: Vec<&Value> = match args {
        [one] => list(one)?.iter().collect(),
        several => several.iter().map(|value| &**value).collect(),
    };
    let mut best: Option<&Value> = None;
    for value in values {
        let better = match best {
            None => true,
            Some(best) => order(value, best).ok_or_else(|| type_error("values that have an order", value))? == wins,
        };
        best = if better { Some(value) } else { best };
    }
    best.cloned().ok_or_else(|| ExpressionError::new("the list is empty"))
}

fn int(args: &Args<'_>) -> Outcome {
    match &*args[0] {
        Value::Number(number) => Num::of(number).whole()?.value(),
        Value::String(text) => match text.trim().parse::<i64>() {
            Ok(int) => Ok(int.into()),
            Err(_) => Err(ExpressionError::new("the text is not a whole number")),
        },
        other => Err(type_error("a number or a string", other)),
    }
}

fn uint(args: &Args<'_>) -> Outcome {
    let whole = int(args)?;
    match whole.is_u64() {
        true => Ok(whole),
        false => Err(ExpressionError::new(format!("{whole} is negative"))),
    }
}

fn double(args: &Args<'_>) -> Outcome {
    let double = match &*args[0] {
        Value::Number(number) => Num::of(number).double(),
        Value::String(text) => text.trim().parse().map_err(|_| ExpressionError::new("the text is not a number"))?,
        other => return Err(type_error("a number or a string", other)),
    };
    let number = Number::from_f64(double).ok_or_else(|| ExpressionError::new("not a finite number"))?;
    Ok(Value::Number(number))
}

fn size(args: &Args<'_>) -> Outcome {
    match &*args[0] {
        Value::String(text) => Ok(text.chars().count().into()),
        Value::Array(list) => Ok(list.len().into()),
        Value::Object(map) => Ok(map.len().into()),
        other => Err(type_error("a string, a list or a map", other)),
    }
}

/// Sorts numbers, strings or bools, but no values of several kinds together.
fn sort(args: &Args<'_>) -> Outcome {
    let mut sorted = list(&args[0])?.clone();
    let orderly = sorted.windows(2).all(|pair| order(&pair[0], &pair[1]).is_some() || equal(&pair[0], &pair[1]));
    if !orderly {
        return Err(ExpressionError::new("takes a list of numbers, of strings or of bools"));
    }
    sorted.sort_by(|a, b| order(a, b).unwrap_or(Ordering::Equal));
    Ok(Value::Array(sorted))
}
