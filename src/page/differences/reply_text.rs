//! Stored replies and calls as texts that people read: JSON is indented, and has its members in the same order on both
//! sides, because their order has no meaning.

use serde_json::Value;

/// The longest text that is read as JSON, in bytes.
const JSON_BYTES_MAX: usize = 256 << 10;

/// A stored text: what stands in its first line (a status, or the line of a request), and the rest.
pub(in crate::page) fn first_line(text: &str) -> (&str, &str) {
    text.split_once('\n').unwrap_or((text, ""))
}

/// Two bodies as they are read side by side, and whether both are JSON.
pub(in crate::page) fn bodies(legacy: &str, engine: &str) -> (String, String, bool) {
    match (json(legacy), json(engine)) {
        (Some(one), Some(other)) => {
            let other = in_order_of(&one, &other);
            (indented(&one, legacy), indented(&other, engine), true)
        }
        _ => (legacy.to_owned(), engine.to_owned(), false),
    }
}

/// One body as it is read.
pub(in crate::page) fn body(text: &str) -> String {
    json(text).map_or_else(|| text.to_owned(), |value| indented(&value, text))
}

fn json(text: &str) -> Option<Value> {
    if text.len() > JSON_BYTES_MAX {
        return None;
    }
    serde_json::from_str(text).ok()
}

fn indented(value: &Value, otherwise: &str) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| otherwise.to_owned())
}

/// A value with its members in the order of another one; those that only this one has are last.
fn in_order_of(order: &Value, value: &Value) -> Value {
    match (order, value) {
        (Value::Object(order), Value::Object(members)) => {
            let common = order.iter().filter_map(|(name, order)| {
                let value = members.get(name)?;
                Some((name.to_owned(), in_order_of(order, value)))
            });
            let others = members.iter().filter(|(name, _)| !order.contains_key(*name));
            Value::Object(common.chain(others.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect())
        }
        (Value::Array(order), Value::Array(items)) => {
            // Beyond the end of the other list, the members are as in its last element.
            let ordered = |(n, item)| match order.get(n).or(order.last()) {
                Some(order) => in_order_of(order, item),
                None => item.to_owned(),
            };
            Value::Array(items.iter().enumerate().map(ordered).collect())
        }
        (_, value) => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_with_the_members_in_the_same_order() {
        let (legacy, engine, is_json) =
            bodies(r#"{"a":1.10,"b":[{"x":1,"y":2}]}"#, r#"{"c":0,"b":[{"y":2,"x":1}],"a":1.1}"#);
        assert!(is_json);
        assert!(legacy.starts_with("{\n  \"a\": 1.10,\n  \"b\": [\n    {\n      \"x\": 1,"), "{legacy}");
        assert!(engine.starts_with("{\n  \"a\": 1.1,\n  \"b\": [\n    {\n      \"x\": 1,"), "{engine}");
        assert!(engine.ends_with("\"c\": 0\n}"), "{engine}");
    }

    #[test]
    fn what_is_not_json_on_both_sides_stays_as_it_is() {
        assert_eq!(bodies("{\"a\":1}", "not JSON"), ("{\"a\":1}".into(), "not JSON".into(), false));
        let deep = "[".repeat(100_000);
        assert_eq!(body(&deep), deep, "deeply nested, and no stack is used up");
        let long = format!("\"{}\"", "x".repeat(JSON_BYTES_MAX));
        assert_eq!(body(&long), long);
        assert_eq!(first_line("201\n{}"), ("201", "{}"));
        assert_eq!(first_line("201"), ("201", ""));
    }
}
