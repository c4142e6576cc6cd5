//! Replies to the caller, the starter and the senders of commands. Also handles the results of appends, because replies
//! wait for them.
//!
//! Always true: a reply shows only durable events, even if the run has newer ones.

use super::inputs_outputs::{Announcement, CallerAnswer, CommandAnswer, CommandId, DriverEnd, Output, StartAnswer};
use super::log::AppendOutcome;
use super::run_report::add_intents_below;
use super::state::{DecidedReply, Machine};
use crate::engine::machine::replies;
use crate::exchange::{Abandoned, ArmAnswer, ArmReply};
use crate::flag::SkipReason;
use crate::names::Seq;
use crate::store::AppendError;
use crate::workflow::{Command, ControlCommand, Mode, RunStatus, RunSummary};

impl Machine {
    /// Sends the replies whose events are durable.
    pub(super) fn send_replies(&mut self) {
        let durable = self.log.durable_seq();
        if durable > Seq(0) {
            self.answer_starter(StartAnswer::Stored);
        }
        while self.command_replies.first().is_some_and(|(seq, _)| *seq <= durable) {
            let (_, command_id) = self.command_replies.remove(0);
            let done = CommandAnswer::Done(Box::new(self.durable_summary()));
            self.out.push(Output::AnswerCommand(command_id, done));
        }
        if let Some(DecidedReply { run, .. }) = self.decided_reply.as_ref().filter(|reply| reply.seq <= durable) {
            let status = run.status();
            if !std::mem::replace(&mut self.announced, true) {
                if status == RunStatus::Abandoned {
                    self.out.push(Output::GiveRetryKeyToLegacy);
                }
                self.out.push(Output::Announce(Announcement::Run(run.clone())));
            }
            if let Some(caller) = self.caller.take() {
                let reply = match (status, self.abandon_reason) {
                    (RunStatus::Abandoned, Some(reason)) => {
                        Some(ArmReply::Abandoned(Abandoned { reason, run: Some(run.id()) }))
                    }
                    _ => {
                        replies::of_run(run, Some(&self.plan), (&self.decision_inputs, self.now), caller.may_fall_back)
                    }
                };
                let reply = reply.unwrap_or_else(|| {
                    replies::still_running(run, Some(&self.plan), (&self.decision_inputs, self.now))
                });
                let mut reply = if self.is_unkept_real_run() { replies::without_run(reply) } else { reply };
                self.note_taken_pin(&mut reply);
                self.hand_over_events(&mut reply);
                self.out.push(Output::AnswerCaller(CallerAnswer::Reply(Box::new(reply))));
            }
        } else if let Some(DecidedReply { run, .. }) = self.deadline_reply.as_ref().filter(|reply| reply.seq <= durable)
            && self.caller.take().is_some()
        {
            let reply = if self.descendant_waits { replies::descendant_waits } else { replies::still_running };
            let mut reply = reply(run, Some(&self.plan), (&self.decision_inputs, self.now));
            // In shadow and dark, a run that pauses is not compared, and neither are its ancestors.
            if self.descendant_waits
                && run.mode() != Mode::Real
                && let ArmReply::Refused(_, report) | ArmReply::Answer(ArmAnswer { report, .. }) = &mut reply
            {
                let why = || (SkipReason::WouldPause, "a run below it is paused".to_owned());
                report.unresolved.get_or_insert_with(why);
            }
            self.note_taken_pin(&mut reply);
            self.out.push(Output::AnswerCaller(CallerAnswer::Reply(Box::new(reply))));
        }
    }

    /// Adds the events of a rehearsal and the intents of the runs below it, which are in no store.
    pub(super) fn hand_over_events(&mut self, reply: &mut ArmReply) {
        if let ArmReply::Refused(_, report) | ArmReply::Answer(ArmAnswer { report, .. }) = reply {
            report.events = self.log.take_events();
            add_intents_below(report, self.log.take_intents_below(), &self.plan);
        }
    }

    fn note_taken_pin(&self, reply: &mut ArmReply) {
        if self.pin_is_taken
            && let ArmReply::Refused(_, report) | ArmReply::Answer(ArmAnswer { report, .. }) = reply
        {
            report.pinned = None;
            report.pin_is_taken = true;
        }
    }

    pub(super) fn answer_starter(&mut self, answer: StartAnswer) {
        if std::mem::take(&mut self.has_starter) {
            self.out.push(Output::AnswerStarter(answer));
        }
    }

    /// The run up to its last durable event.
    fn durable_summary(&self) -> RunSummary {
        let durable = self.log.summary().filter(|_| self.run.seq() > self.log.durable_seq());
        durable.cloned().unwrap_or_else(|| self.summary())
    }

    /// The summary of the run now, without sensitive values.
    pub(super) fn summary(&self) -> RunSummary {
        self.run.shown_summary(self.now, &self.plan)
    }

