//! Draws the plan of a run as a flowchart: as a file of its own, and in the page of the run.

mod chart;
mod layout;
mod page_chart;
mod parts;
mod state_look;

pub use self::chart::svg;
pub(in crate::page) use self::page_chart::{ChartView, Zoom, page_chart};
pub(in crate::page) use self::parts::{cut, is_open};
pub(in crate::page) use self::state_look::{Look, Shape, look, outline};
