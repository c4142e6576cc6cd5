//! Templates and URLs.

use super::*;

#[test]
fn a_template_keeps_the_type_of_a_single_expression_and_joins_mixed_text() {
    let template = |value: Value| Template::parse(&value).unwrap().evaluate(&scope()).unwrap();
    assert_eq!(template(json!("${request.body.n}")), json!(7));
    assert_eq!(template(json!("${ request.body.n } of ${'}' + \"{\"}")), json!("7 of }{"));
    assert_eq!(template(json!("$${x} $ $$ {} ${{'a': {'b': 1}}.a.b}")), json!("${x} $ $$ {} 1"));
    assert_eq!(
        template(json!({"a": ["${index}", true, 1.50], "b": {"c": "x${index}"}})),
        json!({"a": [1, true, 1.50], "b": {"c": "x1"}})
    );
    let error = |text: &str| {
        let error = Template::parse_str(text).err().unwrap();
        (error.message, error.offset)
    };
    assert_eq!(error("é ${1"), ("`${` is not closed".into(), Some(2)));
    assert_eq!(error("é ${1 + }"), ("not a CEL expression: it ends too early".into(), Some(7)));
    let errors = Template::parse(&json!({"a": ["ok", "${"], "b": "${size(1, 2)}", "${c}": 1})).err().unwrap();
    assert_eq!(errors.len(), 3);
    assert_eq!(errors[0].0, [Segment::Key("a".into()), Segment::Index(1)]);
    assert_eq!(Template::parse(&json!({"a": [1]})).unwrap().as_constant(), Some(&json!({"a": [1]})));
    let text = |text: &str| Template::parse_str(text).unwrap().evaluate_text(&scope()).map_err(|e| e.message);
    assert_eq!(text("Bearer ${request.body.whole}"), Ok("Bearer 20.0".into()));
    assert_eq!(text("${request.body.items}"), Err("text takes a string, a number or a bool, not a list".into()));
    assert_eq!(text("a${null}"), Err("`null` in text takes a string, a number or a bool, not null".into()));
    assert_eq!(text("a${'\\r\\n'}b"), Err("a line break is not allowed here".into()));
    let braced = |text: &str| Expression::parse_braced(text, &Bounds::default()).map(|e| e.source().to_owned());
    assert_eq!(braced("${ a == 1 }").unwrap().trim(), "a == 1");
    assert_eq!(braced("a == 1").unwrap_err().message, "`a == 1` is not one expression; write `${ … }`");
}

pub(super) fn url(text: &str, value: Value) -> Result<String, String> {
    let mut scope = scope();
    scope.set("v", Arc::new(value));
    UrlTemplate::parse(text).and_then(|url| url.evaluate(&scope)).map_err(|e| e.message)
}

#[test]
fn a_value_in_a_url_is_one_encoded_component_and_no_host_is_computed() {
    let stock = "${services.stock}/r/${v}?q=${v}&x=1";
    assert_eq!(
        url(stock, json!("a/b?c#d&e %é")),
        Ok("/r/a%2Fb%3Fc%23d%26e%20%25%C3%A9?q=a%2Fb%3Fc%23d%26e%20%25%C3%A9&x=1".into())
    );
    assert_eq!(url(stock, json!(5)), Ok("/r/5?q=5&x=1".into()));
    assert_eq!(url(stock, json!("..")), Err("a value in the path makes a dot segment (`.` or `..`)".into()));
    assert_eq!(
        url("${services.s}/%2e${v}", json!(".")),
        Err("a value in the path makes a dot segment (`.` or `..`)".into())
    );
    assert_eq!(url("${services.s}/a?q=${v}", json!("..")), Ok("/a?q=..".into()));
    assert_eq!(url("${services.s}/a?q=${v}", json!("")), Ok("/a?q=".into()));
    assert_eq!(url(stock, json!("")), Err("a value in the path is empty".into()));
    assert_eq!(url(stock, json!("a\nb")), Err("a line break is not allowed in a URL".into()));
    assert_eq!(url("${services.s}/a//%2F/../b;c=${v}/", json!("x")), Ok("/a//%2F/../b;c=x/".into()));
    assert_eq!(url("${ services.s }", json!(1)), Ok(String::new()));
    assert!(url(stock, json!([])).unwrap_err().contains("not a list"));
    assert!(url(stock, json!(null)).unwrap_err().contains("not null"));
    let service = |text: &str| UrlTemplate::parse(text).map(|u| u.service().map(str::to_owned)).map_err(|e| e.message);
    assert_eq!(service("${services['stock-eu']}/x"), Ok(Some("stock-eu".into())));
    assert_eq!(service("https://h:1/x?${v}"), Ok(None));
    assert_eq!(url("https://h:1/x?${v}", json!("a")), Ok("/x?a".into()));
    let host = "a URL begins with `${services.NAME}`; a computed host is not allowed";
    assert_eq!(service("${request.body.url}/x").unwrap_err(), host);
    assert_eq!(service("${services.a + 'x'}/x").unwrap_err(), host);
    assert_eq!(service("https://h${v}/x").unwrap_err(), "a computed host is not allowed; use `${services.NAME}`");
    assert_eq!(service("/x").unwrap_err(), "a URL begins with `${services.NAME}`");
    for text in ["${services.a}evil", "${services.a}${v}", "${services.a}@evil/", "${services.a}:80/"] {
        assert_eq!(service(text).unwrap_err(), "after the service comes `/`, and then the path", "{text}");
    }
    assert!(service("${services.a}/a b").unwrap_err().contains("cannot stand in a URL"));
}

#[test]
fn the_template_of_a_path_has_braces_for_each_segment_with_a_value() {
    for (url, template) in [
        ("${services.bank}/charges", "/charges"),
        ("${services.bank}/orders/${v}/cancel?by=${v}", "/orders/{}/cancel"),
        ("${services.bank}/a-${v}.${v}/b", "/{}/b"),
        ("${services.bank}?q=1", ""),
        ("${services.bank}", ""),
        ("http://bank:1/charges/${v}", "/charges/{}"),
    ] {
        assert_eq!(UrlTemplate::parse(url).unwrap().path_template(), template, "{url}");
    }
}
