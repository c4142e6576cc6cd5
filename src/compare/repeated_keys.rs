//! Finds the keys that an object of a JSON text has more than once.
//!
//! The parser keeps only the last value of each key, as most readers do; some keep the first one, and some refuse the
//! text. So a text in which only one arm repeats a key differs, although the parsed values may be equal.
//!
//! Always true: a text without a repeated key costs at most one count of its members and no second parse; what is kept
//! of the others grows no faster than the text.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::fast_hash::ByAddress;
use super::node::Node;
use crate::expression::{is_reserved_key, without_byte_order_mark};

/// A parsed body with the keys that its text repeats.
#[derive(Clone, Copy)]
pub(super) struct Document<'v> {
    pub(super) root: Node<'v>,
    /// Empty if `root` is a `Node::Tree`.
    pub(super) repeated: &'v [RepeatedKey],
}

/// A key that an object has more than once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RepeatedKey {
    /// Where the object is.
    object: Vec<DocumentPathPart>,
    key: String,
    /// The values before the last one, in their order.
    earlier: Vec<Value>,
}

/// One step from a value to a value within it.
#[derive(Clone, Debug, PartialEq)]
enum DocumentPathPart {
    Key(String),
    Element(usize),
}

impl RepeatedKey {
    /// The same key, if the document is the element with this index of an array of documents.
    pub(super) fn in_element(mut self, index: usize) -> Self {
        self.object.insert(0, DocumentPathPart::Element(index));
        self
    }
}

/// The repeated keys of each object, by the object's address in memory: the documents must not be moved or changed
/// while this is in use.
#[derive(Default)]
pub(super) struct RepeatedByNode {
    by_object: ByAddress<Value, BTreeMap<String, Vec<EarlierValue>>>,
    /// Copies of documents with an earlier value in place of the last one: there the paths of rules lead into it.
    variants: Vec<Variant>,
    /// The values in all of these.
    variant_values: usize,
}

/// A document with an earlier value of a repeated key.
struct Variant {
    document: Value,
    object: Vec<DocumentPathPart>,
    key: String,
}

/// An earlier value of a repeated key.
enum EarlierValue {
    /// The value is in the variant with this index.
    InVariant(usize),
    /// The value is in no variant, so that no rule covers what is in it.
    Alone(Value),
}

/// The most variants of the documents of a comparison. The earlier values beyond are compared without rules for what is
/// in them.
const VARIANTS_MAX: usize = 16;

/// The most values in all variants of a comparison: each is a copy of a whole document, at up to 100 bytes a value.
const VARIANT_VALUES_MAX: usize = 200_000;

impl RepeatedByNode {
    /// Adds the repeated keys of a document.
    pub(super) fn add(&mut self, document: &Value, repeated: &[RepeatedKey]) {
        let values_in_document = if repeated.is_empty() { 0 } else { values_in(document) };
        for RepeatedKey { object, key, earlier } in repeated {
            let (mut node, mut is_replaced) = (document, false);
            for place in object {
                // An object that a later value of a repeated key replaced: the key counts for the object around it.
                let Some(inner) = place.within(node) else {
                    is_replaced = true;
                    break;
                };
                node = inner;
            }
            let mut values = Vec::with_capacity(earlier.len());
            for value in earlier {
                let is_small = self.variant_values + values_in_document <= VARIANT_VALUES_MAX;
                let may_have_variant = !is_replaced && is_small && self.variants.len() < VARIANTS_MAX;
                let variant = may_have_variant.then(|| Variant::of(document, object, key, value)).flatten();
                values.push(match variant {
                    Some(variant) => {
                        self.variant_values += values_in_document;
                        self.variants.push(variant);
                        EarlierValue::InVariant(self.variants.len() - 1)
                    }
                    None => EarlierValue::Alone(value.clone()),
                });
            }
            let keys = self.by_object.entry(std::ptr::from_ref(node)).or_default();
            keys.entry(key.clone()).or_default().extend(values);
        }
    }
    /// Whether no document repeats a key.
    pub(super) fn is_empty(&self) -> bool {
        self.by_object.is_empty()
    }
    /// The documents with earlier values.
    pub(super) fn variants(&self) -> impl Iterator<Item = &Value> {
        self.variants.iter().map(|variant| &variant.document)
    }
    /// The keys that this object has more than once.
    pub(super) fn keys_of(&self, object: Node<'_>) -> impl Iterator<Item = &String> {
        let keys = match object {
            Node::Value(object) if !self.by_object.is_empty() => self.by_object.get(&std::ptr::from_ref(object)),
            Node::Value(_) | Node::Tree(_) => None,
        };
        keys.into_iter().flat_map(BTreeMap::keys)
    }
    /// The earlier values of a key of this object, in their order.
    pub(super) fn earlier(&self, object: Node<'_>, key: &str) -> Vec<&Value> {
        let Node::Value(object) = object else { return Vec::new() };
        if self.by_object.is_empty() {
            return Vec::new();
        }
        let values = self.by_object.get(&std::ptr::from_ref(object)).and_then(|keys| keys.get(key));
        let value = |value| match value {
            &EarlierValue::InVariant(n) => self.variants.get(n)?.earlier(),
            EarlierValue::Alone(value) => Some(value),
        };
        values.into_iter().flatten().filter_map(value).collect()
    }
}

impl Variant {
    fn of(document: &Value, object: &[DocumentPathPart], key: &str, earlier: &Value) -> Option<Self> {
        let mut document = document.clone();
        let mut node = &mut document;
        for place in object {
            node = match place {
                DocumentPathPart::Key(key) => node.get_mut(key),
                DocumentPathPart::Element(index) => node.get_mut(index),
            }?;
        }
        *node.get_mut(key)? = earlier.clone();
        Some(Self { document, object: object.to_vec(), key: key.to_owned() })
    }

