//! What those who wait for a run are told, and when.
//!
//! Always true: nobody is told what is not in the store, however far the run has come since.

use super::exchange::{Announcement, CallerAnswer, End, OrderAnswer, Output, StartAnswer, Ticket};
use super::log::Settled;
use super::state::{Fixed, Machine};
use crate::engine::machine::replies;
use crate::exchange::{Abandoned, ArmReply};
use crate::names::Seq;
use crate::store::AppendError;
use crate::workflow::{Command, Order, RunStatus, RunSummary};

impl Machine {
    /// Tells whoever waits, once what they are told is in the store.
    pub(super) fn tell(&mut self) {
        let stored = self.log.stored();
        if stored > Seq(0) {
            self.tell_starter(StartAnswer::Stored);
        }
        while self.askers.first().is_some_and(|(seq, _)| *seq <= stored) {
            let (_, ticket) = self.askers.remove(0);
            let done = OrderAnswer::Done(Box::new(self.in_store()));
            self.out.push(Output::AnswerOrder(ticket, done));
        }
        if let Some(Fixed { run, .. }) = self.fixed.as_ref().filter(|fixed| fixed.seq <= stored) {
            let status = run.status();
            if !std::mem::replace(&mut self.announced, true) {
                if status == RunStatus::Abandoned {
                    self.out.push(Output::GiveKeyBack);
                }
                self.out.push(Output::Announce(Announcement::Run(run.clone())));
            }
            if let Some(caller) = self.caller.take() {
                let reply = match (status, self.abandoned) {
                    (RunStatus::Abandoned, Some(reason)) => {
                        Some(ArmReply::Abandoned(Abandoned { reason, run: Some(run.id()) }))
                    }
                    _ => replies::of_run(run, Some(&self.plan), &self.world, caller.may_fall_back),
                };
                let reply = reply.unwrap_or_else(|| replies::still_running(run, &self.plan, &self.world));
                self.out.push(Output::AnswerCaller(CallerAnswer::Reply(Box::new(reply))));
            }
        } else if let Some(Fixed { run, .. }) = self.late.as_ref().filter(|late| late.seq <= stored)
            && self.caller.take().is_some()
        {
            let reply = replies::still_running(run, &self.plan, &self.world);
            self.out.push(Output::AnswerCaller(CallerAnswer::Reply(Box::new(reply))));
        }
    }

    pub(super) fn tell_starter(&mut self, answer: StartAnswer) {
        if std::mem::take(&mut self.has_starter) {
            self.out.push(Output::AnswerStarter(answer));
        }
    }

    /// The run as it stands in the store, after an append.
    fn in_store(&self) -> RunSummary {
        let stored = self.log.summary().filter(|_| self.run.seq() > self.log.stored());
        stored.cloned().unwrap_or_else(|| self.run.summary(self.now))
    }

    /// Somebody orders something: refused at once, or done and answered when it is in the store. What changes nothing is
    /// answered from memory, and only where the run is certainly this process's.
    pub(super) fn order(&mut self, ticket: Ticket, order: Order, by: String, owned: bool) {
        let name = order.name();
        match self.put(Command::Order { order, by: by.clone() }) {
            Ok(0) | Err(_) if !owned => self.out.push(Output::AnswerOrder(ticket, OrderAnswer::Elsewhere)),
            Ok(_) => {
                tracing::info!(run = %self.run.id(), command = name, by, "a command is taken");
                self.goes_on();
                self.wants_stored(self.run.seq());
                self.askers.push((self.run.seq(), ticket));
            }
            Err(refusal) => {
                let run = Box::new(self.run.summary(self.now));
                self.out.push(Output::AnswerOrder(ticket, OrderAnswer::Refused { run, refusal }));
            }
        }
    }

    /// The run goes on: what was fixed for those who wait is not any more, unless it is the answer.
    pub(super) fn goes_on(&mut self) {
        if self.run.answer().is_none() && !self.run.is_final() {
            (self.fixed, self.announced) = (None, false);
            self.out.push(Output::Retract);
        }
    }

    /// What became of the append that was under way.
    pub(super) fn appended(&mut self, result: Result<(), AppendError>) {
        let Some(settled) = self.log.settle(result) else { return };
        if !matches!(settled, Settled::NothingStored(_)) && !std::mem::replace(&mut self.key_kept, true) {
            self.out.push(Output::KeepKey);
        }
        match settled {
            Settled::Stored { messages } => {
                if !std::mem::replace(&mut self.born_told, true) {
                    self.out.push(Output::Born);
                }
                self.out.push(Output::Stored(self.log.stored()));
                if messages {
                    self.out.push(Output::MessagesStored);
                }
                // The store took it from this process: the run is its own.
                if std::mem::take(&mut self.left_orders) {
                    self.read_orders();
                }
            }
            Settled::NothingStored(why) => {
                // Nothing is in the store and no effect has left, so nothing was done but reads.
                tracing::warn!(run = %self.run.id(), why, "the store refuses the run");
                self.tell_starter(StartAnswer::NotStored(format!("the store does not take it: {why}")));
                let may_fall_back = self.caller.is_some_and(|caller| caller.may_fall_back);
                self.discard(replies::not_started(may_fall_back, 503, "store_refused", "The store does not take it"));
            }
            Settled::Again { why, times, pause } => {
                tracing::warn!(run = %self.run.id(), why, times, "the store has not kept the run's events yet");
                if let Some(append) = self.log.again() {
                    self.out.push(Output::Append(append, pause));
                }
                if times > 1 {
                    self.tell_unknown("the store does not answer");
                    self.tell_starter(StartAnswer::Unknown("the store does not answer".into()));
                }
            }
            Settled::PinTaken { key, by_other_arm } => {
                // What the run did stays done, and its answer stands.
                match by_other_arm {
                    true => self.out.push(Output::PinCollision(key)),
                    false => tracing::warn!(
                        run = %self.run.id(), family = %key.family, id = %key.id,
                        "the id is another run's already: what follows up sees that run"
                    ),
                }
                let batch = self.ids.next(self.now);
                if let Some(append) = self.log.again_without_pins(batch) {
                    self.out.push(Output::Append(append, std::time::Duration::ZERO));
                }
            }
            Settled::KeyTaken { run, same_request } => {
                self.tell_starter(StartAnswer::OtherRun { run, same_request });
                if self.caller.take().is_some() {
                    self.out.push(Output::AnswerCaller(CallerAnswer::OtherRun { run, same_request }));
                }
                self.end = Some(End::Discarded);
            }
            Settled::Lost(why) => self.lost(&why),
        }
    }

    /// It is not this driver's any more.
    pub(super) fn lost(&mut self, why: &str) {
        tracing::error!(run = %self.run.id(), why, "the run is not this process's any more");
        self.tell_unknown("the run is driven elsewhere");
        self.end = Some(End::Lost);
    }
}
