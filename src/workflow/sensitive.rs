//! Which values of a run are never stored or shown in clear: those that its plan declares under `sensitive:`, and those
//! that are made from them.
//!
//! A value is found to be sensitive in two ways. *By value*: once a declared value is known, every later occurrence of
//! it is sensitive, for example the same token in the header of another step's call, in a body or in a URL. *By
//! origin*: the plan tells which expressions read something sensitive ([`Taint`]); their results are sensitive as a
//! whole, whatever they look like. So are values that are computed from these results, that people enter in their
//! place, or that another run gets from this one.
//!
//! Always true: the result is a function of the plan and the run's events ([`SensitiveSources`], [`Knowledge`]), so
//! whoever reads the events finds the same places and the same values. The engine seals them.

mod answers;
mod collect;
mod collector;
mod declared;
mod handed_over;
mod knowledge;
mod known;
mod parts;
mod path;
mod propagation;
mod quotes;
mod shown;
mod sources;
mod stored;
mod taint;
#[cfg(test)]
mod tests;
mod texts;

pub(super) use answers::{AnswerPlace, persons_answer_with_sensitive_parts, result_paths, with_sensitive_parts};
pub use answers::{FirstValues, child_paths, legacy_paths, quotes_in_first_event};
pub(super) use collector::CollectorOfRun;
pub use declared::Sensitive;
pub(super) use handed_over::HandedOver;
pub use knowledge::{Knowledge, event_content};
pub use known::KnownValues;
#[cfg(test)]
pub use parts::parts;
pub use parts::{SensitiveForm, SensitivePart};
pub use path::SensitivePath;
pub use shown::Redaction;
pub(super) use shown::answer_for_others;
pub use sources::SensitiveSources;
pub(super) use stored::reads_sealed;
pub use taint::Taint;
pub use texts::ShownTexts;
