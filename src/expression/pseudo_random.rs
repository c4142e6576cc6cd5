//! `uuid("name")` and `random("name")`: pseudo-random values that are always the same for one run and name.
//!
//! Always true: the value is a keyed hash of the name, under the key that the [`super::Scope`] carries, and depends on
//! nothing else. So no event has to record it for replay, and two steps that write the same name get the same value.

use serde_json::{Number, Value};

/// The kind of pseudo-random value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PseudoRandom {
    /// A UUID, as text.
    Uuid,
    /// A number from 0 to below 1.
    Random,
}

impl PseudoRandom {
    /// The root name by which [`super::Expression::reads`] lists it; no source text can contain it as a name.
    pub(super) fn root_name(self) -> &'static str {
        match self {
            PseudoRandom::Uuid => "uuid()",
            PseudoRandom::Random => "random()",
        }
    }

    pub(super) fn value(self, key: &[u8; 32], name: &str) -> Value {
        let text = format!("{}\n{name}", self.root_name());
        let hash = blake3::keyed_hash(key, text.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_bytes()[..16]);
        match self {
            PseudoRandom::Uuid => Value::String(uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()),
            PseudoRandom::Random => {
                // A double has 53 bits of precision.
                let bits = u128::from_le_bytes(bytes) as u64 >> 11;
                #[allow(clippy::cast_precision_loss)] // 53 bits fit
                let number = bits as f64 / (1u64 << 53) as f64;
                Number::from_f64(number).map_or(Value::Null, Value::Number)
            }
        }
    }
}
