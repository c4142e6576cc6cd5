//! `uuid("name")` and `random("name")`: as good as drawn by lot, and for ever the same for one run and name.
//!
//! Always true: what is drawn is a keyed hash of the name under the key that the [`super::Scope`] carries; nothing else
//! goes in. So it needs no event to be replayed, and two steps that write the same name get the same value.

use serde_json::{Number, Value};

/// What is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Draw {
    /// A UUID, as text.
    Uuid,
    /// A number from 0 to below 1.
    Random,
}

impl Draw {
    /// As a check sees it among what is read: no name that a person could write.
    pub(super) fn read_as(self) -> &'static str {
        match self {
            Draw::Uuid => "uuid()",
            Draw::Random => "random()",
        }
    }

    pub(super) fn value(self, key: &[u8; 32], name: &str) -> Value {
        let text = format!("{}\n{name}", self.read_as());
        let hash = blake3::keyed_hash(key, text.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_bytes()[..16]);
        match self {
            Draw::Uuid => Value::String(uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()),
            Draw::Random => {
                // 53 bits: what a double holds between 0 and 1.
                let bits = u128::from_le_bytes(bytes) as u64 >> 11;
                #[allow(clippy::cast_precision_loss)] // 53 bits fit
                let drawn = bits as f64 / (1u64 << 53) as f64;
                Number::from_f64(drawn).map_or(Value::Null, Value::Number)
            }
        }
    }
}
