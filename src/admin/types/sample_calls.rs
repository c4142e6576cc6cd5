//! The calls of a sample, side by side.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::compare::{CallPair, CallText, ComparedTo, shorten};
use crate::names::StepId;

/// The longest body that is shown.
const BODY_BYTES_MAX: usize = 2_048;

/// One call of a pair, of one side or of both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SampleCall {
    /// The engine's step; `null` if only legacy made the call.
    pub step: Option<StepId>,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// What the engine would have sent, or sent in `dark`.
    pub engine: Option<ShownRequest>,
    /// What legacy sent.
    pub legacy: Option<ShownRequest>,
    /// What the engine's call was held against: `legacy`, `assert` (an `assert:` reads it), `nothing`, or `unknown`
    /// where the pair cannot be compared again; `read` for a call that only legacy made and that only reads: it is not
    /// compared.
    pub held_against: String,
}

/// A call, redacted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShownRequest {
    /// Service, method and URL.
    pub request: String,
    /// The body, shortened.
    pub body: String,
}

impl From<CallPair> for SampleCall {
    fn from(CallPair { step, item, engine, legacy, compared_to }: CallPair) -> Self {
        let held_against = match compared_to {
            ComparedTo::Legacy => "legacy",
            ComparedTo::Assert => "assert",
            ComparedTo::Nothing => "nothing",
            ComparedTo::Read => "read",
            ComparedTo::Unknown => "unknown",
        };
        let shown = |CallText { request, body }: CallText| ShownRequest {
            request: shorten(&request, BODY_BYTES_MAX),
            body: shorten(&body, BODY_BYTES_MAX),
        };
        Self { step, item, engine: engine.map(shown), legacy: legacy.map(shown), held_against: held_against.to_owned() }
    }
}
