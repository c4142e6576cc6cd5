//! A document that is read as a tree is the one that the general parser gives, and a walk over it finds for a path what
//! the search for the path finds. Texts and paths are generated, with everything that JSON and JSONPath allow in them.

use proptest::prelude::*;
use serde_json::Value;

use super::bounds::CompareBounds;
use super::covering::CoveringRule;
use super::json_reader;
use super::json_tree::{JsonTree, TreeNode, TreeValue};
use super::parsed_body::general_json;
use super::path_matcher::{CoveredTree, PathMatcher};
use super::rule_path::RulePath;
use super::tests::BOUNDS;

/// Names as JSON writes them. Some are the same name.
const NAMES: [&str; 12] =
    ["a", "b", "id", r"\u0069d", "", "é", r"\u00e9", "x y", r#"it's \"a\""#, r"\u0000", r"\ud83d\ude00", "a.b"];
/// Numbers, whole and not, of any size, and some that are none.
const NUMBERS: [&str; 16] = [
    "0",
    "-0",
    "7",
    "1.10",
    "1.1",
    "-0.0",
    "1e2",
    "1E+2",
    "10.5e-2",
    "1e999999999999",
    "123456789012345678901234567890",
    "01",
    "1.",
    "-",
    "+1",
    "1e",
];

fn string() -> impl Strategy<Value = String> {
    let escape = r#"\\["\\/bfnrt]|\\u[dD][89aAbB][0-9]{2}\\u[dD][c-fC-F][0-9]{2}|\\u00[0-9a-fA-F]{2}"#;
    let valid = prop::string::string_regex(&format!("\"([a-z é/😀]|{escape}){{0,8}}\"")).expect("a pattern");
    prop_oneof![
        12 => valid,
        1 => prop::sample::select(vec![r#""\ud800""#, r#""\x""#, "\"\t\"", r#""\u12""#]).prop_map(str::to_owned),
    ]
}

/// Joins parts with white space between them.
fn joined(parts: Vec<String>, [open, close]: [&str; 2], space: &str) -> String {
    format!("{open}{space}{}{space}{close}", parts.join(&format!("{space},{space}")))
}

/// Texts of JSON documents, few of which are invalid, repeat a key or are nested too deeply.
fn any_text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec!["null", "true", "false", "[]", "{}"]).prop_map(str::to_owned);
    let number = (0..200usize).prop_map(|n| NUMBERS[if n < 5 { 11 + n } else { n % 11 }].to_owned());
    let leaf = prop_oneof![word, number, string()];
    let text = leaf.prop_recursive(5, 48, 6, |inner| {
        let space = || prop::sample::select(vec!["", "", "", " ", "\r\n\t"]);
        let few = (prop::collection::vec((prop::sample::select(NAMES.to_vec()), inner.clone()), 0..4), space());
        let few = few.prop_map(|(members, space)| {
            let members =
                members.into_iter().map(|(name, value)| format!("\"{name}\"{space}:{space}{value}")).collect();
            joined(members, ["{", "}"], space)
        });
        // About as many members as those of an object that is searched by its sorted keys; few have the same key.
        let many = (14..19usize, 0..60usize, inner.clone(), space()).prop_map(|(count, same, value, space)| {
            let key = |n: usize| if n == same { 0 } else { n * 7 % 23 };
            joined((0..count).map(|n| format!("\"k{}\":{value}", key(n))).collect(), ["{", "}"], space)
        });
        let array = (prop::collection::vec(inner, 0..4), space());
        let array = array.prop_map(|(items, space)| joined(items, ["[", "]"], space));
        prop_oneof![5 => few, 1 => many, 4 => array]
    });
    let deep = prop_oneof![20 => Just(0), 1 => 115..130usize];
    (text, deep).prop_map(|(text, deep)| format!("{}{text}{}", "[".repeat(deep), "]".repeat(deep)))
}

/// Checks that each member of each object is found by its key, and that no other is.
fn assert_members_are_found(node: TreeNode<'_>) {
    match node.value() {
        TreeValue::Object(members) => {
            for (key, value) in members.iter() {
                assert_eq!(members.get(key).map(|(_, found)| found.index()), Some(value.index()), "{key:?}");
                assert_members_are_found(value);
            }
            ["k", "k99", "none", "\u{10ffff}"].iter().for_each(|key| assert!(members.get(key).is_none()));
        }
        TreeValue::Array(items) => items.iter().for_each(|(_, item)| assert_members_are_found(item)),
        TreeValue::Null | TreeValue::Bool(_) | TreeValue::Number(_) | TreeValue::String(_) => {}
    }
}

/// One part of a path, and whether it is a name or a wildcard, plainly written.
fn path_part() -> impl Strategy<Value = (String, bool)> {
    let plain = vec![
        ".a",
        ".b",
        ".id",
        ".é",
        ".*",
        "[*]",
        "..a",
        "..id",
        "..*",
        "..[*]",
        "..['b']",
        "['a']",
        "['x y']",
        "['']",
        "[\"it's \\\"\"]",
        "['a.b']",
        "[\"é\"]",
        "..['']",
    ];
    let others = vec![
        "[0]",
        "[-1]",
        "[1:3]",
        "[::-1]",
        "['a','b']",
        "[*,0]",
        "[?@.b==1].a",
        "[?@.a]",
        "..[?@>1]",
        "['i\\u0064']",
        "[ 'a' ]",
        "..[0,'id']",
    ];
    prop_oneof![
        8 => prop::sample::select(plain).prop_map(|part| (part.to_owned(), !part.contains('\\'))),
        1 => prop::sample::select(others).prop_map(|part| (part.to_owned(), false)),
    ]
}

/// A path, and whether a walk finds what it names.
fn any_path() -> impl Strategy<Value = (String, bool)> {
    prop::collection::vec(path_part(), 0..5).prop_map(|parts| {
        let is_plain = parts.iter().all(|(_, is_plain)| *is_plain);
        (parts.into_iter().fold("$".to_owned(), |path, (part, _)| path + &part), is_plain)
    })
}

/// The values of a document in the order in which a tree lists them.
fn listed<'v>(value: &'v Value, list: &mut Vec<&'v Value>) {
    list.push(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| listed(item, list)),
        Value::Object(members) => members.values().for_each(|value| listed(value, list)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// For each value of a tree: the rule that covers it.
fn found(covered: &CoveredTree, node: TreeNode<'_>, list: &mut Vec<Option<usize>>) {
    assert_eq!(node.index(), list.len());
    list.push(covered.on(node).and_then(|rules| rules.ignore));
    match node.value() {
        TreeValue::Array(children) | TreeValue::Object(children) => {
            children.iter().for_each(|(_, child)| found(covered, child, list));
        }
        TreeValue::Null | TreeValue::Bool(_) | TreeValue::Number(_) | TreeValue::String(_) => {}
    }
}

fn tree_of(text: &str) -> Option<JsonTree> {
    json_reader::read(text.as_bytes(), 127)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_tree_reader_gives_the_same_value_as_the_general_parser_or_refuses_the_same_text(
        text in any_text(), depth in prop::sample::select(vec![127, 127, 126, 4]),
    ) {
        let tree = json_reader::read(text.as_bytes(), depth);
        // A tree repeats no key; everything else that the general parser reads is read.
        let general = general_json(text.as_bytes(), &CompareBounds { depth, ..BOUNDS }).ok().flatten();
        let general = general.filter(|(_, repeated)| repeated.is_empty()).map(|(value, _)| value.to_string());
        prop_assert_eq!(tree.as_ref().map(|tree| tree.root().to_value().to_string()), general, "{}", text);
        if let Some(tree) = &tree {
            assert_members_are_found(tree.root());
        }
    }

    #[test]
    fn a_walk_finds_for_each_path_what_its_search_finds(
        text in any_text(), paths in prop::collection::vec(any_path(), 1..8), off in 0..8usize,
    ) {
        let Some(tree) = tree_of(&text) else { return Ok(()) };
        let value: Value = serde_json::from_str(&text).unwrap();
        let mut rules = Vec::new();
        for (text, is_plain) in paths {
            let Ok(path) = RulePath::parse(&text) else { continue };
            prop_assert_eq!(path.steps().is_some(), is_plain, "{}", text);
            rules.extend(is_plain.then_some(path));
        }
        let matcher = PathMatcher::of(rules.iter().enumerate().map(|(n, path)| (path, n, CoveringRule::Ignore(n))));
        prop_assert!(!matcher.is_partial());

        let mut walked = Vec::new();
        found(&matcher.covered(&tree, |rule| rule != off), tree.root(), &mut walked);
        let mut searched = Vec::new();
        listed(&value, &mut searched);
        let nodes: Vec<Vec<&Value>> = rules.iter().map(|path| path.search.query(&value).all()).collect();
        let covers = |n: usize, value: &Value| n != off && nodes[n].iter().any(|node| std::ptr::eq(*node, value));
        let searched: Vec<_> = searched.iter().map(|value| (0..nodes.len()).find(|n| covers(*n, value))).collect();
        prop_assert_eq!(walked, searched, "{}", text);
    }
}
