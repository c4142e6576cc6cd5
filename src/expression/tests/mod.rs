mod properties;
mod templates;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::problem::Segment;

fn scope() -> Scope {
    let mut scope = Scope::new();
    scope
        .set(
            "request",
            Arc::new(json!({
                "method": "POST",
                "headers": {"x-tenant": "acme", "content-type": "application/json"},
                "body": {"n": 7, "price": 19.99, "whole": 20.0, "big": 12345678901234567890123u128.to_string(),
                    "items": [{"sku": "a", "qty": 2}, {"sku": "b", "qty": 3}], "note": null, "empty": []},
            })),
        )
        .set("index", Arc::new(json!(1)))
        .set_member("steps", "price", ScopeValue::map([("output", ScopeValue::from(json!({"total": 1000.0})))]));
    scope
}

fn eval(source: &str) -> Result<Value, ExpressionError> {
    Expression::parse(source)?.evaluate(&scope())
}

#[track_caller]
fn gives(source: &str, expected: Value) {
    let value = eval(source).unwrap_or_else(|e| panic!("{source}: {e}"));
    assert_eq!(value.to_string(), expected.to_string(), "{source}");
}

#[track_caller]
fn fails(source: &str, message: &str) {
    match eval(source) {
        Ok(value) => panic!("{source} gave {value}"),
        Err(error) => assert_eq!(error.message, message, "{source}"),
    }
}

#[test]
fn a_path_gives_the_value_at_it_with_its_type() {
    gives("request.body.n", json!(7));
    gives("request.body.items[1].sku", json!("b"));
    gives("request.body.items[index].sku", json!("b"));
    gives("request.headers['X-Tenant']", json!("acme"));
    gives("steps.price.output.total * 2", json!(2000.0));
    gives("steps.price.output", json!({"total": 1000.0}));
    gives("steps", json!({"price": {"output": {"total": 1000.0}}}));
    gives("{'a': [1, 'x', true, null]}", json!({"a": [1, "x", true, null]}));
    gives("request.body.n > 5 ? 'many' : 'few'", json!("many"));
}

#[test]
fn a_key_that_serde_json_reserves_is_refused_in_a_map() {
    gives("{'$serde': 1}", json!({"$serde": 1}));
    for key in ["'$serde_json::private::Number'", "'$serde_json' + '::private::RawValue'"] {
        fails(&format!("{{{key}: '5'}}"), "a map's key may not begin with `$serde_json::private::`");
    }
}

#[test]
fn arithmetic_mixes_integers_and_doubles() {
    gives("1.5 * 2", json!(3.0));
    gives("request.body.n + 1", json!(8));
    gives("request.body.whole + 1", json!(21.0));
    gives("request.body.whole", json!(20.0));
    gives("7 / 2", json!(3));
    gives("7 / 2.0", json!(3.5));
    gives("7 % 4 - -1", json!(4));
    gives("9223372036854775807 + 1", json!(9223372036854775808u64));
    gives("1 == 1.0 && 2u == 2 && [1] == [1.0] && 1 != '1'", json!(true));
    gives("9007199254740993 == 9007199254740992.0", json!(false));
    fails("18446744073709551615u + 1", "18446744073709551616 is too large an integer");
    fails("1 / 0", "division by zero");
    fails("1.0 / 0", "division by zero");
    fails("1e308 * 10", "the result is not a finite number");
    fails("1 + '1'", "a number + a string has no meaning; convert one with string() or double()");
}

#[test]
fn numbers_that_are_passed_on_keep_every_digit() {
    let mut scope = Scope::new();
    let exact: Value =
        serde_json::from_str("[123456789012345678901234567890, 0.1000000000000000055511151231257827]").unwrap();
    scope.set("a", Arc::new(exact.clone()));
    assert_eq!(Expression::parse("a").unwrap().evaluate(&scope).unwrap().to_string(), exact.to_string());
    assert_eq!(Expression::parse("a.map(x, x)").unwrap().evaluate(&scope).unwrap().to_string(), exact.to_string());
}

