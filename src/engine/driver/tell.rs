//! What those who wait for a run are told, and when.
//!
//! Always true: nobody is told what is not on disk, however far the run has come since.

use std::sync::Arc;

use super::{Born, Driver, Fixed, Reply, Stop, Told};
use crate::engine::follow;
use crate::engine::journal::Settled;
use crate::engine::registry::Verdict;
use crate::engine::replies;
use crate::exchange::{Abandoned, ArmReply};
use crate::names::Seq;
use crate::workflow::{Command, Mode, Run, RunStatus, RunSummary};

impl Fixed {
    /// As it stands now.
    pub(super) fn now(run: &Run) -> Self {
        Self { seq: run.seq(), run: Arc::new(run.clone()) }
    }
    /// Something else would be said now; an answer stays what it is.
    pub(super) fn is_old(&self, run: &Run) -> bool {
        self.run.answer().is_none() && (self.run.status() != run.status() || run.answer().is_some())
    }
}

impl Driver {
    /// Tells whoever waits, once what they hear is on disk.
    pub(super) fn tell(&mut self) {
        let durable = self.journal.durable();
        if durable > Seq(0)
            && let Some(starter) = self.starter.take()
        {
            let _ = starter.send(Born::Kept); // whoever started it may have gone
        }
        while self.asking.first().is_some_and(|(seq, _)| *seq <= durable) {
            let (_, reply) = self.asking.remove(0);
            let _ = reply.send(Reply::Done(Box::new(self.on_disk()))); // whoever asked may have gone
        }
        let world = &self.snapshot.world;
        if let Some(Fixed { run, .. }) = self.fixed.as_ref().filter(|fixed| fixed.seq <= durable) {
            let status = run.status();
            if let Some(place) = &mut self.place {
                if status == RunStatus::Abandoned {
                    place.give_back(&self.core.pins);
                }
                place.settle(|| Verdict::Run(run.clone()));
            }
            if let Some(caller) = self.caller.take() {
                let reply = match (status, self.abandoned) {
                    (RunStatus::Abandoned, Some(reason)) => {
                        Some(ArmReply::Abandoned(Abandoned { reason, run: Some(run.id()) }))
                    }
                    _ => replies::of_run(run, Some(&self.plan), world, caller.may_fall_back),
                };
                let reply = reply.unwrap_or_else(|| replies::still_running(run, &self.plan, world));
                let _ = caller.tell.send(Told::Reply(Box::new(reply))); // the caller may have gone
            }
        } else if let Some(Fixed { run, .. }) = self.late.as_ref().filter(|late| late.seq <= durable)
            && let Some(caller) = self.caller.take()
        {
            let reply = replies::still_running(run, &self.plan, world);
            let _ = caller.tell.send(Told::Reply(Box::new(reply)));
        }
    }

    /// The run as it stands on disk, after an append.
    fn on_disk(&self) -> RunSummary {
        let kept = self.journal.kept().filter(|_| self.run.seq() > self.journal.durable());
        kept.cloned().unwrap_or_else(|| self.run.summary(self.clock.now()))
    }

    /// The caller hears that nobody knows; the run goes on, and so do those who wait for its answer.
    fn tell_problem(&mut self, why: &str) {
        if let Some(caller) = self.caller.take() {
            let problem = replies::unknown(Some(&self.run), why);
            let reply = ArmReply::Refused(problem, replies::report(&self.run, Some(&self.plan)));
            let _ = caller.tell.send(Told::Reply(Box::new(reply)));
        }
    }

    /// Nothing of the run is kept: everybody who waits hears the same.
    fn discard(&mut self, reply: ArmReply) {
        let reply = Box::new(reply);
        if let Some(place) = &mut self.place {
            if matches!(*reply, ArmReply::Abandoned(_)) {
                place.give_back(&self.core.pins);
            }
            place.settle(|| Verdict::Said(reply.clone()));
        }
        if let Some(caller) = self.caller.take() {
            let _ = caller.tell.send(Told::Reply(reply));
        }
        self.stop = Some(Stop::Discarded);
    }

