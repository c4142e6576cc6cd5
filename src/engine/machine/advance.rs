//! Lets `workflow` decide all that is due, records the events, and sends the attempts whose start is durable.

use jiff::Timestamp;

use super::inputs_outputs::{CallId, CallRequest, DriverEnd, Output};
use super::measure::Measure;
use super::state::{CallName, Machine, RecoveryPause};
use crate::names::{RunId, Seq};
use crate::workflow::{
    Action, AttemptResult, Command, CommandRefusal, Conditions, EffectClass, Event, LockPosition, Mode, StepPart,
    address, decide, due, is_requested_repeat, is_to_be_withdrawn, respond_condition_errors,
};

impl Machine {
    /// Records the run's first event.
    pub fn record_started(&mut self) {
        let started = self.run.started().clone();
        let is_awaited = self.has_starter || started.parent.is_some();
        self.log.push(started.started, Event::RunStarted(started), Seq::FIRST);
        if is_awaited {
            self.require_durable(Seq::FIRST);
        }
    }

    /// Records the events that a rerun takes over from the run that it supersedes.
    ///
    /// # Errors
    /// The events do not fit this run.
    pub fn record_taken_over(&mut self, events: Vec<Event>) -> Result<(), String> {
        for event in events {
            self.run.evolve_in_place(&event).map_err(|misfit| misfit.to_string())?;
            self.log.push(self.run.started().started, event, self.run.seq());
        }
        self.require_durable(self.run.seq());
        Ok(())
    }

    /// Pauses a new run in its first append.
    pub fn pause_before_start(&mut self, pause: Option<RecoveryPause>) {
        if let Some(RecoveryPause { by, reason }) = pause {
            self.pause(by, reason);
        }
    }

    /// Continues a run that an earlier driver left unfinished. With `pause` the run is paused first, even if it is
    /// ending, and then nothing is sent before it is resumed. Otherwise attempts in flight are sent again where they
    /// are repeatable, unless the run ends without undoing anything. The others are recorded as interrupted. A call of
    /// a run that a person paused is sent again at once, because the service may have forgotten the idempotency key by
    /// the time the run is resumed.
    pub fn recover(&mut self, is_shared: bool, pause: Option<RecoveryPause>) {
        let is_paused = pause.is_some_and(|RecoveryPause { by, reason }| {
            self.pause(by, reason);
            self.run.is_pause_requested()
        });
        let is_stopped = is_paused || self.run.ends_without_undoing();
        for attempt in self.run.in_flight() {
            let name = (attempt.step.clone(), attempt.item, attempt.part);
            let call = self.plan.step(&attempt.step).and_then(|(_, step)| step.call(attempt.part));
            let is_repeatable =
                attempt.repeatable && call.is_some_and(|call| address::allows_repeat(call, &self.decision_inputs));
            if is_repeatable && !is_stopped {
                self.possible_repeats.insert(name.clone());
                self.unsent_attempts.push((Seq(0), name));
            } else if let Some(step) = self.step_indexes.get(&attempt.step).copied() {
                let (item, part, attempt) = (attempt.item, attempt.part, attempt.attempt);
                let call = CallId { step, item, part, attempt, may_be_repeat: false };
                self.record_result(call, AttemptResult::Interrupted);
            }
        }
        self.query_children();
        if is_shared {
            self.read_commands();
        }
    }

    /// Pauses the run, unless it is paused already.
    fn pause(&mut self, by: String, reason: String) {
        match self.apply_command(Command::PauseCopied { by, reason }) {
            Ok(_) => self.require_durable(self.run.seq()),
            Err(refusal) => {
                tracing::info!(
                    run = %self.run.id(), %refusal,
                    "the run of the copied store was not paused: it is paused already or has ended"
                )
            }
        }
    }

