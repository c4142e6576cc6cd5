//! PURE. What a workflow is, and how a run of it proceeds.
//!
//! The question it answers: "given what has happened, what happens next?" A [`Plan`] is a checked DAG; a run is the
//! fold of its events ([`evolve`]); [`decide`] turns a command into events or a refusal; [`due`] says which actions a
//! run waits for somebody to perform. Recording and replay go through the same [`evolve`]. No clock, no random, no id
//! generator: they are arguments. Performing is `engine`'s business, keeping is `store`'s.

pub mod address;
mod adoption;
mod approval_above;
mod attempt_result;
mod begin;
mod branch;
mod bytes;
mod call_record;
mod calls;
mod check;
mod checkpoint;
mod child;
mod child_commands;
mod child_input;
mod child_report;
mod choices;
mod command;
mod conflict;
mod control;
mod decide;
mod decision_inputs;
mod definition;
mod done_rows;
mod drafts;
mod due;
mod effects;
mod ending;
mod event;
mod evolve;
mod facts;
mod failure;
mod fallback;
mod graph;
mod inject;
mod interactions;
mod least_approval;
mod legacy_replies;
mod lock;
mod may_begin;
pub mod missing;
mod mode;
mod must_keep;
mod note;
mod outcome;
mod payload;
mod people;
mod performed_effects;
mod plan;
mod plan_version;
mod probe;
mod recorded_bytes;
mod recorded_input;
mod rehearsal;
mod replay;
mod reply_headers;
mod rerun;
mod resolve;
mod respond;
mod result_taken;
mod risk;
mod route_above;
mod rules;
mod run;
mod run_answer;
mod run_snapshot;
mod run_status;
mod schema;
mod sensitive;
mod serde_forms;
mod signal_delivery;
mod skipped;
mod span;
mod status;
mod statuses;
mod step_events;
mod summary;
mod taken_inputs;
mod taken_reply;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tree_effects;
mod undo;
mod undo_state;
mod undone;
mod view;
mod wait;
mod wait_start_times;
mod waiting_caller;
mod waits;
pub mod wire;
mod work_count;

pub use adoption::{AdoptionProgress, progress};
pub use approval_above::ApprovalAbove;
pub use branch::optional_steps;
pub use bytes::{BytesMark, describe_bytes};
pub use call_record::{CallRecord, StepPart};
pub use calls::InFlight;
pub use check::DeclaredNames;
pub use checkpoint::answered_before;
pub use child::OpenChild;
pub use command::{AttemptResult, Command, CommandRefusal, LockPosition, WaitLink};
pub use decide::{decide, input_refused};
pub use decision_inputs::{
    CREDENTIALS, DecisionInputs, STARS, VALUE_DEPTH_MAX, call_scope, deeper_than, is_nested_beyond, reads_hidden,
    values_in,
};
pub use definition::WorkflowDraft;
pub use due::{Action, Conditions, due};
pub use event::{
    AnswerEvent, CheckpointEvent, ChildEvent, ConflictEvent, ControlEvent, EndingEvent, Event, LockEvent, StepEvent,
    WaitEvent,
};
pub use evolve::{EventMisfit, evolve, fold};
pub use facts::{
    AnswerRecord, Creates, Outcome, Parent, Pinned, RetryScheduled, RunStarted, StepFinished, StepStarted, Superseded,
};
pub use failure::{Conflict, ConflictKind, Failure, FailureKind, Missing, MissingForRehearsal};
pub use graph::{EdgeKind, GraphEdge, GraphStep, PlanGraph, StepAction};
pub use inject::{Inject, Injected};
pub use least_approval::approval_above_child;
pub use legacy_replies::{LegacyReplies, LegacyReply, LegacyResult, RehearsedCall};
pub use lock::HASHED_LOCK;
pub use may_begin::{is_requested_repeat, is_to_be_withdrawn, sends};
pub use mode::{EffectClass, Mode};
pub use payload::Payload;
pub use people::{
    CheckpointAnswer, CheckpointKind, Choice, ControlCommand, OnTimeout, OpenCheckpoint, ReviewItem, Risk, UNVERIFIED,
};
pub use plan::{
    Adoption, Call, CallBody, FailureHandling, ForEach, PauseOrFail, Plan, Probe, Rehearsal, Respond, ResponseTemplate,
    Retry, Step, StepIndex, StepKind,
};
pub use plan_version::PlanVersion;
pub use replay::{Divergence, DivergenceKind, replay_with};
pub use reply_headers::RecordedHeaders;
pub use rerun::rerun;
pub use respond::{may_create_instance, respond_condition_errors};
pub use result_taken::{DoneBefore, ResultTaken, UnknownBefore};
pub use route_above::RouteAbove;
pub use rules::{
    Asking, Busy, CheckpointStep, Escalation, Lock, OnReject, RiskRule, RiskSource, Safeguards, SubRun, Until, Wait,
};
pub use run::Run;
pub use run_snapshot::FOLD;
pub use run_status::RunStatus;
pub use schema::Schema;
#[cfg(test)]
pub(crate) use sensitive::parts;
pub use sensitive::{
    FirstValues, Knowledge, KnownValues, Redaction, Sensitive, SensitiveForm, SensitivePart, SensitivePath,
    SensitiveSources, ShownTexts, Taint, child_paths, event_content, legacy_paths, quotes_in_first_event,
};
pub use signal_delivery::SignalDelivery;
pub use skipped::Skipped;
pub use span::{ago, ahead};
pub use status::StepStatus;
pub use statuses::Statuses;
pub use summary::RunSummary;
pub use taken_reply::TakenReply;
pub use tree_effects::TreeEffects;
pub use undo_state::UndoStatus;
pub use view::{RunView, StepView, UndoneView, view, view_and_run};
pub use wait_start_times::WaitStartTimes;
pub use waiting_caller::route_above_child;
pub use waits::{WaitKind, WaitReason, waits};
pub use wire::is_without_content;
