//! The state that a run's machine keeps between two inputs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::ids::Ids;
use super::inputs_outputs::{
    ChildSpec, CommandDelivery, CommandId, DriverEnd, Output, RehearsedRun, SpawnPolicy, WakeCause,
};
use super::log::{AppendHeader, Log};
use super::query_state::QueryState;
use crate::compare::AwaitedIntents;
use crate::names::{RunId, Seq, StepId};
use crate::store::Claim;
use crate::workflow::{ControlCommand, DecisionInputs, EventMisfit, Mode, Plan, Run, StepIndex, StepPart};

/// Identifies a call of the run: step, item, and part (the step's own call, its probe or its undo).
pub(super) type CallName = (StepId, Option<u32>, StepPart);

/// What a machine is built from.
pub(in crate::engine) struct MachineParts {
    pub run: Run,
    pub plan: Arc<Plan>,
    pub decision_inputs: Arc<DecisionInputs>,
    /// Sequence number of the last durable event; 0 for a new run.
    pub durable_seq: Seq,
    /// `None` for a run that is not stored: a rehearsal, or a run of a route with `keep: none`.
    pub append_header: Option<AppendHeader>,
    /// The retry key that the first append claims.
    pub claim: Option<Claim>,
    /// Whether other processes append to the store.
    pub is_store_shared: bool,
    /// The caller that waits for the run's answer.
    pub caller: Option<CallerTerms>,
    /// Whether somebody waits for the run's first append.
    pub has_starter: bool,
    /// Seeds identifiers and jitter.
    pub seed: u64,
    pub now: Timestamp,
}

/// Until when a caller has to be answered, and whether its request may fall back to legacy.
#[derive(Clone, Debug)]
pub(in crate::engine) struct CallerTerms {
    pub may_fall_back: bool,
    /// A little before the caller's deadline, to leave time for recording the answer.
    pub answer_by: Timestamp,
    /// Shortly before the caller's deadline: by then it is answered although the store has not confirmed the answer.
    pub give_up_by: Timestamp,
    /// See [`ArmRequest::awaited_intents`](crate::exchange::ArmRequest::awaited_intents).
    pub awaited_intents: AwaitedIntents,
}

/// Who pauses a run, and why, before the run does anything after its recovery or, in a copied store, its creation.
pub(in crate::engine) struct RecoveryPause {
    /// The name under which the run's events record who paused it.
    pub by: String,
    pub reason: String,
}

/// A reply that was decided and not sent yet. It is made from the run as of the decision, because later events may not
/// be durable when the reply is sent.
pub(super) struct DecidedReply {
    /// It may be sent once this event is durable.
    pub seq: Seq,
    pub run: Arc<Run>,
}

/// A step that waits in a lock's queue.
pub(super) struct LockWait {
    pub step: StepIndex,
    pub name: String,
    /// The event with which the step joined the queue. The queue is queried once this event is durable.
    pub queued: Seq,
    pub needs_query: bool,
    pub query: QueryState,
}

/// A run that this one began and that has not ended.
pub(super) struct ChildUnderWay {
    /// The event that began it; the child is queried once this event is durable.
    pub seq: Seq,
    pub spec: ChildSpec,
    pub needs_query: bool,
    pub query: QueryState,
}

/// The state machine of one run; see the documentation of the module `machine`.
pub(in crate::engine) struct Machine {
    pub(super) run: Run,
    pub(super) plan: Arc<Plan>,
    pub(super) decision_inputs: Arc<DecisionInputs>,
    pub(super) log: Log,
    pub(super) ids: Ids,
    /// The time of the last input.
    pub(super) now: Timestamp,
    /// How far a rehearsal's virtual clock is ahead of the real one: its waits elapse at once.
    pub(super) clock_offset: SignedDuration,
    pub(super) out: Vec<Output>,
    pub(super) frozen: bool,
    pub(super) draining: bool,
    pub(super) caller: Option<CallerTerms>,
    pub(super) caller_gone: bool,
    /// Whether the request of a caller that went away while the process drained may go to legacy when it is retried.
    pub(super) gone_caller_may_fall_back: bool,
    pub(super) has_starter: bool,
    pub(super) step_indexes: HashMap<StepId, StepIndex>,
    pub(super) calls_in_flight: usize,
    /// Attempts that are sent once their `StepStarted`, at this sequence number, is durable (0: at once).
    pub(super) unsent_attempts: Vec<(Seq, CallName)>,
    /// Attempts that another process may have sent already.
    pub(super) possible_repeats: HashSet<CallName>,
    /// How many queries and messages to locks, children and the store are in flight.
    pub(super) requests_in_flight: usize,
    /// The locks that steps wait for.
    pub(super) locks: BTreeMap<(StepId, Option<u32>), LockWait>,
    pub(super) children: BTreeMap<RunId, ChildUnderWay>,
    pub(super) spawn_policy: SpawnPolicy,
    /// Whether a child or another descendant waits for a person or a signal.
    pub(super) descendant_waits: bool,
    /// The last command sent to each child, and its delivery once known.
    pub(super) child_commands: HashMap<RunId, (ControlCommand, Option<CommandDelivery>)>,
    /// Commands that came through the store and were handled here.
    pub(super) handled_commands: BTreeSet<Uuid>,
    pub(super) commands_query: QueryState,
    /// Whether a command in the store was left unhandled because another process may have taken the run.
    pub(super) has_deferred_commands: bool,
    /// Another run had pinned the id that this run's answer creates.
    pub(super) pin_is_taken: bool,
    /// Commands that are answered once this sequence number is durable.
    pub(super) command_replies: Vec<(Seq, CommandId)>,
    /// Whether a freeze keeps a step from beginning.
    pub(super) has_frozen_step: bool,
    /// Whether a step or child is not begun because the process drains.
    pub(super) has_deferred_start: bool,
    /// What will wake the run; `Some` while the mailbox is closed or being closed, because the run is to be suspended.
    pub(super) closing: Option<WakeCause>,
    pub(super) mailbox_closed: bool,
    /// Whether the mailbox could not be closed because a message had arrived or the freeze had ended: closing is not
    /// tried again before the next input is fed.
    pub(super) expects_message: bool,
    /// Events up to here have to become durable, because something waits for them.
    pub(super) required_seq: Seq,
    /// The last result of a private or shared call that nothing waits for, and when its append is due.
    pub(super) unawaited_result: Option<(Seq, Timestamp)>,
    /// Events up to here have to be appended, although nothing waits for them.
    pub(super) unawaited_seq: Seq,
    pub(super) decided_reply: Option<DecidedReply>,
    /// Whether the decided reply was announced to the requests with the same retry key.
    pub(super) announced: bool,
    /// Whether the first append claims a retry key that another process may have claimed.
    pub(super) claims_on_shared_store: bool,
    /// Why the run was abandoned to legacy.
    pub(super) abandon_reason: Option<&'static str>,
    /// The reply to the caller because its deadline has come.
    pub(super) deadline_reply: Option<DecidedReply>,
    /// The earliest time that a step waits for.
    pub(super) wake_at: Option<Timestamp>,
    pub(super) armed_timer: Option<Timestamp>,
    /// Whether [`Output::FirstEventDurable`] was returned.
    pub(super) first_event_reported: bool,
    /// Whether [`Output::RetainRetryKey`] was returned.
    pub(super) retry_key_retained: bool,
    pub(super) end: Option<DriverEnd>,
    /// Whether [`Output::End`] was returned.
    pub(super) end_reported: bool,
    /// The event that did not fit the run.
    pub(super) misfit: Option<EventMisfit>,
}

