//! The inputs and outputs of a run's machine.
//!
//! Always true: these are plain values, without futures, channels or side effects.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::measure::Measure;
use crate::compare::Intent;
use crate::exchange::{ArmReply, Branch, IntentsBelow, RehearsedEvents};
use crate::flag::PinKey;
use crate::names::{Fence, RunId, Seq, StepId, WorkflowName};
use crate::store::{Append, AppendError, ClaimedRequest, CommandRecord};
use crate::workflow::{
    ApprovalAbove, AttemptResult, CommandRefusal, ControlCommand, FailureKind, InFlight, LockPosition, Redaction,
    RouteAbove, Run, RunStatus, RunSummary, SensitivePath, StepIndex, StepPart, TreeEffects,
};

/// Something that happened.
#[derive(Debug)]
pub(in crate::engine) enum Input {
    /// The first input, and only the first.
    Begin {
        /// Whether the kill switch holds private and shared steps that have not begun.
        frozen: bool,
        /// Whether the process drains.
        draining: bool,
    },
    /// Time has passed: the timer may have elapsed.
    Time,
    /// An attempt of a call has a result.
    CallFinished { call: CallId, result: AttemptResult },
    /// The append in flight has a result.
    AppendFinished(Result<(), AppendError>),
    /// A command, whose sender waits for an answer.
    Command {
        /// Identifies the answer.
        command_id: CommandId,
        command: ControlCommand,
        by: String,
        /// Whether certainly no other process has taken the run since the last append, so that the run in memory is
        /// current.
        owned: bool,
    },
    /// The commands for the run that the store holds.
    StoreCommands {
        /// `None`: the store did not answer.
        commands: Option<Vec<CommandRecord>>,
        /// The same as in [`Input::Command`].
        owned: bool,
    },
    /// Storing the answer to a command that came through the store has succeeded or failed.
    CommandAnswerStored,
    /// The state of a lock's queue.
    Lock {
        query: LockQuery,
        /// `None`: the queue is empty, although the step has joined it. It is queried again.
        seen: Option<LockPosition>,
    },
    /// The state of a child.
    Child { child: RunId, state: ChildState },
    /// The result of sending a command to a child.
    ChildCommandDelivered { child: RunId, delivery: CommandDelivery },
    /// A child reports that it has ended.
    ChildEnded(ChildEnd),
    /// A descendant waits for a person or a signal, so the caller is answered now instead of waiting for the run.
    DescendantWaits,
    /// A lock, a child or a command in the store may have changed.
    ExternalChange {
        /// The newest fencing token under which this process acquired the run again while this driver had it.
        reacquired: Option<Fence>,
    },
    /// The kill switch changed: whether private and shared steps are held.
    Freeze(bool),
    /// The process drains.
    Drain,
    /// The caller has stopped waiting.
    CallerGone,
    /// The result of [`Output::CloseMailbox`]; false means that a message had arrived, or that the freeze that held a
    /// step has just ended.
    MailboxClosed(bool),
}

/// Something to do. Outputs are performed in their order.
#[derive(Debug)]
pub(in crate::engine) enum Output {
    /// Submit this append to the store's writer after this pause.
    Append(Arc<Append>, Duration),
    /// Send a call.
    Call(CallRequest),
    /// Events up to here are durable.
    Durable(Seq),
    /// A durable append contains messages to webhooks.
    WebhookMessagesDurable,
    /// The other arm owns the id of the instance that the run created.
    PinCollision(PinKey),
    /// Query the queue of the lock with this name.
    QueryLock(LockQuery, String),
    /// Create a child unless it exists; report its state.
    EnsureChild(ChildSpec),
    /// Whether children may be created now; takes effect before any [`Output::EnsureChild`] that follows.
    SetSpawnPolicy(SpawnPolicy),
    /// Send a command to a child.
    CommandChild(RunId, ControlCommand),
    /// Read the commands for the run that the store holds.
    ReadCommands,
    /// Store the answer to a command that came through the store and caused no event.
    StoreCommandAnswer(Uuid, Value),
    /// Answer the sender of a command.
    AnswerCommand(CommandId, CommandAnswer),
    /// Answer whoever started the run.
    AnswerStarter(StartAnswer),
    /// Answer the caller.
    AnswerCaller(CallerAnswer),
    /// The run may be stored by now, so its retry key stays with the engine.
    RetainRetryKey,
    /// The store refused the run's first append, for this reason: nothing of the run is stored.
    StoreRefused(String),
    /// The run's first event is durable.
    FirstEventDurable,
    /// The request belongs to legacy from now on, and so does its retry key.
    GiveRetryKeyToLegacy,
    /// Announce a result to requests with the same retry key.
    Announce(Announcement),
    /// Withdraw the announcement: the run goes on.
    Retract,
    /// Record in metrics and logs.
    Measure(Measure),
    /// Feed [`Input::Time`] at this time; replaces the earlier timer.
    Timer(Option<Timestamp>),
    /// Close the mailbox if it is empty and the freeze that holds a step is in force, and feed [`Input::MailboxClosed`]
    /// at once.
    CloseMailbox {
        /// Whether a freeze holds a step, so that the end of the freeze has to wake the run.
        has_frozen_step: bool,
    },
    /// The driver ends; nothing follows.
    End(DriverEnd),
}

/// Identifies the answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::engine) struct CommandId(pub u64);

/// One attempt of a step's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct CallId {
    pub step: StepIndex,
    pub item: Option<u32>,
    pub part: StepPart,
    pub attempt: u32,
    /// Whether the previous process may have sent this attempt already.
    pub may_be_repeat: bool,
}

