//! `runs …` and `explain`: start runs, show them, follow them, give them commands.

mod chart;
mod common;
mod event_stream;
mod events;
mod list;
mod run_commands;
mod show;
mod start;

pub(crate) use chart::chart;
pub(crate) use events::events;
pub(crate) use list::list;
#[cfg(test)]
pub(crate) use list::table;
pub(crate) use run_commands::{RunCommand, send_command};
#[cfg(test)]
pub(crate) use show::text;
pub(crate) use show::{explain, show};
pub(crate) use start::{follow, start};

#[cfg(test)]
use serde_json::Value;

#[cfg(test)]
pub(crate) fn progress(name: &str, data: Value, format: super::format::Formatter) -> String {
    event_stream::progress(&event_stream::StreamEvent { name: name.to_owned(), data }, format)
}
