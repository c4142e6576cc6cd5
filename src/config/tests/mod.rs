mod captures;
mod compare_rules;
mod effect_rules;
mod egress;
mod egress_attribution;
mod fuzzed_files;
mod gate_keys;
mod guards;
mod instances;
mod listeners;
mod mutations;
mod other_spellings;
mod refusals;
mod rehearsals;
mod secrets;
mod service_tls;
pub(super) mod set;
mod streams;
mod watching;

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::config::parse::parse;
use crate::config::schema_check;
use crate::config::tree::ParsedFile;
use crate::problem::Site;

fn source(text: &str) -> ParsedFile {
    let (source, errors) = parse(&Arc::from("f.yaml"), text);
    assert_eq!(errors, [], "{text}");
    source
}

fn value(text: &str) -> Value {
    source(text).root.expect("a tree").to_value()
}

/// `line:column: message (hint)` of each error.
fn errors(text: &str) -> Vec<String> {
    let (source, errors) = parse(&Arc::from("f.yaml"), text);
    let line = |error: &crate::config::parse::ParseError| {
        let position = source.position(error.span.clone());
        let hint = error.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{}:{}: {}{hint}", position.line, position.column, error.message)
    };
    errors.iter().map(line).collect()
}

#[test]
fn scalars_are_read_by_yaml_1_2_and_lose_no_digits() {
    let text = "a: off\nb: true\nc: 007\nd: 1.50\ne: 12345678901234567890123\nf: ~\ng: '5'\nh: +3\ni: 0x10\nj: 1e400\nk: .5\nl: yes\nm: -0.1";
    let value = value(text);
    let shown = serde_json::to_string(&value).expect("json");
    assert_eq!(
        shown,
        r#"{"a":"off","b":true,"c":"007","d":1.50,"e":12345678901234567890123,"f":null,"g":"5","h":3,"i":16,"j":"1e400","k":".5","l":"yes","m":-0.1}"#
    );
}

#[test]
fn aliases_repeat_a_value_and_point_at_the_anchor() {
    let source = source("a: &x { n: 1 }\nb: *x\n");
    assert_eq!(
        source.root.as_ref().map(crate::config::tree::Node::to_value),
        Some(json!({"a": {"n": 1}, "b": {"n": 1}}))
    );
    let position = source.locate(&Site::file("f.yaml").key("b").key("n"), None);
    assert_eq!((position.line, position.column), (1, 12));
}

#[test]
fn text_that_is_not_accepted_yaml_is_an_error_with_its_position() {
    assert_eq!(
        errors("a: 1\nb: 2\na: 3\n"),
        ["3:1: the key `a` is twice in this map (it is in line 1 too; keep one of them)"]
    );
    assert_eq!(
        errors("a:\n  $serde_json::private::Number: 5\n"),
        ["2:3: keys that begin with `$serde_json::private::` are reserved (choose another key)"]
    );
    assert_eq!(errors("a: 1\n---\nb: 2\n"), ["2:1: a second document in one file (one file holds one document)"]);
    assert_eq!(
        errors("a: !!binary xx"),
        ["1:13: the tag `!!binary` is not supported (leave it out; quote a value that is to stay text)"]
    );
    assert_eq!(errors("a: &x [*x]"), ["1:8: an alias inside its own anchor (write the value out)"]);
    assert_eq!(
        errors("b: &b {}\na:\n  <<: *b\n"),
        ["3:3: merge keys (`<<`) are not supported (write the keys out, or alias one value)"]
    );
    assert_eq!(
        errors("a: { ? [1] : 2 }"),
        ["1:8: a list or a map as a key (a value that begins with `{`, `[` or `${` in a flow map needs quotes)"]
    );
    let deep = "[".repeat(100);
    assert!(errors(&deep)[0].starts_with("1:6"), "{:?}", errors(&deep));
    let tab = errors("a:\n\tb: 1\n");
    assert!(tab[0].starts_with("2:") && tab[0].ends_with("(indent with spaces, not with a tab)"), "{tab:?}");
}

/// The keys of a map count as often as an alias repeats it, like its values.
#[test]
fn keys_behind_aliases_count_towards_the_size_of_a_file() {
    let (long_key, aliases) = ("k".repeat(900), |name: &str, times: usize| format!("*{name}, ").repeat(times));
    let of_bytes = format!("a: &a {{ {long_key}: 1 }}\nb: [{}]\n", aliases("a", 5_000));
    assert!(errors(&of_bytes)[0].contains("more than 4194304 bytes of text"), "{:?}", errors(&of_bytes));
    let keys: String = (0..90).map(|n| format!("k{n}: 1, ")).collect();
    // 600 times a map, its keys and their values: more than 100,000 with the keys, fewer without them.
    let of_values = format!("a: &a {{ {keys} }}\nb: [{}]\n", aliases("a", 600));
    assert!(errors(&of_values)[0].contains("more than 100000 values"), "{:?}", errors(&of_values));
    let fewer = format!("a: &a {{ {keys} }}\nb: [{}]\n", aliases("a", 500));
    assert_eq!(errors(&fewer), [""; 0]);
}

