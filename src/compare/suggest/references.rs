//! Finds values in which legacy names an id of its own reply, and the engine does not: such a value is no id that each
//! arm draws by itself.

use serde_json::Value;

use super::noise::Values;

/// The fewest characters of an id that is looked for: shorter texts stand in others by chance.
const ID_CHARS_MIN: usize = 3;

/// The path of an id that legacy's value names and the engine's does not: in every sample, legacy's value contains what
/// legacy's reply has at the path, and the engine's value does not contain what the engine's reply has there.
pub(super) fn lost_reference(values: &[Values<'_>]) -> Option<String> {
    let mut candidates: Option<Vec<String>> = None;
    for value in values {
        let [of_legacy, of_engine] = value.sample.documents.as_ref()?;
        let mut found = Vec::new();
        let mut path = String::from("$");
        let texts = (text(&value.legacy)?, text(&value.engine)?);
        collect(&mut path, of_legacy, of_engine, (&texts.0, &texts.1), &mut found);
        candidates = Some(match candidates {
            None => found,
            Some(before) => before.into_iter().filter(|path| found.contains(path)).collect(),
        });
        if candidates.as_ref().is_some_and(Vec::is_empty) {
            return None;
        }
    }
    candidates?.into_iter().next()
}

/// Collects the paths at which two replies have different ids, if legacy's value contains legacy's id there and the
/// engine's value does not contain the engine's. `values`: the two values.
fn collect(path: &mut String, legacy: &Value, engine: &Value, values: (&str, &str), found: &mut Vec<String>) {
    match (legacy, engine) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, (of_legacy, of_engine)) in a.iter().filter_map(|(key, value)| Some((key, (value, b.get(key)?)))) {
                let end = path.len();
                path.push('.');
                path.push_str(key);
                collect(path, of_legacy, of_engine, values, found);
                path.truncate(end);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for (n, (of_legacy, of_engine)) in a.iter().zip(b).enumerate() {
                let end = path.len();
                path.push_str(&format!("[{n}]"));
                collect(path, of_legacy, of_engine, values, found);
                path.truncate(end);
            }
        }
        _ => {
            let (Some(a), Some(b)) = (text(legacy), text(engine)) else { return };
            // The value itself, where it stands in the reply, is no reference to itself.
            let is_value = a == values.0 && b == values.1;
            let is_id = a.len() >= ID_CHARS_MIN && a.bytes().any(|byte| byte.is_ascii_digit());
            if is_id && a != b && !is_value && contains_word(values.0, &a) && !contains_word(values.1, &b) {
                found.push(path.clone());
            }
        }
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether a text contains a word: what stands before and after it is no letter or digit.
fn contains_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        [before, after].into_iter().flatten().all(|letter| !letter.is_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(legacy: &Value, engine: &Value, values: (&str, &str)) -> Vec<String> {
        let (mut path, mut found) = (String::from("$"), Vec::new());
        collect(&mut path, legacy, engine, values, &mut found);
        found
    }

    #[test]
    fn a_value_that_names_another_id_than_that_of_its_reply_is_found() {
        let (legacy, engine) = (json!({ "order": [{ "id": 4081 }] }), json!({ "order": [{ "id": "a-77" }] }));
        assert_eq!(found(&legacy, &engine, ("ORD-4081", "ORD-x9")), ["$.order[0].id"]);
        assert!(found(&legacy, &engine, ("ORD-4081", "ORD-a-77")).is_empty(), "its own");
        assert!(found(&legacy, &engine, ("ORD-14081", "ORD-x9")).is_empty(), "no word");
        assert!(found(&legacy, &engine, ("4081", "a-77")).is_empty(), "the value itself");
        assert!(found(&json!({ "n": 12 }), &json!({ "n": 13 }), ("T-12", "T-9")).is_empty(), "too short");
        assert!(found(&json!({ "n": 1200 }), &json!({ "n": 1200 }), ("T-1200", "T-9")).is_empty(), "the same id");
    }
}