    /// Applies a command. Its sender is answered once the events that it caused are durable. A refusal, and a command
    /// that changes nothing, are answered from memory. Memory is current only while this process certainly owns the run
    /// (`owned`); otherwise the sender is referred to the run's owner.
    pub(super) fn handle_command(&mut self, command_id: CommandId, command: ControlCommand, by: String, owned: bool) {
        let name = command.name();
        match self.apply_command(Command::Control { command, by: by.clone() }) {
            Ok(0) | Err(_) if !owned => self.out.push(Output::AnswerCommand(command_id, CommandAnswer::Elsewhere)),
            Ok(_) => {
                tracing::info!(run = %self.run.id(), command = name, by, "a command was accepted");
                self.invalidate_reply();
                self.require_durable(self.run.seq());
                self.command_replies.push((self.run.seq(), command_id));
            }
            Err(refusal) => {
                let run = Box::new(self.summary());
                self.out.push(Output::AnswerCommand(command_id, CommandAnswer::Refused { run, refusal }));
            }
        }
    }

    /// Drops the decided reply, because the run goes on; if the reply is the run's answer, it stays.
    pub(super) fn invalidate_reply(&mut self) {
        if self.run.answer().is_none() && !self.run.is_final() {
            (self.decided_reply, self.announced) = (None, false);
            self.out.push(Output::Retract);
        }
    }

    /// Handles the result of the append in flight.
    pub(super) fn handle_append_result(&mut self, result: Result<(), AppendError>) {
        let Some(outcome) = self.log.complete(result) else { return };
        let stores_nothing = matches!(
            outcome,
            AppendOutcome::NothingStored(_) | AppendOutcome::KeyTakenByLegacy | AppendOutcome::KeyTaken { .. }
        );
        if !stores_nothing && !std::mem::replace(&mut self.retry_key_retained, true) {
            self.out.push(Output::RetainRetryKey);
        }
        match outcome {
            AppendOutcome::Durable { has_webhook_messages } => {
                if !std::mem::replace(&mut self.first_event_reported, true) {
                    self.out.push(Output::FirstEventDurable);
                }
                self.out.push(Output::Durable(self.log.durable_seq()));
                if has_webhook_messages {
                    self.out.push(Output::WebhookMessagesDurable);
                }
                // The store checked the fencing token of this append, so this process still owns the run.
                if std::mem::take(&mut self.has_deferred_commands) {
                    self.read_commands();
                }
            }
            AppendOutcome::NothingStored(why) => {
                // No event is stored, and private and shared calls wait for their events: nothing was done but
                // reads.
                self.answer_starter(StartAnswer::NotStored(format!("the store refused it: {why}")));
                self.out.push(Output::StoreRefused(why));
                let may_fall_back = self.caller.as_ref().is_some_and(|caller| caller.may_fall_back);
                self.discard(replies::not_started(may_fall_back, 503, "store_refused", "The store refused the run"));
            }
            AppendOutcome::Retry { why, failures, pause } => {
                tracing::warn!(
                    run = %self.run.id(), why, times = failures,
                    "the run's events could not be appended or the outcome is unknown; the append is retried"
                );
                if let Some(append) = self.log.in_flight() {
                    self.out.push(Output::Append(append, pause));
                }
                if failures > 1 && self.required_seq > self.log.durable_seq() {
                    self.answer_caller_unknown("the store does not answer");
                    self.answer_starter(StartAnswer::Unknown("the store does not answer".into()));
                }
            }
            AppendOutcome::PinTaken { key, by_other_arm } => {
                // The run's effects and its answer stand; only the pin is not recorded.
                match by_other_arm {
                    true => self.out.push(Output::PinCollision(key.clone())),
                    false if self.run.mode() == Mode::Real => tracing::warn!(
                        run = %self.run.id(), family = %key.family, id = %key.id,
                        "another run has pinned this id already: follow-up requests go to that run"
                    ),
                    false => tracing::warn!(
                        run = %self.run.id(), family = %key.family, id = %key.id,
                        "legacy has answered a create with this id before: whether it is a new instance is not known, so \
                         its follow-up requests are not run on a twin"
                    ),
                }
                self.pin_is_taken = true;
                let batch = self.ids.next(self.now);
                if let Some(append) = self.log.without_pin(&key, batch) {
                    self.out.push(Output::Append(append, std::time::Duration::ZERO));
                }
            }
            AppendOutcome::KeyTaken { run, request } => {
                self.answer_starter(StartAnswer::OtherRun { run, request });
                if self.caller.take().is_some() {
                    self.out.push(Output::AnswerCaller(CallerAnswer::OtherRun { run, request }));
                }
                self.end = Some(DriverEnd::Discarded);
            }
            AppendOutcome::KeyTakenByLegacy => {
                // This was the first append, and private and shared calls are sent only after it: nothing was done but
                // reads.
                self.answer_starter(StartAnswer::NotStored("legacy took the first try of its retry key".into()));
                let may_fall_back = self.caller.as_ref().is_some_and(|caller| caller.may_fall_back);
                self.discard(replies::taken_by_legacy(may_fall_back));
            }
            AppendOutcome::Lost(why) => self.lose_ownership(&why),
        }
    }

    /// Ends the driver, because this process no longer owns the run.
    pub(super) fn lose_ownership(&mut self, why: &str) {
        tracing::error!(run = %self.run.id(), why, "this process no longer owns the run and stops executing it");
        self.answer_caller_unknown("another process executes the run");
        self.end = Some(DriverEnd::Lost);
    }
}