/// An attempt to be sent now.
#[derive(Debug)]
pub(in crate::engine) struct CallRequest {
    pub id: CallId,
    pub attempt: InFlight,
    pub now: Timestamp,
}

/// Which entry of a lock's queue is queried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct LockQuery {
    pub step: StepId,
    pub item: Option<u32>,
    /// Sequence number of the event with which the step joined the queue.
    pub queued: Seq,
}

/// A child that a step begins.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct ChildSpec {
    pub child: RunId,
    pub step: StepId,
    pub item: Option<u32>,
    pub workflow: WorkflowName,
    pub input: Arc<Value>,
    pub route_above: Option<RouteAbove>,
    pub approval_above: Option<ApprovalAbove>,
    /// The sensitive parts of the child's first event.
    pub sensitive_paths: Vec<SensitivePath>,
}

/// How a child ended.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct ChildEnd {
    pub child: RunId,
    pub status: RunStatus,
    pub output: Arc<Value>,
    pub note: Option<String>,
    /// The kind of the failure that ended the child; `None` where it did not fail or the kind is not known.
    pub failure: Option<FailureKind>,
    /// What the child and its descendants did; `None` where that is not known.
    pub tree: Option<TreeEffects>,
    /// The sensitive parts of the body of the child's answer.
    pub sensitive: Vec<SensitivePath>,
}

/// A child of a rehearsal that has ended.
#[derive(Debug)]
pub(in crate::engine) struct RehearsedChild {
    pub end: ChildEnd,
    /// The step that began it.
    pub step: StepId,
    /// For which item.
    pub item: Option<u32>,
    /// Its events and those of the runs below it, which are in no store.
    pub events: RehearsedEvents,
    /// Its intents, with those of the runs below it.
    pub intents: Vec<Intent>,
    /// Replaces its sensitive values in them.
    pub redaction: Option<Arc<Redaction>>,
    /// The same of the runs below it.
    pub redactions_below: Vec<Arc<Redaction>>,
    /// The branch that it took, with those of the runs below it.
    pub branch: Branch,
}

/// A run that was driven to its end, and what is kept of a rehearsal, which is in no store.
pub(in crate::engine) struct RehearsedRun {
    pub run: Run,
    pub events: RehearsedEvents,
    pub intents_below: IntentsBelow,
}

/// The state of a child.
#[derive(Debug)]
pub(in crate::engine) enum ChildState {
    /// It is stored and has not ended.
    Running,
    /// It is not stored, and is not created while its parent is paused.
    NotCreated,
    /// It has ended, or can never start.
    Ended(Box<ChildEnd>),
    /// It was rehearsed, and has ended.
    Rehearsed(Box<RehearsedChild>),
    /// It is not stored and never will be: the files in force do not have its workflow.
    NoWorkflow,
    /// It is not stored and never will be: its workflow refuses its input, for this reason.
    InputRefused(String),
}

/// The result of sending a command to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum CommandDelivery {
    /// The child carried the command out or refused it.
    Done,
    /// The child is not stored yet: the command is sent again once it is running.
    NoRun,
    /// It is unknown whether the command arrived; it is sent again.
    Unknown,
}

/// Whether a run's children may be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::engine) enum SpawnPolicy {
    Spawn = 0,
    /// Children are not created before the run is resumed.
    Wait = 1,
    /// The run is ending.
    Never = 2,
}

/// The answer to the caller.
#[derive(Debug)]
pub(in crate::engine) enum CallerAnswer {
    Reply(Box<ArmReply>),
    /// Another run has the retry key.
    OtherRun {
        run: RunId,
        request: ClaimedRequest,
    },
}

/// The answer to whoever started the run.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) enum StartAnswer {
    /// The run's first event is durable.
    Stored,
    /// Another run has the key.
    OtherRun { run: RunId, request: ClaimedRequest },
    /// Certainly nothing is stored.
    NotStored(String),
    /// Whether anything is stored is unknown.
    Unknown(String),
}

/// The answer to the sender of a command.
#[derive(Debug)]
pub(in crate::engine) enum CommandAnswer {
    /// It was carried out and is durable; with the summary of the run after the command.
    Done(Box<RunSummary>),
    Refused {
        run: Box<RunSummary>,
        refusal: CommandRefusal,
    },
    /// It is unknown whether it was carried out.
    Unknown(&'static str),
    /// Another process owns the run.
    Elsewhere,
}

/// The result that requests with the same retry key get.
#[derive(Clone, Debug)]
pub(in crate::engine) enum Announcement {
    /// The run has an answer, has ended, undoes what it did, or waits for a person.
    Run(Arc<Run>),
    /// The reply that the caller got. Nothing of the run is stored, or an earlier try with the retry key has another
    /// run, whose reply this is.
    Reply(Box<ArmReply>),
}

/// Why a driver ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum DriverEnd {
    /// The run has ended, or is not stored and waits for a person.
    Ended,
    /// The run is suspended until something wakes it.
    Suspended {
        cause: WakeCause,
        /// The time at which it goes on, if any.
        wake: Option<Timestamp>,
    },
    /// Nothing of the run is stored, and no effect was performed.
    Discarded,
    /// The process drains; the next process continues the run.
    Draining,
    /// Another process may have taken the run, and a command needs an answer that only its owner can give: the run is
    /// acquired and loaded again.
    OwnershipUncertain,
    /// Another process owns the run.
    Lost,
    /// An event that was decided does not fit the run: a bug. Nothing of the decision is stored, and the same decision
    /// would follow again, so the run is stuck.
    Contradicted,
}

/// What wakes a suspended run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum WakeCause {
    Time,
    Person,
    Signal,
    /// The end of the freeze.
    Freeze,
    Lock,
    Child,
    /// Nothing: a bug.
    Nothing,
}