    /// Applies everything that is due, until nothing more can be done without another input.
    pub(super) fn advance(&mut self) {
        let hold_effects = self.frozen && self.run.mode() != Mode::Rehearse;
        loop {
            if self.run.failure().is_some() && !self.run.failed_as_declared() && self.release_request("engine_failed") {
                return;
            }
            let conditions = Conditions { now: self.now, hold_effects };
            (self.wake_at, self.has_frozen_step, self.has_deferred_start) = (None, false, false);
            let mut progressed = false;
            let mut lock_waits = Vec::new();
            for action in due(&self.run, &self.plan, &self.decision_inputs, conditions) {
                match action {
                    // A draining process begins only what a caller waits for.
                    Action::Decide(Command::Begin { .. }) | Action::Child { .. }
                        if self.draining && self.caller.is_none() =>
                    {
                        self.has_deferred_start = true;
                    }
                    Action::Decide(Command::Respond { entry }) => progressed |= self.respond(entry),
                    Action::Decide(command) => progressed |= self.try_command(command),
                    Action::Wait(at) => self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at))),
                    Action::Held(_) => self.has_frozen_step = true,
                    Action::Child { step, item } => {
                        let child = RunId(self.ids.next(self.now));
                        progressed |= self.try_command(Command::BeginChild { step, item, child });
                    }
                    Action::CommandChild { child, command } => self.command_child(child, command),
                    // A run that is not stored (a rehearsal, or a run of a route with `keep: none`) joins no lock's
                    // queue in the store, so it is always first.
                    Action::Lock { step, item, queued, .. } if !self.log.is_kept() => {
                        progressed |=
                            self.try_command(Command::LockSeen { step, item, queued, seen: LockPosition::First });
                    }
                    Action::Lock { step, item, name, queued } => lock_waits.push((step, item, name, queued)),
                }
                if self.end.is_some() {
                    return;
                }
            }
            self.set_lock_waits(lock_waits);
            match self.wake_at {
                _ if progressed => {}
                Some(at) if self.run.mode() == Mode::Rehearse => self.advance_clock(at),
                _ => return,
            }
        }
    }

    /// Whether a call that waits for its turn at the service (`calls_max`, `rate`) must not be sent any more: the run
    /// was paused meanwhile or is ending, or the process drains. Otherwise the call would be sent long after the pause,
    /// the end or the drain was acknowledged.
    pub fn withdraws(&self, call: &CallId) -> bool {
        let CallId { step, item, part, attempt: _, may_be_repeat } = *call;
        if may_be_repeat || !(self.run.is_paused() || self.run.is_ending() || self.draining) {
            return false; // a possible repeat: the previous process may have sent the call already
        }
        let Some(step) = self.plan.steps.get(step.0) else { return false };
        let is_deferred = self.draining && self.caller.is_none() && part != StepPart::Probe;
        // A repeat that a person asked for is not withdrawn, because it settles an unknown outcome.
        !is_requested_repeat(&self.run, step, item, part)
            && (is_deferred || is_to_be_withdrawn(&self.run, step, item, part))
    }

    /// Records the caller's answer, and measures the conditions that had no value. The conditions are evaluated once
    /// more here, because `due` only tells which entry is taken.
    fn respond(&mut self, entry: Option<usize>) -> bool {
        let errors = respond_condition_errors(&self.run, &self.plan, &self.decision_inputs.at(self.now), entry);
        let is_decided = self.try_command(Command::Respond { entry });
        if is_decided && errors > 0 {
            self.out.push(Output::Measure(Measure::RespondConditionErrors(errors)));
        }
        is_decided
    }

    /// Advances a rehearsal's virtual clock, so that its waits elapse at once.
    fn advance_clock(&mut self, to: Timestamp) {
        let more = to.duration_since(self.now);
        if more.is_positive() {
            self.clock_offset = self.clock_offset.checked_add(more).unwrap_or(self.clock_offset);
            self.now = to;
        }
    }

    /// Applies a command; false where `workflow` refuses it, which is normal for a command that came too late.
    pub(super) fn try_command(&mut self, command: Command) -> bool {
        match self.apply_command(command) {
            Ok(_) => true,
            Err(refusal) => {
                tracing::trace!(run = %self.run.id(), %refusal, "not due");
                false
            }
        }
    }

    /// Lets `workflow` decide a command and records the events; returns how many.
    pub(super) fn apply_command(&mut self, command: Command) -> Result<usize, CommandRefusal> {
        let is_control = matches!(command, Command::Control { .. });
        let frozen = (is_control && self.frozen).then(|| (*self.decision_inputs).clone().with_freeze(true));
        let inputs = frozen.as_ref().unwrap_or(&self.decision_inputs);
        let events = decide(&self.run, &self.plan, inputs, command, self.now)?;
        if is_control {
            self.check_fits(&events)?;
        }
        let count = events.len();
        for event in events {
            self.record_event(event);
        }
        Ok(count)
    }

    /// Refuses a command whose events do not fit the run, so that only the command is lost: an event that does not fit
    /// stops the whole run. The events are tried on a copy, which is affordable because commands are rare.
    fn check_fits(&self, events: &[Event]) -> Result<(), CommandRefusal> {
        let mut after = self.run.clone();
        events.iter().try_for_each(|event| after.evolve_in_place(event)).map_err(|misfit| {
            tracing::error!(run = %self.run.id(), %misfit, "the events of a command contradict those of the run: the command is refused");
            CommandRefusal::NotApplicable(format!(
                "the command's events would contradict those of the run ({misfit}), which is a bug: nothing has \
                 changed, and the run goes on without the command; report it to the maintainers"
            ))
        })
    }

    /// Records an event. All events are recorded here, except the first one and those that a rerun takes over. An event
    /// has the time of its decision, so that the decision can be replayed.
    fn record_event(&mut self, event: Event) {
        if self.end.is_some() {
            return;
        }
        if let Err(misfit) = self.run.evolve_in_place(&event) {
            tracing::error!(
                run = %self.run.id(), %misfit,
                "the run's events contradict each other: this process stops executing the run"
            );
            self.misfit = Some(misfit);
            self.end = Some(DriverEnd::Contradicted);
            return;
        }
        self.out.extend(Measure::of(&event, &self.run).map(Output::Measure));
        if let Event::StepStarted(started) = &event {
            let seq = if started.effect == EffectClass::Read { Seq(0) } else { self.run.seq() };
            self.require_durable(seq);
            self.unsent_attempts.push((seq, (started.step.clone(), started.item, started.part)));
        }
        self.track_external(&event);
        self.notify(&event);
        self.log.push(self.now, event, self.run.seq());
    }

    /// Records an event that does not fit the run.
    #[cfg(test)]
    pub fn contradict(&mut self) {
        self.record_event(Event::RunStarted(self.run.started().clone()));
    }

    /// Sends the attempts whose `StepStarted` is durable.
    pub(super) fn send_ready_attempts(&mut self) {
        if self.unsent_attempts.is_empty() || self.end.is_some() {
            return;
        }
        let durable = self.log.durable_seq();
        for (seq, name) in std::mem::take(&mut self.unsent_attempts) {
            match seq > durable {
                true => self.unsent_attempts.push((seq, name)),
                false => self.send_attempt(name),
            }
        }
    }

    fn send_attempt(&mut self, name: CallName) {
        let (step, item, part) = &name;
        let Some(attempt) = self.run.attempt(step, *item, *part) else { return };
        let Some(index) = self.step_indexes.get(step).copied() else { return };
        let may_be_repeat = self.possible_repeats.remove(&name);
        let id =
            CallId { step: index, item: attempt.item, part: attempt.part, attempt: attempt.attempt, may_be_repeat };
        self.calls_in_flight += 1;
        self.out.push(Output::Call(CallRequest { id, attempt, now: self.now }));
    }

    /// Records the result of an attempt.
    pub(super) fn record_result(&mut self, call: CallId, result: AttemptResult) {
        let CallId { step, item, part, attempt, may_be_repeat } = call;
        let jitter = self.ids.jitter();
        let is_recorded =
            self.try_command(Command::Record { step, item, part, attempt, result, may_be_repeat, jitter });
        let call = self.plan.steps.get(step.0).and_then(|step| step.call(part));
        if is_recorded && call.is_some_and(|call| call.effect != EffectClass::Read) {
            self.append_soon(self.run.seq());
        }
    }
}