#[test]
fn functions_give_the_expected_values_and_name_themselves_in_errors() {
    gives("size(request.body.items) + 'añb'.size()", json!(5));
    gives("'Hello'.lowerAscii().contains('ell') && 'abc'.startsWith('a') && 'abc'.endsWith('c')", json!(true));
    gives("'a,b,c'.split(',').join('-')", json!("a-b-c"));
    gives("'ab12'.matches('^[a-z]+[0-9]+$')", json!(true));
    gives("round(1.005, 2)", json!(1.01));
    gives("round(-2.5)", json!(-3));
    gives("round(9.99, 1)", json!(10.0));
    gives("[floor(1.7), ceil(1.2), abs(-3), abs(-3.5)]", json!([1, 2, 3, 3.5]));
    gives("[min(3, 1.5), max([1, 5, 2]), sum([1, 2]), sum([0.5, 1]), sum([])]", json!([1.5, 5, 3, 1.5, 0]));
    gives(
        "[string(20.0), string(true), int('12'), int(3.9), double(3), double('2.5')]",
        json!(["20.0", "true", 12, 3, 3.0, 2.5]),
    );
    gives("sum(request.body.items.map(i, i.qty))", json!(5));
    gives("{'b': 1, 'a': 2}.keys().sort()", json!(["a", "b"]));
    gives(
        "'abcdef'.substring(1, 3) + 'abc'.indexOf('c').string() + ' x '.trim() + 'aa'.replace('a', 'b')",
        json!("bc2xbb"),
    );
    gives("flatten([[1], [2, 3]]).reverse()", json!([3, 2, 1]));
    gives("[uint(7), uint('7'), uint(2.9)]", json!([7, 7, 2]));
    fails("uint(-1)", "uint(): -1 is negative");
    fails("uint('-1')", "uint(): -1 is negative");
    // 2^63 and more is exact or an error, never another number.
    gives("int(9223372036854775808.0)", json!(9_223_372_036_854_775_808_u64));
    fails("int(-9223372036854777856.0)", "int(): -9223372036854777856 is too large an integer");
    fails("int(1e19)", "int(): 10000000000000000000 is too large an integer");
    fails("int('9223372036854775808')", "int(): the text is not a whole number");
    fails("min([])", "min(): the list is empty");
    fails("size(1)", "size(): takes a string, a list or a map, not a number");
    fails("len([1])", "unknown function `len`; did you mean `size`?");
    fails("'A'.toLowerCase()", "unknown function `toLowerCase`; did you mean `lowerAscii`?");
    fails("'a'.contain('a')", "unknown function `contain`; did you mean `contains`?");
    fails("round()", "`round` takes 1 to 2 values (the one before the dot included), not 0");
    fails("'a'.matches(request.method)", "matches() takes a pattern in quotes, not a computed one");
    fails("'a'.matches('(')", "bad pattern: unclosed group");
}

#[test]
fn macros_give_the_expected_values_and_nest_only_to_a_bound() {
    gives("request.body.items.map(i, i.sku)", json!(["a", "b"]));
    gives("request.body.items.map(i, i.qty > 2, i.sku)", json!(["b"]));
    gives("request.body.items.filter(i, i.qty > 2)", json!([{"sku": "b", "qty": 3}]));
    gives("request.body.items.all(i, i.qty > 1) && request.body.items.exists(i, i.sku == 'a')", json!(true));
    gives("[1, 2, 2].exists_one(x, x == 1)", json!(true));
    gives("[1, 2].map(x, [10, 20].map(y, x + y))", json!([[11, 21], [12, 22]]));
    gives("{'k': 1}.map(k, k)", json!(["k"]));
    gives("[[1, 2], [3]].map(x, x[0])", json!([1, 3]));
    gives("[1].all(x, x > 0 || x.y.z)", json!(true));
    let five = "[1].map(a,[1].map(b,[1].map(c,[1].map(d,[1].map(e,1)))))";
    fails(five, "more than 4 macros within each other");
}

