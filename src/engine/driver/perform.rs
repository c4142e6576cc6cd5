//! Performs each output of the machine.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::Driver;
use crate::engine::machine::{
    CallRequest, CommandAnswer, CommandId, DriverEnd, Input, LockQuery, Measure, Output, WakeCause,
};
use crate::engine::ports::command_sealer::open_commands;
use crate::engine::ports::locks;
use crate::engine::ports::outgoing;
use crate::engine::ports::writer::Writer;
use crate::engine::scheduler::children;
use crate::engine::scheduler::command_error::CommandError;
use crate::engine::scheduler::hand_over;
use crate::engine::scheduler::mailbox::{CommandReply, ExecutionSlot};
use crate::flag::{Freeze, State};
use crate::names::Seq;
use crate::telemetry::LogThrottle;
use crate::workflow::{AttemptResult, EffectClass, Mode};

/// While its lease is uncertain, the process gives up a run for which commands wait. This is the pause before it
/// acquires the run again; without the pause it would acquire and give up the run in a loop until the lease is renewed.
const RECLAIM_PAUSE: jiff::SignedDuration = jiff::SignedDuration::from_millis(250);

/// Throttles the log of runs whose first append the store refused: on a full disk that is every run.
static REFUSED_RUNS: LogThrottle = LogThrottle::new();

impl Driver {
    /// Performs an output; returns the input that performing it produces at once, if any.
    pub(super) fn perform(&mut self, output: Output) -> Option<Input> {
        let run = self.machine.run().id();
        match output {
            Output::Append(append, pause) => {
                if let Some(writer) = &mut self.writer {
                    writer.begin_append(append, pause);
                }
            }
            Output::Call(request) => self.call(request),
            Output::Durable(seq) => self.append_stored(seq),
            Output::WebhookMessagesDurable => self.core.ports.webhook_message_stored.notify_one(),
            Output::PinCollision(key) => {
                if let Some(writer) = &self.writer {
                    writer.report_collision(&key, run);
                }
            }
            Output::QueryLock(query, name) => {
                let queue = locks::queue(&self.core.ports.sealer, &name);
                self.core.schedule.timers.watch_lock(run, &queue);
                let parent = self.machine.run().started().parent.clone();
                let LockQuery { step, item, .. } = query.clone();
                let seen = locks::query(self.core.clone(), name, run, parent, step, item);
                self.query(async move { Input::Lock { query, seen: seen.await } });
            }
            Output::EnsureChild(spec) => {
                if self.writer.is_some() {
                    self.core.schedule.timers.watch_child(run, spec.child);
                }
                let (child, started) = (spec.child, self.machine.run().started().clone());
                let (tasks, spawn_policy) = (&self.core.run_tasks, self.spawn_policy.clone());
                let (core, legacy_sources) = (self.core.clone(), self.legacy_sources.clone());
                let state = tasks.ensure_child(core, started, spawn_policy, spec, self.depth, legacy_sources);
                self.query(async move { Input::Child { child, state: state.await } });
            }
            Output::SetSpawnPolicy(policy) => self.spawn_policy.set(policy),
            Output::CommandChild(child, command) => {
                let delivery = children::send_command(self.core.clone(), child, command, run);
                self.query(async move { Input::ChildCommandDelivered { child, delivery: delivery.await } });
            }
            Output::ReadCommands => {
                let (store, sealer) = (self.core.ports.store.clone(), self.core.ports.sealer.clone());
                let lease_proof = self.writer.as_ref().map(|writer| writer.lease_proof());
                self.query(async move {
                    let commands = store.commands(run).await.ok().map(|commands| open_commands(&sealer, run, commands));
                    Input::StoreCommands { commands, owned: lease_proof.is_none_or(|proof| proof.is_valid()) }
                });
            }
            Output::StoreCommandAnswer(id, answer) => {
                let store = self.core.ports.store.clone();
                self.query(async move {
                    if let Err(error) = store.answer_command(id, answer).await {
                        // The command's sender reads the run instead.
                        tracing::debug!(command = %id, %error, "the answer to a command is not stored");
                    }
                    Input::CommandAnswerStored
                });
            }
            Output::AnswerCommand(command_id, answer) => self.answer_command(command_id, answer),
            // The receivers may have stopped waiting.
            Output::AnswerStarter(answer) => drop(self.starter.take().map(|starter| starter.send(answer))),
            Output::AnswerCaller(mut answer) => {
                self.streams.put_into(&mut answer, self.machine.run());
                drop(self.caller.take().map(|caller| caller.send(answer)));
            }
            Output::RetainRetryKey => {
                if let Some(registration) = &mut self.registration {
                    registration.retain_keys();
                }
            }
            Output::StoreRefused(why) => {
                if let Some(runs) = REFUSED_RUNS.count() {
                    tracing::warn!(
                        %run, why, runs,
                        "the store refused the first append of a run, which was not begun (logged at most once a minute; \
                         `runs`: since the last line)"
                    );
                }
            }
            Output::FirstEventDurable => {
                if let Some(registration) = &mut self.registration {
                    registration.mark_durable();
                }
            }
            Output::GiveRetryKeyToLegacy => {
                if let Some(registration) = &mut self.registration {
                    registration.give_to_legacy(&self.core.ports.affinity);
                }
            }
            Output::Announce(announcement) => {
                if let Some(registration) = &self.registration {
                    registration.announce(|| announcement);
                }
            }
            Output::Retract => {
                if let Some(registration) = &self.registration {
                    registration.retract();
                }
            }
            Output::Measure(measure) => self.measure(&measure),
            Output::Timer(at) => self.timer = at,
            Output::CloseMailbox { has_frozen_step } => {
                return Some(Input::MailboxClosed(self.close_mailbox(has_frozen_step)));
            }
            Output::End(end) => self.end = Some(end),
        }
        None
    }

