//! What those who wait for a run are told, and when.

use std::sync::Arc;

use super::{Born, Driver, Reply, Stop, Told};
use crate::engine::journal::Settled;
use crate::engine::registry::Verdict;
use crate::engine::replies;
use crate::exchange::{Abandoned, ArmReply};
use crate::names::Seq;
use crate::workflow::{Command, Mode, RunStatus};

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
            let summary = Box::new(self.run.summary(self.clock.now()));
            let _ = reply.send(Reply::Done(summary)); // whoever asked may have gone
        }
        let world = &self.snapshot.world;
        if self.fixed.is_some_and(|fixed| fixed <= self.journal.durable()) {
            if let Some(place) = &mut self.place {
                if self.run.status() == RunStatus::Abandoned {
                    place.give_back(&self.core.pins);
                }
                place.settle(|| Verdict::Run(Arc::new(self.run.clone())));
            }
            if let Some(caller) = self.caller.take() {
                let reply = match (self.run.status(), self.abandoned) {
                    (RunStatus::Abandoned, Some(reason)) => {
                        Some(ArmReply::Abandoned(Abandoned { reason, run: Some(self.run.id()) }))
                    }
                    _ => replies::of_run(&self.run, Some(&self.plan), world, caller.may_fall_back),
                };
                let reply = reply.unwrap_or_else(|| replies::still_running(&self.run, &self.plan, world));
                let _ = caller.tell.send(Told::Reply(Box::new(reply))); // the caller may have gone
            }
        } else if self.late.is_some_and(|late| late <= self.journal.durable())
            && let Some(caller) = self.caller.take()
        {
            let reply = replies::still_running(&self.run, &self.plan, world);
            let _ = caller.tell.send(Told::Reply(Box::new(reply)));
        }
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
        self.late = Some(self.run.seq());
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
            Settled::Lost(why) => {
                tracing::error!(run = %self.run.id(), why, "the run is not this process's any more");
                self.tell_problem("the run is driven elsewhere");
                self.stop = Some(Stop::Lost);
            }
        }
    }
}
