//! Runs: the list, and a run with its flowchart, steps, times and events.

pub(super) mod event_fields;
pub(super) mod event_words;
pub(super) mod flowchart;
pub(super) mod json_view;
pub(super) mod list_page;
pub(super) mod rehearsed_run;
pub(super) mod run;
pub(super) mod run_facts;
pub(super) mod run_filters;
pub(super) mod run_links;
pub(super) mod run_list;
pub(super) mod run_loading;
pub(super) mod run_step;
pub(super) mod run_timeline;
pub(super) mod run_trail;
pub(super) mod run_words;
