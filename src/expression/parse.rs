//! Parses source text into the tree that is evaluated.
//!
//! The bounds are checked on the text first, so that the crate's recursive parser and the recursion here have a bounded
//! depth.

use std::sync::Arc;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};
use cel::parser::Parser;
use regex::RegexBuilder;
use serde_json::Value;

use super::bounds::{Bounds, MACRO_DEPTH_MAX};
use super::error::ExpressionError;
use super::functions::Function;
use super::node::{Macro, MacroKind, Node, PathPart, Root};
use super::operators::Operator;
use super::pseudo_random::PseudoRandom;
use super::scan;
use crate::problem::nearest;

/// The name of the scope that `effects("STEP")` reads: a map from each step to the list of its calls.
pub const EFFECTS: &str = "effects";
/// The key of that map under which the calls of all steps are. No step has this name.
pub const EFFECTS_OF_ALL_STEPS: &str = "*";

/// Parses one expression.
pub(super) fn parse(source: &str, bounds: &Bounds) -> Result<Node, ExpressionError> {
    if source.trim().is_empty() {
        return Err(ExpressionError::new("the expression is empty"));
    }
    scan::check_bounds(source, bounds)?;
    let (tree, info) = Parser::new().parse_with_source_info(source).map_err(|errors| syntax(source, &errors))?;
    TreeConverter { source, info: &info, locals: Vec::new() }.node(&tree)
}

/// The first syntax error, worded for a person.
fn syntax(source: &str, errors: &cel::ParseErrors) -> ExpressionError {
    let Some(error) = errors.errors.first() else {
        return ExpressionError::new("not a CEL expression");
    };
    let message = error.msg.strip_prefix("Syntax error: ").unwrap_or(&error.msg);
    // The list of all tokens that the parser would have accepted is left out: it is long, and does not help.
    let message =
        message.split(" expecting ").next().unwrap_or(message).replace("mismatched input '<EOF>'", "it ends too early");
    let is_token =
        |token: char| message.strip_prefix("token recognition error at: '").is_some_and(|at| at.starts_with(token));
    let message = match () {
        () if error.msg.contains("invalid argument to has() macro") => {
            "has() takes a member: has(a.b); for a key in quotes write \"b\" in a".to_owned()
        }
        () if is_token('=') => "not a CEL expression: two values are compared by `==`, not by `=`".to_owned(),
        () if is_token('&') => "not a CEL expression: write `&&` for \"and\"".to_owned(),
        () if is_token('|') => "not a CEL expression: write `||` for \"or\"".to_owned(),
        () => format!("not a CEL expression: {message}"),
    };
    let line = usize::try_from(error.pos.0).unwrap_or(1).max(1) - 1;
    let before: usize = source.split_inclusive('\n').take(line).map(|l| l.chars().count()).sum();
    let column = usize::try_from(error.pos.1).unwrap_or(0).saturating_sub(1);
    ExpressionError::at(message, (before + column).min(source.chars().count()))
}

/// Converts the crate's syntax tree to [`Node`]s.
struct TreeConverter<'a> {
    source: &'a str,
    info: &'a SourceInfo,
    /// The variables of the enclosing macros, outermost first.
    locals: Vec<Arc<str>>,
}