    /// The earlier value in the document.
    fn earlier(&self) -> Option<&Value> {
        let object = self.object.iter().try_fold(&self.document, |node, place| place.within(node))?;
        object.get(&self.key)
    }
}

impl DocumentPathPart {
    fn within<'v>(&self, node: &'v Value) -> Option<&'v Value> {
        match self {
            DocumentPathPart::Key(key) => node.get(key),
            DocumentPathPart::Element(index) => node.get(index),
        }
    }
}

/// The keys that objects of a JSON text have more than once. `members` is the number of members in the text, `parsed`
/// its value.
pub(super) fn repeated_keys(text: &[u8], members: usize, parsed: &Value) -> Vec<RepeatedKey> {
    if members == members_of(parsed) {
        return Vec::new();
    }
    let (mut place, mut found) = (Vec::new(), Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(without_byte_order_mark(text));
    // The text has been parsed before, so there is no error.
    let _ = Noting { place: &mut place, found: &mut found }.deserialize(&mut deserializer);
    found
}

/// The number of members of all objects in a value.
fn members_of(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.len() + map.values().map(members_of).sum::<usize>(),
        Value::Array(items) => items.iter().map(members_of).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// The number of values in a value, itself included.
fn values_in(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(values_in).sum::<usize>(),
        Value::Array(items) => 1 + items.iter().map(values_in).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

/// Parses a value and notes the repeated keys in it.
struct Noting<'n> {
    place: &'n mut Vec<DocumentPathPart>,
    found: &'n mut Vec<RepeatedKey>,
}

impl Noting<'_> {
    fn at(&mut self, place: DocumentPathPart) -> Noting<'_> {
        self.place.push(place);
        Noting { place: self.place, found: self.found }
    }
}

impl<'de> DeserializeSeed<'de> for Noting<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Noting<'_> {
    type Value = Value;
    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self.at(DocumentPathPart::Element(values.len())))? {
            self.place.pop();
            values.push(value);
        }
        self.place.pop();
        Ok(Value::Array(values))
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut earlier: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        while let Some(key) = members.next_key::<String>()? {
            if is_reserved_key(&key) {
                // A number: the parser hands it over as a map with one member, whose value is its text.
                let number: String = members.next_value()?;
                return number.parse::<Number>().map(Value::Number).map_err(A::Error::custom);
            }
            let value = members.next_value_seed(self.at(DocumentPathPart::Key(key.clone())))?;
            self.place.pop();
            if let Some(replaced) = map.insert(key.clone(), value) {
                earlier.entry(key).or_default().push(replaced);
            }
        }
        for (key, earlier) in earlier {
            self.found.push(RepeatedKey { object: self.place.clone(), key, earlier });
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::compare::parsed_body::bounded_json;
    use crate::compare::tests::BOUNDS;

    fn of(text: &str) -> Vec<RepeatedKey> {
        bounded_json(text.as_bytes(), &BOUNDS).unwrap().unwrap().1
    }

    #[test]
    fn repeated_keys_are_found_at_every_depth_and_however_they_are_written() {
        assert_eq!(of(r#"{"a":{"b":1},"c":[{"b":2},{"b":"b:b"}], "d:": 1.50}"#), []);
        let found = of("\u{feff}{\"a\":[0,{\"b\":1.50,\"\\u0062\":[2],\"b\":3}],\"a:\":\"\\\":\"}");
        let object = vec![DocumentPathPart::Key("a".into()), DocumentPathPart::Element(1)];
        let earlier = vec![serde_json::from_str("1.50").unwrap(), json!([2])];
        assert_eq!(found, [RepeatedKey { object, key: "b".into(), earlier }]);
    }

    #[test]
    fn a_repeated_key_in_a_value_that_was_replaced_counts_for_the_object_around_it() {
        let text = r#"{"a":{"x":1,"x":2},"a":0}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        let mut nodes = RepeatedByNode::default();
        nodes.add(&value["a"], &[]);
        nodes.add(&value, &of(text));
        let keys: Vec<&String> = nodes.keys_of((&value["a"]).into()).chain(nodes.keys_of((&value).into())).collect();
        assert_eq!(keys, ["x", "a"]);
    }

    /// Each variant is a copy of the whole document.
    #[test]
    fn a_large_document_has_few_variants() {
        let variants = |items: usize| {
            let text = format!("{{\"all\":[0{}],{}\"k\":1}}", ",0".repeat(items), "\"k\":0,".repeat(30));
            let value: Value = serde_json::from_str(&text).unwrap();
            let mut nodes = RepeatedByNode::default();
            nodes.add(&value, &of(&text));
            assert_eq!(nodes.earlier((&value).into(), "k").len(), 30, "each is compared");
            nodes.variants().count()
        };
        assert_eq!((variants(10), variants(90_000), variants(250_000)), (VARIANTS_MAX, 2, 0));
    }

    proptest! {
        /// A text that repeats one key, anywhere, is told from the text of its value.
        #[test]
        fn no_repeat_is_missed(depth in 0usize..20, array in any::<bool>(), n in any::<i64>()) {
            let (open, close) = if array { ("[1,{\"k\":", "}]") } else { ("{\"k\":{\"a\":1,\"b\":", "}}") };
            let text = format!("{}{{\"x\":{n},\"y\":0,\"x\":{n}}}{}", open.repeat(depth), close.repeat(depth));
            let found = of(&text);
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!((&*found[0].key, &found[0].earlier), ("x", &vec![json!(n)]));
            let value: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(of(&value.to_string()), []);
        }
    }
}