    fn query(&mut self, query: impl Future<Output = Input> + Send + 'static) {
        self.queries.push(Box::pin(query));
    }

    fn call(&mut self, CallRequest { id, attempt, now }: CallRequest) {
        self.metrics.call_begins(&attempt);
        let request = outgoing::outgoing(
            &self.core.files.limits,
            &self.snapshot,
            self.machine.plan(),
            self.machine.run(),
            &self.credentials,
            id.step,
            &attempt,
            now,
        );
        let result: BoxFuture<'static, AttemptResult> = match request {
            Ok(mut request) => {
                let needs_proof = attempt.effect != EffectClass::Read;
                request.lease_proof = self.writer.as_ref().filter(|_| needs_proof).map(|writer| writer.lease_proof());
                self.withdrawals.push((id, request.withdrawal.clone()));
                // Streamed only to the caller of a run that is not stored: every other run needs the whole body.
                if self.writer.is_none() && self.mode() == Mode::Real && self.caller.is_some() {
                    self.streams.prepare(&mut request);
                }
                self.send_or_answer(&attempt, request)
            }
            Err(result) => Box::pin(std::future::ready(result)),
        };
        self.calls.push(Box::pin(async move { (id, result.await) }));
    }

    /// Events up to `seq` are durable: wakes those who wait for them.
    fn append_stored(&mut self, seq: Seq) {
        let append = self.writer.as_mut().and_then(Writer::take_stored);
        let run = self.machine.run();
        let is_current = run.seq() == seq;
        self.core.schedule.subscriptions.stored(run.id(), seq, append, is_current);
        if is_current {
            children::notify_ancestors_of_wait(&self.core, run);
        }
    }

    fn answer_command(&mut self, command_id: CommandId, answer: CommandAnswer) {
        let Some(sender) = self.command_replies.remove(&command_id) else { return };
        let reply = match answer {
            CommandAnswer::Done(run) => CommandReply::Done(run),
            CommandAnswer::Refused { run, refusal } => CommandReply::Error(CommandError::Refused { run, refusal }),
            CommandAnswer::Unknown(why) => {
                CommandReply::Error(CommandError::Store { why: why.to_owned(), unknown: true })
            }
            CommandAnswer::Elsewhere => CommandReply::Elsewhere,
        };
        let _ = sender.send(reply); // the sender of the command may have stopped waiting
    }

    fn measure(&mut self, measure: &Measure) {
        self.metrics.record(measure, self.machine.run());
    }

    /// Closes the mailbox. Returns false, and leaves it open, if it holds a message, or if the freeze that held a step
    /// has just ended.
    fn close_mailbox(&mut self, has_frozen_step: bool) -> bool {
        let Some(slot) = &mut self.slot else { return false };
        if has_frozen_step {
            self.core.schedule.timers.watch_freeze(slot.run());
            if self.core.process.kill_switch.freeze() != Freeze::Effects {
                return false;
            }
        }
        let closed = slot.close();
        self.takes_messages = !closed;
        closed
    }

    /// Lets another process on the same store go on with the run at once.
    fn hand_over(&self) {
        if let Some(fence) = self.machine.fence() {
            hand_over::begin(&self.core, self.machine.run().id(), fence);
        }
    }

    /// Handles the end of the driver: depending on its cause, sets a timer, wakes the run again or lists it as stuck.
    pub(super) fn handle_end(&mut self, end: DriverEnd) {
        let (run, core): (_, &Arc<_>) = (self.machine.run(), &self.core);
        let (id, status) = (run.id(), run.status());
        self.metrics.task_ended(run, end == DriverEnd::Discarded, matches!(end, DriverEnd::Suspended { .. }));
        tracing::debug!(run = %id, status = status.as_str(), ?end, "the run's task ends");
        if end != DriverEnd::Discarded
            && self.metrics.failed_after_answer(run)
            && let Some(route) = &run.started().route
        {
            tracing::info!(run = %id, %route, status = status.as_str(), "the run failed after its answer was given");
            let rung = match run.mode() {
                Mode::Rehearse => State::Shadow,
                Mode::Dark => State::Dark,
                Mode::Real => State::Live,
            };
            core.ports.late_failures.failed_after_answer(route, &run.started().plan, rung);
        }
        match end {
            DriverEnd::Suspended { cause, wake } => {
                if let Some(at) = wake {
                    core.schedule.timers.set(id, at);
                }
                if *core.process.leaves_runs.borrow() {
                    self.hand_over();
                }
                if cause == WakeCause::Nothing {
                    core.schedule.stuck.add(id, &run.started().workflow, run.seq(), "nothing would resume it");
                }
            }
            DriverEnd::Ended => {
                core.schedule.timers.remove(id);
                children::notify_parent(core, run, self.machine.plan());
            }
            DriverEnd::Discarded => {}
            DriverEnd::Draining => self.hand_over(),
            DriverEnd::OwnershipUncertain if *core.process.leaves_runs.borrow() => self.hand_over(),
            DriverEnd::OwnershipUncertain => match core.process.clock.now().checked_add(RECLAIM_PAUSE) {
                Ok(at) => core.schedule.timers.set(id, at),
                Err(_) => core.schedule.timers.wake_now(id),
            },
            // Nothing of this driver is durable: another process may have created the run under this id, and its timer
            // must stay.
            DriverEnd::Lost | DriverEnd::Contradicted if self.machine.durable_seq() == Seq(0) => {}
            DriverEnd::Contradicted => {
                core.schedule.timers.remove(id);
                if self.writer.is_some() {
                    let misfit = self.machine.misfit().map_or_else(String::new, |misfit| format!(": {misfit}"));
                    let why = format!("its events contradict each other{misfit}");
                    core.schedule.stuck.add_contradicting(
                        id,
                        &run.started().workflow,
                        self.machine.durable_seq(),
                        &why,
                    );
                }
            }
            DriverEnd::Lost => {
                core.schedule.timers.remove(id);
                if self.machine.is_superseded(self.slot.as_ref().and_then(ExecutionSlot::reacquired)) {
                    core.schedule.timers.wake_now(id); // this process owns the run again: it is loaded and goes on
                }
            }
        }
        if end != DriverEnd::Lost {
            let is_stuck =
                matches!(end, DriverEnd::Suspended { cause: WakeCause::Nothing, .. } | DriverEnd::Contradicted);
            if !is_stuck {
                core.schedule.stuck.remove(id);
            }
        }
    }
}