impl TreeConverter<'_> {
    fn error(&self, at: &IdedExpr, message: impl Into<String>) -> ExpressionError {
        let byte = self.info.offset_for(at.id).map_or(0, |(start, _)| start as usize);
        ExpressionError::at(message, scan::characters_before(self.source, byte))
    }

    fn boxed(&mut self, tree: &IdedExpr) -> Result<Box<Node>, ExpressionError> {
        Ok(Box::new(self.node(tree)?))
    }

    fn node(&mut self, tree: &IdedExpr) -> Result<Node, ExpressionError> {
        match &tree.expr {
            Expr::Unspecified => Err(self.error(tree, "not a CEL expression")),
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(bool) => Ok(Node::Constant(Value::Bool(**bool))),
                LiteralValue::Null => Ok(Node::Constant(Value::Null)),
                LiteralValue::Int(int) => Ok(Node::Constant((**int).into())),
                LiteralValue::UInt(int) => Ok(Node::Constant((**int).into())),
                LiteralValue::Double(double) if double.is_finite() => Ok(Node::Constant((**double).into())),
                LiteralValue::Double(_) => Err(self.error(tree, "a number that JSON cannot hold")),
                LiteralValue::String(text) => Ok(Node::Constant(Value::String(text.inner().to_owned()))),
                LiteralValue::Bytes(_) => Err(self.error(tree, "bytes (b\"…\") are not supported; use a string")),
            },
            Expr::Ident(name) => {
                let name: Arc<str> = name.trim_start_matches('.').into();
                let root = match self.locals.iter().rposition(|local| *local == name) {
                    Some(slot) => Root::Local(slot, name),
                    None => Root::Name(name),
                };
                Ok(Node::Path(root, Vec::new()))
            }
            Expr::Select(select) => {
                let inner = self.node(&select.operand)?;
                let member = member(inner, PathPart::Key(select.field.as_str().into()));
                Ok(if select.test { Node::Has(Box::new(member)) } else { member })
            }
            Expr::List(list) => Ok(Node::List(list.elements.iter().map(|e| self.node(e)).collect::<Result<_, _>>()?)),
            Expr::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in &map.entries {
                    match &entry.expr {
                        EntryExpr::MapEntry(entry) => entries.push((self.node(&entry.key)?, self.node(&entry.value)?)),
                        EntryExpr::StructField(_) => {
                            return Err(self.error(tree, "messages (`Name{…}`) are not supported; use a map"));
                        }
                    }
                }
                Ok(Node::Map(entries))
            }
            Expr::Struct(_) => Err(self.error(tree, "messages (`Name{…}`) are not supported; use a map: {\"a\": 1}")),
            Expr::Call(call) => self.call(tree, call),
            Expr::Comprehension(comprehension) => self.comprehension(tree, comprehension),
        }
    }

    fn call(&mut self, tree: &IdedExpr, call: &CallExpr) -> Result<Node, ExpressionError> {
        let args: Vec<&IdedExpr> = call.target.as_deref().into_iter().chain(&call.args).collect();
        match (call.func_name.as_str(), args.as_slice()) {
            (operators::CONDITIONAL, [condition, yes, no]) => {
                Ok(Node::Choose(self.boxed(condition)?, self.boxed(yes)?, self.boxed(no)?))
            }
            (operators::LOGICAL_AND, [left, right]) => {
                Ok(Node::Logic { deciding_value: false, left: self.boxed(left)?, right: self.boxed(right)? })
            }
            (operators::LOGICAL_OR, [left, right]) => {
                Ok(Node::Logic { deciding_value: true, left: self.boxed(left)?, right: self.boxed(right)? })
            }
            (operators::LOGICAL_NOT, [inner]) => Ok(Node::Not(self.boxed(inner)?)),
            (operators::NEGATE, [inner]) => Ok(Node::Negate(self.boxed(inner)?)),
            (operators::INDEX, [operand, index]) => {
                let operand = self.node(operand)?;
                let part = match &index.expr {
                    Expr::Literal(LiteralValue::String(key)) => Some(PathPart::Key(key.inner().into())),
                    Expr::Literal(LiteralValue::Int(index)) => usize::try_from(**index).ok().map(PathPart::Index),
                    _ => None,
                };
                Ok(match part {
                    Some(part) => member(operand, part),
                    None => {
                        let name = self.node(index)?;
                        let name = if is_headers_map(&operand) { in_lower_case(name) } else { name };
                        Node::Index(Box::new(operand), Box::new(name))
                    }
                })
            }
            (operators::IN, [name, operand]) => {
                let (name, operand) = (self.node(name)?, self.node(operand)?);
                let name = if is_headers_map(&operand) { in_lower_case(name) } else { name };
                Ok(Node::Binary(Operator::In, Box::new(name), Box::new(operand)))
            }
            ("default", [value, fallback]) => Ok(Node::Default(self.boxed(value)?, self.boxed(fallback)?)),
            // `once` of an absent value is false, not an error.
            ("once", [value]) => {
                let function = self.function(tree, "once", 1)?;
                let value = Node::Default(self.boxed(value)?, Box::new(Node::Constant(serde_json::Value::Null)));
                Ok(Node::Call(function, vec![value]))
            }
            ("effects", args) => self.effects(args),
            ("matches", [text, pattern]) => {
                let Expr::Literal(LiteralValue::String(source)) = &pattern.expr else {
                    return Err(self.error(pattern, "matches() takes a pattern in quotes, not a computed one"));
                };
                let regex = RegexBuilder::new(source.inner()).size_limit(1 << 20).build();
                let regex =
                    regex.map_err(|e| self.error(pattern, format!("bad pattern: {}", one_line(&e.to_string()))))?;
                Ok(Node::Matches(self.boxed(text)?, regex))
            }
            ("uuid", [name]) => Ok(Node::PseudoRandom(PseudoRandom::Uuid, self.boxed(name)?)),
            ("random", [name]) => Ok(Node::PseudoRandom(PseudoRandom::Random, self.boxed(name)?)),
            ("uuid" | "random", _) => {
                let name = &call.func_name;
                Err(self.error(
                    tree,
                    format!("`{name}` takes a name, `{name}(\"order\")`: the same name gives the same value"),
                ))
            }
            (name, args) => {
                if let (Some(operator), [left, right]) = (Operator::of(name), args) {
                    return Ok(Node::Binary(operator, self.boxed(left)?, self.boxed(right)?));
                }
                let function = self.function(tree, name, args.len())?;
                Ok(Node::Call(function, args.iter().map(|arg| self.node(arg)).collect::<Result<_, _>>()?))
            }
        }
    }

    /// `effects("STEP")`, `effects()`: the list of a step's calls, or of all calls; empty where there is none.
    fn effects(&self, args: &[&IdedExpr]) -> Result<Node, ExpressionError> {
        let step = match args {
            [] => EFFECTS_OF_ALL_STEPS,
            [step] => match &step.expr {
                Expr::Literal(LiteralValue::String(step)) => step.inner(),
                _ => return Err(self.error(step, "effects() takes the name of a step in quotes, not a computed one")),
            },
            [_, other, ..] => return Err(self.error(other, "effects() takes the name of one step, or nothing")),
        };
        let path = Node::Path(Root::Name(EFFECTS.into()), vec![PathPart::Key(step.into())]);
        Ok(Node::Default(Box::new(path), Box::new(Node::Constant(Value::Array(Vec::new())))))
    }

    fn function(&self, tree: &IdedExpr, name: &str, args: usize) -> Result<Function, ExpressionError> {
        let Some((function, takes)) = Function::of(name) else {
            let known = Function::names()
                .chain(["default", "matches", "effects", "uuid", "random", "has", "map", "filter", "all", "exists"]);
            let meant = equivalent_function(name)
                .or_else(|| nearest(name, known))
                .map_or(String::new(), |known| format!("; did you mean `{known}`?"));
            return Err(self.error(tree, format!("unknown function `{name}`{meant}")));
        };
        if takes.contains(&args) {
            return Ok(function);
        }
        let takes = match (takes.start(), takes.end()) {
            (low, high) if low == high => format!("{low}"),
            (low, high) if *high == usize::MAX => format!("{low} or more"),
            (low, high) => format!("{low} to {high}"),
        };
        let values = if takes == "1" { "value" } else { "values" };
        Err(self.error(tree, format!("`{name}` takes {takes} {values} (the one before the dot included), not {args}")))
    }

    /// Recognises the comprehensions that the standard macros expand to. The parser makes no others.
    fn comprehension(&mut self, tree: &IdedExpr, loops: &ComprehensionExpr) -> Result<Node, ExpressionError> {
        let unsupported = || ExpressionError::new("a macro that is not supported");
        let range = self.node(&loops.iter_range)?;
        if self.locals.len() >= MACRO_DEPTH_MAX {
            return Err(self.error(tree, format!("more than {MACRO_DEPTH_MAX} macros within each other")));
        }
        let Expr::Call(step) = &loops.loop_step.expr else { return Err(unsupported()) };
        let appended = |tree: &IdedExpr| match &tree.expr {
            Expr::Call(add) if add.func_name == operators::ADD => match add.args.get(1).map(|list| &list.expr) {
                Some(Expr::List(list)) => list.elements.first().cloned(),
                _ => None,
            },
            _ => None,
        };
        let (kind, filter, body) = match (step.func_name.as_str(), step.args.as_slice()) {
            (operators::LOGICAL_AND, [_, body]) => {
                (MacroKind::Quantifier { deciding_value: false }, None, body.clone())
            }
            (operators::LOGICAL_OR, [_, body]) => (MacroKind::Quantifier { deciding_value: true }, None, body.clone()),
            (operators::ADD, _) => (MacroKind::Map, None, appended(&loops.loop_step).ok_or_else(unsupported)?),
            (operators::CONDITIONAL, [condition, step, _]) => match appended(step) {
                Some(element) => (MacroKind::Map, Some(condition), element),
                None => (MacroKind::One, None, condition.clone()),
            },
            _ => return Err(unsupported()),
        };
        self.locals.push(loops.iter_var.as_str().into());
        let filter = filter.map(|filter| self.node(filter)).transpose();
        let body = self.node(&body);
        self.locals.pop();
        Ok(Node::Macro(Box::new(Macro { kind, range, filter: filter?, body: body? })))
    }
}