    /// The caller's time is over.
    pub(super) fn time_is_over(&mut self) {
        if self.give_back("deadline") {
            return;
        }
        if self.run.mode() == Mode::Rehearse {
            let reply = replies::rehearsal_too_long(&self.run, &self.plan);
            self.discard(reply);
            return;
        }
        self.fix_pending();
        self.late = Some(Fixed::now(&self.run));
        self.need = self.need.max(self.run.seq());
    }

    /// Gives the request back to legacy, where that may still be; a run of which nothing was handed to the writer is
    /// dropped without a word.
    pub(super) fn give_back(&mut self, reason: &'static str) -> bool {
        let may = self.run.mode() == Mode::Real && self.caller.as_ref().is_some_and(|caller| caller.may_fall_back);
        if !may || self.run.effects_begun() || self.run.answer().is_some() || self.run.is_final() {
            return false;
        }
        if self.journal.untouched() {
            self.discard(ArmReply::Abandoned(Abandoned { reason, run: None }));
            return true;
        }
        self.abandoned = Some(reason);
        self.ask(Command::Abandon { reason })
    }

    /// What became of an append.
    pub(super) fn appended(&mut self, settled: Settled) {
        if !matches!(settled, Settled::NothingKept(_))
            && let Some(place) = &mut self.place
        {
            place.keep();
        }
        match settled {
            Settled::Kept => {
                if let Some(place) = &self.place {
                    place.born();
                }
                let (durable, run, clock) = (self.journal.durable(), &self.run, &self.clock);
                let whole = || (run.seq() == durable).then(|| run.summary(clock.now()));
                self.core.watchers.kept(run.id(), durable, whole);
                if run.seq() == durable {
                    follow::waits(&self.core, run);
                }
                if std::mem::take(&mut self.recorded) {
                    self.core.recorded.notify_one();
                }
            }
            Settled::NothingKept(why) => {
                // Nothing is on disk and no effect has left, so nothing was done but reads.
                tracing::warn!(run = %self.run.id(), why, "the store refuses the run");
                if let Some(starter) = self.starter.take() {
                    let _ = starter.send(Born::Nothing(format!("the store does not take it: {why}")));
                }
                let may_fall_back = self.caller.as_ref().is_some_and(|caller| caller.may_fall_back);
                self.discard(replies::not_started(may_fall_back, 503, "store_refused", "The store does not take it"));
            }
            Settled::Later(why, times) => {
                if times > 0 {
                    tracing::warn!(run = %self.run.id(), why, times, "the store has not kept the run's events yet");
                }
                if times > 1 {
                    self.tell_problem("the store does not answer");
                    if let Some(starter) = self.starter.take() {
                        let _ = starter.send(Born::Unknown("the store does not answer".into()));
                    }
                }
            }
            Settled::Claimed { run, same_request } => {
                if let Some(starter) = self.starter.take() {
                    let _ = starter.send(Born::Other { run, same_request });
                }
                if let Some(caller) = self.caller.take() {
                    let _ = caller.tell.send(Told::Other { run, same_request });
                }
                self.stop = Some(Stop::Discarded);
            }
            Settled::Lost(why) => self.lost(&why),
        }
    }

    /// It is not this task's any more.
    pub(super) fn lost(&mut self, why: &str) {
        tracing::error!(run = %self.run.id(), why, "the run is not this process's any more");
        self.tell_problem("the run is driven elsewhere");
        self.stop = Some(Stop::Lost);
    }

    /// This process took the run again: whoever owned it in between may have moved it far.
    pub(super) fn is_retaken(&self) -> bool {
        let fence = self.journal.fence();
        self.seat.as_ref().zip(fence).is_some_and(|(seat, fence)| seat.is_retaken(fence))
    }
}
