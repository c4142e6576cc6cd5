//! What a run may send, and what a step does to the world.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a run may send. The mode is in the run's first event and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Only `read` steps; in memory.
    Rehearse,
    /// `read` and `private` steps; durable.
    Dark,
    /// All steps; durable.
    Real,
}

impl Mode {
    /// Its name in metrics and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Rehearse => "rehearse",
            Mode::Dark => "dark",
            Mode::Real => "real",
        }
    }
    /// Whether a run of this mode sends the calls of steps of this class; otherwise it records their intents.
    pub fn sends(self, class: EffectClass) -> bool {
        match (self, class) {
            (_, EffectClass::Read) | (Mode::Dark, EffectClass::Private) | (Mode::Real, _) => true,
            (Mode::Rehearse, EffectClass::Private | EffectClass::Shared) | (Mode::Dark, EffectClass::Shared) => false,
        }
    }
}

/// What a step does to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EffectClass {
    /// Nothing.
    Read,
    /// Writes only data that the engine's side alone owns.
    Private,
    /// Writes data that legacy also writes, or does what legacy also does (charges a card, sends a mail).
    Shared,
}

impl EffectClass {
    /// The default of a method: `read` for GET, HEAD and OPTIONS, `shared` for everything else.
    pub fn of_method(method: &http::Method) -> Self {
        match *method {
            http::Method::GET | http::Method::HEAD | http::Method::OPTIONS => EffectClass::Read,
            _ => EffectClass::Shared,
        }
    }
    /// Its name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            EffectClass::Read => "read",
            EffectClass::Private => "private",
            EffectClass::Shared => "shared",
        }
    }
}
