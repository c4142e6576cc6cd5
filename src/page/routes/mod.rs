//! Routes: the overview, a route with its gate and evidence, moving it, the kill switch, and the record of moves.

pub(super) mod evidence_parts;
pub(super) mod evidence_words;
pub(super) mod flip;
pub(super) mod flip_form;
pub(super) mod freeze;
pub(super) mod freeze_state;
pub(super) mod gate;
pub(super) mod latency_chart;
pub(super) mod move_notice;
pub(super) mod moves;
pub(super) mod overview;
pub(super) mod record;
pub(super) mod record_entries;
pub(super) mod route;
pub(super) mod route_data;
pub(super) mod route_notes;
pub(super) mod rungs;
pub(super) mod track;
pub(super) mod trouble;