#[test]
fn an_absent_value_is_named_by_its_whole_path() {
    let absent = |source: &str| eval(source).unwrap_err().absent;
    assert_eq!(absent("request.body.customer.email").as_deref(), Some("request.body.customer"));
    assert_eq!(absent("steps.charge.output.id").as_deref(), Some("steps.charge"));
    assert_eq!(absent("legacy.body.id").as_deref(), Some("legacy"));
    assert_eq!(absent("request.headers['x-none']").as_deref(), Some("request.headers[\"x-none\"]"));
    assert_eq!(absent("request.body.items[index + 4].sku").as_deref(), Some("request.body.items[5]"));
    assert_eq!(absent("request.body.items[index].price").as_deref(), Some("request.body.items[1].price"));
    assert_eq!(absent("request.body.items.map(i, i.price)").as_deref(), Some("i.price"));
    fails("request.body.n.x", "`request.body.n.x` is absent: `request.body.n` is a number");
    fails("request.body.items.sku", "`request.body.items.sku` is absent: `request.body.items` is a list");
    gives("has(request.body.customer.email) || has(legacy.body)", json!(false));
    gives("has(request.body.note)", json!(true));
    gives("default(request.body.customer.email, 'none') + default(request.body.note, '-')", json!("none-"));
    gives("'x-tenant' in request.headers && !('x' in request.headers) && 3 in [1, 3.0]", json!(true));
    gives("false && request.nothing || true || request.nothing", json!(true));
    gives("request.nothing == 1 && false", json!(false));
}

/// Headers have lower-case names in every scope; the keys in a member `headers` of a JSON body are as in the body.
#[test]
fn a_header_is_found_in_any_case_of_its_name() {
    let headers = || json!({"x-found": "1"});
    let mut scope = Scope::new();
    scope
        .set("headers", Arc::new(headers()))
        .set("legacy", Arc::new(json!({"headers": headers()})))
        .set("engine", Arc::new(json!({"headers": headers()})))
        .set("intents", Arc::new(json!({"a": {"headers": headers()}, "b": [{"headers": headers()}]})))
        .set("steps", Arc::new(json!({"s": {"headers": headers(), "output": {"headers": {"X-Found": "2"}}}})))
        .set("item", Arc::new(json!({"headers": {"X-Found": "2"}})))
        .set("output", Arc::new(json!({"headers": {"X-Found": "2"}})))
        .set("signal", Arc::new(json!({"headers": {"X-Found": "2"}})))
        .set("name", Arc::new(json!("X-FOUND")));
    let eval = |source: &str| Expression::parse(source).unwrap().evaluate(&scope);
    let replies = ["headers", "legacy.headers", "engine.headers", "steps.s.headers"];
    for map in replies.into_iter().chain(["intents.a.headers", "intents.b[0].headers"]) {
        for source in ["MAP['X-Found']", "MAP['x-found']", "MAP[name]", "default(MAP['X-Found'], 'none')"] {
            let source = source.replace("MAP", map);
            assert_eq!(eval(&source), Ok(json!("1")), "{source}");
        }
        for source in ["'X-Found' in MAP", "'x-found' in MAP", "name in MAP", "!('X-Lost' in MAP)"] {
            let source = source.replace("MAP", map);
            assert_eq!(eval(&source), Ok(json!(true)), "{source}");
        }
    }
    for map in ["item.headers", "output.headers", "signal.headers", "steps.s.output.headers"] {
        assert_eq!(eval(&format!("{map}['X-Found']")), Ok(json!("2")), "{map}");
        assert_eq!(eval(&format!("'X-Found' in {map} && !('x-found' in {map})")), Ok(json!(true)), "{map}");
    }
    assert_eq!(eval("['X-Found'].exists(headers, headers == 'X-Found')"), Ok(json!(true)), "a variable of a macro");
}