#[test]
fn exponential_aliases_are_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let of = format!("*a{}, ", n - 1).repeat(10);
        text.push_str(&format!("a{n}: &a{n} [{of}]\n"));
    }
    let errors = errors(&text);
    assert!(errors[0].contains("too large"), "{errors:?}");
    let mut text = String::from("a0: &a0 [x]\n");
    for n in 1..100 {
        text.push_str(&format!("a{n}: &a{n} [*a{}]\n", n - 1));
    }
    assert!(self::errors(&text)[0].contains("nested deeper"), "each alias nests one level deeper");
}

#[test]
fn a_site_is_located_by_line_and_column() {
    let text = "routes:\n  - id: a\n    when: 'x == ''y'' && z'\n    long: |\n      first ${1}\n      second ${2}\n    q: \"a\\\"b ${c}\"\n";
    let source = source(text);
    let item = Site::file("f.yaml").key("routes").index(0);
    let at = |site: &Site, offset| {
        let position = source.locate(site, offset);
        (position.line, position.column, source.text[position.span].to_owned())
    };
    assert_eq!(at(&item, None), (2, 5, "id".into()));
    assert_eq!(at(&item.key("id"), None), (2, 9, "a".into()));
    assert_eq!(at(&item.key("id").at_key(), None), (2, 5, "id".into()));
    assert_eq!(at(&item.key("absent"), None), (2, 5, "id".into()));
    assert_eq!(at(&Site::file("f.yaml").key("routes").key("x"), None), (1, 1, "routes".into()));
    assert_eq!(at(&item.key("when"), Some(5)), (3, 17, "'".into()));
    assert_eq!(at(&item.key("when"), Some(6)), (3, 19, "y".into()));
    assert_eq!(at(&item.key("long"), Some(19)), (6, 15, "{".into()));
    assert_eq!(at(&item.key("q"), Some(4)), (7, 14, "$".into()));
}

#[test]
fn the_schema_check_names_every_unknown_key_and_wrong_type() {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["id"],
        "properties": {
            "id": { "type": "string" },
            "percent": { "anyOf": [{ "type": "number" }, { "$ref": "#/$defs/Shares" }, { "type": "null" }] },
            "state": { "$ref": "#/$defs/State" },
            "tags": { "type": "array", "items": { "type": "string" } },
            "n": { "type": "integer", "minimum": 0 },
        },
        "$defs": {
            "State": { "oneOf": [{ "type": "string", "const": "off" }, { "type": "string", "const": "shadow" }] },
            "Shares": { "type": "object", "additionalProperties": false, "properties": { "dark": { "type": "number" } } },
        },
    });
    let text = "percnt: 5\npercent: { drak: 3 }\nstate: shaddow\ntags: [a, 1, {}]\nn: -1\nxyz: 1\n";
    let source = source(text);
    let result = schema_check::check(source.root.as_ref().expect("tree"), &schema, &Site::file("f.yaml"));
    let problems = result.problems;
    let lines: Vec<String> = problems
        .iter()
        .map(|p| {
            let position = source.locate(&p.site, p.offset);
            format!("{}:{}: {} ({})", position.line, position.column, p.message, p.hint.as_deref().unwrap_or(""))
        })
        .collect();
    assert_eq!(
        lines,
        [
            "1:1: unknown key `percnt` (known here: `id`, `percent`, `state`, `tags`, `n`)",
            "2:12: unknown key `drak` (did you mean `dark`?)",
            "3:8: unknown value `shaddow` (did you mean `shadow`?)",
            "4:11: expected text, found the number 1 (put it in quotes)",
            "4:14: expected text, found a map ()",
            "5:4: expected a number from 0 on, found -1 ()",
            "6:1: unknown key `xyz` (known here: `id`, `percent`, `state`, `tags`, `n`)",
            "1:1: the key `id` is missing ()",
        ]
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let text = String::from_utf8_lossy(&bytes);
        let (source, errors) = parse(&Arc::from("f.yaml"), &text);
        for error in errors {
            let position = source.position(error.span);
            prop_assert!(position.line >= 1 && position.column >= 1);
        }
    }

    #[test]
    fn no_yaml_like_text_makes_the_parser_panic(text in "[-a-c:&*!|>'\"{}\\[\\],#?%@ \\n\\t0-9$.~é]{0,200}") {
        let (source, errors) = parse(&Arc::from("f.yaml"), &text);
        if let Some(root) = &source.root {
            let _ = root.to_value();
        } else {
            prop_assert!(!errors.is_empty());
        }
        for error in errors {
            let _ = &source.text[source.position(error.span).span];
        }
        for offset in 0..5 {
            let site = Site::file("f.yaml").key("a");
            let _ = &source.text[source.locate(&site, Some(offset)).span];
        }
    }
}

#[test]
fn retention_is_one_age_for_all_or_for_ever_or_left_to_the_store() {
    let read = |text: &str| {
        let set = set::Set::valid().edit("pointsman.yaml", "store: memory", &format!("store: memory\n{text}"));
        set.read().expect("a valid set").setup.settings.retention
    };
    let (day, week) = (std::time::Duration::from_secs(86_400), std::time::Duration::from_secs(7 * 86_400));
    let all = crate::config::Retention::all;
    assert_eq!(read(""), None);
    assert_eq!(read("retention: forever"), Some(all(None)));
    assert_eq!(read("retention: 7d"), Some(all(Some(week))));
    let some = crate::config::Retention { completed: Some(day), ..all(None) };
    assert_eq!(read("retention: { completed: 24h, failed: forever }"), Some(some));
}