/// Selects a member; on a path it becomes one more part of the path.
fn member(operand: Node, part: PathPart) -> Node {
    let part = match part {
        PathPart::Key(name) if is_headers_map(&operand) => PathPart::Key(name.to_ascii_lowercase().into()),
        part => part,
    };
    match operand {
        Node::Path(root, mut parts) => {
            parts.push(part);
            Node::Path(root, parts)
        }
        other => Node::Select(Box::new(other), part),
    }
}

/// The function here that does what functions of this name do in other languages.
fn equivalent_function(name: &str) -> Option<&'static str> {
    Some(match name {
        "len" | "length" | "count" => "size",
        "lower" | "toLower" | "toLowerCase" | "lowercase" => "lowerAscii",
        "upper" | "toUpper" | "toUpperCase" | "uppercase" => "upperAscii",
        "substr" | "slice" => "substring",
        "includes" => "contains",
        "strip" => "trim",
        "str" | "toString" => "string",
        "parseInt" | "toInt" | "integer" => "int",
        "float" | "toFloat" | "parseFloat" | "number" => "double",
        "coalesce" | "orElse" | "getOrDefault" => "default",
        "any" | "some" => "exists",
        "every" => "all",
        _ => return None,
    })
}

/// Whether this is a map of HTTP headers, whose keys are lower case: `headers` of a probe's reply, `request.headers`,
/// `steps.X.headers` and the like. A member `headers` of a JSON body is not: its keys are as in the body.
fn is_headers_map(node: &Node) -> bool {
    // One call of `effects("STEP")`.
    if let Node::Select(call, PathPart::Key(key)) = node {
        return &**key == "headers" && matches!(&**call, Node::Select(list, PathPart::Index(_)) if is_effects(list));
    }
    let Node::Path(Root::Name(root), parts) = node else { return false };
    let is_headers = |part: &PathPart| matches!(part, PathPart::Key(key) if &**key == "headers");
    match (&**root, parts.as_slice()) {
        ("headers", []) => true,
        ("request" | "reply" | "legacy" | "engine", [last]) => is_headers(last),
        ("steps" | "intents", [_, last]) => is_headers(last),
        // The intent of one item of a `for_each`.
        ("intents", [_, PathPart::Index(_), last]) => is_headers(last),
        _ => false,
    }
}

fn is_effects(node: &Node) -> bool {
    let Node::Default(path, _) = node else { return false };
    matches!(&**path, Node::Path(Root::Name(root), _) if &**root == EFFECTS)
}

/// A header's name in lower case, as the keys of a headers map are; a computed name is put in lower case when it is
/// evaluated.
fn in_lower_case(name: Node) -> Node {
    match (name, Function::of("lowerAscii")) {
        (Node::Constant(Value::String(name)), _) => Node::Constant(Value::String(name.to_ascii_lowercase())),
        (Node::Constant(other), _) => Node::Constant(other),
        (computed, Some((lower, _))) => Node::Call(lower, vec![computed]),
        (computed, None) => computed,
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).rfind(|l| !l.is_empty()).unwrap_or("").trim_start_matches("error: ").into()
}