impl Machine {
    pub fn new(parts: MachineParts) -> Self {
        let MachineParts {
            run,
            plan,
            decision_inputs,
            durable_seq,
            append_header,
            claim,
            is_store_shared,
            caller,
            has_starter,
            seed,
            now,
        } = parts;
        let has_claim = claim.is_some();
        let log = Log::new(append_header, claim, durable_seq);
        let is_rehearsed = run.mode() == Mode::Rehearse;
        let step_indexes = plan.steps.iter().enumerate().map(|(index, step)| (step.id.clone(), StepIndex(index)));
        Self {
            step_indexes: step_indexes.collect(),
            claims_on_shared_store: is_store_shared && has_claim,
            log: if is_rehearsed { log.keeping_events() } else { log },
            ids: Ids::new(seed),
            run,
            plan,
            decision_inputs,
            now,
            clock_offset: SignedDuration::ZERO,
            out: Vec::new(),
            frozen: false,
            draining: false,
            caller,
            caller_gone: false,
            gone_caller_may_fall_back: false,
            has_starter,
            calls_in_flight: 0,
            unsent_attempts: Vec::new(),
            possible_repeats: HashSet::new(),
            requests_in_flight: 0,
            locks: BTreeMap::new(),
            children: BTreeMap::new(),
            spawn_policy: SpawnPolicy::Spawn,
            descendant_waits: false,
            child_commands: HashMap::new(),
            handled_commands: BTreeSet::new(),
            commands_query: QueryState::default(),
            has_deferred_commands: false,
            pin_is_taken: false,
            command_replies: Vec::new(),
            has_frozen_step: false,
            has_deferred_start: false,
            closing: None,
            mailbox_closed: false,
            expects_message: false,
            required_seq: Seq(0),
            unawaited_result: None,
            unawaited_seq: Seq(0),
            decided_reply: None,
            announced: false,
            abandon_reason: None,
            deadline_reply: None,
            wake_at: None,
            armed_timer: None,
            first_event_reported: false,
            retry_key_retained: false,
            end: None,
            end_reported: false,
            misfit: None,
        }
    }

    /// The run with all its events, durable or not.
    pub fn run(&self) -> &Run {
        &self.run
    }
    /// The run, with the events of a rehearsal and the intents of the runs below it. Both are empty for other runs, and
    /// if a caller has got them with the answer.
    pub fn into_rehearsed(mut self) -> RehearsedRun {
        let (events, intents_below) = (self.log.take_events(), self.log.take_intents_below());
        RehearsedRun { run: self.run, events, intents_below }
    }
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }
    /// The event that did not fit the run, where one did not ([`DriverEnd::Contradicted`]).
    pub fn misfit(&self) -> Option<&EventMisfit> {
        self.misfit.as_ref()
    }
    /// Replaces the values from the files that expressions see, after a reload. The replies to legacy's calls stay.
    pub fn set_decision_inputs(&mut self, decision_inputs: Arc<DecisionInputs>) {
        let replies = self.decision_inputs.legacy_replies.clone();
        self.decision_inputs = match replies {
            None => decision_inputs,
            replies => Arc::new((*decision_inputs).clone().with_legacy_replies(replies)),
        };
    }
    /// Replaces the plan by one of the same definition, made with reloaded files: only what the files say of services
    /// may differ.
    pub fn set_plan(&mut self, plan: Arc<Plan>) {
        self.plan = plan;
    }
    /// Sequence number of the last durable event.
    pub fn durable_seq(&self) -> Seq {
        self.log.durable_seq()
    }
    /// Requires that the events up to this one are appended as soon as no other append is in flight.
    pub(super) fn require_durable(&mut self, seq: Seq) {
        self.required_seq = self.required_seq.max(seq);
    }
}
