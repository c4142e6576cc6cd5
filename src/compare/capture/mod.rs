//! A pair that is kept whole, so that it can be rehearsed again without the services.
//!
//! The question it answers: "what would a changed workflow make of what happened here?" `make` keeps the request,
//! legacy's reply, what the reads of the run asked and were answered, the run's intents and legacy's calls; `redactor`
//! takes everything secret out of them; `record` is the form in which they are stored and exported, and gives back what
//! a rehearsal needs; `reads` answers the reads of a rehearsal.
//!
//! Always true: nothing secret is in a capture. A secret value is replaced by a keyed hash, so that equal values stay
//! equal over the request, the reply, reads and calls.
//!
//! The caller says which pairs are captured, stores captures and bounds how many there are.

mod har;
mod make;
mod reads;
mod record;
mod redactor;

#[cfg(test)]
mod tests;

pub use har::{HarError, RouteOf, pairs_of_har};
pub use make::{CaptureContext, CapturedPair, InstanceOfPair, NotCaptured, capture};
pub use reads::{AnsweredRead, CapturedReads};
pub use record::{
    CAPTURE_VERSION, Capture, CapturedBody, CapturedCall, CapturedReply, CapturedRequest, UnreadableCapture,
};
