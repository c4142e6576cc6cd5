//! What goes into a run's machine and what comes out of it.
//!
//! Always true: these are plain values; nothing in here can wait, be sent to twice, or be dropped with an effect.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::measure::Measure;
use crate::exchange::ArmReply;
use crate::flag::PinKey;
use crate::names::{Fence, RunId, Seq, StepId, WorkflowName};
use crate::store::{Append, AppendError, OrderRecord};
use crate::workflow::{Heard, InFlight, LockSeen, Order, Part, Refusal, Run, RunStatus, RunSummary, StepIndex};

/// Something that happened.
#[derive(Debug)]
pub(in crate::engine) enum Input {
    /// The driver is ready: nothing of the run has been done here before. Comes first, and once.
    Begin {
        /// Private and shared steps that have not begun are held.
        frozen: bool,
        /// The process ends soon.
        draining: bool,
    },
    /// Time has passed: the timer that was asked for is over, or may be.
    Time,
    /// An attempt of a call is over.
    Called {
        /// Which.
        call: CallId,
        /// What came of it.
        heard: Heard,
    },
    /// The append that is under way is settled.
    Appended(Result<(), AppendError>),
    /// Somebody orders something and waits for an answer.
    Order {
        /// Names the answer.
        ticket: Ticket,
        /// What.
        order: Order,
        /// Who.
        by: String,
        /// Certainly nobody else has taken the run since the last append: what the machine remembers may be told.
        owned: bool,
    },
    /// What is ordered through the store.
    StoreOrders {
        /// `None`: the store did not answer.
        orders: Option<Vec<OrderRecord>>,
        /// As of [`Input::Order`].
        owned: bool,
    },
    /// The answer to an order that came through the store was written, or cannot be.
    OrderSettled,
    /// The queue of a lock was looked at.
    Lock {
        /// Which.
        look: LockLook,
        /// `None`: the step does not stand in it.
        seen: Option<LockSeen>,
    },
    /// A child was looked at.
    Child {
        /// Which.
        child: RunId,
        /// What was seen.
        seen: ChildSeen,
    },
    /// An order for a child was delivered, or not.
    ChildTold {
        /// Which.
        child: RunId,
        /// What became of it.
        delivery: Delivery,
    },
    /// A child says that it has ended.
    ChildEnded(ChildEnd),
    /// A run below this one waits for a person or a signal: a caller does not wait with it.
    WaitsBelow,
    /// A lock, a child or an order in the store may have changed.
    Changed {
        /// The highest number under which this process took the run again while this driver had it.
        taken_again: Option<Fence>,
    },
    /// The kill switch was moved.
    Freeze(bool),
    /// The process ends soon.
    Drain,
    /// Nobody waits for the answer any more.
    CallerGone,
    /// The answer to [`Output::CloseMailbox`]: closed, or something had come.
    MailboxClosed(bool),
}

/// Something to do. Outputs are performed in their order.
#[derive(Debug)]
pub(in crate::engine) enum Output {
    /// Hand this to the store's writer, after this pause.
    Append(Arc<Append>, Duration),
    /// Send a call.
    Call(Departure),
    /// The run's events up to here are in the store.
    Stored(Seq),
    /// An append that was acknowledged holds messages to webhooks.
    MessagesStored,
    /// The id of the instance that the run created is another arm's.
    PinCollision(PinKey),
    /// Look at a lock's queue.
    LookAtLock(LockLook, String),
    /// See that a child exists, or how it ended.
    LookAfterChild(ChildSpec),
    /// Whether children may be born now; in force before any look that follows.
    Spawn(SpawnPolicy),
    /// Order something of a child.
    TellChild(RunId, Order),
    /// Read what is ordered through the store.
    ReadOrders,
    /// Answer an order that came through the store and changed nothing.
    SettleOrder(Uuid, Value),
    /// Answer somebody who ordered something.
    AnswerOrder(Ticket, OrderAnswer),
    /// Answer whoever started the run.
    AnswerStarter(StartAnswer),
    /// Answer the caller.
    AnswerCaller(CallerAnswer),
    /// The run may be in the store: its retry key stays the engine's.
    KeepKey,
    /// The run's first event is in the store.
    Born,
    /// The request is legacy's from now on.
    GiveKeyBack,
    /// Tell those who came with the same retry key.
    Announce(Announcement),
    /// What was announced holds no more: the run goes on.
    Retract,
    /// Something to count.
    Measure(Measure),
    /// Feed [`Input::Time`] at this time; it takes the place of the one before.
    Timer(Option<Timestamp>),
    /// Take no more messages, and feed [`Input::MailboxClosed`] at once.
    CloseMailbox {
        /// The run is held by the freeze: it has to be woken when that ends.
        held: bool,
    },
    /// The driver ends; nothing follows.
    End(End),
}

