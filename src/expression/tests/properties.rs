//! Properties that hold for any text and any value.

use proptest::prelude::*;

use super::templates::url;
use super::*;

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in ".{0,60}") {
        drop(Expression::parse(&text).map(|e| e.evaluate(&scope())));
        drop(Template::parse_str(&text).map(|t| t.evaluate(&scope())));
        drop(UrlTemplate::parse(&text).map(|t| t.evaluate(&scope())));
    }

    #[test]
    fn any_sequence_of_tokens_is_parsed_or_refused(tokens in prop::collection::vec(prop::sample::select(vec![
        "a", "request", ".", "body", "n", "[", "]", "(", ")", "{", "}", "1", "2.5", "'s'", "+", "-", "*", "/", "%", "?", ":",
        "!", "==", "<", "in", "&&", "||", ",", ".map(x,", ".filter(", "has(", "size(", "default(", "x", "true", "null", "`", "\"", "\\", "$", "${",
    ]), 0..30)) {
        let text = tokens.concat();
        drop(Expression::parse(&text).map(|e| e.evaluate(&scope())));
        drop(Template::parse_str(&format!("${{{text}}}")).map(|t| t.evaluate(&scope())));
    }

    #[test]
    fn text_without_expressions_is_kept(text in "[^$]{0,40}(\\$[^${]{0,5}){0,3}") {
        let template = Template::parse_str(&text).unwrap();
        prop_assert_eq!(template.as_constant(), Some(&Value::String(text)));
    }

    #[test]
    fn escaped_text_is_kept(text in "[a-z${} ]{0,30}") {
        let escaped = text.replace("${", "$${");
        // A `$` directly before an escape would become part of it.
        prop_assume!(!text.contains("$${"));
        prop_assert_eq!(Template::parse_str(&escaped).unwrap().evaluate(&Scope::new()).unwrap(), Value::String(text));
    }

    #[test]
    fn mixed_arithmetic_equals_arithmetic_on_doubles(a in -1_000_000i64..1_000_000, b in -1.0e6f64..1.0e6) {
        let mut scope = Scope::new();
        scope.set("a", Arc::new(json!(a))).set("b", Arc::new(json!(b)));
        for (sign, expected) in [("+", a as f64 + b), ("-", a as f64 - b), ("*", a as f64 * b)] {
            let value = Expression::parse(&format!("a {sign} b")).unwrap().evaluate(&scope).unwrap();
            prop_assert_eq!(value.as_f64(), Some(expected));
        }
        let compared = Expression::parse("a < b").unwrap().holds(&scope).unwrap();
        prop_assert_eq!(compared, (a as f64) < b);
    }

    #[test]
    fn rounding_is_close_and_has_no_more_digits_than_asked(x in -1.0e9f64..1.0e9, digits in 0usize..6) {
        let mut scope = Scope::new();
        scope.set("x", Arc::new(json!(x)));
        let rounded = Expression::parse(&format!("round(x, {digits})")).unwrap().evaluate(&scope).unwrap();
        let rounded = rounded.as_f64().unwrap();
        prop_assert!((rounded - x).abs() <= 0.5 * 10f64.powi(-(digits as i32)) * 1.000001 + 1e-6);
        let fraction = format!("{rounded}");
        prop_assert!(fraction.split_once('.').is_none_or(|(_, f)| f.len() <= digits));
    }

    #[test]
    fn a_value_never_changes_the_structure_of_a_url(value in ".{0,20}") {
        if let Ok(evaluated) = url("${services.s}/a/${v}/b?q=${v}", json!(value)) {
            let (path, query) = evaluated.split_once('?').unwrap();
            prop_assert_eq!(path.matches('/').count(), 3);
            prop_assert!(!evaluated.contains('#') && !query.contains(['&', '/', '?', '+', ' ']));
            let segment = path.split('/').nth(2).unwrap();
            prop_assert!(segment != ".." && segment != "." && !segment.is_empty());
            let decoded = percent_encoding::percent_decode_str(segment).decode_utf8().unwrap();
            prop_assert_eq!(decoded, value);
        }
    }
}
