//! Pictures of what the API shows, for people.
//!
//! The question it answers: "how does a run stand, at one look?" Always true: a picture is computed from the types of
//! the API alone; every text in it is escaped and cut to its place, so that recorded data is never markup.

mod chart;
mod duration;
mod layout;
mod state_look;

pub use chart::svg;
pub(crate) use duration::duration_text;
