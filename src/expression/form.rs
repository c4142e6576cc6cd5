//! A query or a form as expressions see it: the one reading that routes, workflows and comparisons share.

use serde_json::{Map, Value};

/// `a=1&b=2` as a map of text; a name that comes again has a list, and `+` is a space, as forms write it.
pub fn pairs(raw: &str) -> Value {
    let mut map = Map::new();
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name), Value::from(decoded(value)));
        match map.get_mut(&name) {
            None => {
                map.insert(name, value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(map)
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_that_come_again_are_lists() {
        assert_eq!(pairs("a=1&b=x+y%21&a=2&&c&a=3"), json!({ "a": ["1", "2", "3"], "b": "x y!", "c": "" }));
        assert_eq!(pairs(""), json!({}));
    }
}
