//! Secrets in every format and nesting are found, equal ones are equal, and ordinary texts stay as they are.

use std::cell::RefCell;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::walk::{BYTES_MAX, FoundSecret, NESTING_MAX, replace_secrets};
use super::{Detectors, STARS, is_secret, redact_line};

/// With characters that each format escapes.
const SECRET: &str = "Zq\"x<&é/+ 9kLmN=;#%7B";
/// The part of it that no format escapes.
const PART: &str = "9kLmN";

fn found(text: &str) -> (String, Vec<(String, String)>) {
    let all = RefCell::new(Vec::new());
    let mut replace = |found: FoundSecret<'_>| {
        all.borrow_mut().push((found.name.to_owned(), found.value.to_owned()));
        Some(STARS.to_owned())
    };
    let shown = replace_secrets(text, &is_secret, Detectors::default(), &mut replace);
    (shown.unwrap_or_else(|| text.to_owned()), all.take())
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn escaped(text: &str) -> String {
    super::markup::escaped(text)
}

/// A text in a string of JSON.
fn in_json(name: &str, text: &str) -> String {
    json!({ name: text, "n": 1 }).to_string()
}

/// Writes a text under a name.
type Format = fn(&str, &str) -> String;

/// Every format around a text that stands under this name.
fn formats() -> [(&'static str, Format); 12] {
    [
        ("json", in_json),
        ("list", |name, text| json!({ "all": [{ name: text }] }).to_string()),
        ("xml", |name, text| format!("<a><{name}>{}</{name}><b>1</b></a>", escaped(text))),
        ("cdata", |name, text| format!("<a><{name}><![CDATA[{text}]]></{name}></a>")),
        ("attribute", |name, text| format!("<a n=\"1\" {name}=\"{}\"/>", escaped(text))),
        ("query", |name, text| format!("/x?a=1&{name}={}&b=2", encoded(text))),
        ("semicolons", |name, text| format!("a=1;{name}={};b=2", encoded(text))),
        ("fragment", |name, text| format!("https://c.example/cb#{name}={}", encoded(text))),
        ("form", |name, text| format!("a=1&{name}={}", encoded(text).replace("%20", "+"))),
        ("log", |name, text| format!("called with {} at 10:00", in_json(name, text))),
        ("html", |name, text| escaped(&in_json(name, text))),
        ("twice", |name, text| encoded(&encoded(&format!("{name}={}", encoded(text))))),
    ]
}

#[test]
fn a_secret_is_found_in_three_formats_in_every_order() {
    let names = ["outer", "middle", "password"];
    let mut shown_in = Vec::new();
    for (first, outer) in formats() {
        for (second, middle) in formats() {
            for (third, inner) in formats() {
                let text = outer(names[0], &middle(names[1], &inner(names[2], SECRET)));
                let (shown, all) = found(&text);
                if shown.contains(PART) || !shown.contains(STARS) || all.is_empty() {
                    shown_in.push(format!("{first}, {second}, {third}: {text}\n{shown}"));
                }
            }
        }
    }
    assert!(shown_in.is_empty(), "{}:\n{}", shown_in.len(), shown_in.join("\n"));
}

#[test]
fn equal_values_are_found_as_equal_values() {
    for (name, format) in formats() {
        let (_, all) = found(&format("token", SECRET));
        assert_eq!(all, [("token".to_owned(), SECRET.to_owned())], "{name}");
        let (_, nested) = found(&in_json("raw", &format("token", SECRET)));
        assert_eq!(nested, all, "{name}");
    }
}

#[test]
fn quoted_headers_lines_and_credentials_are_found() {
    for text in [
        format!("x-api-key: {SECRET}\nfoo"),
        format!("user 7 sent the password: {SECRET}"),
        format!("2026-11-27 10:00 login failed, password={PART}"),
        format!("https://user:{}@host/x", encoded(SECRET)),
        format!("/x?next={}", encoded(&format!("https://u:{PART}@host/x"))),
        format!("Bearer {PART}"),
        format!("Basic {PART}"),
        format!("curl -H \"Authorization: Basic {PART}==\""),
    ] {
        for text in [text.clone(), in_json("note", &text), format!("/x?f={}", encoded(&in_json("note", &text)))] {
            assert!(!redact_line(&text).contains(PART), "{text}: {}", redact_line(&text));
        }
    }
}

#[test]
fn numbers_in_lists_with_the_plural_of_a_secret_name_are_found() {
    let text = json!({ "pins": [1234, "5678"], "cards": [{ "brand": "visa" }], "counts": [1234] }).to_string();
    assert_eq!(
        redact_line(&text),
        json!({ "pins": ["***", "***"], "cards": [{ "brand": "visa" }], "counts": [1234] }).to_string()
    );
}

#[test]
fn values_that_another_value_names_are_found() {
    for text in [
        json!({ "headers": [["accept", "*/*"], ["authorization", PART]] }).to_string(),
        json!([["--password", PART]]).to_string(),
        format!("<entry key=\"apiToken\"><string>{PART}</string></entry>"),
        format!("<dict><key>a</key><string>b</string><key>password</key> <string>{PART}</string></dict>"),
        format!("<entry><string>password</string><string>{PART}</string></entry>"),
    ] {
        assert!(!redact_line(&text).contains(PART), "{}", redact_line(&text));
    }
    for (text, shown) in [
        (r#"<a>{"name":"password","value":"hunter2"}</a>"#, r#"<a>{"name":"password","value":"***"}</a>"#),
        (r#"at {"name":"pin","value":1} 10:00"#, r#"at {"name":"pin","value":"***"} 10:00"#),
        (r#"a[0]={n} {"a":[{"Name":"pin","Value":"1"}], "#, r#"a[0]={n} {"a":[{"Name":"pin","Value":"***"}], "#),
        (r#"sent [["pin","1"],["n","2"]] [1] [[2]]"#, r#"sent [["pin","***"],["n","2"]] [1] [[2]]"#),
        (r#"password: {"a":1} {"n":2}"#, "password: ***"),
        (r#"x: {"n":1} pin: 2"#, r#"x: {"n":1} pin: ***"#),
        (r#"{"name":"cvv","content":"7","value":"8"}"#, r#"{"name":"cvv","content":"***","value":"***"}"#),
        (r#"{"raw":["Authorization","x","n","y"]}"#, r#"{"raw":["Authorization","***","n","y"]}"#),
        (r#"["card","paypal"] ["password"]"#, r#"["card","paypal"] ["password"]"#),
        ("<tr><td>Password</td><td>x</td><td>y</td></tr>", "<tr><td>Password</td><td>***</td><td>y</td></tr>"),
        (
            "<dl><dt>PIN</dt><dd>1</dd><dt>n</dt><dd>2</dd></dl>",
            "<dl><dt>PIN</dt><dd>***</dd><dt>n</dt><dd>2</dd></dl>",
        ),
    ] {
        assert_eq!(redact_line(text), shown);
    }
    let plain = "<dict><key>colour</key><string>red</string></dict><key>password</key>";
    assert_eq!(redact_line(plain), plain);
}

#[test]
fn a_value_is_found_in_another_element_than_its_name() {
    for (text, shown) in [
        ("<p>Your password: <b>hunter2</b></p><p>bye</p>", "<p>Your password: <b>***</b></p><p>bye</p>"),
        ("<b>PIN:</b> 1234\n<i>No. 7</i>", "<b>PIN:</b> ***\n<i>No. 7</i>"),
        ("<b>PIN:</b>\n<i class='n'>1234</i> 7", "<b>PIN:</b>\n<i class='n'>***</i> 7"),
        ("<td>API key:</td><td>x&amp;2</td><td>7</td>", "<td>API key:</td><td>***</td><td>7</td>"),
        ("<b>PIN: </b><![CDATA[1234]]> 7", "<b>PIN: </b><![CDATA[***]]> 7"),
        ("password: hun<t>er2", "password: ***"),
        ("password: hun<t>er2\nn=<1>", "password: ***\nn=<1>"),
        ("pin=\"hun<t>e</b>r2\" <p>", "pin=\"*** <p>"),
        ("<n>a password: hun<t>er2</n><m>7</m>", "<n>a password: ***</n><m>7</m>"),
        ("<note>password: hunter2</note><n>7</n>", "<note>password: ***</note><n>7</n>"),
        ("<note>password: a&amp;b</note><n>7</n>", "<note>password: ***</note><n>7</n>"),
        ("<pin>1</pin>: <a>7</a>", "<pin>***</pin>: <a>7</a>"),
        ("<password: hunter2>", "<password: ***"),
        ("<input type=password value=hunter2> a <b>7</b>", "<input type=password value=***> a <b>7</b>"),
        ("<meta name=\"csrf-token\" content=\"s3cr3t\"><p>7</p>", "<meta name=\"csrf-token\" content=\"***\"><p>7</p>"),
    ] {
        assert_eq!(redact_line(text), shown);
    }
}

/// Without optimisation, quadratic work on a text of this size takes minutes, and linear work a second or two.
#[test]
fn the_work_is_linear_in_the_length_of_a_text() {
    for (part, end) in [
        ("bearer", ""),
        ("/eyJ", ".a.b"),
        ("<a \">\"", ""),
        ("pin=\"x\n", ""),
        ("{\"a\":", ""),
        ("<b>PIN:</b>", "1"),
        ("-----BEGIN PRIVATE KEY-----", ""),
    ] {
        let text = part.repeat((128 << 10) / part.len()) + end;
        let begin = std::time::Instant::now();
        let shown = redact_line(&text);
        let took = begin.elapsed();
        assert!(took < std::time::Duration::from_secs(30), "{part}: {took:?}, {} bytes", shown.len());
    }
}

#[test]
fn keys_that_are_secrets_stay_apart() {
    let text = json!({ "4111111111111111": 1, "5500000000000004": 2, "tokens": 3 }).to_string();
    assert_eq!(redact_line(&text), r#"{"***":1,"*** (2)":2,"tokens":"***"}"#);
    let below = json!({ "token": { "hunter2": "a", "hunter3": "b", "kind": "c" } }).to_string();
    assert_eq!(redact_line(&below), r#"{"token":{"***":"***","*** (2)":"***","kind":"***"}}"#);
    let map = json!({ "sessions": { "hunter2": { "user": 7, "pin": 8 } }, "pins": { "ann": "1234" } }).to_string();
    assert_eq!(redact_line(&map), r#"{"sessions":{"***":{"user":7,"pin":"***"}},"pins":{"***":"***"}}"#);
}

#[test]
fn beyond_the_bounds_the_whole_text_counts_as_a_secret() {
    let mut text = "a=1".to_owned();
    for _ in 0..NESTING_MAX - 1 {
        text = in_json("raw", &text);
    }
    assert_eq!(redact_line(&text), text, "as deep as it is read");
    assert_eq!(redact_line(&in_json("raw", &text)), STARS);
    let large = format!("a=1 {}", "x ".repeat(BYTES_MAX / 2));
    assert_eq!(redact_line(&large), STARS);
    let without_signs = "x ".repeat(BYTES_MAX);
    assert_eq!(redact_line(&without_signs).len(), without_signs.len());
}

#[test]
fn ordinary_texts_stay_as_they_are() {
    let order = json!({
        "id": 4711, "note": "Leave it at the door: 2nd floor, ring twice; thanks & bye", "at": "2026-11-27T10:00:00Z",
        "link": "https://shop.example/orders/4711?page=2&sort=asc#lines", "total": 17.5, "ratio": "3:4",
    });
    let texts = [
        order.to_string(),
        serde_json::to_string_pretty(&order).expect("JSON"),
        json!({ "raw": order.to_string(), "again": json!({ "raw": order.to_string() }).to_string() }).to_string(),
        "<order id=\"4711\"><note>a &lt; b &amp; c</note><at>10:00</at></order>".to_owned(),
        "/search?q=red%20shoes%20%26%20socks&filter=%7B%22size%22%3A42%2C%22at%22%3A%5B%5D%7D&next=%2Fcart%3Fa%3D1"
            .to_owned(),
        "sku=tea&qty=2&note=a%3Db+c&url=https%3A%2F%2Fshop.example%2F%3Fpage%3D2".to_owned(),
        "Your password has been changed. The token has expired; please sign in again.".to_owned(),
        "Password: must not be empty".to_owned(),
        "Session: opening keynote\nCard: for a birthday\nPan: non-stick".to_owned(),
        "Basic support is included; a bearer of news".to_owned(),
        "Basic plan".to_owned(),
        "Digest of the week".to_owned(),
        "Due: 2026-11-17, company: ACME, ratio 3:4, a => b, x -> y, 5 > 3".to_owned(),
        "status=paid;currency=EUR;total=17.50".to_owned(),
        "cards, pins and tokens; [1, 2] {not JSON} 100 % & more <3".to_owned(),
        "AT&T; R&D; Q&A".to_owned(),
        String::new(),
    ];
    for text in &texts {
        assert_eq!(redact_line(text), *text);
    }
    let value: Value = serde_json::from_str(&texts[2]).expect("JSON");
    assert_eq!(value["raw"], order.to_string());
}
