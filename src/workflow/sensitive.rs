//! What of a run is not written down in clear: what its plan declares under `sensitive:`, and all that comes of it.
//!
//! Two ways lead to it, and both count. *By value*: a declared value counts once it is known, wherever it turns up
//! afterwards: a token in the header of another step's call, in a body or in a URL is the same token. *By origin*: the
//! plan says which expressions read something sensitive ([`Taint`]); what they give is sensitive as a whole, whatever it
//! looks like, and so is what is computed of that, what people type in its place, and what another run is handed of it.
//!
//! Always true: it is a function of the plan and of what the run's events say ([`SensitiveSources`]), so whoever reads the
//! events finds the same places. How they are sealed is the business of `engine`.

mod answers;
mod collect;
mod declared;
mod known;
mod parts;
mod path;
mod shown;
mod sources;
mod spread;
mod taint;
#[cfg(test)]
mod tests;

pub use answers::child_paths;
pub(super) use answers::{AnswerPlace, marked, marked_as_given};
pub use declared::Sensitive;
pub use known::KnownValues;
pub use parts::{Form, Part as SensitivePart, parts};
pub use path::SensitivePath;
pub use shown::Redaction;
pub(super) use shown::said_to_others;
pub use sources::SensitiveSources;
pub use taint::Taint;