#[test]
fn reads_are_full_paths_without_macro_variables() {
    let reads = |source: &str| {
        let expression = Expression::parse(source).unwrap();
        expression.reads().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(reads("steps.price.output.total * 2 + steps.price.output.total"), ["steps.price.output.total"]);
    assert_eq!(reads("request.headers['X-Tenant']"), ["request.headers[\"x-tenant\"]"]);
    assert_eq!(reads("steps['charge-by'].headers['ETag']"), ["steps[\"charge-by\"].headers.etag"]);
    assert_eq!(reads("headers['X-Found']"), ["headers[\"x-found\"]"]);
    assert_eq!(reads("item.headers['X-Found']"), ["item.headers[\"X-Found\"]"]);
    assert_eq!(reads("legacy.body.list[index].id"), ["index", "legacy.body.list"]);
    assert_eq!(
        reads("request.body.items.map(i, i.sku + run.id).filter(x, x != a.b)"),
        ["a.b", "request.body.items", "run.id"]
    );
    assert_eq!(reads("has(a.b.c) ? default(d.e, f) : {'x': [g.h]}"), ["a.b.c", "d.e", "f", "g.h"]);
}

#[test]
fn errors_have_an_offset() {
    let error = |source: &str| {
        let error = Expression::parse(source).unwrap_err();
        (error.message, error.offset)
    };
    assert_eq!(error(" ").0, "the expression is empty");
    assert_eq!(error("1 +"), ("not a CEL expression: it ends too early".into(), Some(3)));
    for (text, hint, at) in [("a = 402", "`==`", 2), ("a=b", "`==`", 1), ("a & b", "`&&`", 2), ("a | b", "`||`", 2)] {
        let (message, offset) = error(text);
        assert!(message.contains(hint), "{text}: {message}");
        assert_eq!(offset, Some(at), "{text}");
    }
    assert_eq!(error("(1"), ("`(` is not closed".into(), Some(2)));
    assert_eq!(error("é + 1)"), ("`)` closes nothing".into(), Some(5)));
    assert_eq!(error("'abc"), ("a string is not closed".into(), Some(0)));
    assert_eq!(error("b'abc'").0, "bytes (b\"…\") are not supported; use a string");
    assert_eq!(error("a.B{c: 1}").0, "messages (`Name{…}`) are not supported; use a map: {\"a\": 1}");
    assert_eq!(error("has(a['b'])").0, "has() takes a member: has(a.b); for a key in quotes write \"b\" in a");
    assert!(error(&"(".repeat(33)).0.starts_with("the expression is nested too deeply; 32 levels"));
    assert!(error(&format!("{}1", "-".repeat(9))).0.starts_with("the expression is nested too deeply"));
    assert!(error(&["1"; 66].join("+")).0.starts_with("the expression has too many names and operators"));
    assert!(error(&["true"; 200].join("||")).0.starts_with("the expression has too many names and operators"));
    assert!(error(&"a".repeat(4097)).0.starts_with("the expression has 4097 bytes; at most 4096"));
}

/// The deepest trees that the bounds allow, on a thread with the smallest stack that the process uses.
#[test]
fn the_deepest_expressions_fit_a_small_stack() {
    let deepest = [
        ["1"; 65].join("+"),
        ["1"; 65].join("<"),
        format!("a{}", ".b".repeat(255)),
        format!("a{}", "[x]".repeat(63)),
        format!("{}1{}", "(".repeat(32), ")".repeat(32)),
        format!("{}{}{}", "[".repeat(32), ["1"; 32].join("*"), "]".repeat(32)),
        format!("{}1", "true ? 1 : ".repeat(32)),
        format!("{}1{}", "-(".repeat(31), ")".repeat(31)),
        ["true"; 128].join("&&"),
        format!("{}1{}", "default(a,".repeat(32), ")".repeat(32)),
        format!("'a'{}", ".trim()".repeat(50)),
    ];
    let run = move || {
        for source in deepest {
            match Expression::parse(&source) {
                Ok(expression) => drop(expression.evaluate(&scope())),
                Err(error) => panic!("{source}: {error}"),
            }
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn work_is_bounded() {
    let mut scope = Scope::new();
    scope.set("l", Arc::new(Value::from((0..2000).collect::<Vec<_>>()))).set("s", Arc::new(json!("x".repeat(1 << 20))));
    let fails = |source: &str| Expression::parse(source).unwrap().evaluate(&scope).unwrap_err().message;
    assert_eq!(fails("l.map(a, l.map(b, l.map(c, 1)))"), "the expression does too much work (more than 2000000 units)");
    assert!(fails("l.map(a, s)").contains("too much work"));
    assert!(fails("l.exists(a, l.exists(b, l.all(c, c >= 0) && false)) || true").contains("too much work"));
    assert!(fails("s.replace('', s)").contains("too large"));
}

#[test]
fn values_equal_those_of_the_crate_cel_where_both_give_one() {
    let sources = [
        "1 + 2 * 3 - 4 / 2 % 3",
        "1.5 + 2.5",
        "'a' + 'b' == 'ab'",
        "[1, 2] + [3]",
        "!(1 < 2) || 2 >= 2 && 'a' < 'b'",
        "[1, 2, 3].filter(x, x > 1).map(x, x * 2)",
        "[1, 2].exists(x, x == 2) ? [3][0] : 4",
        "{'a': {'b': 5}}.a['b']",
        "2 in [1, 2] && 'a' in {'a': 1}",
        "size('héllo') + size([1]) + size({})",
        "has({'a': 1}.a)",
        "-(-3) - -4",
        "true ? (false ? 1 : 2) : false ? 3 : 4",
        "'a\\u00e9\\n' + r'\\n' + '''x'y'''",
        "[1, 2, 3].all(x, x > 0)",
        "0x10 + 1",
        "'abc'.startsWith('a') && 'abc'.contains('b') && 'abc'.endsWith('c')",
        "int('3') + int(4.9)",
        "double(3) / 2.0",
        "[[1], [2]].map(x, x.map(y, y + 1))",
        "[1, 1, 2].exists_one(x, x == 2)",
        "1 == 1.0",
        "null == null",
        "7 / 2 * 2",
    ];
    for source in sources {
        let theirs = cel::Program::compile(source).unwrap().execute(&cel::Context::default()).unwrap();
        assert_eq!(to_json(&theirs), eval(source).unwrap(), "{source}");
    }
}

fn to_json(value: &cel::Value) -> Value {
    match value {
        cel::Value::Int(int) => json!(int),
        cel::Value::UInt(int) => json!(int),
        cel::Value::Float(double) => json!(double),
        cel::Value::Bool(bool) => json!(bool),
        cel::Value::String(text) => json!(text.as_str()),
        cel::Value::List(list) => list.iter().map(to_json).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pseudo_random_values_are_the_same_for_a_key_and_a_name() {
    let draw = |key: u8, source: &str| {
        let mut scope = scope();
        scope.set_random_key(move || [key; 32]);
        Expression::parse(source).unwrap().evaluate(&scope)
    };
    let id = draw(1, "uuid('order')").unwrap();
    let parsed = uuid::Uuid::parse_str(id.as_str().unwrap()).unwrap();
    assert_eq!(parsed.get_version_num(), 4);
    assert_eq!(draw(1, "uuid('order')").unwrap(), id);
    assert_ne!(draw(2, "uuid('order')").unwrap(), id);
    assert_ne!(draw(1, "uuid('other')").unwrap(), id);
    assert_eq!(draw(1, "uuid('order-' + string(index))").unwrap(), draw(1, "uuid('order-1')").unwrap());
    assert_eq!(draw(1, "random('a') >= 0.0 && random('a') < 1.0 && random('a') == random('a')").unwrap(), json!(true));
    fails("uuid('a')", "uuid() and random() are not available here");
    fails("uuid()", "`uuid` takes a name, `uuid(\"order\")`: the same name gives the same value");
    assert_eq!(draw(1, "random(1)").unwrap_err().message, "uuid() and random() take a name in quotes, not a number");
    assert_eq!(Expression::parse("random('a')").unwrap().reads()[0].root(), "random()");
}
