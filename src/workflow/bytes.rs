//! Bytes that are neither JSON nor text, represented as a JSON value that expressions can pass on.
//!
//! Always true: such a value is recognised by its mark, a hash of the bytes and their type that is keyed with a secret
//! of the store. Nobody outside can make a mark, so a JSON body that only looks like such a value (`{"$bytes": …}`),
//! from a caller or from a service, stays JSON wherever it is passed on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Payload, Run, World};

/// The member that holds the bytes: `{"$bytes": base64, "content_type": …, "$mark": …}`.
const BYTES: &str = "$bytes";
const CONTENT_TYPE: &str = "content_type";
const MARK: &str = "$mark";
/// Hexadecimal digits of a mark: 128 bits.
const MARK_DIGITS: usize = 32;

/// Makes values that represent bytes, and tells them from JSON that only looks like them.
#[derive(Clone, Copy)]
pub struct BytesMark {
    key: [u8; 32],
    /// Values without a mark are accepted too. Only for runs that began under a version that wrote none.
    accepts_unmarked: bool,
}

impl BytesMark {
    /// Marks that are keyed with this secret of the store.
    pub fn new(key_secret: &[u8; 32]) -> Self {
        let key = *blake3::keyed_hash(key_secret, b"bytes that expressions pass on").as_bytes();
        Self { key, accepts_unmarked: false }
    }
    /// For the values of one run: where the run began before marks existed, values without one are accepted.
    pub(super) fn of_run(world: &World, run: &Run) -> Self {
        Self { accepts_unmarked: !run.started.bytes_marked, ..Self::new(&world.key_secret) }
    }
    /// Represents bytes as a value.
    pub fn value(&self, bytes: &[u8], content_type: Option<&str>) -> Value {
        let text = STANDARD.encode(bytes);
        let mark = self.mark(&text, content_type);
        json!({ BYTES: text, CONTENT_TYPE: content_type, MARK: mark })
    }
    /// The bytes and content type that a value represents; `None` for any other value.
    pub(super) fn bytes(&self, value: &Value) -> Option<(Payload, Option<String>)> {
        let members = value.as_object()?;
        let text = members.get(BYTES)?.as_str()?;
        let content_type = members.get(CONTENT_TYPE).and_then(Value::as_str);
        let marked = match members.get(MARK) {
            Some(mark) => mark.as_str() == Some(self.mark(text, content_type).as_str()),
            None => self.accepts_unmarked,
        };
        let payload = || Payload::of(&Payload::Base64(text.to_owned()).bytes());
        marked.then(|| (payload(), content_type.map(str::to_owned)))
    }
    fn mark(&self, text: &str, content_type: Option<&str>) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(text.as_bytes()).update(b"\n").update(content_type.unwrap_or_default().as_bytes());
        hasher.finalize().to_hex().as_str().chars().take(MARK_DIGITS).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_with_a_valid_mark_are_bytes() {
        let mark = BytesMark::new(&[7; 32]);
        let value = mark.value(&[0, 159, 146], Some("image/png"));
        let (payload, content_type) = mark.bytes(&value).unwrap();
        assert_eq!((payload.bytes(), content_type.as_deref()), (vec![0, 159, 146], Some("image/png")));
        let mut unmarked = value.clone();
        unmarked.as_object_mut().unwrap().remove(MARK);
        let mut forged = value.clone();
        forged[MARK] = json!("0123456789abcdef0123456789abcdef");
        let mut other = value.clone();
        other[CONTENT_TYPE] = json!("text/html");
        for value in [&unmarked, &forged, &other, &json!("text"), &json!({})] {
            assert_eq!(mark.bytes(value), None, "{value}");
        }
        assert_eq!(BytesMark::new(&[8; 32]).bytes(&value), None, "another store's");
        let earlier = BytesMark { accepts_unmarked: true, ..mark };
        assert!(earlier.bytes(&unmarked).is_some() && earlier.bytes(&value).is_some());
        assert_eq!(earlier.bytes(&forged), None);
    }
}