/// Names somebody who waits for the answer to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::engine) struct Ticket(pub u64);

/// One attempt of a step's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct CallId {
    pub step: StepIndex,
    pub item: Option<u32>,
    pub part: Part,
    pub attempt: u32,
    /// Another process may have sent this attempt before.
    pub again: bool,
}

/// An attempt that leaves now.
#[derive(Debug)]
pub(in crate::engine) struct Departure {
    pub id: CallId,
    pub attempt: InFlight,
    pub now: Timestamp,
}

/// One look at a lock's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct LockLook {
    pub step: StepId,
    pub item: Option<u32>,
    /// The place of the event with which the step joined the queue.
    pub queued: Seq,
}

/// What a run begins for one of its steps.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct ChildSpec {
    pub child: RunId,
    pub step: StepId,
    pub item: Option<u32>,
    pub workflow: WorkflowName,
    pub input: Arc<Value>,
}

/// How a run ended that another one began.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct ChildEnd {
    pub child: RunId,
    pub status: RunStatus,
    pub output: Arc<Value>,
    pub note: Option<String>,
    /// It did something that a person may want to take back.
    pub effects: bool,
}

/// What a look at a child came to.
#[derive(Debug)]
pub(in crate::engine) enum ChildSeen {
    /// It is in the store and has not ended.
    Alive,
    /// It is not in the store, and is not born while its parent is paused.
    Unborn,
    /// It has ended, or can never begin.
    Ended(Box<ChildEnd>),
}

/// What became of an order for a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Delivery {
    /// It is done, or refused.
    Done,
    /// The child is not in the store: order it again when a look has found it.
    NoRun,
    /// Unknown: order it again.
    Unknown,
}

/// Whether a run's children may be born.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::engine) enum SpawnPolicy {
    /// They may.
    Spawn = 0,
    /// The run is paused: not until it goes on.
    Wait = 1,
    /// The run ends: never.
    Never = 2,
}

/// What a caller is told.
#[derive(Debug)]
pub(in crate::engine) enum CallerAnswer {
    /// This.
    Reply(Box<ArmReply>),
    /// Another run has the retry key.
    OtherRun { run: RunId, same_request: bool },
}

/// What whoever started the run is told.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) enum StartAnswer {
    /// Its first event is in the store.
    Stored,
    /// Another run has the key.
    OtherRun { run: RunId, same_request: bool },
    /// Nothing is in the store, for sure.
    NotStored(String),
    /// Whether it is in the store is unknown.
    Unknown(String),
}

/// What whoever ordered something is told.
#[derive(Debug)]
pub(in crate::engine) enum OrderAnswer {
    /// It is done, and in the store: the run then.
    Done(Box<RunSummary>),
    /// It is refused.
    Refused { run: Box<RunSummary>, refusal: Refusal },
    /// Whether it was done is unknown.
    Unknown(&'static str),
    /// Another process has the run.
    Elsewhere,
}

/// What those are told who came with the retry key of this run.
#[derive(Clone, Debug)]
pub(in crate::engine) enum Announcement {
    /// The run has an answer, has ended, or waits for a person.
    Run(Arc<Run>),
    /// Nothing of the run is kept, and this was answered.
    Reply(Box<ArmReply>),
}

/// Why a driver ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum End {
    /// The run has ended, or is a rehearsal that waits for a person.
    Settled,
    /// The run waits.
    Resting {
        /// What for.
        cause: RestCause,
        /// The time at which it wants to go on, if any.
        wake: Option<Timestamp>,
    },
    /// Nothing of the run is kept, and nothing was done.
    Discarded,
    /// The process ends: the next one goes on.
    Draining,
    /// Another process may have taken the run, and somebody wants an answer that only its owner can give: it is taken
    /// and read anew.
    Doubtful,
    /// The run belongs to somebody else, or its events do not fit together.
    Lost,
}

/// What wakes a run that rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum RestCause {
    /// A time.
    Time,
    /// A person.
    Person,
    /// A signal.
    Signal,
    /// The end of a freeze.
    Freeze,
    /// A lock.
    Lock,
    /// A child.
    Child,
    /// Nothing: a bug.
    Nothing,
}
