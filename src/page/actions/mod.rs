//! What people do to runs: answers, decisions and commands, each asked for once before it is sent.

pub(super) mod amounts;
pub(super) mod answer_request;
pub(super) mod bulk;
pub(super) mod bulk_preview;
pub(super) mod checkpoint_form;
pub(super) mod command;
pub(super) mod command_form;
pub(super) mod command_preview;
pub(super) mod command_request;
pub(super) mod conflict_choices;
pub(super) mod conflict_form;
pub(super) mod conflict_request;
pub(super) mod form_field;
pub(super) mod form_state;
pub(super) mod json_text;
pub(super) mod rerun_preview;
pub(super) mod review_items;
pub(super) mod run_actions;
pub(super) mod schema_form;
pub(super) mod schema_markup;
pub(super) mod schema_values;
pub(super) mod step_names;
